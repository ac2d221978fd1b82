"""Texts longer than the model's limit, as overlapping windows: cut, run, counted, put together."""

import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attribeam.analysis import open_run, verify
from attribeam.pipeline import Options, run
from attribeam.schemas import Failure, Unit, UsageError, unit_path
from attribeam.schemas.index import INDEX
from attribeam.schemas.layout import statistics_path
from attribeam.transforms import EncodeOptions, Instance, Model, Row, RowError, encode, load_model
from attribeam.transforms.evaluate import Evaluation
from attribeam.transforms.inputs.encode import encode_row, encode_rows, encode_windows
from tests.conftest import LoadTiny
from tests.support.conditioning import SINGLE
from tests.support.models import save_tiny
from tests.support.tiny import WORDS, Rows, table, write_jsonl

LONG = "uninteresting, the café isn't good. " * 4
OPTIONS = EncodeOptions(12, overflow="stride", stride=3)


@pytest.fixture(scope="module")
def bert(tiny: LoadTiny) -> Model:
    return tiny("bert")


@pytest.fixture(scope="module")
def roberta(tiny: LoadTiny) -> Model:
    return tiny("roberta")


def words(count: int) -> str:
    return " ".join(WORDS[number % len(WORDS)] for number in range(count))


def inner(instance: Instance, values: Any) -> list[Any]:
    return [v for v, special in zip(values, instance.special, strict=True) if not special]


# Cutting --------------------------------------------------------------------------------------


def check_like_the_tokenizer(
    model: Model, texts: tuple[str, ...], which: str, options: EncodeOptions
) -> None:
    """The windows are those that the tokenizer's own ``stride`` gives."""
    assert model.tokenizer is not None
    room = options.max_length - model.tokenizer.num_special_tokens_to_add(len(texts) == 2)
    if len(texts) == 2:
        kept = texts[1] if which == "only_first" else texts[0]
        room -= len(model.tokenizer(kept, add_special_tokens=False).input_ids)
    overlap = room // 4 if options.stride is None else min(options.stride, room // 2)
    expected = model.tokenizer(
        *texts,
        truncation=which,
        max_length=options.max_length,
        stride=overlap,
        return_overflowing_tokens=True,
    ).encodings
    found = encode_windows(
        model, Row("a", texts[0], texts[1] if len(texts) == 2 else None), options
    )
    assert [w.input_ids.tolist() for w in found] == [e.ids for e in expected]
    for window, other in zip(found, expected, strict=True):
        places = list(zip(window.char_start, window.char_end, strict=True))
        assert inner(window, places) == inner(window, other.offsets)
        assert list(window.tokens) == other.tokens
        assert window.special.tolist() == [s is None for s in other.sequence_ids]
    assert all(len(w) == options.max_length for w in found[:-1])


@pytest.mark.parametrize("stride", [None, 0, 1, 5])
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_windows_are_those_of_the_tokenizer(tiny: LoadTiny, family: str, stride: int) -> None:
    model, options = tiny(family), EncodeOptions(12, overflow="stride", stride=stride)
    check_like_the_tokenizer(model, (LONG + words(11),), "longest_first", options)
    wide = replace(options, max_length=16)
    check_like_the_tokenizer(model, (LONG, "good film"), "only_first", wide)
    check_like_the_tokenizer(model, ("good film", LONG), "only_second", wide)


@given(count=st.integers(11, 60), limit=st.integers(6, 20), stride=st.integers(0, 9))
def test_windows_of_any_length(bert: Model, count: int, limit: int, stride: int) -> None:
    options = EncodeOptions(limit, overflow="stride", stride=stride)
    check_like_the_tokenizer(bert, (words(count),), "longest_first", options)


def test_a_text_that_fits_is_left_alone(bert: Model) -> None:
    row = Row("a", words(10), rationale=[1] * 10)
    (only,) = encode_windows(bert, row, OPTIONS)
    whole = encode_row(bert, row, EncodeOptions(12))
    assert (only.instance_id, only.row_id, only.window, only.truncated) == ("a", None, None, False)
    assert only.input_ids.tolist() == whole.input_ids.tolist()


