"""Pruning heads: the authors' masks, a run from end to end, and what is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value

from attribeam.analysis import open_run, verify
from attribeam.pipeline.commands.status import DONE, FAILED, USAGE
from attribeam.pipeline.experiments.held_out import HeldOut, HeldOutOptions
from attribeam.pipeline.experiments.prune import (
    by_rate,
    importances,
    least_first,
    orders,
    outcome_of,
    outcomes,
    parse_rates,
    prune_mask,
)
from attribeam.schemas import UsageError, table_schema
from attribeam.transforms import EncodeOptions, Model, attribute, encode, load_model
from attribeam.transforms.passes.attention_path import pruned
from tests.conftest import LoadTiny
from tests.support.authors import golden_numbers, golden_rows
from tests.support.tiny import Outcome, command, files, write_jsonl

EXAMPLES = Path(__file__).parents[3] / "examples"
MODEL, CORPUS = EXAMPLES / "models" / "sentiment-bert", EXAMPLES / "data" / "sentiment.parquet"
TENTHS = [Fraction(k, 10) for k in range(11)]
RANKED, ALL = 3, 12
Prune = partial[Outcome]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the first texts of the bundled corpus."""
    folder = tmp_path_factory.mktemp("run") / "out"
    given = ("--model", MODEL, "--corpus", CORPUS, "--output", folder, "--limit", RANKED)
    quick = ("--no-evaluate", "--device", "cpu", "--set", "attattr.steps=4")
    assert command("run", *given, "--methods", "attattr", *quick).status == DONE
    return folder


@pytest.fixture
def prune(run: Path) -> Prune:
    """``attribeam prune``, quickly, unless the arguments say otherwise."""
    usual = ("--model", MODEL, "--corpus", CORPUS, "--limit", ALL, "--device", "cpu")
    return partial(command, "prune", run, *usual, "--rates", "0,1/2,1", "--seeds", 2)


@pytest.fixture
def refused(run: Path) -> Callable[..., None]:
    """Checks that a command was refused in one line, and wrote nothing."""
    before = files(run)

    def check(outcome: Outcome, *messages: str) -> None:
        assert (outcome.status, outcome.out) == (USAGE, ""), outcome.err
        assert outcome.err.startswith("attribeam: ")
        assert outcome.err.count("\n") == 1
        for message in messages:
            assert message in outcome.err
        assert files(run) == before

    return check


def held_out(model: Model, labels: list[int] | None = None) -> HeldOut:
    """The golden texts, labelled with what the model predicts unless labels are given."""
    instances = encode(model, golden_rows())
    predictions = [each for each in attribute(model, instances, []).predictions if each]
    labels = labels or [prediction.predicted for prediction in predictions]
    return HeldOut(
        options=HeldOutOptions("", ""),
        model=model,
        instances=[replace(i, label=label) for i, label in zip(instances, labels, strict=True)],
        predictions=predictions,
        encoding=EncodeOptions(model.max_length),
        corpus="golden",
        split=None,
        settings={},
        overlapping=0,
        unlabelled=0,
        failures=[],
    )


# Against the authors


@pytest.mark.parametrize("kind", ["attr", "taylor"])
def test_masks_and_accuracies(golden: LoadTiny, kind: str) -> None:
    numbers = golden_numbers("attattr")
    name = "head_importance_attr_sum8" if kind == "attr" else "head_importance_taylor8"
    order = least_first(numbers[name].astype(float))
    masks = [prune_mask(order, rate, (4, 4)) for rate in TENTHS]
    np.testing.assert_array_equal(torch.stack(masks).numpy(), numbers[f"prune_mask_{kind}"])
    own = held_out(golden("bert-golden", "float64"))
    found = outcomes(own, masks)
    right = np.array([outcome.correct for outcome in found]) / len(own.instances)
    np.testing.assert_allclose(right, numbers[f"prune_acc_{kind}"])
    logits = numbers[f"prune_logits_{kind}_padded"]
    chosen = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    labels = [instance.label for instance in own.instances]
    loss = -chosen[:, range(len(labels)), labels].mean(1)
    np.testing.assert_allclose([outcome.loss for outcome in found], loss, atol=1e-9)


# By hand


