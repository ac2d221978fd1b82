"""What methods cost against how faithful they are, each point with its name."""

import math
from functools import partial

import plotly.graph_objects as go

from attribeam.analysis.plots.figures import COLOURS, CONTROL, Plot, Row, styled
from attribeam.analysis.plots.names import POINT, WIDTHS, names_placed

_HEIGHT = 500
_MARGIN = {"l": 65, "r": 15, "t": 50, "b": 110}
_NAME = {
    "name": POINT,
    "arrowhead": 0,
    "arrowwidth": 0.7,
    "arrowcolor": "#999",
    "standoff": 5,
    "borderpad": 0,
}
# Rows come from the cheapest to the dearest.
COSTS = """
    select method, protocol, operation, seconds_per_instance, degradation, comprehensiveness,
        -sufficiency as sufficiency, auc_difference
    from cost_faithfulness
    where seconds_per_instance > 0
        and (protocol, operation) = (select max((protocol, operation)) from faithfulness)
    order by seconds_per_instance, method
"""


def cost_scatter(rows: list[Row], measure: str, name: str) -> go.Figure:
    """Seconds an instance against a measure of which more is better, and the best for the money.

    Args:
        rows: Those of ``COSTS``.
        measure: The column.
        name: What it is called.
    """
    front = _front(rows, measure)
    best = {row["method"] for row in front}
    others = [row for row in rows if row["method"] not in best]
    figure = go.Figure()
    for own, says in ((others, "others"), (front, "no other is cheaper and better")):
        if own:
            joined = own is front
            figure.add_scatter(
                x=[1000 * row["seconds_per_instance"] for row in own],
                y=[row[measure] for row in own],
                text=[row["method"] for row in own],
                name=says,
                mode="lines+markers" if joined else "markers",
                line={"color": COLOURS[1], "width": 1, "dash": "dot"},
                marker={
                    "color": COLOURS[1 if joined else 0],
                    "symbol": "diamond" if joined else "circle",
                    "size": 11 if joined else 8,
                },
                hovertemplate="%{text}<br>%{x:.3g} ms, %{y:.3f}<extra></extra>",
            )
    _laid_out(figure, rows, measure, name)
    layout = figure.to_plotly_json()["layout"]
    layout["annotations"] = [
        {
            **_NAME,
            "text": row["method"],
            "x": math.log10(1000 * row["seconds_per_instance"]),
            "y": row[measure],
            "font": {"size": 12 if row["method"] in best else 10},
        }
        for row in (*front, *others)
    ]
    return figure.update_layout(names_placed(layout, *WIDTHS[-1]))


def _front(rows: list[Row], measure: str) -> list[Row]:
    """The methods that no other is at once as cheap as and better than."""
    front: list[Row] = []
    for row in rows:
        if row["method"] == CONTROL:  # Cheapest of all, and no method.
            continue
        if not front or row[measure] > front[-1][measure]:
            if front and row["seconds_per_instance"] == front[-1]["seconds_per_instance"]:
                front.pop()
            front.append(row)
    return front


def _laid_out(figure: go.Figure, rows: list[Row], measure: str, name: str) -> None:
    """Axes and margins that are known beforehand, so that it is known where a point will be."""
    times = [math.log10(1000 * row["seconds_per_instance"]) for row in rows]
    figure.update_xaxes(
        title="milliseconds an instance", type="log", range=_span(times), automargin=False
    )
    values = [row[measure] for row in rows]
    figure.update_yaxes(title=name, range=_span(values), automargin=False)
    styled(figure, f"Cost and {name}").update_layout(
        hovermode="closest",
        height=_HEIGHT,
        margin={**_MARGIN, "autoexpand": False},
        legend={"orientation": "h", "x": 0, "yref": "container", "y": 0.01, "yanchor": "bottom"},
    )


def _span(values: list[float]) -> list[float]:
    """An axis that has some room at both ends."""
    room = 0.07 * (max(values) - min(values)) or 0.5
    return [min(values) - room, max(values) + room]


COST_PLOTS = {
    "cost_faithfulness": Plot(
        f"select * from ({COSTS}) where method = coalesce($method, method)"
        " order by seconds_per_instance, method",
        partial(cost_scatter, measure="auc_difference", name="AUC difference"),
        "run it with --evaluate first",
    ),
}
