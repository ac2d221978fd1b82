"""Rows that methods give beside their scores, for tables of their own.

The fields of a row are the columns of its table after ``instance_id`` and ``method``
(``schemas.tables``). A value is a number, a text, None, or an array for a list column.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# The rows of one instance, by table.
Details = Mapping[str, Sequence[tuple[Any, ...]]]

# Tables that a method fills only where its scores by layer are asked for.
BY_LAYER = ("layers", "information")


class LayerRow(NamedTuple):
    """Scores of one layer for one instance, seen from the position that is read out.

    Attributes:
        layer: The layer, 0-based.
        local: Raw scores of the layer alone, [T].
        rollout: Scores from the layer down to the input, summing to 1, [T].
        scale: Natural logarithm of what ``rollout`` was divided by.
        mixing: Context-mixing ratio of each token, [T], where the method has one.
    """

    layer: int
    local: NDArray[np.floating[Any]]
    rollout: NDArray[np.floating[Any]]
    scale: float
    mixing: NDArray[np.floating[Any]] | None


class InformationRow(NamedTuple):
    """What a bottleneck after one layer lets through.

    Attributes:
        layer: The layer, 0-based.
        target: The class whose prediction it is to keep.
        bits: Information per token, [T].
    """

    layer: int
    target: int
    bits: NDArray[np.floating[Any]]


def is_finite(details: Details) -> bool:
    """Whether all numbers in the rows are finite."""
    return all(
        bool(np.isfinite(value).all())
        for rows in details.values()
        for row in rows
        for value in row
        if value is not None and not isinstance(value, str)
    )
