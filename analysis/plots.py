"""Plots of a run, each a figure over one view of ``schemas.views``.

A plot is one self-contained HTML page: plotly's own script is part of it, so that it opens without
a network. Colours are those of Okabe and Ito (2008), which colour-blind people can tell apart; what
matters is told by line styles and hover texts as well.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.runs import open_run
from schemas import UsageError

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_ROLES = ("readout", "special", "rationale", "text", "punctuation")
_MOST_METHODS = len(COLOURS)

Row = Mapping[str, Any]


class Plot(NamedTuple):
    """A plot that can be asked for.

    Attributes:
        query: The rows it shows; ``$method`` is the method, where one was named.
        draw: From the rows to a figure.
        lacking: What to do if there are no rows.
    """

    query: str
    draw: Callable[[list[Row]], go.Figure]
    lacking: str


def plot(
    folder: str | Path, name: str, output: str | Path | None = None, *, method: str | None = None
) -> Path:
    """Draws a plot of a run into an HTML file.

    Args:
        folder: The run's folder.
        name: One of ``PLOTS``.
        output: Where to; None for ``NAME.html`` in the run's folder.
        method: The method to show, where it shows one; None for the first that there is.

    Returns:
        The file.

    Raises:
        UsageError: If there is no such plot, nothing in the run to show, or the file can't be
            written.
    """
    if name not in PLOTS:
        raise UsageError(f"there is no plot {name!r}; there are {', '.join(PLOTS)}")
    wanted = PLOTS[name]
    with open_run(folder) as connection:
        rows = _rows(connection, wanted.query, method)
    if not rows:
        of = "" if method is None else f" of {method}"
        raise UsageError(f"{folder} has nothing{of} to plot as {name}: {wanted.lacking}")
    figure = wanted.draw(rows)
    path = Path(folder) / f"{name}.html" if output is None else Path(output)
    try:
        path.write_text(page(figure), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error}") from error
    return path


def page(figure: go.Figure) -> str:
    """A figure as a page of its own."""
    html: str = figure.to_html(include_plotlyjs=True, config={"displaylogo": False})
    return html


def information_flow(rows: list[Row]) -> go.Figure:
    """Where the information that a prediction needs is, layer by layer (Jiang et al. 2020).

    Left how much of it, on the right where: an average over right predictions (solid) and wrong
    ones (dashed).
    """
    figure = make_subplots(
        cols=2,
        subplot_titles=("bits that an instance's prediction needs", "share of them, by token"),
        horizontal_spacing=0.09,
    )
    layers = sorted({row["layer"] for row in rows})
    roles = [role for role in _ROLES if any(row["role"] == role for row in rows)]
    for role, colour in zip(roles, COLOURS, strict=False):
        of = [row for row in rows if row["role"] == role]
        total = {
            layer: _mean(of, layer, "total") * _instances(of, layer) / _instances(rows, layer, True)
            for layer in layers
        }
        figure.add_bar(
            x=layers,
            y=[total[layer] for layer in layers],
            name=role,
            legendgroup=role,
            marker_color=colour,
            hovertemplate="%{y:.4g} bits",
            col=1,
            row=1,
        )
        for correct, dash in ((True, "solid"), (False, "dash"), (None, "dot")):
            line = {row["layer"]: row["share"] for row in of if row["correct"] is correct}
            if line:
                says = {True: "right", False: "wrong", None: "without label"}[correct]
                figure.add_scatter(
                    x=sorted(line),
                    y=[line[layer] for layer in sorted(line)],
                    name=f"{role}, {says}",
                    legendgroup=role,
                    showlegend=False,
                    mode="lines+markers",
                    line={"color": colour, "dash": dash},
                    hovertemplate="%{y:.1%}",
                    col=2,
                    row=1,
                )
    figure.update_layout(barmode="stack")
    figure.update_xaxes(title="bottleneck after layer", dtick=1)
    figure.update_yaxes(tickformat=".0%", rangemode="tozero", col=2)
    return _styled(figure, f"Information flow: {rows[0]['method']} (solid: right, dashed: wrong)")


def degradation(rows: list[Row]) -> go.Figure:
    """The degradation test: probability of the explained class as tokens are removed.

    Normalised as in Schulz et al. 2020; the area between a method's two curves is its score.
    """
    figure = go.Figure()
    methods = list(dict.fromkeys(row["method"] for row in rows))
    for method, colour in zip(methods[:_MOST_METHODS], COLOURS, strict=False):
        for order, dash in (("lerf", "dash"), ("morf", "solid")):
            line = [row for row in rows if row["method"] == method and row["order"] == order]
            figure.add_scatter(
                x=[row["fraction"] for row in line],
                y=[row["normalised"] for row in line],
                name=f"{method} ({line[0]['degradation']:.3f})" if line else method,
                legendgroup=method,
                showlegend=order == "morf",
                mode="lines",
                line={"color": colour, "dash": dash},
                hovertemplate=f"{method}, {order}: %{{y:.3f}}",
            )
    figure.update_xaxes(title="share of the tokens removed", tickformat=".0%")
    figure.update_yaxes(title="normalised probability")
    left = len(methods) - _MOST_METHODS
    more = f"; {left} more methods not shown" if left > 0 else ""
    return _styled(
        figure, f"Degradation (dashed: least relevant first, solid: most relevant first{more})"
    )


def pruning(rows: list[Row]) -> go.Figure:
    """Accuracy and loss as the least important heads are pruned (Hao et al. 2021).

    A line per measure of importance; of random orders the mean, over a band from the worst to the
    best of them.
    """
    figure = make_subplots(cols=2, subplot_titles=("accuracy", "loss"), horizontal_spacing=0.09)
    known = ("attattr", "taylor_loss", "taylor_logits", "attention", "random")
    names = [name for name in known if any(row["importance"] == name for row in rows)]
    for column, measure in enumerate(("accuracy", "loss"), 1):
        for name in names:
            colour = COLOURS[known.index(name)]
            own = [row for row in rows if row["importance"] == name]
            if name == "random":
                _add_band(figure, own, measure, colour, column)
            means = _by_rate(own, measure, lambda values: sum(values) / len(values))
            seeds = len({row["seed"] for row in own})
            figure.add_scatter(
                x=list(means),
                y=list(means.values()),
                name=f"{name} (mean of {seeds})" if seeds > 1 else name,
                legendgroup=name,
                showlegend=column == 1,
                mode="lines+markers",
                line={"color": colour, "dash": "dot" if name == "random" else "solid"},
                hovertemplate="%{y:.1%}" if measure == "accuracy" else "%{y:.3f}",
                col=column,
                row=1,
            )
    figure.update_xaxes(title="share of the heads pruned", tickformat=".0%")
    figure.update_yaxes(tickformat=".0%", col=1)
    figure.update_yaxes(rangemode="tozero", col=2)
    first = rows[0]
    corpus, split = first["corpus"], first["split"]
    of = corpus if split is None or split in corpus else f"{corpus}, {split}"
    others = f"; {first['evaluations'] - 1} more not shown" if first["evaluations"] > 1 else ""
    title = f"Pruning: {first['method']}, {first['n']} texts of {of}{others}"
    return _styled(figure, title)


def _add_band(figure: go.Figure, rows: list[Row], measure: str, colour: str, column: int) -> None:
    """Fills what lies between the lowest and the highest of several rows a rate."""
    for edge, fill in ((min, None), (max, "tonexty")):
        line = _by_rate(rows, measure, edge)
        figure.add_scatter(
            x=list(line),
            y=list(line.values()),
            legendgroup=rows[0]["importance"],
            showlegend=False,
            hoverinfo="skip",
            mode="lines",
            line={"width": 0, "color": colour},
            fill=fill,
            fillcolor=_faint(colour),
            col=column,
            row=1,
        )


def _by_rate(
    rows: list[Row], measure: str, reduce: Callable[[list[float]], float]
) -> dict[float, float]:
    """What the rows of each rate are reduced to, from the least rate to the largest."""
    rates = sorted({row["rate"] for row in rows})
    return {rate: reduce([row[measure] for row in rows if row["rate"] == rate]) for rate in rates}


def _faint(colour: str) -> str:
    """A colour of ``COLOURS``, to be seen through."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, 0.15)"


