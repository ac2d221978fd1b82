"""Which files a corpus is, which split each row is of, and in what files may be packed."""

import bz2
import gzip
import io
import lzma
import os
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from attribeam.pipeline.corpus.listing import split_of
from attribeam.pipeline.corpus.sources import open_source
from attribeam.schemas import UsageError
from tests.support.tiny import write_jsonl

CSV = b"text,label\na,1\nb,0\n"
ROWS = [{"text": "a", "label": "1"}, {"text": "b", "label": "0"}]


def texts(
    corpus: Path | str, split: str | None = None, **given: str
) -> list[tuple[str, str | None]]:
    """Texts and splits of a corpus."""
    source = open_source(str(corpus), split, **given)
    return [(record.values["text"], record.split) for record in source.records()]


def folder(root: Path, *names: str) -> Path:
    """Files of one row each, whose text is the file's path."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".parquet":
            pq.write_table(pa.table({"text": [name]}), path)
        else:
            write_jsonl(path, [{"text": name}])
    return root


def file(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# Splits


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train.csv", "train"),
        ("Test.jsonl.gz", "test"),
        ("dev-2.parquet", "dev"),
        ("imdb_test.csv", "test"),
        ("sst2.train.jsonl", "train"),
        ("validation_matched-00000-of-00001.parquet", "validation_matched"),
        ("data/all-00000-of-00002.parquet", "all"),
        ("data/train-00000-of-00001-3f.parquet", "train"),
        ("train/0000.parquet", "train"),
        ("en/dev/part-1.csv", "dev"),
        ("part-00000-of-00002.parquet", None),
        ("ab_test_results.csv", None),
        ("testimony.csv", None),
        ("trains/x.csv", None),
    ],
)
def test_what_a_path_says_of_its_split(path: str, split: str | None) -> None:
    assert split_of(path) == split


@pytest.mark.parametrize("name", ["train.csv", "imdb_train.csv", "."])
def test_a_file_of_another_split_is_not_renamed(name: str, tmp_path: Path) -> None:
    """Alone, as a folder's only file, or among others."""
    file(tmp_path / ("train.csv" if name == "." else name), CSV)
    with pytest.raises(UsageError, match=r"no file of the split 'test'; it has \w*train\.csv"):
        open_source(str(tmp_path / name), "test")
    assert texts(tmp_path / name, "train") == [("a", "train"), ("b", "train")]


def test_what_says_nothing_of_a_split_may_be_called_one(tmp_path: Path) -> None:
    path = file(tmp_path / "part-1.csv", CSV)
    file(tmp_path / "part-2.csv", CSV)
    assert texts(path, "test") == [("a", "test"), ("b", "test")]
    assert texts(tmp_path, "test") == [("a", "test"), ("b", "test")] * 2
    file(tmp_path / "train.csv", CSV)
    with pytest.raises(UsageError, match=r"it has part-1\.csv, part-2\.csv, train\.csv"):
        open_source(str(tmp_path), "test")


def test_splits_of_other_names(tmp_path: Path) -> None:
    folder(tmp_path, "data/validation_matched-00000-of-00001.parquet",
           "data/validation_mismatched-00000-of-00001.parquet", "data/eval.jsonl")  # fmt: skip
    (found,) = texts(tmp_path, "validation_matched")
    assert found == ("data/validation_matched-00000-of-00001.parquet", "validation_matched")
    assert texts(tmp_path, "eval") == [("data/eval.jsonl", "eval")]
    with pytest.raises(UsageError, match="no file of the split 'validation'; it has"):
        open_source(str(tmp_path), "validation")


SPLIT_LINES = "text,Split\na,train\nb,test\nc,\n"


@pytest.mark.parametrize("name", ["rows.csv", "train.csv"])
def test_a_row_tells_its_own_split(name: str, tmp_path: Path) -> None:
    path = file(tmp_path / name, SPLIT_LINES)
    rest = "train" if name == "train.csv" else None
    assert texts(path) == [("a", "train"), ("b", "test"), ("c", rest)]
    assert texts(path, "test") == [("b", "test")]
    with pytest.raises(
        UsageError, match="no row of the split 'dev'; its column 'Split' has test, "
    ):
        texts(path, "dev")


