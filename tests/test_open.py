"""A run as a database file: the same answers, from wherever the folder is."""

from pathlib import Path

import duckdb
import pytest

from analysis import open_run, verify, write_database
from schemas import TABLES, VIEWS, UsageError
from tests.synthetic_run import synthetic_run, write_run
from tests.tiny import command


def test_the_same_views_wherever_the_folder_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_run(synthetic_run(rows=20), tmp_path / "run")
    with open_run(folder) as connection:
        expected = connection.execute("from faithfulness order by all").fetchall()
    path = write_database(folder)
    assert path == (folder / "attribeam.duckdb").resolve()
    moved = folder.rename(tmp_path / "it's [elsewhere]")
    monkeypatch.chdir(moved)
    with duckdb.connect("attribeam.duckdb", read_only=True) as connection:
        found = connection.execute("from faithfulness order by all").fetchall()
        assert [row[:3] for row in found] == [row[:3] for row in expected]
        for table in TABLES:
            connection.execute(f"from {table}").fetchall()
        for view in VIEWS:
            if not view.is_macro:
                connection.execute(f"from {view.name} limit 1").fetchall()
        query = "select comment from duckdb_views() where view_name = 'faithfulness'"
        ((comment,),) = connection.execute(query).fetchall()
        assert comment.startswith("Faithfulness of each method")
    # The folder is a sound run still, and the file is small.
    assert not verify(moved).problems
    assert (moved / "attribeam.duckdb").stat().st_size < 2_000_000


def test_it_is_written_anew(tmp_path: Path) -> None:
    folder = write_run(synthetic_run(rows=5), tmp_path)
    first = write_database(folder)
    assert write_database(folder) == first
    assert not list(folder.glob("*.tmp"))


def test_on_the_command_line(tmp_path: Path) -> None:
    folder = write_run(synthetic_run(rows=5), tmp_path)
    outcome = command("open", folder)
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out == f"cd {folder.resolve()} && duckdb attribeam.duckdb\n"
    with pytest.raises(UsageError, match="no run folder"):
        write_database(tmp_path / "none")
