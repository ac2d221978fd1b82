"""Writing the tables of a run as the Parquet files of a data set that the hub's viewer can show."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from attribeam.analysis.local import without_paths
from attribeam.analysis.publish.publishable import Publishable, published_name
from attribeam.schemas import UsageError, table_schema
from attribeam.schemas.encoding import is_plain, parquet_options
from attribeam.schemas.layout import FAILURES, PUBLISHED
from attribeam.schemas.manifest import is_double
from attribeam.schemas.tables import EVALUATIONS, completed

# The viewer reads a row group at a time; files of a unit are joined beyond this many, since the hub
# holds 100,000 and is slow with many.
_MOST_GROUP_BYTES = 100 << 20
_GROUP_BYTES = 32 << 20
_MOST_FILES = 100


def write_tables(run: Publishable, stage: Path, *, link: bool) -> None:
    """Writes the tables; with ``link`` for the time being, while the run stays where it is."""
    double = is_double(run.manifest)
    try:
        for (table, method), files in run.files.items():
            if table in (FAILURES, *EVALUATIONS):
                _write_cleaned(run, files, stage, table, double=double)
                continue
            schema = table_schema(table, double=double)
            for part, target in _parts(files, stage, table, method, run.split):
                if len(part) == 1 and _suits(part[0], schema):
                    _place(part[0], target, link=link)
                else:
                    rewrite(part, target, schema)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(
            f"{run.root} can't be published: {str(error).splitlines()[0]}. Is there room on the "
            f"disk, and does `attribeam verify {run.root}` find all files sound?"
        ) from error


def table_path(stage: Path, table: str, method: str | None, split: str, part: int, of: int) -> Path:
    """Path of a file of a table, in a folder that is made if need be."""
    folder = stage / PUBLISHED / table / (method or "")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{split}-{part:05d}-of-{of:05d}.parquet"


def _parts(
    files: Sequence[Path], stage: Path, table: str, method: str | None, split: str
) -> Iterator[tuple[Sequence[Path], Path]]:
    """Yields the shards of a table and method that become a file, and that file."""
    size = -(-len(files) // _MOST_FILES)
    parts = [files[start : start + size] for start in range(0, len(files), size)]
    for number, part in enumerate(parts):
        yield part, table_path(stage, table, method, split, number, len(parts))


def _suits(file: Path, schema: pa.Schema) -> bool:
    """Whether a file can be published as it is.

    It has every column, row groups that the viewer shows, and encodings that everybody reads.
    """
    footer = pq.read_metadata(file)
    if footer.schema.to_arrow_schema().names != schema.names or not is_plain(footer):
        return False
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    metadata = (footer.metadata or {}).items()
    # The schema in there is encoded, and has no texts but ours.
    texts = [value.decode("utf-8", "replace") for key, value in metadata if key != b"ARROW:schema"]
    return all(group.total_byte_size <= _MOST_GROUP_BYTES for group in groups) and all(
        without_paths(text) == text for text in texts
    )


def _place(file: Path, target: Path, *, link: bool) -> None:
    """Puts a file in its place, without a copy if it can be."""
    try:
        if link:
            target.symlink_to(file)
        else:
            target.hardlink_to(file)
    except OSError:  # Another disk, or one that has no links.
        shutil.copyfile(file, target)


def rewrite(files: Sequence[Path], target: Path, schema: pa.Schema) -> None:
    """Writes the rows of some files, one after another, in row groups that suit the viewer.

    Args:
        files: Parquet files of a table.
        target: The file to write, encoded as the pipeline does (``schemas.encoding``).
        schema: The table's columns: null where a file is older than one.
    """
    footers = [pq.read_metadata(file) for file in files]
    rows = sum(footer.num_rows for footer in footers)
    size = sum(f.row_group(n).total_byte_size for f in footers for n in range(f.num_row_groups))
    most = max(1, min(rows, rows * _GROUP_BYTES // max(size, 1)))
    metadata = {
        key: without_paths(value.decode("utf-8", "replace"))
        for key, value in (pq.read_schema(files[0]).metadata or {}).items()
    }
    schema = schema.with_metadata(metadata)
    with pq.ParquetWriter(target, schema, **parquet_options(schema)) as writer:
        held: list[pa.RecordBatch] = []
        for batch in _batches(files, most, schema):
            # Batches are of so many rows at most: what is held is never more than two groups.
            held.append(batch)
            if sum(map(len, held)) >= most:
                held = [*_write_group(writer, schema, held, most)]
        if held:
            _write_group(writer, schema, held, most)


def _batches(files: Sequence[Path], most: int, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for file in files:
        with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
            for batch in parquet.iter_batches(min(most, 8192)):
                yield from completed(pa.Table.from_batches([batch]), schema).to_batches()


def _write_group(
    writer: pq.ParquetWriter, schema: pa.Schema, held: Sequence[pa.RecordBatch], most: int
) -> list[pa.RecordBatch]:
    """Writes a row group; returns what is too much for it."""
    table = pa.Table.from_batches(held).unify_dictionaries()
    table = table.replace_schema_metadata(schema.metadata)
    writer.write_table(table.slice(0, most), row_group_size=most)
    return list(table.slice(most).to_batches())


def _write_cleaned(
    run: Publishable, files: Sequence[Path], stage: Path, table_name: str, *, double: bool
) -> None:
    """Writes a small table whose texts may name local files, of the chosen methods."""
    schema = table_schema(table_name, double=double)
    tables = (completed(pq.ParquetFile(file).read(), schema) for file in files)
    table = pa.concat_tables(tables).unify_dictionaries()
    table = table.replace_schema_metadata(None)
    if "method" in table.column_names:
        chosen = [None, *run.manifest["methods"]]
        table = table.filter(
            pa.array([method in chosen for method in table["method"].to_pylist()], pa.bool_())
        )
    texts_of = ("message", without_paths), ("failure", without_paths), ("corpus", published_name)
    for name, clean in texts_of:
        if name in table.column_names:
            kind = table.schema.field(name)
            texts = [None if text is None else clean(text) for text in table[name].to_pylist()]
            column = pa.array(texts, pa.string()).cast(kind.type)
            table = table.set_column(table.column_names.index(name), kind, column)
    if len(table):
        target = table_path(stage, table_name, None, run.split, 0, 1)
        pq.write_table(table, target, **parquet_options(table.schema))


def write_query(connection: duckdb.DuckDBPyConnection, table: str, target: Path) -> None:
    """Writes a table of the manifest; JSON is text to those who don't know it."""
    described = connection.execute(f"select column_name, column_type from (describe {table})")
    columns = ", ".join(
        f'"{name}"::varchar as "{name}"' if kind == "JSON" else f'"{name}"'
        for name, kind in described.fetchall()
    )
    rows = connection.sql(f"select {columns} from {table}").to_arrow_table()
    pq.write_table(rows.replace_schema_metadata(None), target, **parquet_options(rows.schema))
