"""Triggers of a run, against the authors' and in other texts; and what is refused."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from attribeam.analysis import open_run, verify
from attribeam.analysis.triggers import trigger_candidates
from attribeam.pipeline.commands.status import DONE, USAGE
from attribeam.pipeline.experiments.attack import counts, triggers_of, with_trigger
from attribeam.pipeline.experiments.held_out import HeldOut, HeldOutOptions
from attribeam.schemas import table_schema
from attribeam.transforms import EncodeOptions, Instance, Model, Row, attribute, encode, load_model
from attribeam.transforms.triggers import Trigger, attacked
from tests.support.authors import golden_numbers
from tests.support.models import GOLDENS
from tests.support.tiny import Outcome, command, files, write_jsonl

EXAMPLES = Path(__file__).parents[3] / "examples"
MODEL, CORPUS = EXAMPLES / "models" / "sentiment-bert", EXAMPLES / "data" / "sentiment.parquet"
FOUND, ALL = 4, 14
Attack = partial[Outcome]


def attribute_into(folder: Path, model: Path, corpus: Path, *more: object) -> Path:
    given = ("--model", model, "--corpus", corpus, "--output", folder, "--methods", "attattr")
    outcome = command("run", *given, "--no-evaluate", "--device", "cpu", *more)
    assert outcome.status == DONE, outcome.err
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the first texts of the bundled corpus."""
    quick = ("--limit", FOUND, "--set", "attattr.steps=4")
    return attribute_into(tmp_path_factory.mktemp("run") / "out", MODEL, CORPUS, *quick)


@pytest.fixture(scope="module")
def authors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the golden texts, with the authors' integral."""
    exact = ("--set", "attattr.preset=code", "--dtype", "float64")
    folder = tmp_path_factory.mktemp("golden") / "out"
    return attribute_into(folder, GOLDENS / "bert-golden", GOLDENS / "corpus.parquet", *exact)


@pytest.fixture
def attack(run: Path) -> Attack:
    usual = ("--model", MODEL, "--corpus", CORPUS, "--limit", ALL, "--device", "cpu")
    return partial(command, "attack", run, *usual)


