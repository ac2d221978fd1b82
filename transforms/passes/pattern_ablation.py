"""How much of a prediction is left when only the nodes of some paths are kept.

A pattern claims that a token's influence takes one path through the network. The claim is tested by
running the model with nothing but the nodes that some token's pattern has, all others set to zero,
and seeing whether the prediction is still right (Lu et al. 2021, Influence Patterns). Other sets of
nodes show what that is worth: those of random patterns, of paths of large attention, and of large
influence in each layer for itself.

Nodes are h^l_j at positions j and levels l: what enters the first layer at level 0, and what comes
out of layer l, after its last norm. Heads are a^l_jk, the context of head k at query j before it is
projected (the projection's bias stays), and skips the residual that goes around attention at j;
keys, queries and values read what entered the layer all the same, ablated as its nodes are. The
feed-forward part and its residual are inside an edge, and never ablated.

The position read out is always kept at the last level, as the node that all paths end in, and at
level 0. The [MASK] of a masked LM has no influence and no pattern if the baseline is [MASK] too,
but without its embedding, position included, the model would not know what it is asked for: what
is kept of the other tokens is compared, and not that.

Where no position attends to a later one, no path goes back, and none past the position read out:
sets of paths and of large influence have no node there. ``whole`` has all nodes of all models.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from attribeam.transforms.inputs.batch import Batch, Flags, Instance, pack
from attribeam.transforms.inputs.kinds import collate
from attribeam.transforms.network.capture import Watch, current_recorder
from attribeam.transforms.network.model import Model
from attribeam.transforms.network.rows import Rows
from attribeam.transforms.passes.influence import InfluenceStates
from attribeam.transforms.passes.patterns import SKIP, Pattern
from attribeam.transforms.recovery import halving

Kind = Literal[
    "whole",
    "nothing",
    "embedding",
    "attention",
    "attention_no_skip",
    "random",
    "attention_greedy",
    "attention_beam",
    "attention_viterbi",
    "attention_rollout",
    "conductance",
    "internal_influence",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
BEAM_WIDTH = 10

Floats = NDArray[np.float64]
# Positions of a path from a token to that read out, one path a row, [W, L + 1].
Paths = NDArray[np.intp]
_T = TypeVar("_T")


class AblationRow(NamedTuple):
    """What the model says of an instance with some of its nodes alone.

    Attributes:
        kind: Which nodes are kept (``kept_sets``).
        nodes_kept: How many, of the L T + 1 that lead to the output.
        heads_kept: How many heads, over queries and layers; None where none is ablated.
        skips_kept: How many skips around attention; None likewise.
        output: What was explained of the model, q = weights . logits.
        correct: Whether it is above 0.
    """

    kind: Kind
    nodes_kept: int
    heads_kept: int | None
    skips_kept: int | None
    output: float
    correct: bool


@dataclass(frozen=True, eq=False)
class Kept:
    """What is kept of one instance.

    Attributes:
        nodes: By level and position, [L + 1, T]. Of the last level only that read out counts.
        heads: By layer, query and head, [L, T, H]; None for all of them.
        skips: By layer and position, [L, T]; None for all of them.
    """

    nodes: Flags
    heads: Flags | None = None
    skips: Flags | None = None

    @property
    def key(self) -> tuple[bytes | None, ...]:
        """Equal for equal sets of the same instance."""
        parts = (self.nodes, self.heads, self.skips)
        return tuple(None if flags is None else flags.tobytes() for flags in parts)


def ablations(
    model: Model,
    batch: Batch,
    states_and_patterns: Iterable[tuple[InfluenceStates, Sequence[Pattern]]],
    weights: torch.Tensor,
    *,
    seed: int,
    budget: int,
) -> list[list[AblationRow]]:
    """Runs each instance with nothing but what each kind of set keeps of it.

    It costs one forward pass for attention, and one for each set; sets of an instance that are the
    same are run once. All of them share batches.

    Args:
        model: The model.
        batch: B instances.
        states_and_patterns: What each holds along its path, and its patterns at both levels, in
            the order of the batch. They are taken one after the other, so that an iterator need
            not hold the states of all.
        weights: What q = weights . logits is, [B, C]: that which the patterns explain.
        seed: Seed of the random patterns.
        budget: Token budget of a run.

    Returns:
        For each instance a row of each kind, in the order of ``KINDS``.
    """
    instances = batch.instances
    attention = _mean_attention(model, instances, budget)
    variants: list[tuple[int, Kept]] = []
    wanted: list[list[tuple[Kind, Kept, int]]] = []
    for number, (instance, mixing, (states, patterns)) in enumerate(
        zip(instances, attention, states_and_patterns, strict=True)
    ):
        places: dict[tuple[bytes | None, ...], int] = {}
        wanted.append([])
        for kind, kept in kept_sets(model, instance, states, patterns, mixing, seed).items():
            place = places.setdefault(kept.key, len(variants))
            if place == len(variants):
                variants.append((number, kept))
            wanted[-1].append((kind, kept, place))
    outputs = _outputs(model, instances, variants, weights, budget)
    return [
        [_row(kind, kept, instance.position, outputs[place]) for kind, kept, place in own]
        for instance, own in zip(instances, wanted, strict=True)
    ]


def _row(kind: Kind, kept: Kept, readout: int, output: float) -> AblationRow:
    return AblationRow(
        kind=kind,
        nodes_kept=int(kept.nodes[:-1].sum()) + int(kept.nodes[-1, readout]),
        heads_kept=None if kept.heads is None else int(kept.heads.sum()),
        skips_kept=None if kept.skips is None else int(kept.skips.sum()),
        output=output,
        correct=output > 0,
    )


# What is kept ---------------------------------------------------------------------------------


def kept_sets(
    model: Model,
    instance: Instance,
    states: InfluenceStates,
    patterns: Sequence[Pattern],
    attention: Floats,
    seed: int,
) -> dict[Kind, Kept]:
    """What each kind of set keeps of an instance.

    ``whole`` is all, and ``nothing`` the readout's first and last node. What is made of paths has
    the nodes of the path of each word that has a pattern: ``embedding`` those of the patterns,
    ``random`` others of the same words, any path between the same ends with equal chances
    (``random_paths``), and ``attention_*`` paths through attention (``attention_paths``).
    ``attention`` has the nodes of ``embedding``, and of heads and skips only those of the patterns
    at attention level; ``attention_no_skip`` has no skip besides. ``conductance`` and
    ``internal_influence`` have as many nodes at each level as ``embedding``, the largest ones.

    Args:
        model: The model.
        instance: The instance, of T tokens.
        states: What it holds along its path.
        patterns: Its patterns at both levels.
        attention: Its attention, the mean of all heads, [L, T, T] (queries first).
        seed: Seed of the random patterns.
    """
    depth, length, readout = len(attention), len(instance), states.readout
    coarse = [pattern for pattern in patterns if pattern.level == "embedding"]
    fine = [pattern for pattern in patterns if pattern.level == "attention"]
    sources = np.array([pattern.source for pattern in coarse], np.intp)
    nodes = np.array([pattern.nodes for pattern in coarse], np.intp).reshape(-1, depth + 1)
    keep = partial(nodes_of_paths, length=length, readout=readout)
    chosen = keep(nodes)
    heads, skips = edges_of_patterns(fine, length, depth, _num_heads(model))
    anyhow = random_paths(instance, depth, seed, model.causal)[sources]
    found: dict[Kind, Kept] = {
        "whole": Kept(np.ones((depth + 1, length), np.bool_)),
        "nothing": Kept(keep(nodes[:0])),
        "embedding": Kept(chosen),
        "attention": Kept(chosen, heads, skips),
        "attention_no_skip": Kept(chosen, heads, np.zeros_like(skips)),
        "random": Kept(keep(anyhow)),
    }
    leading = slice(states.leading)
    for kind, paths in attention_paths(attention[:, leading, leading], readout).items():
        found[kind] = Kept(keep(paths[sources]))
    for kind, scores in layer_scores(states).items():
        scores[:, states.leading :] = -np.inf
        scores[0, readout] = np.inf
        found[kind] = Kept(_largest(scores, chosen))
    return found


def nodes_of_paths(paths: Paths, length: int, readout: int) -> Flags:
    """Nodes of any of the paths, and those of the readout that are always kept, [L + 1, T]."""
    nodes = np.zeros((paths.shape[1], length), np.bool_)
    nodes[np.arange(paths.shape[1]), paths] = True
    nodes[[0, -1], readout] = True
    return nodes


def edges_of_patterns(
    patterns: Iterable[Pattern], length: int, depth: int, heads: int
) -> tuple[Flags, Flags]:
    """Heads, [L, T, H], and skips, [L, T], of any of the patterns; heads are those of a query."""
    by_head = np.zeros((depth, length, heads), np.bool_)
    by_skip = np.zeros((depth, length), np.bool_)
    for pattern in patterns:
        assert pattern.heads is not None
        for layer, (head, to) in enumerate(zip(pattern.heads, pattern.nodes[1:], strict=True)):
            if head == SKIP:
                by_skip[layer, to] = True
            else:
                by_head[layer, to, head] = True
    return by_head, by_skip


def random_paths(instance: Instance, depth: int, seed: int, causal: bool = False) -> Paths:
    """A random path from each token to the position read out, [T, L + 1], all with equal chances.

    Each node between first and last is any position, or, in a causal model, none before the last
    one: there a path is a choice of L - 1 positions from the token to that read out, in order,
    which may be the same. A token after that has no path; its row stays where it is. The path of a
    token does not depend on which others are asked for.
    """
    length, readout = len(instance), instance.position
    every, ends = np.arange(length), np.full(length, readout)
    generator = instance.generator(seed, "random pattern")
    if not causal:
        return np.column_stack([every, generator.integers(length, size=(length, depth - 1)), ends])
    between = np.repeat(every[:, None], depth - 1, 1)
    for token in range(readout + 1 if depth > 1 else 0):
        # As many choices with repetition are there as of so many more positions without.
        steps = generator.choice(readout - token + depth - 1, depth - 1, replace=False)
        between[token] += np.sort(steps) - np.arange(depth - 1)
    return np.column_stack([every, between, ends])


def _largest(scores: Floats, like: Flags) -> Flags:
    """At each level but the last, [L, T], as many nodes as others have, [L + 1, T].

    Of equal scores the earlier position counts as larger.
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    nodes = like.copy()
    for level, best_first in enumerate(order):
        nodes[level] = False
        nodes[level, best_first[: like[level].sum()]] = True
    return nodes


