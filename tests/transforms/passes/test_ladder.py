"""Nested rules, and integrals that take as many points as each instance needs."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from attribeam.schemas import UsageError
from attribeam.transforms import Attribution, Instance, Model, attribute, choose
from attribeam.transforms.passes.base import NESTED, Rule
from attribeam.transforms.passes.ladder import ladder
from attribeam.transforms.passes.path import _Walk
from tests.conftest import LoadTiny
from tests.support.models import random_instances

# As many points as are needed, whatever the most is.
BY_NEED: dict[str, Any] = {"rule": "nested"}
RULES = pytest.mark.parametrize("rule", NESTED)


@RULES
@pytest.mark.parametrize("most", [1, 2, 3, 4, 9, 12, 50, 97, 300])
def test_each_rung_has_the_points_of_that_before(rule: Rule, most: int) -> None:
    rungs = ladder(rule, most)
    assert rungs.weights.shape == (len(rungs.counts), len(rungs.points))
    assert rungs.counts[-1] <= most < 2 * rungs.counts[-1] + 2
    np.testing.assert_allclose(rungs.weights.sum(1), 1, atol=1e-13)
    assert (rungs.weights >= 0).all()
    for count, weights in zip(rungs.counts, rungs.weights, strict=True):
        assert (weights[count:] == 0).all()
        own = np.sort(rungs.points[:count])
        even = own if rule == "nested" else np.sqrt(own)
        np.testing.assert_allclose(np.diff(even), np.diff(even)[:1].repeat(count - 1))
    added = [rungs.added(rung) for rung in range(rungs.first, len(rungs.counts))]
    assert added[0].start == 0 and added[-1].stop == len(rungs.points)
    assert all(one.stop == other.start for one, other in pairwise(added))


@pytest.mark.parametrize("most", [9, 13, 25, 65])
def test_even_points_are_exact_up_to_cubes(most: int) -> None:
    rungs = ladder("nested", most)
    for power in range(4):
        assert (rungs.weights[-1] * rungs.points**power).sum() == pytest.approx(1 / (power + 1))


@RULES
def test_a_bump_in_the_middle_is_found_sooner_than_by_gauss(rule: Rule) -> None:
    """Of 1 / (1 + ((a - c) / w)^2), whose integral is known; the worst of many places c."""
    width, places = 0.05, np.linspace(0.2, 0.8, 25)
    truth = width * (np.arctan((1 - places) / width) + np.arctan(places / width))

    def worst(points: np.ndarray, weights: np.ndarray) -> float:
        values = 1 / (1 + ((points - places[:, None]) / width) ** 2)
        return float(np.abs(values @ weights - truth).max() / truth.min())

    rungs = ladder(rule, 49)
    gauss = np.polynomial.legendre.leggauss(49)
    ours = worst(rungs.points, rungs.weights[-1])
    if rule == "nested":
        assert ours < worst((gauss[0] + 1) / 2, gauss[1] / 2) / 10
    assert ours < 1e-3


@pytest.fixture(scope="module")
def model(tiny: LoadTiny) -> Model:
    return tiny("bert", "classification", "float64")


@pytest.fixture(scope="module")
def instances(model: Model) -> list[Instance]:
    return random_instances(model, [6, 13, 9, 12, 4, 10])


def _rows(
    model: Model, instances: list[Instance], name: str, **params: str | float
) -> list[Attribution]:
    found = attribute(model, instances, choose(name, {name: params}))
    assert found.failures == []
    return [row for row in found.rows[name] if row is not None]


@pytest.mark.parametrize("name", ["integrated_gradients", "bt_token"])
def test_each_instance_takes_as_many_points_as_it_needs(
    model: Model, instances: list[Instance], name: str
) -> None:
    # In the middle of the errors of 11 points, so that some need more than that.
    first = [row.error for row in _rows(model, instances, name, **BY_NEED, steps=11, tolerance=0)]
    tolerance = float(np.median(np.array(first, float)))
    found = _rows(model, instances, name, **BY_NEED, steps=321, tolerance=tolerance)
    exact = _rows(model, instances, name, steps=400, rule="gauss_legendre")
    assert len({row.steps for row in found}) > 1
    for row, other in zip(found, exact, strict=True):
        assert row.error is not None and row.error <= tolerance
        assert np.abs(row.scores - other.scores).max() <= tolerance * np.abs(other.scores).max()
    for row, (alone,) in zip(
        found,
        (_rows(model, [i], name, **BY_NEED, steps=321, tolerance=tolerance) for i in instances),
        strict=True,
    ):
        assert row.steps == alone.steps
        assert np.abs(row.scores - alone.scores).max() < 1e-10 * np.abs(alone.scores).max()


def test_what_rounding_could_decide_is_decided_alone(
    model: Model, instances: list[Instance], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a tolerance that is an instance's own error, to the last digit."""
    name = "integrated_gradients"
    error = _rows(model, instances[1:2], name, **BY_NEED, steps=11, tolerance=0)[0].error
    assert error is not None
    alone, walk_alone = list[Instance](), _Walk.alone

    def noted(walk: _Walk, row: int) -> _Walk:
        alone.append(walk.captured.batch.instances[row])
        return walk_alone(walk, row)

    monkeypatch.setattr(_Walk, "alone", noted)
    together = _rows(model, instances, name, **BY_NEED, steps=41, tolerance=error)
    assert len(alone) == 1 and alone[0] is instances[1]
    by_itself = _rows(model, instances[1:2], name, **BY_NEED, steps=41, tolerance=error)
    assert together[1].steps == by_itself[0].steps
    assert together[1].error == by_itself[0].error
    assert (together[1].scores == by_itself[0].scores).all()


def test_kinds_on_one_path_decide_for_themselves(model: Model, instances: list[Instance]) -> None:
    path = {"baseline": "zero", "rule": "nested", "steps": 81, "tolerance": 1e-4}
    names = ("integrated_gradients", "bt_head")
    together = attribute(model, instances, choose(",".join(names), dict.fromkeys(names, path)))
    for name in names:
        for row, alone in zip(
            together.rows[name], _rows(model, instances, name, **path), strict=True
        ):
            assert row is not None and row.steps == alone.steps
            assert np.abs(row.scores - alone.scores).max() < 1e-10 * np.abs(alone.scores).max()


def test_what_has_one_rung_knows_its_gap_alone(model: Model, instances: list[Instance]) -> None:
    fixed = _rows(model, instances, "integrated_gradients", preset="fixed")
    for row in fixed:
        assert row.steps == 50 and row.delta is not None
        assert row.error == pytest.approx(abs(row.delta) / np.abs(row.scores).max())
    assert {row.error for row in _rows(model, instances, "bt_head", preset="code")} == {None}


def test_half_precision_decides_nothing(tiny: LoadTiny) -> None:
    model = tiny("bert", "classification", "bfloat16")
    for steps, taken in ((21, 11), (1, 1)):
        found = _rows(
            model, random_instances(model, [5, 7]), "integrated_gradients", **BY_NEED, steps=steps
        )
        assert [row.steps for row in found] == [taken, taken]


def test_a_tolerance_is_no_less_than_nothing(model: Model) -> None:
    for name in ("integrated_gradients", "bt_head"):
        (choice,) = choose(name, {name: {"tolerance": -1}})
        with pytest.raises(UsageError, match="tolerance is at least 0, not -1"):
            choice.fitted(model)