@pytest.fixture
def connection(run: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_run(run, commented=False) as connection:
        yield connection


def held_out(model: Model, instances: list[Instance]) -> HeldOut:
    return HeldOut(
        options=HeldOutOptions("", ""),
        model=model,
        instances=instances,
        predictions=[each for each in attribute(model, instances, []).predictions if each],
        encoding=EncodeOptions(model.max_length),
        corpus="golden",
        split=None,
        settings={},
        overlapping=0,
        unlabelled=0,
        failures=[],
    )


# Against the authors


@pytest.mark.parametrize("mode", ["thr", "all"])
def test_the_authors_triggers(authors: Path, mode: str) -> None:
    numbers = golden_numbers("attattr")
    names = [row["id"] for row in pq.read_table(GOLDENS / "corpus.parquet").to_pylist()]
    options = HeldOutOptions(str(authors), "")
    found = triggers_of(options, both=mode == "all", least=0.02)
    order = [names.index(candidate.instance_id) for candidate, _ in found]
    assert order == numbers["adv_order"].tolist()
    for number, (candidate, trigger) in zip(order, found, strict=True):
        assert trigger.score == pytest.approx(candidate.score)
        if number < 5:
            assert candidate.score == pytest.approx(numbers[f"adv_score/{number}"].sum())
            places = set(numbers[f"adv_pos/{number}"].ravel().tolist())
            assert set(candidate.positions) <= places
    # The accuracies of all patterns but the last, which the authors lose.
    model = load_model(GOLDENS / "bert-golden", dtype="float64")
    rows = pq.read_table(GOLDENS / "corpus.parquet").to_pylist()
    instances = encode(
        model,
        [
            Row(row["id"], input_ids=row["input_ids"], token_type_ids=row["token_type_ids"])
            for row in rows
        ],
    )
    own = held_out(model, [replace(each, label=n % 3) for n, each in enumerate(instances)])
    expected = numbers[f"adv_eval_{mode}_acc"]
    assert len(found) == len(expected) + 1
    compared = 0
    for (_, trigger), accuracies in zip(found, expected, strict=False):
        tried = list(counts(own, trigger))
        assert [count.gold for count in tried] == [0, 1, 2]
        assert sum(count.n + count.skipped for count in tried) == 8
        # The authors put what they can of a pair's trigger into a single text.
        if not any(count.skipped for count in tried):
            right = [count.correct_after / count.n for count in tried]
            np.testing.assert_allclose(right, accuracies)
            compared += 1
    assert compared >= 3


# By hand


@pytest.mark.parametrize("both", [False, True])
def test_sql_and_numpy_agree(run: Path, both: bool) -> None:
    found = triggers_of(HeldOutOptions(str(run), ""), both=both, least=0)
    assert len(found) == FOUND
    for candidate, trigger in found:
        assert trigger.position == tuple(candidate.positions)
        assert trigger.tokens == tuple(candidate.tokens)
        assert trigger.score == pytest.approx(candidate.score)
    scores = [trigger.score for _, trigger in found]
    assert scores == sorted(scores, reverse=True)


def test_which_candidates(connection: duckdb.DuckDBPyConnection) -> None:
    every = trigger_candidates(connection, "attattr", least=0)
    for target in (0, 1):
        some = trigger_candidates(connection, "attattr", least=0, target=target)
        assert some == [each for each in every if each.explained == target]
    assert trigger_candidates(connection, "attattr", least=0, limit=2) == every[:2]
    assert trigger_candidates(connection, "attattr", least=every[0].score) == every[:1]
    assert trigger_candidates(connection, "saliency") == []


def test_it_goes_in_whole_or_not_at_all() -> None:
    model = load_model(MODEL)
    (single,) = encode(model, ["the plot is dull"])
    (pair,) = encode(model, [Row("p", "the plot", "is dull")])
    one = Trigger((7, 8), ("a", "b"), (0, 0), (1, 2), (0.1, 1.0), 1.0)
    two = replace(one, segment=(0, 1))
    assert [len(single), len(pair)] == [6, 7]
    for instance, trigger in ((single, one), (pair, one), (pair, two)):
        found = with_trigger(instance, trigger, 64)
        assert found is not None
        assert len(found) == len(instance) + 2
        assert found.input_ids.tolist() == attacked(instance, trigger).input_ids.tolist()
    # There is no second text.
    assert with_trigger(single, two, 64) is None
    # The end of the text gives way; the trigger doesn't.
    assert with_trigger(single, one, 7) is None
    first = replace(one, relative=(0.1, 0.2))
    shorter = with_trigger(single, first, 7)
    assert shorter is not None
    assert (len(shorter), shorter.truncated) == (7, True)
    assert with_trigger(single, first, 3) is None


def test_what_is_skipped_is_counted() -> None:
    model = load_model(MODEL)
    texts = [Row("a", "it is fine", label=1), Row("b", "it is", "fine", label=1)]
    own = held_out(model, encode(model, texts))
    (count,) = counts(own, Trigger((7,), ("a",), (1,), (1,), (1.0,), 1.0))
    assert (count.gold, count.n, count.skipped) == (1, 1, 1)
    assert count.correct_before <= 1
    (count,) = counts(own, Trigger((7,), ("a",), (0,), (1,), (1.0,), 1.0))
    assert (count.n, count.skipped) == (2, 0)


# From end to end


def test_triggers_are_listed(run: Path, connection: duckdb.DuckDBPyConnection) -> None:
    outcome = command("triggers", run, "--limit", 2, "--both", "--least", 0)
    assert (outcome.status, outcome.err) == (DONE, "")
    header, _, *lines = outcome.out.splitlines()
    assert header.split()[:4] == ["tokens", "positions", "score", "instance_id"]
    found = trigger_candidates(connection, "attattr", limit=2, both=True, least=0)
    assert len(lines) == len(found) == 2
    for line, candidate in zip(lines, found, strict=True):
        assert candidate.instance_id in line
        assert ("negative", "positive")[candidate.explained] in line
    assert command("triggers", run, "--least", 9).status == DONE


def test_classes_without_names_are_listed_by_number(run: Path, tmp_path: Path) -> None:
    nameless = shutil.copytree(run, tmp_path / "nameless")
    manifest = json.loads((nameless / "run.json").read_text())
    manifest["identity"]["model"]["labels"] = None
    (nameless / "run.json").write_text(json.dumps(manifest))
    outcome = command("triggers", nameless, "--limit", 2, "--least", 0)
    assert (outcome.status, outcome.err) == (DONE, "")
    assert {line.split()[-1] for line in outcome.out.splitlines()[2:]} <= {"0", "1"}


def test_an_attack(attack: Attack, run: Path, connection: duckdb.DuckDBPyConnection) -> None:
    outcome = attack("--triggers", 2, "--least", 0)
    assert (outcome.status, outcome.err) == (DONE, "")
    lines = outcome.out.splitlines()
    assert lines[:3] == [
        "text: text, label: label, id: id; not used: rationale, structure",
        f"triggers of the run in {ALL - FOUND} texts of sentiment.parquet",
        f"{FOUND} left out: they are in the run",
    ]
    (path,) = [Path(line.split()[1]) for line in lines if line.startswith("table:")]
    table = pq.ParquetFile(path).read()
    assert table.schema.equals(table_schema("attacks"))
    model = load_model(MODEL)
    texts = pq.read_table(CORPUS).slice(FOUND, ALL - FOUND).to_pylist()
    instances = encode(model, [text["text"] for text in texts])
    before = [p.predicted for p in attribute(model, instances, []).predictions if p]
    chosen = triggers_of(HeldOutOptions(str(run), ""), limit=2, least=0)
    rows = table.to_pylist()
    assert [(row["rank"], row["gold"]) for row in rows] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    for row in rows:
        candidate, trigger = chosen[row["rank"] - 1]
        assert row["source_id"] == candidate.instance_id
        assert (row["tokens"], row["relative"]) == (list(trigger.tokens), list(trigger.relative))
        changed = [attacked(instance, trigger) for instance in instances]
        after = [p.predicted for p in attribute(model, changed, []).predictions if p]
        gold = [text["label"] == row["gold"] for text in texts]
        own = [pair for pair, wanted in zip(zip(before, after, strict=True), gold, strict=True)
               if wanted]  # fmt: skip
        assert (row["n"], row["skipped"]) == (len(own), 0)
        assert row["correct_before"] == sum(old == row["gold"] for old, _ in own)
        assert row["correct_after"] == sum(new == row["gold"] for _, new in own)
        assert row["flipped"] == sum(old == row["gold"] != new for old, new in own)
    assert verify(run).problems == []
    with open_run(run, commented=False) as after_it:
        view = after_it.execute(
            "select rank, gold, trigger, accuracy_before, accuracy_after, success "
            "from attack_success"
        ).fetchall()
    assert view == [
        (
            row["rank"],
            row["gold"],
            " ".join(row["tokens"]),
            row["correct_before"] / row["n"],
            row["correct_after"] / row["n"],
            row["flipped"] / row["correct_before"] if row["correct_before"] else None,
        )
        for row in rows
    ]


def test_other_settings_stand_beside_it(attack: Attack, run: Path) -> None:
    before = files(run)
    assert attack("--triggers", 1, "--limit", 6).status == DONE
    assert attack("--triggers", 1, "--limit", 6).status == DONE
    assert (
        attack("--triggers", 1, "--limit", 6, "--target", "positive", "--least", 0).status == DONE
    )
    assert len(files(run) - before) == 2
    with open_run(run, commented=False) as connection:
        found = connection.execute(
            "select count(distinct evaluation), count(distinct (evaluation, rank, gold)), count(*) "
            "from attacks"
        ).fetchone()
    assert found is not None
    assert found[1] == found[2]
    assert verify(run).problems == []


# Bad usage


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--triggers 0", "--triggers is at least 1, not 0"),
        ("--target 2", "--target 2: the model has no such class; it has 0 (negative), 1 (positive"),
        ("--target good", "--target good: the model has no such class"),
        ("--least 9", "has no trigger with a score of 9 or more: lower --least"),
        ("--least 9 --target 1", "has no trigger of class 1 with a score of 9 or more"),
        ("--method saliency", "has no heads of saliency: add them with `attribeam run"),
        ("--label-column none", "an evaluation needs labels, but"),
        (f"--limit {FOUND}", f"is left to evaluate on ({FOUND} in the run too): give a labelled"),
    ],
)
def test_what_is_refused(arguments: str, message: str, attack: Attack, run: Path) -> None:
    before = files(run)
    outcome = attack(*arguments.split())
    assert (outcome.status, outcome.out) == (USAGE, "")
    assert outcome.err.startswith("attribeam: ")
    assert message in outcome.err
    assert files(run) == before


