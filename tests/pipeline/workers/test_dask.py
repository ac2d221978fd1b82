"""Dask: worker processes of a cluster, one of which is killed, make the tables of a run here."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from distributed import LocalCluster

from attribeam.analysis import verify
from attribeam.pipeline.options import Options
from attribeam.pipeline.workers.engines import Workers, connect
from attribeam.schemas import UsageError
from tests.support.patience import HANG
from tests.support.tiny import assert_alike, command, content, rows, write_jsonl

SHARDS = 6


@pytest.fixture(scope="module")
def model(tiny_folder: Callable[..., Path]) -> Path:
    return tiny_folder("bert")


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory, model: Path) -> list[object]:
    corpus = write_jsonl(tmp_path_factory.mktemp("corpus") / "corpus.jsonl", rows(SHARDS * 2))
    usual = ("--corpus", corpus, "--model", model, "--methods", "saliency", "--no-evaluate")
    return ["run", *usual, "--shard-size", 2, "--runner", "dask"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as started:
        yield started


def kill_one(cluster: LocalCluster, out: Path) -> threading.Thread:
    """Kills a worker process as soon as there is a table."""

    def kill() -> None:
        end = time.monotonic() + HANG
        while time.monotonic() < end and not any(out.glob("instances/shard-*.parquet")):
            time.sleep(0.02)
        os.kill(cluster.workers[0].pid, signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    return thread


def test_a_cluster_of_which_a_worker_is_killed(
    cluster: LocalCluster, arguments: list[object], tmp_path: Path
) -> None:
    out, here = tmp_path / "out", tmp_path / "here"
    killing = kill_one(cluster, out)
    address = f"--dask_client_address={cluster.scheduler_address}"
    outcome = command(*arguments, "--output", out, address)
    killing.join(HANG)
    assert outcome.status == 0, outcome
    assert f"{SHARDS} worked on" in outcome.out
    assert verify(out).problems == []
    assert not any(".tmp" in path.name for path in out.rglob("*"))
    again = command(*arguments, "--output", out, address)
    assert (again.status, "nothing left to do" in again.out) == (0, True)
    local = [each if each != "dask" else "FnApiRunner" for each in arguments]
    assert command(*local, "--output", here).status == 0
    found, expected = content(out), content(here)
    assert found.keys() == expected.keys()
    for path, table in expected.items():
        assert_alike(found[path], table)


@pytest.mark.parametrize("name", ["dask", "DaskRunner", "Dask"])
def test_its_short_names(name: str) -> None:
    options = Options(model="m", corpus="c", output="o", runner=name)
    assert "--runner=apache_beam.runners.dask.dask_runner.DaskRunner" in options.beam_flags
    # A lost worker costs a shard, not the 128 that Dask would put together.
    assert "--dask_partition_size=1" in options.beam_flags
    assert connect(options) is Workers.HERE


def test_workers_at_an_address_are_elsewhere() -> None:
    beam = ("--dask_client_address=tcp://somewhere:8786", "--dask_npartitions=4")
    options = Options(model="m", corpus="c", output="o", runner="dask", beam=beam)
    assert "--dask_partition_size=1" not in options.beam_flags
    assert connect(options) is Workers.ELSEWHERE


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--dask_client_adress=x",), "unknown option --dask_client_adress=x"),
        (("--environment_type=EXTERNAL",), "means nothing to dask"),
    ],
)
def test_what_it_would_ignore_is_refused(more: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        connect(Options(model="m", corpus="c", output="o", runner="dask", beam=more))
