"""The Beam runner that a job is for: is it told what makes sense, and where do its workers run?

Beam's options pass through as they are; only combinations that can't end well are refused here,
before any work. `docs/engines.md` tells people about it.
"""

from collections.abc import Sequence
from enum import Enum
from importlib.util import find_spec
from typing import NoReturn

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import (
    GoogleCloudOptions,
    PipelineOptions,
    SetupOptions,
    TestOptions,
    WorkerOptions,
    _BeamArgumentParser,
)
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.runners import PipelineRunner, create_runner
from apache_beam.transforms.environments import (
    DockerEnvironment,
    EmbeddedPythonEnvironment,
)
from apache_beam.transforms.resources import AcceleratorHint, resource_hints_from_options

from attribeam.pipeline.options import Options
from attribeam.pipeline.store.files import is_local
from attribeam.pipeline.store.s3 import share_clients
from attribeam.schemas import UsageError

# By the names of their classes.
_IN_PROCESS = ("FnApiRunner", "SwitchingDirectRunner", "BundleBasedDirectRunner")
# The package that Beam needs for a protocol, and the extra that brings it.
_PROTOCOLS = {"s3": ("boto3", "s3"), "gs": ("google.cloud.storage", "gcp")}


class Workers(Enum):
    """Where a runner's workers run.

    ``HERE`` is the machine that the job is launched on; ``ELSEWHERE`` they may be on others, with
    whatever disks these share; ``CONTAINERS`` see no disk of this machine.
    """

    HERE = "here"
    ELSEWHERE = "elsewhere"
    CONTAINERS = "containers"


def connect(options: Options) -> Workers:
    """Checks what Beam is told, and lets Beam's file systems know of it.

    To be called before anything of the run's folder is touched: credentials and endpoints of file
    systems are among Beam's options.

    Returns:
        Where the workers will run.

    Raises:
        UsageError: If the options can't end well.
    """
    for path in (options.output, options.corpus):
        _check_protocol(path)
    unknown = _unknown(options.beam)
    flags = PipelineOptions(options.beam_flags)
    try:
        runner = create_runner(options.runner)
        _check_combinations(options, runner, flags, unknown)
        workers = _workers(runner, options)
        _check_reach(options, workers)
        # The last, since it may ask the network.
        problems = PipelineOptionsValidator(flags, runner).validate()
    except UsageError:
        raise
    except Exception as error:  # Beam, and what it asks Google with, raise a dozen kinds.
        problems = [" ".join(str(error).split())[:300] or type(error).__name__]
    if problems:
        raise UsageError(f"--runner {options.runner}: {' '.join(problems)}")
    share_clients()
    FileSystems.set_options(flags)
    return workers


def _check_reach(options: Options, workers: Workers) -> None:
    if not options.output:  # `attribeam plan` needs none.
        return
    if workers is Workers.CONTAINERS and is_local(options.output) and not is_dry_run(options):
        raise UsageError(
            f"--output {options.output} is a folder of this machine, which the containers of "
            f"{options.runner} don't see; name one at a URL (gs://, s3://), or run the workers "
            "here with --environment_type=LOOPBACK where the runner has it"
        )


def is_dry_run(options: Options) -> bool:
    """Whether a job is only to be built, and not sent (Beam's ``--dry_run=True``)."""
    return bool(PipelineOptions(options.beam_flags).view_as(TestOptions).dry_run)


def _unknown(flags: Sequence[str]) -> list[str]:
    """The options that Beam doesn't know.

    Raises:
        UsageError: If it doesn't accept the value of one that it does.
    """
    parser = _BeamParser(allow_abbrev=False)
    for kind in (PipelineOptions, *PipelineOptions.__subclasses__()):
        kind._add_argparse_args(parser)
    return list(parser.parse_known_args(list(flags))[1])


class _BeamParser(_BeamArgumentParser):
    """Beam's own parser, but for its habit of printing all options it has."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"Beam does not accept an option: {message}")


def _check_protocol(path: str) -> None:
    protocol = path.partition("://")[0]
    if protocol in _PROTOCOLS and not is_local(path):
        package, extra = _PROTOCOLS[protocol]
        if not _is_installed(package):
            raise UsageError(
                f"{path} needs the package {package}: install it with "
                f"`pip install 'attribeam[{extra}]'`"
            )


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # Of a package that it would be part of.
        return False


def _check_combinations(
    options: Options, runner: PipelineRunner, flags: PipelineOptions, unknown: Sequence[str]
) -> None:
    in_process = type(runner).__name__ in _IN_PROCESS
    # A mistyped option must not pass for one of Beam's, which ignores those it doesn't know. But
    # the job servers of Flink and Spark have options that Beam's Python side doesn't know.
    if unknown and in_process:
        raise UsageError(
            f"unknown option {unknown[0]}: neither attribeam nor Beam has it "
            "(`attribeam run --help` lists ours)"
        )
    if options.workers > 1 and not in_process:
        raise UsageError(
            f"--workers is for runners on this machine; {options.runner} has its own options "
            "(--max_num_workers of Dataflow, --parallelism of Flink)"
        )
    if _is_dataflow(runner):
        _check_dataflow(flags)


def _is_dataflow(runner: PipelineRunner) -> bool:
    return type(runner).__name__ == "DataflowRunner"


def _check_dataflow(flags: PipelineOptions) -> None:
    """Checks what the service would find out only after minutes, or not at all."""
    setup = flags.view_as(SetupOptions)
    if not (
        flags.view_as(WorkerOptions).sdk_container_image
        or setup.setup_file
        or setup.requirements_file
        or setup.extra_packages
        or setup.prebuild_sdk_container_engine
    ):
        raise UsageError(
            "Dataflow's own workers have neither attribeam nor torch: name an image that has, "
            "with --sdk_container_image (docs/dataflow.md says how to build it)"
        )
    services = flags.view_as(GoogleCloudOptions).dataflow_service_options or []
    accelerators = [each for each in services if each.startswith("worker_accelerator=")]
    if accelerators and AcceleratorHint.urn in resource_hints_from_options(flags):
        raise UsageError(
            f"--dataflow_service_options={accelerators[0]} and an accelerator in "
            "--resource_hints can't be combined; leave the hint out: all steps of a job run in "
            "the same workers"
        )
    _check_accelerators(accelerators)


def _check_accelerators(accelerators: Sequence[str]) -> None:
    for accelerator in accelerators:
        fields = accelerator.removeprefix("worker_accelerator=").split(";")
        if not {"type", "count"} <= {field.partition(":")[0] for field in fields}:
            # A shell that isn't told otherwise takes a semicolon for the end of a command.
            raise UsageError(
                f"--dataflow_service_options={accelerator} is cut short: it is "
                "worker_accelerator=type:TYPE;count:N;install-nvidia-driver, in quotes"
            )


def _workers(runner: PipelineRunner, options: Options) -> Workers:
    if type(runner).__name__ in _IN_PROCESS:
        return Workers.HERE
    if _is_dataflow(runner):
        return Workers.CONTAINERS
    # A runner may decide for itself: Flink and Spark on this machine do without containers.
    environment = runner.default_environment(PipelineOptions(options.beam_flags))
    if isinstance(environment, EmbeddedPythonEnvironment):  # Of which LOOPBACK is one.
        return Workers.HERE
    if isinstance(environment, DockerEnvironment):
        return Workers.CONTAINERS
    return Workers.ELSEWHERE
