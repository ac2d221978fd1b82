"""Arrow values as Python values, without what the formats of DuckDB and Arrow add to them."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa


def python_rows(batch: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    """Yields the rows of a batch.

    A float32 becomes the double with its shortest decimal form (0.1, not 0.10000000149), and an
    integer too wide for 64 bits, which Arrow calls a decimal, an integer.
    """
    return zip(*(_listed(column) for column in batch.columns), strict=True)


def _listed(column: pa.Array) -> list[Any]:
    kind = column.type
    if pa.types.is_float32(kind):
        # Arrow writes the shortest text that reads back as the same float32.
        return [None if text is None else float(text) for text in _texts(column)]
    if pa.types.is_decimal(kind):
        number = int if kind.scale == 0 else float
        return [None if value is None else number(value) for value in column.to_pylist()]
    if pa.types.is_list(kind):
        values = _listed(column.values)
        bounds = column.offsets.to_pylist()
        return [
            values[start:end] if valid else None
            for start, end, valid in zip(
                bounds, bounds[1:], column.is_valid().to_pylist(), strict=False
            )
        ]
    if pa.types.is_struct(kind):
        names = [field.name for field in kind]
        rows = zip(*(_listed(field) for field in column.flatten()), strict=True)
        return [
            dict(zip(names, row, strict=True)) if valid else None
            for row, valid in zip(rows, column.is_valid().to_pylist(), strict=True)
        ]
    return list(column.to_pylist())


def _texts(column: pa.Array) -> list[str | None]:
    texts: list[str | None] = column.cast(pa.string()).to_pylist()
    return texts
