"""Verifying what was published: what is sound adds up, and nothing that is wrong passes."""

import json
import os
import re
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attribeam.analysis import joining, open_run, verify
from attribeam.analysis.publish.publish import publish
from attribeam.schemas import UsageError, table_schema
from attribeam.schemas.layout import UNFINISHED
from tests.support.synthetic_run import SyntheticRun, synthetic_run, write_run
from tests.support.tiny import command

REPO = "someone/some-run"


def published(run: SyntheticRun, parent: Path, **options: Any) -> Path:
    folder = write_run(run, parent / "run")
    publish(folder, REPO, dry_run=parent / "published", **options)
    return parent / "published"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published run of several files that nobody changes; row 1 failed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joining, "FILE_BYTES", 1)
        return published(synthetic_run(rows=12, shard_size=4), tmp_path_factory.mktemp("original"))


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "other name")


def test_a_published_run_is_verified(folder: Path) -> None:
    report = verify(folder)
    assert report.problems == []
    files = len([*(folder / "data").rglob("*.parquet")])
    assert report.summary == [
        f"{files} of {files} files are there",
        "12 rows of the corpus: 11 instances, 1 failed",
    ]


def test_it_counts_what_the_run_has(original: Path) -> None:
    run, report = verify(original.parent / "run"), verify(original)
    assert report.facts == run.facts and len(report.facts) > 1
    assert report.summary[1:] == run.summary[1:]


@pytest.mark.parametrize(
    "options", [{"methods": ["paths"]}, {"methods": ["gradient", "attention"]}], ids=str
)
def test_some_methods_are_sound(options: dict[str, Any], tmp_path: Path) -> None:
    folder = published(synthetic_run(), tmp_path, **options)
    report = verify(folder)
    assert report.problems == []
    assert sorted(fact.method for fact in report.facts) == sorted(options["methods"])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_joined_files_are_sound(dtype: str, tmp_path: Path) -> None:
    folder = published(synthetic_run(rows=20, shard_size=4, dtype=dtype), tmp_path)
    assert verify(folder).problems == []


def link_files(original: Path, tmp_path: Path) -> None:
    """Makes ``snapshots/main``, whose files are links, as the hub's cache has it."""
    for number, path in enumerate(p for p in original.rglob("*") if p.is_file()):
        blob = tmp_path / "blobs" / str(number)
        link = tmp_path / "snapshots" / "main" / path.relative_to(original)
        for file in (blob, link):
            file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, blob)
        link.symlink_to(os.path.relpath(blob, link.parent))


def test_a_snapshot_of_links_is_sound(original: Path, tmp_path: Path) -> None:
    link_files(original, tmp_path)
    folder = tmp_path / "snapshots" / "main"
    assert verify(folder).problems == []
    ask = "from faithfulness_by_instance order by all"
    with open_run(folder, commented=False) as linked, open_run(original, commented=False) as plain:
        found = linked.sql(ask).fetchall()
        assert found and found == plain.sql(ask).fetchall()
    # Elsewhere links lead out of the folder.
    (tmp_path / "snapshots").rename(tmp_path / "others")
    (problem, *_) = verify(tmp_path / "others" / "main").problems
    assert "a link that leads out of the folder, which queries don't follow" in problem
    done = command("query", tmp_path / "others" / "main", ask)
    assert done.status == 2 and "leads out of the run's folder" in done.err


def test_a_table_whose_folder_is_a_link(folder: Path, tmp_path: Path) -> None:
    table = next(path for path in (folder / "data" / "curves").iterdir())
    table.rename(tmp_path / "elsewhere")
    table.symlink_to(tmp_path / "elsewhere")
    name = table.relative_to(folder).as_posix()
    assert any(problem.startswith(f"{name}: a link") for problem in verify(folder).problems)
    for arguments in (("query", folder, "from curves"), ("open", folder), ("report", folder)):
        done = command(*arguments)
        assert done.status == 2
        assert f"has folders that are links ({name}), which queries don't follow" in done.err


def test_every_file_is_missed(folder: Path) -> None:
    for path in sorted((folder / "data").rglob("*.parquet")):
        content = path.read_bytes()
        path.unlink()
        assert verify(folder).problems, path
        path.write_bytes(content)
    assert verify(folder).problems == []


def test_every_file_is_read_to_its_end(folder: Path) -> None:
    for path in sorted((folder / "data").rglob("*.parquet")):
        content = path.read_bytes()
        path.write_bytes(content[:-100])
        name = path.relative_to(folder).as_posix()
        assert any(name in problem for problem in verify(folder).problems), path
        path.write_bytes(content)


