"""What changes pass through a layer, against autograd, wherever its norms are."""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.autograd.functional import jvp
from torch.nn import functional
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.pytorch_utils import Conv1D

from attribeam.transforms.network.parts import (
    Affine,
    Attention,
    Branch,
    FeedForward,
    Layer,
    Norm,
    Step,
)
from attribeam.transforms.passes.layer_path import LayerPath, NormSlope
from tests.support.models import relative_error

POINTS, LENGTH, SIZE, WIDE, HEADS = 2, 5, 12, 10, 4
LIMIT = 1e-11


class Order(NamedTuple):
    """What a layer is to be like."""

    before: bool = False
    after: bool = False
    centred: bool = True
    gated: bool = False
    groups: int = HEADS
    fused: bool = False
    factor: float | None = None
    causal: bool = False


ORDERS = {
    "post-LN": Order(after=True),
    "pre-LN": Order(before=True),
    "both": Order(before=True, after=True),
    "root mean squares": Order(before=True, centred=False),
    "gated": Order(before=True, gated=True),
    "gated post-LN": Order(after=True, gated=True, centred=False),
    "grouped": Order(before=True, groups=2),
    "fused": Order(before=True, fused=True, causal=True),
    "scaled": Order(after=True, factor=1.5, groups=1, causal=True),
}


def a_layer(order: Order) -> Layer:
    """A layer of random weights."""
    torch.manual_seed(0)
    keys = SIZE // HEADS * order.groups

    def norm(wanted: bool) -> Norm | None:
        if not wanted:
            return None
        module = nn.LayerNorm(SIZE) if order.centred else LlamaRMSNorm(SIZE)
        for weight in module.parameters():
            nn.init.uniform_(weight, 0.5, 2)
        return Norm(module.double().requires_grad_(False))

    def linear(entering: int, leaving: int) -> Affine:
        return Affine(nn.Linear(entering, leaving).double().requires_grad_(False))

    projections = [linear(SIZE, SIZE), linear(SIZE, keys), linear(SIZE, keys)]
    if order.fused:
        one = Conv1D(SIZE + 2 * keys, SIZE).double().requires_grad_(False)
        nn.init.normal_(one.weight, std=0.4)
        ends = (0, SIZE, SIZE + keys, SIZE + 2 * keys)
        projections = [Affine(one, slice(*pair)) for pair in pairwise(ends)]
    mixing = Attention(*projections, linear(SIZE, SIZE), HEADS, order.groups, factor=order.factor)
    gate = linear(SIZE, WIDE) if order.gated else None
    inside = FeedForward(linear(SIZE, WIDE), functional.gelu, linear(WIDE, SIZE), gate)
    steps = [
        Step((Branch(part, norm(order.before)),), norm(order.after)) for part in (mixing, inside)
    ]
    return Layer(tuple(steps), nn.Identity())


class Passed(NamedTuple):
    """What passes through a layer: changes of all that enters, mixed values, sums and outputs."""

    layer: Layer
    path: LayerPath
    entered: torch.Tensor
    change: torch.Tensor
    run: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