def test_rates_are_exact() -> None:
    assert parse_rates("1, 0.29,0,1/3,0.29") == [0, Fraction(29, 100), Fraction(1, 3), 1]
    # int(0.29 * 100) is 28.
    assert prune_mask(np.arange(100), Fraction("0.29"), (10, 10)).sum() == 71
    for text in ("", ",", "1.5", "-0.1", "nan", "half", "1/0"):
        with pytest.raises(UsageError, match="--rates"):
            parse_rates(text)


def test_of_equal_heads_the_higher_layer_goes_first() -> None:
    importance = np.array([[1.0, 0.5], [1.0, 1.0]])
    assert least_first(importance).tolist() == [1, 3, 2, 0]
    mask = prune_mask(least_first(importance), Fraction(1, 2), (2, 2))
    assert mask.tolist() == [[1, 0], [1, 0]]


def test_orders() -> None:
    found = list(orders({"a": np.eye(3), "b": -np.eye(3)}, 3))
    assert [(order.importance, order.seed) for order in found] == [
        ("a", None), ("b", None), ("random", 0), ("random", 1), ("random", 2),
    ]  # fmt: skip
    assert all(sorted(order.heads) == list(range(9)) for order in found)
    assert len({tuple(order.heads) for order in found}) == 5
    again = list(orders({"a": np.eye(3)}, 1))[-1]
    assert again.heads.tolist() == found[2].heads.tolist()


