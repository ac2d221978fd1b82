"""Random corpora of many shapes, read by us and by pandas, DuckDB and datasets.

A reader may refuse a file; so may we. What we read without a complaint, nobody reads otherwise.
Shared by the tests and by ``python -m benchmarks.fuzz``.
"""

import csv
import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from attribeam.pipeline.corpus.sources import open_source
from attribeam.schemas import UsageError
from tests.support.tiny import Rows

# A row as all readers give it: text by column, without what is nothing.
Plain = dict[str, str]
_PIECES = [
    *(
        "the",
        "film",
        "is",
        "good",
        "café",
        "世界",
        "😀",
        "a,b",
        "x;y",
        "p|q",
        "'s",
        "#1",
        "\\n",
        "%",
    ),
    *("=1", "NA", "null", "None", "-1", "1.0", "007", "true", "{}", "[1]", "\u2028", "\u200b"),
]
_QUOTED = ['say "so"', "two\nlines", "carriage\rreturn", "windows\r\nline", '"', "tab\there", ","]
datasets.disable_progress_bars()


def _text(chance: random.Random, pieces: Sequence[str]) -> str:
    return " ".join(chance.choice(pieces) for _ in range(chance.randint(1, 6)))


def _rows(chance: random.Random, pieces: Sequence[str] = _PIECES, count: int = 12) -> Rows:
    return [
        {"id": f"r{at}", "text": _text(chance, pieces), "label": str(chance.randint(0, 2))}
        for at in range(count)
    ]


# What the readers read ------------------------------------------------------------------------


def _plain(values: dict[str, Any]) -> Plain:
    found = {}
    for name, value in values.items():
        nothing = value is None or value == "" or (isinstance(value, float) and math.isnan(value))
        if nothing or value is pd.NaT or value is pd.NA:
            continue
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # noqa: PLW2901
        shown = value.decode() if isinstance(value, bytes) else value
        if isinstance(shown, dict | list):
            shown = json.dumps(_without_nulls(shown), sort_keys=True)
        found[name] = str(shown)
    return found


def _without_nulls(value: Any) -> Any:
    """A value without keys that hold nothing, since tables give every object all keys."""
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value


def ours(path: Path, **options: Any) -> list[Plain] | None:
    """What we read; None if we refuse the file, or a row of it."""
    try:
        records = list(open_source(str(path), None, **options).records())
    except UsageError:
        return None
    if any(record.problem for record in records):
        return None
    return [_plain(record.values) for record in records]


def _by_pandas(path: Path, delimiter: str) -> Rows:
    match path.suffix:
        case ".parquet":
            return list(pq.read_table(path).to_pylist())
        case ".jsonl" | ".json":
            lines = path.suffix == ".jsonl"
            frame = pd.read_json(path, lines=lines, dtype=False, convert_dates=False)
            return [{str(k): v for k, v in row.items()} for row in frame.to_dict("records")]
        case _:
            quoting = csv.QUOTE_NONE if path.suffix == ".tsv" else csv.QUOTE_MINIMAL
            frame = pd.read_csv(
                path, sep=delimiter, dtype=str, keep_default_na=False, quoting=quoting,
                index_col=False,
            )  # fmt: skip
            return [{str(k): v for k, v in row.items()} for row in frame.to_dict("records")]


def _by_duckdb(path: Path, delimiter: str) -> Rows:
    name = str(path).replace("'", "''")
    quote = "" if path.suffix == ".tsv" else '"'
    readers = {
        ".parquet": f"read_parquet('{name}')",
        ".jsonl": f"read_json('{name}', format='newline_delimited', sample_size=-1)",
        ".json": f"read_json('{name}', format='array', sample_size=-1)",
    }
    plain = (
        f"read_csv('{name}', header=true, all_varchar=true, delim='{delimiter}', quote='{quote}', "
        f"escape='{quote}', max_line_size=10000000)"
    )
    with duckdb.connect() as connection:
        return list(
            connection.sql(f"from {readers.get(path.suffix, plain)}").to_arrow_table().to_pylist()
        )


