"""A run as a database file: the same answers, from wherever the folder is."""

import json
import shutil
import tempfile
from pathlib import Path

import duckdb
import pytest

from attribeam.analysis import open_run, verify, write_database
from attribeam.schemas import TABLES, VIEWS, UsageError
from attribeam.schemas.tables import EVALUATIONS
from tests.support.synthetic_run import synthetic_run, write_run
from tests.support.tiny import command


def test_the_same_views_wherever_the_folder_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_run(synthetic_run(rows=20), tmp_path / "run")
    with open_run(folder) as connection:
        expected = connection.execute("from faithfulness order by all").fetchall()
        # No bar among the rows of a query that takes longer.
        (bar,) = connection.execute("select current_setting('enable_progress_bar')").fetchall()
        assert bar == (False,)
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


def test_what_is_added_later_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = write_run(synthetic_run(rows=9, shard_size=3), tmp_path / "whole")
    folder = tmp_path / "run"
    (folder / "instances").mkdir(parents=True)
    manifest = json.loads((whole / "run.json").read_text())
    (folder / "run.json").write_text(
        json.dumps(manifest | {"methods": {}, "evaluation": None, "executions": []}, indent=2)
    )
    path = write_database(folder)
    shutil.copytree(whole, folder, dirs_exist_ok=True)
    monkeypatch.chdir(folder)
    with duckdb.connect(path.name, read_only=True) as old, open_run(folder) as new:
        for name in (*TABLES, *EVALUATIONS, "methods", "run", "failure_summary"):
            sql = f"from {name} order by all"
            assert str(old.execute(sql).fetchall()) == str(new.execute(sql).fetchall()), name
        assert old.execute("select count(*) from methods").fetchone() == (3,)
        compared = old.execute("select method from faithfulness order by 1").fetchall()
        assert compared == [("attention",), ("gradient",), ("paths",)]


def test_a_connection_shows_what_is_added_later(tmp_path: Path) -> None:
    folder = write_run(synthetic_run(rows=3), tmp_path)
    text = (folder / "run.json").read_text()
    manifest = json.loads(text)
    del manifest["methods"]["paths"]
    (folder / "run.json").write_text(json.dumps(manifest))
    with open_run(folder) as connection:
        assert connection.execute("select count(*) from methods").fetchone() == (2,)
        (folder / "run.json").write_text(text)
        assert connection.execute("select count(*) from methods").fetchone() == (3,)


def test_nothing_is_left_of_one_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_run(synthetic_run(rows=3), tmp_path / "run")
    (folder / "attribeam.duckdb.tmp").write_text("of an earlier version")
    write_database(folder)
    kept = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert "attribeam.duckdb.tmp" not in kept

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    spilled = tmp_path / "temporary"
    spilled.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(spilled))
    for name in ("attribeam.analysis.opening.runs._fill", "pathlib.Path.replace"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(name, interrupt)
            write_database(folder)
        assert kept == {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        assert not list(spilled.iterdir())


def test_on_the_command_line(tmp_path: Path) -> None:
    folder = write_run(synthetic_run(rows=5), tmp_path)
    outcome = command("open", folder)
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out == f"cd {folder.resolve()} && duckdb attribeam.duckdb\n"
    with pytest.raises(UsageError, match="no run folder"):
        write_database(tmp_path / "none")