# Paths through attention ----------------------------------------------------------------------


def attention_paths(attention: Floats, readout: int) -> dict[Kind, Paths]:
    """Paths of large attention from each token to the position read out, [T, L + 1] each.

    What flows from position c to position j in a layer is the attention A that query j pays to key
    c, the mean of all heads. The weight of a path is the product over layers. ``attention_greedy``
    goes from the token up by what is largest in each layer, and ``attention_beam`` keeps the ten
    best on the way. The others count the skip connection for half, (A + I) / 2:
    ``attention_viterbi`` is the best path there is, and ``attention_rollout`` has at each level the
    node that most of the weight of all paths between the same ends passes through, which is
    attention rollout up to the node, times that from it on. With the skip connection a greedy path
    would never move before the last layer, and would keep every node: 1 + A_cc >= A_jc.

    The authors' code goes from query to key in all but rollout, against the flow of information;
    greedy and beam search leave the first layer out, take the largest head, not the mean, and no
    skip connection either; the second adds where the first multiplies. Of rollout it has the row of
    the position read out, and no path.

    Args:
        attention: The mean of all heads, [L, T, T], queries first; its rows sum to 1. Of a causal
            model it ends with the position read out, so that from every token a path leads there,
            and what no attention is paid to is on no path.
        readout: The position read out.
    """
    with_skip = attention + np.eye(attention.shape[1])
    with_skip /= with_skip.sum(-1, keepdims=True)
    return {
        "attention_greedy": beam_paths(attention, readout, 1),
        "attention_beam": beam_paths(attention, readout, BEAM_WIDTH),
        "attention_viterbi": best_paths(with_skip, readout),
        "attention_rollout": rollout_paths(with_skip, readout),
    }


