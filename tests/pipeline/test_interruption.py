"""Ctrl-C, and what schedulers send: one sentence, the status, and nothing torn or left behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from attribeam.pipeline.__main__ import main
from attribeam.schemas.layout import LOCK, MANIFEST
from tests.pipeline.running.test_kill import workers
from tests.support.killing import CREATE, FORK, HALF, RENAME, Blow, Hand, Job, Losses, losses, torn
from tests.support.patience import HANG, until
from tests.support.tiny import command, files

ROOT = Path(__file__).parents[2]
SENTENCE = "attribeam: interrupted"
CONTINUES = f"{SENTENCE}; the same command continues\n"
# Enough to be in the midst of it for as long as anybody looks.
SLOW = ("--methods", "lime", "--set", "lime.samples=20000", "--shard-size", "1", "--device", "cpu")


@pytest.fixture(scope="module")
def job(tiny_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Job:
    return Job.made(tmp_path_factory.mktemp("interrupted"), tiny_folder("bert"))


class Process:
    """The command as a process of its own; like those of ``tests.support.killing``, a fork.

    Args:
        log: Where what it says goes; overwritten.
        arguments: The command's words.
        blow: A step of writing a file at which it sends itself a signal, and that signal.
    """

    def __init__(self, log: Path, *arguments: object, blow: tuple[Blow, Path] | None = None):
        self._log = log
        words = [str(argument) for argument in arguments]
        self.process = FORK.Process(target=_command, args=(words, str(log), blow))
        self.process.start()

    def send(self, number: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def end(self) -> tuple[int | None, str]:
        """Its status and what it said, but of progress and columns; that it ends is checked."""
        self.process.join(HANG)
        assert not self.process.is_alive()
        said = self._log.read_text().splitlines(keepends=True)
        told = "".join(line for line in said if not line.startswith(("attributing: ", "text: ")))
        return self.process.exitcode, told


def _command(words: list[str], log: str, blow: tuple[Blow, Path] | None) -> None:
    heard()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(said, stream)
    if blow is not None:
        notes = os.open(f"{log}.notes", os.O_WRONLY | os.O_CREAT)
        Hand(str(blow[1]), notes, blow[0]).lay_on()
    sys.argv = ["attribeam", *words]
    sys.exit(main())


def run_of(job: Job, out: Path) -> list[object]:
    """The words of the job of ``tests.support.killing``."""
    return [
        *("run", "--model", job.model, "--corpus", job.folder / "corpus.jsonl", "--output", out),
        *("--methods", "random,iba,attattr", "--fractions", "0.5", "--shard-size", 6),
        *("--set", "iba.steps=1", "--set", "iba.copies=1", "--device", "cpu"),
        *("--set", "attattr.steps=2", "--set", "attattr.target=gold"),
    ]


def leftovers(out: Path) -> list[str]:
    return [path for path in files(out) if path.endswith(".tmp") or path == LOCK]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_while_a_shard_is_worked_on(number: int, job: Job, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("run", "--model", job.model, "--corpus", job.folder / "corpus.jsonl", *SLOW)
    process = Process(tmp_path / "log", *words, "--output", out)
    # The first shard is committed, and the next one is at work.
    until((out / "curves" / "method=lime").exists)
    process.send(number)
    process.send(number)  # Somebody is impatient.
    assert process.end() == (128 + number, CONTINUES)
    assert leftovers(out) == []
    assert len(list(out.glob("instances/*"))) < 18
    assert torn(out, out) == []


def test_at_each_kind_of_step(job: Job, tmp_path: Path) -> None:
    """One folder, interrupted again and again, each time a bit further on."""
    out = tmp_path / "out"
    for step, path in (
        (HALF, "corpus/rows-00001.parquet"),
        (RENAME, "statistics/"),
        (HALF, MANIFEST),
        (CREATE, "instances/"),
        (HALF, "heads/method=attattr/shard-00001-of-00003.parquet"),
        (RENAME, "failures/heads.attattr/shard-00001-of-00003.parquet"),
    ):
        blow = Blow(step=step, path=path, signal=signal.SIGINT)
        process = Process(tmp_path / "log", *run_of(job, out), blow=(blow, out))
        assert process.end() == (130, CONTINUES), path
        assert leftovers(out) == []
        assert torn(out, job.undisturbed) == []
    assert command(*run_of(job, out)).status == 1  # Of two failures that are meant.
    assert losses(out, job.undisturbed) == Losses()


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_with_workers(job: Job, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("run", "--model", job.model, "--corpus", job.folder / "corpus.jsonl", *SLOW)
    process = Process(tmp_path / "log", *words, "--output", out, "--workers", 2)
    until((out / "instances").exists)
    pid = process.process.pid
    assert pid is not None
    alive = workers(pid)
    assert len(alive) == 2
    for each in (*alive, pid):  # As of a terminal, which sends it to all.
        os.kill(each, signal.SIGINT)
    assert process.end() == (130, CONTINUES)
    until(lambda: not [worker for worker in alive if Path(f"/proc/{worker}").exists()])
    # What a worker was writing is swept by the next call.
    assert LOCK not in leftovers(out)


def started(*arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heard,  # noqa: PLW1509  There are no threads.
    )


def heard() -> None:
    """Has a process hear the signals that the tests themselves may ignore, as under ``nohup``."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_DFL)


def test_while_a_query_is_answered(job: Job) -> None:
    sql = "select range, repeat('x', 1000) from range(1000000000)"
    query = started("-m", "attribeam.pipeline", "query", job.undisturbed, sql, "--format", "csv")
    assert query.stdout is not None
    query.stdout.readline()
    query.send_signal(signal.SIGINT)
    assert query.communicate(timeout=HANG)[1] == f"{SENTENCE}\n"
    assert query.returncode == 130


# Whose main thread hears nothing, while another one goes on and on.
DEAF = """
import hashlib, sys, threading, time
from attribeam.pipeline.interruption import heeded, lastly
threading.Thread(target=time.sleep, args=(1000,)).start()
with heeded("the end"), lastly(lambda: print("let go", flush=True)):
    while True:
        try:
            print("begun", flush=True)
            {body}
        except BaseException:
            print("an error", file=sys.stderr)
"""


@pytest.mark.parametrize(
    "body", ["time.sleep(1000)", "hashlib.pbkdf2_hmac('sha256', b'a', b'b', 2**31 - 1)"]
)
def test_what_does_not_listen_is_ended(body: str) -> None:
    """One that takes the interrupt for an error, and one that is in C and doesn't look."""
    process = started("-c", DEAF.format(body=body))
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=HANG)
    assert (process.returncode, err) == (143, "the end\n")
    assert out.endswith("let go\n")


def test_what_is_ignored_stays_ignored() -> None:
    """As under nohup."""
    code = (
        "import os, signal\n"
        "from attribeam.pipeline.interruption import heeded\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "with heeded('the end'):\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "print('done')\n"
    )
    assert started("-c", code).communicate(timeout=HANG) == ("done\n", "")


def test_a_value_that_is_returned_stays() -> None:
    code = "import sys\nfrom attribeam.pipeline.__main__ import main\nsys.exit(main())"
    process = started("-c", code, "verify", "/lost")
    assert "/lost is no run folder" in process.communicate(timeout=HANG)[1]
    assert process.returncode == 2
