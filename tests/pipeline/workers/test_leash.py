"""Workers and their launcher end together. With real workers: ``test_kill.py``."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from attribeam.pipeline.workers.leash import WorkerDiedError, run_leashed
from tests.support.patience import HANG

WORKER = (
    "import time\n"
    "from attribeam.pipeline.workers.leash import follow_launcher\n"
    "follow_launcher()\n"
    "print('follows', flush=True)\n"
    "time.sleep(10**6)\n"
)
LAUNCHER = (
    "import subprocess, sys\n"
    "from attribeam.pipeline.workers.leash import run_leashed\n"
    f"run_leashed(lambda: subprocess.run([sys.executable, '-c', {WORKER!r}]))\n"
)
ROOT = Path(__file__).parents[3]


def started(code: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "follows\n"
    return process


def test_a_worker_does_not_outlive_its_launcher() -> None:
    launcher = started(LAUNCHER)
    launcher.kill()
    # The pipe is closed when the last one that could write to it is gone.
    launcher.communicate(timeout=HANG)


def test_without_a_launcher_there_is_nothing_to_follow() -> None:
    worker = started(WORKER)
    time.sleep(0.3)
    assert worker.poll() is None
    worker.kill()
    worker.communicate()


def test_workers_end_with_the_work() -> None:
    workers = []

    def work() -> None:
        workers.append(started(WORKER))
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        run_leashed(work)
    assert workers[0].wait(timeout=HANG) == 1
    workers[0].communicate()
    assert not [name for name in os.environ if name.startswith("ATTRIBEAM")]


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ("137", "a worker process was killed (is there too little memory"),
        ("-9", "a worker process was killed (is there too little memory"),
        ("3", "a worker process ended with status 3"),
    ],
)
def test_work_that_waits_for_a_dead_worker_is_given_up(status: str, message: str) -> None:
    """This is what Beam does when one of its workers is killed."""

    def wait_for_worker() -> None:
        raise RuntimeError(f"Worker subprocess exited with return code {status}")

    def work() -> None:
        threading.Thread(target=wait_for_worker, name="run_worker").start()
        threading.Event().wait()

    before = threading.excepthook
    with pytest.raises(WorkerDiedError) as caught:
        run_leashed(work)
    assert str(caught.value).startswith(message)
    assert threading.excepthook is before
