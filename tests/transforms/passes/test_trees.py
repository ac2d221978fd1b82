"""Attribution trees, interactions and facts of heads: the authors' numbers, and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from attribeam.transforms.passes.trees import (
    ALGORITHMS,
    Algorithm,
    HeadFacts,
    Tree,
    attribution_tree,
    head_facts,
    interactions,
    proportions,
)
from tests.support.authors import WITH_GOLDENS, golden_numbers

Array = NDArray[np.floating]
SEEDS = st.integers(0, 2**32 - 1)


def links(tree: Tree) -> list[tuple[int, int]]:
    return [(edge.parent, edge.child) for edge in tree.edges]


def states(tree: Tree) -> list[int]:
    return [node.state for node in tree.nodes]


def depths(tree: Tree) -> list[int | None]:
    return [node.depth for node in tree.nodes]


def golden(kind: str, name: str, instance: int) -> Array:
    return golden_numbers("attattr")[f"tree{kind}_{name}/{instance}"]


def assert_golden(tree: Tree, kind: str, instance: int) -> None:
    assert tree.root == golden(kind, "root", instance)
    assert links(tree) == [tuple(pair) for pair in golden(kind, "edges", instance).tolist()]
    assert [edge.layer for edge in tree.edges] == golden(kind, "edge_layer", instance).tolist()
    assert states(tree) == golden(kind, "state", instance).tolist()
    assert [node.token for node in tree.nodes if node.is_root] == [tree.root]


@pytest.mark.parametrize("instance", WITH_GOLDENS)
@pytest.mark.parametrize("steps", ["64", "20"])
def test_the_authors_trees(steps: str, instance: int) -> None:
    summed = golden_numbers("attattr")[f"attr{steps}/{instance}"].sum(1)
    tree = attribution_tree(summed)
    assert_golden(tree, steps, instance)
    top_scores = [node.top_score for node in tree.nodes]
    assert top_scores == golden(steps, "topscore", instance).tolist()
    shares = proportions(summed)[:-1]
    # The authors set what isn't above tau to 0, and the last layer to 0 / 0.
    authors = golden(steps, "proportion", instance)[:-1]
    np.testing.assert_array_equal(np.where(shares > 0.4, shares, 0), authors)
    for edge in tree.edges:
        assert edge.attr == summed[edge.layer, edge.parent, edge.child]
        assert edge.prop == authors[edge.layer, edge.parent, edge.child]


@pytest.mark.parametrize("instance", range(4))
def test_the_authors_trees_of_twelve_layers(instance: int) -> None:
    summed = golden("12", "in", instance).sum(1)
    assert_golden(attribution_tree(summed), "12", instance)


@pytest.mark.parametrize("instance", WITH_GOLDENS)
def test_the_authors_heads(instance: int) -> None:
    numbers = golden_numbers("attattr")
    attention = numbers[f"att/{instance}"]
    heads = [
        fact
        for layer in zip(numbers[f"attr64/{instance}"], attention, strict=True)
        for fact in head_facts(*layer)
    ]
    best = max(heads, key=lambda head: head.attr_max)
    entries = [[best.top1_from, best.top1_to], [best.top2_from, best.top2_to]]
    assert entries == numbers[f"adv_pos/{instance}"].tolist()
    assert [best.top1, best.top2] == numbers[f"adv_score/{instance}"].tolist()
    largest = [
        [fact.attr_max for fact in head_facts(*layer)]
        for layer in zip(numbers[f"attr20/{instance}"], attention, strict=True)
    ]
    np.testing.assert_array_equal(largest, numbers[f"head_max20/{instance}"])


def by_hand() -> Array:
    """Four layers over five tokens, [CLS] first."""
    summed = np.zeros((4, 5, 5))
    # Layer 2: the top (3) takes from 1 and, too little to count, from 4; 1 isn't the top.
    summed[2, 3, 1], summed[2, 3, 4], summed[2, 1, 2] = 10, 4, 10
    # The row of [CLS] doesn't count, nor does what is negative.
    summed[2, 0, 4], summed[2, 4, 4] = 100, -50
    # Layer 1: 1 takes from 2, which takes from 4 in the same layer; 4 from 2 is too late.
    summed[1, 1, 2], summed[1, 2, 4], summed[1, 4, 2] = 5, 3, 5
    # Layer 0: 4 takes from [CLS], 2 from 4, which has a parent; 0.4 of the largest isn't enough.
    summed[0, 4, 0], summed[0, 2, 4], summed[0, 3, 2] = 5, 5, 2
    # The last layer: only the row of [CLS].
    summed[3, 0] = 3, 6, -1, 2, 0
    return summed


BY_HAND = [(0, 3, 1, 2, 10.0, 1.0), (1, 1, 2, 1, 5.0, 1.0), (2, 2, 4, 1, 3.0, 0.6)]
BY_HAND += [(3, 4, 0, 0, 5.0, 1.0)]


def test_a_tree_by_hand() -> None:
    summed = by_hand()
    # Off the diagonal, 1 has 10 + 5, 2 has 3 + 5, 3 has 10 + 4 + 2, 4 has 5 + 5; the most is 100.
    tree = attribution_tree(summed)
    assert [node.top_score for node in tree.nodes] == pytest.approx([0, 0.15, 0.08, 0.16, 0.1])
    assert tree.root == 3
    assert tree.edges == tuple(BY_HAND)
    assert states(tree) == [0, 1, 1, 1, 1]
    assert depths(tree) == [4, 1, 2, 0, 3]
    paper = attribution_tree(summed, algorithm="paper")
    terminal = [(4, 0, 1, 3, 6.0, 1.0), (5, 0, 2, 3, -1.0, -1 / 6), (6, 0, 3, 3, 2.0, 1 / 3)]
    assert paper.edges == (*BY_HAND, *terminal, (7, 0, 4, 3, 0.0, 0.0))
    assert paper.nodes == tree.nodes


def test_the_threshold() -> None:
    summed = by_hand()
    # With a smaller one, the top takes from 4 as well; 2 is then reached as before.
    assert links(attribution_tree(summed, tau=0.39)) == [(3, 1), (3, 4), (1, 2), (4, 0)]
    assert links(attribution_tree(summed, tau=1)) == []
    assert links(attribution_tree(summed, tau=1, algorithm="paper")) == [(0, 3)]


def moved(summed: Array, readout: int) -> Array:
    """The same attributions with the first token at another place, the others in order."""
    order = np.insert(np.arange(1, summed.shape[-1]), readout, 0)
    return summed[:, order[:, None], order]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("readout", range(5))
def test_where_the_readout_is_is_of_no_consequence(algorithm: Algorithm, readout: int) -> None:
    order = np.insert(np.arange(1, 5), readout, 0)
    first = attribution_tree(by_hand(), algorithm=algorithm)
    tree = attribution_tree(moved(by_hand(), readout), algorithm=algorithm, readout=readout)
    assert tree.root is not None and order[tree.root] == first.root
    assert [(order[i], order[j]) for i, j in links(tree)] == links(first)
    assert states(tree) == [first.nodes[token].state for token in order]
    assert depths(tree) == [first.nodes[token].depth for token in order]


@pytest.mark.parametrize("layers", [1, 2, 3, 7])
@pytest.mark.parametrize("length", [1, 2, 3, 8])
@given(seed=SEEDS)
def test_what_is_true_of_every_tree(layers: int, length: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    readout = int(random.integers(length))
    summed = random.standard_normal((layers, length, length)) ** 3
    summed[-1, np.arange(length) != readout] = 0
    shares = proportions(summed, readout)
    tree = attribution_tree(summed, tau=0.2, readout=readout)
    assert len(tree.nodes) == length
    # Every child is new when it is added, and its parent is there already: one parent, no cycles.
    depth = {} if tree.root is None else {tree.root: 0}
    for order, edge in enumerate(tree.edges):
        assert edge.order == order
        assert edge.child not in depth and edge.parent != readout
        assert edge.layer < layers - 1
        assert edge.prop == shares[edge.layer, edge.parent, edge.child] > 0.2
        depth[edge.child] = depth[edge.parent] + 1
    assert [edge.layer for edge in tree.edges] == sorted(e.layer for e in tree.edges)[::-1]
    assert depths(tree) == [depth.get(token) for token in range(length)]
    parents = {edge.parent for edge in tree.edges}
    for node in tree.nodes:
        assert (node.state >= 0) == (node.token in depth)
        assert (node.state == 1) == (node.token in parents)
    paper = attribution_tree(summed, tau=0.2, readout=readout, algorithm="paper")
    assert paper.nodes == tree.nodes
    assert paper.edges[: len(tree.edges)] == tree.edges
    added = paper.edges[len(tree.edges) :]
    assert {(edge.parent, edge.layer) for edge in added} <= {(readout, layers - 1)}
    assert [edge.child for edge in added] == sorted(depth.keys() - {readout})


@given(seed=SEEDS)
def test_scale_and_order_of_heads_are_of_no_consequence(seed: int) -> None:
    random = np.random.default_rng(seed)
    # Whole numbers are summed without rounding, and scaled by powers of two.
    heads = random.integers(-9, 9, (5, 4, 7, 7)).astype(float)
    expected = attribution_tree(heads.sum(1))
    permuted = heads[:, random.permutation(4)].sum(1)
    assert attribution_tree(permuted) == expected
    scaled = attribution_tree(permuted / 4)
    assert links(scaled) == links(expected) and scaled.nodes == expected.nodes
    # A layer's own scale decides the top only.
    assert np.array_equal(
        proportions(permuted * 2.0 ** np.arange(5)[:, None, None]), proportions(permuted)
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("fill", [0.0, -1.0])
@pytest.mark.parametrize("length", [1, 2, 3])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_nothing_positive_is_no_tree(
    layers: int, length: int, fill: float, algorithm: Algorithm
) -> None:
    summed = np.full((layers, length, length), fill)
    tree = attribution_tree(summed, algorithm=algorithm)
    assert (tree.root, tree.edges) == (None, ())
    assert tree.nodes == tuple((token, -1, False, None, 0.0) for token in range(length))
    assert not proportions(summed).any()


def test_a_layer_without_anything_positive_has_no_edges() -> None:
    summed = by_hand()
    summed[1] = -np.abs(summed[1])
    # 4 is out of reach then.
    assert links(attribution_tree(summed)) == [(3, 1)]
    # In the row of [CLS], too, nothing is a share of nothing.
    summed[1, 0, 2] = 7
    assert not proportions(summed)[1].any()


def test_equal_scores_are_decided_by_the_first() -> None:
    summed = np.zeros((3, 4, 4))
    summed[1, 1:, :1] = 1
    assert attribution_tree(summed).root == 1
    assert links(attribution_tree(summed)) == [(1, 0)]


def test_interactions_by_hand() -> None:
    found = interactions(by_hand(), least=0.4, cap=2)
    rows = [
        [list(map(tuple, zip(x.query, x.key, x.attr, x.prop, strict=True))), x.dropped]
        for x in found
    ]
    assert rows == [
        # Of equals the first by row comes first; 0.4 isn't above 0.4.
        [[(2, 4, 5, 1), (4, 0, 5, 1)], 1],
        [[(1, 2, 5, 1), (4, 2, 5, 1)], 1],
        # The proportion of the row of [CLS] can be above 1.
        [[(0, 4, 100, 10), (1, 2, 10, 1)], 3],
        [[(0, 1, 6, 1), (0, 0, 3, 0.5), (0, 3, 2, 2 / 6), (0, 4, 0, 0), (0, 2, -1, -1 / 6)], 0],
    ]
    assert [x.mass_dropped for x in found] == [2, 3, 10 + 4 + 50, 0]


@given(seed=SEEDS, cap=st.integers(0, 40), least=st.floats(0, 1))
def test_nothing_is_lost_of_interactions(seed: int, cap: int, least: float) -> None:
    random = np.random.default_rng(seed)
    length, readout = int(random.integers(1, 7)), 0
    summed = random.standard_normal((3, length, length))
    shares = proportions(summed, readout)
    for number, found in enumerate(interactions(summed, least=least, cap=cap, readout=readout)):
        layer, kept = summed[number], len(found.attr)
        np.testing.assert_array_equal(found.attr, layer[found.query, found.key])
        np.testing.assert_array_equal(found.prop, shares[number][found.query, found.key])
        assert found.dropped == length**2 - kept
        mass = np.abs(layer).sum()
        assert np.abs(found.attr).sum() + found.mass_dropped == pytest.approx(mass)
        if number < 2:
            assert kept == min(cap, (shares[number] > least).sum())
        else:
            assert kept == length and set(found.query) == {readout}
        assert (np.diff(found.attr) <= 0).all()


def test_of_zeros_nothing_is_left_out() -> None:
    for found in interactions(np.zeros((2, 3, 3))):
        assert (found.dropped, found.mass_dropped) == (0, 0)


def test_facts_of_a_head_by_hand() -> None:
    attributions = np.array([[[1.0, -2], [4, 4]], [[-1, -3], [-2, -1]]])
    attention = np.array([[[0.25, 0.75], [0.5, 0.5]], [[1, 0], [0.5, 0.5]]])
    assert head_facts(attributions, attention) == [
        HeadFacts(4, 7, 9, -2, 0.625, 0.75, 1, 0, 4, 1, 1, 4),
        HeadFacts(-1, -7, 0, -7, 0.75, 1, 0, 0, -1, 1, 1, -1),
    ]


def test_a_single_token_has_no_second_entry() -> None:
    (fact,) = head_facts(np.full((1, 1, 1), 0.5), np.ones((1, 1, 1)))
    assert fact == (0.5, 0.5, 0.5, 0, 1, 1, 0, 0, 0.5, None, None, None)