def passed(order: Order, alone: bool = False) -> Passed:
    """A random layer, with what it holds of random tokens; of the last query if that is alone."""
    layer = a_layer(order)
    mixing = layer.attention
    entered, change, wanted = torch.randn(3, POINTS, LENGTH, SIZE, dtype=torch.float64)
    queries = slice(-1, None) if alone else slice(None)
    closed = torch.ones(LENGTH, LENGTH).triu(1).bool() & order.causal

    def projected(h: torch.Tensor) -> list[torch.Tensor]:
        x = layer.attend(h)
        query, key, value = (
            linear(x).unflatten(-1, (-1, SIZE // HEADS)).transpose(1, 2)
            for linear in (mixing.query, mixing.key, mixing.value)
        )
        scale = (SIZE // HEADS) ** -0.5 if order.factor is None else order.factor
        query, key, value = query * scale, mixing.shared(key), mixing.shared(value)
        attention = (query @ key.mT).masked_fill(closed, -torch.inf).softmax(-1)
        return [query[:, :, queries], key, value, attention[:, :, queries]]

    def run(h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        *_, value, attention = projected(h)
        context = attention @ value
        attended = layer.steps[0].add(h[:, queries], context.transpose(1, 2).flatten(2))
        return context, attended, layer.conclude(attended)

    with torch.no_grad():
        query, key, value, attention = projected(entered)
        context, attended, _ = run(entered)
        hidden = layer.steps[0].leave(attended)
        widened = layer.steps[1].add(hidden) if order.after else None
    attended.requires_grad_()
    output = (layer.conclude(attended) * wanted[:, queries]).sum()
    (of_attended,) = torch.autograd.grad(output, attended)
    of_context = (of_attended @ mixing.output.weight).unflatten(-1, (HEADS, -1)).transpose(1, 2)
    path = LayerPath(
        layer,
        query,
        key,
        value,
        attention,
        context,
        attended.detach(),
        of_context,
        of_attended,
        entered if order.before else None,
        widened,
    )
    return Passed(layer, path, entered, change, run)


def only(change: torch.Tensor, at: int) -> torch.Tensor:
    """Of changes those of one position."""
    alone = torch.zeros_like(change)
    alone[:, at] = change[:, at]
    return alone


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
def test_changes_of_all_that_enters(order: Order) -> None:
    for alone in (False, True):
        _, path, entered, change, run = passed(order, alone)
        if not alone:
            _, (context, *_) = jvp(run, entered, change)
            assert relative_error(path.move_all(change), context) < LIMIT
        point = entered.clone().requires_grad_()
        sums = run(point)[1]
        (gradient,) = torch.autograd.grad((sums * path.attended_gradient).sum(), point)
        assert relative_error(path.pull_all(LENGTH - 1), gradient) < LIMIT


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
def test_scores_of_nodes(order: Order) -> None:
    _, path, entered, change, run = passed(order)
    shares, at = torch.tensor([0.25, 0.75], dtype=torch.float64), torch.arange(LENGTH)
    scores = path.node_scores(path.project(change, at), at, shares)
    for position in range(LENGTH):
        _, (_, sums, _) = jvp(run, entered, only(change, position))
        expected = shares @ (path.attended_gradient * sums).sum(-1)
        assert relative_error(scores[position], expected) < LIMIT
        if order.causal:
            assert (scores[position, :position] == 0).all()


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
@pytest.mark.parametrize("alone", [False, True])
def test_changes_from_one_position_to_another(order: Order, alone: bool) -> None:
    _, path, entered, change, run = passed(order, alone)
    at = torch.tensor([0, 1, 2, 3, 4, 0])
    to = torch.full((6,), LENGTH - 1) if alone else torch.tensor([0, 1, 4, 2, 0, 3])
    change, gradient = change[:, at], torch.randn(POINTS, 6, SIZE, dtype=torch.float64)
    moved = path.move(path.project(change, at), at, to)
    attended = path.attend(moved, at == to, change)
    finish = path.finish(to)
    left = finish.push(attended)
    for word, (source, target) in enumerate(zip(at.tolist(), to.tolist(), strict=True)):
        one = torch.zeros_like(entered)
        one[:, source] = change[:, word]
        _, (context, sums, output) = jvp(run, entered, one)
        query, limit = 0 if alone else target, LIMIT * float(output.abs().max())
        for ours, theirs in (
            (moved[:, :, word], context[:, :, query]),
            (attended[:, word], sums[:, query]),
            (left[:, word], output[:, query]),
        ):
            assert (ours - theirs).abs().max() <= limit
    # The transpose: <g, J t> = <J^T g, t>.
    pulled = finish.pull(gradient)
    torch.testing.assert_close((left * gradient).sum(), (pulled * attended).sum())
    of_context, of_entered = path.pull(gradient, at, to)
    torch.testing.assert_close((attended * gradient).sum(), (of_entered * change).sum())
    mixed = moved.transpose(1, 2).flatten(2) @ path.parts.attention.output.weight.T
    torch.testing.assert_close((of_context * moved).sum(), (gradient * mixed).sum())


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
def test_repeated_tokens(order: Order) -> None:
    _, path, _, change, _ = passed(order)
    every = path.finish(torch.arange(LENGTH))
    for tokens in ([3, 1, 3, 3, 1], [2] * LENGTH):
        found = path.finish(torch.tensor(tokens)).push(change)
        torch.testing.assert_close(found, every.of(torch.tensor(tokens)).push(change))


@pytest.mark.parametrize("centred", [True, False])
def test_derivatives_of_norms(centred: bool) -> None:
    layer, _, entered, change, _ = passed(Order(before=True, centred=centred))
    norm = layer.attending.before
    assert norm is not None and norm.centred == centred
    slope = NormSlope.at(norm, entered)
    _, expected = jvp(norm, entered, change)
    assert relative_error(slope.push(change), expected) < LIMIT
    point = entered.clone().requires_grad_()
    (pulled,) = torch.autograd.grad((norm(point) * change).sum(), point)
    assert relative_error(slope.pull(change), pulled) < LIMIT
