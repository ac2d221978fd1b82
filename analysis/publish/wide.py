"""The first config of a published run of texts: a row of each, and a column of scores a method.

It is for people, who look at words and numbers side by side, and for who needs no joins. What it
says is made of ``instances`` and ``attributions``, in the order of the corpus.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from attribeam.analysis import joining
from attribeam.analysis.publish.tables import table_path
from attribeam.schemas import UsageError, table_schema
from attribeam.schemas.encoding import parquet_options
from attribeam.schemas.layout import PUBLISHED, WIDE

# What an instance is shown with, before the columns of the methods.
COLUMNS = (
    *("instance_id", "corpus_row", "text", "text_pair", "tokens", "special", "label"),
    "prediction",
)
TARGET = pa.field(
    "target",
    pa.int32(),
    metadata={"comment": "Class that the scores explain; null where methods explain several"},
)
_BATCH = 1024


def wide_schema(methods: Sequence[str], *, double: bool) -> pa.Schema:
    """The columns: those of the instances, the class that is explained, and one a method."""
    instances = table_schema("instances", double=double)
    scores = table_schema("attributions", double=double).field("scores")
    return pa.schema(
        [
            *(instances.field(name) for name in COLUMNS),
            TARGET,
            *(
                pa.field(column_of(name), scores.type, metadata={"comment": f"Scores of {name}"})
                for name in methods
            ),
        ]
    )


def column_of(method: str) -> str:
    """The column of a method's scores."""
    return f"{method}_scores" if method in (*COLUMNS, TARGET.name) else method


def write_wide(
    methods: Sequence[str], stage: Path, split: str, *, double: bool, sound: bool
) -> None:
    """Writes the table of what is in the folder of a data set; memory is that of a row group.

    Args:
        methods: The methods that are published; those with scores have a column.
        stage: The folder, with ``instances`` and ``attributions``.
        split: Name of the only split.
        double: Whether scores are in float64.
        sound: Whether every row of a method is of an instance.

    Raises:
        UsageError: If the scores of a method are in another order than the instances.
    """
    instances = _files(stage, "instances")
    scored = [name for name in methods if _files(stage, f"attributions/{name}")]
    ids = None if sound else _ids(instances)
    columns = {name: _Scores(name, _files(stage, f"attributions/{name}"), ids) for name in scored}
    schema = wide_schema(scored, double=double)
    parts = _write(_chunks(instances, columns, schema), schema, stage, split)
    for column in columns.values():
        column.check_end()
    for number, part in enumerate(parts):
        part.rename(table_path(stage, WIDE, None, split, number, len(parts)))


def _files(stage: Path, folder: str) -> list[Path]:
    return sorted((stage / PUBLISHED / folder).glob("*.parquet"))


def _ids(files: Sequence[Path]) -> pa.Array:
    columns = [pq.read_table(file, columns=["instance_id"])["instance_id"] for file in files]
    return pa.concat_arrays([chunk for column in columns for chunk in column.chunks])


def _chunks(
    files: Sequence[Path], columns: "dict[str, _Scores]", schema: pa.Schema
) -> Iterator[pa.Table]:
    """Yields the table, some instances at a time."""
    for file in files:
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(_BATCH, columns=list(COLUMNS)):
                ids = batch.column("instance_id")
                taken = [column.take(ids) for column in columns.values()]
                targets = _common([target for _, target in taken], len(ids))
                own = [batch.column(name) for name in COLUMNS]
                yield pa.table([*own, targets, *(scores for scores, _ in taken)], schema=schema)


def _common(columns: Sequence[pa.Array], rows: int) -> pa.Array:
    """What all columns that say something say, row by row; null where they differ."""
    first = pa.nulls(rows, TARGET.type)
    alike = pa.array([True] * rows)
    for column in columns:
        alike = pc.and_(alike, pc.fill_null(pc.equal(first, column), True))
        first = pc.coalesce(first, column)
    return pc.if_else(alike, first, None)


def _write(chunks: Iterator[pa.Table], schema: pa.Schema, stage: Path, split: str) -> list[Path]:
    """Writes files of row groups that the hub's viewer shows, by names for the time being."""
    parts: list[Path] = []
    chunk = next(chunks, None)
    while chunk is not None:
        parts.append(table_path(stage, WIDE, None, f".{split}", len(parts), 0))
        with (
            pa.OSFile(str(parts[-1]), "wb") as sink,
            pq.ParquetWriter(sink, schema, **parquet_options(schema)) as writer,
        ):
            while chunk is not None:
                group = [chunk]
                chunk = next(chunks, None)
                while chunk is not None and sum(c.nbytes for c in group) < joining.GROUP_BYTES:
                    group.append(chunk)
                    chunk = next(chunks, None)
                writer.write_table(pa.concat_tables(group))
                if sink.tell() >= joining.FILE_BYTES:
                    break
    return parts


class _Scores:
    """The scores of a method, which are asked for in the order of the instances.

    Args:
        method: The method.
        files: Its files.
        known: Ids of all instances, where there may be rows of others; else None.
    """

    def __init__(self, method: str, files: Sequence[Path], known: pa.Array | None) -> None:
        self._method = method
        self._known = known
        self._kind = pq.read_schema(files[0]).field("scores").type
        self._batches = self._read(files)
        self._held = next(self._batches, None)

    def _read(self, files: Sequence[Path]) -> Iterator[pa.Table]:
        for file in files:
            with pq.ParquetFile(file) as parquet:
                for batch in parquet.iter_batches(
                    _BATCH, columns=["instance_id", "target", "scores"]
                ):
                    table = pa.Table.from_batches([batch])
                    if self._known is not None:
                        found = pc.is_in(table["instance_id"], value_set=self._known)
                        table = table.filter(found)
                    if len(table):
                        yield table

    def take(self, ids: pa.Array) -> tuple[pa.Array, pa.Array]:
        """The scores and the targets of the next instances; null for those that have none."""
        taken = []
        while self._held is not None:
            own = pc.is_in(self._held["instance_id"], value_set=ids)
            other = pc.index(own, False).as_py()
            number = len(self._held) if other < 0 else other
            taken.append(self._held.slice(0, number))
            if number < len(self._held):
                self._held = self._held.slice(number)
                break
            self._held = next(self._batches, None)
        if not taken:
            return pa.nulls(len(ids), self._kind), pa.nulls(len(ids), TARGET.type)
        table = pa.concat_tables(taken).combine_chunks()
        at = pc.index_in(ids, value_set=table["instance_id"].combine_chunks())
        return (
            table["scores"].combine_chunks().take(at),
            table["target"].combine_chunks().take(at),
        )

    def check_end(self) -> None:
        """Checks that all rows have been asked for."""
        if self._held is not None:
            name = self._held["instance_id"][0].as_py()
            raise UsageError(
                f"{self._method}: {name!r} stands elsewhere than among the instances: "
                "`attribeam verify` may say why."
            )
