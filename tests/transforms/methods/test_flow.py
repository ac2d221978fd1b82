"""What tokens send to the position that is read, against vectors that are formed one by one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from attribeam.transforms import Attribution, Instance, Model, attribute, choose
from attribeam.transforms.inputs.kinds import collate
from attribeam.transforms.network.borrowed import borrowed
from attribeam.transforms.network.capture import Watch
from attribeam.transforms.network.parts import Affine, Layer, Norm
from tests.conftest import LoadTiny
from tests.support.models import random_instances, relative_error

pytestmark = pytest.mark.usefixtures("padding_at_will")

LENGTHS = (9, 5, 12)
KINDS = pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "gemma2", "gpt_neox"])
Numbers = NDArray[np.float64]


def rows_of(
    model: Model, instances: list[Instance], method: str, layers: bool = False, **params: Any
) -> list[Attribution]:
    chosen = choose(method, {method: params})
    found = attribute(model, instances, chosen, target=1, layers=layers)
    assert found.failures == []
    return cast(list[Attribution], found.rows[method])


class Sent(NamedTuple):
    """What tokens of one instance send each other in a layer.

    Attributes:
        entered: What enters it, [T, d].
        vectors: From j to i through each head, [T (i), T (j), H, d].
        middle: What is there after attention, before any norm that comes after the sum, [T, d].
        left: What leaves it, [T, d].
    """

    entered: torch.Tensor
    vectors: torch.Tensor
    middle: torch.Tensor
    left: torch.Tensor


def sent(model: Model, instance: Instance) -> list[Sent]:
    """Of each layer."""
    rows = collate(model, [instance]).rows
    watch = Watch(attention=True, layers=True, whole=True, outputs=True)
    with torch.no_grad(), borrowed(model.network):
        recorder = model.run(rows, watch=watch)[1]
        found = zip(
            model.layers, recorder.attention, recorder.hidden, recorder.outputs, strict=True
        )
        return [_sent(layer, a[0], x[0], left[0]) for layer, a, x, left in found]


def _sent(layer: Layer, attention: torch.Tensor, x: torch.Tensor, left: torch.Tensor) -> Sent:
    parts, after = layer.attention, layer.attending.after
    values = parts.value(layer.attend(x)).unflatten(-1, (parts.groups, -1))
    shared = parts.heads // parts.groups
    columns = parts.output.weight.unflatten(-1, (parts.heads, -1))
    through = [values[:, h // shared] @ columns[:, h].T for h in range(parts.heads)]
    vectors = torch.stack(
        [attention[h][..., None] * through[h][None] for h in range(parts.heads)], 2
    )
    given = vectors.sum((1, 2))
    given = given if parts.output.bias is None else given + parts.output.bias
    if after is not None:
        root = (given.square().mean(-1) + after.eps).sqrt()
        vectors = vectors / root[:, None, None, None] * after.weight
        given = given / root[:, None] * after.weight
    return Sent(x, vectors, x + given, left)


def near(whole: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """max(0, |y| - |y - t|), of shares t, [..., d], of y, likewise."""
    return (whole.abs().sum(-1) - (whole - shares).abs().sum(-1)).clamp(min=0)


# Information flow routes ----------------------------------------------------------------------


@KINDS
def test_ifr(tiny: LoadTiny, family: str) -> None:
    model = tiny(family, "classification", "float64")
    instances = random_instances(model, LENGTHS)
    for instance, row in zip(instances, rows_of(model, instances, "ifr"), strict=True):
        at = instance.position
        expected, residual = torch.zeros(len(instance), dtype=torch.float64), 0.0
        for layer in sent(model, instance):
            edges = near(layer.middle[at], layer.vectors[at])
            own = near(layer.middle[at], layer.entered[at])
            expected += edges.sum(-1) / (edges.sum() + own)
            residual += float(own / (edges.sum() + own))
        assert relative_error(row.scores, expected) < 1e-12
        assert row.scores.sum() + residual == pytest.approx(model.num_layers, rel=1e-12)


# ALTI-Logit -----------------------------------------------------------------------------------


def reader(model: Model, left: torch.Tensor, target: int) -> torch.Tensor:
    """The logit's gradient, [d], of what leaves the last layer, deviation of the norm apart."""
    norm, last = cast(tuple[Norm, Affine], tuple(model.head))
    deviation = norm.deviation(left).detach()
    leaf = left.detach().requires_grad_()
    logit = (norm.centre(leaf) / deviation * norm.weight) @ last.weight[target]
    (gradient,) = torch.autograd.grad(logit, leaf)
    return cast(torch.Tensor, gradient)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt_neox"])
