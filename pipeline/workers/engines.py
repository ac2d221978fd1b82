"""The Beam runner that a job is for: is it told what makes sense, and where do its workers run?

Beam's options pass through as they are; only combinations that can't end well are refused here,
before any work. `docs/engines.md` tells people about it.
"""

from collections.abc import Sequence
from enum import Enum
from importlib import import_module
from importlib.util import find_spec
from typing import NoReturn

from apache_beam.options.pipeline_options import (
    DebugOptions,
    GoogleCloudOptions,
    PipelineOptions,
    PortableOptions,
    SetupOptions,
    TestOptions,
    WorkerOptions,
    _BeamArgumentParser,
)
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.runners import PipelineRunner, create_runner
from apache_beam.runners.portability.portable_runner import PortableRunner
from apache_beam.transforms.environments import (
    DockerEnvironment,
    EmbeddedPythonEnvironment,
)
from apache_beam.transforms.resources import AcceleratorHint, resource_hints_from_options

from attribeam.pipeline.options import Options
from attribeam.pipeline.store.connecting import connect_stores as connect_to
from attribeam.pipeline.store.files import is_local
from attribeam.pipeline.workers.job_servers import is_of_job_server
from attribeam.schemas import UsageError

# By the names of their classes.
_IN_PROCESS = ("FnApiRunner", "SwitchingDirectRunner", "BundleBasedDirectRunner")
# The package that Beam needs for a protocol, and the extra that brings it.
_PROTOCOLS = {"s3": ("boto3", "s3"), "gs": ("google.cloud.storage", "gcs")}


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
    if options.on_dask and not _is_installed("distributed"):
        raise UsageError(
            "--runner dask needs the package distributed: install it with "
            "`pip install 'attribeam[dask]'`"
        )
    if options.on_dask:
        import_module(options.beam_runner.rpartition(".")[0])  # Which brings its options.
    unknown = _unknown(options.beam)
    flags = PipelineOptions(options.beam_flags)
    try:
        runner = create_runner(options.beam_runner)
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
    connect_to(options.beam_flags)
    return workers


def connect_store(path: str) -> None:
    """Lets Beam's file systems know of what they need for a run that no job is started for.

    Raises:
        UsageError: If a package is missing.
    """
    _check_protocol(path)
    connect_to([])


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
    served = isinstance(runner, PortableRunner)
    strange = [each for each in unknown if not (served and is_of_job_server(each))]
    if strange:
        raise UsageError(
            f"unknown option {strange[0]}: neither attribeam nor Beam has it "
            "(`attribeam run --help` lists ours)"
        )
    if options.workers > 1 and not in_process:
        raise UsageError(
            f"--workers is for runners on this machine; {options.runner} has its own options "
            "(--max_num_workers of Dataflow, --parallelism of Flink), or workers of its own (Dask)"
        )
    environment = flags.view_as(PortableOptions).environment_type
    if environment and not served and not _is_dataflow(runner):
        raise UsageError(
            f"--environment_type={environment} means nothing to {options.runner}: leave it out"
        )
    if _is_dataflow(runner):
        _check_dataflow(options, flags)


def _is_dataflow(runner: PipelineRunner) -> bool:
    return type(runner).__name__ == "DataflowRunner"


def _check_dataflow(options: Options, flags: PipelineOptions) -> None:
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
    if accelerators and flags.view_as(GoogleCloudOptions).flexrs_goal:
        raise UsageError(
            "--flexrs_goal is for jobs without GPUs, and would wait for ever: leave it out"
        )
    if accelerators and AcceleratorHint.urn in resource_hints_from_options(flags):
        raise UsageError(
            f"--dataflow_service_options={accelerators[0]} and an accelerator in "
            "--resource_hints can't be combined; leave the hint out: all steps of a job run in "
            "the same workers"
        )
    several = "use_multiple_sdk_containers" in (flags.view_as(DebugOptions).experiments or [])
    for accelerator in accelerators:
        _check_accelerator(accelerator, several=several)
    if options.device == "cpu" and asks_for_gpu(options):
        raise UsageError(
            "--device cpu on machines that are asked for with GPUs, which would idle at full "
            "price: leave out the accelerator, or --device"
        )


def asks_for_gpu(options: Options) -> bool:
    """Whether the machines of a job are asked for with GPUs."""
    flags = PipelineOptions(options.beam_flags)
    services = flags.view_as(GoogleCloudOptions).dataflow_service_options or []
    hint = AcceleratorHint.urn in resource_hints_from_options(flags)
    return hint or any(each.startswith("worker_accelerator=") for each in services)


def _check_accelerator(accelerator: str, *, several: bool) -> None:
    fields = accelerator.removeprefix("worker_accelerator=").split(";")
    said = {name: value for name, _, value in (field.partition(":") for field in fields)}
    if not {"type", "count"} <= {*said}:
        # A shell that isn't told otherwise takes a semicolon for the end of a command.
        raise UsageError(
            f"--dataflow_service_options={accelerator} is cut short: it is "
            "worker_accelerator=type:TYPE;count:N;install-nvidia-driver, in quotes"
        )
    if "install-nvidia-driver" not in said:
        raise UsageError(
            f"--dataflow_service_options={accelerator} doesn't ask for a driver, without which "
            "the GPU can't be used: add ;install-nvidia-driver"
        )
    if said["count"] != "1" and not several:
        raise UsageError(
            f"--dataflow_service_options={accelerator}: a machine runs one process with one GPU,"
            " so that the others would idle at full price. Ask for count:1 and more machines, "
            "or add --experiments=use_multiple_sdk_containers, which runs more processes"
        )


def _workers(runner: PipelineRunner, options: Options) -> Workers:
    if type(runner).__name__ in _IN_PROCESS:
        return Workers.HERE
    if _is_dataflow(runner):
        return Workers.CONTAINERS
    if type(runner).__name__ == "DaskRunner":
        # Without an address, Dask starts worker processes on this machine.
        own = PipelineOptions(options.beam_flags).get_all_options()
        return Workers.ELSEWHERE if own["address"] or own["scheduler_file"] else Workers.HERE
    # A runner may decide for itself: Flink and Spark on this machine do without containers.
    environment = runner.default_environment(PipelineOptions(options.beam_flags))
    if isinstance(environment, EmbeddedPythonEnvironment):  # Of which LOOPBACK is one.
        return Workers.HERE
    if isinstance(environment, DockerEnvironment):
        return Workers.CONTAINERS
    return Workers.ELSEWHERE
