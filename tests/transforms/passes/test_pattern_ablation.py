"""Pattern ablation: a plain model ablated by hand, paths one by one, what makes no difference."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import combinations_with_replacement, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.autograd.functional import jvp

from attribeam.transforms import Instance, Model, load_model
from attribeam.transforms.inputs.batch import Flags
from attribeam.transforms.inputs.kinds import collate
from attribeam.transforms.passes.base import quadrature
from attribeam.transforms.passes.influence import InfluenceStates
from attribeam.transforms.passes.pattern_ablation import (
    KINDS,
    AblationRow,
    Kept,
    Kind,
    ablated,
    ablations,
    attention_paths,
    beam_paths,
    best_paths,
    conductance,
    edges_of_patterns,
    internal_influence,
    kept_sets,
    nodes_of_paths,
    random_paths,
    rollout_paths,
)
from attribeam.transforms.passes.patterns import SKIP, Pattern, refine
from tests.conftest import LoadTiny
from tests.support.authors import DTYPES
from tests.support.conditioning import SINGLE
from tests.support.models import (
    TASKS,
    plain,
    random_instance,
    random_instances,
    relative_error,
    tasks_of,
    tiny_network,
    tokenizer_for,
)
from tests.transforms.passes.test_influence import (
    AT_ONCE,
    UNLIKE,
    UNLIKE_TASKS,
    PlainPath,
    states_of,
)
from tests.transforms.passes.test_norms import shortened

pytestmark = pytest.mark.usefixtures("padding_at_will")

POINTS = 3
LIMITS = {"float64": 1e-12, "float32": SINGLE}


def weights_of(model: Model, count: int) -> torch.Tensor:
    """The first output less the second."""
    row = torch.zeros(model.num_outputs, dtype=model.dtype)
    row[:2] = torch.tensor([1.0, -1.0])
    return row.repeat(count, 1)


def rows_of(
    model: Model, instances: Sequence[Instance], *, seed: int = 0, budget: int = AT_ONCE
) -> list[list[AblationRow]]:
    """Every kind of ablation of instances, of their first output less the second."""
    weights = weights_of(model, len(instances))
    batch = collate(model, instances)
    states = states_of(model, instances, weights, points=POINTS)
    pairs = ((own, refine(own)) for own in states)
    return ablations(model, batch, pairs, weights, seed=seed, budget=budget)


def explained(model: Model, instance: Instance, seed: int = 0) -> dict[Kind, AblationRow]:
    (found,) = rows_of(model, [instance], seed=seed)
    return {row.kind: row for row in found}


def flags(rng: np.random.Generator, *shape: int) -> Flags:
    """Random flags, most of them set."""
    return rng.random(shape) < 0.7


def random_kept(instance: Instance, rng: np.random.Generator, edges: bool) -> Kept:
    """A set of random nodes of a model of three layers of four heads, the end among them."""
    length = len(instance)
    nodes = flags(rng, 4, length)
    nodes[-1, instance.readout] = True
    if not edges:
        return Kept(nodes)
    return Kept(nodes, flags(rng, 3, length, 4), flags(rng, 3, length))


# A plain model, ablated by hand ---------------------------------------------------------------


def more_inputs(model: Model, instance: Instance) -> dict[str, torch.Tensor]:
    if not model.token_types > 1:
        return {}
    return {"token_type_ids": torch.tensor(instance.segment[None], dtype=torch.long)}


def logits_of(instance: Instance, found: Any) -> torch.Tensor:
    logits: torch.Tensor = found.logits[0]
    if instance.contrast is None:
        return logits
    return logits[instance.readout, list(instance.contrast)]


@torch.no_grad()
def by_hand(model: Model, instance: Instance, kept: Kept) -> torch.Tensor:
    """Logits of one instance, from the modules of a plain model, position by position."""
    network = plain(model)
    ids = torch.tensor(instance.input_ids[None], dtype=torch.long)
    found = network(ids, output_hidden_states=True, **more_inputs(model, instance))
    hidden = found.hidden_states[0][0] * torch.tensor(kept.nodes[0])[:, None]
    for number, parts in enumerate(model.anatomy.layers_of(network, 4)):
        query, key, value = (
            linear(parts.attend(hidden)).unflatten(-1, (4, -1))
            for linear in (parts.attention.query, parts.attention.key, parts.attention.value)
        )
        left = []
        for at in range(len(instance)):
            if not kept.nodes[number + 1, at]:
                left.append(torch.zeros_like(hidden[at]))
                continue
            contexts, seen = torch.zeros_like(query[at]), slice(at + 1 if model.causal else None)
            for head in range(4):
                if kept.heads is None or kept.heads[number, at, head]:
                    scores = key[seen, head] @ query[at, head] / query.shape[-1] ** 0.5
                    contexts[head] = scores.softmax(0) @ value[seen, head]
            skips = kept.skips is None or kept.skips[number, at]
            left.append(parts.finish(contexts.flatten(), hidden[at] * float(skips)))
        hidden = torch.stack(left)
    found = hidden[instance.readout]
    for step in model.anatomy.head_of(network, model.task):
        found = step(found)
    return found if instance.contrast is None else found[list(instance.contrast)]


@torch.no_grad()
def by_hooks(model: Model, instance: Instance, kept: Kept) -> torch.Tensor:
    """Logits of one instance in a plain model, with hooks on its modules alone.

    What enters, comes out of layers, and is mixed by heads is multiplied by flags; where a skip is
    closed, what it will add is taken off what attention comes to.
    """
    network, length = plain(model), len(instance)
    heads = np.ones((3, length, 4)) if kept.heads is None else kept.heads
    skips = np.ones((3, length)) if kept.skips is None else kept.skips
    passing: list[torch.Tensor] = []  # What entered the layers up to that which is run.

    def enter(_: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        mask = 1.0 if passing else torch.tensor(kept.nodes[0])[:, None]
        passing.append(args[0] * mask)
        return (passing[-1], *args[1:])

    def mix(_: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0] * torch.tensor(heads[len(passing) - 1]).repeat_interleave(8, 1),)

    def attend(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
        closed = 1 - torch.tensor(skips[len(passing) - 1]).double()
        return output - passing[-1] * closed[:, None]

    def leave(_: Any, __: Any, output: Any) -> Any:
        mask = torch.tensor(kept.nodes[len(passing)])[:, None]
        return output * mask if isinstance(output, torch.Tensor) else (output[0] * mask,)

    layers = model.anatomy.layers_of(network, 4)
    with ExitStack() as hooks:
        for module in {layer.module for layer in layers}:  # ALBERT's are one.
            hooks.callback(module.register_forward_pre_hook(enter).remove)
            hooks.callback(module.register_forward_hook(leave).remove)
        for output in {layer.attention.output.module for layer in layers}:
            hooks.callback(output.register_forward_pre_hook(mix).remove)
            hooks.callback(output.register_forward_hook(attend).remove)
        ids = torch.tensor(instance.input_ids[None], dtype=torch.long)
        return logits_of(instance, network(ids, **more_inputs(model, instance)))


@pytest.mark.parametrize(("family", "task"), UNLIKE_TASKS)
def test_against_a_plain_model(tiny: LoadTiny, family: str, task: str) -> None:
    model = tiny(family, task, "float64")
    instances = random_instances(model, [9, 5, 12, 4])
    rng = np.random.default_rng(0)
    rows = collate(model, instances).rows
    for edges in (False, True, True):
        kept = [random_kept(instance, rng, edges) for instance in instances]
        if edges:
            kept[1] = replace(kept[1], heads=None)
            kept[2] = replace(kept[2], skips=None)
        found = ablated(model, rows, kept)
        for logits, instance, own in zip(found, instances, kept, strict=True):
            for expected in (by_hand, by_hooks):
                assert relative_error(logits, expected(model, instance, own)) < 1e-10


@pytest.mark.parametrize(("family", "task"), UNLIKE_TASKS)
def test_every_row_of_every_kind(tiny: LoadTiny, family: str, task: str) -> None:
    check_rows(tiny(family, task, "float64"))


def check_rows(model: Model) -> None:
    """Checks all kinds of ablation of two instances against a plain model, ablated by hand."""
    instances = random_instances(model, [7, 4])
    for found, instance in zip(rows_of(model, instances, seed=3), instances, strict=True):
        sets = sets_of(model, instance, seed=3)
        assert [row.kind for row in found] == list(sets) == list(KINDS)
        for row, kept in zip(found, sets.values(), strict=True):
            logits = by_hand(model, instance, kept)
            assert row.output == pytest.approx(float(logits[0] - logits[1]), rel=1e-9)
            assert row.correct == (row.output > 0)
            # Of what leads to the output, which is but one node of the last level.
            assert row.nodes_kept == kept.nodes[:-1].sum() + 1
            for count, edges in ((row.heads_kept, kept.heads), (row.skips_kept, kept.skips)):
                assert count == (None if edges is None else edges.sum())


def sets_of(model: Model, instance: Instance, seed: int = 0) -> dict[Kind, Kept]:
    """What is kept of an instance, its attention being that of a plain model."""
    (states,) = states_of(model, [instance], weights_of(model, 1), points=POINTS)
    ids = torch.tensor(instance.input_ids[None], dtype=torch.long)
    with torch.no_grad():
        found = plain(model)(ids, output_attentions=True, **more_inputs(model, instance))
    attention = torch.cat(found.attentions).mean(1).numpy()
    return kept_sets(model, instance, states, refine(states), attention, seed)


def test_nothing_goes_back(causal: Model) -> None:
    check_rows(causal)
    for instance in random_instances(causal, [7, 4, 11]):
        end = instance.readout + 1
        assert end < len(instance)
        for kind, kept in sets_of(causal, instance).items():
            assert kind == "whole" or not kept.nodes[:, end:].any(), kind
        (states,) = states_of(causal, [instance], weights_of(causal, 1), points=POINTS)
        ids = torch.tensor(instance.input_ids[None], dtype=torch.long)
        with torch.no_grad():
            found = plain(causal)(ids, output_attentions=True, **more_inputs(causal, instance))
        attention = torch.cat(found.attentions).mean(1).numpy()[:, :end, :end]
        for kind, paths in attention_paths(attention, instance.readout).items():
            assert paths.shape == (end, 4), kind
            assert (np.diff(paths) >= 0).all() and (paths <= instance.readout).all(), kind
        flow, mean = by_autograd(causal, instance)
        assert relative_error(conductance(states), flow) < 1e-9
        assert relative_error(internal_influence(states), mean) < 1e-9


def test_random_paths_that_never_go_back(causal: Model) -> None:
    (instance,) = random_instances(causal, [7])
    readout = instance.readout
    assert 2 <= readout < 6
    paths = np.stack([random_paths(instance, 3, seed, True) for seed in range(2000)])
    assert (
        paths == np.stack([random_paths(instance, 3, seed, True) for seed in range(2000)])
    ).all()
    assert (paths[..., 0] == range(7)).all() and (paths[..., -1] == readout).all()
    for source in range(readout + 1):
        every = list(combinations_with_replacement(range(source, readout + 1), 2))
        counts = [(paths[:, source, 1:-1] == path).all(-1).sum() for path in every]
        # All of them, and none much more often than others.
        assert sum(counts) == 2000
        expected = 2000 / len(every)
        assert np.abs(np.array(counts) - expected).max() < 5 * expected**0.5
    # From a token after it there is none.
    assert (paths[:, readout + 1 :, :-1] == np.arange(readout + 1, 7)[:, None]).all()
    assert random_paths(instance, 1, 0, True).tolist() == [[at, readout] for at in range(7)]


# All and nothing ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("family", "task"), UNLIKE_TASKS)
def test_all_and_nothing(tiny: LoadTiny, family: str, task: str, dtype: str) -> None:
    model = tiny(family, task, dtype)
    instances = random_instances(model, [8, 5])
    logits = model.run(collate(model, instances).rows)[0]
    margins = (logits[:, 0] - logits[:, 1]).tolist()
    limit = LIMITS[dtype] * float(logits.abs().max())
    for found, instance, margin in zip(rows_of(model, instances), instances, margins, strict=True):
        whole, nothing = found[0], found[1]
        assert whole.output == pytest.approx(margin, abs=limit)
        assert whole.nodes_kept == 3 * len(instance) + 1
        assert whole.heads_kept is None and whole.skips_kept is None
        # Zeros attend to zeros, so that each context is the value of a zero.
        last, zeros = model.layers[-1], torch.zeros(model.hidden_size, dtype=model.dtype)
        read = last.finish(last.attention.value(last.attend(zeros)), zeros)
        for step in model.head:
            read = step(read)
        read = read if instance.contrast is None else read[list(instance.contrast)]
        expected = float(read[0] - read[1])
        assert nothing.output == pytest.approx(expected, abs=limit)
        assert nothing.nodes_kept == 2


def test_heads_and_skips_that_are_all_open(tiny: LoadTiny) -> None:
    model = tiny("electra", "masked_lm")
    instances = random_instances(model, [8, 5])
    rows = collate(model, instances).rows
    every = [Kept(np.ones((4, len(one)), np.bool_)) for one in instances]
    edges = [
        replace(
            kept,
            heads=np.ones((3, len(one), 4), np.bool_),
            skips=np.ones((3, len(one)), np.bool_),
        )
        for kept, one in zip(every, instances, strict=True)
    ]
    expected = model.run(rows)[0]
    torch.testing.assert_close(ablated(model, rows, every), expected, rtol=0, atol=0)
    torch.testing.assert_close(ablated(model, rows, edges), expected, rtol=0, atol=0)


# From paths to what is kept -------------------------------------------------------------------


def a_pattern(nodes: Sequence[int], heads: Sequence[int] | None = None) -> Pattern:
    level = "embedding" if heads is None else "attention"
    own = None if heads is None else tuple(heads)
    return Pattern(nodes[0], level, tuple(nodes), own, (), 0.0, 0.0, 1.0, 9)  # type: ignore[arg-type]


def test_nodes_and_edges_of_patterns() -> None:
    nodes = nodes_of_paths(np.array([[0, 2, 1], [2, 2, 1]]), 3, 1)
    assert nodes.astype(int).tolist() == [[1, 1, 1], [0, 0, 1], [0, 1, 0]]
    assert nodes_of_paths(np.empty((0, 3), np.intp), 2, 1).astype(int).tolist() == [
        [0, 1],
        [0, 0],
        [0, 1],
    ]
    patterns = [a_pattern([0, 2, 1], [1, 0]), a_pattern([2, 2, 1], [SKIP, 0])]
    heads, skips = edges_of_patterns(patterns, 3, 2, 2)
    # By layer, query and head: the first comes to position 2, the second to position 1.
    assert np.argwhere(heads).tolist() == [[0, 2, 1], [1, 1, 0]]
    assert np.argwhere(skips).tolist() == [[0, 2]]


@pytest.mark.parametrize("task", TASKS)
def test_what_kinds_keep(tiny: LoadTiny, task: str) -> None:
    model = tiny("bert", task, "float64")
    (instance,) = random_instances(model, [9])
    (states,) = states_of(model, [instance], weights_of(model, 1), points=POINTS)
    patterns, sets = refine(states), sets_of(model, instance)
    expected = {(level, at) for one in patterns for level, at in enumerate(one.nodes)}
    expected |= {(0, instance.readout)}
    for kind in ("embedding", "attention", "attention_no_skip"):
        assert {(level, at) for level, at in np.argwhere(sets[kind].nodes)} == expected
    edges = {
        (layer, one.nodes[layer + 1], head)
        for one in patterns
        for layer, head in enumerate(one.heads or ())
    }
    fine, no_skip = sets["attention"], sets["attention_no_skip"]
    assert fine.heads is not None and fine.skips is not None
    assert no_skip.heads is not None and no_skip.skips is not None
    found = {tuple(one) for one in np.argwhere(fine.heads).tolist()}
    found |= {(layer, at, SKIP) for layer, at in np.argwhere(fine.skips).tolist()}
    assert found == edges and fine.skips.any()
    assert (no_skip.heads == fine.heads).all() and not no_skip.skips.any()
    for kind, kept in sets.items():
        assert kept.nodes[-1, instance.readout], kind
        if kind not in ("whole", "nothing", "conductance", "internal_influence"):
            # The words that have a pattern, and no other, have a path.
            expected = sorted({*states.sources.tolist(), instance.readout})
            assert np.flatnonzero(kept.nodes[0]).tolist() == expected, kind
    for kind, scores in (
        ("conductance", conductance(states).numpy()),
        ("internal_influence", internal_influence(states).numpy()),
    ):
        scores[0, instance.readout] = np.inf
        kept = sets[kind].nodes  # type: ignore[index]
        assert (kept.sum(1) == sets["embedding"].nodes.sum(1)).all()
        for level, chosen in zip(scores, kept, strict=False):
            assert chosen.all() or level[chosen].min() > level[~chosen].max()


def test_the_position_read_out_enters_whatever_is_kept(tiny: LoadTiny) -> None:
    for task in TASKS:
        model = tiny("bert", task, "float64")
        (instance,) = random_instances(model, [9])
        # A [CLS] has a pattern, a [MASK] with a baseline of the same doesn't.
        (states,) = states_of(model, [instance], weights_of(model, 1), points=POINTS)
        assert (instance.readout in states.sources.tolist()) == (task == "classification")
        attention = np.full((3, 9, 9), 1 / 9)
        sets = kept_sets(model, instance, states, refine(states), attention, 0)
        assert all(kept.nodes[0, instance.readout] for kept in sets.values())


# Paths through attention ----------------------------------------------------------------------


def weight(flow: NDArray[np.float64], path: Sequence[int]) -> float:
    steps = zip(flow, path, path[1:], strict=False)
    return float(np.prod([layer[to, at] for layer, at, to in steps]))


def test_attention_flows_from_key_to_query() -> None:
    # Query 1 attends to key 0, then query 2, that read out, to key 1, and then to itself.
    attention = np.stack([np.eye(3)] * 3)
    attention[0, :2] = [0, 0.5, 0.5], [0.9, 0.1, 0]
    attention[1, 1:] = [1, 0, 0], [0.05, 0.8, 0.15]
    attention[2, 2] = [0.1, 0.1, 0.8]
    for kind, paths in attention_paths(attention, 2).items():
        assert paths[[0, 2]].tolist() == [[0, 1, 2, 2], [2, 2, 2, 2]], kind


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_paths_against_all_of_them(depth: int) -> None:
    length, readout = 4, 2
    for seed in range(20):
        rng = np.random.default_rng([seed, depth])
        attention = rng.dirichlet(np.full(length, 0.3), (depth, length))
        with_skip = (attention + np.eye(length)) / 2
        found = attention_paths(attention, readout)
        for source in range(length):
            by_attention, by_both = (
                {
                    path: weight(flow, path)
                    for middle in product(range(length), repeat=depth - 1)
                    for path in [(source, *middle, readout)]
                }
                for flow in (attention, with_skip)
            )
            own = {kind: tuple(paths[source].tolist()) for kind, paths in found.items()}
            best = max(by_both, key=lambda path: by_both[path])
            assert own["attention_viterbi"] == best
            # With a beam of as many as there are nothing is lost.
            for flow, weights in ((attention, by_attention), (with_skip, by_both)):
                for paths in (beam_paths(flow, readout, length**depth), best_paths(flow, readout)):
                    path = tuple(paths[source].tolist())
                    assert weights[path] == pytest.approx(max(weights.values()))
            greedy, beam = (by_attention[own[f"attention_{name}"]] for name in ("greedy", "beam"))
            assert greedy <= beam <= max(by_attention.values()) * (1 + 1e-12)
            for level, node in enumerate(own["attention_rollout"]):
                through = [
                    sum(share for path, share in by_both.items() if path[level] == at)
                    for at in range(length)
                ]
                assert through[node] == pytest.approx(max(through))


def test_greedy_paths_step_by_step() -> None:
    attention = np.random.default_rng(0).dirichlet(np.full(5, 0.3), (4, 5))
    for path in attention_paths(attention, 1)["attention_greedy"].tolist():
        assert len(path) == 5 and path[-1] == 1
        for layer, at, to in zip(attention[:-1], path, path[1:], strict=False):
            assert layer[to, at] == layer[:, at].max()
    # With the skip connection nothing would move.
    stay = beam_paths((attention + np.eye(5)) / 2, 1, 1)
    assert (stay[:, :-1] == np.arange(5)[:, None]).all()


def test_ties_and_impossible_paths() -> None:
    # Nothing comes to the end but from itself: all paths from elsewhere weigh nothing.
    flow = np.stack([np.eye(3)] * 3)
    for paths in (beam_paths(flow, 2, 10), best_paths(flow, 2), rollout_paths(flow, 2)):
        assert paths[2].tolist() == [2, 2, 2, 2]
        assert paths.shape == (3, 4)


# Influence in each layer for itself -----------------------------------------------------------


def by_autograd(
    model: Model, instance: Instance
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Conductance and internal influence at all levels but the last, in a plain model."""
    one = PlainPath(model, instance)
    flow, mean = 0, 0
    for share, part in zip(*quadrature("trapezoid", POINTS), strict=True):
        point = one.at(float(share)).requires_grad_()
        margin, hidden = one.run(point)
        gradients = torch.stack(torch.autograd.grad(margin, hidden[:-1]))[:, 0]
        _, tangents = jvp(
            lambda words: torch.cat(one.run(words)[1][:-1]), point.detach(), one.difference
        )
        flow = flow + part * (gradients * tangents).sum(-1)
        mean = mean + part * gradients
    return flow.numpy(), mean.abs().sum(-1).numpy()  # type: ignore[attr-defined]