def test_the_column_of_splits_can_be_named(tmp_path: Path) -> None:
    path = file(tmp_path / "rows.csv", "text,fold,split\na,1,x\nb,2,y\n")
    assert texts(path, "2", split_column="fold") == [("b", "2")]
    assert texts(path, "dev", split_column="none") == [("a", "dev"), ("b", "dev")]
    with pytest.raises(UsageError, match=r"has no column 'part' \(--split-column\)"):
        open_source(str(path), None, split_column="part")


def test_a_line_that_could_be_of_any_split_is_kept(tmp_path: Path) -> None:
    path = file(
        tmp_path / "rows.jsonl",
        '{"text": "a", "split": "test"}\n?\n{"text": "b", "split": "dev"}\n',
    )
    records = list(open_source(str(path), "test").records())
    assert [record.problem is None for record in records] == [True, False]


def test_a_saved_split_is_not_renamed(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict({"text": ["a"]})
    datasets.DatasetDict(train=rows, test=rows).save_to_disk(str(tmp_path / "both"))
    assert texts(tmp_path / "both" / "test") == [("a", "test")]
    with pytest.raises(UsageError, match="is of the split 'test', not 'train'"):
        open_source(str(tmp_path / "both" / "test"), "train")
    rows.save_to_disk(str(tmp_path / "alone"))
    assert texts(tmp_path / "alone", "dev") == [("a", "dev")]
    own = datasets.Dataset.from_dict({"text": ["a", "b"], "split": ["x", "y"]})
    own.save_to_disk(str(tmp_path / "own"))
    assert texts(tmp_path / "own", "y") == [("b", "y")]


# Folders


def test_a_cloned_data_set_is_found_below(tmp_path: Path) -> None:
    names = [f"data/{split}-00000-of-00001.parquet" for split in ("test", "train")]
    folder(tmp_path, *names)
    (tmp_path / "README.md").write_text("---\nconfigs:\n- config_name: default\n---\n")
    found = list(zip(names, ("test", "train"), strict=True))
    assert texts(tmp_path) == found
    assert texts(tmp_path, "train") == found[1:]


def test_what_lies_beside_data_is_no_data(tmp_path: Path) -> None:
    folder(tmp_path, "label=1/a.parquet", "_delta_log/0000.json", "_temporary/0/b.parquet")
    (tmp_path / "dataset_infos.json").write_text("{}")
    (tmp_path / "_SUCCESS").touch()
    assert texts(tmp_path) == [("label=1/a.parquet", None)]


def test_what_is_below_data_files_is_said(tmp_path: Path) -> None:
    folder(tmp_path, "a.jsonl", "sub/b.jsonl", "sub/more/c.parquet", ".git/d.jsonl")
    source = open_source(str(tmp_path), None)
    assert texts(tmp_path) == [("a.jsonl", None)]
    assert source.notes == ("left out: 2 data files in folders below, such as sub/b.jsonl",)


def test_folders_that_hold_each_other_end(tmp_path: Path) -> None:
    folder(tmp_path, "a/b/c.jsonl")
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path)
    assert texts(tmp_path) == [("a/b/c.jsonl", None)]


CONFIGS = """---
configs:
- config_name: en
  data_files: en/*.jsonl
- config_name: de
  data_files:
  - split: train
    path: [de/a.jsonl, de/b.jsonl]
  - split: test
    path: de/c.jsonl
- config_name: fr
  data_dir: fr
- config_name: csv
  sep: ";"
  data_files:
    test: rows.csv
---
# A data set
"""


