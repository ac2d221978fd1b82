"""Guided pattern refinement: the authors' numbers, every path there is, the partition."""

from collections.abc import Sequence
from functools import cache, partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.autograd import functional

from attribeam.transforms import Instance, Model, load_model
from attribeam.transforms.network.parts import Layer
from attribeam.transforms.passes.base import quadrature
from attribeam.transforms.passes.influence import InfluenceStates
from attribeam.transforms.passes.patterns import SKIP, Pattern, Refinement, refine, refinement
from tests.conftest import LoadTiny
from tests.support.authors import DTYPES, IN_FLOAT32, TOGETHER
from tests.support.conditioning import tolerances
from tests.support.models import (
    TASKS,
    random_instance,
    random_instances,
    relative_error,
    tiny_network,
    tokenizer_for,
)
from tests.transforms.passes.test_influence import (
    EVERY,
    SETTINGS,
    UNLIKE_TASKS,
    PlainPath,
    allowed,
    golden_part,
    golden_states,
    states_of,
)
from tests.transforms.passes.test_norms import shortened

pytestmark = pytest.mark.usefixtures("padding_at_will")

POINTS = 3
# All rows in one backward pass, and not in one each.
jacobian = partial(functional.jacobian, vectorize=True)


def refined(model: Model, instances: Sequence[Instance], points: int = POINTS) -> list[Refinement]:
    return [refinement(states) for states in states_of(model, instances, points=points)]


# The authors' numbers -------------------------------------------------------------------------


def refined_scores(states: InfluenceStates) -> list[torch.Tensor]:
    found = refinement(states)
    return [
        found.node_scores.transpose(0, 1),
        found.head_scores.transpose(0, 1),
        found.skip_scores.T,
    ]


def pattern_numbers(states: InfluenceStates) -> list[torch.Tensor]:
    """Influence of patterns of words, the steps of those of heads, and that of the words."""
    coarse, fine = refine(states)[::2], refine(states)[1::2]
    return [
        torch.tensor([one.influence for one in coarse]),
        torch.tensor(np.transpose([one.steps for one in fine])),
        torch.tensor([one.input_influence for one in coarse]),
    ]


@TOGETHER
@pytest.mark.parametrize(("task", "setting", "points"), SETTINGS)
def test_refinement(
    golden: LoadTiny, task: str, setting: str, points: int, dtype: str, together: bool
) -> None:
    limits = allowed(golden, task, dtype, refined_scores)
    states_of_each = golden_states(golden, task, points, dtype, together)
    for (number, states), own in zip(states_of_each, limits, strict=True):
        found = refinement(states)
        expected = {
            name: golden_part(f"{task}/{setting}/{name}/{number}")
            for name in ("words", "emb_nodes", "attn_nodes", "emb_scores", "head_scores")
        }
        skips = golden_part(f"{task}/{setting}/skip_scores/{number}")
        assert (found.sources.numpy() == expected["words"]).all()
        assert (found.nodes[:, 0].numpy() == expected["words"]).all()
        assert (found.nodes[:, 1:].T.numpy() == expected["emb_nodes"]).all()
        assert (found.heads.T.numpy() == expected["attn_nodes"]).all()
        # Where the influence is negative the authors refine that of the negated output.
        sign = np.where(found.influence.numpy() < 0, -1, 1)
        for scores, theirs, limit in zip(
            refined_scores(states),
            (
                expected["emb_scores"] * sign[:, None],
                expected["head_scores"] * sign[:, None],
                skips * sign,
            ),
            own,
            strict=True,
        ):
            assert relative_error(scores, theirs) < limit + IN_FLOAT32


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("task", "setting", "points"), SETTINGS)
def test_influence_of_patterns(
    golden: LoadTiny, task: str, setting: str, points: int, dtype: str
) -> None:
    limits = allowed(golden, task, dtype, pattern_numbers)
    found = golden_states(golden, task, points, dtype, True)
    for (number, states), own in zip(found, limits, strict=True):
        patterns = refine(states)
        assert [pattern.level for pattern in patterns[:2]] == ["embedding", "attention"]
        assert patterns[0].heads is None
        coarse, fine = patterns[::2], patterns[1::2]
        combs = golden_part(f"{task}/{setting}/attn_combs/{number}")
        total = golden_part(f"{task}/{setting}/input_influence/{number}")
        theirs = (
            golden_part(f"{task}/{setting}/emb_influence/{number}"),
            combs,
            total[[one.source for one in coarse]],
        )
        for ours, other, limit in zip(pattern_numbers(states), theirs, own, strict=True):
            assert relative_error(ours, other) < limit + IN_FLOAT32
        # One by one, too, however small: the authors' are off by up to 4e-5, and rounding of the
        # weights moves ours by up to 6e-6 in float32.
        np.testing.assert_allclose(
            [one.influence for one in fine], combs[-1], rtol=2e-4 if dtype == "float32" else 5e-5
        )
        for one, same in zip(coarse, fine, strict=True):
            assert one.source == same.source and one.input_influence == same.input_influence
        for one in patterns:
            assert one.concentration == pytest.approx(one.influence / one.input_influence)
            assert one.influence == one.steps[-1]


