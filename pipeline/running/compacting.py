"""Compacting a run: its small files become few large ones, and all else stays as it was.

A run commits a file per shard, so that a crash costs little. Once it is done, neighbouring shards
of a unit are joined (``analysis.joining``); their file's name says which they are, and its metadata
how many rows each has. What failed in them is joined with them. Whoever kills it loses nothing, and
the same command goes on.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from attribeam.analysis.joining import groups, join_files, metadata_of
from attribeam.analysis.opening.files import units
from attribeam.analysis.opening.reading import rows_of_shards
from attribeam.pipeline.running.indexing import index_run
from attribeam.pipeline.running.loadable import describe_run
from attribeam.pipeline.running.manifest import check_is_own, read_manifest
from attribeam.pipeline.store.damage import sweep
from attribeam.pipeline.store.files import (
    DamagedError,
    Hashed,
    discard,
    is_local,
    join,
    list_sized,
    open_read,
    write_beside,
)
from attribeam.pipeline.store.lock import locked
from attribeam.pipeline.store.records import write_records
from attribeam.pipeline.store.replacing import replace_files
from attribeam.schemas import Unit, UsageError, table_schema
from attribeam.schemas.index import Entry
from attribeam.schemas.layout import (
    FAILURES,
    SHARD_ROWS,
    Place,
    parse_failures_path,
    parse_unit_path,
    shards_path,
)
from attribeam.schemas.manifest import Manifest, is_double


class Compacted(NamedTuple):
    """What became of a run's files.

    Attributes:
        before: How many there were.
        after: How many there are.
        left: Sentences on those that could not be joined.
    """

    before: int
    after: int
    left: list[str]


def compact(root: str, tell: Callable[[str], None] = lambda _: None) -> Compacted:
    """Joins the files of a run, of whatever shards are there.

    Args:
        root: The run's folder, local or at a URL.
        tell: Is given a sentence on each unit that is joined.

    Raises:
        UsageError: If it is no run's folder, or somebody is at work in it.
        OSError: If the disk is full. Nothing is lost then.
    """
    manifest = read_manifest(root)
    if manifest is None:
        raise UsageError(f"{root} is no run folder: it has no run.json")
    check_is_own(root, manifest)
    with locked(root):
        sweep(root, manifest["identity"]["settings"]["num_shards"])
        before = _files(root, manifest)
        left: list[str] = []
        for unit, places in _by_unit(before).items():
            sizes = [before[place] for place in places]
            joined = [[places[n] for n in group] for group in _runs(places, sizes)]
            for some in joined:
                try:
                    _join(root, some, manifest)
                except (pa.ArrowException, OSError) as error:
                    # What Arrow finds has no number; a disk that is full is another matter.
                    if isinstance(error, OSError) and error.errno is not None:
                        raise
                    reason = str(error).splitlines()[0]
                    left.append(
                        f"{unit}: some files stay as they are, since one is damaged ({reason}): "
                        f"`attribeam verify {root}` says which"
                    )
            if joined:
                tell(f"{unit}: {sum(map(len, joined))} files became {len(joined)}")
        index_run(root, manifest, read=is_local(root))
        describe_run(root, manifest)
        return Compacted(len(before), len(_files(root, manifest)), left)


def _files(root: str, manifest: Manifest) -> dict[Place, int]:
    """The files of the tables of a run, and their sizes."""
    num_shards = manifest["identity"]["settings"]["num_shards"]
    known = {*units(manifest)}
    found = ((parse_unit_path(path), size) for path, size in list_sized(root))
    return {
        place: size
        for place, size in found
        if place is not None and place.unit in known and place.num_shards == num_shards
    }


def _by_unit(places: Mapping[Place, int]) -> dict[Unit, list[Place]]:
    """The files of each unit, by their first shard."""
    found: dict[Unit, list[Place]] = {}
    for place in sorted(places, key=lambda place: place.shards[0]):
        found.setdefault(place.unit, []).append(place)
    return found


def _runs(places: list[Place], sizes: list[int]) -> Iterator[range]:
    """Which files of a unit become one: some that follow each other without a gap."""
    start = 0
    for number in range(1, len(places) + 1):
        gap = number == len(places) or places[number].shards[0] != places[number - 1].shards[-1] + 1
        if gap:
            for group in groups(sizes[start:number]):
                if len(group) > 1:
                    yield range(start + group.start, start + group.stop)
            start = number


def _join(root: str, places: list[Place], manifest: Manifest) -> None:
    """Puts one file in the place of several, and one of their failures in the place of these."""
    whole = places[0]._replace(shards=range(places[0].shards[0], places[-1].shards[-1] + 1))
    tables = {shards_path(place): place for place in places}
    written = [_written(root, whole, tables, manifest)]
    failed = _failures_within(root, whole)
    if len(failed) > 1:
        written.append(_written(root, whole, failed, manifest, failures=True))
    else:
        failed = {}
    come = {entry.path: temporary for entry, temporary in written}
    replace_files(root, [*tables, *failed], come)
    write_records(root, [entry for entry, _ in written])


def _failures_within(root: str, whole: Place) -> dict[str, Place]:
    """The files of the failures of a unit's shards, in order."""
    folder = f"{FAILURES}/{whole.unit}"
    names = (f"{folder}/{name}" for name, _ in list_sized(join(root, folder)))
    places = {name: place for name in names if (place := parse_failures_path(name)) is not None}
    within = {
        name: place
        for name, place in places.items()
        if place.num_shards == whole.num_shards and place.shards[0] in whole.shards
    }
    return dict(sorted(within.items(), key=lambda entry: entry[1].shards[0]))


def _written(
    root: str,
    whole: Place,
    places: Mapping[str, Place],
    manifest: Manifest,
    *,
    failures: bool = False,
) -> tuple[Entry, str]:
    """Writes a file of the rows of others, by path.

    Returns:
        What the index is to say of it, and its temporary path.

    Raises:
        DamagedError: If what was written hasn't as many rows as the others.
    """
    opened = partial(_opened, root)
    rows = dict.fromkeys(whole.shards, 0)
    said: dict[str, str] = {}
    for path, place in places.items():
        with opened(path) as handle:
            footer = pq.read_metadata(handle)
        counts = rows_of_shards(footer, place)
        if counts is None:
            raise DamagedError(f"{path} doesn't say which rows are of which shard")
        rows.update(zip(place.shards, counts, strict=True))
        said = metadata_of(footer) | said
    said[SHARD_ROWS] = json.dumps([*rows.values()], separators=(",", ":"))
    table = FAILURES if failures else whole.unit.table
    schema = table_schema(table, double=is_double(manifest))

    path = shards_path(whole, failures=failures)
    hashed: list[Hashed] = []

    def write(handle: Any) -> None:
        hashed.append(Hashed(handle))
        join_files([*places], hashed[0], schema, said, opened=opened)

    temporary = write_beside(join(root, path), write)
    with open_read(temporary) as handle:
        written = pq.read_metadata(handle).num_rows
    if written != sum(rows.values()):
        discard(temporary)
        raise DamagedError(f"{path} has {written} rows instead of {sum(rows.values())}")
    of = whole.unit.table, whole.unit.method, whole.shards[0], whole.shards[-1]
    return Entry(path, *of, written, hashed[0].size, hashed[0].sha256), temporary


def _opened(root: str, path: str) -> Any:
    return open_read(join(root, path))
