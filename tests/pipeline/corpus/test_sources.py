"""Opening corpora of every format: nothing lost, nothing swallowed, whatever is wrong is said."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attribeam.pipeline.corpus.sources import Record, open_source
from attribeam.schemas import UsageError
from tests.support.tiny import Rows, write_jsonl

ROWS: Rows = [
    {"text": 'a "quoted" word, a comma', "label": "0"},
    {"text": "two\nlines\r\nand a third", "label": "1"},
    {"text": "ünïcödé 日本 😀 \u2028 separator", "label": "2"},
    {"text": "'\\t' and \\ and \ttab", "label": ""},
]
INVALID = b"caf\xe9 au lait"
BIG = 5000


def write_csv(path: Path, rows: Rows, delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_parquet(path: Path, rows: Rows) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def compressed(write: Callable[[Path, Rows], Path]) -> Callable[[Path, Rows], Path]:
    def writer(path: Path, rows: Rows) -> Path:
        plain = write(path.with_name("plain.tmp"), rows)
        path.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
        return path

    return writer


WRITERS: dict[str, Callable[[Path, Rows], Path]] = {
    "corpus.parquet": write_parquet,
    "corpus.jsonl": write_jsonl,
    "corpus.ndjson": write_jsonl,
    "corpus.json": write_jsonl,
    "CORPUS.JSONL": write_jsonl,
    "corpus.csv": write_csv,
    "corpus.jsonl.gz": compressed(write_jsonl),
    "corpus.csv.gz": compressed(write_csv),
}


def read(corpus: Path | str, split: str | None = None) -> list[Record]:
    return list(open_source(str(corpus), split).records())


def values(corpus: Path | str, split: str | None = None) -> Rows:
    records = read(corpus, split)
    assert [record.problem for record in records] == [None] * len(records)
    return [record.values for record in records]


# Formats


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_rows_back(name: str, tmp_path: Path) -> None:
    path = WRITERS[name](tmp_path / name, ROWS)
    assert open_source(str(path), None).columns == ("text", "label")
    assert values(path) == ROWS


def test_records_can_be_read_again(tmp_path: Path) -> None:
    source = open_source(str(write_jsonl(tmp_path / "c.jsonl", ROWS)), None)
    assert list(source.records()) == list(source.records())


def test_a_stray_quote_in_tsv_swallows_nothing(tmp_path: Path) -> None:
    path = tmp_path / "c.tsv"
    path.write_text('text\tlabel\n"open\t0\nan inch 5" wide\t1\n"closed"\t2\n', encoding="utf-8")
    assert values(path) == [
        {"text": '"open', "label": "0"},
        {"text": 'an inch 5" wide', "label": "1"},
        {"text": '"closed"', "label": "2"},
    ]


@pytest.mark.parametrize("name", ["c.csv", "c.tsv", "c.jsonl"])
def test_byte_order_mark_blank_lines_and_windows_ends_are_no_content(
    name: str, tmp_path: Path
) -> None:
    lines = {
        "c.csv": ["text,label", "good,1", "", "bad,0"],
        "c.tsv": ["text\tlabel", "good\t1", "", "bad\t0"],
        "c.jsonl": ['{"text": "good", "label": "1"}', "", '{"text": "bad", "label": "0"}'],
    }[name]
    path = tmp_path / name
    path.write_bytes("\r\n".join(["\ufeff" + lines[0], *lines[1:]]).encode())
    assert values(path) == [{"text": "good", "label": "1"}, {"text": "bad", "label": "0"}]


def test_a_field_may_be_longer_than_the_csv_module_likes(tmp_path: Path) -> None:
    long = [{"text": "long " * 50_000, "label": "0"}]
    assert values(write_csv(tmp_path / "c.csv", long)) == long


def test_json_columns_are_those_of_all_early_lines(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "c.jsonl", [{"text": "a"}, {"text": "b", "label": 1}])
    assert open_source(str(path), None).columns == ("text", "label")


def test_parquet_types_of_strings_make_no_difference(tmp_path: Path) -> None:
    kinds = (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string()))
    for kind in kinds:
        table = pa.table({"text": pa.array(["a", None, "a"]).cast(kind)})
        pq.write_table(table, tmp_path / "c.parquet")
        assert [row["text"] for row in values(tmp_path / "c.parquet")] == ["a", None, "a"]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ROW = st.fixed_dictionaries({"text": TEXT, "label": TEXT})


@settings(max_examples=40)
@given(rows=st.lists(ROW, min_size=1, max_size=20), ascii=st.booleans())
def test_any_rows_come_back_from_json(
    rows: Rows, ascii: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lines = [json.dumps(row, ensure_ascii=ascii) for row in rows]
    path = write_jsonl(tmp_path_factory.mktemp("json") / "c.jsonl", lines)
    assert values(path) == rows


@settings(max_examples=40)
@given(rows=st.lists(ROW, min_size=1, max_size=20))
def test_any_rows_come_back_from_csv(rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert values(write_csv(tmp_path_factory.mktemp("csv") / "c.csv", rows)) == rows


@settings(max_examples=40)
@given(lines=st.lists(st.binary(max_size=30).filter(lambda b: b"\n" not in b), max_size=20))
def test_any_bytes_are_a_json_record_each(
    lines: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever stands in a line: it is a record, unless it is blank."""
    path = write_jsonl(tmp_path_factory.mktemp("bytes") / "c.jsonl", [b'{"text": "a"}', *lines])
    assert len(read(path)) == 1 + sum(bool(line.strip()) for line in lines)


