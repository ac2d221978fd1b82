"""What of a run is published: which files, and its manifest without anything local."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from attribeam.analysis.local import without_paths
from attribeam.analysis.opening.files import Survey, survey
from attribeam.analysis.opening.runs import load_manifest
from attribeam.analysis.verifying.verify import Report, verify
from attribeam.schemas import TABLES, UsageError
from attribeam.schemas.layout import FORMAT, GLOBS, PUBLISHED, parse_unit_path
from attribeam.schemas.manifest import Execution, Manifest
from attribeam.schemas.tables import EVALUATIONS

_SPLIT = re.compile(r"\w+(\.\w+)*", re.ASCII)
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?", re.ASCII)
# What a call of a run is published with: hardware and versions explain `seconds`.
_EXECUTION = (
    *("methods", "left_out", "device", "device_name", "token_budget", "workers", "processors"),
    "runner",
)


@dataclass(frozen=True)
class Publishable:
    """What of a run is published.

    ``files`` has the files by table and method; ``manifest`` is without anything local, ``split``
    the name of the only split, ``problems`` what is wrong with the run, if that was allowed, and
    ``incomplete`` says it in short.
    """

    root: Path
    manifest: Manifest
    split: str
    files: dict[tuple[str, str | None], list[Path]]
    problems: list[str]
    incomplete: str


def open_publishable(
    folder: str | Path, methods: Sequence[str] | None, allow_incomplete: bool
) -> Publishable:
    """Opens a run to be published.

    Raises:
        UsageError: If it isn't finished and sound (and that isn't allowed), has no instances, lacks
            a method, or is a published one.
    """
    manifest = load_manifest(folder)
    if "layout" in manifest:
        raise UsageError(
            f"{folder} is published already, or what a dry run wrote: give the folder of the run "
            "that it was made of."
        )
    chosen = _chosen(manifest, methods)
    report = verify(folder)
    if report.problems and not allow_incomplete:
        others = f" ({len(report.problems) - 1} more)" if len(report.problems) > 1 else ""
        raise UsageError(
            f"{folder} is not finished and sound: {report.problems[0].rstrip('.')}{others}. "
            f"`attribeam verify {folder}` says it all, and --allow-incomplete publishes the shards "
            "that are whole."
        )
    incomplete = ""
    if report.problems:
        found = survey(report.folder, manifest)
        sound, incomplete = found.sound, _incomplete(found, report, manifest)
    else:
        sound = {table: _committed(report.folder, table) for table in TABLES}
    files = _files(report.folder, sound, chosen)
    if not files.get(("instances", None)):
        raise UsageError(f"{folder} has no instances to publish: run `attribeam run` first.")
    split = _split(manifest, files["instances", None])
    clean = published_manifest(manifest, chosen)
    if incomplete:
        clean["incomplete"] = incomplete
    return Publishable(report.folder, clean, split, files, report.problems, incomplete)


def _incomplete(found: Survey, report: Report, manifest: Manifest) -> str:
    """What the run was when it was published, where it wasn't finished and sound."""
    shards = int(manifest["identity"]["settings"]["num_shards"])
    if found.there < found.expected:
        what = f"not finished: {found.there} of {found.expected} files were there"
    else:
        # Without what its owner is to do.
        problem = without_paths(report.problems[0].partition(". Run ")[0]).rstrip(".")
        others = f" ({len(report.problems) - 1} more)" if len(report.problems) > 1 else ""
        what = f"not sound: {problem}{others}"
    whole = f"; this is of the {found.shards} of {shards} shards that were whole"
    return what + whole if found.shards < shards else what


def _chosen(manifest: Manifest, methods: Sequence[str] | None) -> list[str]:
    there = list(manifest["methods"])
    chosen = there if methods is None else [name for name in there if name in methods]
    unknown = [name for name in methods or () if name not in there]
    if unknown or not chosen:
        raise UsageError(
            f"--methods: the run has no {', '.join(unknown) or 'method'}; it has {', '.join(there)}"
        )
    return chosen


