"""Random masks: what the model says of an input of which some units are left out at random.

Scores are put to the test by them: the sum of the scores of what is left should say how much of the
output is left (Park et al. 2023; Cohen-Wang et al. 2024). They are drawn anew for that, so that no
method has been fitted to them.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attribeam.schemas import UsageError
from attribeam.transforms.details import MaskRow
from attribeam.transforms.inputs.batch import Flags
from attribeam.transforms.inputs.kinds import inputs_of
from attribeam.transforms.inputs.seam import Operation
from attribeam.transforms.inputs.variants import NothingToRemoveError
from attribeam.transforms.network.model import Model
from attribeam.transforms.passes.base import Wish
from attribeam.transforms.passes.captured import Captured
from attribeam.transforms.passes.perturb import Perturb, outcomes
from attribeam.transforms.registry import ChoiceByKind, Method, Params, Scores, register

Floats = NDArray[np.float64]


def random_masks(captured: Captured, params: Params) -> Scores:
    """Outputs under masks that keep each unit with the same probability.

    It has no scores of tokens: ``values`` are zeros. An instance without a unit fails.
    """
    kept = [_masks(captured, number, params) for number in range(len(captured.batch))]
    operation: Operation = params["operation"]
    wanted = [(n, operation, ~row) for n, rows in enumerate(kept) for row in rows]
    logits = iter(outcomes(captured, wanted))
    targets = captured.targets.tolist()
    details: list[dict[str, Any]] = []
    errors: dict[int, Exception] = {}
    for number, rows in enumerate(kept):
        found = _rows(captured.model, rows, [next(logits) for _ in rows], targets[number], params)
        details.append({"masks": list(found)})
        if not len(rows):
            errors[number] = NothingToRemoveError()
    return Scores(torch.zeros(captured.mask.shape), details=details, errors=errors)


def _masks(captured: Captured, number: int, params: Params) -> Flags:
    """Which tokens each mask keeps, [S, T]; none where no unit can be removed."""
    instance = captured.batch.instances[number]
    units = inputs_of(instance).units_of(instance, params["unit"])
    count = int(units.max()) + 1
    if not count:
        return np.empty((0, len(instance)), bool)
    random = instance.generator(captured.seed, f"random masks {params['unit']}")
    kept = random.random((params["samples"], count)) < params["keep"]
    # What is of no unit is never removed.
    return np.concatenate([kept, np.ones((len(kept), 1), bool)], 1)[:, units]


def _rows(
    model: Model, kept: Flags, logits: list[Floats], target: int, params: Params
) -> Iterator[MaskRow]:
    for mask, (row, said) in enumerate(zip(kept, logits, strict=True)):
        share = model.probabilities(torch.from_numpy(said[None]))[0, target]
        yield MaskRow(
            mask=mask,
            target=target,
            unit=params["unit"],
            operation=params["operation"],
            kept=row,
            logit=float(said[target]),
            probability=float(share),
        )


def _needs(params: Params) -> tuple[Wish, ...]:
    if not 0 < params["keep"] < 1:
        raise UsageError(f"random_masks.keep is between 0 and 1, not {params['keep']}")
    return (Perturb(params["operation"]),)


register(
    Method(
        name="random_masks",
        compute=random_masks,
        needs=_needs,
        defaults={
            "samples": 32,
            "keep": 0.5,
            "operation": ChoiceByKind(
                "operations", ("pad", "mask", "delete", "mean", "black", "drop")
            ),
            "unit": ChoiceByKind("units", ("token", "word", "segment", "patch")),
        },
        signed=False,
        class_dependent=True,
        additive=False,
        stochastic=True,
        opt_in="it puts scores to the test (`datamodeling`), and attributes nothing",
        cost="samples F",
        paper="Park et al. 2023; Cohen-Wang et al. 2024",
        equation="f(x without units that are drawn)",
        scored=False,
        tables=("masks",),
    )
)
