"""What is computed for words is ranked as words: in curves, in views, in runs of older versions."""

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from analysis import open_run, verify
from schemas import Unit, unit_path
from tests.tiny import Outcome, Rows, assert_alike, command, table, write_jsonl
from transforms import EncodeOptions, Model, Row
from transforms.encode import encode_row
from transforms.perturb import Evaluation, points_of
from transforms.variants import unit_scores, units_of

# Words of one to five pieces, and two that may come out equal.
TEXTS = (
    "the goodly film is uninteresting, very bad",
    "filmed unintersting plots and the actor isn't dull",
    "good good plays !",
    "uninterestingly filmed the the bad",
)
METHODS = {
    "kernel_shap": {"unit": "word", "samples": 40},
    "integrated_gradients": {"steps": 3},
    "occlusion": {"unit": "word"},
    "attattr_colsum": {"target": "gold", "steps": 2, "most": 2},
    "saliency": {},
}
SUMMED = ("integrated_gradients", "kernel_shap")


def corpus(folder: Path) -> Path:
    lines: Rows = [
        {
            "id": f"r{number}/{label}",
            "text": text,
            "label": label,
            "rationale": [int(at in (0, 3)) for at in range(len(text.split()))],
        }
        for number, text in enumerate(TEXTS)
        for label in range(3)
    ]
    return write_jsonl(folder / "corpus.jsonl", lines)


def attribeam(model: Path, data: Path, out: Path, *methods: str) -> Outcome:
    settings = [
        text
        for method in methods
        for name, value in METHODS[method].items()
        for text in ("--set", f"{method}.{name}={value}")
    ]
    return command(
        *("run", "--model", model, "--corpus", data, "--output", out, "--units", "word"),
        *("--methods", ",".join(methods), "--fractions", "0.3,0.6", "--device", "cpu"),
        *settings,
    )


