"""What the progress bar counts: tables as they come, those that are replaced, and failures."""

import shutil
from pathlib import Path

import pytest

from attribeam.analysis import load_manifest
from attribeam.analysis.opening.files import units
from attribeam.pipeline.running.missing import Task
from attribeam.pipeline.running.progress import _Watch
from attribeam.pipeline.store.files import count_rows, stamp
from attribeam.schemas import Unit, unit_path
from tests.support.synthetic_run import synthetic_run, write_run

SHARDS, ROWS = 4, 2


def weigh(unit: Unit) -> float:
    """Curves are more of the work than what they are of."""
    return 3.0 if unit.table == "curves" else 1.0


@pytest.fixture
def done(tmp_path: Path) -> Path:
    write_run(synthetic_run(rows=SHARDS * ROWS, shard_size=ROWS, failing=True), tmp_path / "done")
    return tmp_path / "done"


def test_each_table_and_failure_is_counted_once(done: Path, tmp_path: Path) -> None:
    known = units(load_manifest(done))
    out = tmp_path / "out"
    watch = _Watch(
        str(out), [Task(n, SHARDS, tuple(known)) for n in range(SHARDS)], [ROWS] * SHARDS, weigh
    )
    assert watch.instances == SHARDS * ROWS
    assert watch.total == pytest.approx(watch.instances * sum(map(weigh, known)))
    assert (watch.look(), watch.failures) == (0, 0)
    half = [unit_path(unit, shard, SHARDS) for unit in known for shard in (0, 3)]
    shutil.copytree(done / "failures", out / "failures")
    (out / "notes").mkdir()
    for path in [*half, "run.json"]:
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(done / path, out / path)
    (out / f"{half[0]}.1f.tmp").touch()
    assert watch.look() == watch.look() == pytest.approx(1 / 2)
    shutil.copytree(done, out, dirs_exist_ok=True)
    assert watch.look() == watch.look() == pytest.approx(1)
    assert watch.committed == pytest.approx(watch.total)
    assert watch.failures == sum(map(count_rows, map(str, done.glob("failures/*/*")))) > 0


def test_what_is_replaced_counts_when_it_is(done: Path) -> None:
    unit = Unit("instances")
    path = done / unit_path(unit, 1, SHARDS)
    before = stamp(str(path))
    assert before is not None
    task = Task(1, SHARDS, (unit,), ((unit, before),))
    watch = _Watch(str(done), [task], [ROWS] * SHARDS, weigh)
    assert watch.look() == 0
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:4] + b" " + content[4:])
    assert watch.look() == 1 and watch.committed == ROWS
