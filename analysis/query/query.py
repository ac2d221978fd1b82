"""A query over a run; its result as a table for people, or CSV, JSON or Parquet for programs."""

import io
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

import duckdb
import pyarrow as pa

from attribeam.analysis.opening.replacing import replacing
from attribeam.analysis.opening.runs import open_run, said
from attribeam.analysis.query.meant import check_curves, explained, unknown_methods
from attribeam.analysis.query.output import (
    write_csv,
    write_json,
    write_json_lines,
    write_latex,
    write_markdown,
    write_parquet,
)
from attribeam.analysis.query.terminal import harmless, print_rows
from attribeam.analysis.query.values import python_rows
from attribeam.schemas import UsageError

Writer = Callable[[pa.Schema, Iterator[pa.RecordBatch], IO[Any]], None]

_WRITERS: dict[str, Writer] = {
    "csv": write_csv,
    "json": write_json,
    "jsonl": write_json_lines,
    "markdown": write_markdown,
    "latex": write_latex,
    "parquet": write_parquet,
}
FORMATS = ("table", *_WRITERS)
# By the ending of a file.
ENDINGS = {
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".md": "markdown",
    ".tex": "latex",
    ".txt": "table",
    ".parquet": "parquet",
}
TABLE_ROWS = 40
# Characters that a line of a table has in a file.
_FILE_WIDTH = 120
# Whatever comments can be read from, or what it is named by may be put together.
_COMMENTS = re.compile(r"duckdb_|information_schema|pg_|\b(query|database)\b", re.IGNORECASE)
# Whatever says what views there are, or reads one by a name that is put together.
_LISTS = re.compile(
    r"\b(show|describe|desc|summarize|pragma|sqlite_\w+|query_table)\b", re.IGNORECASE
)
_BATCH = 10_000
_ERROR_LINES = 6


def run_query(
    folder: str | Path,
    sql: str,
    format: str = "table",
    out: IO[Any] | None = None,
    *,
    width: int | None = None,
    external_access: bool = False,
    others: Mapping[str, str | Path] | None = None,
) -> None:
    """Runs SQL over a run and writes the result of its last statement.

    Args:
        folder: The run's folder.
        sql: One or more statements, or the path of a ``.sql`` file with them; ``-`` reads them from
            standard input.
        format: ``table``, at most 40 rows fitted to the terminal; ``csv``, with lists as JSON;
            ``json``, one array of objects in which what is not finite is null; ``jsonl``, an object
            a line; ``markdown`` or ``latex``, tables for texts, with numbers as a terminal has
            them; or ``parquet``.
        out: Where to; standard output if None. Parquet needs a binary stream, or a text stream
            over one.
        width: Characters a line of a table may have; None takes the terminal's.
        external_access: Let the query read other files than the run's, and write files. Without
            it, files are reached through nothing that could write one, whatever the SQL is.
        others: Other runs by the names that the query has for them (``open_run``).

    Raises:
        UsageError: If it is no run folder, or the query fails, with DuckDB's own message.
    """
    stream = sys.stdout if out is None else out
    if format not in FORMATS:
        raise UsageError(f"There is no format {format!r}: choose one of {', '.join(FORMATS)}.")
    if format == "parquet":
        stream = _binary(stream)
    text = _statements(sql)
    writer = partial(_write_table, width=width) if format == "table" else _WRITERS[format]
    answer = partial(_answer, sql=text, others=others or (), writer=writer, out=stream)
    # With access to other files, statements do more than to answer, and are run once.
    if not (external_access or _COMMENTS.search(text) or _LISTS.search(text)):
        # What isn't found may be there under a name that isn't plain, or have been meant.
        with (
            suppress(duckdb.CatalogException),
            open_run(folder, others=others, commented=False, asked=text) as connection,
        ):
            answer(connection)
            return
    commented = bool(_COMMENTS.search(text))
    with open_run(
        folder, external_access=external_access, others=others, commented=commented
    ) as connection:
        try:
            answer(connection)
        except duckdb.CatalogException as error:
            raise UsageError(_explained(error, connection)) from error