def test_what_is_refused_of_triggers(run: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ((run, "--limit", 0), "--limit is at least 1, not 0"),
        ((run, "--target", "none"), "--target none: the model has no such class"),
        ((run, "--method", "iba"), "has no heads of iba"),
        ((tmp_path,), "is no run folder"),
    ):
        outcome = command("triggers", *arguments)
        assert (outcome.status, outcome.out) == (USAGE, "")
        assert message in outcome.err


def test_a_corpus_is_needed(run: Path) -> None:
    outcome = command("attack", run)
    assert (outcome.status, outcome.err) == (
        USAGE,
        "attribeam: --corpus is needed (`attribeam attack --help`)\n",
    )


def test_another_model(attack: Attack, tiny_folder: Callable[..., Path]) -> None:
    outcome = attack("--model", tiny_folder("bert"))
    assert outcome.status == USAGE
    assert "is not the model of the run: " in outcome.err


def test_a_masked_lm(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    model = tiny_folder("bert", "masked_lm")
    text = "the film is not [MASK]"
    lines = [
        {"text": f"{text} {more}", "good": "good", "bad": "dull"}
        for more in ("but a play", "and bad", "was very", "dull")
    ]
    corpus = write_jsonl(tmp_path / "c.jsonl", lines)
    folder = attribute_into(tmp_path / "out", model, corpus, "--limit", 2)
    usual = ("--model", model, "--corpus", corpus, "--device", "cpu")
    assert command("prune", folder, *usual, "--rates", "0,1", "--seeds", 0).status == DONE
    outcome = command("attack", folder, *usual, "--least", -1, "--triggers", 1)
    assert outcome.status == DONE, outcome.err
    with open_run(folder, commented=False) as connection:
        rows = connection.execute("select gold, n, skipped from attacks").fetchall()
    assert rows == [(0, 2, 0)]
    manifest = json.loads((folder / "run.json").read_text())
    assert manifest["identity"]["model"]["task"] == "masked_lm"
