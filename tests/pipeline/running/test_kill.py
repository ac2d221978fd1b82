"""Processes that are killed at any moment, and two at once: nothing is lost, doubled or torn."""

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from attribeam.analysis import verify
from attribeam.pipeline import run
from attribeam.schemas.layout import LOCK, MANIFEST, part_lock_path
from tests.support.killing import (
    CREATE,
    HALF,
    RENAME,
    WRITTEN,
    Blow,
    Job,
    Losses,
    Running,
    losses,
    random_blow,
    torn,
)
from tests.support.patience import until
from tests.support.tiny import command, files, stamps

LABELS = "failures/heads.attattr/shard-00001-of-00003.parquet"
HEADS = "heads/method=attattr/shard-00001-of-00003.parquet"


@pytest.fixture(scope="module")
def job(tiny_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Job:
    return Job.made(tmp_path_factory.mktemp("kill"), tiny_folder("bert"))


def test_killed_at_each_kind_of_step(job: Job, tmp_path: Path) -> None:
    """One folder, killed again and again, each time a bit further on."""
    for blow in (
        Blow(step=HALF, path="corpus/rows-00001.parquet"),
        Blow(step="deleted", path="corpus"),
        Blow(step=RENAME, path="statistics/"),
        Blow(step=HALF, path=MANIFEST),
        Blow(step=WRITTEN, path=MANIFEST),
        Blow(step=CREATE, path="instances/"),
        Blow(step=WRITTEN, path="failures/instances"),
        # Between the failures of a method that has several tables and their first, and after it.
        Blow(step=WRITTEN, path=LABELS),
        Blow(step=WRITTEN, path=HEADS),
        # In the third of the four that are left.
        Blow(step=HALF, path="curves/", skip=2),
    ):
        found = job.attempt(tmp_path, blow)
        assert found.killed, found
        assert found.where.startswith(blow.step) and blow.path in found.where
        assert torn(tmp_path, job.undisturbed) == []
    assert job.attempt(tmp_path).error == ""
    assert losses(tmp_path, job.undisturbed) == Losses()


def test_killed_at_random_moments(job: Job, tmp_path: Path) -> None:
    random = Random(3)
    for _ in range(4):
        job.attempt(tmp_path, random_blow(random, 3))
        assert torn(tmp_path, job.undisturbed) == []
    assert job.attempt(tmp_path).error == ""
    assert losses(tmp_path, job.undisturbed) == Losses()


def test_what_was_committed_is_not_done_again(job: Job, tmp_path: Path) -> None:
    assert job.attempt(tmp_path, Blow(step=WRITTEN, path=HEADS)).killed
    before = {path: (tmp_path / path).stat().st_mtime_ns for path in files(tmp_path)}
    assert len([path for path in before if path.startswith("attributions/")]) > 2
    assert run(job.options(tmp_path)).worked == 2
    after = {path: (tmp_path / path).stat().st_mtime_ns for path in files(tmp_path)}
    changed = {path for path in before if before[path] != after.get(path)}
    assert changed == {MANIFEST, LOCK}


def test_a_full_disk_tears_nothing(job: Job, tmp_path: Path) -> None:
    """The system itself refuses to write on, in the middle of a file."""
    size = max(path.stat().st_size for path in job.undisturbed.glob("curves/*/*"))
    found = job.attempt(tmp_path, most_bytes=size - 1)
    assert not found.killed
    assert "File too large" in found.error
    assert found.where.startswith("deleted ") and found.where.endswith(".tmp")
    assert not [path for path in files(tmp_path) if path.endswith(".tmp") or path == LOCK]
    assert torn(tmp_path, job.undisturbed) == []
    assert job.attempt(tmp_path).error == ""
    assert losses(tmp_path, job.undisturbed) == Losses()


# Two at once


def test_a_second_process_is_refused_and_harms_nothing(job: Job, tmp_path: Path) -> None:
    first = job.start(tmp_path)
    until((tmp_path / LOCK).exists)
    options = job.options(tmp_path)
    arguments = ("--model", options.model, "--corpus", options.corpus, "--output", tmp_path)
    second = command("run", *arguments, "--shard-size", 2)
    assert (second.status, second.out) == (2, "")
    pid, host = first.process.pid, os.uname().nodename
    assert f"{tmp_path} is in use by process {pid} on {host} since 20" in second.err
    assert first.process.is_alive()
    assert first.end().error == ""
    assert losses(tmp_path, job.undisturbed) == Losses()


def test_of_two_that_start_at_once_one_goes_on(job: Job, tmp_path: Path) -> None:
    ends = [process.end() for process in [job.start(tmp_path) for _ in range(2)]]
    refused, done = sorted(ends, key=lambda end: end.error == "")
    assert done.error == "" and "is in use by " in refused.error
    assert refused.where == ""  # It wrote nothing.
    assert losses(tmp_path, job.undisturbed) == Losses()


# Parts


def test_parts_at_once_of_which_one_is_killed(job: Job, tmp_path: Path) -> None:
    """And those of another number go on."""

    def start(part: str, blow: Blow | None = None) -> Running:
        log = job.folder / f"log-{part.replace('/', '-of-')}"
        return Running(replace(job.options(tmp_path), part=part), log, blow)

    first = [start("0/2"), start("1/2", Blow(step=WRITTEN, path=HEADS))]
    done, killed = (process.end() for process in first)
    assert done.error == "" and not done.killed
    assert killed.killed and killed.where == f"{WRITTEN} {HEADS}"
    assert torn(tmp_path, job.undisturbed) == []
    assert part_lock_path(1, 2) in files(tmp_path)
    (unfinished,) = verify(tmp_path).problems
    assert unfinished.startswith("not finished: ")
    before = stamps(tmp_path)
    assert len([path for path in before if path.startswith("attributions/")]) == 6
    second = [start(f"{number}/3") for number in range(3)]
    assert [process.end().error for process in second] == ["", "", ""]
    assert losses(tmp_path, job.undisturbed) == Losses()
    # Nothing was made a second time, but run.json, and the lock is gone.
    after = stamps(tmp_path)
    assert {path for path in before if before[path] != after.get(path)} == {
        MANIFEST,
        part_lock_path(1, 2),
    }
    calls = json.loads((tmp_path / MANIFEST).read_text())["executions"]
    assert sorted(call["part"] for call in calls) == ["0/2", "1/2", "1/3"]


# Workers


def workers(pid: int) -> list[int]:
    """The worker processes of a launcher."""
    found = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for each in found for child in each.read_text().split()]
    return [child for child in children if b"attribeam.pipeline.workers.leash" in _line(child)]


def _line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_killed_workers(job: Job, tmp_path: Path) -> None:
    """Beam itself would wait for them for ever."""
    options = replace(job.options(tmp_path), workers=3)
    # All of them, when they have hardly started.
    launcher = Running(options, job.folder / "log-of-workers")
    pid = launcher.process.pid
    assert pid is not None
    until(lambda: len(workers(pid)) == 3)
    for worker in workers(pid):
        os.kill(worker, signal.SIGKILL)
    found = launcher.end()
    assert "WorkerDiedError: a worker process was killed" in found.error
    assert torn(tmp_path, job.undisturbed) == []
    # One of them, when it has work.
    launcher = Running(options, job.folder / "log-of-workers")
    pid = launcher.process.pid
    assert pid is not None
    until(lambda: any(path.startswith("instances/") for path in files(tmp_path)))
    alive = workers(pid)
    os.kill(alive[0], signal.SIGKILL)
    found = launcher.end()
    assert "WorkerDiedError: a worker process was killed" in found.error
    assert not [worker for worker in alive if Path(f"/proc/{worker}").exists()]
    assert torn(tmp_path, job.undisturbed) == []
    assert job.attempt(tmp_path).error == ""
    assert losses(tmp_path, job.undisturbed) == Losses()
