"""From values of patches to maps of pixels.

Where a side isn't a whole number of patches, the pixels that are left over at its end are in none.
"""

from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from attribeam.transforms.network.anatomy import Grid

_Value = TypeVar("_Value", bound=np.generic)
_Weights = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]


def pixel_map(scores: NDArray[np.floating], grid: Grid) -> NDArray[np.float64]:
    """Scores of positions, [T], as a map of pixels, [H, W]: bilinear between patches' middles.

    What is beyond the outermost middles is as there. Beyond Intuition enlarges maps so (its
    scripts, ``align_corners=False``). Patches of equal scores give pixels of equal ones exactly.
    """
    patches = np.asarray(scores, np.float64)[grid.before :].reshape(grid.rows, grid.columns)
    tall = _between(patches, *_weights(grid.rows, grid.patch_height))
    wide = _between(tall.T, *_weights(grid.columns, grid.patch_width)).T
    return np.pad(wide, _left_over(grid), mode="edge")


def patch_map(values: NDArray[_Value], grid: Grid) -> NDArray[_Value]:
    """Values of positions, [T], at each pixel of their patch, [H, W]; 0 at pixels of no patch."""
    patches = values[grid.before :].reshape(grid.rows, grid.columns)
    wide = patches.repeat(grid.patch_height, 0).repeat(grid.patch_width, 1)
    return np.pad(wide, _left_over(grid))


def _left_over(grid: Grid) -> tuple[tuple[int, int], tuple[int, int]]:
    """How many rows and columns of pixels lie beyond the patches, before and after them."""
    height, width = grid.patched
    return (0, grid.height - height), (0, grid.width - width)


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
