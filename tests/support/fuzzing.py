"""Corpora of any content, and what must hold of a run over one, whatever is in it.

Shared by the tests and by ``python -m benchmarks.fuzz``, which does the same at length.
"""

import csv
import io
import json
import math
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from attribeam.analysis import verify
from attribeam.pipeline import Options, run
from attribeam.pipeline.store.files import DamagedError
from attribeam.schemas import UsageError
from attribeam.transforms.evaluate import Evaluation
from tests.support.tiny import WORDS, files, table, texts

METHODS = "random,attention_rollout"

# Values ---------------------------------------------------------------------------------------

_words = st.lists(st.sampled_from([*WORDS, "isn't", "café", "世界", "😀", "."]), min_size=1)
_plain = _words.map(" ".join)
_strange = st.one_of(
    st.text(max_size=30),
    # Lone surrogates too.
    st.text(st.characters(codec=None, exclude_categories=()), max_size=10),
    st.sampled_from(["", " ", "\u200b", "\ufeff", "\x00", "[MASK]", "[SEP] [CLS]", "x" * 5000]),
    st.integers(1, 90).map(lambda count: "the film " * count),
)
_numbers = st.one_of(
    st.integers(-3, 5),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.booleans(),
)
_nested = st.recursive(
    st.none() | _numbers | _strange,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
_any = st.one_of(_strange, _numbers, _nested)


def _mostly(usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Usual values, and now and then any."""
    return st.integers(0, 9).flatmap(lambda dice: _any if dice == 0 else usual)


_bits = st.lists(st.integers(0, 1), max_size=12)
_ids = st.lists(st.integers(0, 43), max_size=60).map(lambda inner: [2, *inner, 3])
COLUMNS: dict[str, st.SearchStrategy[Any]] = {
    "text": _mostly(_mostly(_plain)),
    "text_pair": _mostly(_plain | st.none() | st.just("")),
    "label": _mostly(
        st.integers(-1, 3) | st.sampled_from(["1", "LABEL_0", "label_2", " 2 ", "1.0", None])
    ),
    "rationale": _mostly(st.none() | _bits | _bits.map(lambda marks: " ".join(map(str, marks)))),
    "roles": _mostly(st.lists(st.sampled_from(["subject", None]), max_size=5) | st.none()),
    "subset": _mostly(st.sampled_from(["a", "b", None])),
    "input_ids": _mostly(_ids),
    "token_type_ids": _mostly(st.none() | _ids.map(lambda ids: [0] * len(ids))),
    "other column": _any,
}


class Corpus(NamedTuple):
    """A corpus of wild values: its columns, its rows, and how it is run."""

    suffix: str
    columns: list[str]
    rows: list[dict[str, Any]]
    options: dict[str, Any]


@st.composite
def corpora(draw: st.DrawFn, *, most_rows: int = 80) -> Corpus:
    """Corpora in any format, with any columns, most of which hold what they should.

    Rows are put together at random from a few values of each column, so that there are many.
    """
    suffix = draw(st.sampled_from([".jsonl", ".csv", ".tsv", ".parquet"]))
    columns = draw(st.lists(st.sampled_from([*COLUMNS]), min_size=1, max_size=5, unique=True))
    if draw(st.integers(0, 9)):
        columns = list(dict.fromkeys(["text", *columns]))
    if draw(st.integers(0, 3)):
        columns = [column for column in columns if column != "input_ids"] or ["text"]
    pools = {name: draw(st.lists(COLUMNS[name], min_size=1, max_size=10)) for name in columns}
    chance = random.Random(draw(st.integers(0, 2**32)))
    sparse = draw(st.booleans())
    rows = [
        {n: chance.choice(pool) for n, pool in pools.items() if not sparse or chance.random() < 0.9}
        for _ in range(draw(st.integers(0, most_rows) | st.just(most_rows)))
    ]
    if draw(st.booleans()):
        columns = ["id", *columns]
        wild = draw(st.lists(_any, min_size=1)) if draw(st.integers(0, 4)) == 0 else []
        for number, values in enumerate(rows):
            # Two rows of the same id are refused, so most are not.
            strange = number < len(wild)
            values["id"] = wild[number] if strange else f"r{number}"
    options = {
        "overflow": draw(st.sampled_from(["truncate", "fail", "stride"])),
        "words": draw(st.sampled_from(["whitespace", "whitespace", "tokenizer"])),
        "target": draw(st.sampled_from(["auto", "auto", "gold", "1"])),
        "shard_size": draw(st.sampled_from([1, 3, 512])) if len(rows) < 10 else 512,
        "limit": draw(st.sampled_from([None, None, 5])),
        "max_length": draw(st.sampled_from([None, 12])),
        "columns": draw(
            st.sampled_from([{}, {}, {"label": "none"}, {"rationale": "none"}, {"text": "label"}])
        ),
    }
    return Corpus(suffix, columns, rows, options)


# Files ----------------------------------------------------------------------------------------


def write(corpus: Corpus, path: Path) -> int | None:
    """Writes a corpus; gives the number of its rows, or None if the format can't tell."""
    match corpus.suffix:
        case ".jsonl":
            # ASCII, so that lone surrogates are written as escapes, and NaN as Python writes it.
            path.write_text("".join(json.dumps(row) + "\n" for row in corpus.rows))
            return len(corpus.rows)
        case ".parquet":
            pq.write_table(_table(corpus), path)
            return len(corpus.rows)
        case _:
            return _write_delimited(corpus, path)


def _write_delimited(corpus: Corpus, path: Path) -> int | None:
    lines = [corpus.columns, *([_field(row.get(c)) for c in corpus.columns] for row in corpus.rows)]
    with path.open("w", newline="", encoding="utf-8", errors="surrogatepass") as handle:
        if corpus.suffix == ".csv":
            csv.writer(handle, quoting=csv.QUOTE_ALL).writerows(lines)
            return len(corpus.rows)
        # Without quotes, a value with a tab or a line break is several.
        handle.writelines("\t".join(fields) + "\n" for fields in lines)
    return None


def _field(value: Any) -> str:
    text = "" if value is None else value if isinstance(value, str) else str(value)
    return text.replace("\x00", "")


def _table(corpus: Corpus) -> pa.Table:
    """A column as Arrow infers it; where the types of its values differ, as strings or bytes."""
    arrays = {}
    for name in corpus.columns:
        values = [row.get(name) for row in corpus.rows]
        try:
            arrays[name] = pa.array(values)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            texts = [
                None if v is None else _field(v).encode(errors="surrogatepass") for v in values
            ]
            try:
                arrays[name] = pa.array(texts, pa.binary()).cast(pa.string())
            except pa.ArrowException:
                # Not UTF-8, whatever its type says.
                arrays[name] = pa.array(texts, pa.binary()).view(pa.string())
    return pa.table(arrays)


# What must hold -------------------------------------------------------------------------------

Tally = Counter[str]


def check_run(
    model: Path,
    corpus: Path,
    out: Path,
    count: int | None,
    options: Mapping[str, Any],
    tally: Tally,
) -> None:
    """Runs a corpus: it is refused with a message, or every row is attributed or has failed.

    Args:
        model: Folder of a model.
        corpus: Its file.
        out: Folder of the run, which is removed.
        count: Number of rows of the corpus, where it is known.
        options: Further options of the run.
        tally: Counts what came of it.
    """
    try:
        try:
            summary = run(
                Options(
                    *(str(model), str(corpus), str(out)),
                    **({"methods": METHODS, "evaluation": None, "device": "cpu"} | dict(options)),
                )
            )
        except UsageError as error:
            assert str(error).strip()
            tally["corpora refused"] += 1
            tally[
                "refused: "
                + " ".join(str(error).replace(str(corpus), "").replace(str(out), "").split())[:70]
            ] += 1
            tally["rows refused"] += count or 0
            return
        report = verify(out)
        assert report.problems == []
        if count is not None:
            assert summary.rows == min(count, options.get("limit") or math.inf)
        attributed = set(table(out, "instances")["row_id"].to_pylist())
        failures = table(out, "failures").to_pylist()
        failed = {row["row_id"] for row in failures if row["method"] is None} - attributed
        assert len(attributed) + len(failed) == summary.rows
        assert all(row["message"].strip() for row in failures)
        tally["corpora run"] += 1
        tally["rows attributed"] += len(attributed)
        tally["rows failed"] += len(failed)
    finally:
        shutil.rmtree(out, ignore_errors=True)


# Damage ---------------------------------------------------------------------------------------

Damage = Callable[[bytes], bytes]


@st.composite
def damages(draw: st.DrawFn) -> Damage:
    """Ways to spoil a file: cut it, flip, blank or repeat some bytes."""
    kind = draw(st.sampled_from(["cut", "flip", "blank", "repeat", "drop", "empty"]))
    places = draw(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=4))
    length = draw(st.integers(1, 64))
    bit = draw(st.integers(0, 7))

    def spoil(content: bytes) -> bytes:
        changed = bytearray(content)
        at = [int(place * len(content)) for place in places]
        match kind:
            case "cut":
                return content[: at[0]]
            case "flip":
                for place in at:
                    changed[place] ^= 1 << bit
            case "blank":
                changed[at[0] : at[0] + length] = bytes(len(changed[at[0] : at[0] + length]))
            case "repeat":
                changed[at[0] : at[0]] = changed[at[0] : at[0] + length]
            case "drop":
                del changed[at[0] : at[0] + length]
            case "empty":
                return b""
        return bytes(changed)

    return spoil


@st.composite
def reshapings(draw: st.DrawFn) -> Callable[[pa.Table], pa.Table]:
    """Ways to make a table of another schema: columns lost, swapped, renamed, of other types."""
    kind = draw(st.sampled_from(["drop", "swap", "rename", "cast", "double", "empty"]))
    one, other = draw(st.integers(0, 30)), draw(st.integers(0, 30))

    def reshape(given: pa.Table) -> pa.Table:
        names = given.column_names
        a, b = names[one % len(names)], names[other % len(names)]
        match kind:
            case "drop":
                return given.drop_columns([a])
            case "swap":
                swap = {a: b, b: a}
                return given.rename_columns([swap.get(name, name) for name in names])
            case "rename":
                return given.rename_columns([name + "s" * (name == a) for name in names])
            case "cast":
                texts = pa.array([str(value) for value in given[a].to_pylist()], pa.string())
                return given.set_column(names.index(a), a, texts)
            case "double":
                return pa.concat_tables([given, given])
        return given.slice(0, 0)

    return reshape


@st.composite
def damaged_corpora(draw: st.DrawFn) -> tuple[str, bytes]:
    """A corpus's suffix, and its spoiled content."""
    suffix = draw(st.sampled_from([".parquet", ".parquet", ".jsonl", ".csv"]))
    rows = [{"text": text, "label": n % 3} for n, text in enumerate(texts(20))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"corpus{suffix}"
        write(Corpus(suffix, ["text", "label"], rows, {}), path)
        return suffix, draw(damages())(path.read_bytes())


class Finished(NamedTuple):
    """A finished run, and what it was run with."""

    folder: Path
    options: Options


def finished_run(model: Path, folder: Path) -> Finished:
    """A run of a few rows with every kind of table that the cheap methods fill."""
    path = folder / "plain.jsonl"
    write(
        Corpus(
            ".jsonl",
            [],
            [{"text": text, "label": n % 3} for n, text in enumerate(["", *texts(9)])],
            {},
        ),
        path,
    )
    evaluation = Evaluation(fractions=(0.5,), orders=("morf",))
    options = Options(
        *(str(model), str(path), str(folder / "finished")),
        methods="random,saliency",
        evaluation=evaluation,
        device="cpu",
        shard_size=5,
    )
    run(options)
    return Finished(folder / "finished", options)


class Damaged(NamedTuple):
    """Which file of a run is spoiled, as a share of the list of them, and how."""

    place: float
    bytes_too: Damage | None
    reshape: Callable[[pa.Table], pa.Table] | None


@st.composite
def damaged_runs(draw: st.DrawFn) -> Damaged:
    """Damage to a file of a run: to its bytes, or to its table's schema."""
    place = draw(st.floats(0, 1, exclude_max=True))
    if draw(st.booleans()):
        return Damaged(place, draw(damages()), None)
    return Damaged(place, None, draw(reshapings()))


def _same(now: pa.Table, then: pa.Table) -> bool:
    """Whether two tables say the same."""
    return bool(_filled(now).equals(_filled(then)))


def _filled(table: pa.Table) -> pa.Table:
    """A table without the columns that older files lack and that say nothing in it."""
    kept = [
        number
        for number, field in enumerate(table.schema)
        if b"added" not in (field.metadata or {}) or table.column(number).null_count < len(table)
    ]
    return table.select(kept)


def check_damaged(finished: Finished, damage: Damaged, work: Path, tally: Tally) -> None:
    """Spoils a file of a copy of a run: it is refused or reported, and never an exception.

    Args:
        finished: The run.
        damage: What happens to which of its files.
        work: Folder for the copy, which is removed.
        tally: Counts what came of it.
    """
    try:
        shutil.copytree(finished.folder, work)
        names = sorted(name for name in files(work) if name.endswith(".parquet"))
        name = names[int(damage.place * len(names))]
        path = work / name
        before = path.read_bytes()
        if damage.bytes_too is not None:
            path.write_bytes(damage.bytes_too(before))
        elif damage.reshape is not None:
            pq.write_table(damage.reshape(pq.ParquetFile(path).read()), path)
        problems = verify(work).problems
        assert all(problem.strip() for problem in problems)
        tally["damaged files reported" if problems else "damaged files harmless"] += 1
        # Workers read the corpus's copy, which no table of the results needs any more.
        table_lost = damage.reshape is not None and not name.startswith("corpus/")
        if table_lost and not _same(pq.ParquetFile(path).read(), pq.read_table(io.BytesIO(before))):
            assert problems, f"{name} has another table, and nobody has noticed"
        try:
            run(replace(finished.options, output=str(work)))
        except (UsageError, DamagedError) as error:
            assert str(error).strip()
            tally["damaged runs refused"] += 1
    finally:
        shutil.rmtree(work, ignore_errors=True)
