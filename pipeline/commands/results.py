"""Commands on a finished run: query, verify, compact, open, report, plot and publish."""

import argparse
import os
import re
import shlex
import sys
import webbrowser
from collections.abc import Collection, Sequence
from pathlib import Path

from attribeam.pipeline.commands.status import DONE, FAILED
from attribeam.pipeline.configuration import listed
from attribeam.schemas import UsageError
from attribeam.schemas.layout import MANIFEST

_SHOWN = 3  # Instances, where none is named.


def query_command(arguments: argparse.Namespace) -> int:
    """Answers a question in SQL."""
    from attribeam.analysis import run_query, run_query_to

    _check_order(arguments.folder, arguments.sql)
    others = _others(arguments.others)
    if arguments.more:
        others |= _by_folder([arguments.folder, *arguments.more], others)
    more = {"external_access": arguments.external_access, "others": others}
    if arguments.output is not None:
        run_query_to(arguments.output, arguments.folder, arguments.sql, arguments.format, **more)
    else:
        run_query(arguments.folder, arguments.sql, arguments.format or "table", **more)
    return DONE


def _check_order(folder: str, sql: str) -> None:
    """Says so where the query stands before the folder.

    Raises:
        UsageError: If it does.
    """
    try:
        swapped = (Path(sql) / MANIFEST).is_file() and not Path(folder).exists()
    except (OSError, ValueError):  # Many a query is no name that a file system takes.
        return
    if swapped:
        raise UsageError("the folder comes first: attribeam query DIR SQL")


def _others(given: Sequence[str]) -> dict[str, str]:
    """Other runs by the names that a query has for them."""
    others: dict[str, str] = {}
    for each in given:
        name, is_there, folder = each.partition("=")
        if not (is_there and folder) or name in others:
            raise UsageError(f"--with takes NAME=DIR, each name once, and not {each!r}")
        others[name] = folder
    return others


def _by_folder(folders: Sequence[str], taken: Collection[str]) -> dict[str, str]:
    """Runs by names made of those of their folders, each of which is said.

    What can be no part of a name is ``_``, and of equal names all but the first are numbered.
    """
    from attribeam.analysis.opening.runs import RESERVED

    named: dict[str, str] = {}
    used = {name.lower() for name in taken}
    for folder in folders:
        end = Path(folder).resolve().name if Path(folder).exists() else folder.rstrip("/")
        name = re.sub(r"\W", "_", end.rpartition("/")[2], flags=re.ASCII)
        name = name if re.match(r"[A-Za-z_]", name) else f"run_{name}".rstrip("_")
        base, number = name, 1
        while name.lower() in used or name.lower() in RESERVED:
            number += 1
            name = f"{base}_{number}"
        used.add(name.lower())
        named[name] = folder
        print(f"{name}: {folder}", file=sys.stderr)
    return named


def show_command(arguments: argparse.Namespace) -> int:
    """Shows instances: sentences in colours, or maps over pictures."""
    from attribeam.analysis.instances.loading import load_shown
    from attribeam.analysis.instances.terminal import print_instances
    from attribeam.analysis.opening.runs import reading

    with reading(arguments.folder) as connection:
        ids, more = arguments.ids, 0
        if not ids:
            query = "select instance_id, count(*) over () from instances order by 1 limit $most"
            found = connection.execute(query, {"most": _SHOWN}).fetchall()
            ids, more = [name for name, _ in found], max([0, *(of - len(found) for _, of in found)])
        methods = None if arguments.methods is None else listed(arguments.methods)
        print_instances(connection, load_shown(connection, ids, methods), sys.stdout)
    if not ids:
        print("the run has no instances yet")
    if more:
        print(f"{more:,} more instances: name an ID to see it")
    return DONE


def open_command(arguments: argparse.Namespace) -> int:
    """Writes a database of views beside the files."""
    from attribeam.analysis import write_database

    path = write_database(arguments.folder)
    print(f"cd {shlex.quote(str(path.parent))} && duckdb {path.name}")
    return DONE


def verify_command(arguments: argparse.Namespace) -> int:
    """Checks that everything adds up."""
    from attribeam.analysis import print_report, verify

    report = verify(arguments.folder, processes=arguments.processes or os.cpu_count() or 1)
    print_report(report, sys.stdout)
    return FAILED if report.problems else DONE


def compact_command(arguments: argparse.Namespace) -> int:
    """Joins the files of a run into few large ones."""
    from attribeam.pipeline.running.compacting import compact
    from attribeam.pipeline.workers.engines import connect_store

    connect_store(arguments.folder)
    done = compact(arguments.folder.rstrip("/"), lambda sentence: print(sentence, flush=True))
    same = done.before == done.after
    what = "nothing left to join" if same else f"{done.before} files became {done.after}"
    print(f"{what}: {arguments.folder}")
    for sentence in done.left:
        print(f"attribeam: {sentence}", file=sys.stderr)
    return FAILED if done.left else DONE


def report_command(arguments: argparse.Namespace) -> int:
    """Writes the page."""
    if arguments.reproduce:
        from attribeam.analysis.evidence.page import write_evidence

        others = _by_folder(arguments.more, ())
        path = write_evidence(arguments.folder, arguments.output, others)
    elif len(arguments.more) > 1:
        raise UsageError(
            "report compares two runs; with --reproduce, one is held against any number of others"
        )
    elif arguments.more:
        from attribeam.analysis.report.compared import write_comparison

        path = write_comparison(arguments.folder, arguments.more[0], arguments.output)
    else:
        from attribeam.analysis.report.report import write_report  # plotly takes a while.

        path = write_report(arguments.folder, arguments.output, limit=arguments.limit)
    print(path)
    if arguments.open:
        webbrowser.open(path.resolve().as_uri())
    return DONE


def plot_command(arguments: argparse.Namespace) -> int:
    """Draws a figure."""
    from attribeam.analysis.plots.plots import plot  # plotly takes a while.

    path = plot(
        arguments.folder,
        arguments.name,
        arguments.output,
        method=arguments.method,
        subset=arguments.subset,
        theme=arguments.theme,
        width=arguments.width,
    )
    print(path)
    return DONE


def publish_command(arguments: argparse.Namespace) -> int:
    """Publishes the run as a data set."""
    from attribeam.analysis.publish.publish import publish  # The hub's library takes a while.
    from attribeam.analysis.query.terminal import harmless

    done = publish(
        arguments.folder,
        arguments.repo_id,
        methods=None if arguments.methods is None else listed(arguments.methods),
        license=arguments.license,
        corpus_license=arguments.corpus_license,
        model_license=arguments.model_license,
        languages=listed(arguments.language),
        creators=arguments.creator,
        title=arguments.title,
        private=arguments.private,
        allow_incomplete=arguments.allow_incomplete,
        dry_run=arguments.dry_run,
        collection=arguments.collection,
        report=arguments.report,
        tell=lambda warning: print(f"warning: {harmless(warning)}", file=sys.stderr),
    )
    print(f"{done.files} files, {done.size / 1e6:.1f} MB, {len(done.configs)} configs")
    where = f"folder: {done.folder}" if done.url is None else f"data set: {done.url}"
    print(where if done.version is None else f"{where} ({done.version})")
    return DONE