# Every path there is --------------------------------------------------------------------------


class Walks(PlainPath):
    """All paths of one instance, by Jacobians that autograd forms layer by layer."""

    def __init__(self, model: Model, instance: Instance) -> None:
        super().__init__(model, instance)
        points, self.shares = quadrature("trapezoid", POINTS)
        self.tangents, self.gradient, self.jacobians, self.entered = [], [], [], []
        for share in points:
            point = self.at(float(share)).requires_grad_()
            margin, hidden = self.run(point)
            (gradient,) = torch.autograd.grad(margin, hidden[-1])
            self.gradient.append(gradient[0, instance.readout])
            self.entered.append([state.detach() for state in hidden[:-1]])
            self.tangents.append(
                [self._tangent(point.detach(), source) for source in range(len(instance))]
            )
            self.jacobians.append(
                [
                    jacobian(lambda x, layer=layer: self._output(layer, x), state[0])
                    for layer, state in zip(self.layers, self.entered[-1], strict=True)
                ]
            )

    def _tangent(self, point: torch.Tensor, source: int) -> torch.Tensor:
        """Change of what enters the encoder at a token by its own word embedding, [d]."""
        change = torch.zeros_like(point)
        change[:, source] = self.difference[:, source]
        _, entered = functional.jvp(lambda words: self.run(words)[1][0], point, change)
        moved: torch.Tensor = entered[0, source]
        return moved

    def through(self, nodes: Sequence[int]) -> float:
        """Influence of a pattern at embedding level, of L + 1 nodes."""
        total = 0.0
        for weight, tangents, gradient, layers in zip(
            self.shares, self.tangents, self.gradient, self.jacobians, strict=True
        ):
            change = tangents[nodes[0]]
            for layer, at, to in zip(layers, nodes, nodes[1:], strict=False):
                change = layer[to, :, at] @ change
            total += weight * float(gradient @ change)
        return total

    def edges(self, nodes: Sequence[int]) -> torch.Tensor:
        """Influence of every pattern at attention level along nodes, [H + 1] * L; skips last."""
        heads = int(self.model.network.config.num_attention_heads)
        total = torch.zeros([heads + 1] * len(self.layers), dtype=torch.float64)
        for weight, tangents, gradient, states in zip(
            self.shares, self.tangents, self.gradient, self.entered, strict=True
        ):
            change = tangents[nodes[0]][None]
            for layer, state, at, to in zip(self.layers, states, nodes, nodes[1:], strict=False):
                along = self._edges(layer, heads, state[0], at, to)
                change = torch.einsum("idf,pf->pid", along, change).flatten(0, 1)
            total += weight * (change @ gradient).view(total.shape)
        return total

    @property
    def mask(self) -> torch.Tensor:
        """What is added to scores of attention, [T, T]."""
        later = torch.full([len(self.instance)] * 2, -torch.inf, dtype=torch.float64).triu(1)
        return later if self.model.causal else torch.zeros_like(later)

    def _output(self, layer: Layer, entered: torch.Tensor) -> torch.Tensor:
        """[T, d] to [T, d]."""
        found = layer.module(entered[None], attention_mask=self.mask[None, None])
        return (found if isinstance(found, torch.Tensor) else found[0])[0]

    def _edges(
        self, parts: Layer, heads: int, entered: torch.Tensor, at: int, to: int
    ) -> torch.Tensor:
        """Jacobians of a layer's output at a position by its input at another, [H + 1, d, d].

        Of each head with the others and the skip connection as they are, and of skipping.
        """

        def contexts(own: torch.Tensor) -> torch.Tensor:
            hidden = parts.attend(torch.cat([entered[:at], own[None], entered[at + 1 :]]))
            query, key, value = (
                linear(hidden).unflatten(-1, (heads, -1)).transpose(0, 1)
                for linear in (parts.attention.query, parts.attention.key, parts.attention.value)
            )
            scores = query @ key.mT / query.shape[-1] ** 0.5 + self.mask
            return (scores.softmax(-1) @ value)[:, to]

        own = entered[at]
        of_contexts = jacobian(contexts, own)
        mixed = contexts(own)
        of_mixed = jacobian(lambda x: parts.finish(x.flatten(), entered[to]), mixed)
        by_head = torch.einsum("dhe,hef->hdf", of_mixed, of_contexts)
        skip = jacobian(lambda x: parts.finish(mixed.flatten(), x), entered[to])
        return torch.cat([by_head, (skip if at == to else torch.zeros_like(skip))[None]])


