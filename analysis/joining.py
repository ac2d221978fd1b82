"""Joining Parquet files of a table into few large ones, row for row.

A run commits a file per shard, so that little is lost where a worker dies; a data set of that many
files is slow to ask and to publish.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from attribeam.schemas.encoding import parquet_options
from attribeam.schemas.tables import completed

# Bytes of a joined file: what the hub advises, and an object store reads in one go.
FILE_BYTES = 128 << 20
# The hub's viewer, as DuckDB, reads a row group at a time. So many bytes of it, before zstd.
GROUP_BYTES = 32 << 20
_BATCH = 8192


def groups(sizes: Sequence[int], most: int = FILE_BYTES) -> list[range]:
    """Which files become one: neighbours, as many as come to so many bytes.

    Files of more than half of that stay by themselves, so that what was joined isn't joined again
    with each neighbour that comes to be there.

    Args:
        sizes: Bytes of the files, in order.
        most: Bytes of a joined file, about; one file may have more.

    Returns:
        Ranges of their numbers, which together are all, in order.
    """
    found: list[range] = []
    start = held = 0
    for number, size in enumerate(sizes):
        large = size > most // 2
        if start < number and (large or held + size > most):
            found.append(range(start, number))
            start, held = number, 0
        held += size
        if large:
            found.append(range(start, number + 1))
            start, held = number + 1, 0
    if start < len(sizes):
        found.append(range(start, len(sizes)))
    return found


def join_files(
    files: Sequence[Any],
    target: Any,
    schema: pa.Schema,
    metadata: Mapping[str, str] | None = None,
    *,
    opened: Callable[[Any], IO[bytes]] | None = None,
    group_bytes: int = GROUP_BYTES,
) -> None:
    """Writes the rows of some files, one after another, as one file.

    Memory is that of two row groups, however many files there are.

    Args:
        files: Parquet files of a table: paths, or whatever ``opened`` opens.
        target: Path or binary handle of the file to write, encoded as all of ours
            (``schemas.encoding``).
        schema: The table's columns: null where a file is older than one.
        metadata: What the file says of itself; None for what the first says.
        opened: Opens one of the files; None for paths of this machine.
        group_bytes: Bytes of a row group before they are packed, about.

    Raises:
        pa.ArrowException, OSError: If a file is damaged: the checksums of pages are compared.
    """
    opened = opened or _local
    rows = size = 0
    found: dict[str, str] = {}
    for number, file in enumerate(files):
        with opened(file) as handle:
            footer = pq.read_metadata(handle)
        rows += footer.num_rows
        size += sum(footer.row_group(n).total_byte_size for n in range(footer.num_row_groups))
        found = metadata_of(footer) if number == 0 else found
    most = max(1, min(rows, rows * group_bytes // max(size, 1)))
    schema = schema.with_metadata(dict(found if metadata is None else metadata) or None)
    with pq.ParquetWriter(target, schema, **parquet_options(schema)) as writer:
        held: list[pa.RecordBatch] = []
        for batch in _batches(files, most, schema, opened):
            # Batches are of so many rows at most: what is held is never more than two groups.
            held.append(batch)
            if sum(map(len, held)) >= most:
                held = _write_group(writer, schema, held, most)
        if held:
            _write_group(writer, schema, held, most)


def metadata_of(footer: pq.FileMetaData) -> dict[str, str]:
    """What a file says of itself, without what Arrow says of its columns."""
    entries = footer.metadata or {}
    return {
        key.decode(): value.decode("utf-8", "replace")
        for key, value in entries.items()
        if key != b"ARROW:schema"
    }


def _local(path: Path | str) -> IO[bytes]:
    return Path(path).open("rb")


def _batches(
    files: Sequence[Any], most: int, schema: pa.Schema, opened: Callable[[Any], IO[bytes]]
) -> Iterator[pa.RecordBatch]:
    for file in files:
        with (
            opened(file) as handle,
            pq.ParquetFile(handle, page_checksum_verification=True) as parquet,
        ):
            for batch in parquet.iter_batches(min(most, _BATCH)):
                yield from completed(pa.Table.from_batches([batch]), schema).to_batches()


def _write_group(
    writer: pq.ParquetWriter, schema: pa.Schema, held: Sequence[pa.RecordBatch], most: int
) -> list[pa.RecordBatch]:
    """Writes a row group; returns what is too much for it."""
    table = pa.Table.from_batches(held).unify_dictionaries()
    table = table.replace_schema_metadata(schema.metadata)
    writer.write_table(table.slice(0, most), row_group_size=most)
    return list(table.slice(most).to_batches())
