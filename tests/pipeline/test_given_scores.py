"""Scores that others computed: read from whatever they write, aligned, and tested like any."""

import base64
import gzip
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attribeam.analysis import verify
from attribeam.pipeline.corpus.foreign import read_foreign
from attribeam.schemas import UsageError
from examples import captum_npz
from tests.support.tiny import Outcome, command, rows, table, write_jsonl

COUNT = 8
FRACTIONS = ("--fractions", "0.3,0.6", "--orders", "morf,lerf", "--shard-size", "3")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus."""
    return write_jsonl(tmp_path_factory.mktemp("corpus") / "corpus.jsonl", rows(COUNT))


Run = Callable[..., Outcome]


@pytest.fixture(scope="module")
def run(source: Path, tiny_folder: Callable[..., Path]) -> Run:
    """Runs the corpus into a folder, with whatever scores are given."""
    model = tiny_folder("bert")

    def into(output: Path, *more: object) -> Outcome:
        given = ("--model", model, "--corpus", source, "--output", output)
        return command("run", *given, *FRACTIONS, *more)

    return into


@pytest.fixture(scope="module")
def native(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one method that is computed: copies have the same batch mates."""
    folder = tmp_path_factory.mktemp("native") / "run"
    assert run(folder, "--methods", "grad_x_input").status == 0
    return folder


def exported(native: Path, method: str) -> list[dict[str, Any]]:
    """The scores of a method with what they are of, by instance."""
    instances = {row["instance_id"]: row for row in table(native, "instances").to_pylist()}
    return [
        {**row, **{k: instances[row["instance_id"]][k] for k in ("tokens", "input_ids", "logits")}}
        for row in table(native, "attributions", method).to_pylist()
    ]


def by_instance(folder: Path, name: str, method: str, *columns: str) -> list[tuple[Any, ...]]:
    found = table(folder, name, method).to_pylist()
    return sorted(tuple(row[column] for column in ("instance_id", *columns)) for row in found)


CURVES = ("order", "operation", "fraction", "removed", "probability", "logit", "target")


def check_equal(folder: Path, native: Path, name: str, method: str) -> None:
    """Checks that scores and curves are equal to the last bit."""
    assert table(folder, "failures").num_rows == 0
    for of, columns in (("attributions", ("scores",)), ("curves", CURVES)):
        found = by_instance(folder, of, name, *columns)
        assert found == by_instance(native, of, method, *columns) and found


def test_a_native_method_comes_back_bit_by_bit(run: Run, native: Path, tmp_path: Path) -> None:
    lines = [
        {"id": row["instance_id"], **{k: row[k] for k in ("scores", "tokens", "target")}}
        for row in exported(native, "grad_x_input")
    ]
    parquet = tmp_path / "theirs.parquet"
    pq.write_table(pa.Table.from_pylist(lines), parquet)
    by_ids = [
        {"idx": n, "attributions": [*row["scores"], 0.0, 0.0], "predictions": row["logits"]}
        | {"input_ids": [*row["input_ids"], 0, 0]}
        for n, row in enumerate(exported(native, "grad_x_input"))
    ]
    thermostat = write_jsonl(tmp_path / "thermostat.jsonl", by_ids)
    given = ("--scores", f"theirs={parquet}", "--scores", f"run={native}#grad_x_input")
    outcome = run(
        tmp_path / "run", "--methods", "theirs", *given, "--scores", f"thermo={thermostat}"
    )
    assert outcome.status == 0, outcome.err
    for name in ("theirs", "run", "thermo"):
        check_equal(tmp_path / "run", native, name, "grad_x_input")
    record = json.loads((tmp_path / "run" / "run.json").read_text())["methods"]
    assert [*record] == ["theirs", "run", "thermo"]
    assert record["theirs"]["params"]["source"] == "theirs.parquet"
    assert record["theirs"]["signed"] and record["theirs"]["class_dependent"]
    assert record["theirs"]["paper"] == "imported from theirs.parquet"
    assert record["run"]["params"]["source"] == "run#grad_x_input"
    # Nothing is left to do, and other scores of the same name are refused.
    again = run(tmp_path / "run", "--methods", "theirs", "--scores", f"theirs={parquet}")
    assert again.out.startswith("nothing left to do")
    write_jsonl(tmp_path / "other.jsonl", [{**lines[0], "scores": [1.0]}])
    other = run(
        tmp_path / "run", "--methods", "theirs", "--scores", f"theirs={tmp_path}/other.jsonl"
    )
    assert other.status == 2 and "methods.theirs.imported was" in other.err


