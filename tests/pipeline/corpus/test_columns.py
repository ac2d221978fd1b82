"""Which column means what: by name whatever its case, by kind, and never two at once."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attribeam.pipeline.corpus.staging import Corpus, open_corpus
from attribeam.schemas import UsageError
from attribeam.transforms import Model
from tests.support.tiny import write_jsonl


@pytest.fixture(scope="module")
def model(tiny: Callable[..., Model]) -> Model:
    return tiny("bert")


def parquet(path: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def text(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def rows(corpus: Corpus, *names: str) -> list[Any]:
    """Some columns of the normalised rows."""
    found = [tuple(row[name] for name in names) for row in corpus.rows()]
    return [each[0] for each in found] if len(names) == 1 else found


def problems(corpus: Corpus) -> list[str | None]:
    return rows(corpus, "problem")


# Names


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("ID,Premise,Hypothesis,Label,Source",
         "text: Premise, pair: Hypothesis, label: Label, id: ID; not used: Source"),
        ("TEXT,GOLD_LABEL", "text: TEXT, label: GOLD_LABEL"),
        # The exact name wins over one of another case, and the more telling over the exact.
        ("Text,text,label,LABEL", "text: text, label: label; not used: Text, LABEL"),
        ("sentence,Text", "text: Text; not used: sentence"),
        (",text,label,", "text: text, label: label; not used: one without a name"),
        (" id , text ,label", "text: text, label: label, id: id"),
    ],
)  # fmt: skip
def test_a_line_says_which_column_is_what(
    header: str, said: str, model: Model, tmp_path: Path
) -> None:
    corpus = open_corpus(str(text(tmp_path / "c.csv", header + "\n")), model)
    assert corpus.notes == [said]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.csv", "id,text,label,text\n", "c.csv has the column 'text' twice"),
        ("c.csv", "text,note,note\n", "c.csv has the column 'note' twice"),
        ("c.csv", "text, text\n", "c.csv has the column 'text' twice"),
        ("c.jsonl", '{"text":"a"}\n{"text":"a","text":"b"}\n',
         "c.jsonl: line 2 has the key 'text' twice"),
        ("c.csv", "Text,TEXT,label\n", "the columns 'Text' and 'TEXT', which differ by case only"),
        ("c.csv", "text,Label,LABEL\n", "'Label' and 'LABEL', .* name one with --label-column"),
    ],
)  # fmt: skip
def test_two_of_one_name_are_refused(
    name: str, content: str, message: str, model: Model, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        open_corpus(str(text(tmp_path / name, content)), model)


def test_of_two_that_differ_by_case_one_can_be_named(model: Model, tmp_path: Path) -> None:
    path = text(tmp_path / "c.csv", "Text,TEXT,Label,LABEL\na,b,0,1\n")
    given = {"text": "TEXT", "label": "none"}
    assert rows(open_corpus(str(path), model, columns=given), "text", "label") == [("b", None)]


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_columns_of_one_name_in_tables_are_refused(
    suffix: str, model: Model, tmp_path: Path
) -> None:
    twice = pa.table({"a": ["x"], "b": ["y"]}).rename_columns(["text", "text"])
    path = tmp_path / f"c{suffix}"
    if suffix == ".parquet":
        pq.write_table(twice, path)
    else:
        with pa.ipc.new_file(str(path), twice.schema) as file:
            file.write_table(twice)
    with pytest.raises(UsageError, match="has the column 'text' twice"):
        open_corpus(str(path), model)


def test_a_key_that_is_there_twice_where_nobody_looks_does_no_harm(
    model: Model, tmp_path: Path
) -> None:
    path = text(tmp_path / "c.jsonl", '{"text":"a","m":{"x":"b","x":"c"}}\n{"text":"d"}\n')
    assert rows(open_corpus(str(path), model), "text", "problem") == [("a", None), ("d", None)]
    corpus = open_corpus(str(path), model, columns={"text": "m.x"})
    assert problems(corpus) == ["an object has the key 'x' twice", None]


# Several files


def test_a_file_without_the_text_is_named(model: Model, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", [{"id": 1, "sentence": "a"}])
    write_jsonl(tmp_path / "test.jsonl", [{"id": 2, "text": "b"}])
    message = r"train.jsonl has no column 'text', which is the text in other files .* id, sentence"
    with pytest.raises(UsageError, match=message):
        open_corpus(str(tmp_path), model)


def test_a_file_without_labels_is_said(model: Model, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"text": "a"}])
    write_jsonl(tmp_path / "b.jsonl", [{"text": "b", "label": 1}])
    (tmp_path / "c.jsonl").touch()
    corpus = open_corpus(str(tmp_path), model)
    assert corpus.notes == [
        "text: text, label: label",
        "no label in a.jsonl: no column 'label'",
        "nothing in c.jsonl",
    ]
    assert rows(corpus, "text", "label") == [("a", None), ("b", 1)]


def test_a_column_that_begins_late_is_seen(model: Model, tmp_path: Path) -> None:
    lines = [{"text": "a"}] * 1100 + [{"text": "a b", "label": 1, "rationale": [1, 0]}]
    corpus = open_corpus(str(write_jsonl(tmp_path / "c.jsonl", lines)), model)
    assert corpus.notes == ["text: text, label: label, rationale: rationale"]
    assert rows(corpus, "label", "rationale")[-1] == (1, [1, 0])


def test_names_by_the_thousand_are_not_listed(model: Model, tmp_path: Path) -> None:
    votes = [{"text": "a", "votes": {f"user{n}{m}": n for m in range(50)}} for n in range(100)]
    write_jsonl(tmp_path / "c.jsonl", votes)
    assert open_corpus(str(tmp_path), model).notes == ["text: text; not used: votes"]
    with pytest.raises(UsageError, match="no column 'x'") as caught:
        open_corpus(str(tmp_path), model, columns={"text": "x"})
    assert len(str(caught.value)) < 1000
    path = text(tmp_path / "c.jsonl", json.dumps({"text": "a", **{f"c{n}": 0 for n in range(999)}}))
    (note,) = open_corpus(str(path), model).notes
    assert note.endswith(", c29 and 969 more")


# Objects, lists, bytes

NESTED = [{"review": {"text": "a", "stars": 5}}, {"review": None}, {"review": {"text": "b"}}]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_a_dotted_name_leads_into_objects(suffix: str, model: Model, tmp_path: Path) -> None:
    path = tmp_path / f"c{suffix}"
    if suffix == ".jsonl":
        write_jsonl(path, NESTED)
    else:
        pq.write_table(pa.Table.from_pylist(NESTED), path)
    corpus = open_corpus(str(path), model, columns={"text": "review.text"})
    assert rows(corpus, "text") == ["a", None, "b"]
    assert corpus.notes == ["text: review.text"]
    message = r"'review' of .* holds objects, .* columns are review \(review.text, review.stars\)"
    with pytest.raises(UsageError, match=message):
        open_corpus(str(path), model, columns={"text": "review"})
    with pytest.raises(UsageError, match=r"has no column 'review\.title'"):
        open_corpus(str(path), model, columns={"text": "review.title"})


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_a_column_of_just_that_name_wins(suffix: str, model: Model, tmp_path: Path) -> None:
    path = tmp_path / f"c{suffix}"
    row = {"review": {"text": "inner"}, "review.text": "own"}
    if suffix == ".jsonl":
        write_jsonl(path, [row])
    else:
        pq.write_table(pa.Table.from_pylist([row]), path)
    assert rows(open_corpus(str(path), model, columns={"text": "review.text"}), "text") == ["own"]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_a_list_of_words_is_a_text(suffix: str, model: Model, tmp_path: Path) -> None:
    lists = [["a", "b"], ["c d"], [""], ["a", None], None]
    path = tmp_path / f"c{suffix}"
    if suffix == ".jsonl":
        write_jsonl(path, [{"tokens": each} for each in lists])
    else:
        parquet(path, {"tokens": lists})
    corpus = open_corpus(str(path), model, columns={"text": "tokens"})
    assert rows(corpus, "text") == ["a b", None, None, None, None]
    said = [str(problem) for problem in problems(corpus)]
    assert "each of it has to be one word, but number 1 is 'c d'" in said[1]
    assert "each of it has to be one word, but number 1 is ''" in said[2]
    assert said[3:] == ["the word 2 of the text is a NoneType, not a string", "None"]


@pytest.mark.parametrize(
    "kind",
    [
        *(pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())),
        *(pa.binary(), pa.large_binary(), pa.binary_view()),
    ],
)
def test_every_type_of_text_is_the_same_text(
    kind: pa.DataType, model: Model, tmp_path: Path
) -> None:
    plain = pa.binary() if "binary" in str(kind) else pa.string()
    texts = pa.array(["a", "ü", None]).cast(plain).cast(kind)
    path = parquet(tmp_path / "c.parquet", {"text": texts})
    assert rows(open_corpus(str(path), model), "text") == ["a", "ü", None]


def test_bytes_that_are_no_text_fail(model: Model, tmp_path: Path) -> None:
    path = parquet(tmp_path / "c.parquet", {"text": [b"\xff", b"a"]})
    assert problems(open_corpus(str(path), model)) == [
        "the text is not valid UTF-8: invalid start byte at byte 0",
        None,
    ]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2], "integers"),
        (pa.array([1, 2], pa.timestamp("us")), "times"),
        ([[1], [2]], "lists of integers"),
        ([[["a"]]], "lists of lists of texts"),
        ([{"a": 1}], "objects"),
        (pa.array([None]), "nothing"),
    ],
)
def test_what_can_be_no_text_is_known_before(
    values: Any, kind: str, model: Model, tmp_path: Path
) -> None:
    path = parquet(tmp_path / "c.parquet", {"text": values})
    message = f"holds {kind}, which can't be the text"
    with pytest.raises(UsageError, match=message):
        open_corpus(str(path), model, columns={"text": "text"})
    with pytest.raises(UsageError, match="no text column that could be guessed; its columns are t"):
        open_corpus(str(path), model)
    if kind == "lists of integers":
        with pytest.raises(UsageError, match="or call the one that holds ids of tokens input_ids"):
            open_corpus(str(path), model)
    if isinstance(values, list):
        lines = write_jsonl(tmp_path / "c.jsonl", [{"text": value} for value in values])
        with pytest.raises(UsageError, match=message):
            open_corpus(str(lines), model, columns={"text": "text"})


def test_a_guess_that_can_not_be_is_not_made(model: Model, tmp_path: Path) -> None:
    columns = {"text": [1], "sentence": ["a"], "labels": [[1, 2]], "rationales": [[[1]]]}
    corpus = open_corpus(str(parquet(tmp_path / "c.parquet", columns)), model)
    assert corpus.notes == [
        "text: sentence; not used: text (integers), labels (lists of integers), "
        "rationales (lists of lists of integers)"
    ]
    with pytest.raises(UsageError, match=r"'labels' .* lists of integers, which can't be the la"):
        open_corpus(str(tmp_path / "c.parquet"), model, columns={"label": "labels"})


# Only what is needed

FAR = pa.array([2**62] * 2, pa.timestamp("us"))
NOWHERE = pa.array([0, 1], pa.timestamp("us", tz="Mars/Olympus"))
LATE = pa.array([2**31 - 1] * 2, pa.int32()).cast(pa.date32())


@pytest.mark.parametrize("values", [FAR, NOWHERE, LATE])
def test_dates_that_nobody_needs_do_no_harm(values: Any, model: Model, tmp_path: Path) -> None:
    nested = pa.StructArray.from_arrays([pa.array(["a", "b"]), values], ["text", "at"])
    columns = {"text": ["a", "b"], "at": values, "nested": nested}
    path = parquet(tmp_path / "c.parquet", columns)
    for name in ("text", "nested.text"):
        corpus = open_corpus(str(path), model, columns={"text": name})
        assert rows(corpus, "text", "problem") == [("a", None), ("b", None)]
    corpus = open_corpus(str(path), model, columns={"id": "at"})
    assert all(str(problem).startswith("at can't be read: ") for problem in problems(corpus))
    assert rows(corpus, "text") == ["a", "b"]


def test_ids_do_not_depend_on_what_is_not_read(model: Model, tmp_path: Path) -> None:
    ids = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        columns = {"text": ["a", "b"], "label": [0, 1], "other": [number, number]}
        ids.append(rows(open_corpus(str(parquet(folder / "c.parquet", columns)), model),
                        "instance_id"))  # fmt: skip
    assert ids[0] == ids[1]
    # They are those of the time when every column was read.
    assert ids[0] == ["row-0-900c7da547b0ed57", "row-1-1bb44e5eb41fdad5"]


@pytest.mark.parametrize(
    ("values", "ids"),
    [
        ([1, 2], ["1", "2"]),
        (pa.array([0], pa.timestamp("us")), ["1970-01-01 00:00:00"]),
        ([b"x"], ["x"]),
        ([UUID(int=7).bytes], None),
    ],
)
def test_ids_of_any_kind(
    values: Any, ids: Sequence[str] | None, model: Model, tmp_path: Path
) -> None:
    path = parquet(tmp_path / "c.parquet", {"text": ["a"] * len(values), "id": values})
    found = rows(open_corpus(str(path), model), "instance_id")
    assert found == ids if ids else all(found)


# Cells that are left blank


def test_a_blank_cell_is_nothing(model: Model, tmp_path: Path) -> None:
    lines = "text,label,rationale,roles,subset,text_pair\na b,,,,,\na b,1,1 0,x y,z,c\n"
    corpus = open_corpus(str(text(tmp_path / "c.csv", lines)), model)
    names = ("label", "rationale", "roles", "subset", "text_pair", "problem")
    assert rows(corpus, *names) == [
        (None, None, None, None, None, None),
        (1, [1, 0], ["x", "y"], "z", "c", None),
    ]


def test_nan_is_nothing_and_numbers_may_be_huge(model: Model, tmp_path: Path) -> None:
    huge = "9" * 5000
    path = text(
        tmp_path / "c.jsonl",
        '{"text": "a", "label": NaN, "id": NaN, "other": Infinity}\n'
        f'{{"text": "b", "id": {huge}, "other": {huge}}}\n'
        f'{{"text": "c", "label": {huge}}}\n'
        '{"text": NaN}\n',
    )
    corpus = open_corpus(str(path), model)
    found = rows(corpus, "text", "label", "problem")
    assert found[:2] == [("a", None, None), ("b", None, None)]
    assert str(found[2][2]).startswith("the label '999")
    assert found[3] == (None, None, None)
    assert rows(corpus, "instance_id")[1] == huge


def test_roles_that_are_no_list_are_a_problem(model: Model, tmp_path: Path) -> None:
    path = write_jsonl(
        tmp_path / "c.jsonl", [{"text": "a", "roles": 5}, {"text": "b", "roles": ["x"]}]
    )
    assert problems(open_corpus(str(path), model)) == [
        "the roles are a int, not a list of names",
        None,
    ]
    assert json.dumps(rows(open_corpus(str(path), model), "roles")) == '[null, ["x"]]'
