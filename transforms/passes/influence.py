"""Influence through the positions, heads and skip connections of a network's layers.

The input influence of a token is the gradient of an output, averaged along the straight path from
baseline word embeddings to its own, times their difference. Restricted to paths of the network that
pass through chosen nodes it is the influence of a pattern (Lu et al. 2021, Influence Patterns): the
change of the token's embedding is pushed from node to node, and what arrives at the last is times
the gradient there, all of it at each point of the path, and averaged in the end.

Nodes are the outputs h^l of the layers, and between two of them the heads of attention and the skip
connection around it (and around the norm before it, if there is one). What follows attention in a
layer (its norms, and the feed-forward part with its own residual) acts on each token by itself and
lies inside an edge. One forward and one backward pass of the points serve all words and all
candidates, and a word then costs a single token per layer (``layer_path``).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from attribeam.transforms.inputs.batch import row_cost
from attribeam.transforms.inputs.seam import Space
from attribeam.transforms.inputs.targets import Explained, runner_up
from attribeam.transforms.network.capture import Recorder, Watch
from attribeam.transforms.network.model import Model
from attribeam.transforms.network.parts import Layer
from attribeam.transforms.network.rows import Rows
from attribeam.transforms.passes.layer_path import LayerPath, NormSlope
from attribeam.transforms.recovery import fitting

Floats = NDArray[np.float64]


# What is explained ------------------------------------------------------------------------------


def margin_weights(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Weights [B, C] of the margin of a class: 1 for it, -1 for the largest logit of the others.

    Their sum of logits is log p(class) - log p(runner-up), what Lu et al. explain of a classifier.
    """
    # A value is compared with nothing.
    foils = runner_up(logits, targets) if logits.shape[-1] > 1 else None
    return Explained("contrast", targets, foils).weights(logits)


# From a padded batch to single instances -------------------------------------------------------


@dataclass(frozen=True, eq=False)
class InfluenceStates:
    """One instance of T tokens at K points of the path; padding is cut off.

    Attributes:
        layers: What its layers hold.
        shares: Weights of the points, which sum to 1, [K], float64.
        alphas: Where on the path they are, from 0 to 1, [K].
        readout: Position that is read out.
        tangents: How what enters the first layer changes along the path, token by token: dh^0 /
            dalpha, [K, T, d].
        read_gradient: dq/dh^L at the position read out, [K, d].
        influences: What the input influence of each token is the mean of, [K, T], float64.
        outputs: The output q at each point, [K].
        causal: Whether no position attends to a later one.
        coarse: Weights of the points by a rule that has half of them, [K]; None without one.
    """

    layers: Sequence[LayerPath]
    shares: torch.Tensor
    alphas: Floats
    readout: int
    tangents: torch.Tensor
    read_gradient: torch.Tensor
    influences: torch.Tensor
    outputs: torch.Tensor
    causal: bool
    coarse: torch.Tensor | None = None

    @property
    def influence(self) -> torch.Tensor:
        """Input influence g of each token, signed, [T], float64, in units of the output."""
        return self.shares @ self.influences

    @property
    def gain(self) -> torch.Tensor:
        """The output at the last of the points minus at the first, those of the path's ends."""
        last, first = int(self.alphas.argmax()), int(self.alphas.argmin())
        return self.outputs[last].double() - self.outputs[first].double()

    @property
    def rules(self) -> torch.Tensor:
        """The weights of the points, and those of half of them if there are any, [R, K]."""
        return torch.stack([self.shares] if self.coarse is None else [self.shares, self.coarse])

    def weighted(self, shares: Floats, coarse: Floats) -> "InfluenceStates":
        """The same with other weights, and those of a rule that has half of the points."""
        fine, half = (torch.from_numpy(x).to(self.shares) for x in (shares, coarse))
        return replace(self, shares=fine, coarse=half)

    def with_more(self, more: "InfluenceStates") -> "InfluenceStates":
        """The same instance at more points, which still have to be weighted."""
        names = ("shares", "tangents", "read_gradient", "influences", "outputs")
        joined: dict[str, Any] = {
            name: torch.cat([getattr(self, name), getattr(more, name)]) for name in names
        }
        pairs = zip(self.layers, more.layers, strict=True)
        layers = [layer.with_more(other) for layer, other in pairs]
        alphas = np.concatenate([self.alphas, more.alphas])
        return replace(self, layers=layers, alphas=alphas, coarse=None, **joined)

    @property
    def sources(self) -> torch.Tensor:
        """Positions of the tokens that the baseline has in another form, [W].

        From those after the position read out of a causal model no path leads there.
        """
        differing = (self.tangents != 0).any(2).any(0)
        return differing[: self.leading].nonzero()[:, 0]

    @property
    def leading(self) -> int:
        """How many positions paths to that read out may pass: all T, or those up to it."""
        return self.readout + 1 if self.causal else self.tangents.shape[1]

    def reachable(self, at: torch.Tensor) -> torch.Tensor:
        """Whether paths to the position read out lead from positions, [W], to each, [W, T]."""
        every = torch.arange(self.tangents.shape[1], device=at.device)
        if not self.causal:
            return (every >= 0).expand(len(at), -1)
        return (every >= at[:, None]) & (every <= self.readout)


