"""Beyond Intuition and what it is compared with: authors' numbers, definitions, what is shared."""

from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from attribeam.transforms import Attribution, Instance, Model, attribute, choose, encode
from attribeam.transforms.inputs.kinds import collate
from attribeam.transforms.passes.captured import Captured
from attribeam.transforms.passes.path import Path
from tests.conftest import LoadTiny
from tests.support.authors import (
    ALL_AT_ONCE,
    VARIANTS,
    WITH_GOLDENS,
    golden_numbers,
    golden_rows,
)
from tests.support.conditioning import tolerances
from tests.support.models import FAMILIES, TASKS, plain, random_instances, relative_error
from tests.transforms.passes.test_norms import shortened

pytestmark = pytest.mark.usefixtures("padding_at_will")

FILE = "beyond_intuition"
METHODS = ("bt_token", "bt_head", "generic_attribution", "attention_gradcam")

# What the authors' code was run with, by our name: parameters, and the name in the goldens. Methods
# that are computed together share what they can, as in a run.
Settings = dict[str, tuple[dict[str, Any], str]]
SETTINGS: dict[str, Settings] = {
    "own": {
        "bt_head": ({}, "bt_head"),
        "bt_token": ({"start_layer": 0}, "bt_token"),
        "attention_gradcam": ({}, "attn_gradcam"),
        "generic_attribution": ({"start_layer": 3}, "generic_attribution_last"),
    },
    "default": {"generic_attribution": ({}, "generic_attribution_sl0")},
    **{
        f"from layer {start}": {
            name: ({"start_layer": start}, f"{name}_sl{start}")
            for name in ("bt_head", "bt_token", "generic_attribution")
        }
        for start in range(4)
    },
    "5 steps": {"bt_head": ({"steps": 5}, "bt_head_steps5")},
    "50 steps": {"bt_head": ({"steps": 50}, "bt_head_steps50")},
}


def results(
    model: Model, instances: list[Instance], method: str, params: dict[str, Any], **more: Any
) -> list[Attribution]:
    found = attribute(model, instances, choose(method, {method: params}), **more)
    assert found.failures == []
    return [row for row in found.rows[method] if row is not None]


# The authors' code was run for every class in its own settings alone.
WITH_CLASSES = [
    (name, target)
    for name, settings in SETTINGS.items()
    for target in ("predicted", 0, 1, 2)
    if target == "predicted"
    or all(f"bert-golden/{key}/0/class0" in golden_numbers(FILE) for _, key in settings.values())
]


def golden_scores(
    model: Model, name: str, target: str | int, budget: int = ALL_AT_ONCE
) -> list[NDArray[np.floating]]:
    """Scores of the texts with goldens but that of [CLS], which the authors set to zero.

    Those of the first method come first.
    """
    params = {method: given for method, (given, _) in SETTINGS[name].items()}
    chosen = choose(list(params), params)
    found = attribute(
        model, encode(model, golden_rows()), chosen, target=target, token_budget=budget
    )
    assert found.failures == []
    rows = [found.rows[method][number] for method in params for number in WITH_GOLDENS]
    return [row.scores[1:] for row in rows if row is not None]


all_at_once = cache(golden_scores)


@cache
def allowed(model: Model, name: str, target: str | int) -> list[float]:
    """What rounding may come to for each of them.

    Grad-CAM's weights are sums of gradients that cancel, and min-max divides by what is left.
    """
    compute = partial(golden_scores, model, name, target)
    return tolerances(model, compute, base=all_at_once(model, name, target))


@VARIANTS
@pytest.mark.parametrize(
    ("name", "target"), WITH_CLASSES, ids=[f"{name}-{target}" for name, target in WITH_CLASSES]
)
def test_goldens(golden: LoadTiny, name: str, target: str | int, dtype: str, budget: int) -> None:
    suffix = "" if target == "predicted" else f"/class{target}"
    model = golden("bert-golden", dtype)
    if budget == ALL_AT_ONCE:
        found = all_at_once(model, name, target)
    else:
        found = golden_scores(model, name, target, budget)
    keys = [(key, number) for _, key in SETTINGS[name].values() for number in WITH_GOLDENS]
    limits = allowed(model, name, target)
    for (key, number), ours, limit in zip(keys, found, limits, strict=True):
        expected = golden_numbers(FILE)[f"bert-golden/{key}/{number}{suffix}"]
        assert expected[0] == 0
        assert relative_error(ours, expected[1:]) < limit, key