def test_configurations_of_a_card(tmp_path: Path) -> None:
    folder(tmp_path, "en/x.jsonl", "de/a.jsonl", "de/b.jsonl", "de/c.jsonl", "fr/train/x.jsonl")
    file(tmp_path / "rows.csv", "text;label\na,b;1\n")
    (tmp_path / "README.md").write_text(CONFIGS)
    with pytest.raises(UsageError, match="has the configurations en, de, fr, csv: name one after"):
        open_source(str(tmp_path), None)
    assert texts(f"{tmp_path}:en") == [("en/x.jsonl", None)]
    both = [("de/a.jsonl", "train"), ("de/b.jsonl", "train")]
    assert texts(f"{tmp_path}:de") == [*both, ("de/c.jsonl", "test")]
    assert texts(f"{tmp_path}:de", "train") == both
    assert texts(f"{tmp_path}:fr", "train") == [("fr/train/x.jsonl", "train")]
    assert texts(f"{tmp_path}:csv") == [("a,b", "test")]
    with pytest.raises(UsageError, match="no configuration 'es'; it has en, de, fr, csv"):
        open_source(f"{tmp_path}:es", None)
    (tmp_path / "README.md").write_text(
        CONFIGS.replace("data_dir: fr", "data_dir: fr\n  default: 1")
    )
    assert texts(tmp_path) == [("fr/train/x.jsonl", "train")]
    source = open_source(str(tmp_path), None)
    assert source.notes == ("configuration fr of en, de, fr, csv",)
    assert source.name == f"{tmp_path} (configuration fr of en, de, fr, csv)"


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ("data_files: ../other/*", r"names files elsewhere: \.\./other/\*"),
        ("data_files: /etc/*", "names files elsewhere"),
        ("data_files: lost/*", "names files that are not there: lost/"),
        ("header: null", "says of its files what is not read: header"),
    ],
)
def test_cards_that_are_not_followed(card: str, message: str, tmp_path: Path) -> None:
    folder(tmp_path, "a.jsonl")
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  {card}\n---\n")
    with pytest.raises(UsageError, match=message):
        open_source(str(tmp_path), None)


@pytest.mark.parametrize(
    "card",
    [
        "configs: [",
        "configs: &a [*a, *a]",
        "a: &a [x, x]\n" + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n"
                                   for a, b in zip("abcdefghi", "bcdefghij", strict=True)),
    ],
    ids=["half", "endless", "large"],
)  # fmt: skip
def test_a_card_that_can_not_be_read_is_said(card: str, tmp_path: Path) -> None:
    folder(tmp_path, "a.jsonl")
    (tmp_path / "README.md").write_text(f"---\n{card}\n---\n")
    assert texts(tmp_path) == [("a.jsonl", None)]
    (note,) = open_source(str(tmp_path), None).notes
    assert note.startswith("the YAML in README.md can't be read: ")


# Paths that hold columns


def test_columns_in_the_path(tmp_path: Path) -> None:
    folder(tmp_path, "label=0/split=test/a.parquet", "label=1/split=a%20b/b.parquet",
           "label=__HIVE_DEFAULT_PARTITION__/split=test/c.parquet")  # fmt: skip
    source = open_source(str(tmp_path), None)
    assert {*source.columns} == {"text", "label", "split"}
    found = [(record.values["label"], record.split) for record in source.records()]
    assert found == [("0", "test"), ("1", "a b"), (None, "test")]
    assert [text for text, _ in texts(tmp_path, "a b")] == ["label=1/split=a%20b/b.parquet"]
    (record,) = open_source(str(tmp_path / "label=0/split=test/a.parquet"), None).records()
    assert record.values["label"] == "0"
    assert len(texts(f"{tmp_path}/*/*/*.parquet", "test")) == 2


def test_a_path_that_contradicts_its_file(tmp_path: Path) -> None:
    (tmp_path / "label=1").mkdir()
    file(tmp_path / "label=1" / "c.csv", CSV)
    first, second = open_source(str(tmp_path), None).records()
    assert first.problem is None
    assert second.problem == "label is 0 in the file and 1 in its path"


# What is no file