def _rows(connection: duckdb.DuckDBPyConnection, query: str, method: str | None) -> list[Row]:
    cursor = connection.execute(query, {"method": method} if "$method" in query else None)
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _instances(rows: list[Row], layer: int, most: bool = False) -> int:
    """Number of instances behind the rows of a layer; with ``most``, by the role that all have."""
    counts: dict[str, int] = {}
    for row in rows:
        if row["layer"] == layer:
            counts[row["role"]] = counts.get(row["role"], 0) + row["instances"]
    return max(counts.values(), default=0) if most else sum(counts.values())


def _mean(rows: list[Row], layer: int, column: str) -> float:
    """Mean over instances, right and wrong together."""
    own = [row for row in rows if row["layer"] == layer]
    number = sum(row["instances"] for row in own)
    return float(sum(row[column] * row["instances"] for row in own) / max(1, number))


def _styled(figure: go.Figure, title: str) -> go.Figure:
    figure.update_layout(
        title={"text": title, "x": 0.02},
        template="plotly_white",
        font={"family": "system-ui, sans-serif", "size": 13},
        hovermode="x unified",
        legend={"tracegroupgap": 0},
        margin={"l": 60, "r": 20, "t": 70, "b": 50},
    )
    return figure


PLOTS: dict[str, Plot] = {
    "information_flow": Plot(
        """
        from information_flow
        where method = coalesce($method, (select min(method) from information_flow))
        order by layer, role, correct
        """,
        information_flow,
        "run `attribeam run ... --methods iba --layers` into the folder first",
    ),
    "degradation": Plot(
        """
        select c.*, d.degradation
        from degradation_curves as c
        join degradation as d using (method, protocol, operation)
        where "order" in ('morf', 'lerf') and normalised is not null
            and method = coalesce($method, method)
            and operation = (select max(operation) from degradation)
        order by d.degradation desc nulls last, method, fraction
        """,
        degradation,
        "run it with --evaluate and the orders morf and lerf first",
    ),
    "pruning": Plot(
        """
        with asked as (from pruning where method = coalesce($method, method)),
        chosen as (
            select evaluation
            from asked
            group by evaluation
            order by max(n) desc, count(*) desc, evaluation
            limit 1
        )
        select a.*, (select count(distinct evaluation) from asked) as evaluations
        from asked as a
        semi join chosen using (evaluation)
        order by importance, seed, rate
        """,
        pruning,
        "run `attribeam prune` on it first",
    ),
}
