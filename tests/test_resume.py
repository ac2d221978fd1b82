"""Runs that are cut short, by an error or the kernel, and taken up again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from analysis import verify
from pipeline import Options, graph, run
from pipeline.plan import units_of_run
from schemas import Unit, UsageError
from tests.tiny import assert_alike, content, files, rows, stamps, unit_files, write_jsonl
from transforms.perturb import Evaluation

COUNT, SHARD, SHARDS = 60, 3, 20
METHODS = ("integrated_gradients", "random")
PARAMS = {"integrated_gradients": {"steps": 7}}
EVALUATION = Evaluation(fractions=(0.25, 0.5))
UNITS = units_of_run(dict.fromkeys(METHODS, ("attributions", "curves")))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines: list[Any] = rows(COUNT)
    lines[7] = {"id": "empty", "text": ""}
    return write_jsonl(tmp_path_factory.mktemp("corpus") / "corpus.jsonl", lines)


@pytest.fixture(scope="module")
def model(tiny_folder: Callable[..., Path]) -> Path:
    return tiny_folder("bert")


def options(model: Path, corpus: Path, out: Path) -> Options:
    return Options(
        *(str(model), str(corpus), str(out)),
        methods=",".join(METHODS),
        params=PARAMS,
        evaluation=EVALUATION,
        shard_size=SHARD,
        device="cpu",
    )


@pytest.fixture(scope="module")
def undisturbed(
    model: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, pa.Table]:
    """Tables by path of a run that nobody disturbs."""
    out = tmp_path_factory.mktemp("undisturbed")
    run(options(model, corpus, out))
    return content(out)


def whole(out: Path, undisturbed: dict[str, pa.Table]) -> None:
    """Checks that a run is the undisturbed one, row by row, and has left nothing else behind."""
    staged = {f"corpus/rows-{shard:05d}.parquet" for shard in range(SHARDS)}
    failures = {"failures/instances/shard-00002-of-00020.parquet"}
    assert files(out) == {"run.json"} | staged | failures | unit_files(UNITS, SHARDS)
    found = content(out)
    assert found.keys() == undisturbed.keys()
    for path, expected in undisturbed.items():
        # What is computed together decides how, and with it the rounding.
        assert_alike(found[path], expected)


@pytest.mark.parametrize("commits", [0, 1, 3, 41])
def test_a_run_that_stops_at_an_error_goes_on_where_it_was(
    commits: int,
    model: Path,
    corpus: Path,
    undisturbed: dict[str, pa.Table],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = []

    def write(path: str, table: pa.Table) -> None:
        if len(written) == commits:
            raise OSError("no space left on device")
        original(path, table)
        written.append(path)

    original = graph.write_parquet
    monkeypatch.setattr(graph, "write_parquet", write)
    with pytest.raises(OSError, match="no space left on device"):
        run(options(model, corpus, tmp_path))
    monkeypatch.undo()
    kept = {path: Path(path).stat().st_mtime_ns for path in written}
    summary = run(options(model, corpus, tmp_path))
    assert summary.failures == 1
    whole(tmp_path, undisturbed)
    # What was committed was not done again.
    assert {path: Path(path).stat().st_mtime_ns for path in written} == kept


def test_a_failure_without_its_table_is_written_again(
    model: Path, corpus: Path, undisturbed: dict[str, pa.Table], tmp_path: Path
) -> None:
    """Failures are committed before the table, so that a crash between the two loses neither."""
    run(options(model, corpus, tmp_path))
    (tmp_path / "instances" / "shard-00002-of-00020.parquet").unlink()
    assert run(options(model, corpus, tmp_path)).failures == 1
    whole(tmp_path, undisturbed)


def test_layers_that_are_being_added_go_on_where_they_were(
    model: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = replace(
        options(model, corpus, tmp_path), methods="random,attention_rollout", params={}, limit=9
    )
    run(plain)
    before = stamps(tmp_path)
    written = []

    def write(path: str, table: pa.Table) -> None:
        if len(written) == 1:
            raise OSError("no space left on device")
        original(path, table)
        written.append(path)

    original = graph.write_parquet
    monkeypatch.setattr(graph, "write_parquet", write)
    with pytest.raises(OSError, match="no space left on device"):
        run(replace(plain, layers=True))
    monkeypatch.undo()
    layers = unit_files([Unit("layers", "attention_rollout")], 3)
    first = stamps(tmp_path)
    assert len(layers & first.keys()) == 1
    # That a run is to have layers is known from the start, so that what lacks is found.
    assert "not finished: " in verify(tmp_path).problems[0]
    assert run(replace(plain, layers=True)).worked == 2
    assert not verify(tmp_path).problems
    after = stamps(tmp_path)
    assert after.keys() - before.keys() == layers
    assert {path for path in first if first[path] != after[path]} == {"run.json"}
    assert {path for path in before if before[path] != after[path]} == {"run.json"}


def test_a_run_that_is_killed_goes_on_where_it_was(
    model: Path, corpus: Path, undisturbed: dict[str, pa.Table], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = [
        *("--model", model, "--corpus", corpus, "--output", out, "--device", "cpu"),
        *("--methods", ",".join(METHODS), "--set", "integrated_gradients.steps=7"),
        *("--fractions", "0.25,0.5", "--shard-size", SHARD),
    ]
    # Long enough between two files to be killed there.
    slow = (
        "import sys, time\n"
        "from pipeline import cli, graph\n"
        "write = graph.write_parquet\n"
        "def slowly(path, table):\n"
        "    time.sleep(0.05)\n"
        "    write(path, table)\n"
        "graph.write_parquet = slowly\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", slow, "run", *map(str, arguments)],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
    )
    tables = unit_files(UNITS, SHARDS)
    deadline = time.monotonic() + 100
    while len(tables & files(out)) < len(tables) // 4:
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    there = tables & files(out)
    assert 0 < len(there) < len(tables)
    kept = {path: (out / path).stat().st_mtime_ns for path in there}
    # What a process that is killed while it writes leaves behind.
    (out / "curves" / "method=random").mkdir(parents=True, exist_ok=True)
    (out / "curves" / "method=random" / "shard-00001-of-00020.parquet.0a1b.tmp").write_bytes(
        b"half"
    )
    summary = run(options(model, corpus, out))
    assert 0 < summary.worked < SHARDS
    whole(out, undisturbed)
    assert {path: (out / path).stat().st_mtime_ns for path in there} == kept
    with pytest.raises(UsageError, match=r"settings\.seed was 0, now 1"):
        run(Options(**{**vars(options(model, corpus, out)), "seed": 1}))
