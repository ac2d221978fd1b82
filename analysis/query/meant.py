"""What was meant by a name that a query has and the run hasn't, or can't have anything of."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from functools import cache

import duckdb

from attribeam.analysis.opening.database import identifier
from attribeam.schemas import VIEWS, UsageError
from attribeam.schemas.manifest import IMPORTED_TASK, NO_MODEL
from attribeam.schemas.tables import EVALUATIONS

_TABLE = re.compile(r"Catalog Error: Table with name (\S+) does not exist")
_COLUMN = re.compile(r'Binder Error: Referenced column "([^"]+)" not found in FROM clause')
_CANDIDATES = re.compile(r'"([^"]+)"')
# What a method is compared with: a text, or several in parentheses; or the list that a macro takes.
_COMPARED = re.compile(
    r"\bmethod(?:_[ab])?\s*(?:=|==|<>|!=|\bin)\s*(\([^()]*\)|'[^']*')"
    r"|\bmethods\s*:?=\s*(\[[^\[\]]*\])",
    re.I,
)
_TEXT = re.compile(r"'((?:[^']|'')*)'")
_NAMES = (
    "select name from (select table_name as name, * from duckdb_tables() "
    "union all by name select view_name as name, * from duckdb_views()) "
    "where not internal and database_name = current_database() order by 1"
)


def explained(message: str, connection: duckdb.DuckDBPyConnection) -> str:
    """DuckDB's message about a name that isn't there, with what was likely meant."""
    if found := _TABLE.search(message):
        # DuckDB's guess prefers its own catalogue.
        names = [name for (name,) in connection.execute(_NAMES).fetchall()]
        first = message.splitlines()[0]
        name = found[1].strip("\"'!")
        if name.lower() in _macros(connection):
            return f"{first}\n{name} is a macro: it takes parentheses, as in `from {name}(...)`."
        near = _near(name, names)
        return f"{first}\n{near.capitalize()}There are: {', '.join(names)}."
    if found := _COLUMN.search(message):
        first, _, more = message.partition("\n")
        near = _near(found[1], _CANDIDATES.findall(more))
        return f"{first}\n{near.capitalize()}{more}" if near else message
    return message


def _macros(connection: duckdb.DuckDBPyConnection) -> set[str]:
    """Names of what stands for a table when it is called."""
    query = (
        "select function_name from duckdb_functions() where function_type = 'table_macro' "
        "and not internal"
    )
    return {name for (name,) in connection.execute(query).fetchall()}


def unknown_methods(
    sql: str, connection: duckdb.DuckDBPyConnection, others: Iterable[str]
) -> list[str]:
    """Sentences on names of methods in a query that no run has: it would find nothing of them.

    Args:
        sql: The query.
        connection: The runs.
        others: Names of other runs that are opened.
    """
    texts = [text for parts in _COMPARED.findall(sql) for text in _TEXT.findall("".join(parts))]
    if not texts:
        return []
    tables = ["methods", *(f"{identifier(name)}.methods" for name in others)]
    query = " union ".join(f"select method from {table}" for table in tables)
    known = sorted(name for (name,) in connection.execute(query).fetchall())
    return [
        f"the run has no method {text!r}: {_near(text, known)}it has {', '.join(known)}"
        for text in dict.fromkeys(texts)
        if text not in known
    ]


@cache
def _of_models() -> frozenset[str]:
    """Tables that a model is asked for, and the views and macros that have nothing without them."""
    found = {"curves", *EVALUATIONS}
    for view in VIEWS:  # Each follows those that it reads.
        read = {*re.findall(r"\b(?:from|join)\s+(\w+)", view.sql)}
        if not found.isdisjoint(read):
            found |= {name for _, name in view.created}
    return frozenset(found)


def check_curves(sql: str, connection: duckdb.DuckDBPyConnection, others: Iterable[str]) -> None:
    """Refuses to ask scores that were imported without a model for what a model has to answer.

    Args:
        sql: The query.
        connection: The runs.
        others: Names of other runs that are opened.

    Raises:
        UsageError: If the query has such a table or view, of which there would be no rows.
    """
    bare = re.sub(r"'(?:[^']|'')*'|--[^\n]*", "", sql)
    named = re.findall(r'(?:(?:(\w+)|"([^"]+)")\s*\.\s*)?\b(\w+)\b', bare)
    for one, other, name in named:
        run = one or other
        if name not in _of_models() or (run and run not in {*others}):
            continue
        table = f"{identifier(run)}.run" if run else "run"
        task = connection.execute(f"select model_task from {table}").fetchall()
        if task == [(IMPORTED_TASK,)]:
            raise UsageError(f"{name}: {run or 'the run'} {NO_MODEL}")


def _near(name: str, known: Sequence[str]) -> str:
    """A question for what is most alike, if anything is."""
    near = get_close_matches(name.lower(), known, 2, cutoff=0.7)
    return f"did you mean {' or '.join(near)}? " if near else ""
