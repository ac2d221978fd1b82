"""Influence along a path and its algebra: the authors' numbers, autograd, packing."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.autograd.functional import jvp

from attribeam.transforms import Instance, Model, Row, encode
from attribeam.transforms.inputs.kinds import collate, inputs_of
from attribeam.transforms.passes.base import Rule, quadrature
from attribeam.transforms.passes.influence import (
    InfluenceStates,
    influence_states,
    margin_weights,
)
from attribeam.transforms.passes.influence_paths import Start
from attribeam.transforms.passes.layer_path import FinishSlope, LayerPath
from attribeam.transforms.recovery import is_out_of_memory
from tests.conftest import LoadTiny
from tests.support.authors import DTYPES, IN_FLOAT32, TOGETHER, golden_numbers, golden_rows
from tests.support.conditioning import tolerances
from tests.support.models import (
    FAMILIES,
    PRE_LN,
    TASKS,
    plain,
    random_instances,
    relative_error,
    tasks_of,
)

pytestmark = pytest.mark.usefixtures("padding_at_will")

AT_ONCE = 1_000_000
# One family of those that are alike.
UNLIKE = ("bert", "roberta", "electra", "distilbert", "albert", "roberta-prelayernorm", "gpt2")
# With each of its tasks, and all that influence is defined for.
UNLIKE_TASKS = [(family, task) for family in UNLIKE for task in tasks_of(family)]
EVERY = [
    (family, task) for family in (*FAMILIES, "albert", *PRE_LN, "gpt2") for task in tasks_of(family)
]
# Instances whose numbers there are, by task.
WITH_NUMBERS = {"mlm": (0, 1, 2, 3), "cls": (0, 2, 3)}
SETTINGS = [("mlm", "r49", 50), ("mlm", "r9", 10), ("cls", "r49", 50)]


def states_of(
    model: Model,
    instances: Sequence[Instance],
    weights: torch.Tensor | None = None,
    *,
    start: Start = "mask",
    rule: Rule = "trapezoid",
    points: int = 5,
    budget: float = AT_ONCE,
) -> list[InfluenceStates]:
    """What instances hold along their paths; by default of the margin of the first output."""
    batch = collate(model, instances)
    if weights is None:
        weights = margin_weights(model.run(batch.rows)[0], torch.zeros_like(batch.rows.readout))
    places, shares = quadrature(rule, points)
    found = influence_states(
        model,
        batch.rows,
        weights,
        inputs_of(model).space(model, batch, "words", start),
        points=places,
        shares=shares,
        budget=budget,
    )
    return list(found)


# The authors' numbers -------------------------------------------------------------------------


def golden_part(key: str) -> NDArray[Any]:
    return golden_numbers("influence_patterns")[key]


def golden_instances(model: Model) -> list[Instance]:
    """The texts of the goldens, by their numbers; the masked LM has texts of its own."""
    if model.task == "classification":
        return encode(model, golden_rows())
    rows = []
    for number in WITH_NUMBERS["mlm"]:
        ids = golden_part(f"mlm/input_ids/{number}").tolist()
        good, bad = golden_part(f"mlm/pair/{number}").tolist()
        rows.append(Row(f"mlm-{number}", input_ids=ids, good=good, bad=bad))
    return encode(model, rows)


@cache
def golden_model(golden: LoadTiny, task: str, dtype: str) -> Model:
    """The model of the goldens of a task."""
    return replace(golden("bert-golden-mlm" if task == "mlm" else "bert-golden", dtype), mask_id=4)


def golden_states(
    golden: LoadTiny, task: str, points: int, dtype: str, together: bool
) -> Iterator[tuple[int, InfluenceStates]]:
    """Numbers of the instances and what they hold, alone or in one padded batch."""
    model = golden_model(golden, task, dtype)
    instances = golden_instances(model)
    numbers = WITH_NUMBERS[task]
    for batch in [numbers] if together else [(number,) for number in numbers]:
        chosen = [instances[number] for number in batch]
        logits = model.run(collate(model, chosen).rows)[0]
        # A masked LM's two words are told apart whichever it prefers.
        targets = torch.zeros(len(batch)).long() if task == "mlm" else logits.argmax(-1)
        weights = margin_weights(logits, targets)
        if task == "cls":
            pairs = np.stack([golden_part(f"cls/pair/{number}") for number in batch])
            assert (weights.argmax(-1).numpy() == pairs[:, 0]).all()
            assert (weights.argmin(-1).numpy() == pairs[:, 1]).all()
        yield from zip(
            batch,
            states_of(model, chosen, weights, rule="endpoints", points=points),
            strict=True,
        )


Numbers = Callable[[InfluenceStates], list[torch.Tensor]]


@cache
def allowed(golden: LoadTiny, task: str, dtype: str, numbers_of: Numbers) -> list[list[float]]:
    """What rounding may come to in numbers of each of the texts, along a path of few points."""

    def compute() -> list[torch.Tensor]:
        found = golden_states(golden, task, 10, dtype, True)
        return [number for _, states in found for number in numbers_of(states)]

    limits = tolerances(golden_model(golden, task, dtype), compute)
    each = len(limits) // len(WITH_NUMBERS[task])
    return [limits[start : start + each] for start in range(0, len(limits), each)]


def input_numbers(states: InfluenceStates) -> list[torch.Tensor]:
    return [states.influence, states.outputs]


@TOGETHER
@pytest.mark.parametrize(("task", "setting", "points"), SETTINGS)
def test_input_influence(
    golden: LoadTiny, task: str, setting: str, points: int, dtype: str, together: bool
) -> None:
    found = golden_states(golden, task, points, dtype, together)
    limits = allowed(golden, task, dtype, input_numbers)
    for (number, states), own in zip(found, limits, strict=True):
        names = ("input_influence", "qoi_path")
        for name, numbers, limit in zip(names, input_numbers(states), own, strict=True):
            expected = golden_part(f"{task}/{setting}/{name}/{number}")
            assert relative_error(numbers, expected) < limit + IN_FLOAT32
        words = golden_part(f"{task}/{setting}/words/{number}")
        assert (states.sources.numpy() == words).all()


# By definition --------------------------------------------------------------------------------


class PlainPath:
    """One instance in a plain model, run from its word embeddings."""

    def __init__(self, model: Model, instance: Instance, start: Start = "mask") -> None:
        self.model, self.instance = model, instance
        self.network = plain(model)
        self.layers = model.anatomy.layers_of(self.network, model.num_heads)
        with torch.no_grad():
            batch = collate(model, [instance])
            self.words = self.network.get_input_embeddings()(batch.rows.inputs["input_ids"])
            self.start = inputs_of(model).space(model, batch, "words", start).start
        self.difference = self.words - self.start

    def run(self, point: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Margin of the first output, for word embeddings [1, T, E], and what passed from layer to
        layer: what entered each, and what came out of the last."""
        more = {}
        if self.model.token_types > 1:
            more["token_type_ids"] = torch.tensor(self.instance.segment[None], dtype=torch.long)
        hidden: list[torch.Tensor] = []
        left: list[torch.Tensor] = []

        def enters(_: Any, args: tuple[Any, ...]) -> None:
            hidden.append(args[0])

        def leaves(_: Any, __: Any, output: Any) -> None:
            left[:] = [output if isinstance(output, torch.Tensor) else output[0]]

        with ExitStack() as hooks:
            for module in {layer.module for layer in self.layers}:  # ALBERT's are one.
                hooks.callback(module.register_forward_pre_hook(enters).remove)
                hooks.callback(module.register_forward_hook(leaves).remove)
            logits = self.network(inputs_embeds=point, **more).logits[0]
        if self.instance.contrast is not None:
            logits = logits[self.instance.readout, self.instance.contrast]
        return logits[0] - logits[self.runner_up], (*hidden, *left)

    @property
    def runner_up(self) -> int:
        rows = collate(self.model, [self.instance]).rows
        return 1 + int(self.model.run(rows)[0][0, 1:].argmax())

    def at(self, share: float) -> torch.Tensor:
        return self.start + share * self.difference

    def influence(self, rule: Rule, points: int) -> torch.Tensor:
        """Input influence of each token, [T], point by point."""
        total = torch.zeros(len(self.instance), dtype=self.model.dtype)
        for share, weight in zip(*quadrature(rule, points), strict=True):
            point = self.at(share).requires_grad_()
            (gradient,) = torch.autograd.grad(self.run(point)[0], point)
            total += weight * (gradient * self.difference).sum(-1)[0]
        return total