def lose_a_row(folder: Path) -> None:
    path = folder / "data" / "attributions" / "paths" / "test-00001-of-00003.parquet"
    table = pq.read_table(path, partitioning=None)
    pq.write_table(table.slice(1), path, write_page_checksum=True)


def publish_without_a_row(folder: Path) -> None:
    """As if the set had been made so: its ``run.json`` has the file's checksum."""
    lose_a_row(folder)
    path = folder / "data" / "attributions" / "paths" / "test-00001-of-00003.parquet"
    manifest = json.loads((folder / "run.json").read_text())
    record = manifest["files"][path.relative_to(folder).as_posix()]
    record["sha256"] = sha256(path.read_bytes()).hexdigest()
    (folder / "run.json").write_text(json.dumps(manifest))


def leave_a_pointer(folder: Path) -> None:
    path = folder / "data" / "instances" / "test-00000-of-00003.parquet"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")


def bring_another_version(folder: Path) -> None:
    path = folder / "data" / "instances"
    shutil.copyfile(path / "test-00000-of-00003.parquet", path / "test-00000-of-00001.parquet")


def bring_a_stranger(folder: Path) -> None:
    path = folder / "data" / "instances"
    shutil.copyfile(path / "test-00000-of-00003.parquet", path / "more.parquet")


def bring_a_method(folder: Path) -> None:
    shutil.copytree(folder / "data" / "curves" / "paths", folder / "data" / "curves" / "other")


def forget_a_method(folder: Path) -> None:
    manifest = json.loads((folder / "run.json").read_text())
    del manifest["methods"]["gradient"]
    (folder / "run.json").write_text(json.dumps(manifest))


def break_off(folder: Path) -> None:
    (folder / UNFINISHED).touch()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (publish_without_a_row, "layers: 1 belong to no attribution"),
        (lose_a_row, "is not what was published: its sha256 is another"),
        (bring_a_stranger, "more.parquet: run.json has no such file"),
        (leave_a_pointer, "git lfs pull"),
        (bring_another_version, "data/instances: 4 files, which are not parts 0 to 2 of 3"),
        (bring_a_stranger, "data/instances/more.parquet: no file of a table is named so"),
        (bring_a_method, "data/curves/other: run.json has no such table or method"),
        (forget_a_method, "data/methods/.*has other methods than run.json"),
        (break_off, f"upload had not finished .{UNFINISHED}."),
    ],
)
def test_what_is_wrong_is_named(change: Callable[[Path], None], problem: str, folder: Path) -> None:
    change(folder)
    assert re.search(problem, "; ".join(verify(folder).problems))


def test_without_its_manifest(folder: Path) -> None:
    (folder / "run.json").unlink()
    with pytest.raises(UsageError, match=r"no run\.json. Of a published run, download that too"):
        verify(folder)
    (folder / UNFINISHED).touch()
    with pytest.raises(UsageError, match="upload had not finished"):
        verify(folder)


def test_an_incomplete_run_does_not_add_up(tmp_path: Path) -> None:
    run = synthetic_run(rows=12, shard_size=4)
    folder = write_run(run, tmp_path / "run")
    (folder / "attributions" / "method=paths" / "shard-00001-of-00003.parquet").unlink()
    publish(folder, REPO, dry_run=tmp_path / "published", allow_incomplete=True)
    report = verify(tmp_path / "published")
    assert report.problems == ["corpus: 12 rows, but 7 instances and 1 failed"]


FOREIGN = ["--model", "no-model", "--corpus", "no-corpus"]


RUN, PRUNE, ATTACK = (
    ["run", *FOREIGN, "--output", "FOLDER"],
    ["prune", "FOLDER", *FOREIGN],
    ["attack", "FOLDER", *FOREIGN],
)


