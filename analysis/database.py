"""What a run looks like inside DuckDB: tables over its files, its manifest, views and comments."""

import atexit
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from schemas import TABLES, VIEWS, table_schema
from schemas.layout import GLOBS, PUBLISHED_GLOBS
from schemas.tables import EVALUATIONS

_HIVE = "/method=*/"  # In the globs of tables whose files lie apart by their method.
_TYPE_NAMES = {
    pa.bool_(): "boolean",
    pa.int8(): "tinyint",
    pa.int16(): "smallint",
    pa.int32(): "integer",
    pa.int64(): "bigint",
    pa.float32(): "float",
    pa.float64(): "double",
    pa.string(): "varchar",
}
_GLOB = str.maketrans({character: f"[{character}]" for character in "*?["})

_METHODS = """
create table methods (
    method varchar,
    params json,
    signed boolean,
    class_dependent boolean,
    additive boolean,
    stochastic boolean,
    tables varchar[],
    paper varchar,
    passes varchar[],
    word_score varchar
)
"""
_METHOD_COMMENTS = {
    "method": "Name in `attribeam methods`",
    "params": "Parameters of this run: params->>'steps'",
    "signed": "True if scores have a sign: negative speaks against the explained class",
    "class_dependent": "True if scores depend on the class explained",
    "additive": "True if the scores of an instance sum to a difference of outputs",
    "stochastic": "True if scores depend on the seed",
    "tables": "Tables that it fills in this run",
    "paper": "Where the method comes from",
    "passes": "Passes through the model that the method needs",
    "word_score": "What a word's score is of its tokens', wherever words are ranked: sum or max",
}

_NUMBERS = itertools.count()  # Of connections.


def literal(text: str) -> str:
    """Returns a text as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """Returns a name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def escape_glob(path: str) -> str:
    """Returns a glob pattern that matches this very path, whatever characters are in it."""
    return path.translate(_GLOB)


def dict_rows(
    connection: duckdb.DuckDBPyConnection, query: str, parameters: Mapping[str, Any] | None = None
) -> list[Mapping[str, Any]]:
    """The rows of a query by the names of its columns."""
    cursor = connection.execute(query, parameters or None)
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def add_table(
    connection: duckdb.DuckDBPyConnection, table: str, patterns: Sequence[str], *, double: bool
) -> None:
    """Adds a table of ``schemas.tables``, a view over the files that there are when it is asked.

    It has the table's columns even where there are no files, or where files were written before a
    column was thought of, which then is null. Of files that lie in folders by their method, those
    of the methods that are asked for are opened, and the first of all for its columns.

    Args:
        connection: Where to.
        table: Name of the table.
        patterns: Paths or globs of its files, none of which has to match any.
        double: Whether an empty table has float64 where it else had float32.
    """
    schema = table_schema(table, double=double)
    columns = {field.name: _type_name(field.type) for field in schema}
    files, chosen = _files(table, patterns), "*"
    if _is_published(table, patterns):
        columns["filename"] = "varchar"
        method = f"regexp_extract(filename, '/{table}/([^/]+)/[^/]+$', 1)"
        chosen = f"* exclude (filename) replace ({method} as method)"
    there = {name for name, *_ in connection.execute(f"describe from {files}").fetchall()}
    if not there >= set(columns):
        nulls = ", ".join(f"null::{kind} as {identifier(name)}" for name, kind in columns.items())
        # Where there is no file, DuckDB has nothing but a column "empty".
        typed = f'select {nulls}, null::boolean as "empty" where false'
        files = f'(select * exclude ("empty") from ({typed} union all by name from {files}))'
    connection.execute(f"create view {table} as select {chosen} from {files}")


def _files(table: str, patterns: Sequence[str]) -> str:
    """The table function that reads some files of a table."""
    if not patterns:
        return '(select true as "empty" where false)'
    hive = _HIVE in GLOBS[table] and all(pattern.endswith(GLOBS[table]) for pattern in patterns)
    options = {
        "union_by_name": "false",
        "allow_empty": "true",
        # Whether the method is told by the path alone.
        "hive_partitioning": "true, hive_types_autocast = false" if hive else "false",
        "filename": "true" if _is_published(table, patterns) else "false",
    }
    given = ", ".join(f"{name} = {value}" for name, value in options.items())
    return f"read_parquet([{', '.join(map(literal, patterns))}], {given})"


def _is_published(table: str, patterns: Sequence[str]) -> bool:
    """Whether these are globs of published files that lie in folders by their method."""
    return (
        _HIVE in GLOBS[table]
        and bool(patterns)
        and all(pattern.endswith(PUBLISHED_GLOBS[table]) for pattern in patterns)
    )


