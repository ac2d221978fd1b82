"""Jobs for Dataflow: built by the real runner, offline and without credentials, and looked into."""

import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
from apache_beam.options.pipeline_options import GoogleCloudOptions

from attribeam.pipeline.commands.arguments import parsers
from attribeam.pipeline.configuration import run_options
from attribeam.pipeline.options import Options
from attribeam.pipeline.workers.engines import Workers, connect
from attribeam.schemas import UsageError
from tests.support.tiny import command, files, rows, write_jsonl

pytest.importorskip("google.cloud.dataflow_v1beta3")
apiclient = pytest.importorskip("apache_beam.runners.dataflow.internal.apiclient")

ROOT = Path(__file__).parents[3]
IMAGE = "europe-west4-docker.pkg.dev/project/attribeam/worker:1"
L4 = "--dataflow_service_options=worker_accelerator=type:nvidia-l4;count:1;install-nvidia-driver"
FLAGS = (
    *("--project=project", "--region=europe-west4", "--temp_location=gs://bucket/tmp"),
    *("--staging_location=gs://bucket/staging", "--sdk_location=container"),
    *(f"--sdk_container_image={IMAGE}", "--machine_type=g2-standard-8", L4),
)


class Built(NamedTuple):
    """A job as it would be sent: what it runs, and what it asks of the service."""

    pipeline: Any
    environment: Any


@pytest.fixture
def arguments(tiny_folder: Callable[..., Path], tmp_path: Path) -> list[object]:
    corpus = write_jsonl(tmp_path / "corpus.jsonl", rows(9))
    return [
        *("run", "--model", tiny_folder("bert"), "--corpus", corpus, "--output", tmp_path / "out"),
        *("--shard-size", 4, "--methods", "iba,random", "--runner=DataflowRunner"),
    ]


def built(*arguments: object) -> Built:
    """Runs a command up to where the job would be sent."""
    with mock.patch.object(apiclient, "Job", wraps=apiclient.Job) as job:
        outcome = command(*arguments, "--dry_run=True")
    assert outcome.status == 0, outcome
    ((options, pipeline), _) = job.call_args
    environment = apiclient.Environment([], options, "8", "gs://bucket/p", proto_pipeline=pipeline)
    return Built(pipeline, environment.proto)


def test_the_job_asks_for_a_gpu_and_one_process_a_machine(
    arguments: list[object], tmp_path: Path
) -> None:
    job = built(*arguments, *FLAGS, "--max_num_workers=4", "--disk_size_gb=100")
    (pool,) = job.environment.worker_pools
    assert (pool.machine_type, pool.disk_size_gb) == ("g2-standard-8", 100)
    assert pool.autoscaling_settings.max_num_workers == 4
    assert [image.container_image for image in pool.sdk_harness_container_images] == [IMAGE]
    assert list(job.environment.service_options) == [L4.partition("=")[2]]
    # One SDK process, and in it one shard at a time.
    assert "no_use_multiple_sdk_containers" in job.environment.experiments
    assert "use_multiple_sdk_containers" not in job.environment.experiments
    assert pool.num_threads_per_worker == 1
    # The graph came through whole: no step has a hint, which would be a pool of its own.
    environments = job.pipeline.components.environments.values()
    assert [dict(each.resource_hints) for each in environments] == [{}]
    names = {each.unique_name for each in job.pipeline.components.transforms.values()}
    assert {"Attribute/Read", "Attribute/Write"} <= {re.sub(r"\(.*", "", each) for each in names}
    # Nothing was computed but what is made before the workers start, and the model stayed here.
    made = {path.split("/")[0] for path in files(tmp_path / "out")}
    assert made == {"run.json", "corpus", "statistics"}


