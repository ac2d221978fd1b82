"""Bundles that a runner runs again: what is committed of them is not made a second time.

``--direct_runner_bundle_repeat`` replays every bundle, as a runner does that has lost a worker just
after its last commit.
"""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attribeam.pipeline import Options, run
from attribeam.pipeline.corpus.staging import read_rows
from attribeam.pipeline.running import graph
from attribeam.pipeline.running.graph import read_shard
from attribeam.pipeline.running.missing import Task, units_of_run
from attribeam.pipeline.running.shard import Attributor, Shard
from attribeam.pipeline.store.files import stamp
from attribeam.schemas import unit_path
from attribeam.transforms.evaluate import Evaluation
from tests.pipeline.running.test_repair import failing_instance
from tests.pipeline.running.test_resume import cut, flip
from tests.support.tiny import assert_alike, content, rows, write_jsonl

SHARDS = 3
UNITS = units_of_run(dict.fromkeys(("random", "saliency"), ("attributions", "curves")))
PATHS = [unit_path(unit, shard, SHARDS) for shard in range(SHARDS) for unit in UNITS]


@pytest.fixture(scope="module")
def options(tiny_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Options:
    folder = tmp_path_factory.mktemp("retried")
    corpus = write_jsonl(folder / "corpus.jsonl", rows(6))
    return Options(
        *(str(tiny_folder("bert")), str(corpus), str(folder / "out")),
        methods="random,saliency",
        evaluation=Evaluation(fractions=(0.5,)),
        shard_size=2,
        device="cpu",
        beam=["--direct_runner_bundle_repeat=1"],
    )


class Work(Counter[str]):
    """How often each table was written, and how many shards the model was asked for."""

    asked = 0


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    found = Work()
    write, process = graph.write_parquet, Attributor.process

    def written(path: str, table: Any) -> Any:
        found["/".join(Path(path).parts[-3:])] += "failures" not in path
        return write(path, table)

    def asked(self: Attributor, shard: Shard) -> Any:
        found.asked += 1
        return process(self, shard)

    monkeypatch.setattr(graph, "write_parquet", written)
    monkeypatch.setattr(Attributor, "process", asked)
    return found


def times(work: Work, paths: list[str]) -> list[int]:
    """How often each of some tables was written; nothing else may have been."""
    counts = [
        sum(n for place, n in work.items() if place.endswith(path)) for path in sorted(set(paths))
    ]
    assert sum(counts) == work.total()
    return counts


def test_each_table_is_written_once(options: Options, work: Work, tmp_path: Path) -> None:
    assert run(replace(options, output=str(tmp_path / "once"), beam=())).worked == SHARDS
    assert (times(work, PATHS), work.asked) == ([1] * len(PATHS), SHARDS)
    work.clear()
    work.asked = 0
    assert run(replace(options, output=str(tmp_path / "twice"))).worked == SHARDS
    assert (times(work, PATHS), work.asked) == ([1] * len(PATHS), SHARDS)
    expected, found = content(tmp_path / "once"), content(tmp_path / "twice")
    assert found.keys() == expected.keys()
    for path in expected:
        assert_alike(found[path], expected[path])


def test_what_must_be_made_again_is_once(
    options: Options, work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damaged tables, and those that lack rows for want of memory."""
    out = tmp_path / "out"
    mine = replace(options, output=str(out))
    with monkeypatch.context() as patch:
        failing_instance("r0", patch)
        assert run(mine).failures == 1
    work.clear()
    lacking = PATHS[: len(UNITS)]
    flipped, short = PATHS[-2], PATHS[-3]
    flip(out / flipped)
    cut(out / short)
    assert run(replace(mine, repair=True, retry_failed=True)).failures == 0
    again = [*lacking, flipped, short]
    assert times(work, again) == [1] * len(again)
    assert not run(replace(mine, repair=True)).worked


def test_a_retry_goes_on_where_the_shard_was(options: Options) -> None:
    run(options)
    out = Path(options.output)
    task = Task(1, SHARDS, tuple(UNITS))
    assert list(read_shard(task, options.output)) == []
    # One that was lost between two commits.
    for unit in UNITS[2:]:
        (out / unit_path(unit, 1, SHARDS)).unlink()
    rows_of_it = list(read_rows(options.output, 1))
    assert list(read_shard(task, options.output)) == [
        Shard(replace(task, units=tuple(UNITS[2:])), rows_of_it)
    ]
    # What is cut short isn't committed.
    table = out / unit_path(UNITS[1], 1, SHARDS)
    cut(table)
    (found,) = read_shard(task, options.output)
    assert found.task.units == tuple(UNITS[1:])


def test_a_table_that_is_to_be_replaced_is_there_before(options: Options, tmp_path: Path) -> None:
    mine = replace(options, output=str(tmp_path))
    run(mine)
    table = tmp_path / unit_path(UNITS[0], 0, SHARDS)
    before = stamp(str(table))
    assert before is not None
    task = Task(0, SHARDS, (UNITS[0],), ((UNITS[0], before),))
    (found,) = read_shard(task, mine.output)
    assert found.task == task
    # The same, and yet written anew.
    os.utime(table, ns=(0, table.stat().st_mtime_ns + 1_000_000))
    assert stamp(str(table)) != before
    assert list(read_shard(task, mine.output)) == []
