"""Quadrature on [0, 1] that takes as many points as an integral needs: rungs of nested rules.

Each rung has the points of the one before and one between each two of them. Along a path from a
baseline to an input a model changes its mind somewhere in the middle, within a tenth of the path or
less, and is calm at both ends. For such a bump even points converge faster than those of Gauss,
Clenshaw and Curtis, or Kronrod and Patterson, which crowd at the ends; what even points miss there
the weights of the outermost four mend (Gregory's rule). ``docs/methods.md`` has the errors of each.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import log2

import numpy as np
import torch
from numpy.typing import NDArray

from attribeam.schemas import UsageError
from attribeam.transforms.network.model import Model
from attribeam.transforms.passes.base import NESTED, Rule, quadrature

Floats = NDArray[np.float64]

# Fewest intervals of the first rung, as far as there are so many points.
_LEAST = 4
# Outermost points at each end whose weights differ from those within.
_AT_ENDS = 4


@dataclass(frozen=True, eq=False)
class Ladder:
    """R rungs, each a rule of its own; a rule that isn't nested has one.

    Attributes:
        counts: Number of points of each rung, [R].
        points: All K points, those of the first rung first, then what each adds.
        weights: What each point counts on each rung, [R, K], 0 where it has no part.
    """

    counts: tuple[int, ...]
    points: Floats
    weights: Floats

    def added(self, rung: int) -> slice:
        """Which points a rung is the first to need. With the first two there is an estimate."""
        if rung <= 1:
            return slice(0, self.counts[rung])
        return slice(self.counts[rung - 1], self.counts[rung])

    @property
    def first(self) -> int:
        """The rung that there is an error of, if there is any."""
        return min(1, len(self.counts) - 1)


@lru_cache
def ladder(rule: Rule, most: int, least: int = _LEAST) -> Ladder:
    """The rungs of a rule, the last of at most so many points.

    Args:
        rule: The rule. One that isn't nested has one rung.
        most: Most points.
        least: Fewest intervals of the first rung, as far as there are so many points.
    """
    if rule not in NESTED or most < 2:
        points, weights = quadrature("midpoint" if rule in NESTED else rule, most)
        return Ladder((len(points),), points, weights[None])
    counts = _counts(most, least)
    last = counts[-1] - 1
    order: list[int] = []
    for count in counts:
        order += [at for at in range(0, last + 1, last // (count - 1)) if at not in set(order)]
    weights = np.zeros((len(counts), last + 1))
    for row, count in zip(weights, counts, strict=True):
        row[:: last // (count - 1)] = _even_weights(count)
    points = np.arange(last + 1) / last
    if rule == "nested_early":  # Of a = u^2, da = 2 u du.
        points, weights = points**2, weights * 2 * points
        weights /= weights.sum(1, keepdims=True)
    return Ladder(counts, points[order], weights[:, order])


def _counts(most: int, least: int) -> tuple[int, ...]:
    """Numbers of points, each twice the one before less 1, at most so many."""
    intervals = most - 1
    halvings = int(log2(intervals / least)) if intervals >= 2 * least else int(intervals > 1)
    first = intervals >> halvings
    return tuple((first << rung) + 1 for rung in range(halvings + 1))


def _even_weights(count: int) -> Floats:
    """Weights of so many even points on [0, 1], exact for polynomials of a degree below 4."""
    weights, changed = np.ones(count), min(_AT_ENDS, count // 2)
    change = _end_weights(changed)
    weights[:changed] += change
    weights[-changed:] += change[::-1]
    return weights / (count - 1)


def _end_weights(changed: int) -> Floats:
    """What is added to the first weights of a sum over 0, 1, 2, ... to make it an integral.

    By the Euler-Maclaurin formula sum_j j^k is -B_{k+1} / (k + 1) more than the integral of x^k
    (for k = 0 it is 1/2); so much is to be taken off for each k that there is a weight for.
    """
    bernoulli = (Fraction(1, 2), Fraction(1, 6), Fraction(0), Fraction(-1, 30))
    wanted = [float(-bernoulli[0])]
    wanted += [float(bernoulli[power] / (power + 1)) for power in range(1, changed)]
    powers = np.arange(changed)[:, None] ** np.arange(changed)
    found: Floats = np.linalg.solve(powers.T.astype(float), np.array(wanted))
    return found


# Why, and how near ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Taken:
    """How the integrals of B instances were taken.

    Attributes:
        steps: Points of each, [B].
        error: Estimated error of each over the largest value that is integrated, [B], float64: the
            completeness gap, where there is one, or the change from half the points, whichever is
            larger. NaN where neither is known. The integral itself is mostly much nearer than what
            half its points gave.
    """

    steps: torch.Tensor
    error: torch.Tensor

    def of(self, numbers: torch.Tensor) -> "Taken":
        """Those of some of the instances."""
        return Taken(self.steps[numbers], self.error[numbers])


# Whether an integral is near enough must not depend on batch mates, padding or the token budget,
# which all make a difference in the last digits. So an error that is as near the tolerance as
# rounding may bring it decides nothing: that instance is computed anew, as a batch of its own, in
# pieces of a size of its own, which gives the same digits each time. Rounding comes to this many
# units in the last place of what the error is a difference of. What batch mates made of it was at
# most 5 units, over models of six families in float32, and 0.5 in bfloat16, where 128 are more than
# any tolerance.
SURE = 128
# Token budget of what is computed alone.
ALONE = 4096


def ladder_for(model: Model, rule: Rule, most: int) -> Ladder:
    """The rungs for a model: in half precision, where no error decides, those up to half way."""
    nested = rule in NESTED and most > 1
    return ladder(rule, (most + 1) // 2 if nested and is_rough(model) else most)


def is_rough(model: Model) -> bool:
    """Whether errors are rounding alone, of which nothing is decided."""
    return SURE * last_place(model) >= 1


def checked(method: str, rule: Rule, tolerance: float) -> float:
    """The tolerance of a method's integrals; 0 by a rule that takes all points anyway.

    Raises:
        UsageError: If it is below 0.
    """
    if tolerance < 0:
        raise UsageError(f"{method}.tolerance is at least 0, not {tolerance}")
    return tolerance if rule in NESTED else 0.0


def last_place(model: Model) -> float:
    """A unit in the last place of 1, of the type that the model multiplies in."""
    return torch.finfo(torch.bfloat16 if model.mixed else model.dtype).eps
