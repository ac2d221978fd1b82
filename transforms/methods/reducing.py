"""From values of hidden units, or of pixels, to scores of positions."""

from collections.abc import Callable
from functools import partial

import torch

from attribeam.transforms.inputs.kinds import inputs_of
from attribeam.transforms.passes.captured import Captured
from attribeam.transforms.registry import Scores

_summed = partial(torch.sum, dim=-1)


def reduced(
    captured: Captured,
    vectors: torch.Tensor,
    reduce: Callable[[torch.Tensor], torch.Tensor] = _summed,
) -> Scores:
    """Scores of positions, and by pixel where these are asked for.

    Args:
        captured: What the values come from.
        vectors: Values by position, [B, T, n].
        reduce: From those of a position, or of the channels of a pixel, to one score.
    """
    finer = None
    if captured.pixels:
        finer = inputs_of(captured.model).finer(captured.model, vectors)
    return Scores(reduce(vectors), pixels=None if finer is None else reduce(finer))
