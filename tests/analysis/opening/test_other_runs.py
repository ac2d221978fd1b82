"""Other runs in a query: named beforehand, with all their tables and views, and as read-only."""

import shutil
from pathlib import Path
from typing import Any

import duckdb
import pytest

from attribeam.analysis import open_run
from attribeam.analysis.publish.publish import publish
from attribeam.schemas import TABLES, VIEWS, UsageError
from tests.analysis.opening.test_remote import ADDRESS, Elsewhere, elsewhere, folder, published
from tests.support.synthetic_run import synthetic_run, write_run
from tests.support.tiny import command

__all__ = ["elsewhere", "folder", "published"]  # Fixtures.


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(synthetic_run(rows=7, seed=5), tmp_path_factory.mktemp("it's [other]") / "o")


def answer(run: str | Path, sql: str, **options: Any) -> list[tuple[Any, ...]]:
    with open_run(run, **options, commented=False) as connection:
        return connection.execute(sql).fetchall()


@pytest.mark.parametrize("external_access", [False, True])
def test_all_tables_and_views_of_the_other_run(
    external_access: bool, folder: Path, other: Path
) -> None:
    with (
        open_run(
            folder, others={"o": other}, external_access=external_access, commented=False
        ) as connection,
        open_run(other, commented=False) as alone,
        open_run(folder, commented=False) as main,
    ):
        # With access, other files are read by something else, and the views are the same.
        views = ["words"] if external_access else [v.name for v in VIEWS if not v.is_macro]
        for name in (*TABLES, "methods", "run", *views):
            sql = "select count(*) from {}" + name
            theirs = connection.execute(sql.format("o.")).fetchall()
            assert theirs == alone.execute(sql.format("")).fetchall(), name
            if name in TABLES:  # Which all views of the run itself are of.
                ours = connection.execute(sql.format("")).fetchall()
                assert ours == main.execute(sql.format("")).fetchall(), name
        sql = "select method, n, round(aopc, 9) from {}faithfulness order by all"
        found = connection.execute(sql.format("o.")).fetchall()
        assert found == alone.execute(sql.format("")).fetchall()
        assert found != main.execute(sql.format("")).fetchall()


def test_a_table_macro_never_answers_for_another_run(folder: Path, other: Path) -> None:
    with open_run(folder, others={"o": other}, commented=False) as connection:
        assert connection.execute("from faithfulness_over(common := false)").fetchall()
        with pytest.raises(duckdb.CatalogException):
            connection.execute("from o.faithfulness_over(common := false)")


def test_the_other_run_is_read_only_too(folder: Path, other: Path) -> None:
    with open_run(folder, others={"o": other}, commented=False) as connection:
        assert connection.execute("from read_parquet('o://instances/*.parquet')").fetchall()
        for sql in (
            "copy (select 1 as a) to 'o://run.json'",
            "copy (select 1 as a) to '{}/run.json'",
            "from read_parquet('{}/instances/*.parquet')",
            "from read_text('o://../o/run.json')",
        ):
            with pytest.raises(duckdb.Error):
                connection.execute(sql.format(str(other).replace("'", "''"))).fetchall()


def test_elsewhere(
    folder: Path, other: Path, published: Path, tmp_path: Path, elsewhere: list[Elsewhere]
) -> None:
    sql = "select count(*), min(instance_id) from {}attributions where method = 'paths'"
    ours, theirs = answer(folder, sql.format("")), answer(other, sql.format(""))
    assert answer(other, sql.format("hub."), others={"hub": ADDRESS}) == ours
    assert answer(ADDRESS, sql.format("o."), others={"o": other}) == theirs
    # Two of a protocol.
    publish(other, "someone/other", license="cc-by-4.0", dry_run=tmp_path / "dry")
    shutil.copytree(tmp_path / "dry", tmp_path / "hf/datasets/someone/other")
    named = {"o": "hf://datasets/someone/other"}
    assert answer(ADDRESS, sql.format("o."), others=named) == theirs
    assert answer(ADDRESS, sql.format(""), others=named) == ours


def test_of_what_was_published_only_the_methods_asked_for_are_opened(
    elsewhere: list[Elsewhere],
) -> None:
    with open_run(ADDRESS, commented=False) as connection:
        elsewhere[0].opened.clear()
        sql = "select count(*), sum(len(scores)) from attributions where method = 'paths'"
        assert connection.execute(sql).fetchall()[0][0] > 0
    opened = {path.split("/data/")[1].rpartition("/")[0] for path in elsewhere[0].opened}
    # The first one tells the columns.
    assert opened <= {"attributions/paths", "attributions/attention"}


def test_on_the_command_line(folder: Path, other: Path) -> None:
    sql = "select count(*) as n from theirs.instances"
    outcome = command("query", folder, sql, "--with", f"theirs={other}", "--format", "csv")
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.splitlines()[0] == "n" and int(outcome.out.splitlines()[1]) < 8
    for given in ("theirs", "theirs="):
        outcome = command("query", folder, sql, "--with", given)
        assert outcome.status == 2 and "--with takes NAME=DIR" in outcome.err


@pytest.mark.parametrize("names", [["run"], ["memory"], ["HF"], ["a b"], ["1"], [""], ["a", "A"]])
def test_names_that_can_t_be(names: list[str], folder: Path, other: Path) -> None:
    with pytest.raises(UsageError, match="can't be the name of another run"):
        open_run(folder, others=dict.fromkeys(names, other), commented=False)


def test_a_keyword_may_be_one(folder: Path, other: Path) -> None:
    sql = 'select count(*) from "select".instances'
    ((count,),) = answer(folder, sql, others={"select": other})
    assert 0 < count < 8


def test_settings(folder: Path) -> None:
    settings: dict[str, Any] = {"threads": 1, "memory_limit": "200MiB"}
    sql = "select current_setting('threads'), current_setting('memory_limit')"
    assert answer(folder, sql, settings=settings) == [(1, "200.0 MiB")]
    with pytest.raises(UsageError, match="no_such"):
        open_run(folder, settings={"no_such": 1}, commented=False)
