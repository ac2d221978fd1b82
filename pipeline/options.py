"""What a user asks for, from the command line, a configuration or Python.

An option is declared once, here: its name, its default, what it is for and what it may be. The
parsers of the commands are made of that (``commands.arguments``), and so are the checks that need
nothing else (``prepare.check_numbers``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any

from attribeam.schemas import UsageError, UsageTypeError
from attribeam.schemas.errors import INT64

if TYPE_CHECKING:  # Help is not to wait for torch.
    from attribeam.transforms.evaluate import Evaluation
    from attribeam.transforms.inputs.row import Overflow, Segments, Words

_PLACES = {
    "model": "a folder that save_pretrained has written, or a hub id",
    "corpus": "a file, a folder, a glob or a data set's id",
    "output": "a folder",
}


_DASK = "apache_beam.runners.dask.dask_runner.DaskRunner"


@dataclass(frozen=True)
class Said:
    """How an option is said on the command line, and what it may be.

    Attributes:
        about: What it is for.
        metavar: What stands for its value in the help; None for its name.
        group: The part of the help that it is in; None for the first.
        whole: Whether it is a whole number.
        least: The least that such a one may be.
        known: All that it may be, where that depends on nothing else.
    """

    about: str | None = None
    metavar: str | None = None
    group: str | None = None
    whole: bool = False
    least: int | None = None
    known: tuple[str, ...] = ()


def _option(about: str | None, default: Any = MISSING, **more: Any) -> Any:
    """A field that is an option of the command line, of the same name and default."""
    said = {"said": Said(about, **more)}
    return field(metadata=said) if default is MISSING else field(default=default, metadata=said)


_in_corpus = partial(_option, group="corpus")
_in_running = partial(_option, group="running")


def _usual_evaluation() -> "Evaluation":
    from attribeam.transforms.evaluate import Evaluation  # noqa: PLC0415

    return Evaluation()


@dataclass(frozen=True)
class Options:
    """What the user asked for; what an option is for is said where it is declared.

    Attributes:
        params: Parameters by method.
        scores: Files of scores that others computed, by the name that they are to have as a method.
        columns: Column by role (``columns.ROLES``) where the guess is wrong; ``none`` for none.
        evaluation: What is perturbed; None for no curves.
        beam: Further Beam options, as on the command line.
    """

    model: str = _option("folder of a fine-tuned model, or its hub id", metavar="DIR_OR_ID")
    corpus: str = _option("file, folder, glob, or id of a data set", metavar="PATH_OR_ID")
    output: str = _option("folder of the run", metavar="DIR")
    split: str | None = _option("split of the corpus", None)
    limit: int | None = _option(
        "take only the first N rows", None, metavar="N", whole=True, least=1
    )
    methods: str = _option("see `attribeam methods`", "all", metavar="A,B,...")
    layers: bool = _option(
        "scores by layer too, into tables of their own, of the methods that have them", False
    )
    pixels: bool = _option(
        "scores by pixel too, of the methods of pictures that have them (H x W numbers each)", False
    )
    params: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    target: str = _option(
        "which output to explain: auto (the predicted class; the correct word of a masked LM; each "
        "of several labels or values; the start and the end of an answer; each token that follows "
        "a prompt, and all of them at once), predicted, gold, runner_up, each, objects (each class "
        "that masks of a picture are of), tokens, all (of a language model), or a class or a token "
        "by its name or number",
        "auto",
        metavar="RULE|CLASS",
    )
    target_from: str | None = _option(
        "explain the outputs that another run of the same corpus and classes explains: of a model "
        "with another seed, precision, checkpoint or labels, say; its instances are found by id",
        None,
        metavar="RUN",
    )
    explain: str = _option(
        "which scalar of it: auto, logit, log_prob, probability, contrast (with the runner-up, a "
        "masked LM's other word, or a language model's foil), margin (with the largest other), or "
        "value (of a regression, or of the start and the end of an answer)",
        "auto",
        metavar="SCALAR",
    )
    scores: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str | None] = field(default_factory=dict)
    delimiter: str | None = _in_corpus(
        "between the fields of CSV and TSV (by the name)", None, metavar="CHARACTER"
    )
    max_length: int | None = _in_corpus(
        "most tokens of an instance (the model's)", None, metavar="N", whole=True, least=1
    )
    overflow: "Overflow" = _in_corpus(
        "for longer texts",
        "truncate",
        metavar="truncate|fail|stride",
        known=("truncate", "fail", "stride"),
    )
    stride: int | None = _in_corpus(
        "tokens that neighbouring windows of a text have in common (a quarter of a window)",
        None,
        metavar="N",
        whole=True,
    )
    words: "Words" = _in_corpus(
        "what a word is",
        "whitespace",
        metavar="whitespace|tokenizer",
        known=("whitespace", "tokenizer"),
    )
    max_new_tokens: int = _in_corpus(
        "most tokens that a language model says after prompts of which the corpus doesn't say what "
        "follows: the likeliest each time, once",
        32,
        metavar="N",
        whole=True,
        least=1,
    )
    segments: "Segments" = _in_corpus(
        "parts of a prompt: those of the corpus, messages or sentences, the first that there are "
        "(auto); sentences; documents with blank lines between them; or none",
        "auto",
        metavar="auto|sentence|document|none",
        known=("auto", "sentence", "document", "none"),
    )
    mask_token_id: int | None = _in_corpus(
        "for a model without tokenizer", None, metavar="ID", whole=True
    )
    pooling: str = _in_corpus(
        "where a classifier of pictures is read: its class's own position, or the mean of patches",
        "auto",
        metavar="auto|cls|mean",
        known=("auto", "cls", "mean"),
    )
    prompts: str | None = _in_corpus(
        "classes of pictures for a model that compares these with texts (CLIP): a file with a "
        "prompt a line, or prompts separated by commas",
        None,
        metavar="FILE|A,B,...",
    )
    evaluation: "Evaluation | None" = field(default_factory=_usual_evaluation)
    imputer: str | None = _option(
        "a masked LM of the model's own tokenizer, which fills what is removed under --operations "
        "impute",
        None,
        metavar="DIR_OR_ID",
        group="evaluation",
    )
    device: str = _in_running("where the model runs", "auto", metavar="auto|cpu|cuda")
    dtype: str = _in_running(
        None,
        "float32",
        metavar="float32|float64|bfloat16|mixed",
        known=("float32", "float64", "bfloat16", "mixed"),
    )
    perturb_dtype: str = _in_running(
        "type that perturbed inputs of curves are run in; auto takes bfloat16 where the processor "
        "has it and some of the run's instances show that nothing changes beyond a bound",
        "float32",
        metavar="auto|float32|bfloat16",
        known=("auto", "float32", "bfloat16"),
    )
    token_budget: int | None = _in_running(
        "largest batch, in tokens (by device)", None, metavar="N", whole=True, least=1
    )
    shard_size: int | None = _in_running(
        "rows of the corpus that are committed at a time (about a thousandth of the corpus: 512 at "
        "least and 8192 at most)",
        None,
        metavar="N",
        whole=True,
        least=1,
    )
    seed: int = _in_running(None, 0, whole=True)
    workers: int = _in_running(
        "worker processes on this machine", 1, metavar="N", whole=True, least=1
    )
    part: str | None = _in_running(
        "do one of N parts of the run, counted from 0, beside others that do theirs (auto: of a "
        "Slurm array; auto/N: of an indexed job of Kubernetes)",
        None,
        metavar="I/N|auto|auto/N",
    )
    repair: bool = _in_running(
        "read every file that is there, and make those that are damaged again", False
    )
    retry_failed: bool = _in_running(
        "try again what failed for want of memory, a network or a device", False
    )
    runner: str = _in_running("a Beam runner (docs/engines.md)", "FnApiRunner", metavar="NAME")
    allow_pickle: bool = _in_running("load pickled weights: they can run code", False)
    trust_remote_code: bool = _in_running("run code that comes with the model", False)
    beam: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name, kinds in _PLACES.items():
            value = getattr(self, name)
            if isinstance(value, PathLike):
                object.__setattr__(self, name, str(value))
            elif not isinstance(value, str):
                raise UsageTypeError(f"{name} is {kinds}, not a {type(value).__name__}")

    @property
    def on_dask(self) -> bool:
        """Whether the runner is Beam's for Dask, for which Beam itself has no short name."""
        return self.runner.rpartition(".")[2].lower() in ("dask", "daskrunner")

    @property
    def beam_runner(self) -> str:
        """The runner, as Beam finds it."""
        return _DASK if self.on_dask else self.runner

    @property
    def beam_flags(self) -> list[str]:
        """All that Beam is told, as on its command line."""
        flags = [f"--runner={self.beam_runner}"]
        if self.on_dask and not any("partition" in flag for flag in self.beam):
            # A worker that is lost costs a partition, of which Dask's own default has 128 shards.
            flags.append("--dask_partition_size=1")
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


def declared() -> dict[str, tuple[Said, Any]]:
    """The options of the command line: how each is said, and its default (None if it has none)."""
    return {
        each.name: (each.metadata["said"], None if each.default is MISSING else each.default)
        for each in fields(Options)
        if "said" in each.metadata
    }


def check_option(flag: str, value: Any, each: Said) -> None:
    """Checks an option by what is declared of it.

    Raises:
        UsageError: If it is out of range or unknown.
    """
    if each.whole and value is not None:
        if not isinstance(value, int):
            kind, name = type(value).__name__, flag[2:].replace("-", "_")
            raise UsageTypeError(f"{name} is a whole number (int), and not a {kind}: {value}")
        if each.least is not None and value < each.least:
            raise UsageError(f"{flag} is at least {each.least}, not {value}")
        if value not in INT64:
            raise UsageError(f"{flag} {value} is more than 64 bits hold")
    if each.known and value not in each.known:
        *others, last = each.known
        which = f"one of {', '.join(each.known)}" if len(others) > 1 else f"{others[0]} or {last}"
        raise UsageError(f"{flag} is {which}, not {value}")
