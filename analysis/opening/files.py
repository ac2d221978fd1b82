"""The files of a run: which there should be, and whether each can be read from end to end."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from attribeam.analysis.opening.database import escape_glob
from attribeam.analysis.opening.readonly import LocalFiles
from attribeam.analysis.opening.remote import RemoteFiles, is_remote
from attribeam.analysis.opening.runs import linked_folders, load_manifest, parse_manifest
from attribeam.schemas import TABLES, Unit, failures_path, table_schema, unit_path
from attribeam.schemas.layout import CORPUS, FAILURES, STATISTICS
from attribeam.schemas.manifest import Manifest, is_double, is_published
from attribeam.schemas.tables import as_written

_BATCH = 8192
_REPAIR = "Run the same command again with --repair"


class Survey(NamedTuple):
    """What reading every file found.

    ``sound`` has the paths per table of the shards of which nothing is missing or damaged, so that
    the rows of one table can be held against those of another; ``shards`` counts them.
    """

    problems: list[str]
    there: int
    expected: int
    shards: int
    sound: dict[str, list[str]]


def units(manifest: Manifest) -> list[Unit]:
    """The units of a run: every one of them has a file per shard.

    A method has curves if a call that ran it was told to evaluate, and scores by layer if one was
    told to give them.
    """
    methods = manifest["methods"].items()
    return [
        Unit("instances"),
        *(Unit(table, name) for name, method in methods for table in method["tables"]),
    ]


def unfinished(folder: str | Path) -> str | None:
    """What is to be said of a run that isn't finished; None if it is, or is a published one.

    Files are counted by their names and not read: a run has one per unit and shard.

    Args:
        folder: The run's folder or, as a text, its address.

    Raises:
        UsageError: If it is no run folder.
    """
    if is_remote(folder):
        files = RemoteFiles(str(folder))
        manifest = parse_manifest(files.manifest, str(folder))
        there = {
            path.removeprefix(files.root) for path in files.glob(f"{escape_glob(files.root)}**")
        }
    else:
        manifest = load_manifest(folder)
        places = [Path(folder) / unit.folder for unit in units(manifest)]
        there = {
            path.relative_to(folder).as_posix()
            for place in places
            if place.is_dir()
            for path in place.iterdir()
        }
    if is_published(manifest):
        return None
    num_shards = manifest["identity"]["settings"]["num_shards"]
    expected = [
        unit_path(unit, shard, num_shards)
        for unit in units(manifest)
        for shard in range(num_shards)
    ]
    return not_finished(len(there.intersection(expected)), len(expected))


def not_finished(there: int, expected: int) -> str | None:
    """The sentence on a run of whose files some are missing."""
    if there == expected:
        return None
    return (
        f"not finished: {there} of {expected} files are there. "
        "Run the same command again: it does what is missing"
    )


def survey(root: Path, manifest: Manifest) -> Survey:
    """Reads every file of a run, one at a time.

    Args:
        root: The run's folder.
        manifest: Its ``run.json``.
    """
    settings = manifest["identity"]["settings"]
    num_shards = settings["num_shards"]
    double = is_double(manifest)
    problems: list[str] = []
    there = shards = 0
    known: set[str] = set()
    sound: dict[str, list[str]] = {table: [] for table in TABLES}
    for shard in range(num_shards):
        tables = {unit_path(unit, shard, num_shards): unit for unit in units(manifest)}
        failures = {failures_path(unit, shard, num_shards): unit for unit in units(manifest)}
        present = [path for path in tables if (root / path).is_file()]
        failed = [path for path in failures if (root / path).is_file()]
        known.update(tables, failures)
        there += len(present)
        found = [
            f"{path}: {problem}"
            for path in (*present, *failed)
            for problem in _file_problems(root / path, path, tables.get(path), double)
        ]
        problems += found
        if len(present) == len(tables) and not found:
            shards += 1
            for path in present:
                sound[tables[path].table].append(path)
            sound[FAILURES] += failed
    problems += [
        f"{path}: no shard of a method of run.json has this name. Move it elsewhere"
        for path in _committed(root)
        if path not in known
    ]
    problems += _problems_beside(root, manifest)
    problems += [
        f"{path}: a link, which queries and runs don't follow. Put the folder itself there"
        for path in linked_folders(root)
    ]
    problems += unfollowed(root, [path for paths in sound.values() for path in paths])
    return Survey(problems, there, len(units(manifest)) * num_shards, shards, sound)


def unfollowed(root: Path, paths: Iterable[str]) -> Iterator[str]:
    """Yields which files are there and read from end to end, and yet not there for queries."""
    files = LocalFiles(root)
    for path in paths:
        try:
            files.info(f"{files.root}{path}")
        except PermissionError:
            if not (root / path).is_symlink():
                continue  # Its folder is a link, and named as such.
            yield (
                f"{path}: a link that leads out of the folder, which queries don't follow. Put the "
                "file itself there"
            )


def _problems_beside(root: Path, manifest: Manifest) -> Iterator[str]:
    """Yields what is wrong with the copy of the corpus and statistics, as far as they are there."""
    for file in sorted((*root.glob(f"{CORPUS}/rows-*"), *root.glob(f"{STATISTICS}/sample-*"))):
        path = file.relative_to(root).as_posix()
        if file.suffix != ".parquet":
            continue
        try:
            with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
                parquet.read()
            found = [*corpus_problems(file, path, manifest)] if path.startswith(CORPUS) else []
        except (pa.ArrowException, OSError) as error:
            found = [f"damaged ({str(error).splitlines()[0]})"]
        yield from (f"{path}: {problem}. {_REPAIR}" for problem in found)


def _committed(root: Path) -> list[str]:
    patterns = [f"{table}/**/shard-*-of-*.parquet" for table in TABLES]
    return sorted(
        path.relative_to(root).as_posix() for pattern in patterns for path in root.glob(pattern)
    )


def _file_problems(file: Path, path: str, unit: Unit | None, double: bool) -> list[str]:
    schema = table_schema(FAILURES if unit is None else unit.table, double=double)
    try:
        found = list(content_problems(file, unit, schema))
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        found = [f"damaged ({reason})"]
    return [f"{problem}. {_REPAIR}" for problem in found]


def content_problems(file: Path | IO[bytes], unit: Unit | None, schema: pa.Schema) -> Iterator[str]:
    """Yields what is wrong with a file; every page of it is read and its checksum compared."""
    with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
        found = parquet.schema_arrow
        if not found.equals(as_written(found, schema)):
            yield f"has other columns than the table: {_difference(found, schema)}"
        methods: set[str | None] = set()
        for batch in parquet.iter_batches(_BATCH):
            if unit is not None and unit.method is not None and "method" in batch.schema.names:
                methods.update(pc.unique(batch.column("method")).to_pylist())
        if unit is not None and methods - {unit.method}:
            yield f"has rows of {', '.join(sorted(map(str, methods - {unit.method})))}"


def corpus_problems(file: Path | IO[bytes], path: str, manifest: Manifest) -> Iterator[str]:
    """Yields what is wrong with a file of the copy of the corpus, which lies at a path."""
    corpus, settings = manifest["identity"]["corpus"], manifest["identity"]["settings"]
    with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
        rows = sum(len(batch) for batch in parquet.iter_batches(_BATCH))
    found = re.search(r"rows-(\d+)\.parquet$", path)
    size = settings.get("shard_size")
    if found is not None and isinstance(size, int):
        expected = min(size, corpus["rows"] - int(found[1]) * size)
        if rows != expected:
            yield f"has {rows} rows instead of {expected}"


def _difference(found: pa.Schema, expected: pa.Schema) -> str:
    if found.names != expected.names:
        return f"{', '.join(found.names)} instead of {', '.join(expected.names)}"
    return "; ".join(
        f"{ours.name} is {theirs.type} instead of {ours.type}"
        for theirs, ours in zip(found, expected, strict=True)
        if not theirs.equals(ours)
    )
