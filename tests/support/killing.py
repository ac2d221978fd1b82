"""Processes that are killed at any moment of a run, and what is then left of the run.

A process that imports torch and Beam takes longer to start than a small run takes. So each is a
fork of one that has imported everything (the fork server of ``multiprocessing``) and is killed by
SIGKILL: by a clock, or by its own hand at a step of writing a file, which no clock would meet.
"""

import json
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystems import FileSystems

from attribeam.analysis import verify
from attribeam.pipeline.options import Options
from attribeam.schemas import CONTENT_FIELDS
from attribeam.schemas.layout import MANIFEST
from attribeam.transforms.evaluate import Evaluation
from tests.support.tiny import assert_alike, files, rows, write_jsonl

FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["attribeam.pipeline.running.job", "tests.support.killing"])

# Steps of writing a file, in order. A process can kill itself at any of them.
CREATE, HALF, RENAME, WRITTEN = STEPS = ("create", "half", "rename", "written")
# Bytes of a note: what was done last, and after it what went wrong.
_NOTE = 300
# The tables that have no columns to compare by.
_OTHERS = ("corpus", "statistics", "failures")


class Blow(NamedTuple):
    """When a process is to be struck: after some seconds, or at a step of writing a file.

    Attributes:
        seconds: After so long; None for a step.
        step: One of ``STEPS``, or of deleting a file.
        path: Part of the path of the file.
        skip: How many such steps go by before.
        signal: What it sends itself at the step.
    """

    seconds: float | None = None
    step: str = ""
    path: str = ""
    skip: int = 0
    signal: int = signal.SIGKILL


class Attempt(NamedTuple):
    """What became of a process.

    Attributes:
        killed: Whether it was killed before its end.
        error: What it raised, if anything.
        where: What it had done last: "" for nothing, else a step and the path of a file.
        seconds: How long it took.
    """

    killed: bool
    error: str
    where: str
    seconds: float


class Running:
    """A process that runs a job.

    Args:
        options: The job.
        log: File for its notes; overwritten.
        blow: When it is killed; None for not at all.
        most_bytes: No file may become larger, as if the disk were full then.
    """

    def __init__(
        self,
        options: Options,
        log: Path,
        blow: Blow | None = None,
        most_bytes: int | None = None,
    ) -> None:
        self._log, self._blow = log, blow
        log.write_bytes(b"")
        self._start = time.monotonic()
        self.process = FORK.Process(target=_run, args=(options, str(log), blow, most_bytes))
        self.process.start()

    def end(self) -> Attempt:
        """Waits for its end, and brings it about when the time has come."""
        self.process.join(None if self._blow is None else self._blow.seconds)
        self.process.kill()
        self.process.join()
        notes = self._log.read_text()
        return Attempt(
            killed=self.process.exitcode == -signal.SIGKILL,
            error=notes[_NOTE:].strip("\0 "),
            where=notes[:_NOTE].strip("\0 "),
            seconds=time.monotonic() - self._start,
        )


@dataclass(frozen=True)
class Job:
    """A job that has all that a run can have: statistics, tables of details, curves, failures.

    Attributes:
        folder: Where its corpus, its notes and the run are that nobody disturbs.
        model: Folder of a tiny classifier.
    """

    folder: Path
    model: Path

    @property
    def undisturbed(self) -> Path:
        """The run that nobody disturbs."""
        return self.folder / "undisturbed"

    @classmethod
    def made(cls, folder: Path, model: Path) -> "Job":
        """Writes the corpus and runs the job once."""
        lines: list[Any] = rows(18)
        lines[4] = {"id": "empty", "text": ""}
        del lines[9]["label"]  # So that one method has nothing to explain.
        write_jsonl(folder / "corpus.jsonl", lines)
        job = cls(folder, model)
        first = job.attempt(job.undisturbed)
        assert not first.error, first.error
        return job

    def options(self, out: Path) -> Options:
        """The job into a folder; its corpus is three shards."""
        return Options(
            *(str(self.model), str(self.folder / "corpus.jsonl"), str(out)),
            methods="random,iba,attattr",
            params={"iba": {"steps": 1, "copies": 1}, "attattr": {"steps": 2, "target": "gold"}},
            evaluation=Evaluation(fractions=(0.5,)),
            shard_size=6,
            device="cpu",
        )

    def start(self, out: Path, blow: Blow | None = None, **more: Any) -> Running:
        """Starts the job in a process of its own; ``more`` is for ``Running``."""
        return Running(self.options(out), self.folder / f"log-{time.monotonic_ns()}", blow, **more)

    def attempt(self, out: Path, blow: Blow | None = None, **more: Any) -> Attempt:
        """Runs the job in a process of its own, to its end or its killing."""
        return self.start(out, blow, **more).end()


def _run(options: Options, log: str, blow: Blow | None, most_bytes: int | None) -> None:
    import torch

    from attribeam.pipeline.running.job import run

    torch.set_num_threads(1)
    if most_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    notes = os.open(log, os.O_WRONLY)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    Hand(options.output, notes, blow).lay_on()
    try:
        run(options)
    except Exception as error:
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        os.pwrite(notes, text[:_NOTE].encode(), _NOTE)
        sys.exit(1)


