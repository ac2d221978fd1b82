"""Tolerances from how far rounding moves a result, measured where the test runs.

What a program computes is the exact answer to a question that is off by rounding. So a result may
be off by as far as it moves when each weight of the model, and what comes out of each of its
modules, is off by a rounding of its own, times a small number. How far that is, the model and the
formula decide, and hardly the processor. What is well conditioned has to be right to the last
digits; what divides by a difference close to zero, or takes whole steps by the sign of a small
number, may be off by as much as it must, and no more.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from transforms import Model

# Of the movement that is seen: a draw or two are no bound of what another order of summing does.
MULTIPLE = 10
# Roundings by which all is off, a draw each. By one, steps that rounding decides on are seen; by
# more, what a single rounding leaves as it is, or not, by chance. That is divided by their number.
ROUNDINGS = (1, 16)
# Units in the last place of an array's largest number, where nothing moves.
LEAST = 16
# A result that rounding moves by such a share of itself couldn't be tested.
MOST = 1e-3
# What logits, curves, and scores of the methods that runs are tested with may differ by in float32,
# in units of the largest: rounding of the tiny models' weights moves them by up to 6e-6.
SINGLE = 1e-4


@contextmanager
def jittered(model: Model, roundings: int = 1) -> Iterator[None]:
    """For its duration weights, and what comes out of modules, are off by so many roundings."""
    random = np.random.default_rng(roundings)

    def rounded(tensor: torch.Tensor) -> torch.Tensor:
        most = roundings * torch.finfo(tensor.dtype).eps
        share = random.uniform(-most, most, tuple(tensor.shape))
        return (tensor.double() * torch.from_numpy(1 + share)).to(tensor.dtype)

    weights = list(model.network.parameters())
    before = [weight.data for weight in weights]
    with ExitStack() as hooks:
        for module in model.network.modules():
            if isinstance(module, nn.Linear | nn.LayerNorm | nn.Embedding):
                hook = module.register_forward_hook(lambda _, __, out: rounded(out))
                hooks.callback(hook.remove)
        for weight in weights:
            weight.data = rounded(weight.data)
        try:
            yield
        finally:
            for weight, data in zip(weights, before, strict=True):
                weight.data = data


def tolerances(
    model: Model,
    compute: Callable[[], Sequence[ArrayLike]],
    *,
    base: Sequence[ArrayLike] | None = None,
    scales: Sequence[float] | None = None,
) -> list[float]:
    """What each array of a result may be off by, in units of its largest number.

    Args:
        model: The model that it is computed with.
        compute: Computes it; called with rounded weights.
        base: The result with the weights as they are, if it is there already.
        scales: Units instead, for arrays that are small differences of something larger.
    """
    start = [np.asarray(array, np.float64) for array in (compute() if base is None else base)]
    units = [size or 1.0 for size in scales or (np.abs(array).max(initial=0) for array in start)]
    moved = np.zeros(len(start))
    for roundings in ROUNDINGS:
        with jittered(model, roundings):
            pairs = zip(compute(), start, strict=True)
        most = [np.abs(np.asarray(array) - other).max(initial=0) for array, other in pairs]
        moved = np.maximum(moved, np.array(most) / units / roundings)
    assert moved.max() < MOST, "rounding decides on the result"
    found: list[float] = (MULTIPLE * moved + LEAST * torch.finfo(model.dtype).eps).tolist()
    return found