# By definition --------------------------------------------------------------------------------


class Defined:
    """The methods as they are defined, with full matrices, for one instance of a plain model."""

    def __init__(self, model: Model, instance: Instance, target: int) -> None:
        self.model, self.instance, self.target = model, instance, target
        rows = collate(model, [instance]).rows
        self.entered = model.embed(rows)
        self.attention, self.gradients, self.hidden = self._gradients(self.entered)

    def _gradients(self, entered: torch.Tensor) -> tuple[list[torch.Tensor], ...]:
        """Attention [H, T, T], its gradients, and what enters each layer [T, d]."""
        network = plain(self.model)
        kept: list[torch.Tensor] = []

        def replaced(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            new = entered.detach().requires_grad_()
            return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

        first = self.model.anatomy.layers_of(network, self.model.num_heads)[0].module
        hooks = [first.register_forward_pre_hook(replaced, with_kwargs=True)]
        for layer in self.model.anatomy.layers_of(network, self.model.num_heads):
            value = layer.attention.value.module
            hooks.append(
                value.register_forward_pre_hook(lambda _, args: kept.append(args[0][0].detach()))
            )
        ids = torch.tensor(self.instance.input_ids[None], dtype=torch.long)
        extra = {}
        if self.model.token_types > 1:
            extra["token_type_ids"] = torch.tensor(self.instance.segment[None], dtype=torch.long)
        with torch.enable_grad():
            out = network(ids, output_attentions=True, **extra)
            gradients = torch.autograd.grad(self._scalar(out.logits), out.attentions)
        for hook in hooks:
            hook.remove()
        return [a[0].detach() for a in out.attentions], [g[0] for g in gradients], kept

    def _scalar(self, logits: torch.Tensor) -> torch.Tensor:
        if self.instance.contrast is None:
            return logits[0, self.target]
        good, bad = self.instance.contrast
        row = logits[0, self.instance.readout]
        return row[good] - row[bad] if self.target == 0 else row[bad] - row[good]

    def product(self, layers: list[torch.Tensor]) -> torch.Tensor:
        """prod_l (I + M_l), the last layer leftmost, [T, T]."""
        product = torch.eye(len(self.instance), dtype=torch.float64)
        for layer in layers:
            product = product + layer @ product
        return product

    def feedback(self, steps: int) -> torch.Tensor:
        alphas = np.linspace(0, 1, steps)
        path = [self._gradients(alpha * self.entered)[1][-1] for alpha in alphas]
        return torch.stack(path).mean(0).clamp(min=0).mean(0)

    def bt_token(self, start: int, steps: int) -> torch.Tensor:
        layers = []
        for number in range(start, self.model.num_layers):
            part, hidden = self.model.layers[number], self.hidden[number]
            sent = part.attention.value(hidden) @ part.attention.output.weight.T
            ratio = sent.norm(dim=-1) / hidden.norm(dim=-1)
            layers.append(self.attention[number].mean(0) * ratio[None])
        return (self.product(layers) * self.feedback(steps))[self.instance.readout]

    def bt_head(self, start: int, steps: int) -> torch.Tensor:
        layers = []
        for attention, gradient in zip(self.attention[start:], self.gradients[start:], strict=True):
            importance = (attention.transpose(1, 2) @ gradient).abs().mean((1, 2))
            theta = importance / importance.sum()
            layers.append((theta[:, None, None] * attention).sum(0))
        return (self.product(layers) * self.feedback(steps))[self.instance.readout]

    def generic_attribution(self, start: int) -> torch.Tensor:
        layers = [
            (attention * gradient).clamp(min=0).mean(0)
            for attention, gradient in zip(
                self.attention[start:], self.gradients[start:], strict=True
            )
        ]
        return self.product(layers)[self.instance.readout]

    def attention_gradcam(self) -> torch.Tensor:
        weights = self.gradients[-1].mean((1, 2))
        cam = (weights[:, None, None] * self.attention[-1]).mean(0).clamp(min=0)
        if cam.max() > cam.min():
            cam = (cam - cam.min()) / (cam.max() - cam.min())
        else:
            cam = torch.zeros_like(cam)
        return cam[self.instance.readout]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("task", TASKS)
def test_definitions(tiny: LoadTiny, family: str, task: str) -> None:
    model = tiny(family, task, "float64")
    instances = random_instances(model, [6, 13, 9])
    params: dict[str, dict[str, Any]] = {
        "bt_token": {"start_layer": 1, "steps": 4, "rule": "endpoints"},
        "bt_head": {"start_layer": 1, "steps": 4, "rule": "endpoints"},
        "generic_attribution": {"start_layer": 1},
        "attention_gradcam": {},
    }
    for target in (0, 1):
        found = attribute(model, instances, choose(METHODS, params), target=target)
        assert found.failures == []
        for number, instance in enumerate(instances):
            defined = Defined(model, instance, target)
            expected = {
                "bt_token": defined.bt_token(1, 4),
                "bt_head": defined.bt_head(1, 4),
                "generic_attribution": defined.generic_attribution(1),
                "attention_gradcam": defined.attention_gradcam(),
            }
            for method, scores in expected.items():
                row = found.rows[method][number]
                assert row is not None
                largest = max(float(scores.abs().max()), 1e-12)
                assert np.abs(row.scores - scores.numpy()).max() < 1e-10 * largest, method


# What is shared -------------------------------------------------------------------------------


def capture(model: Model, instances: list[Instance], *needs: Path) -> Captured:
    batch = collate(model, instances)
    return Captured(model, batch, 0, 10_000, 0, frozenset(needs))


def test_one_path_serves_both_kinds_of_gradient(
    tiny: LoadTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("bert", "classification", "float64")
    instances = random_instances(model, [6, 11])
    inputs = Path("zero", 5, "endpoints")
    attention = Path("zero", 5, "endpoints", of="attention")
    apart: list[NDArray[np.floating]] = []
    for wanted in (inputs, attention):
        found = capture(model, instances, wanted)(wanted)
        assert (found.gradient is None) == (wanted is attention)
        assert (found.attention is None) == (wanted is inputs)
        kept = found.gradient if found.attention is None else found.attention
        assert kept is not None
        apart.append(kept.numpy())
    runs = []
    run = type(model).run
    monkeypatch.setattr(
        type(model), "run", lambda *args, **more: runs.append(args[1]) or run(*args, **more)
    )
    both = capture(model, instances, inputs, attention)
    found = both(attention)
    assert both(inputs) is found
    # The real input, the baseline, and all steps at once.
    assert [len(rows) for rows in runs] == [2, 2, 10]
    assert found.gradient is not None and found.attention is not None
    assert relative_error(found.gradient, apart[0]) < 1e-12
    assert relative_error(found.attention, apart[1]) < 1e-12
    assert both.cost([inputs]) == both.cost([attention]) > 0


def test_shared_with_integrated_gradients(tiny: LoadTiny) -> None:
    model = tiny("roberta", "classification", "float64")
    instances = random_instances(model, [6, 11])
    path = {"baseline": "zero", "steps": 7, "rule": "endpoints"}
    params = dict.fromkeys(("bt_token", "bt_head", "integrated_gradients"), path)
    together = attribute(model, instances, choose(list(params), params))
    for name in params:
        for row, alone in zip(
            together.rows[name], results(model, instances, name, path), strict=True
        ):
            assert row is not None
            assert relative_error(row.scores, alone.scores) < 1e-12


# Edges ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_shortest_sequences(tiny: LoadTiny, family: str, length: int) -> None:
    model = tiny(family)
    instance = shortened(random_instances(model, [5])[0], length)
    for method in METHODS:
        (row,) = results(model, [instance], method, {})
        assert row.finite


def test_a_model_that_does_not_look_gives_zeros(tiny: LoadTiny) -> None:
    """Where no gradient arrives, 0 / 0 of the originals is 0."""
    model = tiny("bert", "classification", "float64")
    classifier = model.network.get_submodule("classifier")
    weight = classifier.weight.data
    classifier.weight.data = torch.zeros_like(weight)
    try:
        instances = random_instances(model, [6, 11])
        for method in ("bt_token", "bt_head", "attention_gradcam"):
            for row in results(model, instances, method, {}):
                assert (row.scores == 0).all()
        for row in results(model, instances, "generic_attribution", {}):
            assert row.scores.tolist() == [1] + [0] * (len(row.scores) - 1)
    finally:
        classifier.weight.data = weight
