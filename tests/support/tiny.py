"""Tiny corpora, the command line in process, and what a run left in its folder."""

import io
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from attribeam.pipeline.commands import run
from attribeam.pipeline.commands.cli import main
from attribeam.pipeline.running import progress
from attribeam.pipeline.running.loadable import is_described
from attribeam.schemas import CONTENT_FIELDS, Unit, table_schema, unit_path
from attribeam.schemas.index import INDEX, RECORDS
from attribeam.schemas.layout import CARD
from tests.support.conditioning import SINGLE
from tests.support.patience import HANG

SENTENCE = "the film is not good but a play was very dull and bad"
WORDS = SENTENCE.split()
# A corpus, its columns by name.
Rows = list[dict[str, Any]]


class Outcome(NamedTuple):
    """What a command came to."""

    status: int
    out: str
    err: str


def texts(count: int) -> list[str]:
    """Texts of one to twelve words, no two of them alike."""
    return [
        " ".join(WORDS[(start * step + start) % len(WORDS)] for step in range(1 + start % 12))
        + " ." * (start // 12)
        for start in range(count)
    ]


def rows(count: int) -> Rows:
    """Rows with ids, texts and labels of three classes."""
    return [
        {"id": f"r{number}", "text": text, "label": number % 3}
        for number, text in enumerate(texts(count))
    ]


def contrasts(count: int) -> Rows:
    """Rows for a masked LM: a text with a [MASK], the correct and the wrong word."""
    return [
        {"id": f"m{number}", "text": f"{text} [MASK] film", "good": "good", "bad": "dull"}
        for number, text in enumerate(texts(count))
    ]


def write_jsonl(path: Path, lines: Iterable[Mapping[str, Any] | str | bytes]) -> Path:
    """Writes objects as JSON lines; what is text or bytes already is a line as it is."""
    with path.open("wb") as handle:
        for line in lines:
            text = json.dumps(line) if isinstance(line, Mapping) else line
            handle.write((text.encode() if isinstance(text, str) else text) + b"\n")
    return path


def command(*arguments: object, ranked: bool = False) -> Outcome:
    """Runs the command line in this process; an exception it doesn't expect is a test's failure.

    What it says depends on no clock: there are no lines on the progress of a run that takes long.
    The ranking that a run ends with takes as long as a tiny run, and is shown to who asks for it.
    """
    out, err = io.StringIO(), io.StringIO()
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        with (
            mock.patch.object(progress, "_LOG_EVERY", HANG),
            nullcontext() if ranked else mock.patch.object(run, "_rank"),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            status = main([str(argument) for argument in arguments])
    except SystemExit as stop:  # Of argparse.
        status = int(stop.code or 0)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    return Outcome(status, out.getvalue(), err.getvalue())


def files(folder: Path) -> set[str]:
    """Paths of all files below a folder, relative to it, but for the index of a run and its text.

    Whoever finishes a run writes these, and what workers say for the index.
    """
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    beside = {INDEX, *[CARD] * is_described(str(folder))}
    return {path for path in found - beside if not path.startswith(f"{RECORDS}/")}


def table(folder: Path, name: str, method: str | None = None) -> pa.Table:
    """A table of a run, its shards in order; empty if it has none."""
    if name == "failures":
        pattern = f"failures/{'*.' + method if method else '*'}/*.parquet"
    else:
        pattern = f"{Unit(name, method).folder}/*.parquet"
    found = [pq.ParquetFile(path).read() for path in sorted(folder.glob(pattern))]
    return pa.concat_tables(found) if found else table_schema(name).empty_table()


def stamps(folder: Path) -> dict[str, int]:
    """When each file below a folder was written."""
    return {path: (folder / path).stat().st_mtime_ns for path in files(folder)}


def content(folder: Path) -> dict[str, pa.Table]:
    """Tables by path, but for the columns that need not be equal when computed again."""
    tables = {}
    for path in sorted(files(folder)):
        name = path.split("/")[0]
        if name in CONTENT_FIELDS:
            tables[path] = pq.ParquetFile(folder / path).read().select(CONTENT_FIELDS[name])
    return tables


def scores(folder: Path, methods: Sequence[str]) -> dict[tuple[str, str], list[float]]:
    """Scores by method and instance."""
    return {
        (method, row["instance_id"]): row["scores"]
        for method in methods
        for row in table(folder, "attributions", method).to_pylist()
    }


def assert_alike(found: pa.Table, expected: pa.Table) -> None:
    """Checks that two tables are equal, up to the rounding of floats."""
    assert found.schema == expected.schema
    assert len(found) == len(expected)
    for name in expected.column_names:
        ours, theirs = found[name].combine_chunks(), expected[name].combine_chunks()
        if pa.types.is_list(ours.type) and pa.types.is_floating(ours.type.value_type):
            assert ours.value_lengths() == theirs.value_lengths(), name
            ours, theirs = ours.flatten(), theirs.flatten()
        if pa.types.is_floating(ours.type):
            pair = (column.to_numpy(zero_copy_only=False) for column in (ours, theirs))
            np.testing.assert_allclose(*pair, rtol=SINGLE, atol=SINGLE, err_msg=name)
        else:
            assert ours.to_pylist() == theirs.to_pylist(), name


def unit_files(units: Iterable[Unit], num_shards: int) -> set[str]:
    """Paths of the files that some units have."""
    return {unit_path(unit, shard, num_shards) for unit in units for shard in range(num_shards)}
