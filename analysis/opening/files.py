"""The files of a run: which there should be, and whether each can be read from end to end."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from attribeam.analysis.opening.database import escape_glob
from attribeam.analysis.opening.reading import file_problems
from attribeam.analysis.opening.readonly import LocalFiles
from attribeam.analysis.opening.remote import RemoteFiles, is_remote
from attribeam.analysis.opening.runs import linked_folders, load_manifest, parse_manifest
from attribeam.schemas import TABLES, Unit, parse_unit_path
from attribeam.schemas.layout import (
    CORPUS,
    FAILURES,
    REPLACING,
    STATISTICS,
    Place,
    parse_failures_path,
    shards_of,
)
from attribeam.schemas.manifest import Manifest, is_published

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
    there: Iterator[tuple[str, str]]
    if is_remote(folder):
        files = RemoteFiles(str(folder))
        manifest = parse_manifest(files.manifest, str(folder))
        paths = files.glob(f"{escape_glob(files.root)}**")
        found = (path.removeprefix(files.root).rpartition("/") for path in paths)
        there = ((parent, name) for parent, _, name in found)
    else:
        manifest = load_manifest(folder)
        folders = [unit.folder for unit in units(manifest)]
        there = ((each, name) for each in folders for name in _names(Path(folder) / each))
    if is_published(manifest):
        return None
    num_shards = manifest["identity"]["settings"]["num_shards"]
    # A byte a file, since there may be very many.
    shards = {unit.folder: bytearray(num_shards) for unit in units(manifest)}
    for parent, name in there:
        of = shards_of(name) if parent in shards else None
        if of is not None and of[1] == num_shards:
            within = range(min(of[0].start, num_shards), min(of[0].stop, num_shards))
            shards[parent][within.start : within.stop] = b"\1" * len(within)
    return not_finished(sum(map(sum, shards.values())), len(shards) * num_shards)


def _names(folder: Path) -> Iterator[str]:
    """The names in a folder, if it is one."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            yield entry.name


def not_finished(there: int, expected: int) -> str | None:
    """The sentence on a run of whose shards' tables some are missing."""
    if there == expected:
        return None
    return (
        f"not finished: {there} of {expected} files are there. "
        "Run the same command again: it does what is missing"
    )


def survey(root: Path, manifest: Manifest, processes: int = 1) -> Survey:
    """Reads every file of a run, one at a time in each process.

    Args:
        root: The run's folder.
        manifest: Its ``run.json``.
        processes: How many processes read.
    """
    num_shards = manifest["identity"]["settings"]["num_shards"]
    paths = _committed(root)
    places = {path: parse_unit_path(path) or parse_failures_path(path) for path in paths}
    known = set(units(manifest))
    own = {
        path: place
        for path, place in places.items()
        if place and place.unit in known and place.num_shards == num_shards
    }
    found = file_problems(root, own, manifest, processes)
    problems = [f"{path}: {problem}" for path in own for problem in found.get(path, ())]
    counted = Counter(
        (place.unit, shard)
        for path, place in own.items()
        if not path.startswith(f"{FAILURES}/")
        for shard in place.shards
    )
    problems += _twice(counted)
    spoiled = {shard for path, place in own.items() if path in found for shard in place.shards} | {
        shard for (_, shard), number in counted.items() if number > 1
    }
    of_shard = Counter(shard for _, shard in counted)
    whole = {
        shard
        for shard in range(num_shards)
        if of_shard[shard] == len(known) and shard not in spoiled
    }
    problems += [
        f"{path}: no shard of a method of run.json has this name. Move it elsewhere"
        for path in paths
        if path not in own
    ]
    problems += _left_half(root)
    problems += _problems_beside(root, manifest)
    problems += [
        f"{path}: a link, which queries and runs don't follow. Put the folder itself there"
        for path in linked_folders(root)
    ]
    sound, shards = _sound(own, whole)
    problems += unfollowed(root, [path for paths in sound.values() for path in paths])
    return Survey(problems, len(counted), len(known) * num_shards, shards, sound)


def _sound(own: Mapping[str, Place], whole: set[int]) -> tuple[dict[str, list[str]], int]:
    """The files by table whose shards are all whole, and the number of these shards.

    A file of several shards can't be counted in part: of one that isn't all whole, no shard is.
    """
    left = set(whole)
    mixed = [place for place in own.values() if place.joined]
    before = -1
    while len(left) != before:  # What one file takes away may be a part of another.
        before = len(left)
        for place in mixed:
            if not left.issuperset(place.shards):
                left.difference_update(place.shards)
    sound: dict[str, list[str]] = {table: [] for table in TABLES}
    for path, place in own.items():
        if left.issuperset(place.shards):
            failures = path.startswith(f"{FAILURES}/")
            sound[FAILURES if failures else place.unit.table].append(path)
    return sound, len(left)


def _twice(counted: Mapping[tuple[Unit, int], int]) -> Iterator[str]:
    """Yields which units have shards that are in more than one file."""
    shards: dict[Unit, list[int]] = {}
    for (unit, shard), number in counted.items():
        if number > 1:
            shards.setdefault(unit, []).append(shard)
    for unit, found in shards.items():
        yield (
            f"{unit.folder}: {len(found)} shards are in more than one file, such as {min(found)}. "
            "An earlier version of attribeam has gone on with a compacted run: move the files of "
            "one shard elsewhere"
        )


def _left_half(root: Path) -> Iterator[str]:
    """Yields that files were being replaced when a process was killed."""
    if (root / REPLACING).exists():
        yield (
            f"{REPLACING}: files were being put in the place of others, and that was cut short. "
            "Run the same command again: it is finished then, and nothing is lost"
        )


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
