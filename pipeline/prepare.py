"""All that is checked and written before any instance is attributed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from apache_beam.io.filesystem import BeamIOError
from apache_beam.options.pipeline_options import PipelineOptions, _BeamArgumentParser
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.runners import create_runner
from huggingface_hub import snapshot_download

from pipeline.corpus import choose_columns, stage
from pipeline.files import discard, is_local, join, list_files, write_atomic
from pipeline.identity import base_name, record
from pipeline.manifest import merged, read_manifest
from pipeline.options import Options
from pipeline.settings import Settings
from pipeline.sources import Source, open_source
from pipeline.statistics import ensure_statistics
from schemas import UsageError
from schemas.layout import CORPUS, MANIFEST, STATISTICS
from transforms import Chosen, EncodeOptions, Model, choose, load_model
from transforms.loading import DTYPES
from transforms.registry import methods
from transforms.targets import parse_target

_PROBE = ".attribeam-write-test"
_OWN = (f"{CORPUS}/rows-", f"{STATISTICS}/sample-", f"{MANIFEST}.", _PROBE)
_LOCAL_RUNNERS = ("FnApiRunner", "DirectRunner", "BundleBasedDirectRunner")


@dataclass(frozen=True)
class Prepared:
    """A job that can start.

    Attributes:
        settings: Settings for the workers.
        rows: Number of rows of the corpus.
        manifest: ``run.json`` as it is to be once this call adds to the run.
    """

    settings: Settings
    rows: int
    manifest: dict[str, Any]


def prepare(options: Options) -> Prepared:
    """Checks the options against each other, the model, the corpus and the output folder.

    The corpus is staged into the folder unless an earlier call has done that.

    Raises:
        UsageError: If anything is wrong; nothing has been attributed then.
    """
    check_numbers(options)
    _check_beam(options)
    device = resolve_device(options.device)
    chosen = choose(options.methods, options.params)
    _check_layers(options, chosen)
    old = _open_output(options.output)
    folder = resolve_model(options.model, allow_pickle=options.allow_pickle)
    model = load_checked(folder, options)
    _check_mask(options, model)
    target = parse_target(options.target, model)
    evaluation = options.evaluation and options.evaluation.checked(model)
    chosen = [choice.fitted(model) for choice in chosen]
    source = open_source(options.corpus, options.split)
    columns = choose_columns(source, options.columns, model)
    _check_gold(target, chosen, model, source, columns)
    encoding = _encoding(options, model, columns, need_label=target == "gold")
    _check_writable(options.output)
    root = options.output.rstrip("/")
    copy = partial(
        stage, source, columns, model, root, shard_size=options.shard_size, limit=options.limit
    )
    rows = copy() if old is None else int(old["identity"]["corpus"]["rows"])
    settings = Settings(
        model=str(folder),
        model_name=base_name(options.model),
        output=root,
        num_shards=-(-rows // options.shard_size),
        target=target,
        seed=options.seed,
        dtype=options.dtype,
        encoding=encoding,
        methods={choice.name: dict(choice.params) for choice in chosen},
        evaluation=evaluation,
        layers=options.layers,
        device=device,
        token_budget=options.token_budget,
        workers=options.workers,
        mask_token_id=options.mask_token_id,
        allow_pickle=options.allow_pickle,
        trust_remote_code=options.trust_remote_code,
    )
    new = record(options, settings, model, source, columns, rows, chosen)
    manifest = merged(root, old, new)
    if old is not None and len(list_files(join(root, CORPUS))) < settings.num_shards:
        # Somebody has tidied up; it is the same corpus, since its fingerprint is.
        copy()
    ensure_statistics(settings, model)
    return Prepared(settings, rows, manifest)


# Checks ---------------------------------------------------------------------------------------


def check_numbers(options: Options) -> None:
    """Checks options that are numbers or names on their own.

    Raises:
        UsageError: If one is out of range or unknown.
    """
    for name in ("limit", "token_budget", "shard_size", "workers", "max_length"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} is at least 1, not {value}")
    if options.dtype not in DTYPES:
        raise UsageError(f"--dtype is one of {', '.join(DTYPES)}, not {options.dtype}")
    for name, value, known in (
        ("overflow", options.overflow, ("truncate", "fail")),
        ("words", options.words, ("whitespace", "tokenizer")),
    ):
        if value not in known:
            raise UsageError(f"--{name} is {' or '.join(known)}, not {value}")


def _check_layers(options: Options, chosen: Sequence[Chosen]) -> None:
    if not options.layers or any(choice.method.layered for choice in chosen):
        return
    layered = [name for name, method in methods().items() if method.layered]
    remedy = f"name one in --methods that has: {', '.join(layered)}" if layered else "leave it out"
    raise UsageError(f"--layers: none of the methods chosen has scores by layer; {remedy}")


def _check_beam(options: Options) -> None:
    """A mistyped option must not pass for one of Beam's, which ignores those it doesn't know."""
    parser = _BeamParser(allow_abbrev=False)
    for kind in (PipelineOptions, *PipelineOptions.__subclasses__()):
        kind._add_argparse_args(parser)
    _, unknown = parser.parse_known_args(list(options.beam))
    if unknown and options.runner in _LOCAL_RUNNERS:
        raise UsageError(
            f"unknown option {unknown[0]}: neither attribeam nor Beam has it "
            "(`attribeam run --help` lists ours)"
        )
    try:
        runner = create_runner(options.runner)
        problems = PipelineOptionsValidator(PipelineOptions(options.beam_flags), runner).validate()
    except (ValueError, ImportError) as error:
        problems = [" ".join(str(error).split())]
    if problems:
        raise UsageError(f"--runner {options.runner}: {' '.join(problems)}")


class _BeamParser(_BeamArgumentParser):
    """Beam's own parser, but for its habit of printing all options it has."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"Beam does not accept an option: {message}")