def test_pipes_and_devices_do_not_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "endless.csv").symlink_to("/dev/zero")
    (tmp_path / "lost.csv").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"holds no .* endless\.csv, which is a device"):
        open_source(str(tmp_path), None)
    folder(tmp_path, "a.jsonl")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # Names of sockets are short.
        server.bind("s.jsonl")
        source = open_source(str(tmp_path), None)
    assert [note.split(", which is ") for note in source.notes] == [
        ["left out: endless.csv", "a device"],
        ["left out: lost.csv", "a link to nothing"],
        ["left out: pipe.jsonl", "a pipe"],
        ["left out: s.jsonl", "a socket"],
    ]
    assert texts(tmp_path) == [("a.jsonl", None)]
    for name, kind in (("pipe.jsonl", "a pipe"), ("endless.csv", "a device")):
        with pytest.raises(UsageError, match=f"{name} is no file, but {kind}"):
            open_source(str(tmp_path / name), None)


# Packed files, other formats


def zipped(content: bytes, *names: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in names:
            archive.writestr(name, content)
    return packed.getvalue()


def zstd(content: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(content))


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd,
    ".zip": lambda content: zipped(content, "inner.csv", "__MACOSX/inner.csv"),
}


@pytest.mark.parametrize("suffix", PACKERS)
def test_packed_files(suffix: str, tmp_path: Path) -> None:
    path = file(tmp_path / f"c.csv{suffix}", PACKERS[suffix](CSV))
    assert [record.values for record in open_source(str(path), None).records()] == ROWS
    whole = PACKERS[suffix](b"text,label\n" + b"".join(b"%d,1\n" % n**5 for n in range(9999)))
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match="can't be read: "):
        list(open_source(str(path), None).records())


def test_a_table_as_pandas_names_it(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "df.parquet.gzip", compression="gzip")
    path = file(tmp_path / "c.csv.gzip", gzip.compress(CSV))
    for each in (path, tmp_path / "df.parquet.gzip"):
        assert [record.values for record in open_source(str(each), None).records()] == ROWS


