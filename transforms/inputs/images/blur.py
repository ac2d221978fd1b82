"""Blurred pictures, which paths may start from."""

from math import ceil

import torch

from attribeam.transforms.inputs.seam import BLUR

# Beyond so many standard deviations a Gaussian is left out.
_REACH = 4.0


def blurred(pixels: torch.Tensor) -> torch.Tensor:
    """Pictures, [B, C, H, W], folded with a Gaussian of ``BLUR`` times their shorter side.

    Beyond the edge the pixel at the edge goes on, so that a picture of one colour stays as it is.
    """
    height, width = pixels.shape[-2:]
    sigma = BLUR * min(height, width)
    rows, columns = (_mixing(size, sigma).to(pixels) for size in (height, width))
    return rows @ pixels @ columns.T


def _mixing(size: int, sigma: float) -> torch.Tensor:
    """What each of a row of pixels gets of each other one, [size, size]; its rows sum to 1."""
    reach = ceil(_REACH * sigma)
    steps = torch.arange(-reach, reach + 1)
    weights = torch.exp(-0.5 * (steps.double() / sigma) ** 2)
    weights = (weights / weights.sum()).expand(size, -1)
    sources = (torch.arange(size)[:, None] + steps).clamp(0, size - 1)
    return torch.zeros(size, size, dtype=torch.float64).scatter_add(1, sources, weights)
