"""Relevance by rules: walked back part by part, against DecompX, and without a trace afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import pytest
import torch

from attribeam.transforms import Attribution, Instance, Model, attribute
from attribeam.transforms.inputs.kinds import collate
from attribeam.transforms.network.parts import Affine, Norm
from tests.conftest import LoadTiny
from tests.support.models import random_instances, relative_error

pytestmark = pytest.mark.usefixtures("padding_at_will")

LENGTHS = (9, 5, 12)
# AttnLRP's activations have 1e-10 beside what they are divided by.
BESIDE = 1e-6


def rows_of(model: Model, instances: list[Instance], method: str, **more: Any) -> list[Attribution]:
    found = attribute(model, instances, method, target=0, **more)
    assert found.failures == []
    return cast(list[Attribution], found.rows[method])


# Relevance itself, and no gradient of anything --------------------------------------------------


class Walk:
    """AttnLRP of a GPT-2 of one instance (Achtibat et al. 2024, equations 8 to 15).

    Relevance [T, n] of what left a part becomes that of what entered it, by what each output was.
    """

    def __init__(self, model: Model, instance: Instance, *, attention: bool) -> None:
        self.model, self.attention = model, attention
        with torch.no_grad():
            self.entered = model.embed(collate(model, [instance]).rows)[0]

    def linear(self, step: Affine, x: torch.Tensor, relevance: torch.Tensor) -> torch.Tensor:
        return x * ((relevance / step(x)) @ step.weight)

    def norm(self, step: Norm, x: torch.Tensor, relevance: torch.Tensor) -> torch.Tensor:
        """A linear map, once its deviation is a number: bias and mean take their shares."""
        centred = x - x.mean(-1, keepdim=True)
        deviation = (centred.square().mean(-1, keepdim=True) + step.eps).sqrt()
        assert step.bias is not None
        shares = step.weight * relevance / (centred / deviation * step.weight + step.bias)
        return x * (shares - shares.mean(-1, keepdim=True)) / deviation

    def attend(self, layer: Any, x: torch.Tensor, relevance: torch.Tensor) -> torch.Tensor:
        """Through attention's products, its softmax, and its three maps."""
        parts, heads = layer.attention, layer.attention.heads
        query, key, value = (
            step(x).unflatten(-1, (heads, -1)).transpose(0, 1)
            for step in (parts.query, parts.key, parts.value)
        )
        scores = query @ key.mT * parts.scale
        weights = scores.masked_fill(~torch.ones_like(scores).tril().bool(), -torch.inf).softmax(-1)
        mixed = weights @ value
        relevance = self.linear(parts.output, mixed.transpose(0, 1).flatten(1), relevance)
        shares = relevance.unflatten(-1, (heads, -1)).transpose(0, 1) / mixed
        if not self.attention:
            of_value = value * (weights.mT @ shares)
            return self.linear(parts.value, x, of_value.transpose(0, 1).flatten(1))
        of_value = value * (weights.mT @ shares) / 2
        of_weights = weights * (shares @ value.mT) / 2
        of_scores = scores * (of_weights - weights * of_weights.sum(-1, keepdim=True))
        shares = of_scores / (2 * scores) * parts.scale
        found = zip(
            (parts.query, parts.key, parts.value),
            (query * (shares @ key), key * (shares.mT @ query), of_value),
            strict=True,
        )
        flat = [(step, of.transpose(0, 1).flatten(1)) for step, of in found]
        return torch.stack([self.linear(step, x, of) for step, of in flat]).sum(0)

    def layer(self, layer: Any, x: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """What leaves a layer, and how relevance passes it."""
        (first,), (second,) = (step.branches for step in layer.steps)
        normed, inside = first.before(x), second.inside
        heads = layer.attention.heads
        query, key, value = (
            step(normed).unflatten(-1, (heads, -1)).transpose(0, 1)
            for step in (layer.attention.query, layer.attention.key, layer.attention.value)
        )
        scores = query @ key.mT * layer.attention.scale
        weights = scores.masked_fill(~torch.ones_like(scores).tril().bool(), -torch.inf).softmax(-1)
        added = layer.attention.output((weights @ value).transpose(0, 1).flatten(1))
        middle = x + added
        again = second.before(middle)
        wide = inside.activation(inside.expand(again))
        given = inside.contract(wide)
        left = middle + given

        def back(relevance: torch.Tensor) -> torch.Tensor:
            of_wide = self.linear(inside.contract, wide, relevance * given / left)
            of_again = self.linear(inside.expand, again, of_wide)
            of_middle = relevance * middle / left + self.norm(second.before, middle, of_again)
            of_normed = self.attend(layer, normed, of_middle * added / middle)
            return of_middle * x / middle + self.norm(first.before, x, of_normed)

        return left, back

    def scores(self) -> torch.Tensor:
        """Relevance of what enters, [T], for the first logit."""
        x, backs = self.entered, []
        for layer in self.model.layers:
            x, back = self.layer(layer, x)
            backs.append(back)
        norm, score = cast(tuple[Norm, Affine], tuple(self.model.head))
        normed = norm(x)
        start = torch.zeros_like(x)
        start[-1] = normed[-1] * score.weight[0]
        relevance = self.norm(norm, x, start)
        for back in reversed(backs):
            relevance = back(relevance)
        return relevance.sum(-1)


@pytest.mark.parametrize("method", ["attnlrp", "cp_lrp"])
def test_relevance_walked_back_part_by_part(tiny: LoadTiny, method: str) -> None:
    model = tiny("gpt2", "classification", "float64")
    instances = random_instances(model, LENGTHS)
    for instance, row in zip(instances, rows_of(model, instances, method), strict=True):
        expected = Walk(model, instance, attention=method == "attnlrp").scores()
        assert relative_error(row.scores, expected) < BESIDE
        assert row.delta is None


# DecompX ----------------------------------------------------------------------------------------


@contextmanager
def without_first_value_bias(model: Model) -> Iterator[None]:
    """DecompX leaves that of the first layer with its tokens."""
    value = model.layers[0].attention.value
    if value.bias is None:
        yield
        return
    whole = cast(torch.Tensor, value.module.bias)
    before = whole.detach().clone()
    with torch.no_grad():
        whole[slice(None) if value.outputs is None else value.outputs] = 0
    try:
        yield
    finally:
        with torch.no_grad():
            whole.copy_(before)


ONE_OF_EACH = ("bert", "albert", "modernbert", "gpt2", "gpt_neox", "phi3", "qwen3", "gemma2")


@pytest.mark.parametrize("family", ONE_OF_EACH)
def test_cp_lrp_is_decompx_without_biases(tiny: LoadTiny, family: str) -> None:
    model = tiny(family, "classification", "float64")
    instances = random_instances(model, LENGTHS)
    with without_first_value_bias(model):
        pairs = zip(*(rows_of(model, instances, m) for m in ("cp_lrp", "decompx")), strict=True)
        for ours, theirs in pairs:
            assert relative_error(ours.scores, theirs.scores) < BESIDE
            assert theirs.bias is not None
            free = family in ("phi3", "qwen3", "gemma2")
            assert (ours.delta is not None) == free, "a gap is of models without biases"
            if free:
                assert abs(cast(float, ours.delta)) < 1e-12 * np.abs(ours.scores).sum()
                assert abs(theirs.bias) < 1e-12


def test_no_gap_is_told_of_what_is_no_sum_of_logits(tiny: LoadTiny) -> None:
    model = tiny("qwen3", "classification", "float64")
    instances = random_instances(model, LENGTHS)
    logit, log_prob = (
        rows_of(model, instances, "cp_lrp", explain=scalar) for scalar in ("logit", "log_prob")
    )
    assert all(row.delta is not None for row in logit)
    assert all(row.delta is None for row in log_prob)


# What is left of it -----------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "bert"])
def test_nothing_is_left_of_the_rules(tiny: LoadTiny, family: str) -> None:
    model = tiny(family, "classification", "float64")
    instances = random_instances(model, LENGTHS)
    before = rows_of(model, instances, "grad_x_input")
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.network.modules()]
    together = attribute(model, instances, ["attnlrp", "grad_x_input", "cp_lrp"], target=0)
    after = rows_of(model, instances, "grad_x_input")
    left = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.network.modules()]
    assert left == hooks
    for first, again, beside in zip(before, after, together.rows["grad_x_input"], strict=True):
        assert first.scores.tobytes() == again.scores.tobytes()
        assert relative_error(cast(Attribution, beside).scores, first.scores) < 1e-12
    for name in ("attnlrp", "cp_lrp"):
        apart = rows_of(model, instances, name)
        for row, other, gradient in zip(apart, together.rows[name], before, strict=True):
            assert relative_error(cast(Attribution, other).scores, row.scores) < 1e-12
            assert relative_error(row.scores, gradient.scores) > 1e-2