def margin_states(model: Model, instance: Instance) -> InfluenceStates:
    (states,) = states_of(model, [instance], points=POINTS)
    return states


@pytest.mark.parametrize(("family", "task"), UNLIKE_TASKS)
def test_layer_scores_against_autograd(tiny: LoadTiny, family: str, task: str) -> None:
    model = tiny(family, task, "float64")
    for length in (8, 4):
        (instance,) = random_instances(model, [length])
        states = margin_states(model, instance)
        flow, mean = by_autograd(model, instance)
        assert relative_error(conductance(states), flow) < 1e-9
        assert relative_error(internal_influence(states), mean) < 1e-9


def test_all_that_flows_passes_each_level(tiny: LoadTiny) -> None:
    model = tiny("roberta", "masked_lm", "float64")
    states = margin_states(model, random_instances(model, [11])[0])
    total = float(states.influence.sum())
    assert conductance(states).sum(1).tolist() == pytest.approx([total] * 3, rel=1e-10)


# What must make no difference -----------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("task", TASKS)
def test_batch_mates_are_of_no_consequence(tiny: LoadTiny, task: str, dtype: str) -> None:
    model = tiny("electra", task, dtype)
    instances = random_instances(model, [5, 23, 11])
    for found, instance in zip(rows_of(model, instances), instances, strict=True):
        assert_alike(found, rows_of(model, [instance])[0], LIMITS[dtype])


