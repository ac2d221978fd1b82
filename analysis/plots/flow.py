"""Plots of perturbation curves, and of where information is, layer by layer."""

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from attribeam.analysis.plots.figures import COLOURS, Plot, Row, styled

_ROLES = ("readout", "special", "rationale", "text", "punctuation")
_MOST_METHODS = len(COLOURS)


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
    return styled(figure, f"Information flow: {rows[0]['method']} (solid: right, dashed: wrong)")


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
    return styled(
        figure, f"Degradation (dashed: least relevant first, solid: most relevant first{more})"
    )


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


FLOW_PLOTS = {
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
}
