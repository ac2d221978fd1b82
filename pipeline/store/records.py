"""What workers say of the files that they have written, for the index of the run.

A worker holds what it has written since the last file of records, and writes that when its bundle
ends or it has many. What a worker that is killed has not said is read from the files themselves.
"""

from array import array
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from attribeam.pipeline.store.files import (
    DamagedError,
    discard,
    exists,
    join,
    list_files,
    opened_parquet,
    write_content,
    write_parquet,
)
from attribeam.schemas.encoding import parquet_options
from attribeam.schemas.index import INDEX, INDEX_SCHEMA, RECORDS, Entry, entries_of, table_of
from attribeam.schemas.layout import Place, parse_failures_path, shard_name, shards_path

# Entries of an index that are read at a time, and that are encoded together.
_BATCH, _GROUP = 8192, 16384


def write_records(root: str, entries: list[Entry]) -> None:
    """Writes a file of records."""
    write_parquet(join(root, f"{RECORDS}/{uuid4().hex}.parquet"), table_of(entries))


class Said:
    """What index and records say of the files of a run, in Arrow's memory.

    Attributes:
        records: Paths of the files of records.
        is_indexed: Whether there is an index.
        number: How much is said, of some files perhaps more than once.
    """

    def __init__(self, root: str) -> None:
        paths = (f"{RECORDS}/{name}" for name in list_files(join(root, RECORDS)))
        self.records = [path for path in paths if path.endswith(".parquet")]
        self.is_indexed = exists(join(root, INDEX))
        found = []
        for path in [*[INDEX] * self.is_indexed, *self.records]:
            # Of what is damaged the files themselves are read instead.
            with suppress(DamagedError, KeyError, TypeError, pa.ArrowException):
                found += _batches(join(root, path))
        self._table = pa.Table.from_batches(found, INDEX_SCHEMA)
        self.number = len(self._table)

    def of(self, folder: str) -> list[Entry]:
        """What is said of the files in a folder, which is relative to the run's."""
        return entries_of(self._table.filter(pc.starts_with(self._table["path"], f"{folder}/")))

    def all(self) -> Iterator[Entry]:
        """Yields all that is said."""
        for batch in self._table.to_batches(_BATCH):
            yield from entries_of(pa.Table.from_batches([batch]))


def _batches(path: str) -> list[pa.RecordBatch]:
    """What a file of records, or an index, holds."""
    found = []
    with opened_parquet(path) as parquet:
        for batch in parquet.iter_batches(_BATCH, columns=INDEX_SCHEMA.names):
            columns = [batch[name] for name in INDEX_SCHEMA.names]
            found.append(pa.RecordBatch.from_arrays(columns, schema=INDEX_SCHEMA))
            # Arrow would keep what was needed for one batch beside what the next one takes.
            pa.default_memory_pool().release_unused()
    return found


def checksums(root: str) -> dict[str, str]:
    """The SHA-256 of each file of which index and records say the same."""
    found: dict[str, str | None] = {}
    for entry in Said(root).all():
        same = found.get(entry.path, entry.sha256) == entry.sha256
        found[entry.path] = entry.sha256 if same else None
    return {path: digest for path, digest in found.items() if digest is not None}


class Indexed:
    """What the index of a run says of the sizes of its files: eight bytes for each.

    As objects of Python the paths and sizes of very many files would be large.

    Args:
        root: The run's folder.
        num_shards: How many shards it has.
    """

    def __init__(self, root: str, num_shards: int) -> None:
        self._num_shards = num_shards
        self._sizes: dict[str, array[int]] = {}  # By folder and shard; -1 where nothing is known.
        self._joined: list[str] = []  # Paths of files of several shards.
        if not exists(join(root, INDEX)):
            return
        # What is damaged says nothing: the files themselves are looked at.
        with (
            suppress(DamagedError, KeyError, pa.ArrowException),
            opened_parquet(join(root, INDEX)) as parquet,
        ):
            for batch in parquet.iter_batches(_BATCH, columns=["path", "first", "last", "bytes"]):
                self._read(batch)
                # Arrow would keep what was needed for one batch beside what the next one takes.
                pa.default_memory_pool().release_unused()

    def _read(self, batch: pa.RecordBatch) -> None:
        num_shards = self._num_shards
        end = shard_name(0, num_shards).removeprefix("shard-00000")
        first = batch["first"].to_numpy()
        single = pc.and_(pc.equal(batch["first"], batch["last"]), pc.ends_with(batch["path"], end))
        own = single.to_numpy(zero_copy_only=False) & (first >= 0) & (first < num_shards)
        parts = pc.split_pattern(batch["path"], "/", max_splits=1, reverse=True)
        folders = pc.list_element(parts, 0).dictionary_encode()
        codes, sizes = folders.indices.to_numpy(), batch["bytes"].to_numpy()
        for code, folder in enumerate(folders.dictionary.to_pylist()):
            if folder not in self._sizes:
                self._sizes[folder] = array("q", [-1]) * num_shards
            chosen = own & (codes == code)
            np.frombuffer(self._sizes[folder], np.int64)[first[chosen]] = sizes[chosen]
        self._joined += batch["path"].filter(pa.array(~own)).to_pylist()

    def failures(self) -> Iterator[tuple[str, Place]]:
        """Yields the files of failures that it names: their paths, and what these say."""
        for folder, sizes in self._sizes.items():
            place = parse_failures_path(f"{folder}/{shard_name(0, len(sizes))}")
            if place is not None:
                for shard in (number for number, size in enumerate(sizes) if size >= 0):
                    own = Place.of(place.unit, shard, len(sizes))
                    yield shards_path(own, failures=True), own
        for path in self._joined:
            place = parse_failures_path(path)
            if place is not None and place.num_shards == self._num_shards:
                yield path, place

    def sizes(self, folder: str) -> "array[int] | None":
        """The sizes of the files in a folder by their shards, -1 for those that nothing is said of.

        None if nothing is said of any.
        """
        return self._sizes.get(folder)


def forget(root: str, paths: Collection[str]) -> None:
    """Takes files that are to be written anew out of the index and the records."""
    if not paths:
        return
    said = Said(root)
    if any(entry.path in paths for entry in said.all()):
        kept = {entry for entry in said.all() if entry.path not in paths}
        write_index(root, sorted(kept, key=lambda entry: entry.path), said.records)


def write_index(root: str, entries: Iterable[Entry], records: Iterable[str]) -> None:
    """Writes the index, and deletes the records that it takes the place of.

    Args:
        root: The run's folder.
        entries: What it is to say, which is written as it comes.
        records: Paths of the files of records.
    """
    encoded = pa.BufferOutputStream()
    left = iter(entries)
    with pq.ParquetWriter(encoded, INDEX_SCHEMA, **parquet_options(INDEX_SCHEMA)) as writer:
        while some := list(islice(left, _GROUP)):
            writer.write_table(table_of(some))
    write_content(join(root, INDEX), encoded.getvalue())
    for path in records:
        discard(join(root, path))