@pytest.fixture(scope="module")
def folder(tiny_folder: Callable[..., Path]) -> Path:
    return tiny_folder("bert")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def out(folder: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("words") / "out"
    assert attribeam(folder, data, run, *METHODS).status == 0
    return run


def rows(run: Path, query: str) -> list[tuple[Any, ...]]:
    with open_run(run) as connection:
        return connection.execute(query).fetchall()


def test_the_rule_is_stored(out: Path) -> None:
    manifest = json.loads((out / "run.json").read_text())
    rules = {name: method["word_score"] for name, method in manifest["methods"].items()}
    assert rules == {name: "sum" if name in SUMMED else "max" for name in METHODS}
    assert dict(rows(out, "select method, word_score from methods")) == rules


def test_words_are_ranked_alike_in_curves_and_views(
    out: Path, tiny: Callable[..., Model], data: Path
) -> None:
    model = tiny("bert")
    texts = {row["id"]: row["text"] for row in map(json.loads, data.read_text().splitlines())}
    evaluation = Evaluation(
        fractions=tuple(np.arange(1, 40) / 40), operations=("mask",), protocol="word"
    )
    found = rows(
        out,
        "select instance_id, method, word_score, a.scores, r.ranked, r.scores,"
        " (select list(w.score order by position) from words w"
        "  where w.instance_id = r.instance_id and w.method = r.method)"
        " from word_ranks r join attributions a using (instance_id, method)"
        " join methods using (method)",
    )
    assert len(found) == len(METHODS) * len(texts)
    for name, method, rule, scores, ranked, of_view, of_words in found:
        instance = encode_row(model, Row(name, texts[name]), EncodeOptions(48))
        units = units_of(instance, "word")
        assert len(set(np.bincount(units[units >= 0]))) > 1
        own = unit_scores(units, np.array(scores), rule)
        assert own.tolist() == of_view == of_words, method
        expected = [word + 1 for word in np.argsort(-own, kind="stable")]
        assert ranked == expected, method
        gone: list[int] = []
        for point in points_of(instance, np.array(scores), evaluation, 0, rule):
            if point.order == "morf":
                new = {int(unit) + 1 for unit in units[point.tokens]} - set(gone)
                gone += new
        assert gone == expected, method


def test_a_words_shapley_value_is_what_ranks_it(out: Path) -> None:
    """Not the share of it that each of its tokens has, which is the less the more there are."""
    found = rows(
        out,
        "select tokens, score, score_sum, score_max from words where method = 'kernel_shap'",
    )
    assert {tokens for tokens, *_ in found} >= {1, 2, 3}
    for tokens, score, summed, largest in found:
        assert score == summed == pytest.approx(tokens * largest, rel=1e-6)


def test_words_that_were_left_out_have_what_was_lost(out: Path) -> None:
    found = rows(out, "select score, score_mean from words where method = 'occlusion'")
    for score, mean in found:
        assert score == pytest.approx(mean, rel=1e-6)


def test_curves_follow_the_class_that_the_scores_explain(out: Path) -> None:
    found = rows(
        out,
        "select c.method, c.target, a.target, i.prediction, i.label, c.probability,"
        " i.probabilities[c.target + 1], c.flipped"
        " from curves c join instances i using (instance_id)"
        " join attributions a using (instance_id, method) where fraction = 0",
    )
    assert len(found) == 3 * len(METHODS) * len(TEXTS) * 3
    for method, target, explained, prediction, label, probability, stored, flipped in found:
        assert target == explained == (label if method == "attattr_colsum" else prediction)
        assert probability == pytest.approx(stored, abs=1e-5)
        assert not flipped


def test_it_adds_up(out: Path) -> None:
    assert verify(out).problems == []


# Runs that older versions began ---------------------------------------------------------------


@pytest.fixture
def older(out: Path, tmp_path: Path) -> Path:
    """A run as it was before there was a rule, and before curves stored their class."""
    run = tmp_path / "older"
    copytree(out, run)
    manifest = json.loads((run / "run.json").read_text())
    for method in manifest["methods"].values():
        del method["word_score"], method["target"]
    (run / "run.json").write_text(json.dumps(manifest))
    for method in METHODS:
        path = run / unit_path(Unit("curves", method), 0, 1)
        pq.write_table(pq.read_table(path).drop_columns(["target"]), path)
    return run


def test_an_older_run_means_what_it_meant(older: Path) -> None:
    assert verify(older).problems == []
    with open_run(older) as connection:
        for query, expected in (
            ("select distinct target from curves", None),
            ("select distinct word_score from methods", "max"),
            ("select distinct score = score_max from words", True),
            (
                "select bool_and(list_contains(a.scores, s)) from word_ranks r"
                " join attributions a using (instance_id, method)"
                " cross join unnest(r.scores) as u(s)",
                True,
            ),
        ):
            assert connection.execute(query).fetchall() == [(expected,)]


def test_an_older_run_goes_on_as_it_was_begun(
    older: Path, folder: Path, data: Path, out: Path
) -> None:
    lost = older / unit_path(Unit("curves", "integrated_gradients"), 0, 1)
    lost.unlink()
    (older / unit_path(Unit("curves", "saliency"), 0, 1)).unlink()
    assert attribeam(folder, data, older, "integrated_gradients", "saliency").status == 0
    assert verify(older).problems == []
    manifest = json.loads((older / "run.json").read_text())
    assert not any("word_score" in method for method in manifest["methods"].values())
    # Largest tokens rank words of saliency anyway; they did so with integrated gradients.
    new = table(out, "curves", "saliency").drop_columns(["target"])
    assert_alike(table(older, "curves", "saliency"), new)
    by_largest = table(older, "curves", "integrated_gradients")
    now = table(out, "curves", "integrated_gradients").drop_columns(["target"])
    assert by_largest.schema == now.schema
    assert by_largest["probability"] != now["probability"]


def test_curves_that_follow_another_class_are_not_gone_on_with(
    older: Path, folder: Path, data: Path
) -> None:
    refused = attribeam(folder, data, older, "attattr_colsum", "saliency")
    assert refused.status == 2
    assert "the curves of attattr_colsum follow the class of the run, now the gold one" in (
        refused.err
    )


def test_a_method_added_to_an_older_run_is_ranked_by_its_rule(
    older: Path, folder: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "grad_x_input", {})
    monkeypatch.setitem(METHODS, "decompx", {})
    assert attribeam(folder, data, older, "grad_x_input", "decompx").status == 0
    assert verify(older).problems == []
    assert dict(rows(older, "select method, word_score from methods"))["decompx"] == "sum"
    assert rows(older, "select distinct target from curves") == [(None,)]


# Where nothing can be removed -----------------------------------------------------------------


def test_nothing_to_remove_is_a_failure(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    """And makes no number of the other instances none."""
    data = write_jsonl(
        tmp_path / "corpus.jsonl",
        [
            {"id": "a", "text": "[MASK]!", "good": "good", "bad": "bad"},
            {"id": "b", "text": "the film was [MASK] and very dull", "good": "good", "bad": "bad"},
        ],
    )
    run = tmp_path / "out"
    done = command(
        *("run", "--model", tiny_folder("bert", "masked_lm"), "--corpus", data, "--output", run),
        *("--units", "word", "--methods", "occlusion,saliency,lime", "--device", "cpu"),
        *("--operations", "mask,pad,delete", "--set", "lime.samples=5"),
    )
    # Nothing went wrong, and it is said.
    assert done.status == 0
    assert "3 failures (3 with nothing to remove)" in done.out
    report = verify(run)
    assert report.problems == []
    facts = {fact.method: fact for fact in report.facts}
    for method, failed in (("lime", 1), ("occlusion", 0), ("saliency", 0)):
        fact = facts[method]
        assert (fact.attributed, fact.failed) == (2 - failed, failed)
        assert (fact.evaluated, fact.not_evaluated) == (1, 1 - failed)
    assert rows(run, "select distinct instance_id, error from failures") == [
        ("a", "NothingToRemoveError")
    ]
    found = rows(run, "select n, isfinite(auc_morf + auc_lerf + auc_random) from faithfulness")
    assert found == [(1, True)] * 9
