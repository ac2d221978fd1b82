"""What plots share: what a plot is, colours, and the look of a figure.

Colours are those of Okabe and Ito (2008), which colour-blind people can tell apart; what matters is
told by line styles and hover texts as well.
"""

from collections.abc import Callable, Mapping
from html import escape
from typing import Any, NamedTuple

import plotly.graph_objects as go

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

Row = Mapping[str, Any]


class Plot(NamedTuple):
    """A plot that can be asked for.

    Attributes:
        query: The rows it shows; ``$method`` and ``$subset`` are what was named, or null.
        draw: From the rows to a figure.
        lacking: What to do if there are no rows.
    """

    query: str
    draw: Callable[[list[Row]], go.Figure]
    lacking: str


def escaped(value: Any) -> Any:
    """Texts, and those in lists and objects, as plotly shows them as they are: it takes markup."""
    match value:
        case str():
            return escape(value, quote=False)
        case dict():
            return {key: escaped(entry) for key, entry in value.items()}
        case list():
            return [escaped(entry) for entry in value]
    return value


def styled(figure: go.Figure, title: str) -> go.Figure:
    """The figure with the look that all have."""
    figure.update_layout(
        title={"text": title, "x": 0.02},
        template="plotly_white",
        font={"family": "system-ui, sans-serif", "size": 13},
        hovermode="x unified",
        legend={"tracegroupgap": 0},
        margin={"l": 60, "r": 20, "t": 70, "b": 50},
    )
    return figure
