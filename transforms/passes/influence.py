"""Influence through the positions, heads and skip connections of a post-LN encoder.

The input influence of a token is the gradient of an output, averaged along the straight path from
baseline word embeddings to its own, times their difference. Restricted to paths of the network that
pass through chosen nodes it is the influence of a pattern (Lu et al. 2021, Influence Patterns): the
change of the token's embedding is pushed from node to node, and what arrives at the last is times
the gradient there, all of it at each point of the path, and averaged in the end.

Nodes are the outputs h^l of the layers, and between two of them the heads of attention and the skip
connection around it. What follows attention in a layer (projection, both norms, feed-forward with
its own residual) acts on each token by itself and lies inside an edge. So with u = output(ctx) + h
what enters the first norm, the gradients dq/du and dq/dctx of one backward pass serve all words and
all candidates: with A the attention of a head, ctx its mixed values, and dq, dk, dv the changes of
its projections due to a change dh at position c, what changes at query j is

    dctx_j = A_jc (dv + (q_j . dk) (v_c - ctx_j)) + [j = c] sum_x A_cx (dq . k_x) (v_x - ctx_c)

per head, its score dq/dctx_j . dctx_j, and, if j = c, dq/du_c . dh that of the skip connection. No
Jacobian is ever formed, and a word costs a single token per layer.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from attribeam.transforms.inputs.batch import Batch, row_cost
from attribeam.transforms.network.anatomy import optional_part, part
from attribeam.transforms.network.capture import Watch
from attribeam.transforms.network.model import Model
from attribeam.transforms.network.parts import (
    Activation,
    Affine,
    Attention,
    FeedForward,
    Layer,
    Norm,
)
from attribeam.transforms.network.rows import Rows
from attribeam.transforms.recovery import fitting

Floats = NDArray[np.float64]
# Where the path starts, in word embeddings: every token, or all but special ones and the one read
# out, replaced by [MASK]; every token by [PAD]; or zeros.
Start = Literal["mask", "mask_words", "pad", "zero"]


# What the path starts from, and what is explained ----------------------------------------------


@torch.no_grad()
def word_baseline(model: Model, batch: Batch, start: Start = "mask") -> torch.Tensor:
    """Baseline word embeddings, [B, T, E]; position and type embeddings are no part of the path.

    Raises:
        ValueError: If the model's mask token is needed and unknown.
    """
    ids = batch.rows.input_ids
    if start == "zero":
        return torch.zeros_like(word_embeddings(model, ids))
    token = model.pad_id if start == "pad" else model.mask_id
    if token is None:
        raise ValueError(f"the model's {start.removesuffix('_words')} token is unknown")
    replaced = batch.removable if start == "mask_words" else torch.ones_like(batch.removable)
    return word_embeddings(model, ids.masked_fill(replaced, token))


def word_embeddings(model: Model, ids: torch.Tensor) -> torch.Tensor:
    """What is looked up for tokens, [..., E], before position and type are added."""
    table: torch.Tensor = _word_table(model).weight
    return functional.embedding(ids, table)


def margin_weights(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Weights [B, C] of the margin of a class: 1 for it, -1 for the largest logit of the others.

    Their sum of logits is log p(class) - log p(runner-up), what Lu et al. explain of a classifier.
    """
    chosen = functional.one_hot(targets, logits.shape[-1]).bool()
    others = logits.masked_fill(chosen, -torch.inf).argmax(-1)
    return (chosen.int() - functional.one_hot(others, logits.shape[-1])).to(logits)


# Derivatives of what acts on single tokens -----------------------------------------------------