@pytest.mark.parametrize(("family", "task"), EVERY)
def test_integrated_gradients_of_word_embeddings(tiny: LoadTiny, family: str, task: str) -> None:
    model = tiny(family, task, "float64")
    instances = random_instances(model, [8, 5])
    starts: tuple[Start, ...] = ("mask", "mask_words", "pad", "zero")
    rules: tuple[Rule, ...] = ("trapezoid", "endpoints", "midpoint", "gauss_legendre")
    for start, rule in zip(starts, rules, strict=True):
        found = states_of(model, instances, start=start, rule=rule, points=3)
        for states, instance in zip(found, instances, strict=True):
            one = PlainPath(model, instance, start)
            assert relative_error(states.influence, one.influence(rule, 3)) < 1e-10
            for output, share in zip(states.outputs, quadrature(rule, 3)[0], strict=True):
                with torch.no_grad():
                    assert float(output) == pytest.approx(float(one.run(one.at(share))[0]))


def test_completeness(tiny: LoadTiny) -> None:
    for task in TASKS:
        model = tiny("bert", task, "float64")
        instances = random_instances(model, [8, 5])
        exact = states_of(model, instances, rule="gauss_legendre", points=64)
        ends = states_of(model, instances, points=2)
        for states, end in zip(exact, ends, strict=True):
            assert float(states.influence.sum()) == pytest.approx(float(end.outputs.diff()))


