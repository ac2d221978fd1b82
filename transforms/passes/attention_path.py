"""Self-attention attribution: what each attention between two tokens adds to a prediction.

The attention A of one layer, of all its heads at once, is taken along the straight path alpha A
from nothing to what it is, and Attr_h = A_h * integral of dF(alpha A) / dA_h over alpha (Hao et al.
2021). What enters the layer stays as it is, alpha A is not normalised again, and the layers above
see what changes. Over heads, queries and keys the attributions of a layer sum to F(A) - F(0).

With V what it is, the context is alpha A V, and dF / dA_h = G_h V_h^T with G the gradient of the
context. So gradients are summed over the path first, a token's width each, and there is one product
of T x T per head. The projection that follows is linear too: along the path only what comes after
it is run, and nothing below the layer.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from attribeam.transforms.inputs.batch import row_cost
from attribeam.transforms.inputs.targets import Explained, Output
from attribeam.transforms.network.capture import LayerStates, Watch
from attribeam.transforms.network.model import Model
from attribeam.transforms.network.parts import Layer
from attribeam.transforms.network.rows import Rows
from attribeam.transforms.passes.base import NESTED, Rule
from attribeam.transforms.passes.ladder import ALONE, SURE, Ladder, ladder, last_place
from attribeam.transforms.passes.trees import HeadFacts, head_facts
from attribeam.transforms.recovery import fitting

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class AttentionStates:
    """What one forward pass leaves for all that is computed here.

    Attributes:
        model: The model.
        rows: B padded rows of T tokens.
        logits: [B, C].
        attention: Attention probabilities of each layer, each [B, H, T, T].
        layers: What passed through each layer.
    """

    model: Model
    rows: Rows
    logits: torch.Tensor
    attention: Sequence[torch.Tensor]
    layers: Sequence[LayerStates]


@torch.no_grad()
def observe(model: Model, rows: Rows) -> AttentionStates:
    """Runs the model once and keeps what is needed."""
    logits, recorder = model.run(rows, watch=Watch(attention=True, layers=True))
    return AttentionStates(model, rows, logits, recorder.attention, recorder.layers)


# The path -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class AttentionPath:
    """The straight path of one layer's attention from zero to what it is, for B instances.

    Of the last layer only the query that is read out is there: S = 1, and S = T below.

    Attributes:
        model: The model.
        layer: The layer, 0-based.
        rows: The rows.
        attention: A, zero where query or key is padding, [B, H, S, T].
        values: V of all heads, [B, H, T, d/H].
        mixed: What attention adds to the residual stream: A V projected, no bias, [B, S, d].
        entered: What it is added to: what entered the layer, [B, S, d].
        explained: What is explained of them.
        output: What F is: the softmax probability of the explained class (of a masked LM over its
            two words), or the scalar that is explained.
    """

    model: Model
    layer: int
    rows: Rows
    attention: torch.Tensor
    values: torch.Tensor
    mixed: torch.Tensor
    entered: torch.Tensor
    explained: Explained
    output: Output

    def of(self, chosen: torch.Tensor) -> "AttentionPath":
        """The paths of some of the instances alone, by their numbers [b]."""
        names = ("attention", "values", "mixed", "entered")
        parts: dict[str, Any] = {name: getattr(self, name)[chosen] for name in names}
        explained = self.explained.chosen(chosen)
        return replace(self, rows=self.rows.chosen(chosen), explained=explained, **parts)

    @torch.no_grad()
    def outputs(self, points: Floats) -> torch.Tensor:
        """F at n points of the path, [B, n]."""
        return self._run(self._at(points)).T

    def gradient(self, points: Floats, weights: Floats) -> torch.Tensor:
        """Sums over n points of dF with respect to what attention adds, by R kinds of weights.

        Args:
            points: The points, [n].
            weights: What each counts, [R, n].

        Returns:
            [R, B, S, d].
        """
        added = self._at(points).requires_grad_()
        with torch.enable_grad():
            explained = self._run(added)
            # No row has a part in another's output, so the gradient of their sum is all of them.
            (gradient,) = torch.autograd.grad(explained.sum(), added)
        shares = torch.from_numpy(weights).to(explained)
        found: torch.Tensor = torch.tensordot(shares, gradient.to(explained.dtype), 1)
        return found

    def attribution(self, gradient: torch.Tensor) -> torch.Tensor:
        """Attributions by the mean gradient over the path: [B, S, d] to [B, H, S, T]."""
        weight = self._layer.attention.output.weight.to(gradient)
        heads = (gradient @ weight).unflatten(-1, (self.values.shape[1], -1)).transpose(1, 2)
        found: torch.Tensor = self.attention * (heads @ self.values.to(gradient).transpose(2, 3))
        return found

    @property
    def cost(self) -> float:
        """Memory of one point of all paths, in the unit of ``row_cost``."""
        batch, length, _ = self.entered.shape
        return batch * row_cost(length, self.model.head_size)

    @property
    def _layer(self) -> Layer:
        return self.model.layers[self.layer]

    def _at(self, points: Floats) -> torch.Tensor:
        """What attention adds at n points of the path, [n, B, S, d]."""
        mixed = self.mixed.to(_precise(self.mixed.dtype))
        return (torch.from_numpy(points).to(mixed)[:, None, None, None] * mixed).to(self.mixed)

    def _summed(self, added: torch.Tensor) -> torch.Tensor:
        """What leaves the layer's first step, before its join: [n, B, S, d] both."""
        bias = self._layer.attention.output.bias
        if self._layer.serial:
            return added + (self.entered if bias is None else self.entered + bias)
        projected = added if bias is None else added + bias
        return self._layer.steps[0].add_projected(self.entered, projected)

    def _run(self, added: torch.Tensor) -> torch.Tensor:
        """F where attention adds these vectors: [n, B, S, d] to [n, B]."""
        count = len(added)
        left = self._layer.conclude(self._summed(added).flatten(0, 1))
        rows = self.rows.repeated(count)
        logits, _ = self.model.run(rows, enter=left, start=self.layer + 1)
        return _output(self.explained.repeated(count), logits, self.output).view(count, -1)


