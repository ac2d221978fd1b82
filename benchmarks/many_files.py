"""What a run of 200,000 files takes that nobody has compacted yet, and after ``compact``.

All files are hard links to those of two shards, so that rows occur more than once and only what is
asked of files is timed: the sweep, the plan, a look of the progress bar, opening, verifying, and
questions before and after. Seconds are the processor's, since where other processes take the cores
they are what it takes on free ones.
"""

import json
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from attribeam.analysis import load_manifest, open_run
from attribeam.analysis.opening.files import survey, units
from attribeam.pipeline.running import progress
from attribeam.pipeline.running.compacting import compact
from attribeam.pipeline.running.missing import plan
from attribeam.pipeline.store.damage import sweep
from attribeam.pipeline.store.files import count_rows
from attribeam.pipeline.store.records import write_index
from attribeam.pipeline.store.there import There
from attribeam.schemas import unit_path
from attribeam.schemas.index import Entry
from attribeam.schemas.layout import MANIFEST
from tests.support.synthetic_run import synthetic_run, write_run

SHARDS = 20_000
ROWS = 2  # A shard.
STEPS_LIMIT, QUESTION_LIMIT, FILE_LIMIT = 3.0, 2.0, 0.0005
QUESTIONS = (
    "select scores from attributions where method = 'paths' and instance_id = 'r1'",
    "select count(*), avg(delta) from attributions where method = 'paths'",
)
_LINKS = 30_000  # That a file may have on most file systems is a bit more.


def main(shards: int = SHARDS) -> bool:
    """Prints the seconds; whether they are below the limits."""
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "out"
        files = write_links(out, shards)
        manifest = load_manifest(out)
        steps = _steps(out, manifest, shards)
        verified = _timed("verify's reading", lambda: survey(out, manifest)) / files
        print(f"  {1000 * verified:.2f} ms a file")
        for sql in QUESTIONS:
            _timed("a question before", partial(_ask, out, sql))
        _timed("compact", lambda: compact(str(out)))
        asked = [_timed("a question after", partial(_ask, out, sql)) for sql in QUESTIONS]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{files} files; peak memory of all of it: {peak:.0f} MB")
    return steps < STEPS_LIMIT and max(asked) < QUESTION_LIMIT and verified < FILE_LIMIT


def write_links(out: Path, shards: int) -> int:
    """Writes a run-like folder of so many shards; returns its number of files."""
    write_run(synthetic_run(rows=2 * ROWS, shard_size=ROWS, failing=False), out)
    content = json.loads((out / MANIFEST).read_text())
    content["identity"]["settings"]["num_shards"] = shards
    content["identity"]["corpus"]["rows"] = shards * ROWS
    (out / MANIFEST).write_text(json.dumps(content))
    manifest = load_manifest(out)
    entries: list[Entry] = []
    for unit in units(manifest):
        sources = [out / unit_path(unit, shard, 2) for shard in range(2)]
        own = list(sources)
        said = [
            (
                count_rows(str(source)),
                source.stat().st_size,
                sha256(source.read_bytes()).hexdigest(),
            )
            for source in sources
        ]
        for shard in range(shards):
            if shard and shard % _LINKS == 0:
                own = [source.with_suffix(f".{shard}") for source in sources]
                for source, copy in zip(sources, own, strict=True):
                    shutil.copyfile(source, copy)
            linked = unit_path(unit, shard, shards)
            os.link(own[shard % 2], out / linked)
            rows, size, digest = said[shard % 2]
            of = linked, unit.table, unit.method, shard, shard
            entries.append(Entry(*of, rows, size, digest))
        for path in (out / unit.folder).iterdir():
            if not path.name.endswith(f"-of-{shards:05d}.parquet"):
                path.unlink()
    write_index(str(out), entries, ())
    return len(entries)


def _steps(out: Path, manifest: Any, shards: int) -> float:
    """Seconds of all that a call does that finds nothing to do, and of a look and of opening."""
    found: list[There] = []
    seconds = _timed("sweep", lambda: found.append(sweep(str(out), shards).there))
    seconds += _timed("plan", lambda: plan(units(manifest), found[0]))
    tasks = plan(units(manifest), There(shards))
    watch = progress._Watch(str(out), tasks, [ROWS] * shards, lambda _: 1.0)
    seconds += _timed("a look of the progress bar", watch.look)
    seconds += _timed("open_run", lambda: open_run(out, commented=False).close())
    print(f"together: {seconds:.2f} s")
    return seconds


def _timed(what: str, call: Callable[[], Any]) -> float:
    start = time.process_time()
    call()
    seconds = time.process_time() - start
    print(f"{what}: {seconds:.2f} s", flush=True)
    return seconds


def _ask(out: Path, sql: str) -> None:
    with open_run(out, commented=False) as connection:
        connection.execute(sql).fetchall()
