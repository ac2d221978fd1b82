"""Figures as files for papers: SVG, PNG and PDF, drawn by the browser that is there."""

import plotly.graph_objects as go

from attribeam.schemas import UsageError

ENDINGS = (".svg", ".png", ".pdf")
_SCALE = 3  # Pixels of a PNG for each of the figure's: 300 an inch at a text's width.
_USUAL = (900, 500)


def static(figure: go.Figure, ending: str, width: int | None = None) -> bytes:
    """A figure as a file's content.

    Args:
        figure: The figure.
        ending: One of ``ENDINGS``.
        width: Pixels across; None for the figure's own, or 900.

    Raises:
        UsageError: If there is no kaleido, or no browser that it can draw with.
    """
    try:
        import kaleido  # noqa: F401, PLC0415  An extra.
    except ImportError as error:
        raise UsageError(
            f"{ending} needs kaleido: pip install 'attribeam[figures]', or end the name with .html"
        ) from error
    size = figure.layout
    try:
        content: bytes = figure.to_image(
            format=ending[1:],
            width=width or size.width or _USUAL[0],
            height=size.height or _USUAL[1],
            scale=_SCALE if ending == ".png" else 1,
        )
    except Exception as error:  # Of the browser, in as many kinds as it has.
        message = " ".join(str(error).split())[:200] or type(error).__name__
        raise UsageError(
            f"{ending} is drawn by Chrome or Chromium, which could not ({message}): install one "
            "(or `plotly_get_chrome`), or end the name with .html"
        ) from error
    return content
