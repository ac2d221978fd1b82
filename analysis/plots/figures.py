"""What plots share: what a plot is, colours, and the look of a figure.

Colours are those of Okabe and Ito (2008), which colour-blind people can tell apart; what matters is
told by line styles and hover texts as well.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from html import escape
from textwrap import wrap
from typing import Any, NamedTuple

import plotly.graph_objects as go
import plotly.io as pio

from attribeam.analysis.plots.names import has_names, names_placed
from attribeam.schemas import UsageError

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

CONTROL = "random"  # No method: what methods are held against.
THEMES = ("light", "dark")
_DARK = "#14171b"  # As the report's.
_LETTER, _LINE = 10, 20  # Pixels of a title's letter, and of a line.
_NARROWEST, _NARROW, _WIDEST = 200, 600, 5000

Row = Mapping[str, Any]

_BARE = ContextVar("bare", default=False)


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


def themed(figure: go.Figure, theme: str, width: int | None) -> go.Figure:
    """The figure on a light or a dark ground, in a width.

    Args:
        figure: The figure, as it was drawn.
        theme: ``light`` or ``dark``.
        width: Pixels across; None for what it has. A narrow one has its legend below.

    Raises:
        UsageError: If there is no such theme, or nothing can be seen in that width.
    """
    if theme not in THEMES:
        raise UsageError(f"there is no theme {theme!r}: choose one of {', '.join(THEMES)}")
    if width is not None and not _NARROWEST <= width <= _WIDEST:
        raise UsageError(f"--width is between {_NARROWEST} and {_WIDEST} pixels, not {width}")
    if theme == "dark":
        figure.update_layout(template="plotly_dark", paper_bgcolor=_DARK, plot_bgcolor=_DARK)
        # Black lines would vanish.
        figure.for_each_trace(_lightened)
    if width is not None:
        title = wrap(figure.layout.title.text or "", max(20, width // _LETTER))
        figure.update_layout(
            width=width,
            title_text="<br>".join(title),
            margin_t=figure.layout.margin.t + _LINE * max(0, len(title) - 1),
        )
        if width < _NARROW and figure.layout.legend.y is None:
            figure.update_layout(legend={"orientation": "h", "x": 0, "y": -0.25, "yanchor": "top"})
        layout = figure.to_plotly_json()["layout"]
        if has_names(layout):
            figure.update_layout(names_placed(layout, width, width))
    return figure


def _lightened(trace: Any) -> None:
    for part in ("line", "marker"):
        own = getattr(trace, part, None)
        if own is not None and getattr(own, "color", None) == COLOURS[-1]:
            own.color = "#f0f0f0"


@contextmanager
def without_templates() -> Iterator[None]:
    """For its duration figures have no template, for pages that have their own.

    plotly copies and checks a template for each figure, which takes longer than to draw most.
    """
    own, token = pio.templates.default, _BARE.set(True)
    pio.templates.default = None
    try:
        yield
    finally:
        pio.templates.default = own
        _BARE.reset(token)


def styled(figure: go.Figure, title: str) -> go.Figure:
    """The figure with the look that all have."""
    figure.update_layout(
        title={"text": title, "x": 0.02},
        template=None if _BARE.get() else "plotly_white",
        font={"family": "system-ui, sans-serif", "size": 13},
        hovermode="x unified",
        legend={"tracegroupgap": 0},
        margin={"l": 60, "r": 20, "t": 70, "b": 50},
    )
    return figure
