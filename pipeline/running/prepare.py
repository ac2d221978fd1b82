"""All that is checked and written before any instance is attributed."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import get_args

import torch
from apache_beam.io.filesystem import BeamIOError
from huggingface_hub import snapshot_download

from attribeam.analysis.opening.runs import linked_folders
from attribeam.pipeline.corpus.foreign import Foreign, check_names, read_foreign
from attribeam.pipeline.corpus.given import stage_given
from attribeam.pipeline.corpus.padding import count_padding, said
from attribeam.pipeline.corpus.prompts import read_prompts
from attribeam.pipeline.corpus.staging import (
    Corpus,
    Staged,
    check_again,
    open_corpus,
    shard_size_for,
    stage,
    staged,
)
from attribeam.pipeline.corpus.targets import GivenTargets, read_targets, stage_targets
from attribeam.pipeline.options import Options, check_option, declared
from attribeam.pipeline.parts import check_part, part_of
from attribeam.pipeline.places import check_model_folder
from attribeam.pipeline.running.again import NOTHING, Run, Work, passing_parts
from attribeam.pipeline.running.identity import base_name, record
from attribeam.pipeline.running.imputing import find_imputer
from attribeam.pipeline.running.loadable import is_described
from attribeam.pipeline.running.manifest import merged, other_versions, read_manifest
from attribeam.pipeline.running.perturbing import decided
from attribeam.pipeline.running.restoring import check_restorable, clear, restore
from attribeam.pipeline.running.statistics import ensure_statistics
from attribeam.pipeline.settings import ImputerPlace, ModelCopy, Settings
from attribeam.pipeline.store.connecting import options_of_stores
from attribeam.pipeline.store.damage import sorted_out, sweep
from attribeam.pipeline.store.files import discard, discard_folder, is_local, join, list_files
from attribeam.pipeline.workers.devices import check_precision
from attribeam.pipeline.workers.engines import Workers, asks_for_gpu
from attribeam.pipeline.workers.model_files import copy_of
from attribeam.schemas import UsageError
from attribeam.schemas.layout import CARD, CORPUS, GIVEN, LOCK, MANIFEST, MODEL, STATISTICS
from attribeam.schemas.manifest import NO_MODEL, CorpusIdentity, Manifest, is_imported, is_published
from attribeam.transforms import Chosen, EncodeOptions, Model, choose, load_model
from attribeam.transforms.evaluate import IMPUTE, ORDERS, CurveOperation, Evaluation
from attribeam.transforms.inputs.row import Target
from attribeam.transforms.inputs.targets import (
    GIVEN as GIVEN_CLASS,
)
from attribeam.transforms.inputs.targets import (
    SEVERAL,
    Scalar,
    parse_explain,
    parse_target,
)
from attribeam.transforms.inputs.text.windows import default_overlap, most_overlap
from attribeam.transforms.network.tokenizer import TokenizerError
from attribeam.transforms.registry import fit_all, methods

# Each is a process with a model of its own, and all are started by this machine.
_MOST_WORKERS = 1024
_OWN = (
    f"{CORPUS}/rows-",
    f"{CORPUS}/continuations-",
    f"{STATISTICS}/sample-",
    f"{GIVEN}/",
    f"{MODEL}/",
    f"{MANIFEST}.",
    LOCK,
)


@dataclass(frozen=True)
class Prepared:
    """A job that can start.

    Attributes:
        work: What is to be done.
        rows: Number of rows of the corpus.
        shard_size: Rows a shard.
        manifest: ``run.json`` as it is to be once this call adds to the run.
        notes: What is to be said if there is anything to do.
        guessed: Sentences on what was guessed and left out, to be said then too.
        begun: Whether there is a ``run.json`` already.
    """

    work: Work
    rows: int
    shard_size: int
    manifest: Manifest
    notes: list[str]
    guessed: list[str]
    begun: bool


@dataclass(frozen=True)
class Loaded:
    """What options come to, as far as neither the corpus nor the run's folder is needed for it.

    Attributes:
        folder: The model's folder.
        model: The model, on the CPU.
        device: Where it is to run on this machine.
        copy: What workers on other machines load of it; None if there are none.
        chosen: The methods, their parameters fixed.
        left_out: Of ``all`` those that aren't defined for the model, and why.
        target: Class to explain.
        given_targets: The classes that another run explains, if it is these.
        scalar: Which scalar of it.
        evaluation: What is perturbed.
        imputer: The masked LM that fills what is removed, if there is one.
        foreign: Scores that others computed, which are methods too.
    """

    folder: Path
    model: Model
    device: str
    copy: ModelCopy | None
    chosen: list[Chosen]
    left_out: dict[str, str]
    target: str | int
    given_targets: GivenTargets | None
    scalar: Scalar
    evaluation: Evaluation | None
    imputer: ImputerPlace | None
    foreign: list[Foreign]


@dataclass(frozen=True)
class Checked(Loaded):
    """What options come to, before anything is copied of the corpus or written.

    Attributes:
        corpus: The corpus.
        encoding: How texts become tokens.
    """

    corpus: Corpus
    encoding: EncodeOptions

    @property
    def notes(self) -> list[str]:
        """Sentences on what was guessed and left out."""
        alike: dict[str, list[str]] = {}
        for name, why in self.left_out.items():
            alike.setdefault(why, []).append(name)
        left_out = (f"left out: {', '.join(names)}: each {why}" for why, names in alike.items())
        return [
            *self.corpus.notes,
            *left_out,
            *_of_colours(self.model),
            *_of_patches(self.model),
        ]

    def settings(self, options: Options, rows: int) -> Settings:
        """Settings for the workers, of a corpus of so many rows."""
        return Settings(
            model=str(self.folder),
            model_name=base_name(options.model),
            output=options.output.rstrip("/"),
            num_shards=-(-rows // _size_of(options, rows)),
            target=self.target,
            given_targets=None if self.given_targets is None else self.given_targets.digest,
            scalar=self.scalar,
            seed=options.seed,
            dtype=options.dtype,
            encoding=self.encoding,
            methods={choice.name: dict(choice.params) for choice in self.chosen},
            evaluation=self.evaluation,
            imputer=self.imputer,
            layers=options.layers,
            pixels=options.pixels,
            masks="mask" in self.corpus.columns,
            device=self.device if self.copy is None else _device_elsewhere(options),
            token_budget=options.token_budget,
            workers=options.workers,
            mask_token_id=options.mask_token_id,
            pooling=options.pooling,
            prompts=self.model.prompts,
            allow_pickle=options.allow_pickle,
            trust_remote_code=options.trust_remote_code,
            tokenizer=self.model.tokenizer is not None,
            model_copy=self.copy,
            stores=options_of_stores(options.beam_flags),
        )


def load(options: Options, workers: Workers) -> Loaded:
    """Checks the options against each other and the model, which is most of the time it takes.

    Args:
        options: The options.
        workers: Where the workers will run (``engines.connect``).

    Raises:
        UsageError: If anything is wrong.
    """
    check_numbers(options)
    here = workers is Workers.HERE
    check_device(options.device)
    # What other machines have is found out there.
    device = resolve_device(options.device if here else "auto")
    if here:
        check_precision(options.dtype, device)
    chosen = _chosen(options)
    _check_layers(options, chosen)
    folder = resolve_model(
        options.model,
        allow_pickle=options.allow_pickle,
        trust_remote_code=options.trust_remote_code,
    )
    model = load_checked(folder, options)
    if options.layers and model.beside is not None:
        raise UsageError("--layers: pairs are run by two networks, whose layers aren't the same")
    foreign = [read_foreign(name, place, model.labels) for name, place in options.scores.items()]
    chosen += (
        choose([one.name for one in foreign], {f.name: f.params for f in foreign})
        if foreign
        else []
    )
    given_targets = _given_targets(options, model)
    target = parse_target(options.target if given_targets is None else GIVEN_CLASS, model)
    scalar = parse_explain(options.explain, model)
    evaluation = _evaluation(options, model)
    imputer = _imputer(options, model, evaluation, here=here)
    if imputer is not None and evaluation is not None:
        known = {"source": base_name(imputer.source), "weights_sha256": imputer.weights}
        evaluation = replace(evaluation, imputer=known)
    chosen, left_out = fit_all(chosen, model, scalar)
    return Loaded(
        folder=folder,
        model=model,
        device=device,
        copy=None if here else _model_copy(folder, options),
        chosen=chosen,
        left_out=left_out,
        target=target,
        given_targets=given_targets,
        scalar=scalar,
        evaluation=evaluation,
        imputer=imputer,
        foreign=foreign,
    )


def _given_targets(options: Options, model: Model) -> GivenTargets | None:
    """The classes that another run explains, if these are asked for."""
    if options.target_from is None:
        return None
    if options.target != declared()["target"][1]:
        raise UsageError(
            f"--target {options.target} and --target-from {options.target_from} both say what is "
            "explained: leave out one of them"
        )
    return read_targets(options.target_from, model)


def _evaluation(options: Options, model: Model) -> Evaluation | None:
    """What is perturbed, checked; with ``auto`` its type is decided when there is a corpus."""
    if options.evaluation is None:
        return None
    asked = options.evaluation
    if options.perturb_dtype == "bfloat16":
        asked = replace(asked, dtype="bfloat16")
    return _in_order(asked.checked(model))


def _imputer(
    options: Options, model: Model, evaluation: Evaluation | None, *, here: bool
) -> ImputerPlace | None:
    """The masked LM that is asked for, checked."""
    if options.imputer is None:
        if evaluation is not None and IMPUTE in evaluation.operations:
            raise UsageError(
                f"--operations {IMPUTE} takes a masked LM of the model's tokenizer, which fills "
                "what is removed: name it with --imputer"
            )
        return None
    try:
        folder = resolve_model(
            options.imputer,
            allow_pickle=options.allow_pickle,
            trust_remote_code=options.trust_remote_code,
        )
    except UsageError as error:
        raise UsageError(f"--imputer {options.imputer}: {error}") from error
    return find_imputer(options, folder, model, evaluation, here=here)


def _chosen(options: Options) -> list[Chosen]:
    """The methods that are computed; names of scores that are given are none of these."""
    check_names(options.scores)
    names = [name.strip() for name in options.methods.split(",") if name.strip()]
    computed = [name for name in names if name not in options.scores]
    if options.scores and names and not computed:
        return []
    return choose(computed, options.params)


def check(
    options: Options,
    workers: Workers,
    begun: CorpusIdentity | None = None,
    loaded: Loaded | None = None,
) -> Checked:
    """Checks the options against each other, the model and the corpus.

    Args:
        options: The options.
        workers: Where the workers will run (``engines.connect``).
        begun: What ``run.json`` says of the corpus, if a run goes on.
        loaded: What ``load`` has given, if it was called before.

    Raises:
        UsageError: If anything is wrong.
    """
    loaded = load(options, workers) if loaded is None else loaded
    model = loaded.model
    corpus = open_corpus(
        options.corpus,
        model,
        split=options.split,
        limit=options.limit,
        columns=options.columns,
        delimiter=options.delimiter,
        begun=begun,
    )
    _check_gold(loaded.target, loaded.chosen, model, corpus)
    encoding = _encoding(options, model, corpus.columns, loaded.target)
    return Checked(**vars(loaded), corpus=corpus, encoding=encoding)


def _in_order(evaluation: Evaluation) -> Evaluation:
    """An evaluation with its lists in one order, whichever they were given in."""
    orders = tuple(order for order in ORDERS if order in evaluation.orders)
    operations = tuple(each for each in get_args(CurveOperation) if each in evaluation.operations)
    return replace(evaluation, orders=orders, operations=operations)


def prepare(options: Options, workers: Workers, loaded: Loaded | None = None) -> Prepared:
    """Checks the options against each other, the model, the corpus and the output folder.

    The caller has the folder to itself (``lock.locked``, ``lock.locked_part``). The corpus is
    staged into it unless an earlier call has done that.

    Args:
        options: The options.
        workers: Where the workers will run (``engines.connect``).
        loaded: What ``load`` has given, if it was called before.

    Raises:
        UsageError: If anything is wrong; nothing has been attributed then.
    """
    check_numbers(options)
    old = _open_output(options.output)
    checked = check(options, workers, old and old["identity"]["corpus"], loaded)
    if old is not None:
        checked = replace(checked, chosen=_as_begun(checked, options, old))
    with _undone(options.output.rstrip("/"), old):
        return _prepared(options, checked, old)


def _as_begun(checked: Checked, options: Options, old: Manifest) -> list[Chosen]:
    """The chosen methods, with the defaults that a run began them with, if those have changed."""

    def begun(choice: Chosen) -> Chosen:
        record = old["methods"].get(choice.name)
        given = options.params.get(choice.name, {})
        params = record and choice.method.as_begun(given, record["params"])
        if not params:
            return choice
        return replace(choice, params=params).fitted(checked.model, checked.scalar)

    return [begun(choice) for choice in checked.chosen]


def _prepared(options: Options, checked: Checked, old: Manifest | None) -> Prepared:
    """What needs the corpus: it is copied into the folder, and what is to be known of it is."""
    model, corpus = checked.model, checked.corpus
    root, part = options.output.rstrip("/"), part_of(options.part)
    if old is not None and options.shard_size is None:
        options = replace(options, shard_size=old["identity"]["settings"].get("shard_size"))
    copy = partial(
        stage,
        *(corpus, root),
        shard_size=options.shard_size,
        windows=checked.encoding.overflow == "stride",
        questions=checked.encoding.objects
        or checked.model.task in (*SEVERAL, "token_classification"),
        pairs=checked.model.beside is not None,
        anew=old is None,
    )
    if old is None:
        # Of a call that was killed before it began; its model may have been another.
        discard_folder(join(root, STATISTICS))
    rows, size = copy() if old is None else _staged_before(old, options)
    limit = _effective_limit(options.limit, rows, corpus, old)
    options = replace(options, limit=limit, shard_size=size)
    settings, told, measured = decided(
        checked.settings(options, rows),
        *(options.perturb_dtype, model, old),
        checked.device if checked.copy is None else "auto",
    )
    ids = "input_ids" in corpus.columns
    padding = _padding(root, old, settings, model.of_texts) if ids else None
    new = record(options, settings, model, corpus, rows, checked.chosen, padding)
    manifest = merged(root, old, new)
    if old is not None and is_published(old):
        # Nothing of what was asked for is refused any more.
        restore(root, old, note)
    settings = settings.as_begun(manifest)
    run = Run.of(settings, manifest, model)
    whole, damaged = sweep(root, settings.num_shards, old if options.repair else None, part)
    damage = sorted_out(damaged, run.units, settings.num_shards)
    if old is not None and (damage.corpus or not staged(root, settings.num_shards)):
        # Or somebody has tidied up; it is the same corpus, since its fingerprint is.
        for path in damage.corpus:
            discard(join(root, path))
        copy()
        check_again(root, settings.num_shards)
    if checked.given_targets is not None:
        stage_targets(checked.given_targets, root, settings.num_shards)
    given: list[str] = []
    for foreign in checked.foreign:
        stage_given(foreign, root, settings.num_shards, given.append)
    passing = passing_parts(root, run, whole, part) if options.retry_failed else NOTHING
    everything = options.repair or options.retry_failed
    work = run.work(whole, damage, passing, part, everything=everything)
    # Of whichever method: it is known by whom it was made.
    manifest["executions"][-1]["methods"] = list(work.settings.methods)
    if measured is not None:
        manifest["executions"][-1]["perturb_dtype"] = measured
    if checked.left_out:
        manifest["executions"][-1]["left_out"] = checked.left_out
    ensure_statistics(replace(work.settings, device=checked.device), model, damage.samples)
    guessed = [*checked.notes, *said(padding, model.of_texts), *given, *([told] if told else [])]
    notes = [*other_versions(old, new)]
    return Prepared(work, rows, size, manifest, notes, guessed, begun=old is not None)


def _device_elsewhere(options: Options) -> str:
    """What workers on other machines are told: a GPU that was asked for is no matter of luck."""
    return "cuda" if options.device == "auto" and asks_for_gpu(options) else options.device


def _size_of(options: Options, rows: int) -> int:
    """Rows a shard of a corpus of so many rows."""
    return shard_size_for(rows) if options.shard_size is None else options.shard_size


def _staged_before(old: Manifest, options: Options) -> Staged:
    """The corpus of a run that goes on, and the size of shards that this call has for it."""
    rows = int(old["identity"]["corpus"]["rows"])
    return Staged(rows, _size_of(options, rows))


def _effective_limit(
    given: int | None, rows: int, corpus: Corpus, old: Manifest | None
) -> int | None:
    """The limit that a run is known by: none where it is more than the corpus has rows.

    Args:
        given: The limit that was given.
        rows: Rows of the run's corpus.
        corpus: The corpus.
        old: The manifest that is there: another limit that takes the same rows is the same.
    """
    if old is None:
        return given if given is not None and given <= rows else None
    before: int | None = old["identity"]["corpus"]["limit"]
    if given == before or (given is not None and given < rows):
        return given
    most = rows + 1 if given is None else min(given, rows + 1)
    there = sum(1 for _ in islice(corpus.source.records(()), most))
    return before if there == rows else given


def _padding(
    root: str, old: Manifest | None, settings: Settings, model: Model
) -> dict[str, int] | None:
    """What of the corpus is padding: counted when it is staged, known from then on."""
    if old is not None:
        corpus = old["identity"]["corpus"]
        if "padding" in corpus or not staged(root, settings.num_shards):
            return corpus.get("padding")
    return count_padding(root, settings.num_shards, model)


@contextmanager
def _undone(root: str, old: Manifest | None) -> Iterator[None]:
    """What the body adds to the folder goes again if it raises an error.

    Args:
        root: The run's folder.
        old: The manifest that was there; without one, all that a run begins with goes.
    """
    folders = {name: join(root, name) for name in (CORPUS, STATISTICS, GIVEN)}
    before = {name: set(list_files(path)) for name, path in folders.items()}
    try:
        yield
    except Exception:
        for name, folder in folders.items():
            if old is None or not before[name]:
                discard_folder(folder)
            for path in set(list_files(folder)) - before[name]:
                discard(join(folder, path))
        raise


# Checks ---------------------------------------------------------------------------------------


def check_numbers(options: Options) -> None:
    """Checks options that are numbers or names on their own.

    Raises:
        UsageError: If one is out of range or unknown.
    """
    for name, (each, _) in declared().items():
        check_option(f"--{name.replace('_', '-')}", getattr(options, name), each)
    check_part(options.part)
    if options.workers > _MOST_WORKERS:
        raise UsageError(f"--workers is at most {_MOST_WORKERS}, not {options.workers}")
    if options.stride is not None and options.overflow != "stride":
        raise UsageError(f"--stride {options.stride} goes with --overflow stride")


def _check_layers(options: Options, chosen: Sequence[Chosen]) -> None:
    if not options.layers or any(choice.method.layered for choice in chosen):
        return
    layered = [name for name, method in methods().items() if method.layered]
    remedy = f"name one in --methods that has: {', '.join(layered)}" if layered else "leave it out"
    raise UsageError(f"--layers: none of the methods chosen has scores by layer; {remedy}")


def load_checked(folder: Path, options: Options, prompts: Sequence[str] | None = None) -> Model:
    """The model in a folder, as the options want it, on the CPU.

    Args:
        folder: The model's folder.
        options: The options.
        prompts: Texts that are its classes, where the options don't say them.

    Raises:
        UsageError: If it can't be loaded.
    """
    load = partial(
        load_model,
        folder,
        dtype=options.dtype,
        allow_pickle=options.allow_pickle,
        trust_remote_code=options.trust_remote_code,
        mask_token_id=options.mask_token_id,
        pooling=options.pooling,
        prompts=read_prompts(options.prompts) if prompts is None else tuple(prompts),
    )
    try:
        try:
            return load()
        except TokenizerError as error:
            # Where the corpus holds ids, nobody needs it; else that is said.
            model = load(tokenizer=False)
            model.no_tokenizer = str(error)
            return model
    except UsageError:
        raise
    except Exception as error:  # A damaged file gives a dozen kinds, from as many libraries.
        message = " ".join(str(error).split())[:300]
        raise UsageError(
            f"the model in {folder} can't be loaded: {type(error).__name__}: {message}"
        ) from error


def _model_copy(folder: Path, options: Options) -> ModelCopy:
    return copy_of(
        folder, allow_pickle=options.allow_pickle, trust_remote_code=options.trust_remote_code
    )


def check_device(name: str) -> None:
    """Checks that a name can be that of a device.

    Raises:
        UsageError: If it can't.
    """
    try:
        kind = "cpu" if name == "auto" else torch.device(name).type
    except RuntimeError:
        kind = ""
    if kind not in ("cpu", "cuda"):
        raise UsageError(f"--device is auto, cpu, cuda or cuda:N, not {name}")


def resolve_device(name: str) -> str:
    """The device of this machine that a name stands for.

    Raises:
        UsageError: If torch doesn't find it.
    """
    check_device(name)
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind = torch.device(name).type
    if kind == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"--device {name}, but this machine has no CUDA GPU that torch can use")
    if kind == "cuda" and (torch.device(name).index or 0) >= torch.cuda.device_count():
        raise UsageError(f"--device {name}, but torch finds {torch.cuda.device_count()} CUDA GPU")
    return name


def _open_output(root: str) -> Manifest | None:
    """The manifest that is in the output folder, if any.

    Raises:
        UsageError: If the folder holds something that isn't a run, or a published one that can't
            become a run again.
    """
    try:
        if is_local(root) and Path(root).exists() and not Path(root).is_dir():
            raise UsageError(f"--output {root} is a file; name a folder")
        manifest = read_manifest(root)
        if is_local(root) and (links := linked_folders(Path(root))):
            raise UsageError(
                f"--output {root} has folders that are links ({', '.join(links[:3])}), which "
                "nothing that reads a run follows: put the folders themselves there, or make "
                f"{root} as a whole a link"
            )
        if manifest is not None and "left" in manifest:
            clear(root, manifest)
            manifest = read_manifest(root)
        if manifest is not None and is_imported(manifest):
            raise UsageError(f"--output {root} {NO_MODEL}")
        if manifest is not None and is_published(manifest):
            check_restorable(f"{root}", manifest)
    except UsageError:
        raise
    except (OSError, BeamIOError, ValueError) as error:
        raise UsageError(f"--output {root} can't be read: {error}") from error
    if manifest is None:
        # What a run that was killed before it began leaves behind: its corpus, half a manifest.
        foreign = [path for path in list_files(root) if not path.startswith(_OWN)]
        if foreign == [CARD] and is_described(root):
            foreign = []  # And of one that was cleared away, what it said of its tables.
        if foreign:
            raise UsageError(
                f"--output {root} is not empty and holds no run ({MANIFEST}), but {foreign[0]}: "
                "name a new folder"
            )
    return manifest


def _check_gold(
    target: str | int,
    chosen: Sequence[Chosen],
    model: Model,
    corpus: Corpus,
) -> None:
    gold = [
        f"--set {choice.name}.target=gold"
        for choice in chosen
        if choice.params.get("target") == "gold"
    ]
    gold += ["--target gold"] * (target == "gold")
    if gold and model.task not in ("classification", "masked_lm"):
        raise UsageError(f"{gold[0]} needs labels, and rows of a {model.task} model have none")
    if target == "objects" and "mask" not in corpus.columns:
        raise UsageError(
            f"--target objects needs masks, but {corpus.source.name} has no column of them; its "
            f"columns are {', '.join(corpus.source.columns)}: name one with --mask-column"
        )
    if gold and model.task == "classification" and "label" not in corpus.columns:
        raise UsageError(
            f"{gold[0]} needs labels, but {corpus.source.name} has no label column; its columns "
            f"are {', '.join(corpus.source.columns)}: name one with --label-column"
        )


def _encoding(
    options: Options, model: Model, columns: Mapping[str, str], target: str | int
) -> EncodeOptions:
    if model.beside is not None:
        if options.overflow == "stride":
            raise UsageError("--overflow stride: a pair has one text; there are truncate and fail")
    elif model.modality == "images":
        _check_of_text(options)
    elif options.pixels:
        raise UsageError("--pixels is of pictures, and the model is of texts: leave it out")
    limit = _limit(options, model.of_texts, columns)
    special = 0
    if model.tokenizer is not None and "text" in columns:
        special = model.tokenizer.num_special_tokens_to_add(pair="pair" in columns)
        if limit <= special:
            # Tokenizers don't truncate at all then.
            raise UsageError(f"--max-length {limit} leaves no room beside {special} special tokens")
    _check_speaking(options, model)
    stride = _stride(options, limit - special) if options.overflow == "stride" else None
    several = model.task in SEVERAL
    return EncodeOptions(
        limit,
        options.overflow,
        stride,
        options.words,
        need_label=target == "gold",
        target=_asked_for(target) if several else None,
        objects=target == "objects",
        max_new_tokens=options.max_new_tokens,
        segments=options.segments,
    )


def _check_speaking(options: Options, model: Model) -> None:
    """Checks that nothing is asked for that prompts don't have, or only they."""
    if model.task == "causal_lm":
        if options.overflow == "stride":
            raise UsageError(
                "--overflow stride: windows of a prompt would be other prompts; truncate leaves "
                "out its start, and fail lets such rows fail"
            )
        return
    for name in ("max_new_tokens", "segments"):
        if getattr(options, name) != declared()[name][1]:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{flag} is of language models, and this is a {model.task} model: leave it out"
            )