def test_what_additive_scores_of_a_run_miss_comes_with_them(
    run: Run, native: Path, tmp_path: Path
) -> None:
    """As verify wants it of them; here the native scores are said to be additive."""
    manifest = json.loads((native / "run.json").read_text(encoding="utf-8"))
    additive = tmp_path / "additive"
    shutil.copytree(native, additive)
    manifest["methods"]["grad_x_input"]["additive"] = True
    (additive / "run.json").write_text(json.dumps(manifest), encoding="utf-8")
    for path in (additive / "attributions" / "method=grad_x_input").iterdir():
        rows_of = pq.ParquetFile(path).read()
        at = rows_of.column_names.index("delta")
        gaps = pa.array([0.25 + number for number in range(len(rows_of))], pa.float32())
        pq.write_table(rows_of.set_column(at, rows_of.schema.field("delta"), gaps), path)
    given = f"theirs={additive}#grad_x_input"
    outcome = run(tmp_path / "run", "--methods", "theirs", "--scores", given, "--no-evaluate")
    assert outcome.status == 0, outcome.err
    found = by_instance(tmp_path / "run", "attributions", "theirs", "delta")
    assert found == by_instance(additive, "attributions", "grad_x_input", "delta")
    assert verify(tmp_path / "run").problems == []


def test_what_fits_nothing_is_a_failure_that_says_why(
    run: Run, native: Path, tmp_path: Path
) -> None:
    own = exported(native, "grad_x_input")
    words = rows(COUNT)[5]["text"].split()
    lines: list[dict[str, Any]] = [
        {"id": "r0", "scores": [*own[0]["scores"], 1.0]},
        {"id": "r1", "scores": own[1]["scores"], "tokens": ["no"] * len(own[1]["scores"])},
        {"id": "r2", "scores": own[2]["scores"], "target": 2 - (exported_target(native, 2) == 2)},
        {"id": "r3", "scores": own[3]["scores"], "input_ids": [7] * len(own[3]["scores"])},
        {"id": "r4", "scores": [None] * len(own[4]["scores"])},
        {"id": "r5", "scores": [1.0], "words": words},
        {"id": "r6", "scores": [1.0, 2.0], "spans": [[0, 3], [2, 6]]},
        {"id": "r99", "scores": [1.0]},
    ]
    given = f"theirs={write_jsonl(tmp_path / 'theirs.jsonl', lines)}"
    outcome = run(tmp_path / "run", "--methods", "theirs", "--scores", given)
    assert outcome.status == 1
    assert "1 of 8 in theirs.jsonl are of no row of the corpus" in outcome.out
    assert "such as id 'r99'" in outcome.out
    told = table(tmp_path / "run", "failures").to_pylist()
    messages = {row["instance_id"]: row["message"] for row in told}
    tokens = len(own[0]["tokens"])
    assert {row["error"] for row in told} == {"UnalignedError"}
    assert {row["corpus_row"] for row in told} == {*range(COUNT)}
    assert messages["r0"] == (
        f"has {tokens + 1} scores, the text has {tokens} tokens ({tokens - 2} without special ones)"
    )
    assert messages["r1"].startswith("is of other tokens: number 0 is 'no', and '[CLS]'")
    assert "explains class" in messages["r2"] and "(--target)" in messages["r2"]
    assert "of another tokenizer" in messages["r3"]
    assert "are no numbers" in messages["r4"]
    assert messages["r5"] == f"has 1 scores, the text has {len(words)} words"
    assert "lies in 2 spans" in messages["r6"]
    assert messages["r7"] == "no scores were given for it"


