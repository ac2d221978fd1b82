"""Files read through Python: a place for each thread, nothing outside the folder, none written."""

import io
import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest

from attribeam.analysis import open_run
from attribeam.analysis.opening.readonly import LocalFiles, Positioned, SharedFile
from attribeam.schemas import Unit, table_schema, unit_path
from tests.support.synthetic_run import synthetic_run, write_run

CONTENT = random.Random(0).randbytes(100_000)
Opened = Callable[[], Positioned]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "run"
    (root / "heads/method=a").mkdir(parents=True)
    (root / "heads/method=a/x.parquet").write_bytes(CONTENT)
    (root / "heads/method=a/y.parquet").symlink_to("x.parquet")
    (tmp_path / "secret.parquet").touch()
    (root / "out.parquet").symlink_to(tmp_path / "secret.parquet")
    (root / "out").symlink_to(tmp_path)
    os.mkfifo(root / "pipe.parquet")
    return root


@pytest.fixture(params=["local", "shared"])
def opened(request: pytest.FixtureRequest, folder: Path) -> Iterator[Positioned]:
    if request.param == "local":
        file = LocalFiles(folder).open("run://heads/method=a/x.parquet")
    else:
        file = SharedFile(io.BytesIO(CONTENT), len(CONTENT))
    with file:
        yield file


def test_threads_do_not_read_where_others_sought(opened: Positioned) -> None:
    wrong: list[int] = []

    def read(seed: int) -> None:
        chosen = random.Random(seed)
        for _ in range(2_000):
            start, size = chosen.randrange(len(CONTENT)), chosen.randrange(500)
            opened.seek(start)
            if opened.read(size) != CONTENT[start : start + size]:
                wrong.append(start)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_it_is_a_file(opened: Positioned) -> None:
    assert opened.readable() and opened.seekable() and not opened.writable()
    assert opened.read(10) + opened.read(10) == CONTENT[:20]
    assert opened.tell() == 20
    assert opened.seek(-10, os.SEEK_END) == len(CONTENT) - 10
    assert opened.read() == CONTENT[-10:] and opened.read(5) == b""
    opened.seek(5)
    assert opened.seek(5, os.SEEK_CUR) == 10 and opened.read(2) == CONTENT[10:12]


def test_links_within_the_folder_are_followed_and_no_others(folder: Path) -> None:
    files = LocalFiles(folder)
    with files.open("run://heads/method=a/y.parquet") as file:
        assert file.read() == CONTENT
    assert files.info("run://heads/method=a/y.parquet")["size"] == len(CONTENT)
    for path in ("out.parquet", "out/secret.parquet", "../secret.parquet", f"{folder}/x.parquet"):
        for ask in (files.open, files.info, files.modified):
            with pytest.raises(PermissionError):
                ask(f"run://{path}")
    for path in ("pipe.parquet", "none.parquet", "heads"):
        for ask in (files.open, files.info, files.modified):
            with pytest.raises(FileNotFoundError):
                ask(f"run://{path}")
    found = files.glob("run://heads/method=*/*.parquet")
    assert found == ["run://heads/method=a/x.parquet", "run://heads/method=a/y.parquet"]
    assert files.glob("run://out/*") == []


def test_nothing_is_written(folder: Path) -> None:
    files = LocalFiles(folder)
    path = "run://heads/method=a/x.parquet"
    for mode in ("wb", "ab", "xb", "r+b", "w", "r+"):
        with pytest.raises(PermissionError, match="read-only"):
            files.open(path, mode)
    for name in ("rm", "rm_file", "_rm", "mkdir", "makedirs", "rmdir", "touch", "delete"):
        with pytest.raises(PermissionError, match="read-only"):
            getattr(files, name)(path)
    for name in ("mv", "move", "rename", "copy", "cp_file", "put", "put_file", "pipe_file"):
        with pytest.raises(PermissionError, match="read-only"):
            getattr(files, name)(path, f"{path}2")
    assert (folder / "heads/method=a/x.parquet").read_bytes() == CONTENT


# What a run's connection makes of it


