"""DecompX against its authors' numbers, and against a frozen network that is written out here."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from attribeam.transforms import Attribution, Instance, Model, attribute, choose, encode, load_model
from attribeam.transforms.inputs.kinds import collate
from attribeam.transforms.network.parts import Affine, Norm
from tests.conftest import LoadTiny
from tests.support.authors import (
    ALL_AT_ONCE,
    DTYPES,
    IN_FLOAT32,
    VARIANTS,
    golden_numbers,
    golden_rows,
)
from tests.support.conditioning import tolerances
from tests.support.models import (
    FAMILIES,
    TASKS,
    random_instance,
    random_instances,
    relative_error,
    tiny_network,
    tokenizer_for,
)

pytestmark = pytest.mark.usefixtures("padding_at_will")

MODES = ("token", "absdot")


def decompx(
    model: Model, instances: list[Instance], mode: str, budget: int = ALL_AT_ONCE, **more: Any
) -> list[Attribution]:
    chosen = choose("decompx", {"decompx": {"bias": mode}})
    found = attribute(model, instances, chosen, token_budget=budget, **more)
    assert found.failures == []
    return cast(list[Attribution], found.rows["decompx"])


def allowed(
    model: Model, instances: list[Instance], mode: str, base: list[Attribution], **more: Any
) -> list[float]:
    """What rounding may come to in the scores of each instance, and the bias's."""

    def numbers(rows: list[Attribution]) -> list[NDArray[np.floating]]:
        return [np.append(row.scores, row.bias or 0) for row in rows]

    return tolerances(
        model, lambda: numbers(decompx(model, instances, mode, **more)), base=numbers(base)
    )


def assert_complete(row: Attribution, tolerance: float) -> None:
    """The scores and the biases' share make up the explained scalar."""
    assert row.delta is not None
    assert abs(row.delta) < tolerance * np.abs(row.scores).sum()


# Goldens --------------------------------------------------------------------------------------


def authors(quantity: str, instance: int, target: int) -> NDArray[np.floating]:
    shares = golden_numbers("decompx")[f"bert-golden/{quantity}/classifier/{instance}"]
    return shares[:, target]


@cache
def golden_limits(model: Model, mode: str, target: int) -> list[float]:
    """What rounding may come to in each of the golden texts."""
    instances = encode(model, golden_rows())
    base = decompx(model, instances, mode, target=target)
    return allowed(model, instances, mode, base, target=target)


@VARIANTS
@pytest.mark.parametrize("target", range(3))
def test_the_authors_numbers(golden: LoadTiny, dtype: str, budget: int, target: int) -> None:
    model = golden("bert-golden", dtype)
    instances = encode(model, golden_rows())
    apart = decompx(model, instances, "token", budget, target=target)
    spread = decompx(model, instances, "absdot", budget, target=target)
    limits = {mode: golden_limits(model, mode, target) for mode in MODES}
    for instance in range(5):
        row, bias = apart[instance], apart[instance].bias
        assert bias is not None
        with_bias = np.append(row.scores, bias)
        limit = limits["token"][instance] + IN_FLOAT32
        assert relative_error(with_bias, authors("biastoken", instance, target)) < limit
        assert relative_error(row.scores, authors("nobias", instance, target)) < limit
        limit = limits["absdot"][instance] + IN_FLOAT32
        assert relative_error(spread[instance].scores, authors("default", instance, target)) < limit
        assert spread[instance].bias is None
    for mode, found in (("token", apart), ("absdot", spread)):
        for row, limit in zip(found, limits[mode], strict=True):
            assert_complete(row, limit)


# A frozen network -----------------------------------------------------------------------------