@dataclass(frozen=True, eq=False)
class NormSlope:
    """Derivative of a layer norm where it was given x.

    Attributes:
        normed: x less its mean, over its deviation, [..., d].
        scale: One over the deviation, [..., 1].
        weight: Of the norm, [d].
    """

    normed: torch.Tensor
    scale: torch.Tensor
    weight: torch.Tensor

    @classmethod
    def at(cls, norm: Norm, x: torch.Tensor) -> "NormSlope":
        """The derivative of a norm at x, [..., d]."""
        centred = x - x.mean(-1, keepdim=True)
        scale = (centred.square().mean(-1, keepdim=True) + norm.eps).rsqrt()
        return cls(centred * scale, scale, norm.weight.to(x))

    def of(self, tokens: torch.Tensor) -> "NormSlope":
        """Those of some tokens, [K, U, d] to [K, W, d]."""
        return NormSlope(self.normed[:, tokens], self.scale[:, tokens], self.weight)

    def push(self, change: torch.Tensor) -> torch.Tensor:
        """Change of what comes out for a change of x."""
        return self._both_ways(change) * self.weight

    def pull(self, gradient: torch.Tensor) -> torch.Tensor:
        """Gradient at x for a gradient at what comes out."""
        return self._both_ways(gradient * self.weight)

    def _both_ways(self, x: torch.Tensor) -> torch.Tensor:
        """Before the weight the Jacobian is symmetric."""
        along = (x * self.normed).mean(-1, keepdim=True)
        return (x - x.mean(-1, keepdim=True)).addcmul_(self.normed, along, value=-1) * self.scale


@dataclass(frozen=True, eq=False)
class FinishSlope:
    """Derivative of what a layer does to a token between u and its output (``finish``).

    Attributes:
        inside: The feed-forward part.
        attended: Derivative of the norm after attention, at W tokens and K points, [K, W, d].
        bent: Derivative of the activation, [K, W, m].
        widened: That of the norm after the feed-forward part.
    """

    inside: FeedForward
    attended: NormSlope
    bent: torch.Tensor
    widened: NormSlope

    def of(self, tokens: torch.Tensor) -> "FinishSlope":
        """Those of some tokens."""
        return FinishSlope(
            self.inside, self.attended.of(tokens), self.bent[:, tokens], self.widened.of(tokens)
        )

    def push(self, change: torch.Tensor) -> torch.Tensor:
        """Change of the layer's output for one of u, [K, W, d] both."""
        change = self.attended.push(change)
        wide = functional.linear(change, _weight(self.inside.expand, change)).mul_(self.bent)
        return self.widened.push(
            functional.linear(wide, _weight(self.inside.contract, wide)) + change
        )

    def pull(self, gradient: torch.Tensor) -> torch.Tensor:
        """Gradient at u for one at the layer's output, [K, W, d] both."""
        gradient = self.widened.pull(gradient)
        wide = (gradient @ _weight(self.inside.contract, gradient)).mul_(self.bent)
        return self.attended.pull(wide @ _weight(self.inside.expand, wide) + gradient)


# A layer along the path ------------------------------------------------------------------------


class Change(NamedTuple):
    """Changes of what enters a layer, each at one position, and of what is projected from it.

    Attributes:
        entered: dh, [K, W, d].
        query: dq of all heads, scaled as queries are, [K, H, W, d/H].
        key: dk.
        value: dv.
    """

    entered: torch.Tensor
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor


