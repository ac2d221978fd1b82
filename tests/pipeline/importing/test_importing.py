"""Scores of others without a model: a folder that whatever needs no model takes, and no more."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attribeam.analysis import open_run, verify
from attribeam.analysis.publish.publish import publish
from tests.pipeline.test_given_scores import packed
from tests.support.synthetic_run import synthetic_run, write_run
from tests.support.tiny import Outcome, command, files, table, write_jsonl

LINES: list[dict[str, Any]] = [
    {
        "id": "r1",
        "text": "good film",
        "tokens": ["[CLS]", "good", "film", "[SEP]"],
        "special": [True, False, False, True],
        "scores": [0.125, 0.5, -0.25, 0.0],
        "target": "pos",
        "label": "pos",
        "logits": [0.0, 1.0],
        "rationale": [0, 1, 0, 0],
    },
    {
        "id": "r2",
        "text": "dull",
        "tokens": ["[CLS]", "dull", "[SEP]"],
        "special": [True, False, True],
        "scores": [0.5, 0.25, 0.0],
        "target": "neg",
    },
]
ERASER = [
    {
        "annotation_id": name,
        "classification": said,
        "rationales": [{"docid": name, "soft_rationale_predictions": scores}],
    }
    for name, said, scores in (("r1", "pos", [0.3, 0.2]), ("r2", "neg", [0.7]))
]


def imported(output: Path, *scores: str, more: tuple[object, ...] = ()) -> Outcome:
    given = [word for one in scores for word in ("--scores", one)]
    return command("import", "--output", output, *given, *more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files of the same instances: one of tokens, one of words."""
    place = tmp_path_factory.mktemp("imported")
    write_jsonl(place / "ours.jsonl", LINES)
    write_jsonl(place / "eraser.jsonl", ERASER)
    ours, eraser = f"ours={place}/ours.jsonl", f"eraser={place}/eraser.jsonl"
    done = imported(place / "run", ours, eraser, more=("--model", "some/model"))
    assert done.status == 0, done.err
    assert "classes in the order of their names: 0 'neg', 1 'pos' (--labels)" in done.out
    again = imported(place / "run", ours, eraser, more=("--model", "some/model"))
    assert again.status == 0 and again.out.splitlines()[1].startswith("nothing left to do")
    other = imported(place / "run", ours)
    assert other.status == 2 and "holds something else" in other.err
    return place / "run"


def test_scores_are_those_of_the_files(folder: Path) -> None:
    assert verify(folder).problems == []
    found = {row["instance_id"]: row for row in table(folder, "attributions", "ours").to_pylist()}
    assert {n: r["scores"] for n, r in found.items()} == {r["id"]: r["scores"] for r in LINES}
    assert {n: r["target"] for n, r in found.items()} == {"r1": 1, "r2": 0}
    words = {r["instance_id"]: r for r in table(folder, "attributions", "eraser").to_pylist()}
    assert words["r1"]["scores"] == [0.0, 0.3, 0.2, 0.0]
    instances = {row["instance_id"]: row for row in table(folder, "instances").to_pylist()}
    assert instances["r1"]["word_ids"] == [None, 0, 1, None]
    assert instances["r1"]["probabilities"] == pytest.approx([0.26894142, 0.73105858])
    assert (instances["r1"]["prediction"], instances["r1"]["correct"]) == (1, True)
    assert instances["r2"]["prediction"] is None and instances["r2"]["input_ids"] is None
    manifest = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert manifest["identity"]["model"]["source"] == "some/model"
    assert manifest["methods"]["ours"]["signed"] and not manifest["methods"]["eraser"]["signed"]


def test_what_needs_no_model_works(folder: Path, tmp_path: Path) -> None:
    with open_run(folder, commented=False) as run:
        agreed = run.execute("select method_a, method_b, n from agreement").fetchall()
        assert agreed == [("eraser", "ours", 2)]
        hits = run.execute("select method, pointing from pointing order by all").fetchall()
        assert hits == [("eraser", 1.0), ("ours", 1.0)]
    assert command("show", folder).status == 0
    done = command("report", folder, "-o", tmp_path / "report.html")
    assert done.status == 0, done.err
    assert "imported without the model" in (tmp_path / "report.html").read_text(encoding="utf-8")
    done = command("publish", folder, "some/one", "--license", "mit", "--dry-run", tmp_path / "set")
    assert done.status == 0 and done.err == "", done.err
    assert verify(tmp_path / "set").problems == []
    card = (tmp_path / "set" / "README.md").read_text(encoding="utf-8")
    assert "computed by others, and imported as they were" in card
    assert "reproduce.yaml" not in card and "data/wide/*.parquet" in card
    assert "https://huggingface.co/some/model" in card
    assert not (tmp_path / "set" / "reproduce.yaml").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("query", "RUN", "from faithfulness"),
        ("plot", "RUN", "degradation"),
        ("check", "RUN"),
        ("prune", "RUN", "--corpus", "none.jsonl"),
        ("attack", "RUN", "--corpus", "none.jsonl"),
        ("run", "--model", "MODEL", "--corpus", "LINES", "--output", "RUN"),
    ],
    ids=lambda words: " ".join(words[:3]),
)
def test_what_needs_a_model_is_refused(words: tuple[str, ...], folder: Path) -> None:
    model = Path(__file__).parents[3] / "examples" / "models" / "sentiment-bert"
    real = {"RUN": folder, "MODEL": model, "LINES": folder.parent / "ours.jsonl"}
    before = files(folder)
    done = command(*(real.get(word, word) for word in words))
    assert (done.status, done.err.count("\n")) == (2, 1), done.err
    assert "imported without a model" in done.err and "--scores NAME=FILE" in done.err
    assert files(folder) == before


