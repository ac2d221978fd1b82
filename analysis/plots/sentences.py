"""The plot of single instances: their words across, methods down, a colour for each score."""

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from attribeam.analysis.plots.figures import escaped, styled

_DIVERGING = [[0, "#D55E00"], [0.5, "#F7F7F7"], [1, "#0072B2"]]
_ROW, _AROUND = 26, 110  # Pixels of a method's row, and of what is around the rows of an instance.

Lines = Sequence[tuple[str, Sequence[float], Sequence[float] | None]]


def sentences(instances: Sequence[tuple[str, Sequence[str], Lines]]) -> go.Figure:
    """A heat map for each instance.

    Args:
        instances: Of each its id, its words, and of each method the name, strengths from -1 to 1,
            and raw scores (None where it has none).
    """
    figure = make_subplots(
        rows=max(1, len(instances)), subplot_titles=[escaped(name) for name, _, _ in instances]
    )
    rows = 0
    for number, (_, words, methods) in enumerate(instances, 1):
        figure.add_heatmap(
            x=list(range(len(words))),
            y=[escaped(method) for method, _, _ in methods],
            z=[_given(strong if scores else None, len(words)) for _, strong, scores in methods],
            customdata=[_given(scores, len(words)) for _, _, scores in methods],
            text=[[escaped(word) for word in words] for _ in methods],
            hovertemplate="%{text}, %{y}: %{customdata:.4g}<extra></extra>",
            **{"colorscale": _DIVERGING, "zmin": -1, "zmax": 1, "xgap": 1, "ygap": 1},
            **{"showscale": number == 1, "row": number, "col": 1},
        )
        figure.update_xaxes(
            tickvals=list(range(len(words))),
            ticktext=[escaped(word) for word in words],
            **{"tickangle": -45, "showgrid": False, "row": number, "col": 1},
        )
        figure.update_yaxes(autorange="reversed", showgrid=False, row=number, col=1)
        rows += len(methods)
    height = 60 + _ROW * rows + _AROUND * len(instances)
    return styled(figure, "Scores over the largest of each instance").update_layout(
        height=height, hovermode="closest"
    )


def _given(values: Sequence[float] | None, number: int) -> list[float | None]:
    """A row of the map: empty where a method has nothing to say."""
    return [None] * number if values is None else [*values]