def attention_path(
    states: AttentionStates, layer: int, explained: Explained, output: Output = "probability"
) -> AttentionPath:
    """The path of a layer's attention; see ``AttentionPath`` for the arguments."""
    model, rows, projection = states.model, states.rows, states.model.layers[layer].attention.output
    real = rows.attention_mask[:, None, :, None].bool()
    attention = states.attention[layer].masked_fill(~real, 0)
    own = states.layers[layer].entered
    if layer == model.num_layers - 1:
        every = torch.arange(len(own), device=own.device)
        attention = attention[every, :, rows.readout][:, :, None]
        own = own[every, rows.readout][:, None]
    values = model.layers[layer].attention.shared(states.layers[layer].values)
    context = (attention @ values).transpose(1, 2).flatten(2)
    return AttentionPath(
        model=model,
        layer=layer,
        rows=rows,
        attention=attention,
        values=values,
        mixed=functional.linear(context, projection.weight),
        entered=own,
        explained=explained,
        output=output,
    )


def _output(explained: Explained, logits: torch.Tensor, output: Output) -> torch.Tensor:
    """F of some rows, [N] of [N, C], in single precision at least."""
    return explained.output(logits.to(_precise(logits.dtype)), output)


def _precise(dtype: torch.dtype) -> torch.dtype:
    """Single precision in place of half."""
    return torch.promote_types(dtype, torch.float32)


# Attributions ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class LayerAttribution:
    """Attributions of one layer's attention, for B instances.

    Attributes:
        scores: Of each head, query and key, [B, H, T, T]; 0 at padding, and in the last layer for
            all queries but the one that is read out.
        steps: Points that each instance's integral was taken at in the end, [B].
        gap: |sum of the scores - (F(A) - F(0))|, what the integral misses, [B].
        error: The gap, or what half of the points change of what is taken from a token, all heads
            together, if that is known and more, [B].
        whole: F(A), the output as it is, [B].
        none: F(0), the output without this layer's attention, [B].
    """

    scores: torch.Tensor
    steps: torch.Tensor
    gap: torch.Tensor
    error: torch.Tensor
    whole: torch.Tensor
    none: torch.Tensor


