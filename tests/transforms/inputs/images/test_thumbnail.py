"""What a model saw, as a picture: a processor's work undone, or stretched where that is unknown."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from attribeam.transforms.inputs.images.thumbnail import Colours, colours_of, silhouette, thumbnail


def shown(pixels: object, colours: Colours | None) -> np.ndarray:
    with Image.open(io.BytesIO(thumbnail(np.asarray(pixels), colours))) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture)


def test_known_colours_come_back() -> None:
    """(c / 255 - mean) / deviation, of red, green and blue; what no colour gives is cut."""
    mean, spread = np.array([0.1, 0.5, 0.9]), np.array([0.2, 0.25, 0.5])
    colours = np.array([[0, 128, 255], [1, 2, 3]])
    pixels = ((colours / 255 - mean) / spread).T[:, None]  # [3, 1, 2]
    processor = SimpleNamespace(
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=mean,
        image_std=spread,
    )
    found = colours_of(processor)
    np.testing.assert_array_equal(shown(pixels, found), [colours])
    np.testing.assert_array_equal(shown(pixels + 100, found), np.full((1, 2, 3), 255))


@pytest.mark.parametrize(
    ("settings", "pixels", "expected"),
    [
        ({"do_rescale": True, "rescale_factor": 1 / 51}, [[[5.0, 1.0]]], [[255, 51]]),
        ({"do_rescale": False, "do_normalize": False}, [[[7.0, 8.0]]], [[7, 8]]),
        ({"do_normalize": True, "image_mean": 10.0, "image_std": 2.0}, [[[5.0, 0.0]]], [[20, 10]]),
    ],
)
def test_what_a_processor_leaves_out(settings: dict, pixels: object, expected: object) -> None:
    np.testing.assert_array_equal(shown(pixels, colours_of(SimpleNamespace(**settings))), expected)


def test_unknown_colours_are_stretched() -> None:
    assert colours_of(None) is None
    np.testing.assert_array_equal(shown([[[-3.0, 1.0, 7.0]]], None), [[0, 102, 255]])
    np.testing.assert_array_equal(shown([[[2.0, 2.0]]], None), [[0, 0]])
    # The least number of all channels is 0; the mean of two is grey.
    np.testing.assert_array_equal(shown([[[0.0]], [[10.0]]], None), [[128]])


@pytest.mark.parametrize(
    ("size", "expected"), [((224, 224), (96, 96)), ((100, 200), (48, 96)), ((20, 96), (20, 96))]
)
def test_none_is_larger_than_96_a_side(size: tuple[int, int], expected: tuple[int, int]) -> None:
    pixels = np.full((3, *size), 0.5)
    found = shown(pixels, Colours(1 / 255, (0.0,), (1.0,)))
    assert found.shape == (*expected, 3) and (found == 128).all()
    mask = np.arange(size[0] * size[1]).reshape(size) >= size[0] * size[1] // 2  # Its lower half.
    with Image.open(io.BytesIO(silhouette(mask))) as picture:
        assert picture.mode == "1"
        half = np.asarray(picture)
    assert half.shape == expected
    assert not half[: expected[0] // 2].any() and half[expected[0] // 2 :].all()
