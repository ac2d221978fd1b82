"""What is kept of attributions to attention: trees, the strongest interactions, facts of a head.

Self-attention attribution (Hao et al. 2021) gives each entry of each head's attention matrix a
value: how much the query token i taking from the key token j adds to the prediction. All of them
are too many to keep; these functions reduce those of one instance, without padding, to what the
tables hold. "Summed" attributions are summed over the heads of a layer, with their signs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Algorithm = Literal["code", "paper"]
ALGORITHMS: tuple[Algorithm, ...] = ("code", "paper")

Reals = NDArray[np.floating]

# States of a token, as the paper names them: not in the tree, a leaf so far, with children.
NOT_APPEAR, APPEAR, FIXED = -1, 0, 1


class TreeEdge(NamedTuple):
    """An edge of a tree.

    Attributes:
        order: When it was added, from 0.
        parent: Position of the token that takes.
        child: Position of the token that is taken from.
        layer: Layer of the attention that it stands for.
        attr: Its summed attribution.
        prop: That over the layer's largest (see ``proportions``).
    """

    order: int
    parent: int
    child: int
    layer: int
    attr: float
    prop: float


class TreeNode(NamedTuple):
    """A token under a tree, whether it is in the tree or not.

    Attributes:
        token: Its position.
        state: -1 if the tree doesn't reach it, 0 if it is a leaf, 1 if it has children.
        is_root: Whether it is the top of the tree.
        depth: Edges from the top, or None outside the tree.
        top_score: What the top is chosen by: its positive summed attributions to the other tokens,
            over all layers, as a share of the largest entry of all layers together.
    """

    token: int
    state: int
    is_root: bool
    depth: int | None
    top_score: float


@dataclass(frozen=True)
class Tree:
    """An attribution tree.

    Attributes:
        root: Position of the top, or None where no token has a positive score: there is no tree.
        edges: The edges in the order in which they were added.
        nodes: All T tokens.
    """

    root: int | None
    edges: tuple[TreeEdge, ...]
    nodes: tuple[TreeNode, ...]


def attribution_tree(
    summed: Reals, *, tau: float = 0.4, algorithm: Algorithm = "code", readout: int = 0
) -> Tree:
    """Grows the attribution tree of an instance from the top down (Hao et al. 2021, Algorithm 1).

    ``code`` is the tree that the authors' released code draws. From the last layer but one to the
    first, an entry (i, j) whose proportion is above tau is an edge if i is in the tree by then and
    j isn't; the entries of a layer are gone through row by row, so that a token added early in a
    layer can have children in the same layer. In the last layer but one only the top has children,
    and the last layer has no edges. The authors wrote this down for twelve layers; a model of one
    layer has a top at most.

    ``paper`` adds the end of the information flow: edges of the last layer from the position that
    is read out to every token of the tree, by position. They come last and change neither states
    nor depths. With them, the position read out can be above the top and a leaf below it, as it is
    one token in the last layer and in those under it.

    In a classifier the position read out is [CLS]. Its row is left out of the normaliser, it can't
    be the top, and it has no children of its own, because below the last layer nothing needs to
    pass through it. Of a masked LM the same is true of the [MASK], which takes the place of [CLS]
    here; the authors' code knows the first position only.

    Args:
        summed: Summed attributions, [L, T, T].
        tau: Least proportion of an edge, exclusive.
        algorithm: ``code`` or ``paper``.
        readout: Position the prediction is read from.
    """
    scores = top_scores(summed, readout)
    if not scores.any():
        nodes = (TreeNode(token, NOT_APPEAR, False, None, 0.0) for token in range(len(scores)))
        return Tree(None, (), tuple(nodes))
    # The first of equals; the authors' sort leaves it open.
    root = int(scores.argmax())
    shares = proportions(summed, readout)
    states = np.full(len(scores), NOT_APPEAR)
    states[root] = APPEAR
    depths = {root: 0}
    links = list(_grow(shares > tau, states, depths, root, readout))
    if algorithm == "paper":
        last = len(summed) - 1
        links += [(last, readout, child) for child in sorted(depths) if child != readout]
    edges = (
        TreeEdge(order, i, j, layer, float(summed[layer, i, j]), float(shares[layer, i, j]))
        for order, (layer, i, j) in enumerate(links)
    )
    tokens = (
        TreeNode(token, int(state), token == root, depths.get(token), float(scores[token]))
        for token, state in enumerate(states)
    )
    return Tree(root, tuple(edges), tuple(tokens))


def _grow(
    kept: NDArray[np.bool_],
    states: NDArray[np.int64],
    depths: dict[int, int],
    root: int,
    readout: int,
) -> Iterator[tuple[int, int, int]]:
    """Yields the layer, parent and child of each edge; updates the states, [T], and the depths."""
    top = len(kept) - 2
    for layer in range(top, -1, -1):
        for i, j in np.argwhere(kept[layer]).tolist():
            if i == readout or (layer == top and i != root):
                continue
            if states[i] != NOT_APPEAR and states[j] == NOT_APPEAR:
                states[i], states[j] = FIXED, APPEAR
                depths[j] = depths[i] + 1
                yield layer, i, j


def top_scores(summed: Reals, readout: int = 0) -> Reals:
    """The score of each token by which the top of the tree is chosen, [T].

    It is the sum over the other tokens j of the positive entries (i, j) of the attributions summed
    over the layers too, as shares of the largest entry; 0 for the position that is read out.

    Args:
        summed: Summed attributions, [L, T, T].
        readout: Position the prediction is read from.
    """
    total = summed.sum(0)
    largest = total.max()
    if largest <= 0:
        return np.zeros(len(total), total.dtype)
    counted = (total > 0) & ~np.eye(len(total), dtype=bool)
    counted[readout] = False
    scores: Reals = np.where(counted, total / largest, 0).sum(-1)
    return scores


def proportions(summed: Reals, readout: int = 0) -> Reals:
    """Summed attributions over the largest of their layer, [L, T, T].

    The row of the position that is read out is left out of the maximum, as in the authors' code,
    so its own proportions can be above 1. In the last layer, where that row is all that there is,
    it counts. A layer without a positive entry has no largest to compare with: it is all 0.

    Args:
        summed: Summed attributions, [L, T, T].
        readout: Position the prediction is read from.
    """
    rows = np.delete(summed[:-1], readout, axis=1)
    largest = np.append(rows.max((1, 2), initial=0), summed[-1].max(initial=0))[:, None, None]
    shares: Reals = np.divide(summed, largest, out=np.zeros_like(summed), where=largest > 0)
    return shares


@dataclass(frozen=True)
class Interactions:
    """The strongest summed attributions of a layer, the largest first, and how much is left out.

    Attributes:
        query: Position of the token that takes, [N].
        key: Position of the token that is taken from, [N].
        attr: Summed attribution, [N].
        prop: That over the layer's largest (see ``proportions``), [N].
        dropped: Number of entries left out that aren't 0.
        mass_dropped: Sum of their absolute values.
    """

    query: NDArray[np.int32]
    key: NDArray[np.int32]
    attr: Reals
    prop: Reals
    dropped: int
    mass_dropped: float


def interactions(
    summed: Reals, *, least: float = 0.1, cap: int = 64, readout: int = 0
) -> list[Interactions]:
    """The strongest interactions of each layer, first layer first.

    Of the last layer, the whole row of the position that is read out is kept: no other row of it
    reaches the prediction.

    Args:
        summed: Summed attributions, [L, T, T].
        least: Least proportion that is kept, exclusive.
        cap: Most that are kept of a layer but the last.
        readout: Position the prediction is read from.
    """
    shares = proportions(summed, readout)
    eligible = shares > least
    eligible[-1] = False
    eligible[-1, readout] = True
    found = []
    for number, (layer, share, chosen) in enumerate(zip(summed, shares, eligible, strict=True)):
        places = np.flatnonzero(chosen)
        places = places[np.argsort(-layer.ravel()[places], kind="stable")]
        if number < len(summed) - 1:
            places = places[:cap]
        left = np.delete(layer.ravel(), places)
        query, key = np.divmod(places.astype(np.int32), len(layer))
        found.append(
            Interactions(
                query=query,
                key=key,
                attr=layer[query, key],
                prop=share[query, key],
                dropped=int(np.count_nonzero(left)),
                mass_dropped=float(np.abs(left).sum()),
            )
        )
    return found


class HeadFacts(NamedTuple):
    """What is kept of one head's attributions and attention.

    Attributes:
        attr_max: Largest attribution; its mean over instances is the paper's importance of a head.
        attr_sum: Sum of all.
        attr_positive: Sum of those above 0.
        attr_negative: Sum of those below 0, not above 0 itself.
        attention_mean: Mean over queries of their largest attention. (The mean of all entries says
            nothing: it is 1 / T for every head.)
        attention_max: Largest attention.
        top1_from: Position of the query of the largest attribution.
        top1_to: Position of its key.
        top1: The largest attribution.
        top2_from: Position of the query of the second; None if there is one entry only.
        top2_to: Position of its key.
        top2: The second largest attribution.
    """

    attr_max: float
    attr_sum: float
    attr_positive: float
    attr_negative: float
    attention_mean: float
    attention_max: float
    top1_from: int
    top1_to: int
    top1: float
    top2_from: int | None
    top2_to: int | None
    top2: float | None


def head_facts(attributions: Reals, attention: Reals) -> list[HeadFacts]:
    """Facts of each head of a layer; of equal attributions, the first by row is the stronger.

    Args:
        attributions: Attributions to the attention, [H, T, T].
        attention: The attention, [H, T, T].
    """
    heads, length, _ = attributions.shape
    flat = attributions.reshape(heads, -1)
    rows = np.arange(heads)
    first = flat.argmax(1)
    others = flat.copy()
    others[rows, first] = -np.inf
    second = others.argmax(1)
    sums = (flat.sum(1), np.where(flat > 0, flat, 0).sum(1), np.where(flat < 0, flat, 0).sum(1))
    taken = (attention.max(2).mean(1), attention.max((1, 2)))
    numbers = np.stack([flat[rows, first], *sums, *taken], 1).tolist()

    def entry(head: int, place: int) -> tuple[int, int, float]:
        return place // length, place % length, float(flat[head, place])

    nothing = (None, None, None)
    return [
        HeadFacts._make(
            (
                *numbers[head],
                *entry(head, int(first[head])),
                *(entry(head, int(second[head])) if length > 1 else nothing),
            )
        )
        for head in range(heads)
    ]
