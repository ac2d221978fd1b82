"""Self-attention attribution as a method: its rows, presets, and a run of its own."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from attribeam.analysis import open_run, verify
from attribeam.pipeline import Options, run
from attribeam.schemas import UsageError
from attribeam.transforms import Attributions, Model, attribute, choose, encode
from attribeam.transforms.details import HeadRow, InteractionsRow, TreeEdgeRow, TreeNodeRow
from attribeam.transforms.passes.attention_paths import AttentionPaths
from attribeam.transforms.passes.trees import attribution_tree
from tests.conftest import LoadTiny
from tests.support.authors import golden_numbers, golden_rows
from tests.support.models import random_instances
from tests.transforms.passes.test_norms import shortened

pytestmark = pytest.mark.usefixtures("padding_at_will")

BOTH = ("attattr", "attattr_colsum")


def rows(found: Attributions, table: str, number: int) -> Sequence[Any]:
    row = found.rows["attattr"][number]
    assert row is not None
    return row.details[table]


def run_both(model: Model, instances: Any, **params: Any) -> Attributions:
    chosen = choose(BOTH, dict.fromkeys(BOTH, params))
    return attribute(model, instances, chosen)


# Rows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_authors_settings_give_the_authors_numbers(golden: LoadTiny, dtype: str) -> None:
    model = golden("bert-golden", dtype)
    found = run_both(model, encode(model, golden_rows()), preset="code")
    numbers = golden_numbers("attattr")
    tolerance = 1e-12 if dtype == "float64" else 2e-6
    for number in range(5):
        expected = numbers[f"attr64/{number}"]
        heads = cast(Sequence[HeadRow], rows(found, "heads", number))
        assert [(row.layer, row.head) for row in heads] == list(np.ndindex(4, 4))
        for row in heads:
            own = expected[row.layer, row.head]
            assert row.target == numbers["pred"][number]
            assert row.attr_max == pytest.approx(own.max(), abs=tolerance)
            assert row.attr_sum == pytest.approx(own.sum(), abs=tolerance * own.size)
        column = found.rows["attattr_colsum"][number]
        assert column is not None
        summed = expected.sum((0, 1, 2))
        np.testing.assert_allclose(column.scores, summed, rtol=0, atol=40 * tolerance)
        if dtype == "float64":
            edges = cast(Sequence[TreeEdgeRow], rows(found, "tree_edges", number))
            own_edges = [[e.parent, e.child] for e in edges if e.algorithm == "code"]
            theirs = numbers[f"tree64_edges/{number}"].reshape(-1, 2)
            assert own_edges == theirs.tolist()


def test_importance_by_the_gold_label(golden: LoadTiny) -> None:
    """The pruning script of the authors takes 20 left points and the gold label."""
    model = golden("bert-golden", "float64")
    numbers = golden_numbers("attattr")
    labels = (numbers["pred"] + 1) % 3
    instances = [
        replace(instance, label=int(label))
        for instance, label in zip(encode(model, golden_rows()), labels, strict=True)
    ]
    found = run_both(model, instances, preset="prune")
    total = np.zeros((4, 4))
    for number in range(8):
        for row in cast(Sequence[HeadRow], rows(found, "heads", number)):
            total[row.layer, row.head] += row.attr_max
            assert row.target == labels[number]
        column = found.rows["attattr_colsum"][number]
        assert column is not None and column.target == labels[number]
    expected = numbers["head_importance_attr_sum8_goldnext"]
    np.testing.assert_allclose(total, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("task", ["classification", "masked_lm"])
def test_rows_agree_with_each_other(tiny: LoadTiny, task: str) -> None:
    model = tiny("bert", task, "float64")
    instances = random_instances(model, [6, 9, 4])
    found = run_both(model, instances)
    for number, instance in enumerate(instances):
        heads = cast(Sequence[HeadRow], rows(found, "heads", number))
        layers = cast(Sequence[InteractionsRow], rows(found, "interactions", number))
        assert [row.layer for row in layers] == [0, 1, 2]
        for row in layers:
            of_heads = sum(head.attr_sum for head in heads if head.layer == row.layer)
            # What the interactions keep and leave out is all that the heads have.
            kept = np.abs(row.attr).sum() + row.mass_dropped
            assert abs(of_heads) <= kept + 1e-12
            assert abs(of_heads - (row.output - row.without)) == pytest.approx(row.gap, abs=1e-12)
            assert (row.error is not None and row.gap <= row.error <= 0.01) or row.steps == 65
        assert set(layers[-1].query) == {instance.readout}
        nodes = cast(Sequence[TreeNodeRow], rows(found, "tree_nodes", number))
        assert len(nodes) == 2 * len(instance)
        column = found.rows["attattr_colsum"][number]
        assert column is not None
        assert column.scores.sum() == pytest.approx(sum(head.attr_sum for head in heads))


def test_both_methods_share_their_paths(tiny: LoadTiny) -> None:
    path, same = ([n for n in c.needs if isinstance(n, AttentionPaths)] for c in choose(BOTH))
    assert path == same
    (code,) = choose("attattr", {"attattr": {"preset": "code"}})
    assert AttentionPaths(64, "left", 0.01, 64, "probability", "explained") in code.needs
    (few,) = choose("attattr", {"attattr": {"steps": 100}})
    assert AttentionPaths(100, "nested", 0.01, 100, "probability", "explained") in few.needs


def test_a_text_of_special_tokens_alone(tiny: LoadTiny) -> None:
    model = tiny("bert", "classification")
    for length in (1, 2):
        found = run_both(model, [shortened(random_instances(model, [6])[0], length)])
        assert not found.failures
        (head, *_) = cast(Sequence[HeadRow], rows(found, "heads", 0))
        assert (head.top2 is None) == (length == 1)


def test_a_certain_prediction_gives_next_to_nothing(tiny: LoadTiny) -> None:
    model = tiny("bert", "classification")
    head = model.network.get_submodule("classifier")
    with torch.no_grad():
        cast(torch.nn.Linear, head).bias[0] += 200
    found = run_both(model, random_instances(model, [9]))
    assert not found.failures
    heads = cast(Sequence[HeadRow], rows(found, "heads", 0))
    assert max(abs(row.attr_sum) for row in heads) < 1e-6
    with torch.no_grad():
        cast(torch.nn.Linear, head).bias[0] -= 200


def test_trees_follow_tau(tiny: LoadTiny) -> None:
    model = tiny("bert", "classification", "float64")
    instances = random_instances(model, [12])
    sizes = []
    for tau in (0.9, 0.4, 0.0):
        chosen = choose("attattr", {"attattr": {"tau": tau}})
        found = attribute(model, instances, chosen)
        edges = cast(Sequence[TreeEdgeRow], rows(found, "tree_edges", 0))
        assert all(e.prop > tau for e in edges if e.algorithm == "code")
        sizes.append(sum(e.algorithm == "code" for e in edges))
    assert sizes == sorted(sizes) and sizes[-1] > sizes[0]
    assert attribution_tree(np.zeros((3, 4, 4))).root is None


# A run ----------------------------------------------------------------------------------------

Save = Callable[[str, str], Path]
TEXTS = "text,label\n" + "".join(
    f'"{t}",{n % 3}\n' for n, t in enumerate(["the film", "a dull plot ."])
)


def options(model: Path, corpus: Path, output: Path, **more: Any) -> Options:
    given = {"methods": "attattr,random", "device": "cpu", **more}
    return Options(model=str(model), corpus=str(corpus), output=str(output), **given)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "texts.csv"
    path.write_text(TEXTS)
    return path


def test_a_method_without_scores_has_its_tables_alone(
    tiny_folder: Save, corpus: Path, tmp_path: Path
) -> None:
    model = tiny_folder("bert", "classification")
    out = tmp_path / "out"
    assert run(options(model, corpus, out)).failures == 0
    report = verify(out)
    assert not report.problems
    facts = {fact.method: fact for fact in report.facts}
    assert (facts["attattr"].attributed, facts["attattr"].evaluated) == (2, None)
    assert (facts["random"].attributed, facts["random"].evaluated) == (2, 2)
    with open_run(out, commented=False) as connection:
        query = "select distinct method from attributions union from (select method from curves)"
        assert connection.execute(query).fetchall() == [("random",)]
        (layers,) = connection.execute("select count(*) from interactions").fetchone() or ()
        assert layers == 2 * 3
        for view in ("head_importance", "receptive_field", "attribution_tree"):
            assert connection.execute(f"from {view}").fetchall()
        (candidates,) = (
            connection.execute("select count(*) from trigger_candidates").fetchone() or ()
        )
        assert candidates == 2
    # A lost table is made again, alone.
    (lost,) = (out / "tree_nodes").rglob("*.parquet")
    lost.unlink()
    assert run(options(model, corpus, out)).worked == 1
    assert not verify(out).problems


def test_the_gold_label_needs_labels(tiny_folder: Save, tmp_path: Path) -> None:
    model = tiny_folder("bert", "classification")
    unlabelled = tmp_path / "texts.csv"
    unlabelled.write_text("text\nthe film\n")
    params = {"attattr": {"preset": "prune"}}
    with pytest.raises(UsageError, match=r"--set attattr\.target=gold needs labels, but "):
        run(options(model, unlabelled, tmp_path / "out", params=params))
    assert not (tmp_path / "out").exists()


def test_an_instance_without_a_label_fails_alone(
    tiny_folder: Save, corpus: Path, tmp_path: Path
) -> None:
    corpus.write_text(TEXTS + '"bad and dull",\n')
    out = tmp_path / "out"
    params = {"attattr": {"preset": "prune"}}
    run(options(tiny_folder("bert", "classification"), corpus, out, params=params))
    with open_run(out, commented=False) as connection:
        query = "select method, stage, message from failures"
        ((method, stage, message),) = connection.execute(query).fetchall()
    assert (method, stage) == ("attattr", "attribute")
    assert "has no label, and its gold class is used" in message
    assert not verify(out).problems


@pytest.mark.parametrize(("name", "value"), [("tau", 1), ("least", -0.1), ("tolerance", -1)])
def test_parameters_out_of_range(name: str, value: float) -> None:
    (choice,) = choose("attattr", {"attattr": {name: value}})
    with pytest.raises(UsageError):
        _ = choice.needs