# Rows that can't be read


def invalid_file(path: Path) -> Path:
    """Three rows, of which the second's text is not UTF-8."""
    if path.suffix == ".parquet":
        pq.write_table(invalid_table(), path)
    elif path.suffix == ".jsonl":
        write_jsonl(path, [{"text": "a"}, b'{"text": "%s"}' % INVALID, {"text": "c"}])
    else:
        mark = b"\t" if path.suffix == ".tsv" else b","
        lines = [[b"text", b"label"], [b"a", b"0"], [INVALID, b"1"], [b"c", b"2"]]
        path.write_bytes(b"".join(mark.join(line) + b"\n" for line in lines))
    return path


def invalid_table() -> pa.Table:
    texts = pa.array([b"a", INVALID, b"c"]).view(pa.string())
    return pa.table({"text": texts, "label": [0, 1, 2]})


@pytest.fixture
def invalid_dataset(tmp_path: Path) -> Path:
    datasets.Dataset(invalid_table()).save_to_disk(str(tmp_path / "saved"))
    return tmp_path / "saved"


@pytest.mark.parametrize("name", ["c.parquet", "c.jsonl", "c.csv", "c.tsv", "saved"])
def test_invalid_utf8_is_a_problem_of_its_row_alone(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if name == "saved":
        path: Path = request.getfixturevalue("invalid_dataset")
    else:
        path = invalid_file(tmp_path / name)
    first, second, third = read(path)
    assert (first.values["text"], third.values["text"]) == ("a", "c")
    assert first.problem is None and third.problem is None
    assert second.problem is not None and "not valid UTF-8" in second.problem
    assert second.values.get("text") is None


def test_every_field_of_a_csv_row_that_is_not_utf8_is_taken_out(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_bytes(b"caf\xe9,text,label\n\xff,\xfe,1\n\xff,b\n")
    columns = open_source(str(path), None).columns
    assert columns == ("caf�", "text", "label")
    first, second = read(path)
    assert first.values == {"caf�": None, "text": None, "label": "1"}
    assert str(first.problem).startswith("caf� is not valid UTF-8: ")
    assert "iconv -f LATIN1 -t UTF-8" in str(first.problem)
    assert second.values == {"caf�": None, "text": "b"}
    assert second.problem == "row 2 has 2 fields, the header has 3"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"text": "b"', "line 2 is not JSON: "),
        ("not JSON", "line 2 is not JSON: "),
        ('["b"]', "line 2 is JSON but not an object"),
        ('"b"', "line 2 is JSON but not an object"),
        ("null", "line 2 is JSON but not an object"),
        ('{"text": ' + "[" * 200_000, "line 2 is not JSON: "),
        (b"\xff\xfe", "line 2 is not valid UTF-8: "),
    ],
)
def test_a_bad_json_line_is_a_problem_of_its_own(
    line: str | bytes, problem: str, tmp_path: Path
) -> None:
    records = read(write_jsonl(tmp_path / "c.jsonl", [{"text": "a"}, line, {"text": "c"}]))
    assert [record.values.get("text") for record in records] == ["a", None, "c"]
    assert str(records[1].problem).startswith(problem)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("c.csv", "text,label\na,1,2\n", "row 1 has 3 fields, the header has 2"),
        ("c.csv", "text,label\na\n", "row 1 has 1 fields, the header has 2"),
        ("c.tsv", "text\tlabel\na\t1\t2\n", "row 1 has 3 fields, the header has 2"),
    ],
)
def test_a_wrong_number_of_fields_is_a_problem(
    name: str, content: str, problem: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    (record,) = read(tmp_path / name)
    assert record.problem == problem
    assert record.values["text"] == "a"


# Folders, globs, splits


@pytest.mark.parametrize("folder", ["a b", "it's", 'say "so"', "a[b]c", "50%", "star*", "tür"])
def test_folders_may_have_any_name(folder: str, tmp_path: Path) -> None:
    root = tmp_path / folder
    root.mkdir()
    write_jsonl(root / "b [2].jsonl", [{"text": "b"}])
    write_parquet(root / "a.parquet", [{"text": "a"}])
    assert values(root) == [{"text": "a"}, {"text": "b"}]
    assert values(root / "b [2].jsonl") == [{"text": "b"}]


def test_a_folder_is_its_data_files_in_order(tmp_path: Path) -> None:
    for name in ("part-2.jsonl", "part-1.jsonl", ".hidden.jsonl", "README.md", "part-3.csv.bak"):
        write_jsonl(tmp_path / name, [{"text": name}])
    (tmp_path / "nested").mkdir()
    assert [row["text"] for row in values(tmp_path)] == ["part-1.jsonl", "part-2.jsonl"]


def test_a_glob_is_what_it_matches_in_order(tmp_path: Path) -> None:
    for name in ("x-2.jsonl", "x-1.jsonl", "y-1.jsonl"):
        write_jsonl(tmp_path / name, [{"text": name}])
    assert [row["text"] for row in values(tmp_path / "x-*.jsonl")] == ["x-1.jsonl", "x-2.jsonl"]


def test_the_split_is_told_by_the_file_name(tmp_path: Path) -> None:
    names = ["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl", "test.jsonl", "dev.csv"]
    for name in names:
        write_jsonl(tmp_path / name, ["text" if name == "dev.csv" else {"text": name}, "{}"])
    assert [record.split for record in read(tmp_path)] == ["dev", *["test"] * 2, *["train"] * 4]
    found = [record.values.get("text") for record in read(tmp_path, "train")]
    assert found == [names[0], None, names[1], None]
    with pytest.raises(UsageError, match=r"no file of the split 'validation'; it has dev\.csv, te"):
        read(tmp_path, "validation")


def test_a_split_is_not_the_beginning_of_another_word(tmp_path: Path) -> None:
    for name in ("test.jsonl", "testimony.jsonl"):
        write_jsonl(tmp_path / name, [{"text": name}])
    assert [row["text"] for row in values(tmp_path, "test")] == ["test.jsonl"]


# Data sets


@pytest.fixture(scope="module")
def dataset() -> datasets.Dataset:
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["no", "yes"]),
            "rationale": datasets.List(datasets.Value("int64")),
        }
    )
    rows = {"text": ["a", "b", "c"], "label": [1, 0, -1], "rationale": [[1], [0], []]}
    return datasets.Dataset.from_dict(rows, features=features)


