"""What a user asks for, from the command line or from Python."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

from attribeam.schemas import UsageTypeError
from attribeam.transforms.evaluate import Evaluation
from attribeam.transforms.inputs.row import Overflow, Words

_PLACES = {
    "model": "a folder that save_pretrained has written, or a hub id",
    "corpus": "a file, a folder, a glob or a data set's id",
    "output": "a folder",
}


@dataclass(frozen=True)
class Options:
    """What the user asked for; the names are those of the command line's options.

    Attributes:
        model: Local folder or hub id.
        corpus: See ``sources.open_source``.
        output: Folder of the run, local or at a URL.
        split: Split of the corpus.
        limit: Most rows of the corpus to take.
        methods: Names separated by commas, or ``all``.
        params: Parameters by method.
        layers: Scores by layer too, of the methods that have them.
        target: ``auto``, ``predicted``, ``gold``, ``runner_up``, ``each``, or the number or the
            name of a class.
        explain: ``auto``, ``logit``, ``log_prob``, ``probability``, ``contrast``, ``margin`` or
            ``value``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: ``float32``, ``float64``, ``bfloat16`` or ``mixed``.
        token_budget: Largest batch in tokens of short rows; None for the device's default.
        shard_size: Instances a shard: what is committed at a time.
        seed: Seed of all that is random.
        evaluation: What is perturbed; None for no curves.
        workers: Number of worker processes.
        columns: Column by role (``columns.ROLES``) where the guess is wrong; ``none`` for none.
        delimiter: What separates the fields of CSV and TSV; None for what their names say.
        max_length: Most tokens of an instance; None for the model's limit.
        overflow: ``truncate`` or ``fail`` for longer texts, or ``stride`` for windows of them.
        stride: Tokens that neighbouring windows have in common; None for a quarter of a window.
        words: ``whitespace`` or ``tokenizer``.
        mask_token_id: The mask token, for a model without tokenizer.
        allow_pickle: Load pickled weights.
        trust_remote_code: Let the model bring its own code.
        repair: Read every file that is there, and make those that are damaged again.
        retry_failed: Try again what failed for want of memory, a network or a device.
        runner: A Beam runner.
        beam: Further Beam options, as on the command line.
    """

    model: str
    corpus: str
    output: str
    split: str | None = None
    limit: int | None = None
    methods: str = "all"
    params: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    layers: bool = False
    target: str = "auto"
    explain: str = "auto"
    device: str = "auto"
    dtype: str = "float32"
    token_budget: int | None = None
    shard_size: int = 512
    seed: int = 0
    evaluation: Evaluation | None = field(default_factory=Evaluation)
    workers: int = 1
    columns: Mapping[str, str | None] = field(default_factory=dict)
    delimiter: str | None = None
    max_length: int | None = None
    overflow: Overflow = "truncate"
    stride: int | None = None
    words: Words = "whitespace"
    mask_token_id: int | None = None
    allow_pickle: bool = False
    trust_remote_code: bool = False
    repair: bool = False
    retry_failed: bool = False
    runner: str = "FnApiRunner"
    beam: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name, kinds in _PLACES.items():
            value = getattr(self, name)
            if isinstance(value, PathLike):
                object.__setattr__(self, name, str(value))
            elif not isinstance(value, str):
                raise UsageTypeError(f"{name} is {kinds}, not a {type(value).__name__}")

    @property
    def beam_flags(self) -> list[str]:
        """All that Beam is told, as on its command line."""
        flags = [f"--runner={self.runner}"]
        if self.workers > 1:
            if self.runner != "FnApiRunner":  # To which the job says how they are started.
                flags.append("--direct_running_mode=multi_processing")
            flags.append(f"--direct_num_workers={self.workers}")
            # What a worker raises, the launcher raises too.
            flags.append("--default_sdk_harness_log_level=CRITICAL")
        if "dataflow" in self.runner.lower():
            # A process loads a model, and computes one shard at a time with all the machine has.
            flags.append("--number_of_worker_harness_threads=1")
            if not any("use_multiple_sdk_containers" in flag for flag in self.beam):
                flags.append("--experiments=no_use_multiple_sdk_containers")
        return [*flags, *self.beam]