def test_what_the_user_says_of_processes_and_threads_holds(arguments: list[object]) -> None:
    job = built(
        *(*arguments, *FLAGS, "--number_of_worker_harness_threads=2"),
        "--experiments=use_multiple_sdk_containers",
    )
    (pool,) = job.environment.worker_pools
    assert pool.num_threads_per_worker == 2
    assert "no_use_multiple_sdk_containers" not in job.environment.experiments


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--resource_hints=accelerator=type:nvidia-l4;count:1"], "can't be combined; leave the"),
        (["--dataflow_service_options=worker_accelerator=type:nvidia-l4"], "is cut short"),
        (
            ["--dataflow_service_options=worker_accelerator=type:nvidia-l4;count:1"],
            "add ;install-nvidia-driver",
        ),
        (
            [f"{L4.replace('count:1', 'count:4')}"],
            "the others would idle at full price. Ask for count:1",
        ),
        (["--flexrs_goal=COST_OPTIMIZED"], "--flexrs_goal is for jobs without GPUs"),
        (["--device=cpu"], "GPUs, which would idle at full price"),
        (["--max_num_worker=3"], "unknown option --max_num_worker=3"),
        (["--workers=2"], "--max_num_workers of Dataflow"),
        (["--dry_run="], "folder of this machine, which the containers of DataflowRunner don't"),
        (["--project="], "project"),
        (["--device=gpu"], "--device is auto, cpu, cuda or cuda:N, not gpu"),
    ],
)
def test_what_cannot_end_well_is_refused_before_any_work(
    changes: list[str], message: str, arguments: list[object], tmp_path: Path
) -> None:
    outcome = command(*arguments, *FLAGS, "--dry_run=True", *changes)
    assert outcome.status == 2, outcome
    assert message in outcome.err
    assert not (tmp_path / "out").exists()


def test_an_image_is_needed(arguments: list[object]) -> None:
    flags = [flag for flag in FLAGS if "sdk_container_image" not in flag]
    outcome = command(*arguments, *flags, "--dry_run=True")
    assert (outcome.status, "--sdk_container_image" in outcome.err) == (2, True)


def test_the_launching_machine_needs_no_gpu(
    arguments: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a worker has one is found out by the worker."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    built(*arguments, *FLAGS, "--device=cuda")


# The documentation


def commands_of(page: Path) -> list[Options]:
    """The jobs on a page, as the command line would take them."""
    blocks = re.findall(r"```\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    found = []
    for line in lines:
        if line.startswith("attribeam run"):
            named = re.sub("BUCKET|PROJECT", lambda name: name[0].lower(), line)
            known, others = parsers()[1].parse_known_args(shlex.split(named)[2:])
            found.append(run_options(known, {}, others))
    return found


def test_the_commands_of_the_documentation_can_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    # What Beam asks for where it can't make sense of the places that are named.
    monkeypatch.setattr(GoogleCloudOptions, "_create_default_gcs_bucket", lambda _: None)
    jobs = commands_of(ROOT / "docs" / "dataflow.md")
    assert len(jobs) >= 2
    for job in jobs:
        dry = replace(job, beam=[*job.beam, "--dry_run=True"])
        assert connect(dry) is Workers.CONTAINERS


def test_the_image_holds_the_versions_that_the_tests_run_with() -> None:
    dockerfile = (ROOT / "containers" / "Dockerfile").read_text(encoding="utf-8")
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    )
    (beam,) = re.findall(r"^ARG BEAM=(.+)$", dockerfile, re.MULTILINE)
    assert beam == pins["apache-beam"]
    # A job is pickled here and unpickled there: Beam wants the same Python on both sides.
    (python,) = re.findall(r"^ARG PYTHON=(.+)$", dockerfile, re.MULTILINE)
    assert f'python_version = "{python}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    # What is copied is there, and the builder is not kept from seeing it.
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE)
    for name in " ".join(copied).split():
        assert (ROOT / name).exists()
        assert f"!{name}" in ignored


def test_a_semicolon_that_the_shell_took_is_noticed() -> None:
    flags = [flag.replace(L4, L4.partition(";")[0]) for flag in FLAGS]
    with pytest.raises(UsageError, match="in quotes"):
        connect(Options("m", "c", "gs://bucket/run", runner="DataflowRunner", beam=flags))