def beam_paths(flow: Floats, readout: int, width: int) -> Paths:
    """Paths by beam search from each token up; greedy ones if one is kept.

    Args:
        flow: What flows to each position (first) from each other in each layer, [L, T, T].
        readout: Where they end.
        width: How many paths of each token are kept in each layer.
    """
    length = flow.shape[1]
    every = np.arange(length)[:, None]
    paths, weights = every[..., None], np.ones((length, 1))
    for layer in flow[:-1]:
        # By path so far and next node, [T, width, T].
        onward = (weights[..., None] * layer.T[paths[..., -1]]).reshape(length, -1)
        best = np.argsort(-onward, axis=1, kind="stable")[:, :width]
        weights = onward[every, best]
        paths = np.concatenate([paths[every, best // length], (best % length)[..., None]], 2)
    last = (weights * flow[-1, readout][paths[..., -1]]).argmax(1)
    return _ending(paths[every[:, 0], last], readout)


def best_paths(flow: Floats, readout: int) -> Paths:
    """The path of the largest product from each token; see ``beam_paths`` for the arguments.

    From the end down, so that one pass (Viterbi's) finds those of all tokens.
    """
    weights, following = flow[-1, readout], []
    for layer in flow[-2::-1]:
        onward = layer * weights[:, None]
        following.append(onward.argmax(0))
        weights = onward.max(0)
    paths = [np.arange(flow.shape[1])]
    for step in reversed(following):
        paths.append(step[paths[-1]])
    return _ending(np.stack(paths, 1), readout)


def rollout_paths(flow: Floats, readout: int) -> Paths:
    """At each level the node with most of the weight of all paths from a token to the end."""
    above = [flow[-1, readout]]
    for layer in flow[-2:0:-1]:
        above.append(above[-1] @ layer)
    length = flow.shape[1]
    below, paths = np.eye(length), [np.arange(length)]
    for layer, onward in zip(flow[:-1], reversed(above), strict=False):
        below = layer @ below
        paths.append((below * onward[:, None]).argmax(0))
    return _ending(np.stack(paths, 1), readout)


def _ending(paths: Paths, readout: int) -> Paths:
    """The paths with their last node."""
    return np.column_stack([paths, np.full(len(paths), readout)])


# Influence in each layer for itself -----------------------------------------------------------


@torch.no_grad()
def layer_scores(states: InfluenceStates) -> dict[Kind, Floats]:
    """Layer-based scores of nodes at all levels but the last, which has one, [L, T] each.

    ``conductance`` is the integral over the path of dq/dh^l_j . dh^l_j/dalpha (Dhamdhere et al.
    2018): the influence of all tokens through the node, signed, summing to the same at each level.
    ``internal_influence`` is the mean of the gradient dq/dh^l_j over the path (Leino et al. 2018),
    times neither the activation nor its change. It is by feature; of a node the absolute values are
    summed, as signs of features that a norm has spread say nothing together.
    """
    found = {"conductance": conductance(states), "internal_influence": internal_influence(states)}
    return {kind: scores.cpu().numpy() for kind, scores in found.items()}  # type: ignore[misc]


@torch.no_grad()
def conductance(states: InfluenceStates) -> torch.Tensor:
    """Conductance of the nodes at levels below the last, [L, T], float64.

    What follows attention in a layer acts on each token by itself, so that dq/du . du is the same
    as dq/dh . dh of the layer's output.
    """
    found, change = [states.influence], states.tangents
    every = torch.arange(change.shape[1], device=change.device)
    for layer in states.layers[:-1]:
        change = layer.attend(layer.move_all(change), torch.ones_like(every).bool(), change)
        found.append(states.shares @ (layer.attended_gradient * change).sum(-1).double())
        if len(found) < len(states.layers):  # All comes to the last level's one node.
            change = layer.finish(every).push(change)
    return torch.stack(found)


@torch.no_grad()
def internal_influence(states: InfluenceStates) -> torch.Tensor:
    """Internal influence of the nodes at levels below the last, [L, T], float64."""
    found = []
    for layer in states.layers:
        gradient = layer.pull_all(states.readout).double()
        found.append(torch.einsum("k,kte->te", states.shares, gradient).abs().sum(-1))
    return torch.stack(found)


# Running with what is kept --------------------------------------------------------------------


@torch.no_grad()
def ablated(model: Model, rows: Rows, kept: Sequence[Kept]) -> torch.Tensor:
    """Logits of the model with nothing but what is kept of each row, [B, C].

    Args:
        model: The model.
        rows: B padded rows of at most T tokens.
        kept: What is kept of each.
    """
    length, device = rows.length, rows.device
    nodes = _stacked([one.nodes for one in kept], length).to(device)
    heads = [
        np.ones((*one.nodes[1:].shape, _num_heads(model)), np.bool_)
        if one.heads is None
        else one.heads
        for one in kept
    ]
    skips = [np.ones_like(one.nodes[1:]) if one.skips is None else one.skips for one in kept]
    ablation = _Ablation(
        model,
        rows.readout,
        nodes[1:],
        _stacked(heads, length).to(device),
        _stacked(skips, length).to(device),
    )
    entered = _zeroed(model.embed(rows), nodes[0])
    with ablation.hooked():
        return model.run(rows, enter=entered, leaving=ablation.leave)[0]


@dataclass(frozen=True, eq=False)
class _Ablation:
    """What is kept of each layer.

    The last layer may be run for the position read out alone, which is all that is kept of its
    output anyway; masks are then those of that position.

    Attributes:
        model: The model.
        readout: [B].
        nodes: Of outputs, [L, B, T].
        heads: [L, B, T, H].
        skips: [L, B, T].
        projected: What attention came to in the layer that is being run, [B, T, d].
    """

    model: Model
    readout: torch.Tensor
    nodes: torch.Tensor
    heads: torch.Tensor
    skips: torch.Tensor
    projected: list[torch.Tensor] = field(default_factory=list)

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """For its duration heads are closed, and what attention comes to is kept."""
        outputs = {id(of := layer.attention.output.module): of for layer in self.model.layers}
        with ExitStack() as hooks:
            for output in outputs.values():  # Layers may share them.
                hooks.callback(output.register_forward_pre_hook(self._close_heads).remove)
                hooks.callback(output.register_forward_hook(self._keep).remove)
            yield

    def _close_heads(self, _: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        recorder = current_recorder()
        assert recorder is not None
        flags = self._at(self.heads[recorder.number - 1], args[0])
        contexts = args[0].unflatten(-1, (flags.shape[-1], -1))
        return (_zeroed(contexts, flags).flatten(2), *args[1:])

    def _keep(self, _: nn.Module, __: tuple[Any, ...], output: torch.Tensor) -> None:
        self.projected.append(output)

    def leave(self, number: int, left: torch.Tensor) -> torch.Tensor:
        """What leaves a layer, [B, T, d], ablated."""
        nodes, skips = self._at(self.nodes[number], left), self._at(self.skips[number], left)
        # Where the skip is closed, what follows is of what attention came to alone.
        closed = nodes & ~skips
        alone = self.model.layers[number].conclude(self.projected.pop()[closed].to(left))
        return _zeroed(left.masked_scatter(closed[..., None], alone), nodes)

    def _at(self, flags: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Flags of the positions that hidden states have: all, or that read out alone."""
        if hidden.shape[1] == flags.shape[1]:
            return flags
        every = torch.arange(len(flags), device=flags.device)
        return flags[every, self.readout][:, None]


def _zeroed(x: torch.Tensor, flags: torch.Tensor) -> torch.Tensor:
    """Vectors [..., d] where flags [...] are set, zeros elsewhere."""
    return x.masked_fill(~flags[..., None], 0)


def _stacked(flags: Sequence[Flags], length: int) -> torch.Tensor:
    """Flags by layer and position, [L, T, ...] each, padded and stacked to [L, B, T, ...]."""
    padded = []
    for own in flags:
        more = [(0, 0)] * own.ndim
        more[1] = (0, length - own.shape[1])
        padded.append(np.pad(own, more))
    return torch.from_numpy(np.stack(padded, 1))


def _outputs(
    model: Model,
    instances: Sequence[Instance],
    variants: Sequence[tuple[int, Kept]],
    weights: torch.Tensor,
    budget: int,
) -> list[float]:
    """Outputs of some of the instances, by number, with what is kept of them."""
    precise = weights.double().cpu()

    def run(chosen: Sequence[int]) -> list[float]:
        some = [variants[at] for at in chosen]
        rows = collate(model, [instances[at] for at, _ in some]).rows
        logits = ablated(model, rows, [kept for _, kept in some]).double().cpu()
        outputs: list[float] = (precise[[at for at, _ in some]] * logits).sum(-1).tolist()
        return outputs

    return _packed(model, [len(instances[at]) for at, _ in variants], run, budget)


@torch.no_grad()
def _mean_attention(model: Model, instances: Sequence[Instance], budget: int) -> list[Floats]:
    """Attention of each instance, the mean of all heads, [L, T, T]."""

    def run(chosen: Sequence[int]) -> list[Floats]:
        some = [instances[at] for at in chosen]
        rows = collate(model, some).rows
        _, recorder = model.run(rows, watch=Watch(attention=True))
        means = torch.stack([layer.double().mean(1) for layer in recorder.attention], 1)
        found = means.cpu().numpy()
        return [own[:, : len(one), : len(one)] for one, own in zip(some, found, strict=True)]

    return _packed(model, [len(one) for one in instances], run, budget)


def _packed(
    model: Model, lengths: Sequence[int], run: Callable[[Sequence[int]], list[_T]], budget: int
) -> list[_T]:
    """Results of rows of given lengths, run by their numbers in batches within the budget."""
    results: dict[int, _T] = {}
    for batch in pack(lengths, budget, model.head_size):
        for part, found in halving(run, batch):
            if isinstance(found, Exception):
                raise found
            results.update(zip(part, found, strict=True))
    return [results[at] for at in range(len(lengths))]


def _num_heads(model: Model) -> int:
    return model.num_heads
