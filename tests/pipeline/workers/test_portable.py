"""The same graph through Beam's portable job service, as Flink and Spark get it."""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from apache_beam.runners.portability.local_job_service import LocalJobServicer

from attribeam.pipeline.options import Options
from attribeam.pipeline.running import job, progress
from attribeam.pipeline.settings import Settings
from attribeam.pipeline.store import lock
from attribeam.pipeline.workers.engines import Workers, connect
from tests.support.s3 import served
from tests.support.tiny import assert_alike, command, content, files, rows, write_jsonl

COUNT, SHARD = 9, 4
PROCESSES = (
    "--environment_type=beam:env:harness_subprocess_python:v1",
    f"--environment_config={shlex.quote(sys.executable)} "
    "-m apache_beam.runners.worker.sdk_worker_main",
)


@pytest.fixture(scope="module")
def model(tiny_folder: Callable[..., Path]) -> Path:
    return tiny_folder("bert")


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """A command without its model and output, which comes to one failure."""
    lines = [*rows(COUNT), {"id": "empty", "text": ""}]
    corpus = write_jsonl(tmp_path_factory.mktemp("corpus") / "corpus.jsonl", lines)
    return [
        *("run", "--corpus", corpus, "--shard-size", SHARD, "--fractions", "0.5"),
        *("--methods", "integrated_gradients,attattr,iba,random"),
        *("--set", "integrated_gradients.steps=5"),
    ]


@pytest.fixture(scope="module")
def in_memory(
    model: Path, arguments: list[object], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run by the runner that is the default."""
    out = tmp_path_factory.mktemp("in_memory")
    assert command(*arguments, "--model", model, "--output", out).status == 1
    return out


@pytest.fixture
def job_service(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Options for Beam's own job service, which takes jobs the way those of other engines do."""
    # A process that is forked while gRPC is in use may never begin.
    monkeypatch.setenv("GRPC_ENABLE_FORK_SUPPORT", "false")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    service = LocalJobServicer()
    yield f"--job_endpoint=localhost:{service.start_grpc_server()}"
    service.stop()


def alike(found: Path, expected: Path) -> None:
    """Checks that two runs are equal, up to rounding."""
    tables, wanted = content(found), content(expected)
    assert tables.keys() == wanted.keys()
    for path, table in wanted.items():
        assert_alike(tables[path], table)


def test_workers_in_the_launching_process(
    model: Path, arguments: list[object], in_memory: Path, job_service: str, tmp_path: Path
) -> None:
    here = progress._within
    outcome = command(
        *(*arguments, "--model", model, "--output", tmp_path, "--runner=PortableRunner"),
        *(job_service, "--environment_type=LOOPBACK"),
    )
    assert (outcome.status, "1 failure" in outcome.out) == (1, True), outcome
    assert progress._within > here
    alike(tmp_path, in_memory)
    assert files(tmp_path) == files(in_memory)  # The model was not copied.


def test_worker_processes_that_see_nothing_but_the_store(
    model: Path,
    arguments: list[object],
    in_memory: Path,
    job_service: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = shutil.copytree(model, tmp_path / "model")
    send_model = job.send_model

    def send_and_delete(settings: Settings) -> None:
        send_model(settings)
        shutil.rmtree(folder)

    monkeypatch.setattr(job, "send_model", send_and_delete)
    monkeypatch.setattr(lock, "SETTLE", 0.0)
    here = progress._within
    with served() as store:
        outcome = command(
            *(*arguments, "--model", folder, "--output", "s3://bucket/run"),
            *("--runner=PortableRunner", job_service, *PROCESSES, f"--s3_endpoint_url={store.url}"),
        )
        found = store.download("run", tmp_path / "out")
    assert (outcome.status, "1 failure" in outcome.out) == (1, True), outcome
    assert progress._within == here
    alike(found, in_memory)
    copied = files(found) - files(in_memory)
    assert {path.split("/")[0] for path in copied} == {"model"}
    assert {Path(path).name for path in copied} >= {"config.json", "model.safetensors"}


# Where workers are


@pytest.mark.parametrize(
    ("runner", "flags", "workers"),
    [
        ("FnApiRunner", [], Workers.HERE),
        ("DirectRunner", [], Workers.HERE),
        ("PrismRunner", [], Workers.HERE),
        ("FlinkRunner", [], Workers.HERE),
        ("FlinkRunner", ["--flink_master=host:8081"], Workers.CONTAINERS),
        ("flink", ["--flink_master=host:8081", "--environment_type=LOOPBACK"], Workers.HERE),
        ("SparkRunner", ["--spark_master_url=spark://host:7077"], Workers.CONTAINERS),
        ("PortableRunner", ["--job_endpoint=host:8099"], Workers.CONTAINERS),
        (
            "PortableRunner",
            [
                *("--job_endpoint=host:8099", "--environment_type=PROCESS"),
                '--environment_config={"command": "boot"}',
            ],
            Workers.ELSEWHERE,
        ),
        ("PortableRunner", ["--job_endpoint=host:8099", *PROCESSES], Workers.ELSEWHERE),
    ],
)
def test_a_runner_and_its_environment_say_where_workers_are(
    runner: str, flags: list[str], workers: Workers
) -> None:
    assert connect(Options("m", "c", "gs://bucket/run", runner=runner, beam=flags)) is workers


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--job_endpoint=localhost:8099"], r"--output \S+ is a folder of this machine"),
        (["--job_endpoint=localhost:8099", "--workers=2"], "--workers is for runners on this mach"),
        (["--job_endpoint=localhost:8099", "--environment_type=DOKCER"], "Unknown environment typ"),
    ],
)
def test_what_cannot_end_well_is_refused(
    flags: list[str], message: str, model: Path, arguments: list[object], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    outcome = command(
        *arguments, "--model", model, "--output", out, "--runner=PortableRunner", *flags
    )
    assert outcome.status == 2
    assert re.search(message, outcome.err), outcome.err
    assert not out.exists()
