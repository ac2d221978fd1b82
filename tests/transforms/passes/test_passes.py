"""Quadrature rules, and what passes capture compared with plain transformers models."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from attribeam.schemas import UsageError
from attribeam.transforms import Instance, Model, attribute, choose, load_model
from attribeam.transforms.inputs.batch import row_cost
from attribeam.transforms.inputs.kinds import collate
from attribeam.transforms.network.capture import IMPLEMENTATION
from attribeam.transforms.passes.base import NESTED, Rule, quadrature
from attribeam.transforms.passes.captured import Captured
from attribeam.transforms.passes.forward import Backward
from attribeam.transforms.passes.path import Path
from tests.conftest import LoadTiny
from tests.support.models import FAMILIES, TASKS, plain, random_instances, relative_error

# Highest degree of a polynomial that a rule of n points integrates exactly.
EXACT_DEGREE: dict[Rule, Callable[[int], int]] = {
    "gauss_legendre": lambda steps: 2 * steps - 1,
    "trapezoid": lambda steps: 1,
    "midpoint": lambda steps: 1,
    "left": lambda steps: 0,
    "right": lambda steps: 0,
    "endpoints": lambda steps: 1,
}
RULES = pytest.mark.parametrize("rule", EXACT_DEGREE)
WholeModel = pytest.mark.parametrize(
    ("family", "task"), [(family, task) for family in FAMILIES for task in TASKS]
)


# Quadrature -----------------------------------------------------------------------------------


def test_every_rule_is_tested() -> None:
    assert {*EXACT_DEGREE, *NESTED} == set(get_args(Rule))


@RULES
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 50, 300])
def test_weights_sum_to_one(rule: Rule, steps: int) -> None:
    points, weights = quadrature(rule, steps)
    assert points.shape == weights.shape == (steps,)
    assert weights.sum() == pytest.approx(1, abs=1e-13)
    assert (weights > 0).all()
    assert ((points >= 0) & (points <= 1)).all()
    assert (np.diff(points) > 0).all()


@RULES
@pytest.mark.parametrize("steps", [1, 2, 3, 6])
def test_rules_are_exact_up_to_their_degree(rule: Rule, steps: int) -> None:
    points, weights = quadrature(rule, steps)
    degree = EXACT_DEGREE[rule](steps)
    for power in range(degree + 1):
        assert (weights * points**power).sum() == pytest.approx(1 / (power + 1), abs=1e-13)
    beyond = degree + 1
    assert abs((weights * points**beyond).sum() - 1 / (beyond + 1)) > 1e-8


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("left", [0, 0.25, 0.5, 0.75]),
        ("midpoint", [0.125, 0.375, 0.625, 0.875]),
        ("right", [0.25, 0.5, 0.75, 1]),
        ("trapezoid", [0, 1 / 3, 2 / 3, 1]),
        ("endpoints", [0, 1 / 3, 2 / 3, 1]),
    ],
)
def test_points_by_hand(rule: Rule, expected: list[float]) -> None:
    np.testing.assert_allclose(quadrature(rule, 4)[0], expected, atol=1e-15)


def test_trapezoid_weights_by_hand() -> None:
    np.testing.assert_allclose(quadrature("trapezoid", 4)[1], [1 / 6, 1 / 3, 1 / 3, 1 / 6])


# Forward --------------------------------------------------------------------------------------


def plain_inputs(model: Model, instances: list[Instance]) -> dict[str, torch.Tensor]:
    """Inputs as a tokenizer pads them; positions are left to the model."""
    length = max(map(len, instances))
    inputs = {
        "input_ids": torch.full((len(instances), length), model.pad_id),
        "attention_mask": torch.zeros(len(instances), length, dtype=torch.long),
    }
    if model.token_types > 1:
        inputs["token_type_ids"] = torch.zeros(len(instances), length, dtype=torch.long)
    for row, instance in enumerate(instances):
        inputs["input_ids"][row, : len(instance)] = torch.tensor(instance.input_ids)
        inputs["attention_mask"][row, : len(instance)] = 1
        if model.token_types > 1:
            inputs["token_type_ids"][row, : len(instance)] = torch.tensor(instance.segment)
    return inputs


def plain_logits(model: Model, instances: list[Instance], **changes: torch.Tensor) -> torch.Tensor:
    """Logits of the plain model: the classes', or those of the two words at the [MASK]."""
    with torch.no_grad():
        logits = plain(model)(**plain_inputs(model, instances), **changes).logits
    if model.task == "classification":
        return logits
    rows = [
        logits[row, instance.readout, list(instance.contrast or ())]
        for row, instance in enumerate(instances)
    ]
    return torch.stack(rows)


