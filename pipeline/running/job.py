"""Running a job: prepare it, plan what is missing, hand that to a Beam runner."""

import builtins
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import apache_beam as beam
from apache_beam.io.filesystem import BeamIOError
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from attribeam.pipeline.options import Options
from attribeam.pipeline.parts import RunPart, part_of, read_part
from attribeam.pipeline.running import progress
from attribeam.pipeline.running.again import make_room
from attribeam.pipeline.running.graph import build
from attribeam.pipeline.running.indexing import index_run
from attribeam.pipeline.running.loadable import describe_run
from attribeam.pipeline.running.manifest import read_manifest, write_manifest
from attribeam.pipeline.running.missing import Task, plan, units_of_run
from attribeam.pipeline.running.outcome import Outcome, outcome
from attribeam.pipeline.running.prepare import Prepared, load, note, prepare
from attribeam.pipeline.running.weighing import weigher
from attribeam.pipeline.settings import Settings
from attribeam.pipeline.store.files import DamagedError, each_file, is_local
from attribeam.pipeline.store.lock import locked, locked_part
from attribeam.pipeline.store.there import There
from attribeam.pipeline.workers.devices import NoGpuError
from attribeam.pipeline.workers.engines import connect, is_dry_run
from attribeam.pipeline.workers.leash import WORKER, run_leashed
from attribeam.pipeline.workers.model_files import send_model
from attribeam.pipeline.workers.pool import with_pool
from attribeam.schemas import UsageTypeError
from attribeam.schemas.manifest import Manifest

# What Beam adds to a message, and the last line of a traceback.
_STEP = re.compile(r" \[while running '[^']*'\]")
_ERROR = re.compile(r"((?:\w+\.)*)(\w+): (.*)")
# The libraries of the stores, whose errors are no OSError.
_STORES = (
    *("apache_beam.io.aws.", "botocore.", "urllib3."),
    *("apache_beam.io.gcp.", "google.api_core.", "google.auth.", "google.cloud."),
)


class Rest(NamedTuple):
    """What a whole run lacks: shards that aren't complete, and the files that these lack."""

    shards: int
    files: int


@dataclass(frozen=True)
class Summary:
    """What a run came to, or a part of it.

    Attributes:
        output: The run's folder.
        rows: Rows of the corpus.
        shards: Number of shards.
        own: Number of those that this call was for: all, or those of its part.
        worked: Shards that this call had to work on.
        outcome: What is in the folder of these, from this call and earlier ones.
        damaged: Files that were found to be damaged, and were made again.
        left: Sentences on those that were left as they are.
        seconds: Wall time of this call.
        part: The part that this call was for; None for the whole run.
        rest: What of the whole run wasn't there when a part was done; None for the whole run.
    """

    output: str
    rows: int
    shards: int
    own: int
    worked: int
    outcome: Outcome
    damaged: int
    left: list[str]
    seconds: float
    part: RunPart | None = None
    rest: Rest | None = None

    @property
    def failures(self) -> int:
        """Rows of ``failures`` in the folder, of the shards that the call was for."""
        return self.outcome.failures


def run(options: Options, tell: Callable[[str], None] = lambda _: None) -> Summary:
    """Runs a job to its end, or continues one that was cut short or lacks methods.

    Args:
        options: What to run.
        tell: Is given sentences on what was guessed of the corpus, if there is work to do.

    Raises:
        UsageError: If anything about the options is wrong, or another process is at work in the
            folder, or on shards of the part; nothing has been attributed then.
        OSError: If the disk is full, a file is damaged, or a worker process was killed. What is
            committed by then is kept.
    """
    start = time.monotonic()
    if not isinstance(options, Options):
        raise UsageTypeError(f"run takes attribeam.Options, not a {type(options).__name__}")
    options = _with_part(options)
    workers = connect(options)
    # While a part has the folder others wait, and should not for what each does for itself.
    loaded = None if options.part is None else load(options, workers)
    with _locked(options) as let_others:
        prepared = prepare(options, workers, loaded)
        del loaded  # Who attributes loads the model again.
        _begin(prepared, options, tell)
        let_others()
        work, settings = prepared.work, prepared.work.settings
        if work.tasks:
            size = prepared.shard_size
            sizes = [
                min(size, prepared.rows - shard * size) for shard in range(settings.num_shards)
            ]
            with progress.watching(settings.output, work.tasks, sizes, weigher(settings)):
                execute(work.tasks, settings, options)
        return _summary(prepared, options, start)