def test_only_the_files_of_the_methods_asked_for_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(synthetic_run(rows=9, shard_size=3), tmp_path)
    asked: list[str] = []
    opened = LocalFiles.opened

    def counted(files: LocalFiles, path: str) -> Positioned:
        asked.append(path)
        return opened(files, path)

    monkeypatch.setattr(LocalFiles, "opened", counted)
    with open_run(run, commented=False) as connection:
        asked.clear()
        sql = "select count(*), sum(len(scores)) from attributions where method = 'paths'"
        assert connection.execute(sql).fetchall()[0][0] > 0
        shards = {path for path in asked if "method=paths" in path}
        assert len(shards) == 3
        # And perhaps the first one of all, which tells the columns.
        assert len(set(asked) - shards) <= 1
        asked.clear()
        pairs = connection.execute("from agreement_over(methods := ['paths', 'gradient'])")
        assert len(pairs.fetchall()) == 1
    assert not [path for path in asked if "method=attention" in path]


def test_a_table_is_seen_as_it_becomes(tmp_path: Path) -> None:
    folder = write_run(synthetic_run(rows=6), tmp_path / "run")
    later = folder.rename(tmp_path / "later")
    (folder / "instances").mkdir(parents=True)
    (folder / "run.json").write_bytes((later / "run.json").read_bytes())
    with open_run(folder, commented=False) as connection:
        assert connection.execute("select count(*) from attributions").fetchone() == (0,)
        assert connection.execute("from faithfulness").fetchall() == []
        for table in ("instances", "attributions", "curves"):
            for path in sorted(later.glob(f"{table}/**/*.parquet")):
                target = folder / path.relative_to(later)
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)
        found = connection.execute("select distinct method from attributions order by 1").fetchall()
        assert found == [("attention",), ("gradient",), ("paths",)]
        assert connection.execute("from faithfulness").fetchall()


def test_columns_that_files_are_too_old_to_have_are_null(tmp_path: Path) -> None:
    folder = write_run(synthetic_run(rows=4), tmp_path)
    with duckdb.connect() as connection:
        for path in folder.glob("instances/*.parquet"):
            older = f"select * exclude (correct, text) from '{path}'"
            connection.execute(f"copy ({older}) to '{path}' (format parquet)")
    with open_run(folder, commented=False) as connection:
        rows = connection.execute("from instances").fetchall()
        names = [column[0] for column in connection.description or ()]
    assert rows and set(names) == set(table_schema("instances").names)
    assert {row[names.index("correct")] for row in rows} == {None}
    assert all(row[names.index("instance_id")] for row in rows)


def test_a_method_is_what_its_folder_says(tmp_path: Path) -> None:
    folder = write_run(synthetic_run(rows=4, failing=False), tmp_path)
    source = folder / unit_path(Unit("attributions", "gradient"), 0, 1)
    target = folder / unit_path(Unit("attributions", "gradient-2"), 0, 1)
    target.parent.mkdir()
    target.write_bytes(source.read_bytes())
    with open_run(folder, commented=False) as connection:
        query = "select method, count(*) from attributions where method like 'grad%' group by all"
        assert sorted(connection.execute(query).fetchall()) == [("gradient", 4), ("gradient-2", 4)]


def test_who_opens_a_run_lists_none_of_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = synthetic_run(rows=8, shard_size=2, failing=False)
    write_run(run, tmp_path)
    given: list[int] = []
    glob = LocalFiles.glob

    def counting(self: LocalFiles, *args: str) -> list[str]:
        found = glob(self, *args)
        given.append(len(found))
        return found

    monkeypatch.setattr(LocalFiles, "glob", counting)
    with open_run(tmp_path) as connection:
        assert max(given) == 1
        given.clear()
        assert connection.execute("select count(*) from instances").fetchone() == (8,)
        assert max(given) == 4


@pytest.mark.parametrize("pattern", ["heads/method=*/*.parquet", "*/*/y.*", "*/n*", "o*/*", "*.p*"])
def test_the_first_file_of_a_glob(folder: Path, pattern: str) -> None:
    (folder / "heads/.hidden.parquet").touch()
    files = LocalFiles(folder)
    whole = files.glob(f"run://{pattern}")
    with files.only_first():
        assert files.glob(f"run://{pattern}") == whole[:1]
    assert files.glob(f"run://{pattern}") == whole
