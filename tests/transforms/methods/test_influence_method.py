"""Influence as a method: its rows, a run of its own, and what is refused."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from attribeam.analysis import open_run, verify
from attribeam.pipeline import Options, run
from attribeam.schemas import UsageError
from attribeam.transforms import Attribution, Instance, Model, attribute, choose, encode, load_model
from attribeam.transforms.details import PatternRow
from attribeam.transforms.inputs.kinds import collate, inputs_of
from attribeam.transforms.methods.influence import roles_of
from attribeam.transforms.passes.base import quadrature
from attribeam.transforms.passes.influence import influence_states, margin_weights
from attribeam.transforms.passes.pattern_ablation import KINDS
from attribeam.transforms.passes.patterns import refine
from tests.conftest import LoadTiny
from tests.support.authors import golden_rows
from tests.support.models import random_instances, relative_error
from tests.support.tiny import contrasts, write_jsonl

pytestmark = pytest.mark.usefixtures("padding_at_will")

POINTS = 8


def influence(model: Model, instances: Sequence[Instance], **params: Any) -> list[Any]:
    chosen = choose("influence", {"influence": {"points": POINTS, **params}})
    found = attribute(model, instances, chosen)
    assert not found.failures
    return found.rows["influence"]


@pytest.mark.parametrize("task", ["classification", "masked_lm"])
@pytest.mark.parametrize("rule", ["trapezoid", "endpoints"])
def test_rows_are_the_engines(tiny: LoadTiny, task: str, rule: Any) -> None:
    model = tiny("bert", task, "float64")
    instances = random_instances(model, [6, 9])
    rows = influence(model, instances, rule=rule)
    for instance, row in zip(instances, rows, strict=True):
        batch = collate(model, [instance])
        logits, _ = model.run(batch.rows)
        weights = margin_weights(
            logits, logits.argmax(-1) if task == "classification" else logits.argmax(-1) * 0
        )
        points, shares = quadrature(rule, POINTS)
        (states,) = influence_states(
            model,
            batch.rows,
            weights,
            inputs_of(model).space(model, batch, "words", "mask"),
            points=points,
            shares=shares,
            budget=1e6,
        )
        assert relative_error(row.scores, states.influence.numpy()) < 1e-12
        gain = float((weights * logits).sum() - states.outputs[0])
        assert row.delta == pytest.approx(row.scores.sum() - gain, abs=1e-10)
        found = cast(Sequence[PatternRow], row.details["patterns"])
        expected = refine(states)
        assert len(found) == len(expected) == 2 * len(states.sources)
        for ours, theirs in zip(found, expected, strict=True):
            assert (ours.level, ours.source) == (theirs.level, theirs.source)
            assert tuple(ours.nodes) == theirs.nodes
            assert (None if ours.heads is None else tuple(ours.heads)) == theirs.heads
            assert ours.influence == pytest.approx(theirs.influence, rel=1e-9)
            assert ours.nodes[-1] == instance.readout


def test_points_are_as_many_as_scores_and_patterns_need(tiny: LoadTiny) -> None:
    model = tiny("bert", "classification", "float64")
    instances = random_instances(model, [9, 5, 7])
    rough = influence(model, instances, points=25, tolerance=0)
    tolerance = float(np.median([row.error for row in rough]))
    rows = influence(model, instances, points=97, tolerance=tolerance)
    exact = influence(model, instances, points=200, rule="trapezoid")
    assert len({row.steps for row in rows}) > 1
    for instance, row, other in zip(instances, rows, exact, strict=True):
        assert row.error <= tolerance
        assert np.abs(row.scores - other.scores).max() <= tolerance * np.abs(other.scores).max()
        (alone,) = influence(model, [instance], points=97, tolerance=tolerance)
        assert row.steps == alone.steps and (row.scores == alone.scores).all()
        ours, theirs = (
            {(one.source, one.level): one for one in found.details["patterns"]}
            for found in (row, other)
        )
        assert ours.keys() == theirs.keys()
        rounding = 1e-4 * np.abs(other.scores).max()  # What 200 points miss.
        for key, one in ours.items():
            assert one.sure and one.points in (25, 49, 97)
            assert tuple(one.nodes) == tuple(theirs[key].nodes)
            assert one.heads is None or tuple(one.heads) == tuple(theirs[key].heads)
            near = abs(one.influence - theirs[key].influence) <= abs(one.error) + rounding
            assert near and one.input_influence == row.scores[one.source]


def test_a_choice_that_half_the_points_would_make_otherwise_is_not_sure(tiny: LoadTiny) -> None:
    """At 3 points of 2 many are not; what isn't known to be sure says so at the most points."""
    model = tiny("bert", "classification", "float64")
    instances = random_instances(model, [9, 14, 6])
    few = [one for row in influence(model, instances, points=3) for one in row.details["patterns"]]
    assert {one.points for one in few} == {3} and {one.sure for one in few} == {True, False}
    fixed = influence(model, instances, preset="trapezoid")
    for row in fixed:
        assert {(one.sure, one.error) for one in row.details["patterns"]} == {(None, None)}
        assert {one.points for one in row.details["patterns"]} == {POINTS}


def test_the_trapezoid_misses_less(tiny: LoadTiny) -> None:
    model = tiny("bert", "classification", "float64")
    instances = random_instances(model, [9, 14])
    gaps = {
        rule: [abs(row.delta) for row in influence(model, instances, rule=rule, points=50)]
        for rule in ("trapezoid", "endpoints")
    }
    assert sum(gaps["trapezoid"]) < sum(gaps["endpoints"]) / 3