def _asked_for(target: str | int) -> Target:
    """What is asked for of several outputs; None for each."""
    if isinstance(target, int):
        return target
    return "all" if target == "all" else "tokens" if target == "tokens" else None


def _of_patches(model: Model) -> list[str]:
    """A sentence on the patches that pictures are cut into where the network has none itself."""
    grid = model.grid
    if grid is None or not model.anatomy.closed:
        return []
    patches = f"{grid.rows} x {grid.columns} patches of {grid.patch_height} x {grid.patch_width}"
    family = model.network.config.model_type
    return [f"nothing inside of a {family} is known: pictures are cut into {patches} pixels"]


def _of_colours(model: Model) -> list[str]:
    """A sentence on the colours in which pictures are shown, where theirs aren't known."""
    if model.modality != "images" or model.processor is not None:
        return []
    return [
        "the model has no preprocessor_config.json, so that colours of pictures are unknown: those "
        "in `instances` go from each picture's least number to its largest"
    ]


def _check_of_text(options: Options) -> None:
    """Checks that nothing is asked for that only texts have."""
    of_texts = ("max_length", "overflow", "stride", "words", "mask_token_id")
    for name in (*of_texts, "max_new_tokens", "segments"):
        if getattr(options, name) != declared()[name][1]:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag} is of texts, and the model is of pictures: leave it out")


