"""The figures of the evidence page: mean ranks, and similarity under randomised weights."""

from collections.abc import Iterator
from functools import partial

import duckdb
import plotly.graph_objects as go
from scipy.stats import chi2

from attribeam.analysis.plots.figures import COLOURS, Row, styled
from attribeam.analysis.report.checks import of_largest
from attribeam.analysis.report.figures import Section, chosen, cost_section
from attribeam.analysis.report.values import finite, query_rows

_DASHES = ("solid", "dash", "dot", "dashdot")
_METRICS = ("auc_difference", "comprehensiveness", "sufficiency", "aopc")
_LINE, _ROOM = 26, 150  # Pixels of a method's line, and of what is around them.


def evidence_figures(connection: duckdb.DuckDBPyConnection) -> Iterator[tuple[Section, list[str]]]:
    """The sections with figures that the run has rows for, each with the SQL of its numbers."""
    for section, queries in (
        _rank_section(connection),
        _randomisation_section(connection),
        (cost_section(connection), ["from cost_faithfulness"]),
    ):
        if section.figures:
            yield section, queries


def cliques(ranks: list[float], distance: float) -> list[tuple[int, int]]:
    """The longest runs of sorted ranks within a distance, as first and last index, of two or more.

    None is within another.
    """
    found: list[tuple[int, int]] = []
    for first in range(len(ranks)):
        last = max(at for at in range(first, len(ranks)) if ranks[at] - ranks[first] <= distance)
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found


def _rank_section(connection: duckdb.DuckDBPyConnection) -> tuple[Section, list[str]]:
    rows = query_rows(connection, "from mean_ranks where methods > 1")
    ways = sorted(
        {(row["protocol"], row["operation"], row["metric"]) for row in rows},
        key=lambda way: (way[0], way[1], _METRICS.index(way[2])),
    )
    choices = []
    for way in ways:
        own = [row for row in rows if (row["protocol"], row["operation"], row["metric"]) == way]
        if own[0]["critical_difference"] is not None:
            name = f"{way[2]}, {way[1]}" + (f" ({way[0]})" if way[0] != "token" else "")
            choices.append(chosen(name, partial(rank_diagram, name=name), own))
    return (
        Section(
            "ranks",
            "Mean ranks and what differs",
            "On each text methods are ranked; a dot is a method's mean rank with its 95 % "
            "interval, to the left is better. A bar at the right joins methods that don't differ: "
            "their mean ranks are no further apart than the critical difference (Nemenyi, 5 %; "
            "Demsar 2006), which the ruler at the top shows. Ranks say how often a method is "
            "ahead, not by how much, and depend on who else was run.",
            choices,
        ),
        ["from mean_ranks"],
    )


