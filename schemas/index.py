"""The index of a run: what each file of its tables was when it was written.

It is written when a run is done. Who compares a file with it finds a flipped bit, whatever that
does to the file's own checksums, without decoding a page. Where it lacks a file, or isn't there,
nothing is lost: the file is read instead.
"""

from typing import NamedTuple

import pyarrow as pa

INDEX = "index.parquet"
RECORDS = "records"  # Where workers put what they have written until the run is done.


class Entry(NamedTuple):
    """A file of a run.

    Attributes:
        path: Its path, relative to the run's folder.
        table: The table that it is of.
        method: The method that it is of; None of ``instances``.
        first: Number of the first shard that it is of.
        last: Number of the last one.
        rows: Number of its rows.
        bytes: Its size.
        sha256: The checksum of its bytes, in hexadecimal digits.
    """

    path: str
    table: str
    method: str | None
    first: int
    last: int
    rows: int
    bytes: int
    sha256: str


INDEX_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("table", pa.string(), nullable=False),
        pa.field("method", pa.string()),
        pa.field("first", pa.int32(), nullable=False),
        pa.field("last", pa.int32(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
    ]
)


def entries_of(table: pa.Table) -> list[Entry]:
    """The entries that a file of an index or of records holds."""
    columns = (table[name].to_pylist() for name in Entry._fields)
    return [Entry(*row) for row in zip(*columns, strict=True)]


def table_of(entries: "list[Entry]") -> pa.Table:
    """The table of some entries."""
    columns = zip(*entries, strict=True) if entries else ([] for _ in Entry._fields)
    arrays = [
        pa.array(list(column), field.type)
        for column, field in zip(columns, INDEX_SCHEMA, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=INDEX_SCHEMA)