def exported_target(native: Path, row: int) -> int:
    (found,) = (r for r in exported(native, "grad_x_input") if r["instance_id"] == f"r{row}")
    return int(found["target"])


def test_words_and_spans_are_those_of_their_tokens(run: Run, tmp_path: Path) -> None:
    texts = [row["text"] for row in rows(COUNT)]
    words = [text.split() for text in texts]
    numbers = [[float(n + 1) for n in range(len(own))] for own in words]
    ends = [[sum(len(w) + 1 for w in own[: n + 1]) - 1 for n in range(len(own))] for own in words]
    spans = [
        [[end - len(word), end] for word, end in zip(own, of, strict=True)]
        for own, of in zip(words, ends, strict=True)
    ]
    by_word = [
        {"text": t, "words": w, "scores": s} for t, w, s in zip(texts, words, numbers, strict=True)
    ]
    by_span = [{"row": n, "spans": spans[n], "scores": numbers[n]} for n in range(COUNT)]
    eraser = [
        {
            "annotation_id": f"r{n}",
            "rationales": [{"docid": f"r{n}", "soft_rationale_predictions": numbers[n]}],
        }
        for n in range(COUNT)
    ]
    given = []
    for name, lines in (("word", by_word), ("span", by_span), ("eraser", eraser)):
        given += ["--scores", f"{name}={write_jsonl(tmp_path / f'{name}.jsonl', lines)}"]
    outcome = run(tmp_path / "run", "--methods", "word", *given, "--no-evaluate")
    assert outcome.status == 0, outcome.err
    found = {
        name: by_instance(tmp_path / "run", "attributions", name, "scores")
        for name in ("word", "span", "eraser")
    }
    assert found["word"] == found["span"] == found["eraser"]
    word_ids = {
        r["instance_id"]: r["word_ids"] for r in table(tmp_path / "run", "instances").to_pylist()
    }
    for name, scores in found["word"]:
        expected = [0.0 if word is None else word + 1.0 for word in word_ids[name]]
        assert scores == expected


def packed(array: np.ndarray) -> dict[str, Any]:
    """An array as inseq packs it."""
    data = base64.b64encode(gzip.compress(array.tobytes())).decode()
    about = {"dtype": str(array.dtype), "shape": array.shape, "Corder": True}
    return {"__ndarray__": f"b64.gz:{data}", **about}


def test_inseq_and_captum(tmp_path: Path) -> None:
    scores = np.array([[0.5], [-1.0], [np.nan]], np.float32)
    tokens = [{"__instance_type__": ["a", "b"], "attributes": {"token": t, "id": 1}} for t in "xyz"]
    sequence = {"source": [], "target": tokens, "source_attributions": None}
    for wrapped in (packed(scores), {"__ndarray__": scores.tolist(), "shape": [3, 1]}):
        one = {"attributes": {**sequence, "target_attributions": wrapped}}
        saved = {"__instance_type__": ["a", "b"], "attributes": {"sequence_attributions": [one]}}
        path = tmp_path / "inseq.json"
        path.write_text(json.dumps(saved))
        (found,) = read_foreign("a", str(path), None).found
        assert (found.key, found.given.scores) == (("row", 0), [0.5, -1.0])
        assert found.given.tokens == ["x", "y"]
    arrays = {"attributions": np.arange(6.0).reshape(2, 3), "attention_mask": np.eye(2, 3) + 1 > 1}
    np.savez(tmp_path / "a.npz", **arrays, targets=np.array([1, 0]), ids=np.array(["u", "v"]))
    foreign = read_foreign("a", str(tmp_path / "a.npz"), None)
    assert [one.key for one in foreign.found] == [("id", "u"), ("id", "v")]
    assert [one.given.scores for one in foreign.found] == [[0.0], [3.0]]
    assert [one.given.target for one in foreign.found] == [1, 0]
    assert foreign.params["class_dependent"] and not foreign.params["signed"]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", "", "scores are read from .parquet"),
        ("a.jsonl", '{"id": 1}', "record 0 has no list `scores`"),
        ("a.jsonl", '{"scores": [1]}', "doesn't say what it is of"),
        ("a.jsonl", '{"id": 1, "scores": [1], "target": "x"}', "the model has no class 'x'"),
        ("a.jsonl", '{"id": 1, "scores": [1], "unit": "line"}', "token, word or span"),
        ("a.jsonl", "[1]", "is '1', and no object|is '\\[1\\]', and no object"),
        ("a.jsonl", "no", "can't be read"),
        ("a.parquet", "no", "can't be read"),
        ("b.jsonl", None, "can't be read"),
        ("a.jsonl", '{"id": 1, "scores": [1], "method": "other"}', "has no scores of theirs"),
    ],
)
def test_files_that_are_none(name: str, content: str | None, told: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=told):
        read_foreign("theirs", str(tmp_path / name), ["a", "b"])


