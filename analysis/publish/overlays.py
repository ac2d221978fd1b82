"""The first config of a published run of pictures: the picture with each method's map over it.

It is for people, in the hub's viewer: what it shows is made of ``instances`` and ``attributions``.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from attribeam.analysis.opening.database import dict_rows
from attribeam.analysis.pictures.overlays import OVERLAID, drawn
from attribeam.analysis.publish.tables import table_path
from attribeam.schemas.encoding import parquet_options
from attribeam.schemas.layout import WIDE
from attribeam.schemas.tables import IMAGE

_GROUP_ROWS = 100  # Pictures in a row group, which the viewer reads at a time.
_FILE_ROWS = 10_000


def write_overlays(
    connection: duckdb.DuckDBPyConnection, methods: Sequence[str], stage: Path, split: str
) -> None:
    """Writes the overlays of all pictures, if there are any.

    Args:
        connection: The tables that are published.
        methods: The methods, each of which is a column, if it has scores.
        stage: The folder of the data set.
        split: Name of the only split.
    """
    ids, scored = (
        [
            value
            for (value,) in connection.execute(
                f"select distinct {column} from ({OVERLAID}) order by all"
            ).fetchall()
        ]
        for column in ("instance_id", "method")
    )
    schema = _schema([method for method in methods if method in scored])
    parts = [ids[start : start + _FILE_ROWS] for start in range(0, len(ids), _FILE_ROWS)]
    for number, part in enumerate(parts):
        target = table_path(stage, WIDE, None, split, number, len(parts))
        with pq.ParquetWriter(target, schema, **parquet_options(schema)) as writer:
            for start in range(0, len(part), _GROUP_ROWS):
                rows = [*_rows(connection, part[start : start + _GROUP_ROWS])]
                writer.write_table(pa.Table.from_pylist(rows, schema))


def _schema(methods: Sequence[str]) -> pa.Schema:
    comments = {
        "instance_id": (pa.string(), "Key of instances"),
        "label": (pa.int32(), "Gold class; null if unknown"),
        "prediction": (pa.int32(), "Predicted class"),
        "image": (IMAGE, "What the model saw"),
    } | {method: (IMAGE, f"The scores of {method} over it") for method in methods}
    return pa.schema(
        pa.field(name, kind, metadata={"comment": comment})
        for name, (kind, comment) in comments.items()
    )


def _rows(connection: duckdb.DuckDBPyConnection, ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of some pictures."""
    query = f"from ({OVERLAID}) where list_contains($ids, instance_id) order by instance_id, method"
    rows = dict_rows(connection, query, {"ids": list(ids)})
    for _, group in groupby(rows, itemgetter("instance_id")):
        own = [*group]
        first = {name: own[0][name] for name in ("instance_id", "label", "prediction")}
        yield {
            **first,
            "image": {"bytes": own[0]["image"], "path": None},
            **{row["method"]: {"bytes": drawn(row), "path": None} for row in own},
        }