def test_tokens_that_the_baseline_has_in_another_form(tiny: LoadTiny) -> None:
    model = tiny("bert", "masked_lm")
    (instance,) = random_instances(model, [8])
    others = [at for at in range(8) if at != instance.readout]
    for start, expected in (
        ("mask", others),
        ("mask_words", [at for at in others if at not in (0, 7)]),
        ("pad", list(range(8))),
        ("zero", list(range(8))),
    ):
        (states,) = states_of(model, [instance], start=start)
        assert states.sources.tolist() == expected
        assert (states.influence[[at for at in range(8) if at not in expected]] == 0).all()


def test_a_mask_baseline_needs_the_mask_token(tiny: LoadTiny) -> None:
    model = replace(tiny("bert"), mask_id=None)
    batch = collate(model, random_instances(tiny("bert"), [5]))
    with pytest.raises(ValueError, match="mask token is unknown"):
        inputs_of(model).space(model, batch, "words", "mask_words")
    assert inputs_of(model).space(model, batch, "words", "pad").start.shape == (1, 5, 32)


def test_weights_of_a_margin() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 4.0], [1.0, 2.0, 2.0]])
    expected = [[1, 0, -1], [1, -1, 0], [0, 1, -1]]
    assert margin_weights(logits, torch.tensor([0, 0, 1])).tolist() == expected
    probabilities = logits.log_softmax(-1)
    weights = margin_weights(logits, torch.tensor([0, 0, 1]))
    torch.testing.assert_close((weights * logits).sum(-1), (weights * probabilities).sum(-1))


# Derivatives ----------------------------------------------------------------------------------


def first_layer(model: Model, instance: Instance) -> tuple[LayerPath, torch.Tensor]:
    """Its first layer along the path, and random vectors [K, T, d]."""
    (states,) = states_of(model, [instance], points=2)
    generator = torch.Generator().manual_seed(0)
    shape = states.tangents.shape
    return states.layers[0], torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("family", UNLIKE)
def test_derivatives_of_single_tokens(tiny: LoadTiny, family: str) -> None:
    model = tiny(family, "classification", "float64")
    layer, change = first_layer(model, random_instances(model, [6])[0])
    gradient = change.flip(1)
    slope = layer.finish(torch.arange(6))
    _, expected = jvp(layer.parts.conclude, layer.attended, change)
    pushed = slope.push(change)
    assert relative_error(pushed, expected) < 1e-10
    # The transpose: <g, J t> = <J^T g, t>.
    pulled = slope.pull(gradient)
    torch.testing.assert_close((pushed * gradient).sum(), (pulled * change).sum())


def test_derivatives_at_repeated_tokens(tiny: LoadTiny) -> None:
    model = tiny("bert", "classification", "float64")
    layer, change = first_layer(model, random_instances(model, [6])[0])
    every: FinishSlope = layer.finish(torch.arange(6))
    for tokens in ([3, 1, 3, 3, 0, 1], [2] * 6):
        found = layer.finish(torch.tensor(tokens)).push(change)
        torch.testing.assert_close(found, every.of(torch.tensor(tokens)).push(change))


