"""Running a job: prepare it, plan what is missing, hand that to a Beam runner."""

import time
from dataclasses import dataclass

import apache_beam as beam
import pyarrow.parquet as pq
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline import progress
from pipeline.files import join, list_files, open_read
from pipeline.graph import build
from pipeline.manifest import write_manifest
from pipeline.options import Options
from pipeline.plan import Task, plan, sweep, units_of_run
from pipeline.prepare import prepare
from pipeline.settings import Settings
from schemas.layout import FAILURES


@dataclass(frozen=True)
class Summary:
    """What a run came to.

    Attributes:
        output: The run's folder.
        rows: Rows of the corpus.
        shards: Number of shards.
        worked: Shards that this call had to work on.
        failures: Rows of ``failures`` in the folder, from this call and earlier ones.
        evaluated: Whether there are curves to ask about.
        seconds: Wall time of this call.
    """

    output: str
    rows: int
    shards: int
    worked: int
    failures: int
    evaluated: bool
    seconds: float


def run(options: Options) -> Summary:
    """Runs a job to its end, or continues one that was cut short or lacks methods.

    Raises:
        UsageError: If anything about the options is wrong; nothing has been attributed then.
    """
    start = time.monotonic()
    prepared = prepare(options)
    settings = prepared.settings
    units = units_of_run(settings.tables)
    tasks = plan(units, settings.num_shards, sweep(settings.output))
    if tasks:
        write_manifest(settings.output, prepared.manifest)
        sizes = [
            min(options.shard_size, prepared.rows - shard * options.shard_size)
            for shard in range(settings.num_shards)
        ]
        with progress.watching(settings.output, tasks, sizes):
            execute(tasks, settings, options)
    return Summary(
        output=settings.output,
        rows=prepared.rows,
        shards=settings.num_shards,
        worked=len(tasks),
        failures=count_failures(settings.output),
        evaluated=settings.evaluation is not None,
        seconds=time.monotonic() - start,
    )


def execute(tasks: list[Task], settings: Settings, options: Options) -> None:
    """Runs tasks on the Beam runner that was asked for, and waits for the end."""
    with beam.Pipeline(options=PipelineOptions(options.beam_flags)) as pipeline:
        build(pipeline, tasks, settings)


def count_failures(root: str) -> int:
    """Number of rows of ``failures``, read from the footers of its files."""
    total = 0
    for path in list_files(join(root, FAILURES)):
        with open_read(join(root, f"{FAILURES}/{path}")) as handle:
            total += pq.ParquetFile(handle).metadata.num_rows
    return total
