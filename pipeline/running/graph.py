"""The whole job as a Beam graph: tasks in, tables written, records of the files out.

``Create`` of several tasks ends in a reshuffle; after that, reading, attributing and writing are
one fused stage. Nothing larger than the record of a file leaves it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import dropwhile
from typing import NamedTuple

import apache_beam as beam
from apache_beam.ml.inference.base import RunInference
from apache_beam.pvalue import PCollection

from attribeam.pipeline.corpus.staging import read_rows
from attribeam.pipeline.running.handler import AttributionHandler
from attribeam.pipeline.running.missing import Task
from attribeam.pipeline.running.shard import Shard, UnitResult
from attribeam.pipeline.running.tables import failures_table
from attribeam.pipeline.settings import Settings
from attribeam.pipeline.store.files import discard, join, stamp, write_parquet
from attribeam.pipeline.store.s3 import share_clients
from attribeam.schemas import Unit, failures_path, unit_path

share_clients()  # In workers that run nothing else of ours before they read.


class FileRecord(NamedTuple):
    """A committed file."""

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
        root = self.settings.output
        return (
            pcoll
            | "Read" >> beam.FlatMap(read_shard, root)
            | "Attribute" >> RunInference(AttributionHandler(self.settings).with_no_batching())
            | "Write" >> beam.Map(write_unit, root)
        )


def build(pipeline: beam.Pipeline, tasks: list[Task], settings: Settings) -> None:
    """Adds the job to a pipeline."""
    _ = pipeline | "Tasks" >> beam.Create(tasks) | Attribute(settings)


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


def write_unit(result: UnitResult, root: str) -> FileRecord:
    """Commits a unit of a shard: its failures first, then the table that marks it as done."""
    where = result.unit, result.shard, result.num_shards
    failures = join(root, failures_path(*where))
    if result.failures:
        write_parquet(failures, failures_table(result.failures))
    else:
        discard(failures)  # Of an earlier try whose table was lost.
    write_parquet(join(root, unit_path(*where)), result.table)
    return FileRecord(str(result.unit), result.shard, len(result.table), len(result.failures))
