"""Compacting: fewer files with the same rows, whatever happens in between, and a run as before."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from attribeam.analysis import load_manifest, open_run, verify
from attribeam.analysis.joining import groups
from attribeam.analysis.opening.files import survey, unfinished
from attribeam.pipeline.running import compacting
from attribeam.pipeline.running.compacting import compact
from attribeam.pipeline.store import replacing
from attribeam.schemas import TABLES, Unit, UsageError, unit_path
from attribeam.schemas.index import INDEX, entries_of
from attribeam.schemas.layout import MANIFEST, REPLACING, Place, shards_path
from tests.support.synthetic_run import SyntheticRun, synthetic_run, write_run

SHARDS = 6
SAMPLE = Unit("attributions", "paths")


@pytest.fixture(scope="module")
def synthetic() -> SyntheticRun:
    return synthetic_run(rows=6 * 4 - 1, shard_size=4)


@pytest.fixture(scope="module")
def scattered(synthetic: SyntheticRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six shards that nobody changes."""
    return write_run(synthetic, tmp_path_factory.mktemp("scattered") / "run")


@pytest.fixture
def out(scattered: Path, tmp_path: Path) -> Path:
    return shutil.copytree(scattered, tmp_path / "run")


@pytest.fixture(scope="module")
def expected(scattered: Path) -> dict[str, list[Any]]:
    return content(scattered)


def content(folder: Path) -> dict[str, list[Any]]:
    """All rows of a run by table, in one order."""
    with open_run(folder, commented=False) as connection:
        return {
            table: sorted(connection.sql(f"from {table}").fetchall(), key=repr) for table in TABLES
        }


def committed(folder: Path) -> list[str]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("shard-*.parquet"))
    return sorted(found)


def leftovers(folder: Path) -> list[str]:
    return [
        path.name for path in folder.rglob("*") if ".tmp" in path.name or path.name == REPLACING
    ]


def test_a_run_has_a_file_for_each_unit(out: Path, expected: dict[str, list[Any]]) -> None:
    before = committed(out)
    done = compact(str(out))
    tables = [path for path in committed(out) if not path.startswith("failures")]
    assert all("shard-00000..00005-of-00006" in path for path in tables)
    assert (done.after, done.left) == (len(tables), [])
    assert done.before == SHARDS * len(tables) < len(before)
    assert content(out) == expected
    assert verify(out).problems == []
    assert unfinished(out) is None
    assert leftovers(out) == []
    # And the index has all of it.
    entries = {entry.path: entry for entry in entries_of(pq.read_table(out / INDEX))}
    assert [*entries] == committed(out)
    for path, entry in entries.items():
        assert entry.bytes == (out / path).stat().st_size
        assert entry.rows == pq.read_metadata(out / path).num_rows
        assert entry.sha256 == sha256((out / path).read_bytes()).hexdigest()
        assert (entry.last - entry.first > 0) == (".." in path)
    again = compact(str(out))
    assert again == (len(tables), len(tables), [])


def test_shards_that_follow_each_other_are_joined(
    out: Path, expected: dict[str, list[Any]]
) -> None:
    """Of a run that isn't finished; what comes later is joined with that."""
    gap = out / unit_path(SAMPLE, 2, SHARDS)
    content_of_gap = gap.read_bytes()
    gap.unlink()
    compact(str(out))
    there = [path.name for path in sorted((out / SAMPLE.folder).iterdir())]
    assert there == ["shard-00000..00001-of-00006.parquet", "shard-00003..00005-of-00006.parquet"]
    sentence = unfinished(out)
    assert sentence is not None
    assert sentence.startswith("not finished: ")
    gap.write_bytes(content_of_gap)
    compact(str(out))
    assert [path.name for path in (out / SAMPLE.folder).iterdir()] == [
        "shard-00000..00005-of-00006.parquet"
    ]
    assert content(out) == expected


