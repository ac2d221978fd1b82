"""Writing the tables of a run as the Parquet files of a data set that the hub's viewer can show."""

import json
import shutil
from collections.abc import Mapping, Sequence
from hashlib import file_digest
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from attribeam.analysis import joining
from attribeam.analysis.local import without_paths
from attribeam.analysis.publish.publishable import Publishable, published_name
from attribeam.schemas import UsageError, table_schema
from attribeam.schemas.encoding import is_plain, parquet_options
from attribeam.schemas.layout import FAILURES, JOINED_FILES, PUBLISHED, SHARD_ROWS
from attribeam.schemas.manifest import FileRecord, is_double
from attribeam.schemas.tables import EVALUATIONS, completed

# The viewer reads a row group at a time.
_MOST_GROUP_BYTES = 100 << 20


def write_tables(run: Publishable, stage: Path, *, link: bool) -> None:
    """Writes the tables; with ``link`` for the time being, while the run stays where it is."""
    double = is_double(run.manifest)
    try:
        for (table, method), files in run.files.items():
            if table in (FAILURES, *EVALUATIONS):
                _write_cleaned(run, files, stage, table, double=double)
                continue
            schema = table_schema(table, double=double)
            parts = joining.groups([file.stat().st_size for file in files], joining.FILE_BYTES)
            for number, part in enumerate(parts):
                target = table_path(stage, table, method, run.split, number, len(parts))
                own = files[part.start : part.stop]
                if len(own) == 1 and _suits(own[0], schema):
                    _place(own[0], target, link=link)
                else:
                    size = joining.GROUP_BYTES
                    joining.join_files(own, target, schema, _metadata(own), group_bytes=size)
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


def _metadata(files: Sequence[Path]) -> dict[str, str]:
    """What a file says of itself that is made of some shards: what they say, and their rows."""
    rows: list[int] = []
    said: dict[str, str] = {}
    for number, file in enumerate(files):
        footer = pq.read_metadata(file)
        own = joining.metadata_of(footer)
        rows += json.loads(own.get(SHARD_ROWS, f"[{footer.num_rows}]"))
        said = said or (
            {key: without_paths(text) for key, text in own.items()} if not number else {}
        )
    return {**said, SHARD_ROWS: json.dumps(rows)} if len(rows) > 1 else said


def _write_cleaned(
    run: Publishable, files: Sequence[Path], stage: Path, table_name: str, *, double: bool
) -> None:
    """Writes a small table whose texts may name local files, of the chosen methods.

    It says of itself which files it is of, and how many rows of each there are.
    """
    schema = table_schema(table_name, double=double)
    chosen = pa.array([None, *run.manifest["methods"]], pa.string())
    tables, joined = [], []
    for file in files:
        with pq.ParquetFile(file) as parquet:
            read = completed(parquet.read(), schema)
            said = joining.metadata_of(parquet.metadata)
        kept = read.filter(_of_methods(read, chosen))
        if len(kept):
            tables.append(kept.replace_schema_metadata(None))
            path = file.relative_to(run.root).as_posix()
            joined.append({"path": path, "rows": len(kept), **_kept_rows(said, read, chosen)})
    if not tables:
        return
    table = pa.concat_tables(tables).unify_dictionaries()
    texts_of = ("message", without_paths), ("failure", without_paths), ("corpus", published_name)
    for name, clean in texts_of:
        if name in table.column_names:
            kind = table.schema.field(name)
            texts = [None if text is None else clean(text) for text in table[name].to_pylist()]
            column = pa.array(texts, pa.string()).cast(kind.type)
            table = table.set_column(table.column_names.index(name), kind, column)
    table = table.replace_schema_metadata({JOINED_FILES: json.dumps(joined)})
    target = table_path(stage, table_name, None, run.split, 0, 1)
    pq.write_table(table, target, **parquet_options(table.schema))


def _of_methods(rows: pa.Table, chosen: pa.Array) -> pa.ChunkedArray | pa.Array:
    """Which rows are of the chosen methods; all of a table that is of no method."""
    if "method" not in rows.column_names:
        return pa.array([True] * len(rows), pa.bool_())
    return pc.is_in(rows["method"].cast(pa.string()), value_set=chosen)


def _kept_rows(said: Mapping[str, str], read: pa.Table, chosen: pa.Array) -> dict[str, list[int]]:
    """How many rows are kept of each shard of a file of several shards; nothing of one shard."""
    if SHARD_ROWS not in said:
        return {}
    kept, start = [], 0
    for rows in json.loads(said[SHARD_ROWS]):
        kept.append(pc.sum(_of_methods(read.slice(start, rows), chosen)).as_py() or 0)
        start += rows
    return {"shard_rows": kept}


def write_query(connection: duckdb.DuckDBPyConnection, table: str, target: Path) -> None:
    """Writes a table of the manifest; JSON is text to those who don't know it."""
    described = connection.execute(f"select column_name, column_type from (describe {table})")
    columns = ", ".join(
        f'"{name}"::varchar as "{name}"' if kind == "JSON" else f'"{name}"'
        for name, kind in described.fetchall()
    )
    rows = connection.sql(f"select {columns} from {table}").to_arrow_table()
    pq.write_table(rows.replace_schema_metadata(None), target, **parquet_options(rows.schema))


def file_records(stage: Path) -> dict[str, FileRecord]:
    """What ``run.json`` says of the files of a published run, by which anybody can check them."""
    records: dict[str, FileRecord] = {}
    for file in sorted((stage / PUBLISHED).rglob("*.parquet")):
        with file.open("rb") as handle:
            digest = file_digest(handle, "sha256").hexdigest()
        records[file.relative_to(stage).as_posix()] = {
            "rows": pq.read_metadata(file).num_rows,
            "bytes": file.stat().st_size,
            "sha256": digest,
        }
    return records
