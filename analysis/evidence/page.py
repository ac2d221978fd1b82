"""The evidence page of a run: what of it can be cited, each number with its SQL."""

import shlex
from collections.abc import Mapping
from pathlib import Path

import duckdb
import jinja2
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from attribeam.analysis.evidence.cited import LEVEL, cited_table
from attribeam.analysis.evidence.figures import evidence_figures
from attribeam.analysis.evidence.judging import RULES, judged, seen_of
from attribeam.analysis.evidence.robustness import survivals
from attribeam.analysis.opening.files import unfinished
from attribeam.analysis.opening.manifest import of_pictures
from attribeam.analysis.opening.runs import load_manifest, open_run, said
from attribeam.analysis.plots.page import write_page
from attribeam.analysis.report.overview import run_facts, run_tiles
from attribeam.analysis.report.shell import digest, embedded, policy, template, zipped
from attribeam.analysis.report.values import of_patches, query_count
from attribeam.schemas import UsageError
from attribeam.schemas.manifest import Manifest

NAME = "evidence.html"


def write_evidence(
    folder: str | Path,
    output: str | Path | None = None,
    others: Mapping[str, str | Path] | None = None,
) -> Path:
    """Writes the evidence page of a run into an HTML file, which needs no network.

    Args:
        folder: The run's folder.
        output: Where to; None for ``evidence.html`` in the run's folder.
        others: Other runs by names: of other models on the same corpus, say. Whether the order of
            the methods survives in them, and whether the same heads matter, is on the page.

    Returns:
        The file. The same runs give the same bytes.

    Raises:
        UsageError: If one is no run folder, nothing has been attributed yet, a file is damaged, or
            the page can't be written.
    """
    manifest = load_manifest(folder)
    others = dict(others or {})
    lacking = unfinished(folder)
    with open_run(folder, others=others, commented=False) as connection:
        try:
            page = _page(connection, manifest, list(others), lacking)
        except duckdb.Error as error:
            raise UsageError(
                f"{folder} can't be read: {said(error)}. `attribeam verify {folder}` finds damaged "
                "files."
            ) from error
    return write_page(folder, NAME, output, page)


def _page(
    connection: duckdb.DuckDBPyConnection,
    manifest: Manifest,
    others: list[str],
    lacking: str | None,
) -> str:
    total = query_count(connection, "select count(*) from instances")
    if not total:
        raise UsageError("The run has no instances yet: nothing to report.")
    pictures = of_pictures(manifest)
    figures = list(evidence_figures(connection))
    sections = [section for section, _ in figures]
    script, library = template("report.js"), get_plotlyjs()
    sources = [digest(script), *([digest(library)] if sections else [])]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["said"] = lambda text: type(text)(of_patches(text)) if pictures else text
    environment.filters["coded"] = _coded
    identity = manifest["identity"]
    return environment.from_string(template("evidence.html.jinja")).render(
        title=f"Evidence: {identity['model']['source']} on {identity['corpus']['source']}",
        policy=policy(sources),
        style=Markup(f"{template('report.css')}\n{template('evidence.css')}"),
        script=Markup(script),
        lacking=lacking
        and f"This run is {lacking}. What is missing is in none of the numbers here.",
        tiles=run_tiles(connection, total),
        facts=list(run_facts(connection, manifest)),
        table=cited_table(connection),
        level=f"{100 * LEVEL:.0f} %",
        sections=figures,
        survivals=survivals(connection, others),
        others=others,
        rules=RULES,
        judgements=judged(connection, seen_of(connection, manifest, pictures, others)),
        asked=_asked(others),
        figures=Markup(
            embedded({part.key: [choice.figure for choice in part.figures] for part in sections})
        ),
        plotly=Markup(zipped(library)) if sections else "",
    )


def _coded(text: str) -> Markup:
    """A sentence with what stands between backticks as code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # One has no other.
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if at % 2 else escape(part)
        for at, part in enumerate(parts)
    )


def _asked(others: list[str]) -> str:
    """How a number is asked for again."""
    named = "".join(f" --with {shlex.quote(f'{name}={name.upper()}')}" for name in others)
    return f"attribeam query RUN{named} -"