@pytest.mark.parametrize(
    ("where", "arguments"),
    [
        *((where, words) for where in ("copy", "clone", "links") for words in (PRUNE, ATTACK)),
        # A run makes a run of files, but not of links (``test_restoring``).
        ("links", RUN),
        ("links", [*RUN, "--repair"]),
    ],
    ids=str,
)
def test_nothing_is_written_between_its_files(
    where: str, arguments: list[str], original: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "other name"
    if where == "links":
        link_files(original, tmp_path)
        folder = tmp_path / "snapshots" / "main"
    else:
        shutil.copytree(original, folder)
    if where == "clone":
        (folder / ".git").mkdir()
        (folder / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    before = {path: path.is_dir() or path.read_bytes() for path in folder.rglob("*")}
    done = command(*(text.replace("FOLDER", str(folder)) for text in arguments))
    assert done.status == 2
    assert re.search("is a published data set.* the run that it was made of", done.err)
    assert len(done.err.splitlines()) == 1
    assert {path: path.is_dir() or path.read_bytes() for path in folder.rglob("*")} == before


@pytest.mark.parametrize("left", [["README.md", "data"], ["data"]], ids=str)
def test_nor_without_its_manifest(left: list[str], folder: Path) -> None:
    for path in folder.iterdir():
        if path.name not in left:
            path.unlink()
    done = command("run", *FOREIGN, "--output", folder)
    assert done.status == 2
    assert f"holds no run (run.json), but {'README.md' if len(left) > 1 else 'data/'}" in done.err
    assert sorted(path.name for path in folder.iterdir()) == left


def test_nor_where_it_is_on_the_hub() -> None:
    done = command("run", *FOREIGN, "--output", "hf://datasets/someone/some-run")
    assert done.status == 2
    assert "is on the hub" in done.err and "`attribeam publish`" in done.err


def test_what_it_lacks_is_added_to_the_run(folder: Path) -> None:
    done = command("triggers", folder)
    assert done.status == 2
    assert "add them to the run that it was made of, and publish that again" in done.err
    assert str(folder) not in done.err.split("add them")[1]


def test_a_published_run_is_not_published_again(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is published already"):
        publish(folder, REPO, dry_run=tmp_path / "again")
    assert not (tmp_path / "again").exists()


def rewritten(folder: Path, change: Callable[[Any], Any]) -> None:
    """Changes the columns of one file of each table, and what ``run.json`` says of it."""
    manifest = json.loads((folder / "run.json").read_text())
    for table in (folder / "data").iterdir():
        if table.name in ("methods", "run", "wide"):
            continue
        path = next(table.rglob("*.parquet"))
        pq.write_table(change(pq.ParquetFile(path).read()), path, write_page_checksum=True)
        record = manifest["files"][path.relative_to(folder).as_posix()]
        record["sha256"] = sha256(path.read_bytes()).hexdigest()
    (folder / "run.json").write_text(json.dumps(manifest))


def faithful(folder: Path) -> list[Any]:
    with open_run(folder, commented=False) as connection:
        return connection.sql("from faithfulness_by_instance order by all").fetchall()


def test_what_a_later_version_adds_is_ignored(original: Path, folder: Path) -> None:
    """Columns in some files, a table, and keys of every part of the manifest."""
    rewritten(folder, lambda t: t.append_column("tomorrow", pa.array([1.0] * len(t))))
    manifest = json.loads((folder / "run.json").read_text())
    manifest |= {"new": {"a": 1}}
    for part in (manifest["identity"], *manifest["identity"].values(), *manifest["files"].values()):
        if part is not None:
            part["new"] = 1
    del manifest["identity"]["new"]
    manifest["methods"]["paths"]["new"] = [1]
    manifest["methods"]["paths"]["tables"].append("prophecies")
    new = folder / "data" / "prophecies" / "paths" / "test-00000-of-00001.parquet"
    new.parent.mkdir(parents=True)
    shutil.copyfile(next((folder / "data" / "curves" / "paths").iterdir()), new)
    record = {"rows": 1, "bytes": 1, "sha256": sha256(new.read_bytes()).hexdigest()}
    manifest["files"][new.relative_to(folder).as_posix()] = record
    (folder / "run.json").write_text(json.dumps(manifest))
    assert faithful(folder) == faithful(original) != []
    with open_run(folder, commented=False) as connection:
        columns = [name for name, *_ in connection.execute("describe attributions").fetchall()]
        assert columns == table_schema("attributions").names
    assert verify(folder).problems == []


def test_columns_that_came_later_are_null(original: Path, folder: Path) -> None:
    for_later = {"instances": "corpus_row", "attributions": "pixels", "failures": "corpus_row"}
    later = {*for_later.values()}
    rewritten(folder, lambda t: t.drop_columns([*later.intersection(t.column_names)]))
    assert faithful(folder) == faithful(original)
    assert verify(folder).problems == []
    with open_run(folder, commented=False) as connection:
        for table, column in for_later.items():
            connection.execute(f"select {column} from {table}").fetchall()
