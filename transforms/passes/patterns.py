"""Guided pattern refinement: the path through a network that a token's influence takes.

From the input up, layer by layer, the one node is kept that most of the influence passes through,
of those kept below and with all above still open (Lu et al. 2021, Influence Patterns). First nodes
are the positions of each layer's output, the last of them the position read out (``embedding``
level); then, between each two of these, a head of attention or the skip connection around it
(``attention`` level). Where the influence of a token is negative, most means most negative.

The nodes of a layer part all paths, so that their influences sum to the influence before they were
told apart. So that of a pattern has the sign of its token's input influence. It may be larger, as
what cancels is left out. The choice is greedy: no pattern is promised to be the best there is.

Where no position attends to a later one, paths never go back, and never past the position read out:
tokens after that have no pattern.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import Literal, NamedTuple, get_args

import torch

from attribeam.transforms.passes.influence import InfluenceStates
from attribeam.transforms.passes.layer_path import FinishSlope

PatternLevel = Literal["embedding", "attention"]

SKIP = -1
# How far a choice is ahead, over what half of the points change of that, to be taken for sure.
_AHEAD = 0.25
# Numbers that the largest tensor may have, of points, heads, tokens and words.
_AT_ONCE = 2**24


class Pattern(NamedTuple):
    """The pattern of one token at one level; influences are signed, in units of the output.

    Attributes:
        source: Position of the token.
        level: ``embedding``, or ``attention``, which shares its nodes.
        nodes: Positions from the source to that read out, L + 1.
        heads: Head of each layer, or -1 for the skip connection; None at embedding level.
        steps: Influence after each step of the refinement, L - 1 or L.
        influence: That of the pattern: the last step's, or the input influence without any step.
        input_influence: That of the token, through all paths.
        concentration: Influence over input influence; not bounded by 1. NaN if that is 0.
        points: Points of the path that it was found at.
        error: What half of them would make of its influence, less that; None if that is unknown.
        sure: Whether every choice was ahead by more than half of the points change of that; None if
            that is unknown.
    """

    source: int
    level: PatternLevel
    nodes: tuple[int, ...]
    heads: tuple[int, ...] | None
    steps: tuple[float, ...]
    influence: float
    input_influence: float
    concentration: float
    points: int
    error: float | None = None
    sure: bool | None = None


@dataclass(frozen=True, eq=False)
class Refinement:
    """Every choice that was made for W tokens; influences are signed, in float64.

    Attributes:
        points: Points of the path.
        sources: Positions of the tokens, [W].
        influence: Their input influence, [W].
        nodes: Positions chosen, [W, L + 1]; the first is the source, the last that read out.
        heads: Heads chosen, -1 for the skip connection, [W, L].
        node_scores: Influence through each position in place of that chosen, [W, L - 1, T].
        head_scores: Influence through each head in place of what was chosen, [W, L, H].
        skip_scores: That through the skip connection, [W, L]; 0 between different positions, where
            there is none.
        changes: What half of the points would make of the influence of both patterns of each, less
            that, [W, 2]; NaN where there is no such rule.
        sure: Whether all choices were ahead by more than that makes of it, [W].
    """

    points: int
    sources: torch.Tensor
    influence: torch.Tensor
    nodes: torch.Tensor
    heads: torch.Tensor
    node_scores: torch.Tensor
    head_scores: torch.Tensor
    skip_scores: torch.Tensor
    changes: torch.Tensor
    sure: torch.Tensor

    def patterns(self) -> list[Pattern]:
        """Two rows for each token: its pattern at embedding level, and at attention level."""
        steps = self.node_scores.gather(2, self.nodes[:, 1:-1, None])[..., 0]
        edges = torch.cat([self.head_scores, self.skip_scores[..., None]], 2)
        # The skip connection, -1, is the last of them.
        finer = edges.gather(2, (self.heads % edges.shape[2])[..., None])[..., 0]
        found = []
        for word, source in enumerate(self.sources.tolist()):
            nodes = tuple(self.nodes[word].tolist())
            heads = tuple(self.heads[word].tolist())
            total = float(self.influence[word])
            for level, taken, own, change in zip(
                get_args(PatternLevel),
                (None, heads),
                (steps[word], finer[word]),
                self.changes[word].tolist(),
                strict=True,
            ):
                one = _pattern(source, level, nodes, taken, tuple(own.tolist()), total, self.points)
                if not isnan(change):
                    one = one._replace(error=change, sure=bool(self.sure[word]))
                found.append(one)
        return found


@dataclass(frozen=True, eq=False)
class Influence:
    """What is kept of an instance of T tokens.

    Attributes:
        values: Input influence of each token, signed, [T], float64.
        gain: The output at the input minus at the baseline, if the points have both ends.
        patterns: The patterns of its tokens, two of each.
        steps: Points of the path that the values are of.
        error: Their estimated error over the largest (``ladder.Taken``); NaN if it is unknown.
    """

    values: torch.Tensor
    gain: torch.Tensor
    patterns: list[Pattern]
    steps: int
    error: float


def reduced(states: InfluenceStates) -> Influence:
    """The influence and the patterns of an instance, without what they were found in."""
    error = estimated(states)[0]
    return Influence(states.influence, states.gain, refine(states), len(states.alphas), error)


def estimated(states: InfluenceStates) -> tuple[float, float]:
    """Estimated error of an instance's influence over the largest, and a unit of rounding in it.

    The error is the completeness gap, or what half of the points would change, if that is more.
    """
    values, gain = states.influence, states.gain
    error, rounded = float((values.sum() - gain).abs()), float(values.abs().sum() + gain.abs())
    if states.coarse is not None:
        before = states.coarse @ states.influences
        error = max(error, float((values - before).abs().max()))
        rounded += float(before.abs().sum())
    largest = float(values.abs().max()) or error or 1.0
    return error / largest, rounded / largest


def refine(states: InfluenceStates, sources: Sequence[int] | None = None) -> list[Pattern]:
    """Patterns of an instance's tokens, two rows each.

    Args:
        states: The instance.
        sources: Positions of the tokens; None for all that the baseline has in another form (a
            [MASK] that is read out has no influence if the baseline is one too), and that a path
            leads from.

    Raises:
        ValueError: If no path leads from one of them to the position read out.
    """
    return refinement(states, sources).patterns()


@torch.no_grad()
def refinement(states: InfluenceStates, sources: Sequence[int] | None = None) -> Refinement:
    """Refines the patterns of tokens; see ``refine``. Words don't depend on each other."""
    device = states.tangents.device
    every = states.sources if sources is None else torch.tensor(sources, device=device).long()
    if (every >= states.leading).any():
        raise ValueError(f"no path leads back to position {states.readout}, which is read out")
    points, heads, _, length = states.layers[0].attention.shape
    parts = [
        _refine_words(states, words)
        for words in every.split(max(1, _AT_ONCE // (points * heads * length)))
    ]
    return Refinement(points, *(torch.cat(columns) for columns in zip(*parts, strict=True)))


def _refine_words(states: InfluenceStates, sources: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The fields of ``Refinement`` for some words."""
    influence = states.influence[sources]
    sign = torch.where(influence < 0, -1.0, 1.0).to(influence)[:, None]
    checks = [_Check(influence.new_full(influence.shape, torch.inf)) for _ in range(2)]
    nodes, node_scores, finishes = _nodes(states, sources, sign, checks[0])
    heads, head_scores, skip_scores = _heads(states, nodes, sign, finishes, checks[1])
    changes = torch.stack([check.change for check in checks], 1)
    sure = torch.stack([check.ahead for check in checks]).amin(0) > _AHEAD
    return sources, influence, nodes, heads, node_scores, head_scores, skip_scores, changes, sure


class _Check:
    """How far the choices for W words are from being other ones, by what half the points say.

    Attributes:
        ahead: How far the choice is ahead of the others, over what half of the points change of
            that, of the choice that is nearest to being another one, [W].
        change: What half of the points make of the last choice's influence, less that, [W].
    """

    def __init__(self, ahead: torch.Tensor) -> None:
        self.ahead = ahead
        self.change = torch.full_like(ahead, torch.nan)

    def note(self, scores: torch.Tensor, chosen: torch.Tensor, sign: torch.Tensor) -> None:
        """Notes a choice.

        Args:
            scores: Influence through each of N candidates by R rules, [R, W, N]; minus infinity
                times the sign where there is no candidate.
            chosen: Which was chosen, [W].
            sign: Which way they count, [W, 1].
        """
        if len(scores) == 1:
            return
        own = scores.gather(2, chosen.expand(2, -1)[..., None])
        others = (sign * scores).scatter(2, chosen.expand(2, -1)[..., None], -torch.inf).amax(2)
        fine, coarse = (sign * own)[..., 0] - others
        self.ahead = torch.fmin(self.ahead, fine / (fine - coarse).abs())
        self.change = own[1, :, 0] - own[0, :, 0]


def _nodes(
    states: InfluenceStates, sources: torch.Tensor, sign: torch.Tensor, check: _Check
) -> tuple[torch.Tensor, torch.Tensor, list[FinishSlope]]:
    """Embedding level: nodes [W, L + 1], scores [W, L - 1, T], and derivatives at the nodes."""
    *below, last = states.layers
    change = states.tangents[:, sources]
    nodes, scores, finishes = [sources], [], []
    for number, layer in enumerate(below):
        at = nodes[-1]
        projected = layer.project(change, at)
        found = layer.node_scores(projected, at, states.rules)
        possible = found.where(states.reachable(at), -torch.inf * sign)
        to = (sign * possible[0]).argmax(-1)
        check.note(possible, to, sign)
        finishes.append(layer.finish(to))
        scores.append(found[0])
        nodes.append(to)
        if number < len(below) - 1:  # Through the last layer there is nothing left to choose.
            attended = layer.attend(layer.move(projected, at, to), at == to, change)
            change = finishes[-1].push(attended)
    nodes.append(torch.full_like(sources, states.readout))
    finishes.append(last.finish(nodes[-1]))
    length = states.tangents.shape[1]
    every = torch.stack(scores, 1) if scores else sign.new_zeros(len(sources), 0, length)
    return torch.stack(nodes, 1), every, finishes


def _heads(
    states: InfluenceStates,
    nodes: torch.Tensor,
    sign: torch.Tensor,
    finishes: list[FinishSlope],
    check: _Check,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Attention level: heads [W, L], their scores [W, L, H], and those of skipping, [W, L]."""
    gradients = _gradients_along(states, nodes, finishes)
    change = states.tangents[:, nodes[:, 0]]
    chosen, by_head, by_skip = [], [], []
    for number, layer in enumerate(states.layers):
        at, to = nodes[:, number], nodes[:, number + 1]
        of_context, of_attended = gradients.pop()
        moved = layer.move(layer.project(change, at), at, to)
        scores = torch.einsum("rk,khw->rwh", states.rules, (of_context * moved).sum(-1).double())
        skip = states.rules @ (of_attended * change).sum(-1).double()
        stay = at == to
        best, head = (sign * scores[0]).max(-1)
        skips = stay & (sign[:, 0] * skip[0] >= best)
        chosen.append(torch.where(skips, SKIP, head))
        # The skip connection comes last.
        every = torch.cat([scores, skip.where(stay, -torch.inf * sign[:, 0])[..., None]], 2)
        check.note(every, chosen[-1] % every.shape[2], sign)
        by_head.append(scores[0])
        by_skip.append(skip[0].where(stay, 0))
        if gradients:
            only = chosen[-1] == torch.arange(scores.shape[2], device=at.device)[:, None]
            attended = layer.attend(moved * only.to(moved)[..., None], skips, change)
            change = finishes[number].push(attended)
    return torch.stack(chosen, 1), torch.stack(by_head, 1), torch.stack(by_skip, 1)


def _gradients_along(
    states: InfluenceStates, nodes: torch.Tensor, finishes: list[FinishSlope]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """dq/dctx, [K, H, W, d/H], and dq/du, [K, W, d], through nothing but the nodes above.

    Those of the last layer come first.
    """
    gradient = states.read_gradient[:, None].expand(-1, len(nodes), -1)
    found = []
    for number in reversed(range(len(states.layers))):
        attended = finishes[number].pull(gradient)
        context, gradient = states.layers[number].pull(
            attended, nodes[:, number], nodes[:, number + 1]
        )
        found.append((context, attended))
    return found


def _pattern(
    source: int,
    level: PatternLevel,
    nodes: tuple[int, ...],
    heads: tuple[int, ...] | None,
    steps: tuple[float, ...],
    total: float,
    points: int,
) -> Pattern:
    influence = steps[-1] if steps else total
    share = influence / total if total else float("nan")
    return Pattern(source, level, nodes, heads, steps, influence, total, share, points)


def with_input(pattern: Pattern, total: float) -> Pattern:
    """A pattern with another input influence of its token, of more points of the path."""
    share = pattern.influence / total if total else float("nan")
    influence = pattern.influence if pattern.steps else total
    return pattern._replace(influence=influence, input_influence=total, concentration=share)
