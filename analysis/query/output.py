"""Query results as CSV, JSON, Parquet, or tables for texts, written batch by batch."""

import csv
import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from attribeam.analysis.query.terminal import is_numeric, shown, shown_column
from attribeam.analysis.query.values import python_rows
from attribeam.schemas import UsageError


def write_csv(schema: pa.Schema, batches: Iterator[pa.RecordBatch], out: IO[str]) -> None:
    """Writes a header and a line per row: null is empty, lists and structs are JSON.

    Bytes are hexadecimal, as in ``write_json``.
    """
    writer = csv.writer(_Lines(out))
    writer.writerow(schema.names)
    for batch in batches:
        writer.writerows([_csv_cell(value) for value in row] for row in python_rows(batch))


class _Lines:
    """Takes lines as the csv module ends them, so that it quotes both of these characters."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out

    def write(self, line: str) -> int:
        return self._out.write(line.removesuffix("\r\n") + "\n")


def write_json(schema: pa.Schema, batches: Iterator[pa.RecordBatch], out: IO[str]) -> None:
    """Writes one array with an object per row and line; numbers that are not finite are null.

    Of several columns with one name, those after the first have ``_1``, ``_2`` and so on added.
    """
    names = _distinct(schema.names)
    separator = "[\n"
    for batch in batches:
        for row in python_rows(batch):
            out.write(separator + _dumps(dict(zip(names, row, strict=True))))
            separator = ",\n"
    out.write("[]\n" if separator == "[\n" else "\n]\n")


def write_json_lines(schema: pa.Schema, batches: Iterator[pa.RecordBatch], out: IO[str]) -> None:
    """Writes an object per row and line, as those of ``write_json``."""
    names = _distinct(schema.names)
    for batch in batches:
        for row in python_rows(batch):
            out.write(_dumps(dict(zip(names, row, strict=True))) + "\n")


def write_markdown(schema: pa.Schema, batches: Iterator[pa.RecordBatch], out: IO[str]) -> None:
    """Writes a table as GitHub reads it: numbers to the right, with decimals by column."""
    rows, numeric = _shown_rows(schema, batches)

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(_MARKDOWN.sub(r"\\\g<0>", cell) for cell in cells) + " |\n"

    out.write(line([shown(name) for name in schema.names]))
    out.write("|" + "|".join("---:" if number else "---" for number in numeric) + "|\n")
    out.writelines(map(line, rows))


def write_latex(schema: pa.Schema, batches: Iterator[pa.RecordBatch], out: IO[str]) -> None:
    """Writes a ``tabular`` with the rules of the package booktabs; numbers as in Markdown."""
    rows, numeric = _shown_rows(schema, batches)

    def line(cells: Sequence[str]) -> str:
        return " & ".join(cell.translate(_LATEX) for cell in cells) + r" \\" + "\n"

    columns = "".join("r" if number else "l" for number in numeric)
    out.write(f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n")
    out.write(line([shown(name) for name in schema.names]) + "\\midrule\n")
    out.writelines(map(line, rows))
    out.write("\\bottomrule\n\\end{tabular}\n")


# What Markdown and LaTeX take for their own.
_MARKDOWN = re.compile(r"[\\|`*_<>\[\]]")
_LATEX = str.maketrans(
    {
        **{each: rf"\{each}" for each in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
    }
)


def _shown_rows(
    schema: pa.Schema, batches: Iterator[pa.RecordBatch]
) -> tuple[list[list[str]], list[bool]]:
    """All rows as a terminal shows them, and which columns are numbers."""
    rows = [row for batch in batches for row in python_rows(batch)]
    columns = [[row[column] for row in rows] for column in range(len(schema.names))]
    cells = zip(*(shown_column(column) for column in columns), strict=True)
    return [list(row) for row in cells], [is_numeric(column) for column in columns]


def write_parquet(schema: pa.Schema, batches: Iterator[pa.RecordBatch], out: IO[bytes]) -> None:
    """Writes a Parquet file, compressed with zstd; columns are named as in ``write_json``.

    Raises:
        UsageError: If Parquet has no such type, as of an interval.
    """
    names = _distinct(schema.names)
    renamed = pa.schema(field.with_name(name) for field, name in zip(schema, names, strict=True))
    try:
        with pq.ParquetWriter(out, renamed, compression="zstd") as writer:
            for batch in batches:
                writer.write_batch(batch.rename_columns(names))
    except pa.ArrowNotImplementedError as error:
        raise UsageError(f"Parquet can't hold this result ({error}): cast the column.") from error


def _csv_cell(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return _text(value)
    return _dumps(value) if isinstance(value, list | dict) else value


def _dumps(value: object) -> str:
    return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, default=_text)


def _finite(value: object) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _finite(entry) for key, entry in value.items()}
        case list():
            return [_finite(entry) for entry in value]
        case _:
            return value


def _text(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _distinct(names: list[str]) -> list[str]:
    taken: dict[str, None] = {}
    for name in names:
        free, number = name, 0
        while free in taken:
            number += 1
            free = f"{name}_{number}"
        taken[free] = None
    return list(taken)