@dataclass
class Hand:
    """Notes each step of writing a file in this process, and kills it at one."""

    root: str
    notes: int
    blow: Blow | None
    met: int = 0

    def lay_on(self) -> None:
        """Wraps what files are written by; the process is thrown away afterwards."""
        from attribeam.pipeline.corpus import staging as corpus
        from attribeam.pipeline.running import again, graph, prepare
        from attribeam.pipeline.store import damage, files

        real, hand = FileSystems, self

        class Noted(real):  # type: ignore[misc, valid-type]
            @staticmethod
            def create(path: str, *arguments: Any) -> Any:
                place = path.removesuffix(files.TEMPORARY).rpartition(".")[0]
                hand.step(CREATE, place)
                return _Handle(real.create(path, *arguments), hand, place)

            @staticmethod
            def rename(sources: list[str], targets: list[str]) -> None:
                hand.step(RENAME, targets[0])
                real.rename(sources, targets)
                hand.step(WRITTEN, targets[0])

        files.FileSystems = Noted  # type: ignore[attr-defined]
        for module in (again, corpus, damage, files, graph, prepare):
            for name in ("discard", "discard_folder"):
                if name in vars(module):
                    setattr(module, name, self._noted(getattr(module, name)))

    def _noted(self, delete: Any) -> Any:
        def noted(path: str) -> None:
            if Path(path).exists():
                self.step("delete", path)
            delete(path)
            self.step("deleted", path)

        return noted

    def step(self, step: str, path: str) -> None:
        """Notes a step; the last one there is, if it is the one to be killed at."""
        relative = path.removeprefix(f"{self.root}/")
        os.pwrite(self.notes, f"{step} {relative}".ljust(_NOTE).encode(), 0)
        blow = self.blow
        if blow is not None and blow.step == step and blow.path in relative:
            if self.met == blow.skip:
                self.met += 1
                os.kill(os.getpid(), blow.signal)
            self.met += 1


class _Handle:
    """A file that is being written, of which a step is half a write."""

    def __init__(self, handle: Any, hand: Hand, place: str) -> None:
        self._handle, self._hand, self._place = handle, hand, place

    def write(self, content: Any) -> Any:
        content = bytes(content)
        self._handle.write(content[: len(content) // 2])
        self._handle.flush()
        self._hand.step(HALF, self._place)
        return self._handle.write(content[len(content) // 2 :])

    def __enter__(self) -> "_Handle":
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handle, name)


# What is left -------------------------------------------------------------------------------------


@dataclass
class Losses:
    """Where a run differs from the one that nobody disturbed.

    Attributes:
        lost: Rows that are missing.
        doubled: Rows that are there too often, or shouldn't be there.
        torn: Files that can't be read.
        altered: Files whose numbers are others.
        stray: Files that shouldn't be there.
        unsound: What ``verify`` says.
    """

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)
    stray: list[str] = field(default_factory=list)
    unsound: list[str] = field(default_factory=list)


def losses(out: Path, undisturbed: Path) -> Losses:
    """Compares a finished run with the undisturbed one, row by row."""
    found = Losses(unsound=verify(out).problems)
    ours, theirs = files(out), files(undisturbed)
    found.stray = sorted(ours - theirs)
    for path in sorted(theirs - {MANIFEST}):
        try:
            table = _table(out / path, path) if path in ours else None
        except (pa.ArrowException, OSError):
            found.torn.append(path)
            continue
        _compare(path, table, _table(undisturbed / path, path), found)
    manifest, expected = (
        {k: v for k, v in json.loads((root / MANIFEST).read_text()).items() if k != "executions"}
        for root in (out, undisturbed)
    )
    if manifest != expected:
        found.altered.append(MANIFEST)
    return found


def torn(out: Path, undisturbed: Path) -> list[str]:
    """Files of an unfinished run that are in their place but not what they should be."""
    found = Losses()
    for path in sorted(files(out) & files(undisturbed) - {MANIFEST}):
        try:
            _compare(path, _table(out / path, path), _table(undisturbed / path, path), found)
        except (pa.ArrowException, OSError):
            found.torn.append(path)
    if (out / MANIFEST).exists():
        json.loads((out / MANIFEST).read_text())
    return [*found.torn, *found.altered, *found.lost, *found.doubled]


def _table(file: Path, path: str) -> pa.Table:
    table = pq.ParquetFile(file, page_checksum_verification=True).read()
    name = path.split("/", maxsplit=1)[0]
    return table if name in _OTHERS else table.select(CONTENT_FIELDS[name])


def _compare(path: str, ours: pa.Table | None, theirs: pa.Table, found: Losses) -> None:
    rows, expected = (Counter(_keys(table)) for table in (ours, theirs))
    found.lost += [f"{path}: {key}" for key in (expected - rows).elements()]
    found.doubled += [f"{path}: {key}" for key in (rows - expected).elements()]
    if ours is not None and rows == expected:
        try:
            assert_alike(ours, theirs)
        except AssertionError:
            found.altered.append(path)


def _keys(table: pa.Table | None) -> Iterator[str]:
    """What a row is known by: all in it that isn't a float or a list."""
    if table is not None:
        plain = [
            name
            for name, kind in zip(table.column_names, table.schema.types, strict=True)
            if not (pa.types.is_floating(kind) or pa.types.is_list(kind)) or name == "layer"
        ]
        yield from map(str, table.select(plain).to_pylist())


def struck(where: str) -> str:
    """The stage of a run that a step belongs to."""
    if not where:
        return "before anything was written"
    step, path = where.split(" ", 1)
    place = path.split("/")[0]
    kinds = {"corpus": "staging the corpus", "statistics": "statistics", MANIFEST: "run.json"}
    kind = kinds.get(place, f"committing {place}" if place != "failures" else "failures")
    return kind if step not in (WRITTEN, "deleted") else f"after {kind}"


def random_blow(random: Random, seconds: float) -> Blow:
    """A blow at a random moment of a run that takes some seconds."""
    if random.random() < 0.5:
        return Blow(seconds=random.uniform(0, seconds))
    step = random.choice(STEPS)
    return Blow(step=step, skip=int(random.expovariate(1 / 6)))
