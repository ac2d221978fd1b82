"""Views that are copied are those that were made, and a query has all that it names."""

import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from attribeam.analysis import open_run, run_query
from attribeam.analysis.opening import copied
from attribeam.analysis.opening.database import add_comments, add_empty, add_views, named_views
from attribeam.schemas import VIEWS
from tests.support.synthetic_run import synthetic_run, write_run

_CATALOGUE = (
    "select view_name, sql, comment from duckdb_views() where not internal order by all",
    "select function_name, parameters, macro_definition, comment from duckdb_functions() "
    "where not internal order by all",
    "select table_name, column_name, data_type, comment from duckdb_columns() "
    "where not internal order by all",
)
_EXCLUDED = re.compile(r"EXCLUDE \(([^()]+)\)")


@pytest.fixture
def empty() -> Iterator[duckdb.DuckDBPyConnection]:
    """The tables of a run without rows."""
    with duckdb.connect() as connection:
        add_empty(connection, double=True)
        yield connection


@pytest.mark.parametrize(("main", "commented"), [(True, True), (False, False)])
def test_what_is_copied_is_what_was_made(
    empty: duckdb.DuckDBPyConnection, main: bool, commented: bool
) -> None:
    add_views(empty, main=main)
    if commented:
        add_comments(empty, tables=False)
    with duckdb.connect() as connection:
        add_empty(connection, double=True)
        copied.copy_views(connection, main=main, double=True, commented=commented)
        for sql in _CATALOGUE:
            made = _ordered(empty.execute(sql).fetchall())
            assert made and _ordered(connection.execute(sql).fetchall()) == made


def _ordered(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """With the columns that a statement leaves out in one order, of which DuckDB keeps none."""
    return [
        tuple(
            _EXCLUDED.sub(lambda found: str(sorted(found[1].split(", "))), entry)
            if isinstance(entry, str)
            else entry
            for entry in row
        )
        for row in rows
    ]


def test_they_are_copied_again_where_they_were_tidied_away(tmp_path: Path) -> None:
    folder = write_run(synthetic_run(rows=2), tmp_path)
    open_run(folder, commented=False).close()
    shutil.rmtree(copied._folder().name)
    with open_run(folder, commented=False) as connection:
        assert connection.execute("select count(*) from faithfulness").fetchone() == (3,)


def test_they_are_made_where_there_is_nowhere_to_put_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise OSError("no space left")

    monkeypatch.setattr(copied, "_folder", full)
    with open_run(write_run(synthetic_run(rows=2), tmp_path), commented=False) as connection:
        assert connection.execute("select count(*) from faithfulness").fetchone() == (3,)


@pytest.mark.parametrize(
    "name", ["faithfulness_normalised", "plausibility_intervals", "cost_faithfulness", "ranking"]
)
def test_what_a_query_names_is_there_with_what_that_reads(
    empty: duckdb.DuckDBPyConnection, name: str
) -> None:
    named = named_views(f'SELECT * FROM "{name.upper()}"')
    add_views(empty, only=named)
    assert empty.execute(f"from {name}").fetchall() == []
    assert 1 < len(named) < len(VIEWS) / 2


def test_a_query_may_put_a_name_together(tmp_path: Path) -> None:
    folder = write_run(synthetic_run(rows=2), tmp_path)
    out = io.StringIO()
    run_query(folder, "select count(*) as n from query_table('co' || 'st')", "csv", out)
    assert out.getvalue() == "n\n3\n"
    out = io.StringIO()
    run_query(folder, "select count(*) > 100 as n from (show tables)", "csv", out)
    assert out.getvalue() == "n\ntrue\n"
