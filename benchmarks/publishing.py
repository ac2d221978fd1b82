"""How a run of 25,000 texts and 20 methods is published: files, commits, and disk beyond links.

Its 49 shards are those of one, with other ids and other scores; they are compacted first. The hub
is one of the tests. What is needed on disk is what the folder that is uploaded holds beside links
to the run's files; the table ``wide``, which is made anew, is told apart.
"""

import copy
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from attribeam.analysis.publish import hub
from attribeam.analysis.publish.publish import publish
from attribeam.pipeline.running.compacting import compact
from attribeam.schemas import Unit, unit_path
from attribeam.schemas.encoding import parquet_options
from attribeam.schemas.layout import MANIFEST, PUBLISHED, WIDE
from tests.support.hub import TOKEN, Hub, served
from tests.support.synthetic_run import synthetic_run, write_run

ROWS, SHARD, METHODS = 25_000, 512, 20
FILES_LIMIT, COMMITS_LIMIT, SHARE_LIMIT = 60, 2, 0.1
_LIKE = "gradient"  # The method that all are made of.
_REPO = "someone/large"


def main(rows: int = ROWS, methods: int = METHODS) -> bool:
    """Prints files, commits and the share of the disk; whether they are below the limits."""
    with tempfile.TemporaryDirectory() as name:
        run = Path(name) / "run"
        before = write_large(run, rows, methods)
        compact(str(run))
        size = sum(path.stat().st_size for path in run.rglob("*.parquet"))
        print(f"{rows:,} texts x {methods} methods: {before:,} files, {size / 1e6:.0f} MB")
        start = time.process_time()
        with _hub() as server, _measured() as beside:
            publish(run, _REPO, license="mit", endpoint=server.endpoint)
            files = len(server.repos[_REPO]) - 1  # The hub's own .gitattributes.
            commits = len(server.committed)
    share = beside["pages"] / size
    print(f"published: {files} files in {commits} commit{'s' * (commits > 1)}")
    print(f"disk beyond links: {100 * share:.2f} %, and {beside['wide'] / 1e6:.0f} MB of `wide`")
    print(f"{time.process_time() - start:.0f} s of the processor")
    return files <= FILES_LIMIT and commits <= COMMITS_LIMIT and share <= SHARE_LIMIT


@contextmanager
def _hub() -> Iterator[Hub]:
    constants = huggingface_hub.constants
    with (
        mock.patch.dict(os.environ, HF_TOKEN=TOKEN),
        mock.patch.object(constants, "HF_HUB_OFFLINE", False),
        mock.patch.object(constants, "HF_HUB_DISABLE_XET", True),
        served() as server,
    ):
        server.lfs = True
        yield server


@contextmanager
def _measured() -> Iterator[dict[str, int]]:
    """Counts the bytes of what is uploaded and is no link, when it is uploaded."""
    found: dict[str, int] = {}

    def measured(stage: Path, *arguments: Any, **more: Any) -> Any:
        own = [path for path in stage.rglob("*") if path.is_file() and not path.is_symlink()]
        wide = [path for path in own if path.is_relative_to(stage / PUBLISHED / WIDE)]
        found["wide"] = sum(path.stat().st_size for path in wide)
        found["pages"] = sum(path.stat().st_size for path in own) - found["wide"]
        return hub.upload(stage, *arguments, **more)

    with mock.patch("attribeam.analysis.publish.publish.upload", measured):
        yield found


def write_large(out: Path, rows: int, methods: int) -> int:
    """Writes a run of so many rows and methods; returns the number of its files."""
    shards = -(-rows // SHARD)
    small = synthetic_run(
        rows=SHARD,
        shard_size=SHARD,
        failing=False,
        fractions=(0.25, 0.5, 0.75),
        orders=("morf", "lerf"),
    )
    source = out.parent / "source"
    write_run(small, source)
    units = [Unit("instances"), Unit("attributions", _LIKE), Unit("curves", _LIKE)]
    tables = {unit: pq.ParquetFile(source / unit_path(unit, 0, 1)).read() for unit in units}
    names = [f"method_{number:02d}" for number in range(methods)]
    rng = np.random.default_rng(0)
    for shard in range(shards):
        last = rows - shard * SHARD
        for unit, table in tables.items():
            for method in names if unit.method else [None]:
                kept = _of_shard(table, shard, min(last, SHARD), method, rng)
                path = out / unit_path(Unit(unit.table, method), shard, shards)
                path.parent.mkdir(parents=True, exist_ok=True)
                pq.write_table(kept, path, **parquet_options(kept.schema))
    manifest = copy.deepcopy(small.manifest)
    manifest["identity"]["corpus"]["rows"] = rows
    manifest["identity"]["settings"] |= {"num_shards": shards, "shard_size": SHARD}
    manifest["methods"] = dict.fromkeys(names, manifest["methods"][_LIKE])
    for call in manifest["executions"]:
        call["methods"] = names
    (out / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return len([*out.rglob("*.parquet")])


def _of_shard(
    table: pa.Table, shard: int, rows: int, method: str | None, rng: np.random.Generator
) -> pa.Table:
    """The first so many instances of a table, with ids of a shard and scores of a method."""
    ids = table["instance_id"].combine_chunks()
    first = pa.array([f"row-{number}" for number in range(rows)])
    table = table.filter(pc.is_in(ids, value_set=first))
    for name in {"instance_id", "row_id"} & {*table.column_names}:
        column = pc.binary_join_element_wise(f"{shard:03d}", table[name], "-")
        table = _with(table, name, column)
    if method is not None:
        table = _with(table, "method", pa.array([method] * len(table)))
    if "scores" in table.column_names:
        scores = table["scores"].combine_chunks()
        values = pa.array(rng.standard_normal(len(scores.flatten())), scores.type.value_type)
        offsets = pc.subtract(scores.offsets, scores.offsets[0])
        table = _with(table, "scores", pa.ListArray.from_arrays(offsets, values))
    return table


def _with(table: pa.Table, name: str, column: Any) -> pa.Table:
    """A table with another column of a name, of the type that it had."""
    field = table.schema.field(name)
    at = table.column_names.index(name)
    return table.set_column(at, field, column.cast(field.type))