def test_alti_logit(tiny: LoadTiny, family: str) -> None:
    model = tiny(family, "classification", "float64")
    instances = random_instances(model, LENGTHS)
    mixed = rows_of(model, instances, "alti_logit")
    direct = rows_of(model, instances, "alti_logit", mixing="none")
    for instance, row, apart in zip(instances, mixed, direct, strict=True):
        layers, at = sent(model, instance), instance.position
        towards = reader(model, layers[-1].left[at], 1)
        reached = torch.eye(len(instance), dtype=torch.float64)
        expected = towards @ layers[0].entered[at] * reached[at]
        alone = expected.clone()
        for layer in layers:
            added = layer.vectors[at].sum(1) @ towards
            expected, alone = expected + added @ reached, alone + added
            shares = layer.vectors.sum(2)
            shares = shares + torch.diag_embed(layer.entered.T).permute(1, 2, 0)
            mixing = near(layer.middle[:, None], shares)
            reached = mixing / mixing.sum(-1, keepdim=True) @ reached
        assert relative_error(row.scores, expected) < 1e-11
        assert relative_error(apart.scores, alone) < 1e-11
        assert row.unattributed is not None and row.delta is not None
        assert apart.unattributed == pytest.approx(row.unattributed, rel=1e-12)
        assert abs(row.delta) < 1e-11 * np.abs(row.scores).sum()
        # Tokens, and what is none's: the layers' feed-forward parts, and biases.
        wide = sum(x.left[at] - x.entered[at] - x.vectors[at].sum((0, 1)) for x in layers)
        norm, last = cast(tuple[Norm, Affine], tuple(model.head))
        biases = 0.0 if norm.bias is None else float(last.weight[1] @ norm.bias)
        biases += 0.0 if last.bias is None else float(last.bias[1])
        assert row.unattributed == pytest.approx(float(wide @ towards) + biases, rel=1e-9)


def test_a_contrast_is_a_difference_of_logits(tiny: LoadTiny) -> None:
    model = tiny("llama", "classification", "float64")
    instances = random_instances(model, LENGTHS)
    found = {
        target: attribute(model, instances, "alti_logit", target=target, explain="logit")
        for target in (0, 1, 2)
    }
    contrast = attribute(model, instances, "alti_logit", target=0, explain="contrast")
    for number in range(len(instances)):
        logits = cast(Any, contrast.predictions[number]).logits
        foil = 1 if logits[1] > logits[2] else 2
        own, other, both = (
            cast(Attribution, of.rows["alti_logit"][number])
            for of in (found[0], found[foil], contrast)
        )
        assert relative_error(both.scores, own.scores - other.scores) < 1e-11
        left = cast(float, own.unattributed) - cast(float, other.unattributed)
        assert both.unattributed == pytest.approx(left, rel=1e-9)


# Value zeroing --------------------------------------------------------------------------------


@contextmanager
def without_value(value: Affine, token: int) -> Iterator[None]:
    """For its duration a token's value is zero."""

    def zeroed(_: Any, __: Any, projected: torch.Tensor) -> torch.Tensor:
        changed = projected.clone()
        if value.outputs is None:
            changed[:, token] = 0
        else:
            changed[:, token, value.outputs] = 0
        return changed

    with value.module.register_forward_hook(zeroed):
        yield


def turned(model: Model, instance: Instance) -> Numbers:
    """1 - cos of what leaves layers where a value is left out in each, [L, T (i), T (j)]."""
    rows, depth = collate(model, [instance]).rows, model.num_layers
    final = model.head[0] if isinstance(model.head[0], Norm) else lambda x: x

    def left() -> list[torch.Tensor]:
        *below, last = model.run(rows, watch=Watch(whole=True, outputs=True))[1].outputs
        return [x[0] for x in (*below, final(last))]

    found = np.zeros((depth, len(instance), len(instance)))
    with torch.no_grad(), borrowed(model.network):
        real = left()
        for number, layer in enumerate(model.layers):
            for token in range(len(instance)):
                with without_value(layer.attention.value, token):
                    moved = left()[number]
                cosine = torch.nn.functional.cosine_similarity(real[number], moved, dim=-1)
                found[number, :, token] = 1 - cosine.numpy()
    return found


@KINDS
def test_value_zeroing(tiny: LoadTiny, family: str) -> None:
    model = tiny(family, "classification", "float64")
    instances = random_instances(model, [7, 4])
    by_sum, by_layer = (
        rows_of(model, instances, "value_zeroing", layers=layers) for layers in (False, True)
    )
    rolled = rows_of(model, instances, "value_zeroing", aggregate="rollout", start_layer=1)
    for number, instance in enumerate(instances):
        distances, at = turned(model, instance), instance.position
        distances[distances < 1e-5] = 0
        shares = distances / np.maximum(distances.sum(-1, keepdims=True), 1e-300)
        expected = shares[:, at].sum(0)
        assert relative_error(by_sum[number].scores, expected) < 1e-9
        assert relative_error(by_layer[number].scores, expected) < 1e-9
        own = np.stack([layer.local for layer in by_layer[number].layers or ()])
        assert relative_error(own, shares[:, at]) < 1e-9
        product = (shares[2] @ shares[1])[at]
        assert relative_error(rolled[number].scores, product / product.sum()) < 1e-9


def test_what_a_value_moves_too_little_is_nothing(tiny: LoadTiny) -> None:
    model = tiny("gpt2", "classification", "float64")
    (instance,) = random_instances(model, [8])
    shares = [
        rows_of(model, [instance], "value_zeroing", threshold=threshold)[0].scores
        for threshold in (0.0, 1e-2, 10.0)
    ]
    assert (shares[0] > 0).all() and not shares[2].any()
    assert (shares[0] != shares[1]).any() and shares[1].any()
    assert shares[0].sum() == pytest.approx(model.num_layers)
