"""Subsets of units, and what the model says without each: one table that serves all methods.

Infidelity, faithfulness correlation, sensitivity-n, leaving one out and non-sensitivity all compare
what scores add up to over a subset with what removing it does. The subsets depend on no method, so
that methods are compared on the same ones, and another method costs no pass.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch

from attribeam.schemas import Failure
from attribeam.transforms.attribute import Prediction, failure
from attribeam.transforms.inputs.batch import Flags, Instance
from attribeam.transforms.inputs.kinds import inputs_of
from attribeam.transforms.inputs.seam import Operation, Unit
from attribeam.transforms.inputs.targets import LINEAR, Explained, Scalar, runner_up
from attribeam.transforms.inputs.variants import NothingToRemoveError, Variants
from attribeam.transforms.network.model import Model

Kind = Literal["whole", "one", "random"]


class Subset(NamedTuple):
    """A subset of an instance's units: which tokens are removed, [T], and how many units.

    ``sample`` counts subsets of a kind from 0.
    """

    kind: Kind
    sample: int
    removed: Flags
    size: int
    units: int


class SubsetPoint(NamedTuple):
    """A row of ``subsets``, but for its instance: a subset and what the model says without it."""

    kind: Kind
    sample: int
    removed: Flags
    size: int
    units: int
    target: int
    explained: float
    probability: float
    logit: float
    prediction: int


def subsets_of(instance: Instance, unit: Unit, samples: int, seed: int) -> list[Subset]:
    """Nothing, each unit by itself, and random subsets.

    A random one has a size that is uniform from 1 to the number of units, and then each subset of
    that size is as likely. Whole words are removed together.

    Raises:
        NothingToRemoveError: If there is no unit.
    """
    units = inputs_of(instance).units_of(instance, unit)
    count = int(units.max()) + 1
    if not count:
        raise NothingToRemoveError
    random = instance.generator(seed, "subsets")
    found = [Subset("whole", 0, np.zeros(len(instance), bool), 0, count)]
    found += [Subset("one", number, units == number, 1, count) for number in range(count)]
    for sample in range(samples):
        size = int(random.integers(1, count + 1))
        chosen = random.permutation(count)[:size]
        found.append(Subset("random", sample, np.isin(units, chosen), size, count))
    return found


def subset_points(
    model: Model,
    instances: Sequence[Instance],
    predictions: Sequence[Prediction],
    *,
    scalar: Scalar,
    operation: Operation,
    unit: Unit,
    samples: int,
    token_budget: int,
    seed: int,
) -> tuple[list[list[SubsetPoint] | None], list[Failure]]:
    """What the model says of instances without subsets of their units.

    Args:
        model: The model; all instances are of its kind.
        instances: The instances.
        predictions: What it says of each as it is, with the class that is explained.
        scalar: Which scalar of the class is explained.
        operation: How units are removed.
        unit: What is removed at a time.
        samples: Number of random subsets.
        token_budget: Largest batch, in tokens of short rows.
        seed: Seed of the subsets.

    Returns:
        Points per instance (None where it failed), and the failures, of stage ``perturb``.
    """
    variants = Variants(model)
    asked: list[list[tuple[Subset, int]] | Exception] = []
    for instance in instances:
        try:
            subsets = subsets_of(instance, unit, samples, seed)
        except NothingToRemoveError as error:
            asked.append(error)
            continue
        asked.append([(s, variants.add(instance, operation, s.removed)) for s in subsets])
    variants.run(token_budget)
    results: list[list[SubsetPoint] | None] = []
    failures: list[Failure] = []
    for instance, prediction, inputs in zip(instances, predictions, asked, strict=True):
        why = inputs if isinstance(inputs, Exception) else _error(variants, inputs)
        if isinstance(inputs, Exception) or why is not None:
            results.append(None)
            failures.append(failure(instance, "perturb", None, why or NothingToRemoveError()))
        else:
            results.append(list(_points(variants, prediction, inputs, scalar)))
    return results, failures


def _error(variants: Variants, inputs: Sequence[tuple[Subset, int]]) -> Exception | None:
    """What went wrong with the first copy that failed."""
    return next((variants.errors[at] for _, at in inputs if at in variants.errors), None)


def _points(
    variants: Variants,
    prediction: Prediction,
    inputs: Sequence[tuple[Subset, int]],
    scalar: Scalar,
) -> Iterator[SubsetPoint]:
    """The points of an instance; what its class is compared with stays what it is of the whole."""
    numbers = [at for _, at in inputs]
    logits = torch.from_numpy(variants.logits[numbers])
    targets = torch.full((len(numbers),), prediction.target)
    foils = None
    if scalar == "contrast":
        whole = torch.from_numpy(np.asarray(prediction.logits, np.float64))[None]
        foils = runner_up(whole, targets[:1]).expand(len(numbers))
    elif scalar in LINEAR and variants.instances[numbers[0]].question_kind == "label":
        foils = 1 - targets  # The logit of a label's absence is zero.
    values = Explained(scalar, targets, foils)(logits)
    for (subset, at), value in zip(inputs, values.tolist(), strict=True):
        yield SubsetPoint(
            *subset,
            target=prediction.target,
            explained=value,
            probability=float(variants.probabilities[at, prediction.target]),
            logit=float(variants.logits[at, prediction.target]),
            prediction=int(variants.logits[at].argmax()),
        )