def _committed(root: Path, table: str) -> list[str]:
    return [path.relative_to(root).as_posix() for path in root.glob(GLOBS[table])]


def _files(
    root: Path, sound: Mapping[str, Sequence[str]], methods: Sequence[str]
) -> dict[tuple[str, str | None], list[Path]]:
    """Files by table and method, in the order of tables, methods and shards.

    Of a table without rows there are none; one of the files of another may have none.
    """
    files: dict[tuple[str, str | None], list[Path]] = {("instances", None): []}
    for table in TABLES:
        for path in sorted(sound[table]):
            parsed = parse_unit_path(path)
            method = None if parsed is None else parsed[0].method
            if method is None or method in methods:
                files.setdefault((table, method), []).append(root / path)
    for table in EVALUATIONS:
        for file in sorted(root.glob(GLOBS[table])):
            files.setdefault((table, None), []).append(file)
    order = {name: number for number, name in enumerate([*TABLES, *EVALUATIONS, *methods])}
    kept = sorted(files, key=lambda key: (order[key[0]], order.get(key[1] or "", -1)))
    with_rows = {key: [file for file in files[key] if _rows(file)] for key in kept}
    of_shards = {key for key in kept if key[0] not in EVALUATIONS}
    return {
        key: files[key] if key in of_shards else with_rows[key] for key in kept if with_rows[key]
    }


def _rows(file: Path) -> int:
    try:
        return int(pq.read_metadata(file).num_rows)
    except (pa.ArrowException, OSError):
        return 0  # A damaged evaluation; verify has said so.


def _split(manifest: Manifest, instances: Iterable[Path]) -> str:
    """The corpus's split, if all instances are of one and it can be a name of a split."""
    found = {manifest["identity"]["corpus"].get("split")}
    for file in instances:
        found.update(pc.unique(pq.read_table(file, columns=["split"])["split"]).to_pylist())
    found.discard(None)
    name = str(found.pop()) if len(found) == 1 else ""
    # "all" is how datasets asks for every split.
    return name if _SPLIT.fullmatch(name) and name != "all" else "train"


def published_manifest(manifest: Manifest, methods: Sequence[str]) -> Manifest:
    """Returns what of a manifest is published: all that numbers depend on, and nothing local.

    Models and corpora keep the last part of their paths, calls their hardware, versions and day.
    """
    identity = manifest["identity"]
    model, corpus = identity["model"], identity["corpus"]
    return {
        # Columns that are later than the run are there, and null.
        "format": FORMAT,
        "layout": PUBLISHED,
        "identity": {
            **identity,
            "model": {**model, "source": published_name(model["source"])},
            "corpus": {**corpus, "source": published_name(corpus["source"])},
            "settings": _cleaned(identity["settings"]),
        },
        "methods": {
            name: {**record, "params": _cleaned(record["params"])}
            for name, record in manifest["methods"].items()
            if name in methods
        },
        "evaluation": _cleaned(manifest["evaluation"]),
        "executions": [_execution(call, methods) for call in manifest["executions"]],
    }


def _execution(call: Execution, methods: Sequence[str]) -> Execution:
    values: Mapping[str, Any] = call
    kept: Execution = _cleaned({key: values[key] for key in _EXECUTION if key in call})
    if "methods" in kept:
        kept["methods"] = [name for name in kept["methods"] if name in methods]
    if "started" in call:
        kept["started"] = str(call["started"])[: len("2026-01-31")]
    if "versions" in call:
        kept["versions"] = dict(call["versions"])
    return kept


def published_name(source: str) -> str:
    """A source's name: a hub id, or the last part of a path."""
    is_id = _HUB_ID.fullmatch(source) and not source.startswith(".")
    return source if is_id else re.split(r"[/\\]", source.rstrip("/\\"))[-1]


def _cleaned(value: Any) -> Any:
    """A value of JSON without the paths in its texts."""
    match value:
        case str():
            return without_paths(value)
        case Mapping():
            return {key: _cleaned(entry) for key, entry in value.items()}
        case list() | tuple():
            return [_cleaned(entry) for entry in value]
        case _:
            return value
