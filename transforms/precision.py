"""What bfloat16 would change in perturbation curves, measured on some instances."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from attribeam.transforms.attribute import attribute
from attribeam.transforms.evaluate import CurvePoint, Evaluation, Ranking, curves
from attribeam.transforms.inputs.batch import Instance
from attribeam.transforms.network.model import Model

# What of a curve is put in order: probabilities that are at least so far apart in float32.
_APART = 0.01
# What is ranked by, to have curves of every order.
_METHOD = "grad_x_input"


@dataclass(frozen=True)
class Difference:
    """How curves in bfloat16 differ from those in float32.

    Attributes:
        instances: Number of instances.
        points: Number of points of their curves.
        flips: Number of points at which another class is predicted.
        flips_of_one: Largest share of an instance's points at which one is.
        change: Largest change of a probability.
        swapped_of_one: Largest share of an instance's pairs of points, those whose probabilities
            are at least 0.01 apart, that are in another order.
    """

    instances: int
    points: int
    flips: int
    flips_of_one: float
    change: float
    swapped_of_one: float

    @property
    def within(self) -> bool:
        """Whether it is within ``BOUND``, of every instance, and of at least one."""
        return (
            self.instances > 0
            and self.flips <= BOUND["flips"] * self.points
            and self.flips_of_one <= BOUND["flips_of_one"]
            and self.change <= BOUND["change"]
            and self.swapped_of_one <= BOUND["swapped_of_one"]
        )

    @property
    def record(self) -> dict[str, float]:
        """What ``run.json`` keeps of it."""
        return {name: float(value) for name, value in asdict(self).items()}


# Of all points, and of those of an instance, with another prediction; the change of a probability;
# and the share of an instance's pairs that are in another order.
BOUND = {"flips": 0.01, "flips_of_one": 0.1, "change": 0.05, "swapped_of_one": 0.02}


def difference(
    model: Model, instances: Sequence[Instance], evaluation: Evaluation, *, budget: int, seed: int
) -> Difference:
    """Runs the curves of some instances in both types.

    Args:
        model: The model, in float32.
        instances: The instances.
        evaluation: What is perturbed.
        budget: Token budget.
        seed: Seed of random orders.
    """
    # What a masked LM fills is as good as any other input.
    evaluation = evaluation.without_imputing(model)
    found = attribute(model, instances, _METHOD, token_budget=budget)
    pairs = zip(instances, found.rows[_METHOD], found.predictions, strict=True)
    rankings = [
        Ranking(instance, _METHOD, row.scores, prediction.target)
        for instance, row, prediction in pairs
        if row is not None and prediction is not None
    ]
    sides = [
        curves(model, rankings, replace(evaluation, dtype=dtype), token_budget=budget, seed=seed)[0]
        for dtype in (None, "bfloat16")
    ]
    own = [(a, b) for a, b in zip(*sides, strict=True) if a is not None and b is not None]
    flips = [[p.prediction != q.prediction for p, q in zip(*pair, strict=True)] for pair in own]
    return Difference(
        instances=len(own),
        points=sum(map(len, flips)),
        flips=sum(map(sum, flips)),
        flips_of_one=max((float(np.mean(each)) for each in flips), default=0.0),
        change=max((float(np.abs(np.subtract(*_both(*pair))).max()) for pair in own), default=0.0),
        swapped_of_one=max((_swapped(*_both(*pair)) for pair in own), default=0.0),
    )


def _both(
    exact: Sequence[CurvePoint], other: Sequence[CurvePoint]
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the points of both curves, [N] each."""
    first, second = (np.array([p.probability for p in side]) for side in (exact, other))
    return first, second


def _swapped(exact: np.ndarray, other: np.ndarray) -> float:
    """Share of the pairs that are apart in ``exact`` that are in another order in ``other``."""
    gaps, others = (np.subtract.outer(side, side) for side in (exact, other))
    apart = gaps >= _APART
    return float((others[apart] <= 0).mean()) if apart.any() else 0.0