def test_windows_speak_of_the_whole_text(bert: Model) -> None:
    text = words(22)
    marks = [int(number % 5 == 0) for number in range(22)]
    roles = [f"role-{number}" for number in range(22)]
    row = Row("a", text, label=1, split="dev", subset="s", rationale=marks, roles=roles)
    found = encode_windows(bert, row, OPTIONS)
    # Ten words a window, three in common.
    starts = [0, 7, 14]
    assert [w.instance_id for w in found] == ["a/0", "a/1", "a/2"]
    assert [(w.row_id, w.window, w.truncated) for w in found] == [
        ("a", number, False) for number in range(3)
    ]
    for window, start in zip(found, starts, strict=True):
        expected = list(range(start, min(22, start + 10)))
        assert inner(window, window.word_ids) == expected
        assert inner(window, window.rationale) == [marks[word] for word in expected]
        assert inner(window, window.roles) == [roles[word] for word in expected]
        cut = [text[a:b] for a, b in inner(window, zip(window.char_start, window.char_end))]  # noqa: B905
        assert cut == [WORDS[word % len(WORDS)] for word in expected]
        assert window.text is text
        assert (window.label, window.split, window.subset) == (1, "dev", "s")
        assert window.readout == 0


def test_the_longer_text_of_a_pair_is_cut(bert: Model) -> None:
    found = encode_windows(bert, Row("a", "good film", words(14)), OPTIONS)
    for window in found:
        assert window.tokens[:4] == ("[CLS]", "good", "film", "[SEP]")
        assert window.segment[:5].tolist() == [0, 0, 0, 0, 1]
        assert window.word_ids[:4].tolist() == [-1, 0, 1, -1]
    assert [w.word_ids[4:-1].tolist() for w in found] == [
        list(range(start, min(14, start + 7))) for start in (0, 4, 8)
    ]


def test_a_pair_that_leaves_no_room(bert: Model) -> None:
    rows = [Row("both", words(12), words(13)), Row("one", words(7), words(20))]
    instances, failures = encode_rows(bert, rows, OPTIONS)
    assert {instance.row_id for instance in instances} == {"one"}
    assert failures == [
        Failure(
            *("both", "encode", None, "RowError"),
            "28 tokens, of which 15 would be in every window, but the limit is 12 "
            "(--overflow truncate cuts both texts)",
        )
    ]


def test_windows_of_ids(bert: Model, golden: LoadTiny) -> None:
    for model, special in ((bert, (2, 3)), (golden("bert-golden"), (2, 3))):
        ids = [special[0], *range(5, 25), special[1]]
        found = encode_windows(model, Row("a", input_ids=ids), OPTIONS)
        assert [w.input_ids.tolist() for w in found] == [
            [2, *range(start, min(25, start + 10)), 3] for start in (5, 12, 19)
        ]
        assert [inner(w, w.word_ids) for w in found] == [
            list(range(start - 5, min(20, start + 5))) for start in (5, 12, 19)
        ]
        types = [0] * 4 + [1] * 18
        found = encode_windows(model, Row("a", input_ids=ids, token_type_ids=types), OPTIONS)
        assert all(w.input_ids[:4].tolist() == [2, 5, 6, 7] for w in found)
        assert found[1].input_ids[4:].tolist() == [12, 13, 14, 15, 16, 17, 18, 3]


def test_a_window_of_special_tokens_alone_fails_alone(bert: Model) -> None:
    ids = [2, *range(5, 15), *[3] * 20, *range(5, 9), 3]
    instances, failures = encode_rows(bert, [Row("a", input_ids=ids)], OPTIONS)
    assert [instance.instance_id for instance in instances] == ["a/0", "a/1", "a/3", "a/4"]
    assert failures == [
        Failure(
            *("a/2", "encode", None, "RowError"),
            "the window has no tokens (only whitespace or invisible characters)",
            "a",
        )
    ]


@pytest.mark.parametrize("place", [0, 1, 4, 5, 9, 20, 29, 30, 33, 34])
def test_the_window_around_a_mask(tiny: LoadTiny, place: int) -> None:
    model = tiny("bert", "masked_lm")
    text = words(35).split()
    text[place] = "[MASK]"
    row = Row("a", " ".join(text), good="good", bad="bad")
    instance = encode_row(model, row, OPTIONS)
    start = min(max(0, place - 5), 25)
    assert inner(instance, instance.word_ids) == list(range(start, start + 10))
    assert instance.tokens[instance.readout] == "[MASK]"
    assert (instance.instance_id, instance.window, instance.truncated) == ("a", None, True)