AddBias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Frozen:
    """The network of one instance with every coefficient but the parts' own held fixed.

    A hidden state [T, d] is given as K parts [K, T, d]; what a bias adds to them is up to ``add``.
    """

    def __init__(self, model: Model, instance: Instance, add: AddBias) -> None:
        self.model, self.instance, self.add = model, instance, add
        self.entered = model.embed(collate(model, [instance]).rows)[0]

    def linear(self, module: Affine, parts: torch.Tensor) -> torch.Tensor:
        return self.add(parts @ module.weight.T, module.bias)

    def norm(self, module: Norm, parts: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        deviation = (real.var(-1, unbiased=False, keepdim=True) + module.eps).sqrt()
        centred = parts - parts.mean(-1, keepdim=True)
        return self.add(centred / deviation * module.weight, module.bias)

    def logits(self, parts: torch.Tensor, value_bias: torch.Tensor) -> torch.Tensor:
        """Parts of the logits, [K, C], from those of the input and the first value bias."""
        real, heads = self.entered, self.model.network.config.num_attention_heads
        for number, layer in enumerate(self.model.layers):
            mixing, inside = layer.attention, layer.feed_forward
            first, second = (step.join for step in layer.steps)
            assert first is not None and second is not None
            query, key, value = (
                module(real).unflatten(-1, (heads, -1)).transpose(0, 1)
                for module in (mixing.query, mixing.key, mixing.value)
            )
            attention = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)
            values = parts @ mixing.value.weight.T + (0 if number else value_bias)
            mixed = attention @ values.unflatten(-1, (heads, -1)).transpose(1, 2)
            mixed = mixed.transpose(1, 2).flatten(2) @ mixing.output.weight.T
            bias = mixing.output.bias
            if number:
                bias = bias + mixing.output.weight @ mixing.value.bias
            attended = mixing.output((attention @ value).transpose(0, 1).flatten(1)) + real
            parts = self.norm(first, self.add(mixed + parts, bias), attended)
            real = first(attended)
            wide = inside.expand(real)
            inner = self.linear(inside.expand, parts) * (inside.activation(wide) / wide)
            widened = inside.contract(inside.activation(wide)) + real
            parts = self.linear(inside.contract, inner) + parts
            parts = self.norm(second, parts, widened)
            real = second(widened)
        return self.head(parts[:, self.instance.readout], real[self.instance.readout])

    def head(self, parts: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        for step in self.model.head[:-1]:
            if isinstance(step, Affine):
                parts = self.linear(step, parts)
            elif isinstance(step, Norm):
                parts = self.norm(step, parts, real)
            else:
                parts = parts * (step(real) / real)
            real = step(real)
        last = cast(Affine, self.model.head[-1])
        outputs = list(self.instance.contrast or range(len(last.weight)))
        return self.add(parts @ last.weight[outputs].T, last.bias[outputs])

    def scalar(self, logits: torch.Tensor, target: int) -> torch.Tensor:
        """The class's column, or for a masked LM its word minus the other."""
        chosen = logits[:, target]
        return chosen if self.instance.contrast is None else chosen - logits[:, 1 - target]


def by_autograd(model: Model, instance: Instance, target: int) -> tuple[torch.Tensor, float]:
    """Gradients of the frozen network times input, and times every bias that was added."""
    biases: list[torch.Tensor] = []

    def add(parts: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        biases.append(bias.clone().requires_grad_())
        return parts + biases[-1]

    frozen = Frozen(model, instance, add)
    entered = frozen.entered[None].clone().requires_grad_()
    first = model.layers[0].attention.value.bias.expand_as(entered).clone().requires_grad_()
    scalar = frozen.scalar(frozen.logits(entered, first), target).sum()
    of_entered, of_first, *of_biases = torch.autograd.grad(scalar, [entered, first, *biases])
    scores = (of_entered * entered + of_first * first).sum(-1)[0].detach()
    given = [(g @ b).item() for g, b in zip(of_biases, biases, strict=True)]
    return scores, sum(given)


def by_parts(model: Model, instance: Instance, target: int) -> torch.Tensor:
    """One part per token all the way, biases spread by the size of their product with it."""

    def add(parts: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        products = (parts * bias).sum(-1, keepdim=True).abs()
        return parts + products / products.sum(0) * bias

    frozen = Frozen(model, instance, add)
    own = torch.eye(len(instance), dtype=model.dtype)[..., None]
    logits = frozen.logits(own * frozen.entered, own * model.layers[0].attention.value.bias)
    return frozen.scalar(logits, target)


@pytest.mark.parametrize("target", [0, 1])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_frozen_network_gives_the_same(
    tiny: LoadTiny, family: str, task: str, target: int
) -> None:
    model = tiny(family, task, "float64")
    instances = random_instances(model, [6, 17, 9])
    apart = decompx(model, instances, "token", target=target)
    spread = decompx(model, instances, "absdot", target=target)
    for number, instance in enumerate(instances):
        scores, bias = by_autograd(model, instance, target)
        assert relative_error(apart[number].scores, scores) < 1e-10
        assert apart[number].bias == pytest.approx(bias, rel=1e-10)
        parts = by_parts(model, instance, target)
        assert relative_error(spread[number].scores, parts) < 1e-10
        assert relative_error(spread[number].scores, scores) > 1e-3


# Completeness ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_shares_make_up_the_scalar_whatever_the_batch(
    tiny: LoadTiny, family: str, task: str, mode: str, dtype: str
) -> None:
    model = tiny(family, task, dtype)
    instances = random_instances(model, [5, 11, 4, 23])
    alone = [decompx(model, [instance], mode)[0] for instance in instances]
    found = attribute(model, instances, [], target="auto")
    limits = allowed(model, instances, mode, alone)
    for budget in (1, 40, ALL_AT_ONCE):
        together = decompx(model, instances, mode, budget)
        for row, other, prediction, limit in zip(
            together, alone, found.predictions, limits, strict=True
        ):
            assert prediction is not None and row.delta is not None
            assert relative_error(row.scores, other.scores) < limit
            assert_complete(row, limit)
            scalar = prediction.logits[prediction.target]
            if task == "masked_lm":
                scalar = scalar - prediction.logits[1 - prediction.target]
            total = row.scores.sum() + (row.bias or 0) - row.delta
            assert abs(total - scalar) < limit * np.abs(row.scores).sum()


# Edges ----------------------------------------------------------------------------------------


def changed(
    folder: Path, change: Callable[[nn.Module], None], task: str = "classification", **config: Any
) -> Model:
    """A tiny BERT in float64, with some of its weights changed."""
    network = tiny_network("bert", task, **config)
    with torch.no_grad():
        change(network)
    network.save_pretrained(folder)
    tokenizer_for("bert").save_pretrained(folder)
    return load_model(folder, dtype="float64")


@pytest.mark.parametrize("task", TASKS)
def test_without_biases_nothing_is_left_to_them(tmp_path: Path, task: str) -> None:
    def change(network: nn.Module) -> None:
        for name, weight in network.named_parameters():
            if name.endswith("bias"):
                weight.zero_()

    model = changed(tmp_path, change, task)
    instances = random_instances(model, [7, 12])
    apart, spread = (decompx(model, instances, mode) for mode in MODES)
    for row, other in zip(apart, spread, strict=True):
        assert row.bias == 0
        assert_complete(row, 1e-12)
        assert relative_error(other.scores, row.scores) < 1e-12


@pytest.mark.parametrize("activation", ["gelu", "relu", "gelu_new", "silu"])
@pytest.mark.parametrize("mode", MODES)
def test_units_that_are_exactly_zero(tmp_path: Path, mode: str, activation: str) -> None:
    """act(x) / x has a limit there, and the biases may have no part to go to."""

    def change(network: nn.Module) -> None:
        for name, weight in network.named_parameters():
            if "intermediate.dense" in name:
                weight[::2] = 0
            if "pooler.dense" in name:
                weight.zero_()

    model = changed(tmp_path, change, hidden_act=activation)
    for row in decompx(model, random_instances(model, [7, 12]), mode, target=1):
        assert np.isfinite(row.scores).all()
        # Nothing passes the pooler: the logit is its bias.
        bias = cast(Any, model.network).classifier.bias[1].item()
        assert row.scores.sum() + (row.bias or 0) == pytest.approx(bias, rel=1e-12)
        assert row.delta == pytest.approx(0, abs=1e-12)


def cut(instance: Instance, length: int) -> Instance:
    """The first tokens of an instance; encoding refuses texts as short as the shortest here."""
    arrays = {k: v[:length] for k, v in vars(instance).items() if isinstance(v, np.ndarray | tuple)}
    return replace(instance, **arrays)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("length", [1, 2, 3])
def test_short_texts_and_shallow_models(
    tmp_path: Path, layers: int, length: int, mode: str
) -> None:
    model = changed(tmp_path, lambda network: None, num_hidden_layers=layers)
    instance = cut(random_instance(model, 4), length)
    other = random_instance(model, 9)
    for row in decompx(model, [instance, other], mode):
        assert_complete(row, 1e-12)
    (row, _) = decompx(model, [instance, other], mode, target=2)
    if mode == "token":
        expected, _ = by_autograd(model, instance, 2)
    else:
        expected = by_parts(model, instance, 2)
    assert relative_error(row.scores, expected) < 1e-10


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("task", TASKS)
def test_scores_by_layer_of_other_methods_do_not_matter(
    tiny: LoadTiny, task: str, mode: str
) -> None:
    """They let every position out of the last layer, where otherwise one is."""
    model = tiny("bert", task, "float64")
    instances = random_instances(model, [6, 17])
    layered = decompx(model, instances, mode, layers=True)
    for row, other in zip(layered, decompx(model, instances, mode), strict=True):
        assert relative_error(row.scores, other.scores) < 1e-12