def test_equal_masks_are_run_once(golden: LoadTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    own = held_out(golden("bert-golden"))
    calls: list[int] = []
    predict = HeldOut.predict
    monkeypatch.setattr(
        HeldOut, "predict", lambda self, given: calls.append(1) or predict(self, given)
    )
    none, ones = torch.zeros(4, 4), torch.ones(4, 4)
    seen: list[tuple[int, int]] = []
    found = outcomes(own, [ones, none, ones, none], lambda *done: seen.append(done))
    assert (len(calls), seen) == (1, [(1, 2), (2, 2)])
    assert found[0] == found[2] == outcome_of(own.instances, own.predictions)
    assert found[0].correct == len(own.instances)
    assert found[1] == found[3] != found[0]


def test_a_table_of_rates() -> None:
    rows = [
        {"importance": name, "rate": rate, "pruned": int(4 * rate), "accuracy": accuracy}
        for rate in (0.5, 0.0)
        for name, accuracy in (("random", 0.25), ("random", 0.75), ("attattr", rate))
    ]
    assert by_rate(rows) == (
        ["rate", "pruned", "attattr", "random", "random_min", "random_max"],
        [[0, 0, 0, 0.5, 0.25, 0.75], [0.5, 2, 0.5, 0.5, 0.25, 0.75]],
    )


# From end to end


def test_a_run_is_pruned(prune: Prune, run: Path) -> None:
    outcome = prune()
    assert (outcome.status, outcome.err) == (DONE, "")
    lines = outcome.out.splitlines()
    assert lines[:3] == [
        "text: text, label: label, id: id; not used: rationale, structure",
        f"accuracy on {ALL - RANKED} texts of sentiment.parquet, heads ranked on {RANKED} of "
        "the run",
        f"{RANKED} left out: they are in the run",
    ]
    assert lines[-1] == f"next:   attribeam plot {run} pruning"
    (path,) = [Path(line.split()[1]) for line in lines if line.startswith("table:")]
    table = pq.ParquetFile(path).read()
    assert table.schema.equals(table_schema("pruning"))
    model = load_model(MODEL)
    texts = pq.read_table(CORPUS).slice(RANKED, ALL - RANKED).to_pylist()
    instances = encode(model, [text["text"] for text in texts])
    labels = [text["label"] for text in texts]

    def right(mask: torch.Tensor) -> int:
        with pruned(model, mask):
            found = attribute(model, instances, []).predictions
        return sum(p is not None and p.predicted == y for p, y in zip(found, labels, strict=True))

    rows = table.to_pylist()
    assert [row["rate"] for row in rows] == [0, 0.5, 1] * 6
    assert {row["n"] for row in rows} == {ALL - RANKED}
    shape = (model.num_layers, 4)
    with open_run(run, commented=False) as connection:
        importance = importances(connection, "attattr", shape)
        ranks = np.array(
            connection.execute("select rank from head_importance order by layer, head").fetchall()
        )
    whole, none = right(torch.ones(shape)), right(torch.zeros(shape))
    half = torch.from_numpy(ranks <= 6).view(shape).float()
    for row in rows:
        assert row["pruned"] == row["rate"] * row["heads"] == row["rate"] * 12
        assert row["accuracy"] == row["correct"] / row["n"]
        if row["rate"] != 0.5:
            assert row["correct"] == (whole if row["rate"] == 0 else none)
        elif row["importance"] == "attattr":
            assert row["correct"] == right(half)
    assert list(importance) == ["attattr", "taylor_loss", "taylor_logits", "attention"]
    norms = np.linalg.norm(importance["taylor_logits"], axis=1)
    np.testing.assert_allclose(norms, 1)


def test_doing_it_again_replaces_it(prune: Prune, run: Path) -> None:
    first = prune().out
    before = {name: (run / name).read_bytes() for name in files(run)}
    assert prune().out == first
    assert {name: (run / name).read_bytes() for name in files(run)} == before
    # Other settings stand beside it, and both are to be read.
    assert prune("--rates", "1", "--seeds", 0).status == DONE
    with open_run(run, commented=False) as connection:
        counts = connection.execute(
            "select count(*) from pruning group by evaluation order by 1"
        ).fetchall()
    assert counts == [(4,), (18,)]
    assert verify(run).problems == []
    # What the run itself has to do is none of their business.
    assert len(files(run) - set(before)) == 1


def test_a_plot(prune: Prune, run: Path) -> None:
    assert prune().status == DONE
    outcome = command("plot", run, "pruning")
    assert (outcome.status, outcome.out) == (DONE, f"{run}/pruning.html\n")
    (run / "pruning.html").unlink()


def test_what_is_wrong_with_a_file_is_found(prune: Prune, run: Path) -> None:
    assert prune().status == DONE
    path = next((run / "pruning").glob("*.parquet"))
    whole = path.read_bytes()
    table = pq.ParquetFile(path).read()
    path.write_bytes(whole[:-7])
    (problem,) = verify(run).problems
    assert problem.startswith(f"pruning/{path.name}: damaged")
    number = table.schema.get_field_index("accuracy")
    wrong = table.set_column(number, table.schema.field(number), pa.array([0.3] * len(table)))
    pq.write_table(wrong, path)
    (problem,) = verify(run).problems
    assert problem == f"pruning: {len(table)} rows contradict themselves, such as one of " + (
        path.name.removesuffix(".parquet")
    )
    path.write_bytes(whole)
    assert verify(run).problems == []


def test_without_one_the_table_is_empty_and_typed(run: Path, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes((run / "run.json").read_bytes())
    with open_run(tmp_path, commented=False) as connection:
        for name in ("pruning", "attacks"):
            columns = connection.execute(f"select column_name from (describe {name})").fetchall()
            assert [column for (column,) in columns] == table_schema(name).names
            assert connection.execute(f"from {name}").fetchall() == []
        kinds = connection.execute("select column_type from (describe pruning)").fetchall()
    assert kinds[3:7] == [("INTEGER",), ("VARCHAR",), ("VARCHAR",), ("DOUBLE",)]


def test_rows_that_fail_and_rows_without_label(prune: Prune, run: Path, tmp_path: Path) -> None:
    inside = pq.read_table(CORPUS).slice(0, 1).to_pylist()[0]["text"]
    corpus = write_jsonl(
        tmp_path / "dev.jsonl",
        [
            {"text": "The plot is dull.", "label": "negative"},
            {"text": "The plot is fine.", "label": 1},
            {"text": "The plot is new.", "label": -1},
            {"text": "The plot is old."},
            {"text": " ", "label": 1},
            {"text": inside, "label": 0},
            # Blanks are nothing to this tokenizer.
            {"text": inside.replace(" ", "  "), "label": 0},
        ],
    )
    outcome = prune("--corpus", corpus)
    assert outcome.status == FAILED
    assert outcome.out.splitlines()[:5] == [
        "text: text, label: label",
        f"accuracy on 2 texts of dev.jsonl, heads ranked on {RANKED} of the run",
        "2 left out: they are in the run",
        "2 left out: they have no label",
        "1 failed: the text is empty",
    ]
    with open_run(run, commented=False) as connection:
        query = "select distinct split, n from pruning where corpus = 'dev.jsonl'"
        assert connection.execute(query).fetchall() == [("dev", 2)]


def test_gold_labels_are_those_of_the_corpus_names(prune: Prune, tmp_path: Path) -> None:
    """The corpus calls its classes as the model does, in another order."""
    table = pq.read_table(CORPUS).slice(RANKED, 6)
    names = ["positive", "negative"]
    features = Features({"text": Value("string"), "label": ClassLabel(names=names)})
    labels = [1 - label for label in table["label"].to_pylist()]
    swapped = Dataset.from_dict({"text": table["text"].to_pylist(), "label": labels}, features)
    swapped.to_parquet(str(tmp_path / "swapped.parquet"))
    plain = table.select(["text", "label"]).replace_schema_metadata(None)
    pq.write_table(plain, tmp_path / "plain.parquet")
    found = [
        prune("--corpus", tmp_path / f"{name}.parquet").out.splitlines()
        for name in ("swapped", "plain")
    ]
    assert found[0][1] == (
        "labels by name: positive is class 1 (positive), negative is class 0 (negative)"
    )
    tables = [lines[4 - at : -3] for at, lines in enumerate(found)]
    assert len(tables[0]) == 5
    assert tables[0] == tables[1]


# Bad usage


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--rates 0,2", "--rates are shares of the heads, from 0 to 1, not 0,2"),
        ("--rates some", "--rates is a list of numbers such as 0.1 or 1/9, not some"),
        ("--seeds -1", "--seeds is between 0 and 10000, not -1"),
        ("--limit 0", "--limit is at least 1, not 0"),
        ("--device tpu", "--device is auto, cpu, cuda or cuda:N, not tpu"),
        ("--method saliency", "has no heads of saliency: add them with `attribeam run ... --out"),
        ("--label-column none", "an evaluation needs labels, but"),
        ("--label-column stars", "has no column 'stars' (--label-column); its columns are id, te"),
        ("--corpus none.parquet", "there is no corpus at none.parquet"),
        ("--model ./none", "there is no model folder ./none"),
        (f"--limit {RANKED}", f"is left to evaluate on ({RANKED} in the run too): give a labelled"),
    ],
)
def test_what_is_refused(
    arguments: str, message: str, prune: Prune, refused: Callable[..., None]
) -> None:
    refused(prune(*arguments.split()), message)


