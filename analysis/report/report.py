"""The report of a run: one HTML file for people, which needs no network.

Names and texts come from a corpus and a model. The template escapes all that it is given, what the
page's script reads is JSON without a ``<``, the script sets it as text, and the page's policy lets
no other script run.
"""

from pathlib import Path
from typing import Any

import duckdb
import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from attribeam.analysis.opening.files import unfinished
from attribeam.analysis.opening.manifest import of_pictures, stretched
from attribeam.analysis.opening.runs import load_manifest, reading
from attribeam.analysis.plots.page import write_page
from attribeam.analysis.report.checks import check_sheets
from attribeam.analysis.report.continuations import pack_continuations
from attribeam.analysis.report.figures import figure_sections
from attribeam.analysis.report.instances import STEPS, pack_instances
from attribeam.analysis.report.metrics import metric_sheets
from attribeam.analysis.report.overview import failure_table, run_facts, run_groups, run_tiles
from attribeam.analysis.report.shell import digest, embedded, policy, template, zipped
from attribeam.analysis.report.values import of_patches, query_count
from attribeam.analysis.report.verdict import ranked, verdict
from attribeam.schemas import UsageError
from attribeam.schemas.layout import REPORT
from attribeam.schemas.manifest import Manifest

LIMIT = 5000


def write_report(
    folder: str | Path, output: str | Path | None = None, *, limit: int = LIMIT
) -> Path:
    """Writes the report of a run into an HTML file.

    Args:
        folder: The run's folder.
        output: Where to; None for ``report.html`` in the run's folder.
        limit: The most instances to look at one by one; of more, those whose ids' hashes are
            smallest. The tables and figures are of all instances.

    Returns:
        The file. The same run gives the same bytes.

    Raises:
        UsageError: If it is no run folder, nothing has been attributed yet, or the file can't be
            written.
    """
    if limit < 0:
        raise UsageError(f"--limit is at least 0, not {limit}")
    manifest = load_manifest(folder)
    lacking = unfinished(folder)
    with reading(folder) as connection:
        page = page_of(connection, manifest, limit, lacking)
    return write_page(folder, REPORT, output, page)


def page_of(
    connection: duckdb.DuckDBPyConnection,
    manifest: Manifest,
    limit: int,
    lacking: str | None,
) -> str:
    """The report of a run that was opened, as HTML.

    Args:
        connection: The run, with all views.
        manifest: Its manifest.
        limit: As of ``write_report``.
        lacking: What the run has not, to be read after "This run is"; None if it is whole.

    Raises:
        UsageError: If nothing has been attributed yet.
    """
    total = query_count(connection, "select count(*) from instances")
    sections = list(figure_sections(connection))
    packed = pack_instances(connection, manifest, limit) if limit else None
    shown = len(packed["ids"]) if packed else 0
    if not total and not query_count(connection, "select count(*) from failures"):
        raise UsageError("The run has no instances yet: nothing to report.")
    continued = pack_continuations(connection, manifest, limit) if limit else None
    script, library = template("report.js"), get_plotlyjs()
    if continued:
        script += "\n\n" + template("continuations.js")
    sources = [digest(script), *([digest(library)] if sections else [])]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    pictures = of_pictures(manifest)
    # What is marked as HTML already stays so.
    environment.filters["said"] = lambda text: type(text)(of_patches(text)) if pictures else text
    return environment.from_string(template("report.html.jinja")).render(
        title=_title(manifest),
        policy=policy(sources),
        style=Markup(template("report.css")),
        script=Markup(script),
        lacking=lacking
        and f"This run is {lacking}. What is missing is in none of the numbers here.",
        verdict=verdict(ranked(connection)),
        tiles=run_tiles(connection, total),
        facts=list(run_facts(connection, manifest)),
        groups=list(run_groups(connection, manifest)),
        sheets=[*metric_sheets(connection), *check_sheets(connection)],
        sections=sections,
        failures=failure_table(connection),
        shown=shown,
        cut=_cut(shown, total),
        precision=f", to 1/{STEPS} of the text's largest",
        pictures=bool(packed and packed["pictures"]),
        stretched=stretched(manifest),
        figures=Markup(
            embedded({part.key: [choice.figure for choice in part.figures] for part in sections})
        ),
        instances=Markup(embedded(packed)),
        continued=Markup(embedded(continued)) if continued else "",
        continued_cut=_cut_rows(connection, continued),
        plotly=Markup(zipped(library)) if sections else "",
    )


def _title(manifest: Manifest) -> str:
    identity = manifest["identity"]
    return f"{identity['model']['source']} on {identity['corpus']['source']}"


def _cut_rows(connection: duckdb.DuckDBPyConnection, continued: dict[str, Any] | None) -> str:
    """A sentence on prompts that are not shown, if there are any."""
    total = query_count(connection, "select count(distinct row_id) from instances")
    shown = len(continued["rows"]) if continued else total
    return "" if shown == total else f" {shown:,} of {total:,} prompts, by a hash of their ids."


def _cut(shown: int, total: int) -> str:
    if shown == total:
        return ""
    return (
        f"{shown:,} of {total:,} instances can be looked at here, chosen by a hash of their ids "
        "(--limit); the tables and figures above are of all."
    )
