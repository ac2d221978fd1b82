"""Curves in bfloat16: what they are made of, what is measured of them, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from attribeam.schemas import UsageError
from attribeam.transforms import Instance, Model
from attribeam.transforms.evaluate import CurvePoint, Evaluation, Ranking, curves
from attribeam.transforms.network.halved import can_be_halved, halved
from attribeam.transforms.precision import BOUND, Difference, _swapped, difference
from tests.conftest import LoadTiny
from tests.support.models import FAMILIES, random_instances

EVALUATION = Evaluation(fractions=(0.3, 0.6), operations=("mask",))


def _points(model: Model, instances: list[Instance], evaluation: Evaluation) -> list[CurvePoint]:
    rankings = [
        Ranking(instance, "m", np.arange(len(instance), dtype=float), 1) for instance in instances
    ]
    found, failures = curves(model, rankings, evaluation, token_budget=1000)
    assert failures == []
    return [point for curve in found for point in curve or []]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_halved_model_stands_by_itself(tiny: LoadTiny, family: str) -> None:
    """Its numbers are those of its own weights, and the model's own are as they were."""
    model = tiny(family)
    instances = random_instances(model, [5, 9])
    exact = _points(model, instances, EVALUATION)
    halves = _points(model, instances, replace(EVALUATION, dtype="bfloat16"))
    assert _points(model, instances, EVALUATION) == exact
    own = halved(model)
    assert own is halved(model) and own.dtype == torch.bfloat16 and model.dtype == torch.float32
    assert not {id(p) for p in own.network.parameters()} & {
        id(p) for p in model.network.parameters()
    }
    logits = [[point.logit for point in side] for side in (exact, halves)]
    assert 0 < np.abs(np.subtract(*logits)).max() < 0.05 * max(1, np.abs(logits[0]).max())
    with torch.no_grad():
        kept = [parameter.clone() for parameter in model.network.parameters()]
        for parameter in model.network.parameters():
            parameter.zero_()
        again = _points(own, instances, EVALUATION)
        for parameter, before in zip(model.network.parameters(), kept, strict=True):
            parameter.copy_(before)
    assert again == halves


def test_what_is_measured(tiny: LoadTiny) -> None:
    model = tiny("bert")
    instances = random_instances(model, [6, 9, 11])
    found = difference(model, instances, EVALUATION, budget=1000, seed=0)
    assert (found.instances, found.points) == (3, 3 * 3 * 4)
    assert 0 < found.change < 0.05
    assert found.flips <= found.points * found.flips_of_one * found.instances
    assert set(found.record) == set(Difference.__dataclass_fields__)


def test_pairs_in_another_order_count_where_they_are_apart() -> None:
    exact = np.array([0.1, 0.105, 0.3, 0.9])
    assert _swapped(exact, np.array([0.105, 0.1, 0.3, 0.9])) == 0
    # Five pairs are apart, and that of the last two is turned round.
    assert _swapped(exact, np.array([0.1, 0.105, 0.9, 0.3])) == pytest.approx(1 / 5)
    assert _swapped(np.array([0.5, 0.5]), np.array([0.1, 0.9])) == 0


@pytest.mark.parametrize("name", ["flips_of_one", "change", "swapped_of_one"])
def test_one_instance_beyond_the_bound_is_enough(name: str) -> None:
    good = Difference(16, 500, 5, 0.1, 0.05, 0.02)
    assert good.within
    assert not replace(good, **{name: BOUND[name] + 1e-6}).within
    assert not replace(good, flips=6).within
    assert not Difference(0, 0, 0, 0.0, 0.0, 0.0).within


def test_what_has_no_such_copy(tiny: LoadTiny) -> None:
    model = tiny("bert", "classification", "float64")
    assert can_be_halved(model) == "is for runs in float32"
    with pytest.raises(UsageError, match="--perturb-dtype bfloat16 is for runs in float32"):
        replace(EVALUATION, dtype="bfloat16").checked(model)
    with pytest.raises(ValueError, match="bfloat16 is for runs in float32"):
        halved(model)
