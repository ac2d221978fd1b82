"""Runs that were published, and runs that lie elsewhere: the same answers, and nothing else."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import pytest
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem

from attribeam.analysis import open_run, write_database
from attribeam.analysis.publish.publish import publish
from attribeam.schemas import TABLES, VIEWS, UsageError
from attribeam.schemas.layout import MANIFEST
from tests.support.synthetic_run import synthetic_run, write_run
from tests.support.tiny import command

ADDRESS = "hf://datasets/someone/some-run"
ASKED = (
    "from faithfulness order by all",
    "from plausibility order by all",
    "from agreement order by all",
    "select * from words order by all",
    "select method, params, passes from methods order by all",
    "select model_weights_sha256, corpus_rows, settings_seed from run",
)


class Elsewhere(DirFileSystem):
    """A folder of this machine as a file system of another protocol; it counts what is listed."""

    cachable = False

    def __init__(self, root: Path, protocol: str) -> None:
        super().__init__(path=str(root), fs=LocalFileSystem())
        self.protocol = protocol
        self.listed = 0
        self.opened: list[str] = []

    def _join(self, path: Any) -> Any:
        return super()._join(path.removeprefix(f"{self.protocol}://"))

    def find(self, path: str, *arguments: Any, **options: Any) -> Any:
        self.listed += 1
        return super().find(path, *arguments, **options)

    def open(self, path: str, *arguments: Any, **options: Any) -> Any:
        self.opened.append(path)
        return super().open(path, *arguments, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = synthetic_run(rows=30, shard_size=12)
    return write_run(run, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def published(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("it's [published]") / "data"
    publish(folder, "someone/some-run", license="cc-by-4.0", dry_run=target)
    return target


@pytest.fixture
def elsewhere(
    folder: Path, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[Elsewhere]:
    """A hub and a bucket with the run; the file systems that were asked for."""
    shutil.copytree(published, tmp_path / "hf/datasets/someone/some-run")
    shutil.copytree(published, tmp_path / "hf/datasets/someone/some-run@v1")
    shutil.copytree(folder, tmp_path / "s3/bucket/runs/a [raw] run")
    others = tmp_path / "hf/datasets/someone/texts"
    others.mkdir()
    (others / "secret.csv").write_text("a\n1\n", encoding="utf-8")
    made: list[Elsewhere] = []

    def filesystem(protocol: str, **_: Any) -> Elsewhere:
        made.append(Elsewhere(tmp_path / protocol, protocol))
        return made[-1]

    monkeypatch.setattr(fsspec, "filesystem", filesystem)
    return made


def answers(run: str | Path) -> list[list[tuple[Any, ...]]]:
    with open_run(run, commented=False) as connection:
        return [connection.execute(sql).fetchall() for sql in ASKED]


def close(found: Any, expected: Any) -> bool:
    """Whether rows are equal; sums in another order differ in their last digits."""
    if isinstance(expected, float):
        return bool(found == pytest.approx(expected, rel=1e-6, abs=1e-9, nan_ok=True))
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(map(close, found, expected))
    return bool(found == expected)


def refused(do: Callable[[], Any]) -> str:
    with pytest.raises(UsageError) as caught:
        do()
    message = str(caught.value)
    assert "\n" not in message
    return message


# Published folders


def test_a_published_folder_answers_as_the_run(folder: Path, published: Path) -> None:
    expected = answers(folder)
    assert all(expected)
    assert close(answers(published), expected)


def test_every_table_and_view_of_a_published_folder(published: Path) -> None:
    with open_run(published, commented=False) as connection:
        for table in TABLES:
            connection.execute(f"from {table}").fetchall()
        for view in VIEWS:
            if not view.is_macro:
                connection.execute(f"from {view.name} limit 1").fetchall()


def test_a_published_folder_is_locked(published: Path, folder: Path) -> None:
    with open_run(published, commented=False) as connection:
        file = next(folder.glob("instances/*.parquet"))
        with pytest.raises(duckdb.PermissionException):
            connection.execute(f"from read_parquet('{file}')")


def test_a_published_folder_opens_in_the_duckdb_command(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(published, tmp_path / "copy")
    write_database(copy)
    monkeypatch.chdir(copy)
    with duckdb.connect("attribeam.duckdb", read_only=True) as connection:
        assert connection.execute("select count(*) from instances").fetchone() != (0,)


# Elsewhere


@pytest.mark.parametrize(
    "address", [ADDRESS, f"{ADDRESS}/", f"{ADDRESS}@v1", "s3://bucket/runs/a [raw] run"]
)
def test_a_run_elsewhere_answers_as_the_run(
    address: str, folder: Path, elsewhere: list[Elsewhere]
) -> None:
    assert close(answers(address), answers(folder))
    (made,) = elsewhere
    assert made.listed == 1


def test_a_query_opens_only_what_it_asks_for(elsewhere: list[Elsewhere]) -> None:
    with open_run(ADDRESS, commented=False) as connection:
        elsewhere[0].opened.clear()
        connection.execute("select count(*) from instances").fetchall()
    assert elsewhere[0].opened
    assert all("/data/instances/" in path for path in elsewhere[0].opened)


def test_on_the_command_line(elsewhere: list[Elsewhere], folder: Path) -> None:
    sql = "select method, n, aopc from faithfulness order by all"
    there = command("query", ADDRESS, sql, "--format", "csv")
    here = command("query", folder, sql, "--format", "csv")
    assert (there.status, there.err) == (0, "")
    assert there.out.splitlines()[0] == "method,n,aopc"
    assert len(there.out.splitlines()) == len(here.out.splitlines()) > 1


def test_a_run_elsewhere_that_is_not_finished_says_so(
    elsewhere: list[Elsewhere], tmp_path: Path
) -> None:
    address = "s3://bucket/runs/a [raw] run"
    assert command("query", address, "from cost").err == ""
    next((tmp_path / "s3/bucket/runs/a [raw] run/curves").rglob("shard-00001-*")).unlink()
    there = command("query", address, "from cost")
    assert there.status == 0
    assert there.err.startswith(f"{address} is not finished: 29 of 30 files are there")


@pytest.mark.parametrize("external_access", [False, True])
def test_nothing_but_the_run_is_reached_there(
    external_access: bool, elsewhere: list[Elsewhere], tmp_path: Path
) -> None:
    with open_run(ADDRESS, external_access=external_access, commented=False) as connection:
        for other in (
            "hf://datasets/someone/texts/secret.csv",
            f"{ADDRESS}/../texts/secret.csv",
            "hf://datasets/*/*/*.csv",
        ):
            with pytest.raises(duckdb.Error):
                connection.execute(f"from read_csv('{other}')").fetchall()
        for target in ("more.csv", "data/instances/more.parquet"):
            with pytest.raises(duckdb.Error, match="read-only"):
                connection.execute(f"copy (select 1) to '{ADDRESS}/{target}'")
    assert not list(tmp_path.rglob("more.*"))


def test_a_run_elsewhere_reaches_no_file_of_this_machine(
    elsewhere: list[Elsewhere], tmp_path: Path
) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("a\n1\n", encoding="utf-8")
    with open_run(ADDRESS, commented=False) as connection:
        with pytest.raises(duckdb.PermissionException):
            connection.execute(f"from read_csv('{file}')")
        with pytest.raises(duckdb.Error, match="locked"):
            connection.execute("set enable_external_access = true")
    with open_run(ADDRESS, external_access=True, commented=False) as connection:
        assert connection.execute(f"from read_csv('{file}')").fetchall() == [(1,)]


def test_what_is_no_run(elsewhere: list[Elsewhere]) -> None:
    message = refused(lambda: open_run("hf://datasets/someone/texts"))
    assert message.startswith("hf://datasets/someone/texts is no run, or you may not see it")
    message = refused(lambda: open_run("hf://datasets/nobody/nothing"))
    assert message.startswith("hf://datasets/nobody/nothing is no run, or you may not see it")
    outcome = command("query", "s3://bucket/none", "from cost")
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err.startswith("attribeam: s3://bucket/none is no run")


def test_a_hub_that_refuses(elsewhere: list[Elsewhere], monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusal(Exception):
        pass

    def refuse(*_: object) -> None:
        raise Refusal("401 Client Error.\nRequest ID: 1234")

    monkeypatch.setattr(Elsewhere, "cat_file", refuse)
    message = refused(lambda: open_run(ADDRESS))
    assert message.startswith(f"{ADDRESS} can't be read (401 Client Error). Give hf://")


def test_a_connection_that_breaks_off(
    elsewhere: list[Elsewhere], monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object, **__: object) -> None:
        raise ConnectionError("the line is dead")

    monkeypatch.setattr(Elsewhere, "cat_file", _read)
    monkeypatch.setattr(Elsewhere, "open", breaks)
    message = refused(lambda: open_run(ADDRESS))
    assert message.startswith(f"The files of {ADDRESS} can't be read: ConnectionError: the line")


def _read(files: Elsewhere, path: str) -> bytes:
    return Path(files._join(path)).read_bytes()


def test_another_format(elsewhere: list[Elsewhere], tmp_path: Path) -> None:
    path = tmp_path / "hf/datasets/someone/some-run" / MANIFEST
    path.write_text(json.dumps({"format": 1}), encoding="utf-8")
    assert f"{ADDRESS}/run.json is not of format" in refused(lambda: open_run(ADDRESS))
    path.write_text("{", encoding="utf-8")
    assert f"{ADDRESS}/run.json can't be read" in refused(lambda: open_run(ADDRESS))


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "filesystem", missing)
    message = refused(lambda: open_run("s3://bucket/run"))
    assert message == "s3://bucket/run needs the package s3fs: install it with `pip install s3fs`."


def test_what_needs_a_copy(elsewhere: list[Elsewhere]) -> None:
    message = refused(lambda: write_database(ADDRESS))
    assert message.startswith(f"{ADDRESS} is not on this machine")
    outcome = command("verify", ADDRESS)
    assert outcome.status == 2
    assert "needs a copy" in outcome.err
    assert not elsewhere