@cache
def walks_of(model: Model) -> Walks:
    """All paths of an instance of four tokens."""
    (instance,) = random_instances(model, [4])
    return Walks(model, instance)


@pytest.mark.parametrize(("family", "task"), EVERY)
def test_against_all_patterns_of_nodes(tiny: LoadTiny, family: str, task: str) -> None:
    check_nodes(tiny(family, task, "float64"))


def check_nodes(model: Model) -> None:
    """Checks influence through nodes, and which are chosen, against all paths."""
    walks = walks_of(model)
    (found,) = refined(model, [walks.instance])
    for word, source in enumerate(found.sources.tolist()):
        influence = np.array(
            [
                walks.through([source, *middle, walks.instance.readout])
                for middle in product(range(4), repeat=2)
            ]
        ).reshape(4, 4)
        total = float(found.influence[word])
        assert influence.sum() == pytest.approx(total, rel=1e-9)
        _, first, second, last = found.nodes[word].tolist()
        assert last == walks.instance.readout
        assert relative_error(found.node_scores[word, 0], influence.sum(1)) < 1e-9
        assert relative_error(found.node_scores[word, 1], influence[first]) < 1e-9
        # The choice is greedy: the best first node, then the best after that.
        assert first == (np.sign(total) * influence.sum(1)).argmax()
        assert second == (np.sign(total) * influence[first]).argmax()


@pytest.mark.parametrize(("family", "task"), EVERY)
def test_against_all_patterns_of_heads(tiny: LoadTiny, family: str, task: str) -> None:
    check_heads(tiny(family, task, "float64"))


def check_heads(model: Model) -> None:
    """Checks influence through heads and skips, and which are chosen, against all of them."""
    walks = walks_of(model)
    (found,) = refined(model, [walks.instance])
    for word in range(len(found.sources)):
        nodes = found.nodes[word].tolist()
        influence = walks.edges(nodes)
        assert float(influence.sum()) == pytest.approx(walks.through(nodes), rel=1e-9)
        sign = float(found.influence[word].sign())
        for layer, head in enumerate(found.heads[word].tolist()):
            left = influence.reshape(len(influence), -1).sum(1)
            assert relative_error(found.head_scores[word, layer], left[:-1]) < 1e-8
            assert float(found.skip_scores[word, layer]) == pytest.approx(float(left[-1]))
            assert head % len(left) == int((sign * left).argmax())
            influence = influence[head]


def test_no_path_goes_back(causal: Model) -> None:
    check_nodes(causal)
    check_heads(causal)
    instance = walks_of(causal).instance
    (states,) = states_of(causal, [instance], points=POINTS)
    # The position read out has no influence here, and goes nowhere but to itself.
    found = refinement(states, range(instance.readout + 1))
    assert (found.nodes.diff(dim=1) >= 0).all()
    assert (found.nodes[:, -1] == instance.readout).all()
    assert found.sources.tolist() == [*states.sources.tolist(), instance.readout]
    assert len(instance) > instance.readout + 1
    with pytest.raises(ValueError, match=f"back to position {instance.readout}"):
        refinement(states, [instance.readout + 1])


# The partition --------------------------------------------------------------------------------


def check_partition(found: Refinement, limit: float) -> None:
    """What nodes or edges of a layer have sums to what there was before the step."""
    steps = found.node_scores.gather(2, found.nodes[:, 1:-1, None])[..., 0]
    before = torch.cat([found.influence[:, None], steps], 1)
    size = torch.cat([found.influence, found.node_scores.flatten()]).abs().max()
    assert ((found.node_scores.sum(2) - before[:, :-1]).abs() < limit * size).all()
    edges = torch.cat([found.head_scores, found.skip_scores[..., None]], 2)
    finer = edges.gather(2, (found.heads % edges.shape[2])[..., None])[..., 0]
    last = torch.cat([before[:, -1:], finer], 1)
    assert ((edges.sum(2) - last[:, :-1]).abs() < limit * size).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("family", "task"), UNLIKE_TASKS)
def test_partition_and_sign(tiny: LoadTiny, family: str, task: str, dtype: str) -> None:
    model = tiny(family, task, dtype)
    for found in refined(model, random_instances(model, [13, 7], seed=3)):
        check_partition(found, {"float64": 1e-12, "float32": 1e-6}[dtype])
        for pattern in found.patterns():
            signs = np.sign([*pattern.steps, pattern.influence])
            assert (signs == np.sign(pattern.input_influence)).all()
            assert pattern.concentration > 0