def test_a_mask_in_the_text_that_is_kept(tiny: LoadTiny) -> None:
    model = tiny("bert", "masked_lm")
    row = Row("a", "good [MASK]", words(30), good="good", bad="bad")
    instance = encode_row(model, row, OPTIONS)
    assert instance.readout == 2
    assert instance.word_ids[4:-1].tolist() == list(range(7))


def test_from_python(bert: Model) -> None:
    found = encode(bert, ["good film", words(30)], OPTIONS)
    assert [i.instance_id for i in found] == ["text-0", *(f"text-1/{n}" for n in range(4))]
    with pytest.raises(RowError, match="the text is 4 windows"):
        encode_row(bert, Row("a", words(30)), OPTIONS)


# Running --------------------------------------------------------------------------------------

COUNTS = [5, 30, 10, 23, 61]
# In any order, so that windows differ in what is predicted of them.
TEXTS = [" ".join(np.random.default_rng(count).choice(WORDS, count)) + "." for count in COUNTS]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows: Rows = [
        {"id": f"r{n}", "text": text, "label": n % 3, "rationale": [n % 2] * len(text.split())}
        for n, text in enumerate(TEXTS)
    ]
    rows.append({"id": "no", "text": " ", "label": 0, "rationale": []})
    rows.append({"id": "of wrong length", "text": words(40), "label": 0, "rationale": [1]})
    return write_jsonl(tmp_path_factory.mktemp("corpus") / "c.jsonl", rows)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that predicts more than one class."""
    return save_tiny(tmp_path_factory.mktemp("model"), "bert", seed=3)


def run_windows(folder: Path, corpus: Path, out: Path, **changes: Any) -> Any:
    plain: dict[str, Any] = {
        "methods": "saliency,random",
        "evaluation": Evaluation(fractions=(0.5,), orders=("morf",)),
        "device": "cpu",
        "max_length": 12,
        "overflow": "stride",
        "stride": 3,
        "shard_size": 4,
    }
    return run(Options(str(folder), str(corpus), str(out), **(plain | changes)))


@pytest.fixture(scope="module")
def out(model_folder: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    summary = run_windows(model_folder, corpus, folder)
    assert (summary.rows, summary.failures) == (7, 2)
    return folder


@pytest.fixture(scope="module")
def connection(out: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_run(out, commented=False) as connection:
        yield connection


def test_every_row_is_accounted_for(out: Path) -> None:
    report = verify(out)
    assert report.problems == []
    # Windows of words and a full stop: ceil((count + 1 - 10) / 7) + 1.
    assert report.summary[1] == "7 rows of the corpus: 19 instances of 5 rows, 2 failed"
    facts = {(fact.instances, fact.attributed, fact.failed) for fact in report.facts}
    assert facts == {(19, 19, 0)}
    rows = table(out, "instances").select(["instance_id", "row_id", "window"]).to_pylist()
    assert [tuple(row.values()) for row in rows[:6]] == [
        ("r0", "r0", None),
        *((f"r1/{n}", "r1", n) for n in range(4)),
        ("r2/0", "r2", 0),
    ]


def test_the_text_is_stored_once(out: Path, connection: duckdb.DuckDBPyConnection) -> None:
    rows = table(out, "instances").select(["row_id", "window", "text"]).to_pylist()
    for row in rows:
        assert (row["text"] is None) == ((row["window"] or 0) > 0)
    found = connection.execute(
        "select distinct word from words where instance_id = 'r4/8' and segment = 0"
    ).fetchall()
    assert {word for (word,) in found} == {*TEXTS[4].split()[56:]}


def test_rationales_of_second_texts(model_folder: Path, tmp_path: Path) -> None:
    """The mask itself finds all of it, in whole texts and windows, of one text or of both."""
    few, marks = words(3), [0, 0, 1]
    many, far = words(20), [1, *[0] * 18, 1]
    pair = {"text": few, "text_pair": few, "rationale": marks}
    given: Rows = [
        {"id": "both", **pair, "rationale_pair": [1, 0, 0]},
        {"id": "long", **pair, "text_pair": many, "rationale_pair": far},
        {"id": "long first", **pair, "text": many, "rationale": far, "rationale_pair": marks},
        {"id": "second", **pair, "rationale": None, "rationale_pair": marks},
        {"id": "first", **pair},
        {"id": "unmarked", **pair, "rationale_pair": [0, 0, 0]},
        {"id": "alone", **pair, "text_pair": None, "rationale_pair": []},
        {"id": "of none", **pair, "text_pair": None, "rationale_pair": [1]},
        {"id": "of wrong length", **pair, "rationale_pair": [1]},
    ]
    corpus = write_jsonl(tmp_path / "c.jsonl", given)
    plain = {"methods": "mask_itself,random", "evaluation": None, "max_length": 24}
    run_windows(model_folder, corpus, tmp_path / "out", **plain)
    assert verify(tmp_path / "out").problems == []
    of_mask = "where method = 'mask_itself'"
    with open_run(tmp_path / "out", commented=False) as connection:
        failures = dict(connection.execute("select instance_id, message from failures").fetchall())
        stored = connection.execute(
            "select row_id, rationale_segments, text_rationale, text_pair_rationale "
            'from instances where "window" is null or "window" = 0'
        ).fetchall()
        windows = connection.execute('select count("window") from instances').fetchall()
        ranks = connection.execute(
            "select row_id, words, first_words, marked, unseen, list_sort(ranked[:len(marked)]) "
            f"from document_word_ranks {of_mask}"
        ).fetchall()
        whole = connection.execute(
            "select n, token_f1, eraser_share, average_precision, text_words, unseen "
            f"from document_plausibility {of_mask}"
        ).fetchall()
        parts = connection.execute(
            "select token_f1, iou_f1, average_precision, texts, text_words, unseen "
            f"from plausibility {of_mask}"
        ).fetchall()
    assert failures == {
        "of none": "the rationale_pair has 1 entries, but the row has no second text",
        "of wrong length": "the rationale_pair has 1 entries for 3 words",
    }
    of_both = {"both": (None, None), "unmarked": (None, None)}
    of_both |= {"long": (marks, far), "long first": (far, marks)}
    for name, texts, *marked in stored:
        assert texts == {"second": [1]}.get(name, [0, 1] if name in of_both else None)
        assert tuple(marked) == of_both.get(name, (None, None))
    assert windows[0][0] >= 4
    expected = {
        "both": (6, 3, [3, 4]),
        "long": (23, 3, [3, 4, 23]),
        "long first": (23, 20, [1, 20, 23]),
        "second": (3, 0, [3]),
        "first": (3, 3, [3]),
        "unmarked": (6, 3, [3]),
        "alone": (3, 3, [3]),
    }
    assert {name: row for name, *row in ranks} == {
        name: [*row, 0, row[2]] for name, row in expected.items()
    }
    share = np.mean([len(marked) / count for count, _, marked in expected.values()])
    assert whole == [(7, 1, pytest.approx(share), 1, 67, 0)]
    assert parts == [(1, 1, 1, 7, 67, 0)]


def test_what_a_window_says_depends_on_it_alone(
    model_folder: Path, out: Path, tmp_path: Path
) -> None:
    part = " ".join(TEXTS[3].split()[7:17])
    corpus = write_jsonl(tmp_path / "c.jsonl", [{"id": "part", "text": part}])
    run_windows(model_folder, corpus, tmp_path / "out")
    for method in ("saliency", "random"):
        (alone,) = table(tmp_path / "out", "attributions", method).to_pylist()
        rows = table(out, "attributions", method).to_pylist()
        (window,) = (row for row in rows if row["instance_id"] == "r3/1")
        np.testing.assert_allclose(alone["scores"], window["scores"], rtol=SINGLE, atol=SINGLE)


def test_documents_by_hand(out: Path, connection: duckdb.DuckDBPyConnection) -> None:
    groups = defaultdict(list)
    for row in table(out, "instances").to_pylist():
        groups[row["row_id"]].append(row)
    cursor = connection.execute("from documents order by row_id")
    names = [column[0] for column in cursor.description or []]
    found = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    assert [row["row_id"] for row in found] == sorted(groups)
    split = 0
    for row in found:
        own = groups[row["row_id"]]
        mean = np.mean([window["probabilities"] for window in own], 0)
        np.testing.assert_allclose(row["probabilities"], mean, rtol=1e-6)
        logits = np.mean([window["logits"] for window in own], 0)
        np.testing.assert_allclose(row["logits"], logits, rtol=1e-6)
        assert row["prediction"] == mean.argmax()
        assert row["agreeing"] == sum(w["prediction"] == mean.argmax() for w in own)
        assert (row["windows"], row["failed_windows"]) == (len(own), 0)
        assert row["label"] == own[0]["label"]
        assert row["correct"] == (mean.argmax() == row["label"])
        assert row["text"] == own[0]["text"] is not None
        split += row["agreeing"] < row["windows"]
    assert split  # Else nothing would have been averaged.


def test_document_tokens_by_hand(out: Path, connection: duckdb.DuckDBPyConnection) -> None:
    instances = {row["instance_id"]: row for row in table(out, "instances").to_pylist()}
    expected: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for method in ("saliency", "random"):
        for row in table(out, "attributions", method).to_pylist():
            own = instances[row["instance_id"]]
            for at, special in enumerate(own["special"]):
                if not special:
                    place = own["char_start"][at], own["char_end"][at], own["tokens"][at]
                    key = own["row_id"], method, row["target"], *place
                    expected[key].append(row["scores"][at])
    found = connection.execute(
        "select row_id, method, target, char_start, char_end, token, score, windows "
        "from document_tokens"
    ).fetchall()
    assert len(found) == len(expected)
    for row in found:
        *_, score, count = row
        assert score == pytest.approx(np.mean(expected[row[:-2]]), rel=1e-5)
        assert count == len(expected[row[:-2]])
    assert {count for *_, count in found} == {1, 2}


def test_statistics_are_of_windows_too(model_folder: Path, corpus: Path, tmp_path: Path) -> None:
    params = {"iba": {"steps": 2, "copies": 2, "sample": 7}}
    run_windows(model_folder, corpus, tmp_path, methods="iba", params=params)
    assert verify(tmp_path).problems == []
    model = load_model(model_folder)
    # No more of them than were asked for, in whatever order the corpus is.
    (tokens,) = set(pq.read_table(tmp_path / statistics_path(7))["tokens"].to_pylist())
    assert tokens <= 7 * 12 < sum(len(encode(model, [text])[0]) for text in TEXTS)


def test_ids_have_places_too(model_folder: Path, tmp_path: Path) -> None:
    rows: Rows = [{"id": "a", "input_ids": [2, *range(5, 30), 3]}]
    corpus = write_jsonl(tmp_path / "c.jsonl", rows)
    run_windows(model_folder, corpus, tmp_path / "out", target="1", stride=None)
    assert verify(tmp_path / "out").problems == []
    with open_run(tmp_path / "out", commented=False) as connection:
        found = connection.execute(
            "select word_id, windows from document_tokens where method = 'random' order by word_id"
        ).fetchall()
    # Ten tokens a window, a quarter of twelve in common: 0 to 9, 7 to 16, 14 to 23, 21 to 24.
    twice = {7, 8, 9, 14, 15, 16, 21, 22, 23}
    assert found == [(word, 1 + (word in twice)) for word in range(25)]


def test_tokens_of_one_character_are_one_place(
    tiny_folder: Callable[..., Path], tmp_path: Path
) -> None:
    corpus = write_jsonl(
        tmp_path / "c.jsonl", [{"id": "a", "text": "the 😀 film is 😀😀 good " * 3}]
    )
    model = tiny_folder("roberta")
    changes = {"stride": 5, "methods": "saliency", "target": "1", "max_length": 16}
    run_windows(model, corpus, tmp_path / "out", **changes)
    assert verify(tmp_path / "out").problems == []
    with open_run(tmp_path / "out", commented=False) as connection:
        rows = connection.execute(
            "select char_start, char_end, windows from document_tokens where char_end > char_start"
        ).fetchall()
    assert len({row[:2] for row in rows}) == len(rows)
    assert {windows for *_, windows in rows} == {1, 2}


def test_a_window_that_fails(
    model_folder: Path,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It fails alone; a row fails with the last of its windows."""

    def unfinite(self: Model, rows: Any, **more: Any) -> Any:
        logits, recorder = original(self, rows, **more)
        # Windows of which `bad` is the first word, and the whole of r0.
        sick = (rows.inputs["input_ids"][:, 1] == bad) | (rows.attention_mask.sum(1) == 8)
        return logits.masked_fill(sick[:, None], float("nan")), recorder

    original = Model.run
    bad = int(encode(load_model(model_folder), ["bad"])[0].input_ids[1])
    monkeypatch.setattr(Model, "run", unfinite)
    run_windows(model_folder, corpus, tmp_path)
    report = verify(tmp_path)
    assert report.problems == []
    failures = [row for row in table(tmp_path, "failures").to_pylist() if row["stage"] == "forward"]
    lost = [row for row in failures if row["instance_id"] != row["row_id"]]
    assert lost and {row["row_id"] for row in failures} > {row["row_id"] for row in lost}
    assert f"and so have {len(lost)} windows of the others" in report.summary[1]
    with open_run(tmp_path, commented=False) as connection:
        counted = connection.execute(
            "select row_id, failed_windows from documents where failed_windows > 0 order by row_id"
        ).fetchall()
    assert sum(count for _, count in counted) == len(lost)