def test_a_saved_dataset(dataset: datasets.Dataset, tmp_path: Path) -> None:
    dataset.save_to_disk(str(tmp_path / "a [b]"))
    assert values(tmp_path / "a [b]") == [
        {"text": "a", "label": 1, "rationale": [1]},
        {"text": "b", "label": 0, "rationale": [0]},
        {"text": "c", "label": -1, "rationale": []},
    ]


def test_a_saved_selection_is_that_selection(dataset: datasets.Dataset, tmp_path: Path) -> None:
    dataset.select([2, 0]).save_to_disk(str(tmp_path / "saved"))
    assert [row["text"] for row in values(tmp_path / "saved")] == ["c", "a"]


def test_a_saved_dataset_of_several_splits(dataset: datasets.Dataset, tmp_path: Path) -> None:
    splits = datasets.DatasetDict(train=dataset, test=dataset.select([1]))
    splits.save_to_disk(str(tmp_path / "saved"))
    (record,) = read(tmp_path / "saved", "test")
    assert (record.values["text"], record.split) == ("b", "test")
    with pytest.raises(UsageError, match="has the splits train, test: name one with --split"):
        read(tmp_path / "saved")
    with pytest.raises(UsageError, match="train, test: 'dev' is not one of them with --split"):
        read(tmp_path / "saved", "dev")