def _with_part(options: Options) -> Options:
    """The options with the number of the part in place of where that is to be read."""
    if options.part is None:
        return options
    part, source = read_part(options.part, os.environ)
    if source:
        note(f"--part {options.part} is {part} ({source})")
    return replace(options, part=str(part))


@contextmanager
def _locked(options: Options) -> Iterator[Callable[[], None]]:
    """Has the folder, and from the call of what it yields on no more than the part if it is one."""
    if options.part is None:
        with locked(options.output):
            yield lambda: None
    else:
        with locked_part(options.output, part_of(options.part)) as let_others:
            yield let_others


def _begin(prepared: Prepared, options: Options, tell: Callable[[str], None]) -> None:
    """Says what is to be said, and writes what workers and other parts need."""
    work, settings = prepared.work, prepared.work.settings
    if work.tasks:
        for sentence in prepared.notes:
            note(sentence)
        for sentence in prepared.guessed:
            tell(sentence)
    if work.tasks or not prepared.begun:
        write_manifest(settings.output, prepared.manifest)
    if work.tasks and not is_dry_run(options):
        make_room(settings.output, work, settings.num_shards)
        send_model(settings)
        if settings.imputer is not None:
            send_model(settings.of_imputer)


def _summary(prepared: Prepared, options: Options, start: float) -> Summary:
    work, settings, part = prepared.work, prepared.work.settings, part_of(options.part)
    root, shards = settings.output, settings.num_shards
    # Another part may have added methods.
    manifest = read_manifest(root) or prepared.manifest
    rest = _rest(root, shards, manifest)
    if not rest.files and not is_dry_run(options):
        index_run(root, manifest, read=bool(work.tasks) and is_local(root))
        describe_run(root, manifest)
    return Summary(
        output=root,
        rows=prepared.rows,
        shards=shards,
        own=len(part.shards(shards)),
        worked=len(work.tasks),
        outcome=outcome(root, work.units, shards, work.spoiled, part),
        damaged=len(work.again),
        left=work.left,
        part=None if options.part is None else part,
        rest=None if options.part is None else rest,
        seconds=time.monotonic() - start,
    )


def _rest(root: str, num_shards: int, manifest: Manifest) -> Rest:
    """What a run lacks, of whichever part and method."""
    units = units_of_run({name: of["tables"] for name, of in manifest["methods"].items()})
    tasks = plan(units, There(num_shards, each_file(root)))
    return Rest(len(tasks), sum(len(task.units) for task in tasks))


def execute(tasks: list[Task], settings: Settings, options: Options) -> None:
    """Runs tasks on the Beam runner that was asked for, and waits for the end."""

    def work(runner: FnApiRunner | None = None) -> None:
        with beam.Pipeline(runner, PipelineOptions(options.beam_flags)) as pipeline:
            build(pipeline, tasks, settings)

    if options.workers > 1 and options.runner == "FnApiRunner":
        worker = SubprocessSDKEnvironment.from_command_string(WORKER)
        run_leashed(lambda: work(FnApiRunner(worker)))
    else:
        try:
            with_pool(options, work)
        except RuntimeError as error:
            # What Beam makes of Ctrl-C in the midst of its work.
            if _lines(error)[-1:] == ["KeyboardInterrupt"]:
                raise KeyboardInterrupt from None
            raise


def cause(error: Exception) -> str | None:
    """What stopped a run, in a line, where it wasn't a bug: a disk, a network, a dead worker.

    Beam hands on some errors as nothing but text, which ends in the name and message of the first.
    """
    lines = _lines(error)
    if isinstance(error, OSError) or f"{type(error).__module__}.".startswith(_STORES):
        return " ".join(lines) or type(error).__name__
    found = _ERROR.fullmatch(lines[-1]) if lines and isinstance(error, RuntimeError) else None
    if found is None:
        return None
    known = {
        DamagedError,
        NoGpuError,
        BeamIOError,
        *(each for each in vars(builtins).values() if _is_os(each)),
    }
    stopped = found[1].startswith(_STORES) or found[2] in {each.__name__ for each in known}
    return found[3] if stopped else None


def _lines(error: Exception) -> list[str]:
    """What an error says, without what Beam adds."""
    return [_STEP.sub("", line).strip() for line in str(error).splitlines() if line.strip()]


def _is_os(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, OSError)