def test_names_in_texts_ask_for_nothing(folder: Path) -> None:
    done = command("query", folder, "select 'from curves' as a, count(*) from tokens -- ranking")
    assert done.status == 0, done.err


def test_a_published_run_comes_over_as_it_is(tmp_path: Path) -> None:
    native = write_run(synthetic_run(rows=9), tmp_path / "native")
    publish(native, "some/one", license="mit", dry_run=tmp_path / "set")
    done = imported(tmp_path / "run", *(f"{n}={tmp_path}/set#{of}" for n, of in SAME.items()))
    assert done.status == 1, done.err
    assert verify(tmp_path / "run").problems == []
    assert by_id(tmp_path / "run", "instances") == by_id(native, "instances")
    for name, of in SAME.items():
        found, expected = (
            by_id(tmp_path / "run", "attributions", name),
            by_id(native, "attributions", of),
        )
        assert {n: {**row, "method": of} for n, row in found.items()} == expected
    lost = table(tmp_path / "run", "failures").to_pylist()
    told = {(row["instance_id"], row["method"], row["message"]) for row in lost}
    assert told == {("row-1", None, "no text"), ("row-2", "a", "NaN")}


SAME = {"a": "paths", "b": "attention"}


def by_id(folder: Path, name: str, method: str | None = None) -> dict[str, dict[str, Any]]:
    return {row["instance_id"]: row for row in table(folder, name, method).to_pylist()}


def test_other_forms_and_a_corpus(tmp_path: Path) -> None:
    ids = np.array([[5, 6, 7], [5, 7, 0]])
    scores = np.array([[0.5, 0.25, 0.125], [0.75, 0.5, 0.0]])
    np.savez(tmp_path / "captum.npz", attributions=scores, input_ids=ids)
    records = [
        {"idx": n, "attributions": s, "input_ids": i, "predictions": [0.0, 2.0], "label": n}
        for n, (s, i) in enumerate(zip(scores.tolist(), ids.tolist(), strict=True))
    ]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "thermostat.parquet")
    tokens = [[{"token": t} for t in own] for own in (["a", "b", "c"], ["a", "c"])]
    sequences = [
        {
            "attributes": {
                "source": [],
                "target": [{"attributes": t} for t in own],
                "source_attributions": None,
                "target_attributions": packed(np.full((len(own), 1), 0.5, np.float32)),
            }
        }
        for own in tokens
    ]
    inseq = {"attributes": {"sequence_attributions": sequences}}
    (tmp_path / "inseq.json").write_text(json.dumps(inseq), encoding="utf-8")
    names = ("captum=captum.npz", "thermostat=thermostat.parquet", "inseq=inseq.json")
    given = [name.replace("=", f"={tmp_path}/") for name in names]
    done = imported(tmp_path / "all", *given, more=("--pad-id", 0))
    assert done.status == 0, done.err
    assert verify(tmp_path / "all").problems == []
    found = table(tmp_path / "all", "instances").to_pylist()
    assert [row["input_ids"] for row in found] == [[5, 6, 7], [5, 7]]
    assert [row["corpus_row"] for row in found] == [0, 1]
    assert [row["prediction"] for row in found] == [1, 1]
    for name in ("captum", "thermostat"):
        rows = table(tmp_path / "all", "attributions", name).to_pylist()
        assert [row["scores"] for row in rows] == [[0.5, 0.25, 0.125], [0.75, 0.5]]
    # Padding is what somebody says it is.
    done = imported(tmp_path / "pads", *given[:1])
    assert done.status == 0 and "end in the same id twice" not in done.out
    assert table(tmp_path / "pads", "attributions", "captum")["scores"][1].as_py()[2] == 0.0


