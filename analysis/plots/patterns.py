"""Plots of influence patterns (Lu et al. 2021): their flow, their consistency, what they keep."""

from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from attribeam.analysis.plots.figures import COLOURS, Plot, Row, styled

_HEAD, _SKIP = "rgba(213, 94, 0, 0.55)", "rgba(130, 130, 130, 0.35)"
_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "x", "star")
_CORRELATED = 3  # Fewer points have a correlation, but one that says nothing.

# In pixels: height of the flow diagram, and of a row's text and what there is at least for a row.
_HEIGHT, _LINE, _ROW = 560, 17, 26
# Share of that height that the links of a layer take together. The rest is space between nodes, of
# which plotly allows two thirds at most.
_FILLED = 0.35
# Least distance of the names of subsets, in shares of what the axis covers.
_APART = 0.045


def pattern_flow(rows: list[Row]) -> go.Figure:
    """The most frequent attention-level pattern of each word, through the layers of one subset.

    A row of the diagram is a role, a column a layer's output. The width of a link is the mean
    |influence| of the patterns; it runs along a head of attention or along a skip connection.
    """
    order = _row_order(rows)
    layers = len(rows[0]["modal_heads"])
    height = max(_HEIGHT, _ROW * len(order))
    places = _places(rows, order, _LINE / height)
    nodes = sorted({place for row in rows for place in enumerate(row["modal_nodes"])})
    number = {place: index for index, place in enumerate(nodes)}
    links = [link for row in rows for link in _links(row, number)]
    figure = go.Figure()
    figure.add_sankey(
        arrangement="fixed",
        node={
            "label": [_label(rows, layer, role) for layer, role in nodes],
            "customdata": [f"{role}@{layer}" for layer, role in nodes],
            "hovertemplate": "%{customdata}: %{value:.3g}<extra></extra>",
            "x": [_inside(layer / layers) for layer, _ in nodes],
            "y": [_inside(places[role]) for _, role in nodes],
            "color": [COLOURS[order.index(role) % len(COLOURS)] for _, role in nodes],
            "pad": height * (1 - _FILLED) / max(1, len(rows) - 1),
            "thickness": 10,
            "line": {"width": 0},
        },
        link={
            name: [link[name] for link in links] for name in ("source", "target", "value", "color")
        }
        | {
            "customdata": [link["text"] for link in links],
            "hovertemplate": "%{customdata}<extra></extra>",
        },
    )
    for name, colour in (("attention head", _HEAD), ("skip connection", _SKIP)):
        figure.add_scatter(
            x=[None], y=[None], name=name, mode="lines", line={"color": colour, "width": 9}
        )
    of = "all instances" if rows[0]["subset"] is None else rows[0]["subset"]
    shown = styled(figure, f"Influence patterns: {rows[0]['method']}, {of} (most frequent ones)")
    shown.update_xaxes(visible=False).update_yaxes(visible=False)
    shown.update_layout(
        height=height + 110,
        hovermode="closest",
        legend={"orientation": "h", "x": 0, "y": -0.02},
        margin={"l": 20, "r": 20, "t": 70, "b": 40},
    )
    return shown


