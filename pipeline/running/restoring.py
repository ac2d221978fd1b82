"""A published data set becomes the run again that it was made of, so that methods are added to it.

Shards get files of their own, and what only a published folder has goes. A process that is killed
leaves a published folder or a run, never something between: the manifest, which says which of them
it is, is written when all files of the run are there.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from attribeam.analysis.joining import metadata_of
from attribeam.analysis.opening.files import units
from attribeam.pipeline.running.manifest import write_manifest
from attribeam.pipeline.store.files import is_local, write_parquet
from attribeam.schemas import TABLES, Unit, UsageError, table_schema, unit_path
from attribeam.schemas.layout import (
    CARD,
    FAILURES,
    JOINED_FILES,
    PUBLISHED,
    REPORT,
    REPRODUCE,
    SHARD_ROWS,
    UNFINISHED,
    WIDE,
)
from attribeam.schemas.manifest import Manifest, is_double
from attribeam.schemas.tables import EVALUATIONS, completed

# What of a published folder no run has.
_GONE = (PUBLISHED, CARD, REPRODUCE, REPORT)
_TABLES = {*TABLES, *EVALUATIONS, "methods", "run", WIDE}
_JOINED = re.compile(rf"({'|'.join((FAILURES, *EVALUATIONS))})(/[\w.-]+)+\.parquet", re.ASCII)


def check_restorable(root: str, manifest: Manifest) -> None:
    """Checks that a published folder has all that the run had.

    Raises:
        UsageError: If it hasn't, or lies where it can't be written; says what to do.
    """
    why = next(_reasons(root, manifest), None)
    if why is not None:
        raise UsageError(
            f"{root} is a published data set, and nothing can be added to it: {why}. Give the "
            "folder of the run that it was made of, or a new one, and publish that"
        )


def _reasons(root: str, manifest: Manifest) -> Iterator[str]:
    """Yields why a published folder can't become a run."""
    if not is_local(root):
        yield "it is not on this machine (`hf download ... --local-dir FOLDER`)"
        return
    if not manifest.get("files"):
        yield "it doesn't say what its files hold, as those published by this version do"
    if "incomplete" in manifest:
        yield "it is of a part of the run alone"
    strange = {path.split("/")[1] for path in manifest.get("files") or {}} - _TABLES
    if strange:
        yield f"it has tables that this version doesn't know ({', '.join(sorted(strange))})"
    if (Path(root) / UNFINISHED).exists():
        yield "its upload had not finished"
    for path, record in (manifest.get("files") or {}).items():
        file = Path(root) / path
        if file.is_symlink():
            yield f"{path} is a link (`hf download ... --local-dir FOLDER` makes files)"
        elif not file.is_file() or file.stat().st_size != record["bytes"]:
            yield f"{path} is missing or another one (`attribeam verify {root}`)"


def restore(root: str, manifest: Manifest, tell: Callable[[str], None]) -> None:
    """Makes a run of a published folder that ``check_restorable`` found to be whole.

    Args:
        root: The folder, which the caller has to itself.
        manifest: Its manifest.
        tell: Is given a sentence on what it has become.

    Raises:
        UsageError: If a file doesn't hold what its manifest says.
    """
    folder = Path(root)
    try:
        for unit in units(manifest):
            _restore_unit(folder, unit, manifest)
        for table in (FAILURES, *EVALUATIONS):
            for file in (folder / PUBLISHED / table).glob("*.parquet"):
                _restore_files(folder, file)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(
            f"{root} is a published data set that can't become a run again ({said}): "
            f"`attribeam verify {root}` may say why"
        ) from error
    published = ("layout", "files", "versions")
    own = {key: value for key, value in manifest.items() if key not in published}
    # Whoever finds it so finishes what is to be done.
    write_manifest(root, cast(Manifest, {**own, "left": [*_GONE]}))
    clear(root, cast(Manifest, own))
    tell(
        f"{root} was a published data set, and is a run again: `attribeam publish` makes a data "
        "set of it, and of what is added"
    )


def clear(root: str, manifest: Manifest) -> None:
    """Deletes what a published folder had beside its files, once it is a run."""
    for name in _GONE:
        path = Path(root) / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    left = {key: value for key, value in manifest.items() if key != "left"}
    write_manifest(root, cast(Manifest, left))


def _restore_unit(folder: Path, unit: Unit, manifest: Manifest) -> None:
    """Writes the shards of a unit, those without rows too."""
    shards = manifest["identity"]["settings"]["num_shards"]
    schema = table_schema(unit.table, double=is_double(manifest))
    files = sorted((folder / PUBLISHED / unit.table / (unit.method or "")).glob("*.parquet"))
    tables = [table for file in files for table in _shards(file)]
    if not files:
        tables = [schema.empty_table()] * shards
    if len(tables) != shards:
        raise ValueError(f"{unit} has {len(tables)} shards, not {shards}")
    for shard, table in enumerate(tables):
        metadata = table.schema.metadata
        own = completed(table, schema).replace_schema_metadata(metadata)
        write_parquet(str(folder / unit_path(unit, shard, shards)), own)


def _shards(file: Path) -> Iterator[pa.Table]:
    """Yields the rows of each shard of a published file, with what it said of itself."""
    with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
        said = metadata_of(parquet.metadata)
        table = parquet.read()
    rows = json.loads(said.pop(SHARD_ROWS, f"[{len(table)}]"))
    if sum(rows) != len(table):
        raise ValueError(f"{file.name} has {len(table)} rows, not {sum(rows)}")
    yield from _slices(table, rows, said)


def _restore_files(folder: Path, file: Path) -> None:
    """Writes the files that a published one was made of."""
    with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
        joined: list[dict[str, Any]] = json.loads(metadata_of(parquet.metadata)[JOINED_FILES])
        table = parquet.read()
    slices = _slices(table, [one["rows"] for one in joined], {})
    for one, rows in zip(joined, slices, strict=True):
        path = str(one["path"])
        if not _JOINED.fullmatch(path) or ".." in path.split("/"):
            raise ValueError(f"{file.name} names {path}")
        said = {SHARD_ROWS: json.dumps(one["shard_rows"])} if "shard_rows" in one else None
        write_parquet(str(folder / path), rows.replace_schema_metadata(said))


def _slices(table: pa.Table, rows: list[int], said: dict[str, str]) -> Iterator[pa.Table]:
    """Yields so many rows at a time."""
    start = 0
    for number in rows:
        yield table.slice(start, number).replace_schema_metadata(said or None)
        start += number