def _by_datasets(path: Path, delimiter: str) -> Rows:
    kinds = {".parquet": "parquet", ".jsonl": "json", ".json": "json"}
    more: dict[str, Any] = {}
    if path.suffix not in kinds:
        more = {"sep": delimiter, "keep_default_na": False}
        more["quoting"] = csv.QUOTE_NONE if path.suffix == ".tsv" else csv.QUOTE_MINIMAL
        names = pd.read_csv(path, sep=delimiter, nrows=0).columns
        more["features"] = datasets.Features(dict.fromkeys(names, datasets.Value("string")))
    loaded = datasets.load_dataset(
        kinds.get(path.suffix, "csv"),
        data_files=str(path),
        split="train",
        cache_dir=str(path.parent / "cache"),
        **more,
    )
    return list(loaded.to_list())


READERS: dict[str, Callable[[Path, str], Rows]] = {
    "pandas": _by_pandas,
    "duckdb": _by_duckdb,
    "datasets": _by_datasets,
}


def others(path: Path, delimiter: str, names: Sequence[str]) -> Iterator[tuple[str, list[Plain]]]:
    """What the others read, of those that don't refuse the file."""
    for name in names:
        try:
            found = READERS[name](path, delimiter)
        except Exception:  # Each refuses in its own way.
            continue
        yield name, [_plain({k.strip("\ufeff"): v for k, v in row.items()}) for row in found]


# Shapes of corpora ----------------------------------------------------------------------------


def _csv(path: Path, rows: Rows, **options: Any) -> Path:
    with path.open("w", newline="", encoding=options.pop("encoding", "utf-8")) as handle:
        writer = csv.DictWriter(handle, [*rows[0]], **options)
        writer.writeheader()
        writer.writerows(rows)
    return path


