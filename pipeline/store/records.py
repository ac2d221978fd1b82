"""What workers say of the files that they have written, for the index of the run.

A worker holds what it has written since the last file of records, and writes that when its bundle
ends or it has many. What a worker that is killed has not said is read from the files themselves.
"""

from array import array
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from attribeam.pipeline.store.files import (
    DamagedError,
    discard,
    exists,
    join,
    list_files,
    opened_parquet,
    read_parquet,
    write_parquet,
)
from attribeam.schemas.index import INDEX, RECORDS, Entry, entries_of, table_of
from attribeam.schemas.layout import Place, parse_failures_path, shard_name, shards_path

_BATCH = 8192  # Entries of an index that are read at a time.


def write_records(root: str, entries: list[Entry]) -> None:
    """Writes a file of records."""
    write_parquet(join(root, f"{RECORDS}/{uuid4().hex}.parquet"), table_of(entries))


def read_records(root: str) -> tuple[list[Entry], list[str]]:
    """What index and records say, and the paths of the files of records."""
    paths = [f"{RECORDS}/{name}" for name in list_files(join(root, RECORDS))]
    paths = [path for path in paths if path.endswith(".parquet")]
    entries: list[Entry] = []
    for path in [*[INDEX] * exists(join(root, INDEX)), *paths]:
        try:
            entries += entries_of(read_parquet(join(root, path)))
        except (DamagedError, KeyError, TypeError, pa.ArrowException):
            continue  # The files themselves are read instead.
    return entries, paths


def checksums(root: str) -> dict[str, str]:
    """The SHA-256 of each file of which index and records say the same."""
    found: dict[str, set[str]] = {}
    for entry in read_records(root)[0]:
        found.setdefault(entry.path, set()).add(entry.sha256)
    return {path: each.pop() for path, each in found.items() if len(each) == 1}


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
    entries, records = read_records(root)
    if any(entry.path in paths for entry in entries):
        write_index(root, (entry for entry in entries if entry.path not in paths), records)


def write_index(root: str, entries: Iterable[Entry], records: Iterable[str]) -> None:
    """Writes the index, and deletes the records that it takes the place of."""
    write_parquet(join(root, INDEX), table_of(sorted(set(entries), key=lambda entry: entry.path)))
    for path in records:
        discard(join(root, path))
