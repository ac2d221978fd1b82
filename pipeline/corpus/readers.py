"""A reader for each format of a corpus: which columns a file has, and its rows.

Only the columns that are asked for are converted, so that a value that nobody needs does no harm.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from attribeam.pipeline.corpus.delimited import Delimited
from attribeam.pipeline.corpus.fields import Fields, ReadRow, check_names, of_schema, splits
from attribeam.pipeline.corpus.json_lines import json_fields, json_rows
from attribeam.pipeline.corpus.streams import content, suffixes

READ_ROWS = 1024
# A value that Arrow holds and Python can't: text that isn't UTF-8, a date far away, a time zone.
_NO_VALUE = (ValueError, OverflowError, LookupError, pa.ArrowException)
NAMES = ".parquet, .jsonl, .csv or .tsv"


class Reader(NamedTuple):
    """How files of a format are read.

    Attributes:
        fields: The columns of a file.
        rows: The rows of a file, with the values of some columns (or fields of objects).
    """

    fields: Callable[[str], Fields]
    rows: Callable[[str, Collection[str]], Iterator[ReadRow]]


def reader_of(path: str, delimiter: str | None = None) -> Reader | None:
    """The reader for a file by its name; None if its format isn't known.

    Args:
        path: The file.
        delimiter: What separates the fields of CSV and TSV; None for what their names say.
    """
    suffix = suffixes(path)[0]
    if suffix in _DELIMITERS:
        # TSV has no quotes, so that a stray quote can't swallow lines.
        delimited = Delimited(
            delimiter or _DELIMITERS[suffix], quotes=suffix == ".csv", given=delimiter is not None
        )
        return Reader(delimited.fields, delimited.rows)
    return _READERS.get(suffix)


def format_of(path: str) -> str | None:
    """The suffix of a file's format, compressed or not; None if it is of none."""
    suffix = suffixes(path)[0]
    return suffix if suffix in _READERS or suffix in _DELIMITERS else None


# Arrow ----------------------------------------------------------------------------------------


def arrow_rows(batch: pa.RecordBatch | pa.Table, columns: Iterable[str]) -> Iterator[ReadRow]:
    """The values of some columns, or fields of objects, of each row."""
    problems: dict[int, str] = {}
    values = {}
    for name in columns:
        array = _column(batch, name)
        if array is None:
            continue
        try:
            values[name] = array.to_pylist()
        except _NO_VALUE:
            values[name] = [_value(array, at, name, problems) for at in range(len(array))]
    for at in range(batch.num_rows):
        yield {name: found[at] for name, found in values.items()}, problems.get(at)


def _column(batch: pa.RecordBatch | pa.Table, name: str) -> Any:
    if name in batch.schema.names:
        return batch.column(name)
    for head, rest in splits(name):
        if head in batch.schema.names:
            found = _inside(batch.column(head), rest)
            if found is not None:
                return found
    return None


def _inside(array: Any, name: str) -> Any:
    """A field of an array of objects, null where the object is."""
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.cast(array.type.storage_type)
    if not pa.types.is_struct(array.type):
        return None
    names = [each.name for each in array.type]
    if name in names:
        return pc.struct_field(array, [names.index(name)])
    for head, rest in splits(name):
        if head in names:
            found = _inside(pc.struct_field(array, [names.index(head)]), rest)
            if found is not None:
                return found
    return None


def _value(array: Any, at: int, name: str, problems: dict[int, str]) -> Any:
    try:
        return array[at].as_py()
    except UnicodeDecodeError as error:
        problems[at] = f"{name} is not valid UTF-8: {error.reason} at byte {error.start}"
    except _NO_VALUE as error:
        problems[at] = f"{name} can't be read: {type(error).__name__}: {error}"
    return None


def _parquet_fields(path: str) -> Fields:
    with content(path) as handle:
        return _checked(path, pq.ParquetFile(handle).schema_arrow)


def _parquet_rows(path: str, columns: Collection[str]) -> Iterator[ReadRow]:
    with content(path) as handle:
        parquet = pq.ParquetFile(handle)
        # A dotted name is that of a field to Parquet too.
        for batch in parquet.iter_batches(READ_ROWS, columns=list(columns)):
            yield from arrow_rows(batch, columns)


def _ipc_fields(path: str) -> Fields:
    with content(path) as handle, _ipc(handle) as (schema, _):
        return _checked(path, schema)


def _ipc_rows(path: str, columns: Collection[str]) -> Iterator[ReadRow]:
    with content(path) as handle, _ipc(handle) as (_, batches):
        for batch in batches:
            for start in range(0, len(batch), READ_ROWS):
                yield from arrow_rows(batch.slice(start, READ_ROWS), columns)


@contextmanager
def _ipc(handle: IO[bytes]) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    """The schema and batches of an Arrow file, or of a stream as ``datasets`` writes it."""
    if handle.read(6) == b"ARROW1":
        handle.seek(0)
        with pa.ipc.open_file(handle) as file:
            yield file.schema, (file.get_batch(n) for n in range(file.num_record_batches))
    else:
        handle.seek(0)
        with pa.ipc.open_stream(handle) as stream:
            yield stream.schema, iter(stream)


def _checked(path: str, schema: pa.Schema) -> Fields:
    check_names(path, schema.names)
    return of_schema(schema)


_JSON = Reader(json_fields, json_rows)
_IPC = Reader(_ipc_fields, _ipc_rows)
_READERS = {
    ".parquet": Reader(_parquet_fields, _parquet_rows),
    ".arrow": _IPC,
    ".feather": _IPC,
    ".jsonl": _JSON,
    ".ndjson": _JSON,
    ".json": _JSON,
}
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