def test_tables_of_arrow(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    with pa.ipc.new_file(str(tmp_path / "file.arrow"), table.schema) as sink:
        sink.write_table(table)
    with pa.ipc.new_stream(str(tmp_path / "stream.arrow"), table.schema) as sink:
        sink.write_table(table)
    pyarrow.feather.write_feather(table, str(tmp_path / "c.feather"))
    for path in tmp_path.iterdir():
        assert [record.values for record in open_source(str(path), None).records()] == ROWS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.csv", gzip.compress(CSV, mtime=0), "is no text: it begins as a gzip file does"),
        ("c.csv", zipped(CSV, "x"), "is no text: it begins as a zip or Excel file does"),
        ("c.jsonl", b"PAR1\0", "is no text: it begins as a Parquet file does"),
        ("c.xlsx", zipped(CSV, "x"), "known format; .* this is a spreadsheet: save it as CSV"),
        ("c.zip", zipped(CSV, "x.csv"), "is of no known format; .* an archive: unpack it"),
        ("c.csv.zip", zipped(CSV, "x.csv", "y.csv"), "holds 2 files: unpack it into a folder"),
        ("c.csv", "text,label\n".encode("utf-16-le"), "looks like UTF-16LE without a byte order"),
        ("c.jsonl", '{"text": "a"}'.encode("utf-16-be"), "looks like UTF-16BE without a byte ord"),
        ("c.csv", b"text;label\na;1\n", r"fields seem to be separated by ';' \(--delimiter ';'\)"),
        ("c.csv", b"text\tlabel\na\t1\n", r"separated by '\\t' \(--delimiter '\\t'\)"),
        ("c.csv", b"text|label\na|1\n", r"separated by '\|'"),
        ("c.tsv", CSV, "separated by ','"),
        ("c.csv", b"sep=;\ntext;label\n", "begins with 'sep=;'"),
    ],
)
def test_what_else_is_refused_and_why(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    path = file(tmp_path / name, content)
    with pytest.raises(UsageError, match=message):
        open_source(str(path), None)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_texts_of_other_encodings(encoding: str, tmp_path: Path) -> None:
    rows = [{"text": "Tür 日本 😀", "label": "1"}, {"text": "two\nlines", "label": "0"}]
    lines = 'text,label\n"Tür 日本 😀",1\n"two\nlines",0\n'
    path = file(tmp_path / "c.csv", lines.encode(encoding))
    assert [record.values for record in open_source(str(path), None).records()] == rows
    lines = '{"text": "Tür 日本 😀", "label": "1"}\n{"text": "two\\nlines", "label": "0"}\n'
    path = file(tmp_path / "c.jsonl", lines.encode(encoding))
    assert [record.values for record in open_source(str(path), None).records()] == rows


@pytest.mark.parametrize(("given", "mark"), [(";", ";"), ("|", "|"), ("\\t", "\t"), ("tab", "\t")])
def test_a_delimiter_can_be_given(given: str, mark: str, tmp_path: Path) -> None:
    path = file(tmp_path / "c.csv", f'text{mark}label\n"a, {mark}b"{mark}1\n')
    (record,) = open_source(str(path), None, delimiter=given).records()
    assert record.values == {"text": f"a, {mark}b", "label": "1"}


@pytest.mark.parametrize("given", ["", ";;", '"', "\n"])
def test_what_is_no_delimiter(given: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--delimiter is one character"):
        open_source(str(file(tmp_path / "c.csv", CSV)), None, delimiter=given)


def test_a_file_named_as_it_is_may_have_one_column(tmp_path: Path) -> None:
    path = file(tmp_path / "c.csv", "text; or so\na\n")
    (record,) = open_source(str(path), None, delimiter=",").records()
    assert record.values == {"text; or so": "a"}


# Strictness


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('id,text\n1,"a fine film\n2,dull\n3,nice\n',
         r"a quote that opens in row 1 \(line 2\) is never closed"),
        ('id,text\n1,a\n2,"b" c\n', r"row 2 \(line 3\) has a field that goes on after its closing"),
        ('id,text\n1,"a \\"quoted\\" word"\n', r"row 1 \(line 2\) has a field that goes on after"),
        ('id,text\n1,"a\n2,"b"\n', r"row 1 \(line 2\) has a field that goes on after"),
        ("id,text\n1,a\rb\n", r"row 1 \(line 2\) has a carriage return outside of quotes"),
        ('id,"text\n', r"a quote that opens in the header \(line 1\) is never closed"),
    ],
)  # fmt: skip
def test_csv_is_read_strictly(content: str, message: str, tmp_path: Path) -> None:
    path = file(tmp_path / "c.csv", content)
    with pytest.raises(UsageError, match=f"c.csv: {message}"):
        list(open_source(str(path), None).records())


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_of_any_system(end: str, tmp_path: Path) -> None:
    path = file(tmp_path / "c.csv", end.join(["text,label", '"a\rb",1', "b,0", ""]))
    assert [record.values for record in open_source(str(path), None).records()] == [
        {"text": "a\rb", "label": "1"},
        {"text": "b", "label": "0"},
    ]
    path = file(tmp_path / "c.jsonl", end.join(['{"text": "a"}', '{"text": "b"}', ""]))
    assert texts(path) == [("a", None), ("b", None)]


def test_an_array_of_objects_is_read(tmp_path: Path) -> None:
    path = file(tmp_path / "c.json", '\n[{"text": "a"},\n {"text": "b"}, 5]\n')
    records = list(open_source(str(path), None).records())
    assert [record.values.get("text") for record in records] == ["a", "b", None]
    assert records[2].problem == "item 3 is JSON but not an object"
    assert list(open_source(str(file(path, "[]")), None).records()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"text": "a"}, {"text" "b"}]', "item 2 of its array is not JSON"),
        ('[{"text": "a"}', "its array doesn't end after item 1"),
        ('[{"text": "a"}]\n{"text": "b"}', "or more follows it"),
        ('{\n  "text": "a"\n}\n', "over several lines; write one object a line"),
    ],
)
def test_json_that_is_no_lines(content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        open_source(str(file(tmp_path / "c.json", content)), None)