def pattern_consistency(rows: list[Row]) -> go.Figure:
    """Whether accuracy goes with patterns that are alike: a point per subset and role of the word.

    Points of a role are joined from the most consistent subset to the least.
    """
    levels = sorted({row["level"] for row in rows}, reverse=True)
    figure = make_subplots(
        cols=len(levels),
        subplot_titles=[_titled(rows, level) for level in levels],
        shared_yaxes=True,
        horizontal_spacing=0.04,
    )
    roles = list(dict.fromkeys(row["source_role"] for row in _by(rows, "position")))
    for column, level in enumerate(levels, 1):
        for index, role in enumerate(roles):
            own = [row for row in rows if (row["level"], row["source_role"]) == (level, role)]
            own.sort(key=lambda row: (row["entropy"], row["accuracy"]))
            figure.add_scatter(
                x=[row["entropy"] for row in own],
                y=[row["accuracy"] for row in own],
                customdata=[[row["subset"] or "", row["modal_pattern"]] for row in own],
                name=role,
                legendgroup=role,
                showlegend=column == 1,
                mode="lines+markers",
                marker={
                    "symbol": _SYMBOLS[index // len(COLOURS) % len(_SYMBOLS)],
                    "color": COLOURS[index % len(COLOURS)],
                    "size": 10,
                },
                line={"color": "rgba(130, 130, 130, 0.3)", "width": 1},
                hovertemplate=f"{role}, %{{customdata[0]}}: %{{x:.2f}} bits, %{{y:.1%}}"
                "<br>%{customdata[1]}<extra></extra>",
                col=column,
                row=1,
            )
    figure.update_xaxes(title="entropy of the patterns in bits", rangemode="tozero")
    figure.update_yaxes(tickformat=".0%")
    figure.update_yaxes(title="accuracy", col=1)
    named = _subset_heights(rows)
    for subset, height in named.items():
        figure.add_annotation(
            **{"x": 1, "xref": "paper", "xanchor": "left", "xshift": 6, "showarrow": False},
            **{"y": height, "yref": "y", "text": subset, "font": {"size": 11, "color": "#666"}},
        )
    n = rows[0]["n"]
    shown = styled(figure, f"Consistency of patterns: {rows[0]['method']}, {n} instances a point")
    # The legend begins where the names end.
    beside = 1.02 + 0.0085 * max(map(len, named), default=0)
    return shown.update_layout(hovermode="closest", legend={"x": beside, "y": 1})


def pattern_ablation(rows: list[Row]) -> go.Figure:
    """How much of the accuracy is kept where only the nodes of patterns, or others, are kept."""
    figure = go.Figure()
    subsets = list(dict.fromkeys(row["subset"] for row in rows))
    # All instances are the last colour, black; subsets take turns with the others.
    shown = subsets[: len(COLOURS)]
    for subset in shown:
        own = [row for row in rows if row["subset"] == subset]
        figure.add_bar(
            x=[row["kind"].replace("_", " ") for row in own],
            y=[row["accuracy_kept"] for row in own],
            customdata=[[row["accuracy"], _kept(row), row["n"]] for row in own],
            name=subset or "all instances",
            marker_color=COLOURS[shown.index(subset) - 1],
            hovertemplate="%{y:.1%}, accuracy %{customdata[0]:.1%} of %{customdata[2]}"
            "<br>%{customdata[1]}",
        )
    figure.update_xaxes(title="what is kept", categoryorder="array", tickangle=-30, automargin=True)
    figure.update_xaxes(
        categoryarray=list(dict.fromkeys(row["kind"].replace("_", " ") for row in rows))
    )
    figure.update_yaxes(title="accuracy over that of the whole model", tickformat=".0%")
    figure.add_hline(y=1, line={"color": "#999", "dash": "dot", "width": 1})
    left = len(subsets) - len(shown)
    more = f"; {left} more subsets not shown" if left else ""
    return styled(figure, f"Ablation: {rows[0]['method']}, accuracy that is left{more}")


def _row_order(rows: list[Row]) -> list[str]:
    """Roles from the first of the sentence to the last; what no word is the source of, by its end.

    The position read out has no pattern in a masked LM, but all patterns end there.
    """
    position = {row["source_role"]: row["position"] for row in rows}
    for row in rows:
        for role in row["modal_nodes"][1:]:
            position.setdefault(role, row["readout"])
    return sorted(position, key=lambda role: (position[role], role))


def _places(rows: list[Row], order: list[str], line: float) -> dict[str, float]:
    """Middle of each role's row, as a share of the height from the top.

    Rows are as near as their nodes in one column allow, and a line of text; the space that is left
    is shared out between them.
    """
    total = sum(row["modal_influence"] for row in rows) or 1.0
    sizes: dict[str, dict[int, float]] = {role: {} for role in order}
    for row in rows:
        for layer, role in enumerate(row["modal_nodes"]):
            share = _FILLED * row["modal_influence"] / total
            sizes[role][layer] = sizes[role].get(layer, 0) + share
    places: dict[str, float] = {}
    for role, own in sizes.items():
        above = [
            place + max(line, *((own[at] + sizes[other].get(at, 0)) / 2 for at in own))
            for other, place in places.items()
        ]
        places[role] = max([max(own.values()) / 2, *above])
    lowest = max(place + max(sizes[role].values()) / 2 for role, place in places.items())
    space = max(0.0, 1 - lowest) / max(1, len(order) - 1)
    return {
        role: place / max(1.0, lowest) + number * space
        for number, (role, place) in enumerate(places.items())
    }


def _links(row: Row, number: dict[tuple[int, str], int]) -> list[dict[str, Any]]:
    """The links of one word's pattern."""
    path = list(enumerate(row["modal_nodes"]))
    says = f"of {row['source_role']}, influence {row['modal_influence']:.3g}"
    says += f", in {row['modal_share']:.0%} of {row['n']}"
    return [
        {
            "source": number[before],
            "target": number[after],
            "value": row["modal_influence"],
            "color": _SKIP if head == -1 else _HEAD,
            "text": f"layer {layer}, {'skip' if head == -1 else f'head {head}'}<br>{says}",
        }
        for layer, (before, after, head) in enumerate(
            zip(path, path[1:], row["modal_heads"], strict=False)
        )
    ]


def _label(rows: list[Row], layer: int, role: str) -> str:
    """Name of a node, where a pattern begins, ends or changes its row; else the row says it."""
    for row in rows:
        nodes = row["modal_nodes"]
        if nodes[layer] == role and (layer in (0, len(nodes) - 1) or nodes[layer - 1] != role):
            return f"{role}@{layer}"
    return ""


def _inside(share: float) -> float:
    """Plotly takes a place of exactly 0 or 1 for none."""
    return min(max(share, 0.001), 0.999)


def _by(rows: list[Row], column: str) -> list[Row]:
    return sorted(rows, key=lambda row: row[column])


def _titled(rows: list[Row], level: str) -> str:
    """Title of a level's half, with the correlation over all its points."""
    own = [row for row in rows if row["level"] == level]
    correlation = own[0]["correlation"]
    if correlation is None or len(own) < _CORRELATED:
        return f"{level} level"
    return f"{level} level, r = {correlation:.2f}"


def _subset_heights(rows: list[Row]) -> dict[str, float]:
    """Where the name of each subset stands: at its accuracy, or below one that is too near.

    The words of a subset have its accuracy in common, unless some sentences lack the word.
    """
    accuracy: dict[str, float] = {}
    for row in rows:
        if row["subset"] is not None:
            accuracy[row["subset"]] = max(row["accuracy"], accuracy.get(row["subset"], 0.0))
    values = [row["accuracy"] for row in rows]
    apart = _APART * (max(values) - min(values))
    heights: dict[str, float] = {}
    for subset in sorted(accuracy, key=lambda name: (-accuracy[name], name)):
        highest = min(heights.values(), default=float("inf")) - apart
        heights[subset] = min(accuracy[subset], highest)
    return heights


def _kept(row: Row) -> str:
    """What is kept, in numbers."""
    numbers = {name: row[name] for name in ("nodes", "heads", "skips")}
    return ", ".join(f"{value:.1f} {name}" for name, value in numbers.items() if value is not None)


PATTERN_PLOTS: dict[str, Plot] = {
    "pattern_flow": Plot(
        """
        with asked as (
            from pattern_consistency
            where level = 'attention'
                and method = coalesce($method, (select min(method) from pattern_consistency))
        )
        select a.*, (
            select avg(p.nodes[-1])
            from patterns as p
            join instances as i using (instance_id)
            where p.method = a.method and i.subset is not distinct from a.subset
        ) as readout
        from asked as a
        where a.subset is not distinct from coalesce($subset, (select min(subset) from asked))
        order by a.position, a.source_role
        """,
        pattern_flow,
        "run it with --methods influence, and name one of its subsets",
    ),
    "pattern_consistency": Plot(
        """
        select c.*, r.correlation
        from pattern_consistency as c
        join pattern_consistency_accuracy as r using (method, level)
        where r.source_role is null
            and c.accuracy is not null
            and method = coalesce($method, (select min(method) from pattern_consistency))
        order by level, position, subset
        """,
        pattern_consistency,
        "run it with --methods influence on a corpus with labels first",
    ),
    "pattern_ablation": Plot(
        """
        from pattern_ablation_summary
        where kind <> 'whole'
            and accuracy_kept is not null
            and method = coalesce($method, (select min(method) from pattern_ablation_summary))
        order by subset nulls first, list_position(
            [
                'attention', 'embedding', 'attention_no_skip', 'attention_greedy',
                'attention_beam', 'attention_viterbi', 'attention_rollout', 'conductance',
                'internal_influence', 'random', 'nothing'
            ],
            kind
        ) nulls last, kind
        """,
        pattern_ablation,
        "compute the ablations of its patterns first",
    ),
}