# What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stride": 6}, "--stride 6 is not between 0 and 5: windows take 10 tokens"),
        ({"stride": -1}, "--stride -1 is not between 0 and 5"),
        ({"overflow": "truncate"}, "--stride 3 goes with --overflow stride"),
    ],
)
def test_strides_that_are_refused(
    model_folder: Path,
    corpus: Path,
    tmp_path: Path,
    changes: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(UsageError, match=message):
        run_windows(model_folder, corpus, tmp_path / "out", **changes)


def test_an_id_that_a_window_could_have_is_refused(model_folder: Path, tmp_path: Path) -> None:
    rows: Rows = [{"id": name, "text": "good film"} for name in ("a/x", "b/01", "c/1", "a", "b")]
    fine = write_jsonl(tmp_path / "fine.jsonl", rows)
    assert run_windows(model_folder, fine, tmp_path / "fine").failures == 0
    clash = write_jsonl(tmp_path / "clash.jsonl", [*rows, {"id": "a/10", "text": "good"}])
    with pytest.raises(UsageError, match=r"'a' and 'a/10' .* a window of the first"):
        run_windows(model_folder, clash, tmp_path / "clash")
    run_windows(model_folder, clash, tmp_path / "clash", overflow="truncate", stride=None)


def test_another_stride_is_another_run(model_folder: Path, corpus: Path, out: Path) -> None:
    with pytest.raises(UsageError, match=r"settings\.stride was 3, now 2"):
        run_windows(model_folder, corpus, out, stride=2)
    assert run_windows(model_folder, corpus, out).worked == 0


# Verifying ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("where instance_id <> 'r1/2'", "1 rows of the corpus have not all of their windows"),
        ("where row_id <> 'r1'", "corpus: 7 rows, but 15 instances of 4 rows and 2 failed"),
        ("replace (if(row_id = 'r1', 'r0', row_id) as row_id)", "4 have ids that are not their"),
        ('replace (if(row_id = \'r1\', null, "window") as "window")', "4 have ids that are not"),
        (
            "replace (if(row_id = 'r0', 'r1', row_id) as row_id, "
            "if(row_id = 'r0', 'r1', instance_id) as instance_id)",
            "4 are windows of a row that is also one whole",
        ),
    ],
)
def test_windows_that_are_lost(out: Path, tmp_path: Path, change: str, problem: str) -> None:
    folder = tmp_path / "out"
    shutil.copytree(out, folder)
    # By the index the file would be another one, whose rows nobody counts.
    (folder / INDEX).unlink()
    path = folder / unit_path(Unit("instances"), 0, 2)
    original = pq.ParquetFile(path)
    where = change if change.startswith("where") else ""
    columns = "" if where else change
    with duckdb.connect() as connection:
        found = connection.sql(f"select * {columns} from read_parquet('{path}') {where}")
        rows = found.to_arrow_table().cast(original.schema_arrow)
    pq.write_table(rows, path, write_page_checksum=True)
    assert any(problem in other for other in verify(folder).problems)