def rank_diagram(rows: list[Row], name: str) -> go.Figure:
    """Mean ranks of methods, the best at the top, with bars over those that don't differ."""
    own = sorted(rows, key=lambda row: (row["mean_rank"], row["method"]))
    distance, count, n = (own[0][key] for key in ("critical_difference", "methods", "n"))
    names = [row["method"] for row in own]
    figure = go.Figure()
    figure.add_scatter(
        x=[row["mean_rank"] for row in own],
        y=list(range(count)),
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [max(0.0, row["high"] - row["mean_rank"]) for row in own],
            "arrayminus": [max(0.0, row["mean_rank"] - row["low"]) for row in own],
            "thickness": 1.2,
        },
        mode="markers",
        marker={"color": COLOURS[0], "size": 9},
        customdata=[[row["method"], row["low"], row["high"]] for row in own],
        hovertemplate="%{customdata[0]}: %{x:.2f} (%{customdata[1]:.2f} to %{customdata[2]:.2f})"
        "<extra></extra>",
    )
    alike = cliques([row["mean_rank"] for row in own], distance)
    lane_width = 0.04 * count
    for lane, (first, last) in enumerate(alike):
        figure.add_scatter(
            x=[count + 0.5 + lane_width * lane] * 2,
            y=[first - 0.25, last + 0.25],
            mode="lines",
            line={"color": COLOURS[1], "width": 4},
            hovertemplate=f"don't differ: {', '.join(names[first : last + 1])}<extra></extra>",
        )
    figure.add_scatter(
        x=[1, 1 + distance],
        y=[-1, -1],
        mode="lines+markers",
        line={"color": COLOURS[1], "width": 2},
        marker={"symbol": "line-ns-open", "size": 10, "color": COLOURS[1]},
        hovertemplate=f"critical difference {distance:.2f}<extra></extra>",
    )
    figure.add_annotation(
        x=1 + distance,
        y=-1,
        text=f" critical difference {distance:.2f}",
        showarrow=False,
        xanchor="left",
    )
    figure.update_yaxes(
        tickvals=list(range(count)),
        ticktext=names,
        range=[count - 0.4, -1.7],
        showgrid=False,
        zeroline=False,
    )
    figure.update_xaxes(
        title="mean rank, 1 is the best",
        zeroline=False,
        range=[0.6, count + 0.7 + lane_width * len(alike)],
        tickvals=list(range(1, count + 1, 1 + count // 12)),
    )
    return styled(figure, f"{name}<br>{n} texts, {_friedman(own[0])}").update_layout(
        height=_ROOM + _LINE * (count + 2), hovermode="closest", showlegend=False
    )


def _friedman(row: Row) -> str:
    statistic = finite(row["friedman"])
    if statistic is None:
        return "all alike"
    p = float(chi2.sf(statistic, row["methods"] - 1))
    return f"Friedman p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}"


def _randomisation_section(connection: duckdb.DuckDBPyConnection) -> tuple[Section, list[str]]:
    rows = of_largest(connection, "randomisation")
    sides = sorted({(row["kind"], row["weights"]) for row in rows})
    choices = [
        chosen(
            f"{kind}, {weights}",
            partial(randomisation_curves, name=f"{kind}, {weights}"),
            [row for row in rows if (row["kind"], row["weights"]) == (kind, weights)],
        )
        for kind, weights in sides
    ]
    return (
        Section(
            "randomised",
            "Randomised weights",
            "Spearman's correlation of scores with those of the untouched model, as parts are "
            "randomised from the output (left) to the input. Low is good; random scores of the "
            "same seed stay at 1, those of another would be at the dotted 0. Methods that depend "
            "on no class can't notice the head, and skips carry the input through whatever is "
            "above it. To pass is no sign of faithfulness.",
            choices,
        ),
        ["from randomisation"],
    )


def randomisation_curves(rows: list[Row], name: str) -> go.Figure:
    """Similarity over the stages of randomised weights, a line for each method."""
    figure = go.Figure()
    parts = {row["stage"]: row["part"] for row in rows}
    for number, method in enumerate(sorted({row["method"] for row in rows})):
        own = sorted((r for r in rows if r["method"] == method), key=lambda row: row["stage"])
        figure.add_scatter(
            x=[row["stage"] for row in own],
            y=[finite(row["spearman"]) for row in own],
            name=method,
            mode="lines+markers",
            line={
                "color": COLOURS[number % len(COLOURS)],
                "dash": _DASHES[number // len(COLOURS) % len(_DASHES)],
            },
            hovertemplate="%{y:.3f}",
        )
    stages = sorted(parts)
    figure.add_hline(y=0, line={"dash": "dot", "color": "#666", "width": 1})
    figure.update_xaxes(
        title="randomised down to", tickvals=stages, ticktext=[parts[stage] for stage in stages]
    )
    figure.update_yaxes(title="Spearman's correlation", range=[-1.05, 1.05])
    n = max(row["n"] for row in rows)
    return styled(figure, f"{name}: {n} texts").update_layout(
        height=480, legend={"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"}
    )
