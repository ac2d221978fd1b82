"""The page that compares two runs: a verdict, paired differences and how alike scores are."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import jinja2
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from attribeam.analysis.comparing import Comparison, compare
from attribeam.analysis.plots.figures import COLOURS, Row, escaped, styled
from attribeam.analysis.plots.page import write_page
from attribeam.analysis.report.figures import Section, chosen
from attribeam.analysis.report.shell import digest, embedded, policy, template, zipped

NAME = "compared.html"
_LINE, _ROOM = 26, 170  # Pixels of a method's line, and of what is around them.


def write_comparison(
    folder: str | Path, other: str | Path, output: str | Path | None = None
) -> Path:
    """Writes a page that compares a run with another, of another model say.

    Args:
        folder: The run's folder.
        other: Folder or address of the other one.
        output: Where to; None for ``compared.html`` in the run's folder.

    Returns:
        The file. The same runs give the same bytes.

    Raises:
        UsageError: If one of them is no run, they have nothing in common, or the file can't be
            written.
    """
    return write_page(folder, NAME, output, _page(compare(folder, other)))


def _page(found: Comparison) -> str:
    sections = [section for section in (_differences(found),) if section.figures]
    script, library = template("report.js"), get_plotlyjs()
    sources = [digest(script), *([digest(library)] if sections else [])]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(template("compared.html.jinja")).render(
        title=f"{found.names[0]} against {found.names[1]}",
        policy=policy(sources),
        style=Markup(template("report.css")),
        script=Markup(script),
        found=found,
        sections=sections,
        figures=Markup(
            embedded({part.key: [choice.figure for choice in part.figures] for part in sections})
        ),
        plotly=Markup(zipped(library)) if sections else "",
    )


def _differences(found: Comparison) -> Section:
    return Section(
        "differences",
        "Differences",
        f"Of each instance the metric of {found.names[0]} less that of {found.names[1]}; the mean "
        "with its 95 % interval. Models differ in how sure they are, so that drops of probability "
        "differ for all methods alike: see whether random scores differ as much.",
        [
            chosen(name, partial(forest, name=name, names=escaped(list(found.names))), rows)
            for name, rows in _ways(found)
        ],
    )


def _ways(found: Comparison) -> Iterator[tuple[str, list[Row]]]:
    """Rows that can be drawn, by metric and way to perturb."""
    known = [row for row in found.faithfulness if row["low"] is not None]
    for metric, operation, protocol in dict.fromkeys(
        (row["metric"], row["operation"], row["protocol"]) for row in known
    ):
        name = f"{metric}, {operation}" + (f" ({protocol})" if protocol != "token" else "")
        yield (
            name,
            [
                row
                for row in known
                if (row["metric"], row["operation"], row["protocol"])
                == (metric, operation, protocol)
            ],
        )


def forest(rows: list[Row], name: str, names: list[str]) -> go.Figure:
    """Differences of methods with their intervals, the largest at the top.

    Args:
        rows: Those of a metric.
        name: What is above the figure.
        names: What the runs are called.
    """
    own = sorted(rows, key=lambda row: (-row["difference"], row["method"]))
    figure = go.Figure()
    figure.add_scatter(
        x=[row["difference"] for row in own],
        y=list(range(len(own))),
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [max(0.0, row["high"] - row["difference"]) for row in own],
            "arrayminus": [max(0.0, row["difference"] - row["low"]) for row in own],
            "color": COLOURS[0],
            "thickness": 1.5,
        },
        mode="markers",
        marker={
            "color": COLOURS[0],
            "size": 10,
            "symbol": ["circle-open" if row["verdict"] == "neither" else "circle" for row in own],
        },
        customdata=[
            [row["method"], row["value"], row["other_value"], row["low"], row["high"]]
            for row in own
        ],
        hovertemplate=f"%{{customdata[0]}}: %{{x:.3f}} (%{{customdata[3]:.3f}} to "
        f"%{{customdata[4]:.3f}})<br>{names[0]} %{{customdata[1]:.3f}}, {names[1]} "
        "%{customdata[2]:.3f}<extra></extra>",
    )
    figure.add_vline(x=0, line={"dash": "dot", "color": "#666", "width": 1})
    figure.update_yaxes(
        tickvals=list(range(len(own))),
        ticktext=[row["method"] for row in own],
        range=[len(own) - 0.4, -0.6],
        showgrid=False,
        zeroline=False,
    )
    figure.update_xaxes(title="difference; filled: not 0", zeroline=False)
    return styled(figure, name).update_layout(
        height=_ROOM + _LINE * len(own), hovermode="closest", showlegend=False
    )