def test_names_are_checked_before_any_work(run: Run, native: Path, tmp_path: Path) -> None:
    for scores, told in (
        ([f"saliency={native}"], "there is a method of that name"),
        ([f"a/b={native}"], "a name is made of"),
        (["theirs"], "--scores takes NAME=FILE"),
        ([f"x={native}", f"x={native}"], "each name once"),
        ([f"x={native}"], "the run has no method x"),
    ):
        more = [word for one in scores for word in ("--scores", one)]
        outcome = run(tmp_path / "run", "--methods", "random", *more)
        assert (outcome.status, outcome.err.count("\n")) == (2, 1), outcome.err
        assert told in outcome.err
    assert not (tmp_path / "run").exists()


# What is exported in the forms of others, which are read again


EXAMPLES = Path(__file__).parents[2] / "examples"


def sql_of(name: str, method: str, tmp_path: Path) -> Path:
    """A query of the examples, of another method."""
    text = (EXAMPLES / f"{name}.sql").read_text()
    found = re.sub("method = '[a-z_]+'", f"method = '{method}'", text)
    (tmp_path / f"{name}.sql").write_text(found)
    return tmp_path / f"{name}.sql"


def test_thermostat_and_captum_give_back_what_they_got(native: Path, tmp_path: Path) -> None:
    method = "grad_x_input"
    query = sql_of("thermostat", method, tmp_path)
    done = command("query", native, query, "-o", tmp_path / "thermostat.parquet")
    assert done.status == 0, done.err
    captum_npz.main(str(native), method, str(tmp_path / "captum.npz"))
    expected = {row["corpus_row"]: row for row in table(native, "instances").to_pylist()}
    own = {row["instance_id"]: row for row in exported(native, method)}
    thermostat = read_foreign("t", str(tmp_path / "thermostat.parquet"), None).found
    captum = read_foreign("c", str(tmp_path / "captum.npz"), None).found
    assert len(thermostat) == len(captum) == COUNT
    for number, (one, other) in enumerate(zip(thermostat, captum, strict=True)):
        row = own[expected[number]["instance_id"]]
        assert one.key == ("row", number) and other.key == ("id", row["instance_id"])
        assert one.given.scores == other.given.scores == row["scores"]
        assert one.given.target == other.given.target == row["target"]
        assert one.given.input_ids == row["input_ids"]


def test_eraser_gives_back_the_scores_of_words(native: Path, tmp_path: Path) -> None:
    query = sql_of("eraser", "grad_x_input", tmp_path)
    done = command("query", native, query, "-o", tmp_path / "eraser.jsonl")
    assert done.status == 0, done.err
    labels = json.loads((native / "run.json").read_text())["identity"]["model"]["labels"]
    found = read_foreign("e", str(tmp_path / "eraser.jsonl"), labels).found
    instances = {row["instance_id"]: row for row in table(native, "instances").to_pylist()}
    own = {row["instance_id"]: row["scores"] for row in exported(native, "grad_x_input")}
    assert {one.key[1] for one in found} == {*instances}
    for one in found:
        row = instances[str(one.key[1])]
        words: dict[int, float] = {}
        for word, score in zip(row["word_ids"], own[row["instance_id"]], strict=True):
            if word is not None:
                words[word] = max(words.get(word, -np.inf), score)
        assert one.given.scores == pytest.approx([words[word] for word in sorted(words)])
        assert one.given.target == row["prediction"]
