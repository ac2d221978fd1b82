"""How long it takes to find out that a run of 10,000 shards and 20 methods is complete.

All of its 210,000 tables are hard links to a few files, each of which is looked at as if it were
its own: whether it is there, and whether it ends in a footer.
"""

import os
import shutil
import tempfile
import time
from pathlib import Path
from unittest import mock

from attribeam.pipeline.options import Options
from attribeam.pipeline.running.job import run
from attribeam.pipeline.running.missing import units_of_run
from attribeam.schemas import unit_path
from attribeam.transforms.registry import methods
from tests.support.models import save_tiny
from tests.support.tiny import write_jsonl

SHARDS, METHODS = 10_000, 20
LIMIT = 5.0
_LINKS = 30_000  # That a file may have on most file systems is a bit more.


def main() -> bool:
    """Prints the seconds of planning, on the clock and of the processor, and of each step."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = _options(folder)
        with mock.patch("attribeam.pipeline.running.job.execute"):
            run(options)  # Stages the corpus, and computes nothing.
        tables = _fill(folder / "out", options.methods.split(","))
        # The second is that of a machine that has the folder in memory, as it has after a run.
        run(options)
        start, used = time.perf_counter(), time.process_time()
        summary = run(options)
        seconds, cpu = time.perf_counter() - start, time.process_time() - used
    print(f"{tables} tables of {summary.shards} shards: {seconds:.1f} s, {cpu:.1f} CPU s")
    print(f"shards with something left to do: {summary.worked}")
    # Where other processes take the cores, the processor's time is what it takes on free ones.
    return summary.worked == 0 and min(seconds, cpu) < LIMIT


def _options(folder: Path) -> Options:
    (folder / "model").mkdir()
    model = save_tiny(folder / "model", "bert", "classification")
    lines = ({"id": f"r{number}", "text": "a good film"} for number in range(SHARDS))
    corpus = write_jsonl(folder / "corpus.jsonl", lines)
    scored = [
        method.name
        for method in methods().values()
        if method.scored and not method.tables and not method.opt_in
    ]
    return Options(
        *(str(model), str(corpus), str(folder / "out")),
        methods=",".join(scored[:METHODS]),
        evaluation=None,
        shard_size=1,
        device="cpu",
    )


def _fill(out: Path, names: list[str]) -> int:
    """Links every table of a run to the same content; returns their number."""
    units = units_of_run(dict.fromkeys(names, ("attributions",)))
    source, count = out / "corpus" / "rows-00000.parquet", 0
    for unit in units:
        (out / unit.folder).mkdir(parents=True, exist_ok=True)
        for shard in range(SHARDS):
            if count % _LINKS == 0:
                own = out.parent / f"link-{count}"
                shutil.copyfile(source, own)
            os.link(own, out / unit_path(unit, shard, SHARDS))
            count += 1
    return count