def add_manifest(connection: duckdb.DuckDBPyConnection, manifest: Mapping[str, Any]) -> None:
    """Adds ``methods``, a row per method, and ``run``, one row with the run's identity.

    The columns of ``run`` are named by section: ``model_source``, ``corpus_rows``,
    ``settings_seed``. Whatever is neither a number nor a text nor a list of texts is JSON.
    """
    connection.execute(_METHODS)
    for name, method in manifest["methods"].items():
        row = [name, json.dumps(method["params"])]
        row += [method.get(key) for key in tuple(_METHOD_COMMENTS)[2:-1]]
        # Before there was a choice, it was the largest.
        row.append(method.get("word_score") or "max")
        connection.execute("insert into methods values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    values: dict[str, Any] = {"format": manifest["format"]}
    for section, entries in manifest["identity"].items():
        # Only the tokenizer may be missing.
        known = {"sha256": None} if entries is None else entries
        values |= {f"{section}_{key}": value for key, value in known.items()}
    values |= {key: manifest.get(key) for key in ("evaluation", "executions")}
    columns = ", ".join(f"?::{_sql_type(value)} as {identifier(n)}" for n, value in values.items())
    parameters = [json.dumps(v) if _sql_type(v) == "json" else v for v in values.values()]
    connection.execute(f"create table run as select {columns}", parameters)


def add_views(connection: duckdb.DuckDBPyConnection) -> None:
    """Adds the views and macros of ``schemas.views`` over the tables."""
    for view in VIEWS:
        connection.execute(view.sql)


def add_comments(connection: duckdb.DuckDBPyConnection) -> None:
    """Comments every view, macro and column.

    A column that a view's comment does not explain has the comment of the table's column of the
    same name.
    """
    explained = {"methods": _METHOD_COMMENTS}
    inherited: dict[str, str] = {}
    for table in reversed((*TABLES, *EVALUATIONS)):
        explained[table] = {f.name: f.metadata[b"comment"].decode() for f in table_schema(table)}
        inherited |= explained[table]
    statements = []
    for view in VIEWS:
        for kind, name in view.created:
            statements.append(f"comment on {kind} {name} is {literal(view.comment)}")
        explained[view.name] = inherited | view.columns
    columns = connection.execute("select table_name, column_name from duckdb_columns()").fetchall()
    for relation, column in columns:
        if comment := explained.get(relation, {}).get(column):
            name = f"{relation}.{identifier(column)}"
            statements.append(f"comment on column {name} is {literal(comment)}")
    # At once: one by one, they take longer than everything else.
    connection.execute(";\n".join(["begin", *statements, "commit"]))


def lock(connection: duckdb.DuckDBPyConnection, root: str) -> None:
    """Keeps queries to the files below a folder, and the settings as they are.

    DuckDB would write the files that it reads, so what queries of others may be asked of has to be
    read through a file system that can't. A pattern over escaped characters does not begin with
    the folder's name as it is, so both ways of writing it are allowed. Sorting and grouping may
    still spill.
    """
    spill_to_temporary(connection)
    for extension in ("autoinstall_known_extensions", "autoload_known_extensions"):
        connection.execute(f"set {extension} = false")
    connection.execute("set allow_persistent_secrets = false")
    connection.execute(f"set allowed_directories = [{literal(root)}, {literal(escape_glob(root))}]")
    connection.execute("set enable_external_access = false")
    # Else an unknown table's name would be looked up among the caller's Python variables.
    connection.execute("set python_enable_replacements = false")
    connection.execute("set lock_configuration = true")


def spill_to_temporary(connection: duckdb.DuckDBPyConnection) -> None:
    """Lets a connection spill below the system's temporary folder, until the process ends."""
    spill = Path(_spills(os.getpid())) / str(next(_NUMBERS))
    connection.execute(f"set temp_directory = {literal(str(spill))}")


@cache
def _spills(process: int) -> str:
    """A folder for what the connections of a process spill."""
    folder = tempfile.mkdtemp(prefix="attribeam-spill-")
    atexit.register(_remove, folder, process)
    return folder


def _remove(folder: str, process: int) -> None:
    if os.getpid() == process:  # And not in a fork of it.
        shutil.rmtree(folder, ignore_errors=True)


def _type_name(kind: pa.DataType) -> str:
    """DuckDB's name of a type; dictionaries come from Parquet as text."""
    if pa.types.is_list(kind):
        return f"{_type_name(kind.value_type)}[]"
    if pa.types.is_dictionary(kind):
        return _type_name(kind.value_type)
    return _TYPE_NAMES[kind]


def _sql_type(value: object) -> str:
    match value:
        case bool():
            return "boolean"
        case int():
            return "bigint"
        case float():
            return "double"
        case str() | None:
            return "varchar"
        case list() if all(isinstance(entry, str) for entry in value):
            return "varchar[]"
        case _:
            return "json"