def influence_states(
    model: Model,
    rows: Rows,
    weights: torch.Tensor,
    space: Space,
    *,
    points: Floats,
    shares: Floats,
    budget: float,
) -> Iterator[InfluenceStates]:
    """Runs instances along their paths, forward and backward, and yields what each of them holds.

    It costs a forward and a backward pass of the points. What is yielded takes about eleven
    hidden sizes a token, layer and point, and attention besides.

    Args:
        model: The model.
        rows: B padded rows of at most T tokens.
        weights: Weights that turn logits into the output that is explained, [B, C].
        space: Their paths in word embeddings (``Inputs.space``).
        points: Where on the path from 0 to 1, [K].
        shares: Weights of the points, [K] (``passes.quadrature``).
        budget: Token budget of a run. As many instances are run at once as fit in with all of
            their points; of a longer one, the points are run one after the other.

    Yields:
        The instances in their order.
    """
    size = len(rows)
    at_once = int(budget / row_cost(rows.length, model.head_size))
    at_once = max(1, min(at_once, size * len(points)))
    done = 0

    def observed(at_once: int) -> tuple[_Path, list[_Seen]]:
        until = min(size, done + max(1, at_once // len(points)))
        chosen = torch.arange(done, until, device=rows.device)
        some = _Path.of(model, rows, weights, space, chosen)
        parts = np.array_split(points, -(-len(points) // at_once))
        return some, [some.observe(part) for part in parts]

    while done < size:
        (some, found), at_once = fitting(observed, at_once)
        seen = _joined(found)
        for row in range(len(some.start)):
            yield some.states(seen, row, points, shares)
        done += len(some.start)


class _Seen(NamedTuple):
    """What n rows hold at K points, [n, K, ...]; gradients as in ``LayerPath``."""

    layers: list[dict[str, torch.Tensor]]
    tangents: torch.Tensor
    read_gradient: torch.Tensor
    influence: torch.Tensor
    outputs: torch.Tensor


_HEADED = ("query", "key", "value", "context", "context_gradient")


@dataclass(frozen=True, eq=False)
class _Path:
    """The straight paths of n rows in word embeddings."""

    model: Model
    rows: Rows
    enter: Callable[[Rows, torch.Tensor], torch.Tensor]
    weights: torch.Tensor
    start: torch.Tensor
    difference: torch.Tensor

    @classmethod
    def of(
        cls, model: Model, rows: Rows, weights: torch.Tensor, space: Space, chosen: torch.Tensor
    ) -> "_Path":
        """Those of some of the rows, by their numbers."""
        precise = torch.promote_types(model.dtype, torch.float32)
        start, words = (x[chosen].to(precise) for x in (space.start, space.end))
        weights = weights[chosen].to(precise)
        return cls(model, rows.chosen(chosen), space.enter, weights, start, words - start)

    def observe(self, points: Floats) -> _Seen:
        """Runs some points of all paths: point p of row b is row b K + p."""
        size, count = len(self.start), len(points)
        copies = torch.arange(size, device=self.start.device).repeat_interleave(count)
        rows, weights = self.rows.chosen(copies), self.weights[copies]
        alphas = torch.from_numpy(points).to(self.start).repeat(size)[:, None, None]
        words = self.start[copies] + alphas * self.difference[copies]
        entered, tangents = self._entering(rows, words, self.difference[copies])
        watch = Watch(attention=True, layers=True, projections=True)
        with torch.enable_grad(), _watching(self.model.layers) as (contexts, sums):
            entered.requires_grad_()
            logits, recorder = self.model.run(rows, watch=watch, enter=entered)
            outputs = (weights * logits.to(weights)).sum(-1)
            assert recorder.left is not None
            # No row has a part in another's output, so the gradients of their sum are all of them.
            first, last, *gradients = torch.autograd.grad(
                outputs.sum(), [entered, recorder.left, *contexts, *sums]
            )
        influence = (first.to(tangents) * tangents).sum(-1)
        apart = (
            x.detach().to(weights).unflatten(0, (size, count))
            for x in (tangents, last[:, 0], influence, outputs)
        )
        layers = [
            {name: x.detach().to(weights).unflatten(0, (size, count)) for name, x in own.items()}
            for own in _by_layer(self.model.layers, recorder, contexts, gradients)
        ]
        return _Seen(layers, *apart)

    @torch.no_grad()
    def _entering(
        self, rows: Rows, words: torch.Tensor, change: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What enters the first layer for word embeddings [N, T, E], and its change for theirs."""
        embedding, summed = self.model.embedding, []

        def keep(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            summed.append(args[0])

        with ExitStack() as hooks:
            if embedding.norm is not None:
                hooks.callback(embedding.norm.module.register_forward_pre_hook(keep).remove)
            entered = self.enter(rows, words.to(self.model.dtype))
        if embedding.norm is not None:
            change = NormSlope.at(embedding.norm, summed[0].to(change)).push(change)
        if (projection := embedding.projection) is not None:
            change = functional.linear(change, projection.weight.to(change))
        return entered, change

    def states(self, seen: _Seen, row: int, alphas: Floats, shares: Floats) -> InfluenceStates:
        """One of the rows, without its padding."""
        length = int(self.rows.attention_mask[row].sum())
        return InfluenceStates(
            layers=[
                _layer_path(parts, layer, row, length)
                for parts, layer in zip(self.model.layers, seen.layers, strict=True)
            ],
            shares=torch.from_numpy(shares).to(self.start.device),
            alphas=alphas,
            readout=int(self.rows.readout[row]),
            tangents=seen.tangents[row, :, :length],
            read_gradient=seen.read_gradient[row],
            influences=seen.influence[row, :, :length].double(),
            outputs=seen.outputs[row],
            causal=self.model.causal,
        )


def _by_layer(
    layers: Sequence[Layer],
    recorder: Recorder,
    contexts: Sequence[torch.Tensor],
    gradients: Sequence[torch.Tensor],
) -> list[dict[str, torch.Tensor]]:
    """What each layer holds at N rows, by the names of ``LayerPath``.

    Of all that is of single positions, those are the last dimension but one. Of the last layer one
    query is kept, whose output counts; all else of it is its alone.

    Args:
        layers: The layers.
        recorder: Of the run.
        contexts: Mixed values of all heads, side by side, [N, Q, d] each.
        gradients: Those at all contexts, then those at all that leaves attention's step.
    """
    found = []
    for number, (layer, states) in enumerate(zip(layers, recorder.layers, strict=True)):
        of_context, of_attended = gradients[number], gradients[len(layers) + number]
        own = {
            "query": recorder.queries[number],
            "attention": recorder.attention[number],
            "context": _apart(contexts[number], layer.attention.heads),
            "attended": states.sums[0],
            "context_gradient": _apart(of_context, layer.attention.heads),
            "attended_gradient": of_attended,
        }
        if layer.steps[-1].join is not None:
            own["widened"] = states.sums[-1]
        if number == len(layers) - 1:
            own = {name: _at_readout(x, recorder.read.position) for name, x in own.items()}
        if layer.attending.before is not None:
            own["entered"] = states.entered
        found.append({**own, "key": recorder.keys[number], "value": states.values})
    return found


def _apart(x: torch.Tensor, heads: int) -> torch.Tensor:
    """Heads side by side, [N, Q, d] to [N, H, Q, d/H]."""
    apart: torch.Tensor = x.unflatten(-1, (heads, -1))
    return apart.transpose(1, 2)


def _at_readout(x: torch.Tensor, readout: torch.Tensor) -> torch.Tensor:
    """The position read out of what all positions have, [N, ..., Q, n] to [N, ..., 1, n]."""
    if x.shape[-2] == 1:
        return x
    return x[torch.arange(len(x), device=x.device), ..., readout, :].unsqueeze(-2)


def _layer_path(parts: Layer, layer: dict[str, torch.Tensor], row: int, length: int) -> LayerPath:
    """What a layer holds of one row, without its padding."""
    own = {name: x[row][..., :length, :] for name, x in layer.items()}
    own["attention"] = own["attention"][..., :length]
    own["query"] = own["query"] * parts.attention.scale
    for name in ("key", "value"):
        own[name] = parts.attention.shared(own[name])
    for name in _HEADED:
        own[name] = own[name].contiguous()
    return LayerPath(parts, **own)


def _joined(parts: Sequence[_Seen]) -> _Seen:
    """Points that were run one after the other, together."""
    if len(parts) == 1:
        return parts[0]
    layers = [
        {name: torch.cat([layer[name] for layer in same], 1) for name in same[0]}
        for same in zip(*(seen.layers for seen in parts), strict=True)
    ]
    others = (torch.cat(same, 1) for same in list(zip(*parts, strict=True))[1:])
    return _Seen(layers, *others)


# Hooks -----------------------------------------------------------------------------------------


@contextmanager
def _watching(
    layers: Sequence[Layer],
) -> Iterator[tuple[list[torch.Tensor], list[torch.Tensor]]]:
    """Keeps what passes through layers, [N, Q, d] each, with its graph.

    Yields:
        Mixed values of all heads, and what attention's step adds up to, layer by layer.
    """
    contexts: list[torch.Tensor] = []
    sums: list[torch.Tensor] = []

    def keep(found: list[torch.Tensor], _: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        found.append(args[0])

    with ExitStack() as hooks:
        outputs = {layer.attention.output.module for layer in layers}
        # Layers may share their modules, which then are called once for each.
        norms = {norm.module for layer in layers if (norm := layer.norm_of_sum(0))}
        for found, modules in ((contexts, outputs), (sums, norms)):
            for module in modules:
                hooks.callback(module.register_forward_pre_hook(partial(keep, found)).remove)
        yield contexts, sums
