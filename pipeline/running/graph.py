"""The whole job as a Beam graph: tasks in, tables written, records of the files out.

``Create`` of several tasks ends in a reshuffle; after that, reading, attributing and writing are
one fused stage. Nothing larger than the record of a file leaves it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import dropwhile
from threading import get_ident
from typing import NamedTuple

import apache_beam as beam
import pyarrow as pa
from apache_beam.ml.inference.base import RunInference
from apache_beam.pvalue import PCollection

from attribeam.pipeline.corpus.staging import read_rows
from attribeam.pipeline.running.handler import AttributionHandler
from attribeam.pipeline.running.missing import Task
from attribeam.pipeline.running.shard import Shard, UnitResult
from attribeam.pipeline.running.tables import failures_table
from attribeam.pipeline.settings import Settings
from attribeam.pipeline.store.connecting import connect_worker
from attribeam.pipeline.store.files import discard, is_local, join, stamp, write_parquet
from attribeam.pipeline.store.records import write_records
from attribeam.pipeline.store.uploads import Uploads
from attribeam.schemas import Unit, failures_path, unit_path
from attribeam.schemas.index import Entry

# Files that a worker writes before it says so; of a shard there are a few dozen.
_RECORDED = 1000


class FileRecord(NamedTuple):
    """A file that is committed when its bundle is."""

    unit: str
    shard: int
    rows: int
    failures: int


@dataclass
class Attribute(beam.PTransform):
    """Tasks to records of committed files.

    Attributes:
        settings: The run's settings.
    """

    settings: Settings

    def expand(self, pcoll: PCollection[Task]) -> PCollection[FileRecord]:
        """Reads, attributes and writes each shard."""
        return (
            pcoll
            | "Read" >> beam.ParDo(ReadShards(self.settings))
            | "Attribute" >> RunInference(AttributionHandler(self.settings).with_no_batching())
            | "Write" >> beam.ParDo(WriteUnits(self.settings))
        )


def build(pipeline: beam.Pipeline, tasks: list[Task], settings: Settings) -> None:
    """Adds the job to a pipeline."""
    _ = pipeline | "Tasks" >> beam.Create(tasks) | Attribute(settings)


class ReadShards(beam.DoFn):
    """Reads the shards of tasks."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings

    def setup(self) -> None:
        """The first of the steps in a worker: who it is started by may have told it nothing."""
        connect_worker(self._settings.stores)

    def process(self, element: Task) -> Iterator[Shard]:
        """Reads a shard."""
        yield from read_shard(element, self._settings.output)


def read_shard(task: Task, root: str) -> Iterator[Shard]:
    """The rows of a task's shard, and what is left to do of it; nothing if nothing is.

    A runner that loses a worker runs its whole bundle again, and that is many shards.
    """
    if units := tuple(dropwhile(partial(_is_committed, task, root), task.units)):
        yield Shard(replace(task, units=units), list(read_rows(root, task.shard)))


def _is_committed(task: Task, root: str, unit: Unit) -> bool:
    """Whether a unit has been made since the task was planned.

    Units are committed in order, so that one question does for a shard that nobody has begun.
    """
    now = stamp(join(root, unit_path(unit, task.shard, task.num_shards)))
    return now is not None and now != dict(task.before).get(unit)


class WriteUnits(beam.DoFn):
    """Commits units, and leaves a record of what it has written for the index of the run."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings
        self._written: list[Entry] = []
        # By thread, each of which has a bundle of its own: an engine may have them share this.
        self._uploads: dict[int, Uploads] = {}

    def setup(self) -> None:
        """It may be in another worker than what reads."""
        connect_worker(self._settings.stores)

    def process(self, element: UnitResult) -> Iterator[FileRecord]:
        """Commits a unit."""
        if is_local(self._settings.output):
            self._commit(element)
        else:  # Requests take time, in which the next shard can be computed.
            uploads = self._uploads.setdefault(get_ident(), Uploads())
            uploads.add(partial(self._commit, element))
        yield FileRecord(
            str(element.unit), element.shard, len(element.table), len(element.failures)
        )

    def finish_bundle(self) -> None:
        """Waits until all is committed, and says what was."""
        if uploads := self._uploads.pop(get_ident(), None):
            uploads.finish()
        self._say()

    def teardown(self) -> None:
        """What a bundle that has failed still waits for is not written any more."""
        while self._uploads:
            self._uploads.popitem()[1].stop()

    def _commit(self, result: UnitResult) -> None:
        self._written += write_unit(result, self._settings.output)
        if len(self._written) >= _RECORDED:
            self._say()

    def _say(self) -> None:
        # Threads of a worker may share this object.
        written, self._written = self._written, []
        if written:
            write_records(self._settings.output, written)


def write_unit(result: UnitResult, root: str) -> list[Entry]:
    """Commits a unit of a shard: its failures first, then the table that marks it as done.

    Returns:
        What the index is to say of its files.
    """
    unit, shard = result.unit, result.shard
    where = unit, shard, result.num_shards
    entries: list[Entry] = []

    def write(path: str, table: pa.Table) -> None:
        of = unit.table, unit.method, shard, shard
        entries.append(Entry(path, *of, *write_parquet(join(root, path), table)))

    failures = failures_path(*where)
    if result.failures:
        write(failures, failures_table(result.failures))
    else:
        discard(join(root, failures))  # Of an earlier try whose table was lost.
    write(unit_path(*where), result.table)
    return entries
