"""Plots of a run, each a figure over one view of ``attribeam.schemas.views``.

A plot is one self-contained HTML page: plotly's own script is part of it, so that it opens without
a network.
"""

from difflib import get_close_matches
from pathlib import Path

import duckdb
import plotly.graph_objects as go

from attribeam.analysis.opening.database import dict_rows
from attribeam.analysis.opening.remote import is_remote
from attribeam.analysis.opening.runs import reading
from attribeam.analysis.plots.cost import COST_PLOTS
from attribeam.analysis.plots.figures import Plot, Row, escaped, themed
from attribeam.analysis.plots.flow import FLOW_PLOTS
from attribeam.analysis.plots.heads import HEAD_PLOTS
from attribeam.analysis.plots.overlays import OVERLAY_PLOTS
from attribeam.analysis.plots.page import write_page
from attribeam.analysis.plots.patterns import PATTERN_PLOTS
from attribeam.analysis.plots.static import ENDINGS, static
from attribeam.schemas import UsageError
from attribeam.schemas.manifest import IMPORTED_TASK, NO_MODEL

PLOTS: dict[str, Plot] = {
    **FLOW_PLOTS,
    **COST_PLOTS,
    **HEAD_PLOTS,
    **PATTERN_PLOTS,
    **OVERLAY_PLOTS,
}


def plot(
    folder: str | Path,
    name: str,
    output: str | Path | None = None,
    *,
    method: str | None = None,
    subset: str | None = None,
    theme: str = "light",
    width: int | None = None,
) -> Path:
    """Draws a plot of a run into a file: HTML, or what the name ends with (SVG, PNG, PDF).

    Args:
        folder: The run's folder.
        name: One of ``PLOTS``.
        output: Where to; None for ``NAME.html`` in the run's folder.
        method: The method to show, where it shows one; None for the first that there is.
        subset: The subset of the corpus to show, likewise.
        theme: ``light`` or ``dark``.
        width: Pixels across; None for the page's, or the plot's own.

    Returns:
        The file.

    Raises:
        UsageError: If there is no such plot, nothing in the run to show, or the file can't be
            written.
    """
    check_plot(name)
    ending = "" if output is None else Path(output).suffix.lower()
    if ending not in ("", ".html", ".htm", *ENDINGS):
        raise UsageError(
            f"{output} ends with {ending}: a plot is written as {', '.join(('.html', *ENDINGS))}"
        )
    if output is None and is_remote(folder):
        raise UsageError(f"{folder} is not on this machine: say with -o where the plot is to be")
    with reading(folder) as connection:
        figure = draw(connection, folder, name, method, subset)
    themed(figure, theme, width)
    content = static(figure, ending, width) if ending in ENDINGS else page(figure)
    return write_page(folder, f"{name}.html", output, content)


def check_plot(name: str) -> None:
    """Checks that there is a plot of that name.

    Raises:
        UsageError: If there isn't.
    """
    if name not in PLOTS:
        meant = get_close_matches(name, PLOTS, 1)
        hint = f"did you mean {meant[0]}? " if meant else ""
        raise UsageError(f"there is no plot {name!r}; {hint}there are {', '.join(PLOTS)}")


def draw(
    connection: duckdb.DuckDBPyConnection,
    folder: str | Path,
    name: str,
    method: str | None = None,
    subset: str | None = None,
) -> go.Figure:
    """A plot of a run that was opened, as a figure.

    Raises:
        UsageError: If there is no such plot, or nothing in the run to show.
    """
    check_plot(name)
    wanted = PLOTS[name]
    rows = rows_of(connection, wanted, method, subset)
    if not rows:
        if connection.execute("select model_task from run").fetchall() == [(IMPORTED_TASK,)]:
            raise UsageError(f"{name}: {folder} {NO_MODEL}")
        of = " and ".join(given for given in (method, subset) if given is not None)
        what = f"nothing of {of}" if of else "nothing"
        raise UsageError(f"{folder} has {what} to plot as {name}: {wanted.lacking}")
    return wanted.draw([escaped(row) for row in rows])


def page(figure: go.Figure) -> str:
    """A figure as a page of its own."""
    html: str = figure.to_html(include_plotlyjs=True, config={"displaylogo": False})
    return html


def rows_of(
    connection: duckdb.DuckDBPyConnection,
    plot: Plot,
    method: str | None = None,
    subset: str | None = None,
) -> list[Row]:
    """The rows that a plot shows."""
    given = {"method": method, "subset": subset}
    parameters = {name: value for name, value in given.items() if f"${name}" in plot.query}
    return dict_rows(connection, plot.query, parameters)