def test_skips_are_chosen_where_they_are(tiny: LoadTiny) -> None:
    model = tiny("bert", "classification", "float64")
    seen = set()
    for found in refined(model, random_instances(model, [9, 12, 7])):
        stay = found.nodes[:, 1:] == found.nodes[:, :-1]
        assert (stay | (found.heads != SKIP)).all()
        assert (found.skip_scores[~stay] == 0).all()
        seen |= set(found.heads.flatten().tolist())
    assert {SKIP, 0, 1, 2, 3} == seen


# What must make no difference -----------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("task", TASKS)
def test_batch_mates_are_of_no_consequence(tiny: LoadTiny, task: str, dtype: str) -> None:
    model = tiny("electra", task, dtype)
    instances = random_instances(model, [5, 23, 11])
    names = ("influence", "node_scores", "head_scores", "skip_scores")

    def numbers(found: Refinement) -> list[torch.Tensor]:
        return [getattr(found, name) for name in names]

    for found, instance in zip(refined(model, instances), instances, strict=True):
        (alone,) = refined(model, [instance])
        assert (found.nodes == alone.nodes).all() and (found.heads == alone.heads).all()
        limits = tolerances(
            model,
            lambda one=instance: numbers(refined(model, [one])[0]),  # type: ignore[misc]
            base=numbers(alone),
        )
        for ours, theirs, limit in zip(numbers(found), numbers(alone), limits, strict=True):
            assert relative_error(ours, theirs) < limit


def assert_alike(found: Sequence[Pattern], expected: Sequence[Pattern]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert ours[:4] == theirs[:4]
        assert ours.steps == pytest.approx(theirs.steps, rel=1e-9)
        assert ours[5:8] == pytest.approx(theirs[5:8], rel=1e-9)


def test_words_are_of_no_consequence_to_each_other(
    tiny: LoadTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("bert", "masked_lm", "float64")
    (states,) = states_of(model, random_instances(model, [9]))
    patterns = refine(states)
    assert len(patterns) == 16 and [one.source for one in patterns[::2]] == states.sources.tolist()
    *_, last = states.sources.tolist()
    for some in ([0], [last, 0]):
        expected = [one for source in some for one in patterns if one.source == source]
        assert_alike(refine(states, some), expected)
    assert refine(states, []) == []
    monkeypatch.setattr("attribeam.transforms.passes.patterns._AT_ONCE", 3 * 5 * 4 * 9)
    assert_alike(refine(states), patterns)
    monkeypatch.setattr("attribeam.transforms.passes.patterns._AT_ONCE", 1)
    assert_alike(refine(states), patterns)


# What is out of the ordinary ------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2])
def test_hardly_any_tokens(tiny: LoadTiny, length: int) -> None:
    model = tiny("bert", "classification", "float64")
    short = shortened(random_instances(model, [5])[0], length)
    walks = Walks(model, short)
    for others in ([], [random_instance(model, 9)]):
        found = refined(model, [short, *others])[0]
        check_partition(found, 1e-12)
        assert found.sources.tolist() == list(range(length))
        for pattern in found.patterns()[::2]:
            assert pattern.influence == pytest.approx(walks.through(pattern.nodes), rel=1e-9)


@pytest.mark.parametrize("depth", [1, 2])
def test_hardly_any_layers(tmp_path: Path, depth: int) -> None:
    tiny_network("bert", num_hidden_layers=depth).save_pretrained(tmp_path)
    tokenizer_for("bert").save_pretrained(tmp_path)
    model = load_model(tmp_path, dtype="float64")
    (instance,) = random_instances(model, [5])
    walks = Walks(model, instance)
    (found,) = refined(model, [instance])
    check_partition(found, 1e-12)
    for coarse, fine in zip(found.patterns()[::2], found.patterns()[1::2], strict=True):
        assert len(coarse.nodes) == depth + 1 and len(coarse.steps) == depth - 1
        assert len(fine.steps) == len(fine.heads or ()) == depth
        assert coarse.influence == pytest.approx(walks.through(coarse.nodes), rel=1e-9)
        if depth == 1:
            assert coarse.influence == coarse.input_influence and coarse.concentration == 1


def test_a_token_without_influence(tiny: LoadTiny) -> None:
    model = tiny("bert", "masked_lm")
    (instance,) = random_instances(model, [7])
    (states,) = states_of(model, [instance])
    for pattern in refine(states, [instance.readout]):
        assert pattern.input_influence == pattern.influence == 0
        assert np.isnan(pattern.concentration) and set(pattern.steps) == {0}
        for at, to, head in zip(
            pattern.nodes, pattern.nodes[1:], pattern.heads or (), strict=False
        ):
            # Ties go to the skip connection, where there is one.
            assert (head == SKIP) == (at == to)
