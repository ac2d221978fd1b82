"""What workers say of the files that they have written, for the index of the run.

A worker holds what it has written since the last file of records, and writes that when its bundle
ends or it has many. What a worker that is killed has not said is read from the files themselves.
"""

from collections.abc import Collection, Iterable
from contextlib import suppress
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc

from attribeam.pipeline.store.files import (
    DamagedError,
    discard,
    exists,
    is_local,
    join,
    list_files,
    read_parquet,
    write_parquet,
)
from attribeam.schemas.index import INDEX, RECORDS, Entry, entries_of, table_of


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


class IndexedSizes:
    """The sizes that the index of a run says of its files, a folder at a time.

    They stay in Arrow's memory, since as objects of Python those of very many files are large.
    """

    def __init__(self, root: str) -> None:
        self._index = pa.table(
            {"path": pa.array([], pa.string()), "bytes": pa.array([], pa.int64())}
        )
        # At a URL a listing has all that is to be known.
        if is_local(root) and exists(join(root, INDEX)):
            # What is damaged says nothing: the files themselves are looked at.
            with suppress(DamagedError, KeyError, pa.ArrowException):
                self._index = read_parquet(join(root, INDEX), self._index.column_names)

    def __call__(self, folder: str) -> dict[str, int]:
        """Sizes by the names of the files below a folder, which is relative to the run's."""
        start = f"{folder}/"
        found = self._index.filter(pc.starts_with(self._index["path"], start))
        names = pc.utf8_slice_codeunits(found["path"], len(start)).to_numpy().tolist()
        return dict(zip(names, found["bytes"].to_numpy().tolist(), strict=True))


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
