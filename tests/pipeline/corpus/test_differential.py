"""What is read of random corpora is what pandas, DuckDB and datasets read, or it is refused."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.differential import REFUSED, SHAPES, compare_messy, compare_shape


@pytest.mark.parametrize("shape", SHAPES)
def test_everybody_reads_the_same_or_we_refuse(shape: str, tmp_path: Path) -> None:
    assert compare_shape(shape, 0, tmp_path) == (shape not in REFUSED)


@settings(max_examples=150)
@given(seed=st.integers(0, 2**32))
def test_whatever_stands_in_csv_nobody_reads_otherwise(
    seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    compare_messy(seed, tmp_path_factory.mktemp("messy"))
