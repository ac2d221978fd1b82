"""What a run looks like inside DuckDB: tables over its files, its manifest, views and comments."""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from schemas import TABLES, VIEWS, table_schema
from schemas.tables import EVALUATIONS, columns_added

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
    """Adds a table of ``schemas.tables``.

    Args:
        connection: Where to.
        table: Name of the table.
        patterns: Globs of its files, each of which matches at least one; with none of them the
            table is empty, with its types.
        double: Whether an empty table has float64 where it else had float32.
    """
    schema = table_schema(table, double=double)
    if patterns:
        globs = ", ".join(literal(pattern) for pattern in patterns)
        files = f"read_parquet([{globs}], union_by_name = false, hive_partitioning = false)"
        added = [schema.field(name) for name in columns_added(schema)]
        if added:
            described = connection.execute(f"describe select * from {files}").fetchall()
            there = {column[0] for column in described}
            added = [field for field in added if field.name not in there]
        # The files of a run all have the columns of when it was begun.
        nulls = "".join(f", null::{field.type} as {identifier(field.name)}" for field in added)
        connection.execute(f"create view {table} as select *{nulls} from {files}")
    else:
        connection.register("_empty", _plain(schema).empty_table())
        connection.execute(f"create table {table} as select * from _empty")
        connection.unregister("_empty")


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

    A pattern over escaped characters does not begin with the folder's name as it is, so both ways
    of writing it are allowed. Sorting and grouping may still spill, to the system's temporary
    folder.
    """
    spill = str(Path(tempfile.gettempdir()) / f"attribeam-spill-{os.getpid()}")
    connection.execute(f"set temp_directory = {literal(spill)}")
    connection.execute(f"set allowed_directories = [{literal(root)}, {literal(escape_glob(root))}]")
    connection.execute("set enable_external_access = false")
    # Else an unknown table's name would be looked up among the caller's Python variables.
    connection.execute("set python_enable_replacements = false")
    connection.execute("set lock_configuration = true")


def _plain(schema: pa.Schema) -> pa.Schema:
    """Dictionaries come from Parquet as text, but from Arrow as an enumeration."""
    return pa.schema(
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
        for field in schema
    )


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
