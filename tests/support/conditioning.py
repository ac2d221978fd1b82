"""Tolerances from how far rounding moves a result, measured where the test runs.

Each sum, product and function that torch computes is made to be off by a rounding of its own, at
random: Monte Carlo arithmetic (Parker 1997). What that makes of a result is what another order of
summation, padding, or the instructions of another processor can make of it, as to size; so a small
multiple of it is what two results may differ by. It is a property of the model and the formula, and
hardly of the processor. What is well conditioned has to be right to the last digits; what divides
by a difference close to zero, or takes whole steps by the sign of a small number, may be off by as
much as it must, and no more.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch.utils._python_dispatch import TorchDispatchMode

from attribeam.transforms import Model

# Of the movement. In 120 random batches of all methods on tiny models of six families, with three
# processors' arithmetic, what instances give alone and in a batch differed by up to 5.9 times it.
MULTIPLE = 16
# Units in the last place of an array's largest number, where nothing moves.
LEAST = 16
# Roundings by which all is off, a draw each. By one, steps that rounding decides on are seen; by
# more, what a single rounding leaves as it is, or not, by chance. That is divided by their number.
ROUNDINGS = (1, 16)
# A result that rounding moves by such a share of itself couldn't be tested.
MOST = 1e-3
# What logits, curves, and scores of the methods that runs are tested with may differ by in float32,
# in units of the largest: rounding moves them by up to 6e-6 in the tiny models.
SINGLE = 1e-4

# Names of torch's operators that compute; views and copies are left as they are.
_COMPUTING = (
    "mm addmm bmm baddbmm add sub rsub mul div sum mean addcmul addcdiv pow sqrt rsqrt reciprocal "
    "exp log tanh tanh_backward erf gelu gelu_backward _softmax _softmax_backward_data var "
    "_log_softmax _log_softmax_backward_data linalg_vector_norm native_layer_norm "
    "native_layer_norm_backward"
)
_ROUNDED = frozenset(_COMPUTING.split())
# Of them, one after the other, all that is computed takes its roundings; drawing is slow.
_DRAWS = (1 << 18) + 3


@cache
def _computes(operator: Any) -> bool:
    """Whether an operator of torch's is one of those that round."""
    return operator._schema.name.removeprefix("aten::").removesuffix("_") in _ROUNDED


class Rounding(TorchDispatchMode):
    """For its duration what torch computes is off by up to so many roundings."""

    def __init__(self, roundings: int = 1) -> None:
        super().__init__()
        draws = torch.rand(_DRAWS, generator=torch.Generator().manual_seed(roundings))
        self._shares = roundings * (2 * draws.double() - 1)
        self._factors: dict[torch.dtype, torch.Tensor] = {}
        self._drawn = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if not _computes(func):
            return found
        first = found[0] if isinstance(found, tuple) else found
        if isinstance(first, torch.Tensor) and first.is_floating_point():
            # In place: what an operation that works in place leaves is rounded too.
            first.mul_(self._next(first.numel(), first.dtype).view(first.shape))
        return found

    def _next(self, count: int, dtype: torch.dtype) -> torch.Tensor:
        """What so many numbers are multiplied by: each 1 but for some roundings, at random."""
        if dtype not in self._factors:
            self._factors[dtype] = (1 + torch.finfo(dtype).eps * self._shares).to(dtype)
        factors = self._factors[dtype]
        if count > len(factors):
            return factors.repeat(1 + count // len(factors))[:count]
        start = self._drawn % (len(factors) - count + 1)
        self._drawn += count
        return factors[start : start + count]


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
        compute: Computes it.
        base: The result as it is, if it is there already.
        scales: Units instead, for arrays that are small differences of something larger.
    """
    start = [np.asarray(array, np.float64) for array in (compute() if base is None else base)]
    units = [size or 1.0 for size in scales or (np.abs(array).max(initial=0) for array in start)]
    moved = np.zeros(len(start))
    for roundings in ROUNDINGS:
        with Rounding(roundings):
            pairs = list(zip(compute(), start, strict=True))
        most = [np.abs(np.asarray(array) - other).max(initial=0) for array, other in pairs]
        moved = np.maximum(moved, np.array(most) / units / roundings)
    assert moved.max() < MOST, "rounding decides on the result"
    found: list[float] = (MULTIPLE * moved + LEAST * torch.finfo(model.dtype).eps).tolist()
    return found