@pytest.mark.parametrize("family", UNLIKE)
def test_pulling_is_the_transpose_of_moving(tiny: LoadTiny, family: str) -> None:
    model = tiny(family, "classification", "float64")
    instance = random_instances(model, [6])[0]
    for number in (0, 2):
        (states,) = states_of(model, [instance], points=2)
        layer = states.layers[number]
        _, change = first_layer(model, instance)
        gradient = change.flip(1)
        at = torch.tensor([0, 1, 2, 3, 4, 0])
        to = torch.tensor([0, 1, 5, 2, 0, 3]) if number == 0 else torch.zeros(6).long()
        moved = layer.move(layer.project(change, at), at, to)
        pushed = layer.attend(moved, at == to, change)
        context, pulled = layer.pull(gradient, at, to)
        torch.testing.assert_close((pushed * gradient).sum(), (pulled * change).sum())
        mixed = moved.transpose(1, 2).flatten(2) @ layer.parts.attention.output.weight.T
        torch.testing.assert_close((context * moved).sum(), (gradient * mixed).sum())


# What must make no difference -----------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("task", TASKS)
def test_padding_is_of_no_consequence(tiny: LoadTiny, task: str, dtype: str) -> None:
    model = tiny("roberta", task, dtype)
    instances = random_instances(model, [5, 23, 11])

    def numbers(states: InfluenceStates) -> list[torch.Tensor]:
        own = [getattr(states, n) for n in ("tangents", "read_gradient", "influence", "outputs")]
        held = [value for layer in states.layers for value in vars(layer).values()]
        return own + [value for value in held if isinstance(value, torch.Tensor)]

    for states, instance in zip(states_of(model, instances), instances, strict=True):
        (alone,) = states_of(model, [instance])
        assert states.readout == alone.readout == instance.readout
        limits = tolerances(
            model,
            lambda one=instance: numbers(states_of(model, [one])[0]),  # type: ignore[misc]
            base=numbers(alone),
        )
        for ours, theirs, limit in zip(numbers(states), numbers(alone), limits, strict=True):
            assert relative_error(ours, theirs) < limit


def test_instances_and_points_within_a_budget(tiny: LoadTiny, most_rows: list[int]) -> None:
    model = tiny("bert", "classification", "float64")
    instances = random_instances(model, [6, 9, 4])
    weights = torch.tensor([[1.0, -1, 0], [0, 1, -1], [1, 0, -1]], dtype=torch.float64)
    expected = states_of(model, instances, weights)

    def runs(budget: float = AT_ONCE, most: int = AT_ONCE) -> list[int]:
        most_rows[:] = [most]
        found = states_of(model, instances, weights, budget=budget)
        for ours, theirs in zip(found, expected, strict=True):
            assert relative_error(ours.influence, theirs.influence) < 1e-10
            assert relative_error(ours.outputs, theirs.outputs) < 1e-10
            for layer, own in zip(ours.layers, theirs.layers, strict=True):
                torch.testing.assert_close(layer.attention, own.attention)
                torch.testing.assert_close(layer.context_gradient, own.context_gradient)
        return most_rows[1:]

    # A row of nine tokens costs somewhat more than nine.
    assert runs() == [15]
    assert runs(budget=120) == [10, 5]
    assert runs(budget=60) == [5] * 3
    assert runs(budget=30) == [2, 2, 1] * 3
    assert runs(budget=1) == [1] * 15
    # Without the memory for so many rows, from there on half as many.
    assert runs(most=14) == [15, 5, 5, 5]
    assert runs(most=4) == [15, 5, *[3, 2] * 3]
    with pytest.raises(torch.OutOfMemoryError):
        runs(most=0)


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_whole_again(
    tiny: LoadTiny, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    model = tiny("distilbert", "classification", "float64")
    instances = random_instances(model, [7, 4])
    rows = collate(model, instances).rows
    before = model.run(rows)[0]
    weights = torch.ones(2, 3, dtype=torch.float64)
    with monkeypatch.context() as patch, pytest.raises(RuntimeError) if fails else nullcontext():
        if fails:
            patch.setattr(torch.autograd, "grad", _raises)
        states_of(model, instances, weights)
    for module in model.network.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
    torch.testing.assert_close(model.run(rows)[0], before, rtol=0, atol=0)


def _raises(*_: Any, **__: Any) -> None:
    error = RuntimeError("on purpose")
    assert not is_out_of_memory(error)
    raise error


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_half_precision_is_left_for_the_algebra(tiny: LoadTiny, family: str) -> None:
    half, single = (tiny(family, "classification", dtype) for dtype in ("bfloat16", "float32"))
    instances, weights = random_instances(half, [6, 9]), torch.tensor([[1.0, -1, 0]] * 2)
    pairs = zip(*(states_of(model, instances, weights) for model in (half, single)), strict=True)
    for ours, expected in pairs:
        assert ours.layers[0].context_gradient.dtype == ours.tangents.dtype == torch.float32
        assert relative_error(ours.influence, expected.influence) < 0.2