def assert_alike(
    found: Sequence[AblationRow], expected: Sequence[AblationRow], limit: float
) -> None:
    size = max(abs(row.output) for row in expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours._replace(output=0) == theirs._replace(output=0)
        assert abs(ours.output - theirs.output) < limit * size


@pytest.mark.parametrize("family", UNLIKE)
@pytest.mark.parametrize("dtype", DTYPES)
def test_padding_of_random_sets(tiny: LoadTiny, family: str, dtype: str) -> None:
    model = tiny(family, tasks_of(family)[-1], dtype)
    rng = np.random.default_rng(1)
    instances = random_instances(model, [4, 19, 9])
    kept = [random_kept(instance, rng, True) for instance in instances]
    found = ablated(model, collate(model, instances).rows, kept)
    for logits, instance, own in zip(found, instances, kept, strict=True):
        rows = collate(model, [instance]).rows
        assert relative_error(logits, ablated(model, rows, [own])[0]) < LIMITS[dtype]


def test_random_patterns_are_of_the_instance_and_the_seed(tiny: LoadTiny) -> None:
    model = tiny("bert", "classification", "float64")
    first, second = random_instances(model, [9, 9])
    renamed = replace(first, instance_id="another")
    paths = random_paths(first, 3, 0)
    assert (paths == random_paths(renamed, 3, 0)).all()
    assert (paths[:, 0] == range(9)).all() and (paths[:, -1] == 0).all()
    for other in (random_paths(first, 3, 1), random_paths(second, 3, 0)):
        assert (paths != other).any()
    one, other = explained(model, first, seed=1), explained(model, first, seed=2)
    assert one == explained(model, renamed, seed=1)
    assert one["random"] != other["random"]
    assert {kind: row for kind, row in one.items() if kind != "random"} == {
        kind: row for kind, row in other.items() if kind != "random"
    }
    # Every position has its chance.
    many = np.stack([random_paths(first, 3, seed) for seed in range(50)])[:, :, 1:-1]
    assert set(many.flatten().tolist()) == set(range(9))


# Cost and memory ------------------------------------------------------------------------------


def test_batches_within_a_budget(tiny: LoadTiny, most_rows: list[int]) -> None:
    model = tiny("bert", "classification", "float64")
    instances = random_instances(model, [6, 9, 4])
    weights = weights_of(model, 3)
    batch = collate(model, instances)
    pairs = [(own, refine(own)) for own in states_of(model, instances, weights, points=POINTS)]
    expected = rows_of(model, instances)

    def runs(budget: int = AT_ONCE, most: int = AT_ONCE) -> list[int]:
        most_rows[:] = [most]
        found = ablations(model, batch, pairs, weights, seed=0, budget=budget)
        for ours, theirs in zip(found, expected, strict=True):
            assert_alike(ours, theirs, 1e-12)
        return most_rows[1:]

    # Attention of all, then all sets of all, those that are the same once.
    attention, sets = runs()
    assert attention == 3 and 3 * 8 < sets <= 3 * len(KINDS)
    assert runs(budget=1) == [1] * (3 + sets)
    halved = runs(most=sets - 1)
    assert halved == [3, sets, sets // 2, sets - sets // 2]
    within = runs(budget=60)
    assert sum(within) == 3 + sets and max(within) < sets
    with pytest.raises(torch.OutOfMemoryError):
        runs(most=0)


@pytest.mark.parametrize("family", UNLIKE)
def test_the_model_is_whole_again(tiny: LoadTiny, family: str) -> None:
    model = tiny(family, "classification", "float64")
    instances = random_instances(model, [7, 4])
    rows = collate(model, instances).rows
    before = model.run(rows)[0]
    ablated(model, rows, [Kept(np.zeros((4, len(one)), np.bool_)) for one in instances])
    wrong = [Kept(np.zeros((4, 7), np.bool_), heads=np.ones((3, 7, 3), np.bool_))] * 2
    with pytest.raises(RuntimeError):
        ablated(model, rows, wrong)
    for module in model.network.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
    torch.testing.assert_close(model.run(rows)[0], before, rtol=0, atol=0)


# What is out of the ordinary ------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 3])
def test_hardly_any_tokens(tiny: LoadTiny, length: int) -> None:
    model = tiny("bert", "classification", "float64")
    short = shortened(random_instances(model, [5])[0], length)
    alone = rows_of(model, [short])[0]
    together = rows_of(model, [random_instance(model, 9), short])[1]
    assert_alike(together, alone, 1e-12)
    rows = {row.kind: row for row in alone}
    logits = by_hand(model, short, Kept(np.ones((4, length), np.bool_)))
    assert rows["whole"].output == pytest.approx(float(logits[0] - logits[1]), rel=1e-9)
    if length == 1:  # Every path is all that there is.
        for kind in set(KINDS) - {"nothing", "attention", "attention_no_skip"}:
            assert rows[kind].output == rows["whole"].output
            assert rows[kind].nodes_kept == 4


def test_one_word_and_no_word(tiny: LoadTiny) -> None:
    model = tiny("bert", "masked_lm", "float64")
    (instance,) = random_instances(model, [6])
    weights = weights_of(model, 1)
    (states,) = states_of(model, [instance], weights, points=POINTS)
    batch = collate(model, [instance])
    for source in (0, 2):
        pair = [(states, refine(states, [source]))]
        (found,) = ablations(model, batch, pair, weights, seed=0, budget=AT_ONCE)
        assert {row.nodes_kept for row in found[2:]} == {4 + (source != instance.readout)}
        edges = {row.kind: (row.heads_kept, row.skips_kept) for row in found}
        heads, skips = edges["attention"]
        assert heads is not None and skips is not None and heads + skips == 3
    (found,) = ablations(model, batch, [(states, [])], weights, seed=0, budget=AT_ONCE)
    # Where no word has a pattern there is nothing but the position read out.
    for row in found[2:]:
        assert row.nodes_kept == 2 and row.heads_kept in (None, 0)
        if row.heads_kept is None:
            assert row.output == found[1].output


@pytest.mark.parametrize("depth", [1, 2])
def test_hardly_any_layers(tmp_path: Path, depth: int) -> None:
    tiny_network("bert", num_hidden_layers=depth).save_pretrained(tmp_path)
    tokenizer_for("bert").save_pretrained(tmp_path)
    model = load_model(tmp_path, dtype="float64")
    (instance,) = random_instances(model, [5])
    states = margin_states(model, instance)
    flow, mean = by_autograd(model, instance)
    assert relative_error(conductance(states), flow) < 1e-9
    assert relative_error(internal_influence(states), mean) < 1e-9
    found = {row.kind: row for row in rows_of(model, [instance])[0]}
    assert found["whole"].nodes_kept == 5 * depth + 1
    if depth == 1:  # All words go straight to the end.
        for kind in set(KINDS) - {"nothing", "attention", "attention_no_skip"}:
            assert found[kind].output == found["whole"].output
