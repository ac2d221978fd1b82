"""Files of a run that are damaged: found, and told whose they are.

Nothing is deleted for it. What is made again replaces what is there, as a whole; what this call
can't make again stays, since somebody else may.
"""

import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pyarrow as pa

from attribeam.analysis.opening.files import corpus_problems
from attribeam.analysis.opening.reading import checksum, content_problems
from attribeam.pipeline.parts import WHOLE, RunPart
from attribeam.pipeline.store.files import (
    TEMPORARY,
    DamagedError,
    discard,
    join,
    list_checked,
    open_read,
    read_parquet,
)
from attribeam.pipeline.store.records import Indexed, checksums
from attribeam.pipeline.store.replacing import settle
from attribeam.pipeline.store.there import There
from attribeam.schemas import Unit, parse_unit_path, table_schema
from attribeam.schemas.layout import (
    CORPUS,
    FAILURES,
    STATISTICS,
    ShardNames,
    parse_failures_path,
    parse_part_lock_path,
    parse_statistics_path,
)
from attribeam.schemas.manifest import Manifest, is_double

Part = tuple[Unit, int]  # A unit of one shard.


class Swept(NamedTuple):
    """What was found in a run's folder.

    Attributes:
        there: The tables and their failures that are there and not damaged.
        damaged: Paths of the files of the run that are damaged, and of failures that are gone.
    """

    there: There
    damaged: list[str]


class Damage(NamedTuple):
    """What of a run is damaged.

    Attributes:
        parts: The files by unit and shard: its table, its failures, or both.
        corpus: Those of the copy of the corpus.
        samples: Those of statistics, by the size of their sample.
        strays: Those that belong to no unit of ``run.json``.
    """

    parts: dict[Part, list[str]]
    corpus: list[str]
    samples: dict[int, str]
    strays: list[str]


def is_own(path: str) -> bool:
    """Whether a path, relative to a run's folder, is that of a file that a run makes again."""
    return (
        parse_unit_path(path) is not None
        or parse_failures_path(path) is not None
        or path.startswith((f"{CORPUS}/rows-", f"{STATISTICS}/sample-"))
    )


def sweep(
    root: str, num_shards: int, manifest: Manifest | None = None, part: RunPart = WHOLE
) -> Swept:
    """Deletes what a killed run left half written, and finds what a broken disk has damaged.

    What it had begun to put in the place of something else is finished first.

    Args:
        root: The run's folder.
        num_shards: How many shards it has.
        manifest: Its ``run.json``, to read every file to its last page; None to look only for
            those that are cut short: that have neither the size that the index says nor a footer.
        part: The part of the run that this call is for: the shards of others, who may be at work,
            are left alone.
    """
    settle(root)
    indexed, there = Indexed(root, num_shards), There(num_shards)
    known = {} if manifest is None else checksums(root)
    listed = list_checked(root) if manifest else list_checked(root, _Known(indexed, there, part))
    damaged = []
    for path, is_whole in listed:
        if part != WHOLE and not _is_of(path, part):
            continue
        if path.endswith(TEMPORARY):
            discard(join(root, path))
        elif is_whole and manifest is None:
            there.add(path)
        elif is_own(path) and not (
            is_whole and manifest is not None and _is_sound(root, path, manifest, known.get(path))
        ):
            damaged.append(path)
        else:
            there.add(path)
    return Swept(there, sorted({*damaged, *_gone(indexed, there, part)}))


class _Known:
    """Notes files of the size that the index says as there, of which nothing else is asked."""

    def __init__(self, indexed: Indexed, there: There, part: RunPart) -> None:
        self._indexed = indexed
        self._there = there
        self._part = part
        self._shard = ShardNames(there.num_shards)
        self._folder: str | None = None

    def __call__(self, folder: str, entry: os.DirEntry[str]) -> bool:
        """Whether that is all that is to be known of a file."""
        if folder != self._folder:
            self._folder = folder
            self._sizes = self._indexed.sizes(folder)
            self._shards = None if self._sizes is None else self._there.shards(folder)
        if self._sizes is None or self._shards is None:
            return False
        shard = self._shard(entry.name)
        if shard is None or not self._part.has(shard):
            return False
        try:
            if entry.stat().st_size != self._sizes[shard]:
                return False
        except OSError:
            return False  # It may have gone, which is seen when it is opened.
        self._shards[shard] = 1
        return True


def _gone(indexed: Indexed, there: There, part: RunPart) -> Iterator[str]:
    """Yields the failures that the index names and that are no longer there.

    A table that is gone lacks in its folder. That its failures are can be told by the index alone.
    """
    for path, place in indexed.failures():
        is_there = there.failures(place.unit)
        if any(part.has(shard) and not is_there[shard] for shard in place.shards):
            yield path


def _is_of(path: str, part: RunPart) -> bool:
    """Whether a file, or one that is half written, is of a part of a run, or of all parts."""
    if path.endswith(TEMPORARY):
        path = path.removesuffix(TEMPORARY).rpartition(".")[0]
    if other := parse_part_lock_path(path):
        return part.overlaps(RunPart(*other))
    found = parse_unit_path(path) or parse_failures_path(path)
    return found is None or any(map(part.has, found.shards))


def _is_sound(root: str, path: str, manifest: Manifest, known: str | None) -> bool:
    """Whether a file can be read to its last page and is what it should be.

    Args:
        root: The run's folder.
        path: Path of the file, relative to it.
        manifest: The run's ``run.json``.
        known: The checksum of what was written, if that is known.
    """
    if known is not None:
        with open_read(join(root, path)) as handle:
            return checksum(handle) == known
    double = is_double(manifest)
    found = parse_unit_path(path)
    place = found or parse_failures_path(path)
    try:
        if path.startswith(f"{CORPUS}/"):
            with open_read(join(root, path)) as handle:
                return not any(corpus_problems(handle, path, manifest))
        if path.startswith(f"{STATISTICS}/"):
            read_parquet(join(root, path))
            return True
        unit = None if found is None else found.unit
        schema = table_schema(FAILURES if unit is None else unit.table, double=double)
        with open_read(join(root, path)) as handle:
            return not any(content_problems(handle, unit, schema, place))
    except (DamagedError, pa.ArrowException):
        return False
    except OSError as error:
        # What Arrow finds has no number; that a file can't be read is another matter.
        if error.errno is not None:
            raise
        return False


def sorted_out(damaged: Iterable[str], units: Iterable[Unit], num_shards: int) -> Damage:
    """Says whose damaged files are.

    Args:
        damaged: Their paths.
        units: The units of the run.
        num_shards: Its number of shards.
    """
    known = set(units)
    damage = Damage({}, [], {}, [])
    for path in damaged:
        found = parse_unit_path(path) or parse_failures_path(path)
        sample = parse_statistics_path(path)
        if found is not None and found.unit in known and found.num_shards == num_shards:
            for shard in found.shards:
                damage.parts.setdefault((found.unit, shard), []).append(path)
        elif found is None and path.startswith(f"{CORPUS}/"):
            damage.corpus.append(path)
        elif sample is not None:
            damage.samples[sample] = path
        else:
            damage.strays.append(path)
    return damage