def run_query_to(
    path: str | Path, folder: str | Path, sql: str, format: str | None = None, **more: Any
) -> None:
    """Runs SQL over a run, and writes the result into a file, whole or not at all.

    Args:
        path: The file.
        folder: The run's folder.
        sql: As for ``run_query``.
        format: None for what the file's name ends with (``ENDINGS``).
        **more: As for ``run_query``.

    Raises:
        UsageError: If its name ends otherwise; as ``run_query``.
    """
    target = Path(path)
    chosen = ENDINGS.get(target.suffix.lower()) if format is None else format
    if chosen is None:
        raise UsageError(
            f"{target.name} doesn't say what it is to hold: end it with one of "
            f"{', '.join(ENDINGS)}, or choose a format."
        )
    with replacing(target) as handle:
        if chosen == "parquet":
            run_query(folder, sql, chosen, handle, **more)
            return
        text = io.TextIOWrapper(handle, encoding="utf-8", newline="")
        run_query(folder, sql, chosen, text, width=_FILE_WIDTH, **more)
        text.flush()
        text.detach()


def _statements(sql: str) -> str:
    if sql.strip() == "-":
        return sys.stdin.read()
    if not sql.strip().endswith(".sql"):
        try:
            sql.encode()
        except UnicodeEncodeError as error:
            raise UsageError("The query is no UTF-8: write it in a .sql file that is.") from error
        return sql
    try:
        return Path(sql.strip()).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{sql.strip()} is no UTF-8 ({error}): save it as such.") from error
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{sql.strip()} can't be read ({error}). Give SQL, or the path of a .sql file."
        ) from error


def _binary(stream: IO[Any]) -> IO[bytes]:
    if stream.isatty():
        raise UsageError("Parquet is no text: redirect the output to a file.")
    binary: IO[bytes] = getattr(stream, "buffer", stream)
    return binary


def _answer(
    connection: duckdb.DuckDBPyConnection,
    sql: str,
    others: Collection[str],
    writer: Writer,
    out: IO[Any],
) -> None:
    """Writes what the last statement gives, unless DuckDB's catalogue lacks something of it."""
    with connection.cursor() as beside:
        check_curves(sql, beside, others)
    try:
        reader = _execute(connection, sql)
    except duckdb.CatalogException:
        raise
    except duckdb.Error as error:
        raise UsageError(_explained(error, connection)) from error
    with connection.cursor() as beside:
        for sentence in unknown_methods(sql, beside, others):
            print(f"attribeam: {harmless(sentence)}", file=sys.stderr)
    writer(reader.schema, _batches(reader), out)


def _execute(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.RecordBatchReader:
    statements = connection.extract_statements(sql)
    if not statements:
        raise UsageError("There is no statement in the query: give one, such as 'from cost'.")
    for statement in statements:
        try:
            _ = statement.type
        except ValueError as error:  # One that DuckDB's Python side has no name for.
            raise UsageError(f"A query can't have {statement.query.strip()}.") from error
        relation = connection.sql(statement)
    return relation.to_arrow_reader(_BATCH)


def _batches(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    """Yields the result as it is computed; what fails only then comes as an error of Arrow."""
    try:
        yield from reader
    except (OSError, pa.ArrowException) as error:
        raise UsageError(_first_lines(error)) from error


def _write_table(
    schema: pa.Schema, batches: Iterator[pa.RecordBatch], out: IO[str], width: int | None
) -> None:
    rows: list[tuple[Any, ...]] = []
    more = 0
    for batch in batches:
        shown = batch.slice(0, max(TABLE_ROWS - len(rows), 0))
        rows.extend(python_rows(shown))
        more += batch.num_rows - shown.num_rows
    print_rows(schema.names, rows, out, width=width)
    if not rows:
        print("0 rows", file=out)
    elif more:
        print(f"... {more} more rows (use --format csv for all)", file=out)


def _explained(error: duckdb.Error, connection: duckdb.DuckDBPyConnection) -> str:
    message = _first_lines(error)
    if isinstance(error, duckdb.PermissionException) or message.startswith("PermissionError"):
        return (
            "A query may not write files or load code, nor read any files but the run's: "
            f"{message.splitlines()[0].rstrip('.')}. To write, choose a format "
            f"({', '.join(FORMATS)}) and redirect the output. Another run is named beforehand: "
            "--with NAME=DIR. For SQL that you trust, --external-access lifts it all."
        )
    return explained(message, connection)


def _first_lines(error: Exception) -> str:
    if str(error).lstrip().startswith("Traceback"):  # Of a library that reads what is elsewhere.
        return f"{said(error)}."
    return "\n".join([line for line in str(error).splitlines() if line.strip()][:_ERROR_LINES])
