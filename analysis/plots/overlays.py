"""The plot of a run of pictures: maps laid over them, a column for each method."""

import base64

import plotly.graph_objects as go

from attribeam.analysis.pictures.overlays import OVERLAID, drawn
from attribeam.analysis.plots.figures import Plot, Row, styled

PICTURES = 12  # That are shown.
_SIDE = 130  # Pixels of a picture in the page.
_NONE = "picture"  # What stands above the pictures themselves.


def overlays(rows: list[Row]) -> go.Figure:
    """Pictures, and what each method finds in them, a row for each picture.

    Scores are over the largest of the map; of methods with a sign blue is for the class, and orange
    against it. White is the mask's line.
    """
    pictures = list(dict.fromkeys(row["instance_id"] for row in rows))
    methods = [_NONE, *dict.fromkeys(row["method"] for row in rows)]
    figure = go.Figure()
    figure.add_scatter(
        x=[methods.index(row["method"]) for row in rows],
        y=[pictures.index(row["instance_id"]) for row in rows],
        customdata=[[row["instance_id"], row["method"], _says(row)] for row in rows],
        hovertemplate="%{customdata[1]}<br>%{customdata[0]}: %{customdata[2]}<extra></extra>",
        mode="markers",
        marker={"size": _SIDE, "symbol": "square", "opacity": 0},
        showlegend=False,
    )
    for row in rows:
        _add(figure, drawn(row), methods.index(row["method"]), pictures.index(row["instance_id"]))
    for number, name in enumerate(pictures):
        first = next(row for row in rows if row["instance_id"] == name)
        _add(figure, first["image"], 0, number)
    _add_axes(figure, methods, {row["instance_id"]: _says(row) for row in rows})
    of = rows[0]["of"]
    some = "" if of == len(pictures) else f": {len(pictures)} of {of:,}, chosen by a hash of ids"
    return styled(figure, f"Maps over pictures{some}").update_layout(
        width=200 + _SIDE * len(methods),
        height=130 + _SIDE * len(pictures),
        hovermode="closest",
        margin={"l": 190, "r": 10, "t": 120, "b": 10},
    )


def _says(row: Row) -> str:
    """What the model says of a picture, and what it is."""
    if row["gold"] is None or row["gold"] == row["predicted"]:
        return str(row["predicted"]) + (" ✓" if row["gold"] is not None else "")
    return f"{row['predicted']}, and is {row['gold']}"


def _add(figure: go.Figure, file: bytes, column: int, line: int) -> None:
    """Puts a picture into the figure, in a cell of it."""
    figure.add_layout_image(
        source="data:image/png;base64," + base64.b64encode(file).decode(),
        **{"x": column, "y": line, "xref": "x", "yref": "y", "xanchor": "center"},
        **{"yanchor": "middle", "sizex": 0.95, "sizey": 0.95, "sizing": "contain"},
    )


def _add_axes(figure: go.Figure, methods: list[str], says: dict[str, str]) -> None:
    """Names methods above the pictures, and pictures at their left."""
    plain = {"showgrid": False, "zeroline": False, "ticks": ""}
    figure.update_xaxes(
        **plain,
        side="top",
        range=[-0.5, len(methods) - 0.5],
        tickvals=list(range(len(methods))),
        ticktext=[name.replace("_", "_<br>", 1) if len(name) > _WIDE else name for name in methods],
        tickangle=0,
    )
    figure.update_yaxes(
        **plain,
        range=[len(says) - 0.5, -0.5],
        tickvals=list(range(len(says))),
        ticktext=[f"{name}<br>{said}" for name, said in says.items()],
    )


_WIDE = 16  # Letters of a method's name that fit above a picture.

OVERLAY_PLOTS = {
    "overlays": Plot(
        f"""
        with overlaid as ({OVERLAID}),
        chosen as (
            select instance_id
            from (select distinct instance_id from overlaid)
            order by md5(instance_id), instance_id
            limit {PICTURES}
        )
        select
            o.*,
            coalesce(model_labels[label + 1], label::varchar) as gold,
            coalesce(model_labels[prediction + 1], prediction::varchar) as predicted,
            (select count(distinct instance_id) from overlaid) as of
        from overlaid as o
        semi join chosen using (instance_id)
        cross join run
        where method = coalesce($method, method)
        order by instance_id, method
        """,
        overlays,
        "it shows maps over pictures, of a run that has these (instances.image)",
    )
}
