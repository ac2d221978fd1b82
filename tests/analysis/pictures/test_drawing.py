"""Maps over pictures, against values by hand."""

import numpy as np
import pytest
from PIL import Image

from attribeam.analysis.pictures.drawing import (
    INK,
    decoded,
    encoded,
    enlarged,
    outline,
    overlay,
    strengths,
)


def test_bilinear_between_the_middles_of_patches() -> None:
    """The example of Beyond Intuition's scripts: a patch of two pixels a side."""
    expected = [
        [0, 0, 0, 0],
        [0, 0.0625, 0.1875, 0.25],
        [0, 0.1875, 0.5625, 0.75],
        [0, 0.25, 0.75, 1],
    ]
    np.testing.assert_allclose(enlarged(np.array([[0, 0], [0, 1]]), 4, 4), expected, atol=1e-15)
    # Of other shapes, and made smaller.
    np.testing.assert_allclose(enlarged(np.array([[1.0, 3.0]]), 3, 2), [[1, 3]] * 3)
    np.testing.assert_allclose(enlarged(np.array([[0.0, 2, 4, 6]]), 1, 2), [[1, 5]])


def test_strengths() -> None:
    scores = np.array([[4.0, -8.0], [np.nan, 2.0]])
    np.testing.assert_allclose(strengths(scores, signed=True), [[0.5, -1], [0, 0.25]])
    np.testing.assert_allclose(strengths(scores, signed=False), [[1, 0], [0, 0.5]])
    np.testing.assert_allclose(strengths(np.zeros((1, 2)), signed=True), [[0, 0]])


@pytest.mark.parametrize(
    ("signed", "colours"),
    [(True, (INK.positive, INK.negative)), (False, (INK.unsigned, (0, 0, 0)))],
)
def test_colours_of_a_map(signed: bool, colours: tuple[tuple[int, ...], ...]) -> None:
    black = Image.new("RGB", (3, 1))
    patches = np.array([[2.0, 0.0, -2.0]])
    found = np.asarray(overlay(black, patches, signed=signed))[0]
    expected = [INK.opaque * np.array(colours[0]), np.zeros(3), INK.opaque * np.array(colours[1])]
    np.testing.assert_allclose(found, expected, atol=0.5)
    # Grey stays as it is where nothing matters.
    grey = Image.new("RGB", (3, 1), (90, 90, 90))
    np.testing.assert_allclose(np.asarray(overlay(grey, patches, signed=signed))[0, 1], 90, atol=1)


def test_the_line_around_a_mask_hides_none_of_it() -> None:
    mask = np.zeros((4, 5), bool)
    mask[1:3, 0:2] = True
    expected = ["##...", "..#..", "..#..", "##..."]
    assert ["".join(".#"[at] for at in row) for row in outline(mask).astype(int)] == expected
    drawn = overlay(Image.new("RGB", (5, 4)), np.zeros((2, 2)), Image.fromarray(mask), signed=True)
    white = (np.asarray(decoded(encoded(drawn))) == 255).all(-1)
    np.testing.assert_array_equal(white, outline(mask))