def test_files_grow_no_further_than_asked(
    out: Path, expected: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (out / unit_path(SAMPLE, 0, SHARDS)).stat().st_size
    monkeypatch.setattr(compacting, "groups", lambda sizes: groups(sizes, size * 3))
    compact(str(out))
    names = [path.name for path in sorted((out / SAMPLE.folder).iterdir())]
    assert 1 < len(names) < SHARDS
    assert content(out) == expected


class KilledError(BaseException):
    """As a signal that nothing is done after."""


@contextmanager
def killed_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Ends the process, as far as files are concerned, before the n-th change of a name."""
    left = [step]

    def counting(change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*given: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise KilledError
            return change(*given)

        return changed

    with monkeypatch.context() as patched:
        patched.setattr(replacing, "move", counting(replacing.move))
        patched.setattr(replacing, "discard", counting(replacing.discard))
        yield left


def test_it_may_be_killed_at_any_moment(
    scattered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are never there twice, what is missing is said, and the same command goes on."""
    instances, small = Unit("instances"), tmp_path / "small"
    rows = ids(scattered)
    step, seen, killed = 0, set(), True
    while killed:
        shutil.copytree(scattered / instances.folder, small / instances.folder)
        shutil.copy(scattered / MANIFEST, small)
        try:
            with killed_at(step, monkeypatch):
                compact(str(small))
            killed = False
        except KilledError:
            now = ids(small)
            assert len(now) == len(set(now))
            seen.add(now == rows)
            assert now == rows or (small / REPLACING).exists()
            compact(str(small))
        assert ids(small) == rows
        assert leftovers(small) == []
        assert len(committed(small)) == 1
        shutil.rmtree(small)
        step += 1
    assert step > SHARDS + 2
    assert seen == {True, False}


def ids(folder: Path) -> list[str]:
    """Ids of the instances of a run, as whoever reads its files finds them."""
    files = sorted((folder / "instances").glob("shard-*.parquet"))
    return [name for file in files for name in pq.read_table(file)["instance_id"].to_pylist()]


def test_what_was_cut_short_is_said(scattered: Path, tmp_path: Path) -> None:
    out = shutil.copytree(scattered, tmp_path / "run")
    (out / REPLACING).write_text('{"gone": [], "come": {}}')
    assert any(REPLACING in problem for problem in verify(out).problems)
    compact(str(out))
    assert verify(out).problems == []


def test_a_damaged_file_is_left_and_said(out: Path) -> None:
    path = out / unit_path(SAMPLE, 1, SHARDS)
    content = path.read_bytes()[:-9]
    path.write_bytes(content)
    done = compact(str(out))
    assert len(done.left) == 1
    assert str(SAMPLE) in done.left[0]
    assert path.read_bytes() == content
    assert len([each for each in committed(out) if each.startswith(SAMPLE.folder)]) == SHARDS
    assert leftovers(out) == []


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no run folder"):
        compact(str(tmp_path))


def test_a_shard_in_two_files_is_found(out: Path) -> None:
    """As an earlier version would leave it that knows no file of several shards."""
    single = (out / unit_path(SAMPLE, 1, SHARDS)).read_bytes()
    compact(str(out))
    (out / unit_path(SAMPLE, 1, SHARDS)).write_bytes(single)
    assert any("in more than one file" in each for each in survey(out, load_manifest(out)).problems)


@pytest.mark.parametrize("where", ["start", "middle", "end"])
def test_a_flipped_bit_is_found(out: Path, where: str) -> None:
    """Wherever it is: in a page, in what lies between them, in the footer."""
    compact(str(out))
    path = shards_path(Place(SAMPLE, range(SHARDS), SHARDS))
    content = bytearray((out / path).read_bytes())
    content[{"start": 1, "middle": len(content) // 2, "end": len(content) - 20}[where]] ^= 4
    (out / path).write_bytes(content)
    manifest = load_manifest(out)
    (problem,) = survey(out, manifest).problems
    assert problem.startswith(f"{path}: is not what was written")


def test_several_processes_find_the_same(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from attribeam.analysis.opening import reading

    monkeypatch.setattr(reading, "_AT_ONCE", 40)
    path = unit_path(SAMPLE, 3, SHARDS)
    (out / path).write_bytes(b"PAR1")
    manifest = load_manifest(out)
    alone, together = survey(out, manifest), survey(out, manifest, processes=2)
    assert alone == together
    assert any(problem.startswith(path) for problem in together.problems)


def test_duckdb_reads_it_by_itself(out: Path, expected: dict[str, list[Any]]) -> None:
    compact(str(out))
    found = duckdb.execute(f"select count(*) from '{out}/attributions/*/*.parquet'").fetchone()
    assert found == (len(expected["attributions"]),)