def _limit(options: Options, model: Model, columns: Mapping[str, str]) -> int:
    """Most tokens of an instance; says so where the tokenizer and the network have two minds."""
    most = model.capacity
    # Who tokenised a corpus has cut it to what the model is to see.
    own = most if "input_ids" in columns else model.max_length
    given = options.max_length
    if given is not None and given > most:
        raise UsageError(f"--max-length {given} is more than the model takes ({most})")
    if given is None and own < most:
        note(
            f"the limit is {own} tokens, as the tokenizer states (model_max_length); the network "
            f"has positions for {most} (--max-length)"
        )
    elif given is not None and given > own:
        note(f"--max-length {given} is more than the tokenizer's limit (model_max_length {own})")
    return given or own


def note(sentence: str) -> None:
    """Says something that is no error."""
    print(f"attribeam: {sentence}", file=sys.stderr, flush=True)


def _stride(options: Options, room: int) -> int:
    """What windows overlap by, given the tokens that they have room for."""
    stride = default_overlap(room) if options.stride is None else options.stride
    if not 0 <= stride <= most_overlap(room):
        raise UsageError(
            f"--stride {stride} is not between 0 and {most_overlap(room)}: windows take {room} "
            "tokens beside the special ones, and overlap by half at most"
        )
    return stride


def resolve_model(
    source: str, *, allow_pickle: bool = False, trust_remote_code: bool = False
) -> Path:
    """The local folder of a model: the one given, or a hub model's, fetched.

    Args:
        source: Folder or hub id.
        allow_pickle: Fetch pickled weights too.
        trust_remote_code: Fetch the model's own code too.

    Raises:
        UsageError: If there is no such folder and the hub has no such model, or can't be reached.
    """
    if Path(source).is_dir():
        return Path(source)
    check_model_folder(source)
    patterns = ["*.json", "*.txt", "*.model", "*.safetensors"]
    patterns += ["*.bin"] * allow_pickle + ["*.py"] * trust_remote_code
    try:
        return Path(snapshot_download(source, allow_patterns=patterns))
    except Exception as error:  # The library raises a dozen kinds; all mean that it isn't there.
        raise UsageError(
            f"there is no folder {source}, and the model {source} can't be had from the hub: "
            f"{type(error).__name__}: {error}"
        ) from error