def _lines(path: Path, rows: Rows, **options: Any) -> Path:
    lines = (json.dumps(row, **options) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")
    return path


def _table(path: Path, rows: Rows, **types: pa.DataType) -> Path:
    table = pa.Table.from_pylist(rows)
    for name, kind in types.items():
        at = table.column_names.index(name)
        table = table.set_column(at, name, table[name].cast(kind))
    pq.write_table(table, path, row_group_size=5)
    return path


def _raw(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def _gaps(chance: random.Random, rows: Rows) -> Rows:
    return [{k: v for k, v in row.items() if k == "id" or chance.random() < 0.7} for row in rows]


def _messy(chance: random.Random, path: Path) -> Path:
    """Lines of fields, quotes and delimiters as they come."""
    marks = ["a", "b", ",", '"', '""', "\n", "\r\n", " ", "1"]
    body = "".join(chance.choice(marks) for _ in range(60))
    return _raw(path, f"id,text\n{body}\n")


Shape = Callable[[random.Random, Path], Path]
SHAPES: dict[str, Shape] = {
    "csv": lambda c, p: _csv(p / "c.csv", _rows(c)),
    "csv, quoted": lambda c, p: _csv(p / "c.csv", _rows(c, _PIECES + _QUOTED)),
    "csv, all quoted": lambda c, p: _csv(p / "c.csv", _rows(c), quoting=csv.QUOTE_ALL),
    "csv, a mark": lambda c, p: _csv(p / "c.csv", _rows(c), encoding="utf-8-sig"),
    "csv, unix": lambda c, p: _csv(p / "c.csv", _rows(c, _PIECES), lineterminator="\n"),
    # Python's own writer doesn't quote them then.
    "csv, bare returns": lambda c, p: _csv(p / "c.csv", _rows(c, ["a\rb"]), lineterminator="\n"),
    "csv, semicolons": lambda c, p: _csv(p / "c;.csv", _rows(c), delimiter=";"),
    "csv, bars": lambda c, p: _csv(p / "c|.csv", _rows(c, _PIECES + _QUOTED), delimiter="|"),
    "csv, one column": lambda c, p: _csv(p / "c.csv", [{"text": r["text"]} for r in _rows(c)]),
    "csv, blanks": lambda c, p: _csv(
        p / "c.csv", [r | {"label": c.choice(["", "1"]), "text": c.choice(["", "a"])}
                      for r in _rows(c)]
    ),
    "csv, ragged": lambda c, p: _raw(p / "c.csv", "id,text\n" + "\n".join(
        ",".join("ab"[: c.randint(1, 2)] * c.randint(1, 2)) for _ in range(6)) + "\n"),
    "csv, open quote": lambda c, p: _raw(p / "c.csv", 'id,text\n1,"a film\n2,dull\n3,nice\n'),
    "csv, text after a quote": lambda c, p: _raw(p / "c.csv", 'id,text\n1,"a" film\n2,dull\n'),
    "csv, doubled": lambda c, p: _raw(p / "c.csv", "id,text,text\n1,a,b\n"),
    "csv, backslashes": lambda c, p: _raw(p / "c.csv", 'id,text\n1,"a \\"b\\" c"\n2,"d"\n'),
    "csv, windows in unix": lambda c, p: _raw(
        p / "c.csv", 'id,text\n1,"a\r\nb"\r\n2,c\n3,"d\re"\n'
    ),
    "csv, old mac": lambda c, p: _csv(p / "c.csv", _rows(c, _PIECES[:8]), lineterminator="\r"),
    "tsv": lambda c, p: _csv(
        p / "c.tsv", _rows(c, [*_PIECES, '"open', "5'"]), delimiter="\t", quoting=csv.QUOTE_NONE,
        quotechar=None, lineterminator="\n",
    ),
    "json": lambda c, p: _lines(p / "c.jsonl", _rows(c, _PIECES + _QUOTED)),
    "json, unicode": lambda c, p: _lines(p / "c.jsonl", _rows(c), ensure_ascii=False),
    "json, gaps": lambda c, p: _lines(p / "c.jsonl", _gaps(c, _rows(c))),
    "json, late": lambda c, p: _lines(
        p / "c.jsonl", [*({"id": f"{n}"} for n in range(1100)), *_rows(c, count=3)]
    ),
    "json, numbers": lambda c, p: _lines(
        p / "c.jsonl", [r | {"label": c.randint(-9, 9), "score": c.randint(0, 8) / 8}
                        for r in _rows(c)]
    ),
    "json, objects": lambda c, p: _lines(
        p / "c.jsonl", [{"id": r["id"], "review": {"text": r["text"], "tags": ["x", "y"]}}
                        for r in _rows(c)]
    ),
    "json, doubled": lambda c, p: _raw(p / "c.jsonl", '{"id": "1", "text": "a", "text": "b"}\n'),
    "json, cut short": lambda c, p: _raw(p / "c.jsonl", '{"text": "a"}\n{"text": "b'),
    "json, array": lambda c, p: _raw(p / "c.json", json.dumps(_rows(c), indent=1)),
    "parquet": lambda c, p: _table(p / "c.parquet", _rows(c, _PIECES + _QUOTED)),
    "parquet, dictionary": lambda c, p: _table(
        p / "c.parquet", _rows(c), text=pa.dictionary(pa.int32(), pa.string())
    ),
    "parquet, large": lambda c, p: _table(
        p / "c.parquet", _rows(c), text=pa.large_string(), id=pa.string_view()
    ),
    "parquet, numbers": lambda c, p: _table(
        p / "c.parquet", _rows(c), label=c.choice([pa.int8(), pa.uint64(), pa.float32()])
    ),
    "parquet, gaps": lambda c, p: _table(p / "c.parquet", _gaps(c, _rows(c))),
    "parquet, objects": lambda c, p: _table(
        p / "c.parquet", [{"id": r["id"], "in": {"text": r["text"]}, "words": r["text"].split()}
                          for r in _rows(c)]
    ),
}  # fmt: skip
REFUSED = {
    *("csv, open quote", "csv, text after a quote", "csv, doubled", "csv, backslashes"),
    *("csv, ragged", "csv, bare returns", "json, doubled", "json, cut short"),
}


def compare(path: Path, names: Sequence[str]) -> bool:
    """Checks that all who read a file read the same; returns whether we read it."""
    delimiter = {"c;.csv": ";", "c|.csv": "|"}.get(
        path.name, "\t" if path.suffix == ".tsv" else ","
    )
    found = ours(path, delimiter=delimiter) if path.name in ("c;.csv", "c|.csv") else ours(path)
    if found is not None:
        agreeing = list(others(path, delimiter, names))
        assert len(agreeing) >= len(names) - 1, f"{path.read_bytes()[:500]!r} is read by us alone"
        for name, theirs in agreeing:
            assert found == theirs, f"{name} reads {path.read_bytes()[:500]!r} otherwise"
    return found is not None


def compare_messy(seed: int, folder: Path) -> bool:
    """As ``compare``, on characters as they come; DuckDB guesses too much to be asked."""
    return compare(_messy(random.Random(seed), folder / "c.csv"), ["pandas"])


def compare_shape(shape: str, seed: int, folder: Path) -> bool:
    """As ``compare``, on a random corpus of a shape."""
    return compare(SHAPES[shape](random.Random(f"{shape} {seed}"), folder), [*READERS])
