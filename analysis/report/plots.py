"""The figures that only the report has: from rows of the views to what plotly shows."""

import math

import numpy as np
import plotly.graph_objects as go
from scipy.cluster.hierarchy import leaves_list, linkage

from attribeam.analysis.plots.figures import COLOURS, Row, styled
from attribeam.analysis.report.values import Array

HEIGHT = 450
_LABELLED = 15  # Methods in an agreement matrix whose cells have their numbers in them.

_DIVERGING = [[0, "#D55E00"], [0.5, "#F7F7F7"], [1, "#0072B2"]]
AGREEMENTS = {
    "spearman": ("Spearman's rank correlation", -1),
    "kendall": ("Kendall's tau b", -1),
    "jaccard": ("common share of the top quarter (Jaccard)", 0),
}


def agreement_map(rows: list[Row], measure: str, name: str) -> go.Figure:
    """How far each two methods agree, as a square of colours."""
    methods = sorted({row[side] for row in rows for side in ("method_a", "method_b")})
    matrix = np.full((len(methods), len(methods)), np.nan)
    np.fill_diagonal(matrix, 1)
    for row in rows:
        a, b = methods.index(row["method_a"]), methods.index(row["method_b"])
        matrix[a, b] = matrix[b, a] = row[measure]
    order = _side_by_side(np.nan_to_num(matrix))
    names = [methods[at] for at in order]
    lowest = AGREEMENTS[measure][1]
    figure = go.Figure()
    figure.add_heatmap(
        x=names,
        y=names,
        z=[
            [None if math.isnan(value) else float(value) for value in line]
            for line in matrix[np.ix_(order, order)]
        ],
        zmin=lowest,
        zmax=1,
        colorscale=_DIVERGING if lowest < 0 else "Cividis",
        texttemplate="%{z:.2f}" if len(names) <= _LABELLED else "",
        hovertemplate="%{x}, %{y}: %{z:.3f}<extra></extra>",
        xgap=1,
        ygap=1,
    )
    figure.update_xaxes(type="category", tickangle=-45, automargin=True, showgrid=False)
    figure.update_yaxes(type="category", automargin=True, autorange="reversed", showgrid=False)
    size = max(HEIGHT, 190 + 24 * len(names))
    return styled(figure, name[0].upper() + name[1:]).update_layout(
        height=size, hovermode="closest"
    )


def _side_by_side(likeness: Array) -> list[int]:
    """An order in which what is alike stands together: by average linkage, leaves in the best turn.

    Two have but one order.
    """
    count = len(likeness)
    if count <= 2:
        return list(range(count))
    distances = np.clip(1 - likeness, 0, None)[np.triu_indices(count, 1)]
    tree = linkage(distances, "average", optimal_ordering=True)
    return [int(leaf) for leaf in leaves_list(tree)]


def head_map(rows: list[Row], measure: str, name: str) -> go.Figure:
    """A measure of each head, layers from the bottom to the top."""
    layers = sorted({row["layer"] for row in rows})
    heads = sorted({row["head"] for row in rows})
    found = {(row["layer"], row["head"]): row[measure] for row in rows}
    figure = go.Figure()
    figure.add_heatmap(
        x=[f"head {head}" for head in heads],
        y=[f"layer {layer}" for layer in layers],
        z=[[found.get((layer, head)) for head in heads] for layer in layers],
        colorscale="Cividis",
        texttemplate="%{z:.3g}",
        hovertemplate="%{y}, %{x}: %{z:.4g}<extra></extra>",
        xgap=1,
        ygap=1,
    )
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(showgrid=False)
    return styled(figure, f"{rows[0]['method']}: {name}").update_layout(
        height=max(260, 130 + 34 * len(layers)), hovermode="closest"
    )


def receptive_field(rows: list[Row]) -> go.Figure:
    """Distance from which the trees' edges take, layer by layer."""
    figure = go.Figure()
    lines = list(dict.fromkeys((row["method"], row["algorithm"]) for row in rows))
    for number, (method, algorithm) in enumerate(lines):
        own = [row for row in rows if (row["method"], row["algorithm"]) == (method, algorithm)]
        figure.add_scatter(
            x=[row["layer"] + 0.02 * number for row in own],
            y=[row["mean"] for row in own],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [max(0.0, row["p75"] - row["mean"]) for row in own],
                "arrayminus": [max(0.0, row["mean"] - row["p25"]) for row in own],
            },
            customdata=[[row["n"], row["median"], row["local"]] for row in own],
            name=f"{method}, {algorithm}",
            mode="lines+markers",
            line={"color": COLOURS[number % len(COLOURS)]},
            hovertemplate="mean %{y:.2f}, median %{customdata[1]}, neighbours "
            "%{customdata[2]:.0%} of %{customdata[0]} edges",
        )
    figure.update_xaxes(title="layer", dtick=1)
    figure.update_yaxes(title="distance in tokens", rangemode="tozero")
    return styled(figure, "Receptive field of attribution trees")