def test_a_corpus_says_what_words_are_of(tmp_path: Path) -> None:
    corpus = write_jsonl(
        tmp_path / "corpus.jsonl",
        [{"id": "r1", "text": "good film", "label": "pos"}, {"id": "r2", "text": "dull"}],
    )
    eraser = write_jsonl(
        tmp_path / "eraser.jsonl", [*ERASER[:1], {**ERASER[1], "annotation_id": "x"}]
    )
    spans = [{"row": 1, "spans": [[0, 4]], "scores": [0.5]}]
    given = f"eraser={eraser}", f"spans={write_jsonl(tmp_path / 'spans.jsonl', spans)}"
    done = imported(tmp_path / "run", *given, more=("--corpus", corpus))
    assert done.status == 1, done.err
    assert "scores eraser: 1 of 2 in eraser.jsonl are of no row" in done.out
    assert verify(tmp_path / "run").problems == []
    found = {r["instance_id"]: r for r in table(tmp_path / "run", "instances").to_pylist()}
    assert found["r1"]["tokens"] == ["good", "film"] and found["r1"]["char_end"] == [4, 9]
    assert found["r2"]["tokens"] == ["dull"]
    failures = table(tmp_path / "run", "failures").to_pylist()
    assert {(f["instance_id"], f["method"]) for f in failures} == {
        ("r1", "spans"),
        ("r2", "eraser"),
    }
    assert {f["message"] for f in failures} == {"no scores were given for it"}


def test_what_does_not_fit_is_a_failure(tmp_path: Path) -> None:
    lines = [
        {**LINES[0], "scores": [1.0]},
        {**LINES[1], "tokens": ["[CLS]", "fine", "[SEP]"]},
        {"id": "r3", "tokens": ["a"], "scores": [1.0], "label": "pos"},
        {"id": "r4", "scores": [1.0]},
        {"id": "r5", "tokens": ["a"], "scores": [None]},
        {"id": "r6", "tokens": ["a", "b"], "special": [True], "scores": [1.0, 2.0]},
        {"id": "r7", "tokens": ["a"], "scores": [1.0], "rationale_segments": [2]},
        {"id": "r8", "tokens": ["a"], "scores": [1.0], "rationale_segments": [0, 1]},
    ]
    bad = write_jsonl(tmp_path / "bad.jsonl", lines)
    other = [{"id": "r3", "tokens": ["a"], "scores": [1.0], "label": "neg"}]
    good = write_jsonl(tmp_path / "good.jsonl", [*LINES, *other])
    done = imported(tmp_path / "run", f"good={good}", f"bad={bad}")
    assert done.status == 1, done.err
    assert verify(tmp_path / "run").problems == []
    rows = table(tmp_path / "run", "failures").to_pylist()
    told = {(row["instance_id"], row["method"]): row["message"] for row in rows}
    assert told["r1", "bad"] == "has 1 scores, the text has 4 tokens (2 without special ones)"
    assert told["r2", "bad"].startswith("is of other tokens: number 1 is 'fine', and 'dull'")
    assert told["r3", None] == "files have two of its label: 0 and 1"
    assert told["r4", None].startswith("nothing says what its scores are of")
    assert told["r5", "good"] == "no scores were given for it"
    assert "are no numbers" in told["r5", "bad"]
    assert told["r6", None] == "its special has 1 entries, and it has 2 tokens"
    assert told["r7", None] == "its rationale_segments are [2], not [0], [1] or [0, 1]"
    of = {
        r["instance_id"]: r["rationale_segments"]
        for r in table(tmp_path / "run", "instances").to_pylist()
    }
    assert of["r8"] == [0, 1] and of["r1"] is None


@pytest.mark.parametrize(
    ("lines", "scores", "told"),
    [
        ([{"id": 1, "scores": [1]}], ["a=FILE"], "nothing can be imported"),
        (LINES, ["saliency=FILE"], "there is a method of that name"),
        (LINES, ["a/b=FILE"], "a name is made of"),
        (LINES, ["a"], "--scores takes NAME=FILE"),
        (LINES, ["a=FILE", "a=FILE"], "each name once"),
        (LINES, ["a=none.jsonl"], "none.jsonl can't be read"),
        ([{"text": "a b", "words": ["a", "b"], "scores": [1, 2]}], ["a=FILE", "b=ROWS"], "none is"),
    ],
)
def test_mistakes_are_told_at_once(
    lines: list[dict[str, Any]], scores: list[str], told: str, tmp_path: Path
) -> None:
    paths = {
        "FILE": write_jsonl(tmp_path / "a.jsonl", lines),
        "ROWS": write_jsonl(tmp_path / "b.jsonl", [{"row": 0, "tokens": ["a"], "scores": [1]}]),
    }
    for name, path in paths.items():
        scores = [one.replace(name, str(path)) for one in scores]
    done = imported(tmp_path / "run", *scores)
    assert (done.status, done.err.count("\n")) == (2, 1), done.err
    assert told in done.err
    assert not (tmp_path / "run").exists()