def test_roles_are_of_words_and_special_tokens(tiny: LoadTiny) -> None:
    model = tiny("bert", "classification")
    (instance,) = random_instances(model, [6])
    assert roles_of(instance)[0] == instance.tokens[0]
    assert roles_of(instance)[1:-1] == [None] * 4
    named = Instance(**{**vars(instance), "roles": (None, "subject", None, "verb", None, None)})
    expected = [instance.tokens[0], "subject", None, "verb", None, instance.tokens[-1]]
    assert roles_of(named) == expected
    (row,) = influence(model, [named])
    for pattern in cast(Sequence[PatternRow], row.details["patterns"]):
        assert list(pattern.roles) == [expected[node] for node in pattern.nodes]


def test_the_preset_is_the_authors(tiny: LoadTiny) -> None:
    (choice,) = choose("influence", {"influence": {"preset": "code"}})
    theirs = {"points": 50, "rule": "endpoints", "baseline": "mask"}
    assert theirs.items() <= choice.params.items()


def test_ablations_share_the_paths_of_the_patterns(tiny: LoadTiny) -> None:
    model = tiny("bert", "masked_lm", "float64")
    instances = random_instances(model, [6, 9])
    names = ("influence", "pattern_ablation")
    chosen = choose(names, {name: {"points": POINTS} for name in names})
    together = attribute(model, instances, chosen)
    alone = attribute(model, instances, chosen[1:])
    assert not together.failures and not alone.failures
    for number in range(2):
        rows = [found.rows["pattern_ablation"][number] for found in (together, alone)]
        both = [cast(Attribution, row).details["pattern_ablation"] for row in rows]
        assert [row[0] for row in both[0]] == list(KINDS)
        for one, other in zip(*both, strict=True):
            assert one[:4] == other[:4] and one[5:] == other[5:]
            assert one[4] == pytest.approx(other[4], rel=1e-9)
        # Nothing is ablated: the model's own contrast.
        prediction = together.predictions[number]
        assert prediction is not None
        logits = prediction.logits
        assert both[0][0][4] == pytest.approx(logits[0] - logits[1], rel=1e-9)


@pytest.mark.parametrize(
    ("family", "why"),
    [("llama", "scores that are products"), ("gemma2", "parts are added one after the other")],
)
@pytest.mark.parametrize("name", ["influence", "pattern_ablation"])
def test_other_attention_and_other_layers_are_refused(
    tiny: LoadTiny, family: str, why: str, name: str
) -> None:
    (choice,) = choose(name)
    with pytest.raises(UsageError, match=f"{name} is defined by .*{why}.*and {family} has none"):
        choice.fitted(tiny(family))


# A run ----------------------------------------------------------------------------------------

Save = Callable[[str, str], Path]


def options(model: Path, corpus: Path, output: Path) -> Options:
    params = {"influence": {"points": POINTS}}
    return Options(
        model=str(model),
        corpus=str(corpus),
        output=str(output),
        methods="influence",
        params=params,
        device="cpu",
    )


def test_a_run(tiny_folder: Save, tmp_path: Path) -> None:
    rows = [
        {**row, "subtask": "odd" if n % 2 else "even", "roles": ["w"] * len(row["text"].split())}
        for n, row in enumerate(contrasts(5))
    ]
    corpus = write_jsonl(tmp_path / "texts.jsonl", rows)
    out = tmp_path / "out"
    assert run(options(tiny_folder("bert", "masked_lm"), corpus, out)).failures == 0
    assert not verify(out).problems
    with open_run(out, commented=False) as connection:
        subsets = connection.execute("select distinct subset from instances order by 1").fetchall()
        assert subsets == [("even",), ("odd",)]
        query = "select count(*), count(heads), count(distinct level) from patterns"
        (patterns, of_heads, levels) = connection.execute(query).fetchone() or (0, 0, 0)
        assert patterns == 2 * of_heads and levels == 2
        # The [MASK] itself is the same in the baseline, so nothing goes out from it.
        query = "select count(*) from patterns join instances using (instance_id) "
        assert connection.execute(query + "where source = readout").fetchall() == [(0,)]
        roles = connection.execute("select distinct unnest(roles) from patterns").fetchall()
        assert {role for (role,) in roles} == {"w", "[CLS]", "[SEP]"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "the film", "good": "good", "bad": "dull"}, "0 mask tokens; exactly one"),
        ({"text": "[MASK] the [MASK]", "good": "good", "bad": "dull"}, "2 mask tokens"),
        ({"text": "the [MASK]", "good": "good film", "bad": "dull"}, "good film"),
    ],
)
def test_texts_that_cannot_be_explained_are_failures(
    tiny_folder: Save, tmp_path: Path, row: dict[str, str], message: str
) -> None:
    corpus = write_jsonl(tmp_path / "texts.jsonl", [{"id": "bad", **row}, *contrasts(2)])
    out = tmp_path / "out"
    assert run(options(tiny_folder("bert", "masked_lm"), corpus, out)).failures == 1
    with open_run(out, commented=False) as connection:
        ((name, said),) = connection.execute("select instance_id, message from failures").fetchall()
        assert name == "bad" and message in said
        assert connection.execute("select count(*) from instances").fetchall() == [(2,)]
    assert not verify(out).problems


def test_the_baseline_needs_the_mask_token(golden: LoadTiny) -> None:
    model = golden("bert-golden")
    unknown = load_model(model.network.config._name_or_path)
    assert unknown.mask_id is None
    (choice,) = choose("influence")
    with pytest.raises(UsageError, match="mask baseline needs the model's mask token"):
        choice.fitted(unknown)
    (choice,) = choose("influence", {"influence": {"baseline": "zero"}})
    found = attribute(unknown, encode(unknown, golden_rows()[:2]), [choice])
    assert not found.failures
