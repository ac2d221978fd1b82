"""What a run looks like inside DuckDB: tables over its files, its manifest, views and comments."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from attribeam.analysis.opening.spill import spill_to_temporary
from attribeam.schemas import TABLES, VIEWS, table_schema
from attribeam.schemas.layout import GLOBS, PUBLISHED_GLOBS
from attribeam.schemas.manifest import Manifest
from attribeam.schemas.tables import EVALUATIONS

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
    pa.binary(): "blob",
}
_WORD = re.compile(r"[a-z_]\w*", re.ASCII)
_VIEW = re.compile(r"^create view \w+", re.MULTILINE)
_GLOB = str.maketrans({character: f"[{character}]" for character in "*?["})

_METHOD_COMMENTS = {
    "method": "Name in `attribeam methods`",
    "params": "Parameters of this run: params->>'steps'",
    "family": "Methods alike, which have one vote between them (`consensus`)",
    "signed": "True if scores have a sign: negative speaks against the explained class",
    "class_dependent": "True if scores depend on the class explained",
    "additive": "True if the scores of an instance sum to a difference of outputs",
    "stochastic": "True if scores depend on the seed",
    "tables": "Tables that it fills in this run",
    "paper": "Where the method comes from",
    "passes": "Passes through the model that the method needs",
    "not_of_all": "Why it has no rows of the instances ID#all; null if it has them",
    "word_score": "What a word's score is of its tokens', wherever words are ranked: sum or max",
}
# Those that are no texts.
_METHOD_TYPES = {
    "params": "json",
    **dict.fromkeys(("signed", "class_dependent", "additive", "stochastic"), "boolean"),
    **dict.fromkeys(("tables", "passes"), "varchar[]"),
}


def silence(connection: duckdb.DuckDBPyConnection) -> None:
    """Without the bar that DuckDB prints among the rows of a query that takes two seconds."""
    connection.execute("set enable_progress_bar = false")


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
    """Adds a table of the contract, a view over the files that there are when it is asked.

    It has the table's columns even where there are no files, and no others. A file that was written
    before a column was thought of has null there, whatever the files beside it have. Of files that
    lie in folders by their method, those of the methods that are asked for are opened.

    Args:
        connection: Where to.
        table: Name of the table.
        patterns: Paths or globs of its files, none of which has to match any.
        double: Whether an empty table has float64 where it else had float32.
    """
    schema = table_schema(table, double=double)
    columns = {field.name: _type_name(field.type) for field in schema}
    by_path = _method_by_path(table, patterns)
    files = _files(patterns, columns, named=by_path is not None)
    chosen = "*" if by_path is None else f"* exclude (filename) replace ({by_path} as method)"
    # One file is opened, so that who opens a damaged run is told at once. Where there is none,
    # DuckDB has nothing but a column "empty".
    there = connection.execute(f"describe from {_files(patterns)}").fetchall()
    if "empty" in {name for name, *_ in there}:
        named = columns if by_path is None else {**columns, "filename": "varchar"}
        nulls = ", ".join(f"null::{kind} as {identifier(name)}" for name, kind in named.items())
        typed = f'select {nulls}, null::boolean as "empty" where false'
        files = f'(select * exclude ("empty") from ({typed} union all by name from {files}))'
    connection.execute(f"create view {table} as select {chosen} from {files}")


def _files(
    patterns: Sequence[str], columns: Mapping[str, str] | None = None, *, named: bool = False
) -> str:
    """The table function that reads some files of a table.

    Args:
        patterns: Paths or globs of the files.
        columns: Types of the columns that are read of each, null where a file has none; None for
            those of the first.
        named: Whether each row has its file's name.
    """
    if not patterns:
        return '(select true as "empty" where false)'
    options = {"allow_empty": "true", "filename": "true" if named else "false"}
    if columns is None:
        options["hive_partitioning"] = "false"
    else:
        entries = (
            f"{name}: {{name: {name}, type: {literal(kind)}, default_value: null}}"
            for name, kind in zip(map(literal, columns), columns.values(), strict=True)
        )
        options["schema"] = f"map {{{', '.join(entries)}}}"
    given = ", ".join(f"{name} = {value}" for name, value in options.items())
    return f"read_parquet([{', '.join(map(literal, patterns))}], {given})"


def _method_by_path(table: str, patterns: Sequence[str]) -> str | None:
    """SQL for the method that a file's path names, where its folder is that of a method.

    DuckDB opens no file of another one then. None where paths don't tell.
    """
    if _HIVE not in GLOBS[table] or not patterns:
        return None
    for glob, folder in ((GLOBS, "method="), (PUBLISHED_GLOBS, "")):
        if all(pattern.endswith(glob[table]) for pattern in patterns):
            return f"regexp_extract(filename, '/?{table}/{folder}([^/]+)/[^/]+$', 1)"
    return None


def add_manifest(
    connection: duckdb.DuckDBPyConnection, manifest: Manifest, path: str | None = None
) -> None:
    """Adds ``methods``, a row per method, and ``run``, one row with the run's identity.

    The columns of ``run`` are named by section: ``model_source``, ``corpus_rows``,
    ``settings_seed``. Whatever is neither a number nor a text nor a list of texts is JSON.

    Args:
        connection: Where to.
        manifest: The run's manifest, which says what columns there are.
        path: Where it is read from whenever it is asked, as a glob; None for as it is now.
    """
    if path is None:
        source = f"(select {literal(json.dumps(manifest))} as content)"
    else:
        source = f"read_text({literal(path)})"
    _add_methods(connection, source)
    entries: dict[str, tuple[str, object]] = {"format": ("/format", manifest["format"])}
    for section, values in manifest["identity"].items():
        # Only the tokenizer may be missing.
        for key, value in (values if isinstance(values, dict) else {"sha256": None}).items():
            entries[f"{section}_{key}"] = (f"/identity/{_pointed(section)}/{_pointed(key)}", value)
    for key in ("evaluation", "executions"):
        entries[key] = (f"/{key}", {})  # JSON, whatever it is by now.
    columns = ", ".join(
        _entry(literal(pointer), _sql_type(value), name)
        for name, (pointer, value) in entries.items()
    )
    connection.execute(f"create view run as select {columns} from {source}")


def add_empty(connection: duckdb.DuckDBPyConnection, *, double: bool) -> list[str]:
    """Adds all that views read, with no rows, of the types that it has in every run.

    Args:
        connection: Where to.
        double: Whether scores are float64.

    Returns:
        The names of what was added.
    """
    for table in GLOBS:
        add_table(connection, table, [], double=double)
    _add_methods(connection, "(select null::varchar as content where false)")
    sizes = "null::bigint as model_num_heads, null::bigint as model_num_layers"
    connection.execute(f"create view run as select {sizes} where false")
    return [*GLOBS, "methods", "run"]


def _add_methods(connection: duckdb.DuckDBPyConnection, source: str) -> None:
    """Adds ``methods`` of the manifest that is the column ``content`` of some SQL."""
    named = f"(select content, unnest(json_keys(content, '/methods')) as method from {source})"
    # A method's name is a part of paths, and so can be of these.
    of_method = "'/methods/' || method || '/"
    columns = ", ".join(
        _entry(f"{of_method}{name}'", _METHOD_TYPES.get(name, "varchar"), name)
        for name in tuple(_METHOD_COMMENTS)[1:]
    )
    # Before there was a choice, a word's score was the largest.
    replaced = "replace (coalesce(word_score, 'max') as word_score)"
    connection.execute(
        f"create view methods as select * {replaced} from (select method, {columns} from {named})"
    )


def _entry(pointer: str, kind: str, name: str) -> str:
    """SQL for an entry of the manifest, whose JSON is the column ``content``.

    Args:
        pointer: SQL of its JSON pointer.
        kind: Its type in SQL.
        name: The column that it becomes.
    """
    match kind:
        case "json":
            entry = f"nullif(json_extract(content, {pointer}), 'null')"
        case "varchar[]":
            entry = f"json_extract(content, {pointer})::varchar[]"
        case _:
            entry = f"json_extract_string(content, {pointer})::{kind}"
    return f"{entry} as {identifier(name)}"


def _pointed(key: str) -> str:
    """A key as a part of a JSON pointer."""
    return key.replace("~", "~0").replace("/", "~1")


def add_views(
    connection: duckdb.DuckDBPyConnection, *, main: bool = True, only: Collection[str] | None = None
) -> None:
    """Adds the views and macros of ``attribeam.schemas.views`` over the tables.

    A view is bound when it is first asked: to bind them all takes longer than most queries.

    Args:
        connection: Where to.
        main: Whether this is the database that queries begin in. In another, table macros have
            other names: called from there, they would answer with the main one's tables.
        only: Names of those to add, and of what they read; None for all.
    """
    macros = [name for view in VIEWS for kind, name in view.created if kind == "macro table"]
    called = re.compile(rf"\b({'|'.join(macros)})(?= *\()")
    for view in VIEWS:
        if only is not None and view.name not in only:
            continue
        sql = _VIEW.sub(r"\g<0> with (defer_binding)", view.sql)
        connection.execute(sql if main else called.sub(r"\1__inside", sql))


def named_views(sql: str) -> set[str]:
    """The views and macros that some SQL names, and all that these read.

    A word that is no name of one there, but a column's or a text, is taken for it.
    """
    found: set[str] = set()
    words = set(_WORD.findall(sql.lower()))
    for view in reversed(VIEWS):  # Each follows those that it reads.
        if words & {view.name, *(name for _, name in view.created)}:
            found.add(view.name)
            words |= set(_WORD.findall(view.sql.lower()))
    return found


def add_comments(
    connection: duckdb.DuckDBPyConnection, *, tables: bool = True, views: bool = True
) -> None:
    """Comments every table, view, macro and column.

    A column that a view's comment does not explain has the comment of the table's column of the
    same name.

    Args:
        connection: Where to.
        tables: Whether the columns of the tables and of ``methods`` are commented.
        views: Whether views, macros and the columns of views are commented.
    """
    explained = {"methods": _METHOD_COMMENTS}
    inherited: dict[str, str] = {}
    for table in reversed((*TABLES, *EVALUATIONS)):
        explained[table] = {f.name: f.metadata[b"comment"].decode() for f in table_schema(table)}
        inherited |= explained[table]
    statements = []
    if not tables:
        explained = {}
    for view in VIEWS if views else ():
        for kind, name in view.created:
            statements.append(f"comment on {kind} {name} is {literal(view.comment)}")
        explained[view.name] = inherited | view.columns
    columns = connection.execute(
        "select table_name, column_name from duckdb_columns() "
        "where database_name = current_database()"
    ).fetchall()
    for relation, column in columns:
        if comment := explained.get(relation, {}).get(column):
            name = f"{relation}.{identifier(column)}"
            statements.append(f"comment on column {name} is {literal(comment)}")
    # At once: one by one, they take longer than everything else.
    connection.execute(";\n".join(["begin", *statements, "commit"]))


def lock(connection: duckdb.DuckDBPyConnection, roots: Sequence[str]) -> None:
    """Keeps queries to the files below some folders, and the settings as they are.

    DuckDB would write the files that it reads, so what queries of others may be asked of has to be
    read through a file system that can't. A pattern over escaped characters does not begin with
    the folder's name as it is, so both ways of writing it are allowed. Sorting and grouping may
    still spill.
    """
    spill_to_temporary(connection)
    for extension in ("autoinstall_known_extensions", "autoload_known_extensions"):
        connection.execute(f"set {extension} = false")
    connection.execute("set allow_persistent_secrets = false")
    allowed = [literal(way) for root in roots for way in (root, escape_glob(root))]
    connection.execute(f"set allowed_directories = [{', '.join(allowed)}]")
    connection.execute("set enable_external_access = false")
    # Else an unknown table's name would be looked up among the caller's Python variables.
    connection.execute("set python_enable_replacements = false")
    connection.execute("set lock_configuration = true")


def _type_name(kind: pa.DataType) -> str:
    """DuckDB's name of a type; dictionaries come from Parquet as text."""
    if pa.types.is_list(kind):
        return f"{_type_name(kind.value_type)}[]"
    if pa.types.is_dictionary(kind):
        return _type_name(kind.value_type)
    if pa.types.is_struct(kind):
        return f"struct({', '.join(f'{f.name} {_type_name(f.type)}' for f in kind)})"
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
