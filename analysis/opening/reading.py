"""Reading the files of a run from end to end, and comparing them with the run's index."""

import hashlib
import json
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from attribeam.schemas import Unit, table_schema
from attribeam.schemas.index import INDEX, Entry, entries_of
from attribeam.schemas.layout import FAILURES, SHARD_ROWS, Place
from attribeam.schemas.manifest import Manifest, is_double
from attribeam.schemas.tables import as_written

_BATCH = 8192
_REPAIR = "Run the same command again with --repair"
_AT_ONCE = 256  # Files that a process is given at a time.
_BLOCK = 1 << 20

_Asked = tuple[str, Place, Entry | None]


def file_problems(
    root: Path, places: Mapping[str, Place], manifest: Manifest, processes: int = 1
) -> dict[str, list[str]]:
    """What is wrong with the files of a run, by path; those that are sound are left out.

    Args:
        root: The run's folder.
        places: What the path of each file says.
        manifest: The run's ``run.json``.
        processes: How many processes read.
    """
    index = read_index(root)
    asked = [(path, place, index.get(path)) for path, place in places.items()]
    check = partial(_problems_of, str(root), is_double(manifest))
    parts = [asked[start : start + _AT_ONCE] for start in range(0, len(asked), _AT_ONCE)]
    if processes < 2 or len(parts) < 2:
        found = map(check, parts)
        return {path: problems for part in found for path, problems in part}
    # Those who fork a process of many threads may wait for a lock that nobody holds any more.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(parts)), context) as pool:
        return {path: problems for part in pool.map(check, parts) for path, problems in part}


def read_index(root: Path) -> dict[str, Entry]:
    """The index of a run by path; empty if it has none that can be read."""
    try:
        return {entry.path: entry for entry in entries_of(pq.read_table(root / INDEX))}
    except (FileNotFoundError, pa.ArrowException, OSError, KeyError, TypeError):
        return {}


def checksum(handle: IO[bytes]) -> str:
    """The SHA-256 of what is left to read, in hexadecimal digits."""
    digest = hashlib.sha256()
    while block := handle.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()


def _problems_of(root: str, double: bool, asked: Sequence[_Asked]) -> list[tuple[str, list[str]]]:
    """What is wrong with some files of a run, where anything is."""
    found = (
        (path, _file_problems(Path(root), path, place, entry, double))
        for path, place, entry in asked
    )
    return [(path, problems) for path, problems in found if problems]


def _file_problems(
    root: Path, path: str, place: Place, entry: Entry | None, double: bool
) -> list[str]:
    """What is wrong with a file: by its checksum if the index has it, else by reading it."""
    try:
        if entry is not None:
            with (root / path).open("rb") as handle:
                if checksum(handle) == entry.sha256:
                    return []
            return [f"is not what was written (its checksum is another). {_REPAIR}"]
        unit = None if path.startswith(f"{FAILURES}/") else place.unit
        schema = table_schema(FAILURES if unit is None else unit.table, double=double)
        found = list(content_problems(root / path, unit, schema, place))
    except (pa.ArrowException, OSError) as error:
        found = [f"damaged ({str(error).splitlines()[0]})"]
    return [f"{problem}. {_REPAIR}" for problem in found]


def rows_of_shards(footer: pq.FileMetaData, place: Place) -> list[int] | None:
    """How many rows each shard of a file has, in order; None if a file of several doesn't say.

    Args:
        footer: The footer of the file.
        place: What its path says.
    """
    if not place.joined:
        return [footer.num_rows]
    try:
        rows = json.loads((footer.metadata or {})[SHARD_ROWS.encode()])
        if len(rows) == len(place.shards) and sum(rows) == footer.num_rows:
            return [int(number) for number in rows]
    except (KeyError, ValueError, TypeError):
        pass
    return None


def content_problems(
    file: Path | IO[bytes], unit: Unit | None, schema: pa.Schema, place: Place | None = None
) -> Iterator[str]:
    """Yields what is wrong with a file; every page of it is read and its checksum compared.

    Args:
        file: The file.
        unit: The unit whose table it is; None for one that is of several methods.
        schema: The table's columns.
        place: What its path says, if it is one of a run.
    """
    with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
        if place is not None and rows_of_shards(parquet.metadata, place) is None:
            yield "doesn't say which rows are of which shard"
        # Those that a later version has added are none of ours.
        found = pa.schema([each for each in parquet.schema_arrow if each.name in schema.names])
        if not found.equals(as_written(found, schema)):
            wrong = _difference(parquet.schema_arrow, schema)
            yield f"has other columns than the table: {wrong}"
        methods: set[str | None] = set()
        for batch in parquet.iter_batches(_BATCH):
            if unit is not None and unit.method is not None and "method" in batch.schema.names:
                methods.update(pc.unique(batch.column("method")).to_pylist())
        if unit is not None and methods - {unit.method}:
            yield f"has rows of {', '.join(sorted(map(str, methods - {unit.method})))}"


def _difference(found: pa.Schema, expected: pa.Schema) -> str:
    if found.names != expected.names:
        return f"{', '.join(found.names)} instead of {', '.join(expected.names)}"
    return "; ".join(
        f"{ours.name} is {theirs.type} instead of {ours.type}"
        for theirs, ours in zip(found, expected, strict=True)
        if not theirs.equals(ours)
    )