def test_the_only_split_need_not_be_named(dataset: datasets.Dataset, tmp_path: Path) -> None:
    datasets.DatasetDict(test=dataset).save_to_disk(str(tmp_path / "saved"))
    assert [record.split for record in read(tmp_path / "saved")] == ["test"] * 3


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, dataset: datasets.Dataset) -> list[tuple[Any, ...]]:
    """A hub with one data set of two splits; the list fills up with the calls."""
    calls = []

    def load(name: str, configuration: str | None, *, split: str | None) -> Any:
        calls.append((name, configuration, split))
        if name != "who/what":
            raise ConnectionError("Couldn't reach the Hub")
        splits = datasets.DatasetDict(train=dataset, test=dataset.select([1]))
        return splits if split is None else splits[split]

    monkeypatch.setattr(datasets, "load_dataset", load)
    return calls


def test_a_dataset_of_the_hub(hub: list[tuple[Any, ...]]) -> None:
    (record,) = read("who/what:large", "test")
    assert hub == [("who/what", "large", "test")]
    assert (record.values["text"], record.values["label"], record.split) == ("b", 0, "test")
    with pytest.raises(UsageError, match="has the splits train, test: name one with --split"):
        read("who/what")


def test_a_hub_that_is_not_reached(hub: list[tuple[Any, ...]]) -> None:
    message = "there is no file who/else, and the data set who/else can't be loaded from the hub"
    with pytest.raises(UsageError, match=f"{message}: ConnectionError: Couldn't reach the Hub"):
        read("who/else")


@pytest.mark.parametrize(
    "corpus", ["lost.jsonl", "./lost", "/lost", "a/b/c", "a b", "lost.json.gz"]
)
def test_what_looks_like_a_path_is_not_looked_for_on_the_hub(
    corpus: str, hub: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=f"there is no corpus at {corpus}: "):
        read(corpus)
    assert not hub


# Corpora that can't be read


def damaged_page(path: Path) -> None:
    """A Parquet file whose footer is whole."""
    pq.write_table(pa.table({"text": [f"text {n}" for n in range(BIG)]}), path, compression="zstd")
    content = bytearray(path.read_bytes())
    content[100:300] = bytes(200)
    path.write_bytes(content)


def damaged_dataset(path: Path) -> None:
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(str(path))
    for file in path.glob("*.arrow"):
        file.write_bytes(b"damaged")


def first_whole_then_not(path: Path) -> None:
    path.mkdir()
    write_parquet(path / "1.parquet", [{"text": "a"}])
    (path / "2.parquet").write_bytes(b"PAR1")


def truncated_gzip(path: Path) -> None:
    lines = write_jsonl(path.with_suffix(".plain"), [{"text": f"{n * n}"} for n in range(BIG)])
    path.write_bytes(gzip.compress(lines.read_bytes())[:-100])


UNREADABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty.parquet": (lambda path: path.write_bytes(b""), "empty.parquet can't be read: "),
    "garbage.parquet": (lambda path: path.write_bytes(bytes(99)), "parquet can't be read: "),
    "page.parquet": (damaged_page, "page.parquet can't be read: "),
    "folder": (first_whole_then_not, "folder/2.parquet can't be read: "),
    "saved": (damaged_dataset, "saved can't be read: "),
    "no.jsonl.gz": (lambda path: path.write_bytes(b"{}"), "no.jsonl.gz can't be read: Not a gzip"),
    "half.jsonl.gz": (truncated_gzip, "half.jsonl.gz can't be read: Compressed file ended"),
    "half.json": (lambda path: path.write_text('\n [{"text": "a"}'), "doesn't end after item 1"),
    "lines.json": (
        lambda path: path.write_text('{\n"text": "a"\n}\n'),
        "over several lines; write",
    ),
    "text.txt": (lambda path: path.write_text("a"), "text.txt is of no known format; a corpus is "),
    "nothing": (lambda path: path.mkdir(), "nothing holds no Parquet, JSON lines, CSV or TSV"),
    "*.jsonl": (lambda path: None, r"no corpus at .*\*.jsonl: no such file, folder or match"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_no_corpus_is_named(name: str, tmp_path: Path) -> None:
    make, message = UNREADABLE[name]
    make(tmp_path / name)
    with pytest.raises(UsageError, match=message):
        read(tmp_path / name)


def test_a_store_that_is_not_known() -> None:
    with pytest.raises(UsageError, match="what://is/this can't be listed: "):
        read("what://is/this")


@pytest.mark.parametrize("name", ["c.jsonl", "c.csv", "c.tsv"])
def test_an_empty_file_has_neither_columns_nor_records(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    assert open_source(str(tmp_path / name), None).columns == ()
    assert read(tmp_path / name) == []


@pytest.mark.parametrize("name", ["c.jsonl", "c.csv", "c.tsv", "c.parquet"])
@settings(max_examples=40)
@given(garbage=st.binary(min_size=1, max_size=200))
def test_garbage_is_refused_or_a_problem_but_no_error(
    name: str, garbage: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("garbage") / name
    path.write_bytes(b"\xff" + garbage)
    try:
        records = read(path)
    except UsageError as error:
        assert str(path) in str(error)
    else:
        for record in records:
            json.dumps([record.values, record.problem], ensure_ascii=False).encode()


# Identity and memory


def test_the_fingerprint_is_of_all_that_the_rows_depend_on(tmp_path: Path) -> None:
    def fingerprint(path: str, content: str = '{"text": "a"}') -> str:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(content)
        return open_source(str(tmp_path / path), None).fingerprint

    first = fingerprint("here/c.jsonl")
    assert fingerprint("there/d.jsonl") == first
    assert fingerprint("here/c.jsonl", '{"text": "b"}') != first
    assert fingerprint("here/test.jsonl") != first  # It would be another split,
    assert fingerprint("here/c.csv") != first  # another format.


class Counted(io.FileIO):
    """A file that counts what is read of it."""

    total = 0

    def readinto(self, buffer: Any) -> int | None:
        count = super().readinto(buffer)
        Counted.total += count or 0
        return count


@pytest.mark.parametrize("name", ["c.jsonl", "c.csv"])
def test_a_source_is_read_as_far_as_it_is_asked_for(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = WRITERS[f"corpus{Path(name).suffix}"](
        tmp_path / name, [{"text": "word " * 20, "label": "0"}] * BIG
    )
    source = open_source(str(path), None)
    opened = lambda path: io.BufferedReader(Counted(path))  # noqa: E731
    monkeypatch.setattr("attribeam.pipeline.corpus.streams.open_read", opened)
    Counted.total = 0
    assert len(list(islice(source.records(), 10))) == 10
    assert 0 < Counted.total < path.stat().st_size / 5