def attention_attributions(
    states: AttentionStates,
    explained: Explained,
    *,
    rule: Rule,
    steps: int,
    tolerance: float,
    most: int,
    output: Output = "probability",
    budget: float,
) -> Iterator[LayerAttribution]:
    """Attributions of the attention of each layer, from the first to the last.

    Where the error is more than the tolerance, the integral is taken with twice the steps: anew, or
    by a nested rule with points between those that there are. Each instance is judged by itself, in
    each layer by itself. What rounding could decide is decided, and computed, with the instance
    alone (see ``ladder.SURE``).

    Args:
        states: What a forward pass left.
        explained: What is explained of each instance.
        rule: Quadrature rule.
        steps: Points on the path to begin with.
        tolerance: Largest error to be content with.
        most: Most points that doubling may lead to; with ``steps`` nothing is ever doubled.
        output: What F is.
        budget: Token budget; points of the path beyond it are run one after the other.
    """
    finely = _Refinement(rule, steps, tolerance, most)
    whole = _output(explained, states.logits, output)
    by_itself: dict[int, AttentionStates] = {}
    for layer in range(states.model.num_layers):
        path = attention_path(states, layer, explained, output)
        found, sure, budget = _refined(path, whole, finely, budget, SURE)
        for row in (~sure).nonzero()[:, 0].tolist():
            if row not in by_itself:
                by_itself[row] = observe(states.model, states.rows.alone(row))
            own, of_row = by_itself[row], explained.chosen(torch.tensor([row]))
            alone = attention_path(own, layer, of_row, output)
            start = _output(of_row, own.logits, output)
            _put(_refined(alone, start, finely, ALONE, 0)[0], found, row)
        yield replace(found, scores=_placed(found.scores, states.rows.readout))


