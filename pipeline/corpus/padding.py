"""What of a pre-tokenised corpus is padding: counted once, recorded and said.

Encoding leaves padding out (``transforms.inputs.text.tokenised``). Where that is more than the
corpus's own mask says, or moves texts to other positions, somebody should know.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from attribeam.pipeline.store.files import join, read_parquet
from attribeam.schemas.layout import corpus_path
from attribeam.transforms import Model, Row, RowError
from attribeam.transforms.inputs.text.tokenised import without_padding

_COLUMNS = ["input_ids", "attention_mask"]


def count_padding(root: str, num_shards: int, model: Model) -> dict[str, int] | None:
    """Rows of the staged corpus that are padded; None if there are none.

    Args:
        root: The run's folder.
        num_shards: Number of shards.
        model: The model, which knows the padding token.

    Returns:
        Number of rows that are padded on the ``left``, on the ``right``, and, of both,
        ``without_mask``: these end in padding tokens, and the corpus has no mask to say so.
    """
    paths = (join(root, corpus_path(shard)) for shard in range(num_shards))
    return _count((read_parquet(path, _COLUMNS) for path in paths), model)


def padding_of(rows: Sequence[Row], model: Model) -> dict[str, int] | None:
    """What ``count_padding`` gives, of rows that are not staged."""
    columns = {name: [getattr(row, name) for row in rows] for name in _COLUMNS}
    arrays = {name: pa.array(of, pa.list_(pa.int64())) for name, of in columns.items()}
    return _count([pa.table(arrays)], model)


def _count(tables: Iterable[pa.Table], model: Model) -> dict[str, int] | None:
    counts = np.zeros(3, np.int64)
    for table in tables:
        masks, ids = _ends(table, "attention_mask"), _ends(table, "input_ids")
        counts += [(masks[:, 0] == 0).sum(), (masks[:, 1] == 0).sum(), 0]
        candidates = np.isnan(masks[:, 0]) & (ids == model.pad_id).any(1)
        for row in np.flatnonzero(candidates).tolist():
            counts += _unmasked(model, np.array(table["input_ids"][row].as_py(), np.int64))
    if not counts.any():
        return None
    return dict(zip(("left", "right", "without_mask"), counts.tolist(), strict=True))


def _unmasked(model: Model, ids: NDArray[np.int64]) -> list[bool]:
    """Whether encoding takes what is at either end for padding, and at any."""
    try:
        shown = without_padding(model, ids)
    except RowError:  # It fails, and is counted there.
        return [False] * 3
    left, right = shown.start > 0, shown.stop < len(ids)
    return [left, right, left or right]


def said(
    padding: dict[str, int] | None, model: Model, looked_at: int | None = None
) -> Iterator[str]:
    """Sentences on what the mask of a corpus doesn't say by itself.

    Args:
        padding: What was counted.
        model: The model.
        looked_at: Of how many rows, where not of all.
    """
    if not padding:
        return
    of = "" if looked_at is None else f" of {looked_at} looked at"
    if padding["without_mask"]:
        token = model.named(int(model.pad_id or 0))
        yield (
            f"rows that begin or end in padding ({token}) without an attention_mask: "
            f"{padding['without_mask']}{of}; the padding is left out, as if a mask hid it"
        )
    if padding["left"]:
        yield (
            f"rows that are padded on the left: {padding['left']}{of}; without the padding their "
            "texts begin at the model's first position"
        )


def _ends(table: pa.Table, name: str) -> NDArray[np.float64]:
    """The first and the last entry of each row's list, [N, 2]; NaN where there is none."""
    ends = np.full((len(table), 2), np.nan)
    if name not in table.column_names:
        return ends
    lists = table[name].combine_chunks()
    values, offsets = lists.values.to_numpy(zero_copy_only=False), lists.offsets.to_numpy()
    there = np.asarray(lists.is_valid()) & (np.diff(offsets) > 0)
    ends[there, 0] = values[offsets[:-1][there]]
    ends[there, 1] = values[offsets[1:][there] - 1]
    return ends
