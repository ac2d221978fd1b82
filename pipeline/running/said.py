"""What a language model said itself, where the corpus doesn't say what follows a prompt.

It says it once: whoever does the first work on a shard stores it beside the shard's rows, and every
later call reads it there, so that all that is ever made of a run is of the same tokens.
"""

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from attribeam.pipeline.settings import Settings
from attribeam.pipeline.store.files import DamagedError, exists, join, read_parquet, write_parquet
from attribeam.schemas.layout import continuations_path
from attribeam.transforms import Model, Row
from attribeam.transforms.inputs.generating import with_continuations
from attribeam.transforms.inputs.text.continued import lacks_continuation

_SCHEMA = pa.schema(
    [("instance_id", pa.string()), ("continuation_ids", pa.list_(pa.int32()))],
)


def said_rows(settings: Settings, model: Model, shard: int, rows: Sequence[Row]) -> Sequence[Row]:
    """Rows of a shard, those without a continuation with what the model says, or once said.

    Args:
        settings: Settings of the run.
        model: The model.
        shard: Number of the shard.
        rows: Its rows.
    """
    if model.task != "causal_lm" or not any(map(lacks_continuation, rows)):
        return rows
    path = join(settings.output, continuations_path(shard))
    said = _read(path)
    if said is None:
        found = with_continuations(model, rows, settings.encoding)
        new = [row for row in found if row.generated]
        columns = {
            "instance_id": [row.instance_id for row in new],
            "continuation_ids": [row.continuation_ids for row in new],
        }
        write_parquet(path, pa.Table.from_pydict(columns, _SCHEMA))
        return found
    return [
        replace(row, continuation_ids=said[row.instance_id], generated=True)
        if lacks_continuation(row) and row.instance_id in said
        else row
        for row in rows
    ]


def _read(path: str) -> dict[str, list[int]] | None:
    """What was said, by row; None if that isn't known, or no longer."""
    try:
        table = read_parquet(path) if exists(path) else None
    except DamagedError:
        return None
    if table is None:
        return None
    return {row["instance_id"]: row["continuation_ids"] for row in table.to_pylist()}