def captured(model: Model, instances: list[Instance], *methods: str, **more: Any) -> Captured:
    """A capture for methods, or for nothing but the logits."""
    needs = {need for choice in choose(methods or ("random",)) for need in choice.needs}
    return Captured(
        model=model,
        batch=collate(model, instances),
        target=more.get("target", 0),
        budget=more.get("budget", 10_000),
        seed=0,
        needs=frozenset(needs),
    )


@WholeModel
@pytest.mark.parametrize("methods", [(), ("raw_attention",), ("saliency",)])
def test_logits_are_the_models_own(
    tiny: LoadTiny, family: str, task: str, methods: tuple[str, ...]
) -> None:
    model = tiny(family, task, "float64")
    instances = random_instances(model, [5, 14, 9])
    seen = captured(model, instances, *methods)
    assert relative_error(seen.logits, plain_logits(model, instances)) < 1e-12


@WholeModel
def test_what_enters_the_encoder_is_its_first_hidden_state(
    tiny: LoadTiny, family: str, task: str
) -> None:
    model = tiny(family, task, "float64")
    instances = random_instances(model, [5, 14])
    inputs = plain_inputs(model, instances)
    with torch.no_grad():
        hidden = plain(model)(**inputs, output_hidden_states=True).hidden_states[0]
    entered = captured(model, instances).entered
    for row, instance in enumerate(instances):
        own = slice(len(instance))
        assert relative_error(entered[row, own], hidden[row, own]) < 1e-12


@WholeModel
def test_attention_is_the_models_own(tiny: LoadTiny, family: str, task: str) -> None:
    model = tiny(family, task, "float64")
    instances = random_instances(model, [5, 14])
    inputs = plain_inputs(model, instances)
    with torch.no_grad():
        expected = plain(model)(**inputs, output_attentions=True).attentions
    found = captured(model, instances, "raw_attention").attention
    assert len(found) == len(expected) == model.num_layers
    for ours, theirs in zip(found, expected, strict=True):
        assert relative_error(ours[0, :, :5], theirs[0, :, :5]) < 1e-12
        assert relative_error(ours[1], theirs[1]) < 1e-12
        assert (ours[0, :, :5, 5:] == 0).all()
        torch.testing.assert_close(ours.sum(-1), torch.ones(2, 4, 14, dtype=torch.float64))


def test_only_what_was_asked_for_is_kept(tiny: LoadTiny) -> None:
    model = tiny("bert")
    instances = random_instances(model, [5])
    bare = captured(model, instances)
    assert len(bare.attention) == 0
    assert bare.gradient is None
    assert len(captured(model, instances, "raw_attention").attention) == 3
    assert captured(model, instances, "saliency").gradient is not None


def test_gradient_by_finite_differences(tiny: LoadTiny) -> None:
    model = tiny("bert", "classification", "float64")
    instances = random_instances(model, [5, 9])
    seen = captured(model, instances, "saliency", target=2)
    assert seen.gradient is not None
    step = 1e-5
    for row, token, unit in ((0, 0, 3), (0, 4, 31), (1, 8, 0)):
        sides = []
        for sign in (1, -1):
            moved = seen.entered.clone()
            moved[row, token, unit] += sign * step
            logits, _ = model.run(seen.batch.rows, enter=moved)
            sides.append(logits[row, 2].item())
        slope = (sides[0] - sides[1]) / (2 * step)
        assert seen.gradient[row, token, unit].item() == pytest.approx(slope, abs=1e-8)


def test_a_run_leaves_no_hooks(tiny: LoadTiny) -> None:
    model = tiny("electra", "masked_lm")
    instances = random_instances(model, [5])

    def hooks() -> int:
        return sum(len(m._forward_pre_hooks) for m in model.network.modules())

    captured(model, instances, "raw_attention", "saliency")
    assert hooks() == 0
    rows = collate(model, instances).rows
    with pytest.raises(RuntimeError):
        model.run(rows, enter=torch.zeros(1, 5, 7))
    assert hooks() == 0