def load_checked(folder: Path, options: Options) -> Model:
    """The model in a folder, as the options want it, on the CPU.

    Raises:
        UsageError: If it can't be loaded.
    """
    try:
        return load_model(
            folder,
            dtype=options.dtype,
            allow_pickle=options.allow_pickle,
            trust_remote_code=options.trust_remote_code,
            mask_token_id=options.mask_token_id,
        )
    except UsageError:
        raise
    except Exception as error:  # A damaged file gives a dozen kinds, from as many libraries.
        message = " ".join(str(error).split())[:300]
        raise UsageError(
            f"the model in {folder} can't be loaded: {type(error).__name__}: {message}"
        ) from error


def _check_mask(options: Options, model: Model) -> None:
    size = int(model.network.config.vocab_size)
    if options.mask_token_id is not None and not 0 <= options.mask_token_id < size:
        raise UsageError(
            f"--mask-token-id {options.mask_token_id} is outside the model's vocabulary "
            f"(0 to {size - 1})"
        )


def resolve_device(name: str) -> str:
    """The device that a name stands for.

    Raises:
        UsageError: If torch doesn't find it.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(name).type
    except RuntimeError:
        kind = ""
    if kind not in ("cpu", "cuda"):
        raise UsageError(f"--device is auto, cpu, cuda or cuda:N, not {name}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"--device {name}, but this machine has no CUDA GPU that torch can use")
    if kind == "cuda" and (torch.device(name).index or 0) >= torch.cuda.device_count():
        raise UsageError(f"--device {name}, but torch finds {torch.cuda.device_count()} CUDA GPU")
    return name


def _open_output(root: str) -> dict[str, Any] | None:
    """The manifest that is in the output folder, if any.

    Raises:
        UsageError: If the folder holds something that isn't a run.
    """
    try:
        if is_local(root) and Path(root).exists() and not Path(root).is_dir():
            raise UsageError(f"--output {root} is a file; name a folder")
        manifest = read_manifest(root)
    except UsageError:
        raise
    except (OSError, BeamIOError, ValueError) as error:
        raise UsageError(f"--output {root} can't be read: {error}") from error
    if manifest is None:
        # What a run that was killed before it began leaves behind: its corpus, half a manifest.
        foreign = [path for path in list_files(root) if not path.startswith(_OWN)]
        if foreign:
            raise UsageError(
                f"--output {root} is not empty and holds no run ({MANIFEST}), but {foreign[0]}: "
                "name a new folder"
            )
    return manifest


def _check_writable(root: str) -> None:
    probe = join(root, _PROBE)
    try:
        write_atomic(probe, lambda handle: handle.write(b""))
        discard(probe)
    except (OSError, BeamIOError, ValueError) as error:
        raise UsageError(f"--output {root} can't be written to: {error}") from error


def _check_gold(
    target: str | int,
    chosen: Sequence[Chosen],
    model: Model,
    source: Source,
    columns: dict[str, str],
) -> None:
    gold = [
        f"--set {choice.name}.target=gold"
        for choice in chosen
        if choice.params.get("target") == "gold"
    ]
    gold += ["--target gold"] * (target == "gold")
    if gold and model.task == "classification" and "label" not in columns:
        raise UsageError(
            f"{gold[0]} needs labels, but {source.name} has no label column; its columns are "
            f"{', '.join(source.columns)}: name one with --label-column"
        )


def _encoding(
    options: Options, model: Model, columns: Mapping[str, str], *, need_label: bool
) -> EncodeOptions:
    limit = model.max_length
    if options.max_length is not None:
        if options.max_length > limit:
            raise UsageError(
                f"--max-length {options.max_length} is more than the model takes ({limit})"
            )
        limit = options.max_length
    if model.tokenizer is not None and "text" in columns:
        special = model.tokenizer.num_special_tokens_to_add(pair="pair" in columns)
        if limit <= special:
            # Tokenizers don't truncate at all then.
            raise UsageError(f"--max-length {limit} leaves no room beside {special} special tokens")
    return EncodeOptions(limit, options.overflow, options.words, need_label)


def resolve_model(source: str, *, allow_pickle: bool = False) -> Path:
    """The local folder of a model: the one given, or a hub model's, fetched.

    Args:
        source: Folder or hub id.
        allow_pickle: Fetch pickled weights too.

    Raises:
        UsageError: If there is no such folder and the hub has no such model, or can't be reached.
    """
    if Path(source).is_dir():
        return Path(source)
    if Path(source).exists() or source.startswith((".", "/")) or source.count("/") > 1:
        raise UsageError(f"there is no model folder {source}")
    weights = ["*.safetensors", "*.bin"] if allow_pickle else ["*.safetensors"]
    try:
        return Path(snapshot_download(source, allow_patterns=["*.json", "*.txt", *weights]))
    except Exception as error:  # The library raises a dozen kinds; all mean that it isn't there.
        raise UsageError(
            f"there is no folder {source}, and the model {source} can't be had from the hub: "
            f"{type(error).__name__}: {error}"
        ) from error