@dataclass(frozen=True, eq=False)
class LayerPath:
    """What a layer holds of one instance at K points of the path, and its gradients.

    Queries are those of Q positions: all T, or, in the last layer, the one read out alone.

    Attributes:
        parts: The layer.
        query: Queries over the square root of their size, [K, H, Q, d/H].
        key: [K, H, T, d/H].
        value: [K, H, T, d/H].
        attention: [K, H, Q, T].
        context: Mixed values, [K, H, Q, d/H].
        attended: u, what enters the norm after attention, [K, Q, d].
        widened: What enters the norm after the feed-forward part, [K, Q, d].
        context_gradient: dq/dctx, [K, H, Q, d/H].
        attended_gradient: dq/du, [K, Q, d].
    """

    parts: Layer
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    attention: torch.Tensor
    context: torch.Tensor
    attended: torch.Tensor
    widened: torch.Tensor
    context_gradient: torch.Tensor
    attended_gradient: torch.Tensor

    def project(self, entered: torch.Tensor) -> Change:
        """Changes of queries, keys and values for changes of what enters, [K, W, d]."""
        query, key, value = (
            self._heads(functional.linear(entered, _weight(linear, entered)))
            for linear in (self._mixing.query, self._mixing.key, self._mixing.value)
        )
        return Change(entered, query * self._scale, key, value)

    def node_scores(self, change: Change, at: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """Influence of changes at given positions, [W], through each position of the output.

        All of the network above is open. Not for the last layer, whose output is one position.

        Args:
            change: The changes.
            at: Where they are.
            shares: Weights of the points, [K].

        Returns:
            Scores, [W, T], in float64.
        """
        gradient = self.context_gradient
        # How far ctx_j would move towards v_c, and what that is worth: [K, H, Q, W].
        worth = gradient @ self.value[:, :, at].mT
        worth = worth - (gradient * self.context).sum(-1, keepdim=True)
        worth = (self.query @ change.key.mT).mul_(worth).add_(gradient @ change.value.mT)
        by_point = worth.mul_(self.attention[..., at]).sum(1)
        scores = torch.einsum("k,kqw->wq", shares, by_point.double())
        own = (self._by_own_query(change, at) * gradient[:, :, at]).sum((1, 3))
        own = own + (self.attended_gradient[:, at] * change.entered).sum(-1)
        scores[torch.arange(len(at), device=at.device), at] += shares @ own.double()
        return scores

    def move(self, change: Change, at: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
        """Changes dctx at positions ``to`` for those at positions ``at``, [K, H, W, d/H]."""
        places = self._places(to)
        towards = self.value[:, :, at] - self.context[:, :, places]
        attended = (self.query[:, :, places] * change.key).sum(-1, keepdim=True)
        moved = self._from_to(at, places) * (change.value + attended * towards)
        stay = (at == to).nonzero()[:, 0]
        if len(stay):
            own = self._by_own_query(change._replace(query=change.query[:, :, stay]), at[stay])
            moved.index_add_(2, stay, own)
        return moved

    def attend(
        self, moved: torch.Tensor, skipped: torch.Tensor, entered: torch.Tensor
    ) -> torch.Tensor:
        """Changes du by what heads move, and by what skips attention, [K, W, d].

        Args:
            moved: Changes of contexts, zero for heads that are closed, [K, H, W, d/H].
            skipped: Whether the skip connection is open for a change, [W].
            entered: The changes, [K, W, d].
        """
        mixed = moved.transpose(1, 2).flatten(2)
        change = functional.linear(mixed, _weight(self._mixing.output, mixed))
        return change.addcmul_(entered, skipped.to(entered)[:, None])

    def pull(
        self, gradient: torch.Tensor, at: torch.Tensor, to: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradients at contexts and at what entered, for gradients at u, [K, W, d].

        Only what goes from the positions ``at`` to the positions ``to`` counts; ``at`` is what
        ``move`` would be given, of which this is the transpose.

        Returns:
            dq/dctx at ``to``, [K, H, W, d/H], and dq/dh at ``at``, [K, W, d].
        """
        places = self._places(to)
        contexts = self._heads(gradient @ _weight(self._mixing.output, gradient))
        towards = self.value[:, :, at] - self.context[:, :, places]
        shares = self._from_to(at, places)
        worth = shares * (contexts * towards).sum(-1, keepdim=True)
        entered = self._back(contexts * shares, self._mixing.value)
        entered += self._back(self.query[:, :, places] * worth, self._mixing.key)
        stay = (at == to).nonzero()[:, 0]
        if len(stay):
            own, place = contexts[:, :, stay], places[stay]
            worth = own @ self.value.mT - (own * self.context[:, :, place]).sum(-1, keepdim=True)
            queries = (worth * self.attention[:, :, place]) @ self.key * self._scale
            entered.index_add_(1, stay, self._back(queries, self._mixing.query) + gradient[:, stay])
        return contexts, entered

    def finish(self, to: torch.Tensor) -> FinishSlope:
        """Derivative of what follows attention, at positions [W]; each is looked at once."""
        places, tokens = torch.unique(self._places(to), return_inverse=True)
        attended, widened = self.attended[:, places], self.widened[:, places]
        norm, last = self.parts.joins
        inside = self.parts.feed_forward
        first = NormSlope.at(norm, attended)
        normed = first.normed * first.weight
        if norm.bias is not None:
            normed = normed + norm.bias.to(attended)
        expand = inside.expand
        wide = functional.linear(normed, _weight(expand, normed), _bias(expand, normed))
        bent = _slope(inside.activation, wide)
        found = FinishSlope(inside, first, bent, NormSlope.at(last, widened))
        return found.of(tokens) if len(places) > 1 else found

    @property
    def _mixing(self) -> Attention:
        return self.parts.attention

    @property
    def _scale(self) -> float:
        return float(self.query.shape[-1] ** -0.5)

    def _places(self, positions: torch.Tensor) -> torch.Tensor:
        """Numbers of the queries of some positions, [W]."""
        alone = self.query.shape[2] < self.key.shape[2]
        return torch.zeros_like(positions) if alone else positions

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        """[K, W, d] to [K, H, W, d/H]."""
        apart: torch.Tensor = x.unflatten(-1, (self.key.shape[1], -1))
        return apart.transpose(1, 2)

    def _back(self, x: torch.Tensor, linear: Affine) -> torch.Tensor:
        """[K, H, W, d/H] of what is projected to [K, W, d] of what is projected from."""
        return x.transpose(1, 2).flatten(2) @ _weight(linear, x)

    def _from_to(self, at: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Attention that queries pay to one position each, [K, H, W, 1]."""
        return self.attention[:, :, places, at][..., None]

    def _by_own_query(self, change: Change, at: torch.Tensor) -> torch.Tensor:
        """What the change of a position's own query adds to its dctx, [K, H, W, d/H]."""
        places = self._places(at)
        scores = (change.query @ self.key.mT).mul_(self.attention[:, :, places])
        moved = scores @ self.value
        return moved.addcmul_(self.context[:, :, places], scores.sum(-1, keepdim=True), value=-1)


def _weight(linear: Affine, like: torch.Tensor) -> torch.Tensor:
    return linear.weight.to(like)


def _bias(linear: Affine, like: torch.Tensor) -> torch.Tensor | None:
    return None if linear.bias is None else linear.bias.to(like)


def _slope(activation: Activation, wide: torch.Tensor) -> torch.Tensor:
    """Derivative of the activation, element by element."""
    with torch.enable_grad():
        wide = wide.detach().requires_grad_()
        (slope,) = torch.autograd.grad(activation(wide).sum(), wide)
    return slope


# From a padded batch to single instances -------------------------------------------------------


@dataclass(frozen=True, eq=False)
class InfluenceStates:
    """One instance of T tokens at K points of the path; padding is cut off.

    Attributes:
        layers: What its layers hold.
        shares: Weights of the points, which sum to 1, [K], float64.
        readout: Position that is read out.
        tangents: How what enters the encoder changes along the path, token by token: dh^0 / dalpha,
            [K, T, d].
        read_gradient: dq/dh^L at the position read out, [K, d].
        influence: Input influence g of each token, signed, [T], float64, in units of the output.
        outputs: The output q at each point, [K].
    """

    layers: Sequence[LayerPath]
    shares: torch.Tensor
    readout: int
    tangents: torch.Tensor
    read_gradient: torch.Tensor
    influence: torch.Tensor
    outputs: torch.Tensor

    @property
    def sources(self) -> torch.Tensor:
        """Positions of the tokens that the baseline has in another form, [W]."""
        return (self.tangents != 0).any(2).any(0).nonzero()[:, 0]


def influence_states(
    model: Model,
    rows: Rows,
    weights: torch.Tensor,
    baseline: torch.Tensor,
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
        baseline: Baseline word embeddings, [B, T, E] (``word_baseline``).
        points: Where on the path from 0 to 1, [K].
        shares: Weights of the points, [K] (``passes.quadrature``).
        budget: Token budget of a run. As many instances are run at once as fit in with all of
            their points; of a longer one, the points are run one after the other.

    Yields:
        The instances in their order.
    """
    size, length = rows.input_ids.shape
    at_once = int(budget / row_cost(length, model.head_size))
    at_once = max(1, min(at_once, size * len(points)))
    done = 0

    def observed(at_once: int) -> tuple[_Path, list[_Seen]]:
        until = min(size, done + max(1, at_once // len(points)))
        chosen = torch.arange(done, until, device=rows.input_ids.device)
        some = _Path.of(model, rows.chosen(chosen), weights[chosen], baseline[chosen])
        parts = np.array_split(points, -(-len(points) // at_once))
        return some, [some.observe(part) for part in parts]

    while done < size:
        (some, found), at_once = fitting(observed, at_once)
        seen = _joined(found)
        for row in range(len(some.start)):
            yield some.states(seen, row, shares)
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
    weights: torch.Tensor
    start: torch.Tensor
    difference: torch.Tensor

    @classmethod
    def of(cls, model: Model, rows: Rows, weights: torch.Tensor, baseline: torch.Tensor) -> "_Path":
        precise = torch.promote_types(model.dtype, torch.float32)
        start = baseline.to(precise)
        words = word_embeddings(model, rows.input_ids).to(precise)
        return cls(model, rows, weights.to(precise), start, words - start)

    def observe(self, points: Floats) -> _Seen:
        """Runs some points of all paths: point p of row b is row b K + p."""
        size, count = len(self.start), len(points)
        copies = torch.arange(size, device=self.start.device).repeat_interleave(count)
        rows, weights = self.rows.chosen(copies), self.weights[copies]
        alphas = torch.from_numpy(points).to(self.start).repeat(size)[:, None, None]
        words = self.start[copies] + alphas * self.difference[copies]
        entered, tangents = _embedded(self.model, rows, words, self.difference[copies])
        with torch.enable_grad(), _watching(self.model.layers) as seen:
            entered.requires_grad_()
            logits, recorder = self.model.run(rows, watch=Watch(attention=True), enter=entered)
            outputs = (weights * logits.to(weights)).sum(-1)
            depth = self.model.num_layers
            # No row has a part in another's output, so the gradients of their sum are all of them.
            first, last, *gradients = torch.autograd.grad(
                outputs.sum(), [entered, *seen["left"], *seen["context"], *seen["attended"]]
            )
        seen["attention"] = recorder.attention
        seen["context_gradient"], seen["attended_gradient"] = gradients[:depth], gradients[depth:]
        del seen["left"]
        _only_readout(seen, rows.readout)
        influence = (first.to(tangents) * tangents).sum(-1)
        apart = (
            x.detach().to(weights).unflatten(0, (size, count))
            for x in (tangents, last[:, 0], influence, outputs)
        )
        layers = [
            {
                name: of_layers[layer].detach().to(weights).unflatten(0, (size, count))
                for name, of_layers in seen.items()
            }
            for layer in range(depth)
        ]
        return _Seen(layers, *apart)

    def states(self, seen: _Seen, row: int, shares: Floats) -> InfluenceStates:
        """One of the rows, without its padding."""
        length = int(self.rows.attention_mask[row].sum())
        weights = torch.from_numpy(shares).to(self.start.device)
        return InfluenceStates(
            layers=[
                _layer_path(parts, layer, row, length, self._heads)
                for parts, layer in zip(self.model.layers, seen.layers, strict=True)
            ],
            shares=weights,
            readout=int(self.rows.readout[row]),
            tangents=seen.tangents[row, :, :length],
            read_gradient=seen.read_gradient[row],
            influence=weights @ seen.influence[row, :, :length].double(),
            outputs=seen.outputs[row],
        )

    @property
    def _heads(self) -> int:
        return self.model.num_heads


def _layer_path(
    parts: Layer, layer: dict[str, torch.Tensor], row: int, length: int, heads: int
) -> LayerPath:
    """What a layer holds of one row, its heads apart."""
    own = {name: tensor[row] for name, tensor in layer.items()}
    own["attention"] = own["attention"][:, :, :length, :length]
    for name in own.keys() - {"attention"}:
        own[name] = own[name][:, :length]
        if name in _HEADED:
            own[name] = own[name].unflatten(-1, (heads, -1)).transpose(1, 2).contiguous()
    own["query"] = own["query"] * own["query"].shape[-1] ** -0.5
    return LayerPath(parts, **own)


def _only_readout(seen: dict[str, list[torch.Tensor]], readout: torch.Tensor) -> None:
    """Keeps of the last layer the one query whose output counts; all else of it is its alone."""
    every = torch.arange(len(readout), device=readout.device)
    query, attention = seen["query"], seen["attention"]
    query[-1] = query[-1][every, readout][:, None]
    attention[-1] = attention[-1][every, :, readout][:, :, None]


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
def _watching(layers: Sequence[Layer]) -> Iterator[dict[str, list[torch.Tensor]]]:
    """Keeps what passes through the parts of layers, [N, Q, d] each, with its graph.

    Under ``left`` is what came out of the last layer.
    """
    seen: dict[str, list[torch.Tensor]] = defaultdict(list)

    def enters(name: str, module: nn.Module) -> None:
        def keep(_: nn.Module, args: tuple[Any, ...]) -> None:
            seen[name].append(args[0])

        hooks.callback(module.register_forward_pre_hook(keep).remove)

    def leaves(name: str, module: nn.Module) -> None:
        def keep(_: nn.Module, __: tuple[Any, ...], output: torch.Tensor) -> None:
            seen[name].append(output)

        hooks.callback(module.register_forward_hook(keep).remove)

    with ExitStack() as hooks:
        for parts in layers:
            for name in ("query", "key", "value"):
                leaves(name, getattr(parts.attention, name).module)
            enters("context", parts.attention.output.module)
            for name, norm in zip(("attended", "widened"), parts.joins, strict=True):
                enters(name, norm.module)
        leaves("left", layers[-1].module)
        yield seen


def _word_table(model: Model) -> nn.Embedding:
    table = model.network.get_input_embeddings()
    assert isinstance(table, nn.Embedding)
    return table


@torch.no_grad()
def _embedded(
    model: Model, rows: Rows, words: torch.Tensor, change: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What enters the encoder for word embeddings [N, T, E], and its change for theirs.

    In every family the sum of embeddings is normalised, and perhaps projected after that.
    """
    embeddings = part(model.network, model.anatomy.embeddings)
    (norm,) = (Norm(m) for m in embeddings.modules() if isinstance(m, nn.LayerNorm))
    summed: list[torch.Tensor] = []

    def keep(_: nn.Module, args: tuple[Any, ...]) -> None:
        summed.append(args[0])

    def replace(_: nn.Module, __: tuple[Any, ...], found: torch.Tensor) -> torch.Tensor:
        return words.to(found)

    with ExitStack() as hooks:
        hooks.callback(norm.module.register_forward_pre_hook(keep).remove)
        hooks.callback(_word_table(model).register_forward_hook(replace).remove)
        entered = model.embed(rows)
    change = NormSlope.at(norm, summed[0].to(change)).push(change)
    projection = optional_part(model.network, model.anatomy.projection)
    if isinstance(projection, nn.Linear):
        change = functional.linear(change, _weight(Affine(projection), change))
    return entered, change