def test_what_is_needed(run: Path, refused: Callable[..., None]) -> None:
    refused(command("prune", run), "--corpus is needed (`attribeam prune --help`)")
    missing = "the run is of the model 'sentiment-bert': say with --model where it is"
    refused(command("prune", run, "--corpus", CORPUS), missing)


def test_a_folder_that_is_no_run(prune: Prune, tmp_path: Path) -> None:
    outcome = command("prune", tmp_path, *prune.args[2:])
    assert outcome.status == USAGE
    assert "is no run folder" in outcome.err


def test_another_model(
    prune: Prune, refused: Callable[..., None], tiny_folder: Callable[..., Path]
) -> None:
    outcome = prune("--model", tiny_folder("bert"))
    refused(outcome, "is not the model of the run: model.config_sha256 was ")


def test_other_weights(prune: Prune, refused: Callable[..., None], tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for path in MODEL.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    # Of the same architecture, wherever it lies.
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-4] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    refused(
        prune("--model", other),
        "is not the model of the run: model.weights_sha256 was ",
        "Name the run's (sentiment-bert) with --model",
    )


def test_a_corpus_whose_labels_are_all_missing(
    prune: Prune, refused: Callable[..., None], tmp_path: Path
) -> None:
    corpus = write_jsonl(tmp_path / "test.jsonl", [{"text": "It is fine.", "label": -1}])
    refused(prune("--corpus", corpus), "(1 without a label): give a labelled corpus")


def test_a_run_that_has_not_got_so_far(prune: Prune, run: Path, tmp_path: Path) -> None:
    manifest: dict[str, Any] = json.loads((run / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(manifest))
    outcome = command("prune", tmp_path, *prune.args[2:])
    assert outcome.status == USAGE
    assert f"{tmp_path} has no heads of attattr: add them with" in outcome.err