def test_attention_that_does_not_come_by_is_noticed(
    tiny_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of a network that asks nobody for its attention function."""
    model = load_model(tiny_folder("bert", "classification"))
    instances = random_instances(model, [5])
    monkeypatch.setitem(AttentionInterface._global_mapping, IMPLEMENTATION, sdpa_attention_forward)
    captured(model, instances)
    with pytest.raises(RuntimeError, match="1 of 3 layers"):
        captured(model, instances, "raw_attention")


# Sharing --------------------------------------------------------------------------------------


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Rows and tokens per row of every run of any model."""
    seen: list[tuple[int, int]] = []
    original = Model.run

    def counting(self: Model, rows: Any, **more: Any) -> Any:
        seen.append(tuple(rows.inputs["input_ids"].shape))
        return original(self, rows, **more)

    monkeypatch.setattr(Model, "run", counting)
    return seen


def test_methods_share_one_pass(tiny: LoadTiny, runs: list[tuple[int, int]]) -> None:
    model = tiny("bert")
    instances = random_instances(model, [8, 8])
    attribute(model, instances, "random,raw_attention,attention_rollout,saliency,grad_x_input")
    assert runs == [(2, 8)]


def test_a_path_is_run_once(tiny: LoadTiny, runs: list[tuple[int, int]]) -> None:
    model = tiny("bert")
    seen = captured(model, random_instances(model, [8, 8]))
    path = Path("pad", 5, "midpoint")
    assert seen(path) is seen(Path("pad", 5, "midpoint"))
    # The base pass, the baseline, and the five points of both rows.
    assert runs == [(2, 8), (2, 8), (10, 8)]
    assert seen(Path("pad", 6, "midpoint")) is not seen(path)


@pytest.mark.parametrize("points_at_once", [1, 2, 3, 7, 100])
def test_a_path_is_cut_to_the_budget(
    tiny: LoadTiny, runs: list[tuple[int, int]], points_at_once: int
) -> None:
    model = tiny("bert", "classification", "float64")
    instances = random_instances(model, [8, 6])
    path = Path("zero", 7, "gauss_legendre")
    expected = captured(model, instances)(path)
    runs.clear()
    budget = int(2 * row_cost(8, model.head_size) * points_at_once) + 1
    found = captured(model, instances, budget=budget)(path)
    assert relative_error(found.gradient, expected.gradient) < 1e-12
    rows = [size for size, _ in runs]
    assert max(rows) == 2 * min(points_at_once, 7)
    # Besides the seven points there are the input and the baseline.
    assert sum(rows) == 2 * (7 + 2)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", ["pad", "mask", "zero"])
def test_path_ends(tiny: LoadTiny, task: str, name: Any) -> None:
    model = tiny("roberta", task, "float64")
    instances = random_instances(model, [9, 6])
    seen = captured(model, instances, target=1)
    path = seen(Path(name, 2, "right"))
    if name == "zero":
        expected = seen.entered
    else:
        ids = plain_inputs(model, instances)["input_ids"].clone()
        for row, instance in enumerate(instances):
            token = model.pad_id if name == "pad" else model.mask_id
            ids[row, : len(instance)][torch.tensor(instance.removable)] = token
        rows = seen.batch.rows
        expected = seen.entered - model.embed(
            replace(rows, inputs={**rows.inputs, "input_ids": ids})
        )
    assert relative_error(path.difference, expected) < 1e-12
    end = model.run(seen.batch.rows, enter=seen.entered)[0]
    start = model.run(seen.batch.rows, enter=seen.entered - expected)[0]
    gain = end - start
    scalar = gain[:, 1] - gain[:, 0] if task == "masked_lm" else gain[:, 1]
    assert relative_error(path.gain, scalar) < 1e-10


def test_the_mask_baseline_needs_the_mask_token(golden: LoadTiny) -> None:
    model = golden("bert-golden")
    assert model.mask_id is None
    with pytest.raises(UsageError, match="--mask-token-id"):
        Path("mask", 5, "left").check(model)
    Path("pad", 5, "left").check(model)
    Backward().check(model)