@dataclass(frozen=True)
class _Refinement:
    """How finely an integral is taken; see ``attention_attributions``."""

    rule: Rule
    steps: int
    tolerance: float
    most: int

    @property
    def levels(self) -> list[tuple[Ladder, int]]:
        """The rules that are tried in turn, each a rung of a ladder."""
        if self.rule in NESTED:
            rungs = ladder(self.rule, self.most, max(1, (self.steps - 1) // 2))
            last = len(rungs.counts) - 1
            enough = [rung for rung, count in enumerate(rungs.counts) if count >= self.steps]
            first = max(rungs.first, min([*enough, last]))
            return [(rungs, rung) for rung in range(first, last + 1)]
        counts = [self.steps]
        while 2 * counts[-1] <= self.most:
            counts.append(2 * counts[-1])
        return [(ladder(self.rule, count), 0) for count in counts]


def _refined(
    path: AttentionPath, whole: torch.Tensor, finely: _Refinement, budget: float, sure: float
) -> tuple[LayerAttribution, torch.Tensor, float]:
    """Attributions that are taken as finely as each instance needs.

    Args:
        path: The paths of B instances.
        whole: Their outputs as they are, [B].
        finely: How finely.
        budget: Token budget.
        sure: How many units in the last place of what it is a difference of an error must be away
            from the tolerance to decide.

    Returns:
        The attributions, of the last layer at the query alone that is read out, [B, H, S, T]; for
        which instances no decision was left open, [B]; and the budget, smaller if memory ran out.
    """
    none = path.outputs(np.zeros(1))[:, 0]
    change, size = whole - none, whole.abs() + none.abs()
    scores = path.attention.new_zeros(path.attention.shape, dtype=whole.dtype)
    used = torch.zeros_like(path.explained.targets)
    gap, error = torch.zeros_like(whole), torch.zeros_like(whole)
    margin, levels = sure * last_place(path.model), finely.levels
    sums = torch.zeros((), device=whole.device)
    # Where rounding is as large as what gaps are differences of, nothing is worth computing here.
    decided = torch.full_like(
        path.explained.targets, margin < 1 or len(levels) == 1, dtype=torch.bool
    )
    todo = decided.nonzero()[:, 0]
    for level, (rungs, rung) in enumerate(levels):
        if level:
            above = error[todo] - finely.tolerance
            unsure = above.abs() <= margin * (size[todo] + scores[todo].abs().sum((1, 2, 3)))
            decided[todo[unsure]] = False
            todo = todo[~unsure & (above > 0)]
        if not len(todo):
            break
        chosen = path if len(todo) == len(whole) else path.of(todo)
        # A ladder is climbed from the ground; of what a rung adds the sums of all have their part.
        new = rungs.added(rung) if level and rung else slice(0, rungs.counts[rung])
        more, budget = _integral(chosen, rungs.points[new], rungs.weights[:, new], budget)
        sums = _added(sums, todo, more) if level and rung else more
        own = sums[:, todo] if sums.shape[1] == len(whole) else sums
        scores[todo] = chosen.attribution(own[rung])
        gap[todo] = error[todo] = (scores[todo].sum((1, 2, 3)) - change[todo]).abs()
        if rung:
            moved = chosen.attribution(own[rung] - own[rung - 1]).sum(1).abs().sum(1).amax(1)
            error[todo] = torch.maximum(gap[todo], moved)
        used[todo] = rungs.counts[rung]
    return LayerAttribution(scores, used, gap, error, whole, none), decided, budget


def _added(sums: torch.Tensor, numbers: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
    """Sums of all instances, [R, B, ...], with more of some."""
    sums[:, numbers] += more
    return sums


def _put(alone: LayerAttribution, found: LayerAttribution, row: int) -> None:
    """Puts the attributions of one instance, which has no padding, in the place of a batch's."""
    *_, queries, length = alone.scores.shape
    found.scores[row, :, :queries, :length] = alone.scores[0]
    for name in ("steps", "gap", "error", "none"):
        getattr(found, name)[row] = getattr(alone, name)[0]


def _integral(
    path: AttentionPath, points: Floats, weights: Floats, budget: float
) -> tuple[torch.Tensor, float]:
    """Sums of gradients, [R, B, S, d], and the budget, smaller if memory ran out."""
    at_once = max(1, min(len(points), int(budget / path.cost)))
    gradient = torch.zeros((), device=path.mixed.device)
    done = 0

    def some(count: int) -> torch.Tensor:
        return path.gradient(points[done : done + count], weights[:, done : done + count])

    while done < len(points):
        found, fitted = fitting(some, at_once)
        gradient = gradient + found
        if fitted < at_once:
            at_once, budget = fitted, fitted * path.cost
        done += at_once
    return gradient, budget


def _placed(scores: torch.Tensor, readout: torch.Tensor) -> torch.Tensor:
    """Scores of all queries, [B, H, T, T]; from [B, H, 1, T] those of the one read out."""
    length = scores.shape[-1]
    if scores.shape[-2] == length:
        return scores
    every = torch.arange(len(scores), device=scores.device)
    placed = scores.new_zeros(*scores.shape[:2], length, length)
    placed[every, :, readout] = scores[:, :, 0]
    return placed


# What is kept ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class AttentionSummary:
    """What is kept of the attributions of a batch of B instances: all of them would be too many.

    Attributes:
        summed: Summed over heads, [B, L, T, T].
        heads: Facts of each head, by instance and layer.
        steps: Points of the integral, [B, L].
        gap: What it misses, [B, L].
        error: Its estimated error, [B, L].
        whole: F(A), [B].
        none: F without each layer's attention, [B, L].
    """

    summed: torch.Tensor
    heads: list[list[list[HeadFacts]]]
    steps: torch.Tensor
    gap: torch.Tensor
    error: torch.Tensor
    whole: torch.Tensor
    none: torch.Tensor


def summarised(
    states: AttentionStates, layers: Iterable[LayerAttribution], lengths: Sequence[int]
) -> AttentionSummary:
    """Reduces attributions layer by layer, so that those of one layer are held at a time.

    Args:
        states: What a forward pass left.
        layers: Attributions of each layer, first layer first.
        lengths: Tokens of each instance, without padding.
    """
    found: list[LayerAttribution] = []
    heads: list[list[list[HeadFacts]]] = [[] for _ in lengths]
    for number, layer in enumerate(layers):
        scores = layer.scores.double().cpu().numpy()
        attention = states.attention[number].double().cpu().numpy()
        for own, score, taken, length in zip(heads, scores, attention, lengths, strict=True):
            real = (slice(None), slice(length), slice(length))
            own.append(head_facts(score[real], taken[real]))
        found.append(replace(layer, scores=layer.scores.sum(1)))
    return AttentionSummary(
        summed=torch.stack([layer.scores for layer in found], 1),
        heads=heads,
        steps=torch.stack([layer.steps for layer in found], 1),
        gap=torch.stack([layer.gap for layer in found], 1),
        error=torch.stack([layer.error for layer in found], 1),
        whole=found[0].whole,
        none=torch.stack([layer.none for layer in found], 1),
    )


# Importance of heads and pruning --------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class TaylorImportance:
    """First-order importance of heads: sum over tokens of |<context, dL / d context>|.

    It is what Molchanov et al. 2017 and Michel et al. 2019 prune by, of one instance, raw.

    Attributes:
        loss: With L the cross entropy of the explained class, [B, L, H].
        logits: With L the sum of the logits, which is what the code of Hao et al. 2021 derives.
    """

    loss: torch.Tensor
    logits: torch.Tensor


def taylor_importance(model: Model, rows: Rows, targets: torch.Tensor) -> TaylorImportance:
    """Importance of each head for each instance: one forward pass and two backward.

    Args:
        model: The model.
        rows: B padded rows.
        targets: Class whose cross entropy is the loss, [B]; of a masked LM, of its two words.
    """
    contexts: list[torch.Tensor] = []

    def keep(_: nn.Linear, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        # The graph begins at the first layer's context: nothing below has a part in gradients.
        context = args[0] if args[0].requires_grad else args[0].detach().requires_grad_()
        contexts.append(context)
        return (context, *args[1:])

    with ExitStack() as hooks, torch.enable_grad():
        for layer in model.layers:
            output = layer.attention.output.module
            hooks.callback(output.register_forward_pre_hook(keep).remove)
        logits, _ = model.run(rows)
        logits = logits.to(_precise(logits.dtype))
        loss = functional.cross_entropy(logits, targets, reduction="sum")
        # The loss of an instance depends on no other's contexts, so their sum has its gradients.
        of_loss = torch.autograd.grad(loss, contexts, retain_graph=True)
        of_logits = torch.autograd.grad(logits.sum(), contexts)
    heads = model.num_heads
    return TaylorImportance(
        *(
            torch.stack([_moved(*pair, heads) for pair in zip(contexts, found, strict=True)], 1)
            for found in (of_loss, of_logits)
        )
    )


def _moved(context: torch.Tensor, gradient: torch.Tensor, heads: int) -> torch.Tensor:
    """Sum over tokens of |<context, gradient>| of each head: twice [B, S, d] to [B, H]."""
    precise = _precise(context.dtype)
    products = (context.detach().to(precise) * gradient).unflatten(-1, (heads, -1))
    total: torch.Tensor = products.sum(-1).abs().sum(1)
    return total


@contextmanager
def pruned(model: Model, mask: torch.Tensor) -> Iterator[None]:
    """For its duration the attention of each head is multiplied by a number, after the softmax.

    It is the context of the head that is multiplied, which comes to the same. Attributions of
    attention are not to be computed meanwhile: they project contexts themselves.

    Args:
        model: The model.
        mask: 1 for heads that stay and 0 for those that go, [L, H].

    Raises:
        ValueError: If the mask is not of this shape.
    """
    shape = (model.num_layers, model.num_heads)
    if tuple(mask.shape) != shape:
        raise ValueError(f"a mask of the heads is {shape}, not {tuple(mask.shape)}")
    mask = mask.to(device=model.device, dtype=model.dtype)

    def multiply_by(factors: torch.Tensor) -> Callable[..., tuple[torch.Tensor, ...]]:
        def multiply(_: nn.Linear, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            return (args[0] * factors, *args[1:])

        return multiply

    with ExitStack() as hooks:
        for layer, row in zip(model.layers, mask, strict=True):
            factors = row.repeat_interleave(model.head_size)
            output = layer.attention.output.module
            hooks.callback(output.register_forward_pre_hook(multiply_by(factors)).remove)
        yield
