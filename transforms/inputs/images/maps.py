"""From scores of patches to maps of pixels."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from attribeam.transforms.network.anatomy import Grid

_Weights = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]


def pixel_map(scores: NDArray[np.floating], grid: Grid) -> NDArray[np.float64]:
    """Scores of positions, [T], as a map of pixels, [H, W]: bilinear between patches' middles.

    What is beyond the outermost middles is as these are. Beyond Intuition enlarges maps so (its
    scripts, ``align_corners=False``). Patches of equal scores give pixels of equal ones exactly.
    """
    patches = np.asarray(scores, np.float64)[grid.before :].reshape(grid.rows, grid.columns)
    tall = _between(patches, *_weights(grid.rows, grid.patch_height))
    return _between(tall.T, *_weights(grid.columns, grid.patch_width)).T


def _between(
    values: NDArray[np.float64],
    first: NDArray[np.intp],
    second: NDArray[np.intp],
    share: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Rows between those of some values, each a share of the way from a first to a second."""
    low, high = values[first], values[second]
    found: NDArray[np.float64] = low + share[:, None] * (high - low)
    return found


@lru_cache(maxsize=16)
def _weights(count: int, size: int) -> _Weights:
    """The two patches that each pixel of a row is between, and how far it is from the first."""
    places = ((np.arange(count * size) + 0.5) / size - 0.5).clip(0, count - 1)
    first = places.astype(np.intp)
    return first, np.minimum(first + 1, count - 1), places - first
