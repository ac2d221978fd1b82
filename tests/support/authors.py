"""What tests against the authors' numbers share (see goldens/README.md)."""

from functools import cache

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from attribeam.transforms import Row
from tests.support.models import GOLDENS

DTYPES = ("float64", "float32")
ONE_BY_ONE, ALL_AT_ONCE = 1, 1_000_000
BUDGETS = pytest.mark.parametrize(
    "budget", [ONE_BY_ONE, ALL_AT_ONCE], ids=["one-by-one", "one-padded-batch"]
)
# In float32 one by one adds nothing: tests of batches compare the two in both.
_VARIANTS = {
    "float64-one-by-one": ("float64", ONE_BY_ONE),
    "float64-one-padded-batch": ("float64", ALL_AT_ONCE),
    "float32-one-padded-batch": ("float32", ALL_AT_ONCE),
}
VARIANTS = pytest.mark.parametrize(("dtype", "budget"), _VARIANTS.values(), ids=_VARIANTS)
TOGETHER = pytest.mark.parametrize(
    ("dtype", "together"),
    [(dtype, budget == ALL_AT_ONCE) for dtype, budget in _VARIANTS.values()],
    ids=_VARIANTS,
)
WITH_GOLDENS = range(5)
# Goldens in float32 are themselves off by rounding: by up to 6e-6 from ours in float64.
IN_FLOAT32 = 1e-5


@cache
def golden_numbers(name: str) -> dict[str, NDArray[np.floating]]:
    """The arrays of a file of the goldens."""
    with np.load(GOLDENS / f"{name}.npz") as arrays:
        return dict(arrays)


def golden_rows() -> list[Row]:
    """The eight texts that the goldens are of."""
    return [
        Row(row["id"], input_ids=row["input_ids"], token_type_ids=row["token_type_ids"])
        for row in pq.read_table(GOLDENS / "corpus.parquet").to_pylist()
    ]
