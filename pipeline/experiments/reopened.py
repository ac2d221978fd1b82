"""A finished run's model and some of its instances, as they were when they were attributed.

What is asked of a run later (``check``) is asked of the same instances with the same settings, so
that what comes of it can be held against the scores that are there.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b, md5
from heapq import nsmallest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from attribeam.analysis.opening.runs import load_manifest
from attribeam.pipeline.corpus.staging import read_rows, staged
from attribeam.pipeline.corpus.targets import with_targets
from attribeam.pipeline.options import Options
from attribeam.pipeline.running.again import Run
from attribeam.pipeline.running.fingerprint import model_differences
from attribeam.pipeline.running.manifest import check_asks_model, check_is_own
from attribeam.pipeline.running.prepare import (
    check_numbers,
    load_checked,
    resolve_device,
    resolve_model,
)
from attribeam.pipeline.settings import Settings
from attribeam.pipeline.store.files import join, list_files
from attribeam.pipeline.store.joined import each_shard, read_unit
from attribeam.pipeline.workers.devices import check_precision
from attribeam.schemas import Unit, UsageError
from attribeam.schemas.layout import Place, parse_unit_path
from attribeam.schemas.manifest import Manifest
from attribeam.transforms import Chosen, EncodeOptions, Instance, Model
from attribeam.transforms.inputs.encode import encode_rows
from attribeam.transforms.inputs.targets import GIVEN, SEVERAL


class _Place(NamedTuple):
    """Where an instance of a run is; in order of a hash of its id."""

    order: bytes
    instance_id: str
    row_id: str
    shard: int


@dataclass(frozen=True, eq=False)
class Again:
    """A run that is asked again.

    Attributes:
        settings: Its settings, with the methods that are asked.
        manifest: Its manifest.
        model: Its model, on the device.
        chosen: The methods, fitted to the model.
        instances: The instances, in an order of their ids' hashes.
        unable: Why not, of methods that can't be asked again.
    """

    settings: Settings
    manifest: Manifest
    model: Model
    chosen: list[Chosen]
    instances: list[Instance]
    unable: Mapping[str, str]

    @property
    def key(self) -> str:
        """What its instances are known by: their number, and a hash of their ids."""
        ids = "\0".join(instance.instance_id for instance in self.instances)
        return f"{len(self.instances)}-{blake2b(ids.encode(), digest_size=4).hexdigest()}"


def ask_again(options: Options, methods: str | None, limit: int) -> Again:
    """Opens a run's model, and the instances that are first by a hash of their ids.

    Args:
        options: Those of the run (``own_options``).
        methods: Names of methods of the run, separated by commas; None for all with scores.
        limit: Most instances.

    Raises:
        UsageError: If the folder is no run that can be added to, the model is another one, a method
            isn't in the run, or nothing is attributed yet.
    """
    manifest = load_manifest(options.output)
    names = _asked(manifest, methods, options.output)
    device = resolve_device(options.device)
    check_precision(options.dtype, device)
    folder = resolve_model(
        options.model,
        allow_pickle=options.allow_pickle,
        trust_remote_code=options.trust_remote_code,
    )
    prompts = manifest["identity"]["model"].get("prompts")
    model = load_checked(folder, options, None if prompts is None else prompts["texts"])
    if differences := model_differences(manifest["identity"], folder, model):
        source = manifest["identity"]["model"]["source"]
        raise UsageError(
            f"{options.model} is not the model of the run: {'; '.join(differences)}. "
            f"Name the run's ({source}) with --model"
        )
    settings = _settings(options, manifest, folder, model, device)
    run = Run.of(replace(settings, methods={}), manifest, model)
    able = [name for name in names if name not in run.unable]
    if not able:
        reason = run.unable[names[0]]
        raise UsageError(f"no method of {options.output} can be asked again: {reason}")
    records = manifest["methods"]
    settings = replace(settings, methods={name: dict(records[name]["params"]) for name in able})
    instances = _instances(settings, model, limit)
    model.network.to(device)  # type: ignore[arg-type]
    if model.beside is not None:
        model.beside.network.to(device)  # type: ignore[arg-type]
    fitted = [choice.fitted(model) for choice in settings.chosen]
    unable = {name: run.unable[name] for name in names if name in run.unable}
    return Again(settings, manifest, model, fitted, instances, unable)


def own_options(folder: str, model: str | None, **more: Any) -> Options:
    """Options of a run, as far as its manifest has them.

    Args:
        folder: The run's folder.
        model: Folder or hub id of its model; None for the one that it names.
        more: Options that numbers don't depend on, such as the device.

    Raises:
        UsageError: If it is no run on this machine, a published one, or its model isn't known.
    """
    manifest = load_manifest(folder)
    check_asks_model(folder, manifest)
    check_is_own(folder, manifest)
    settings, known = manifest["identity"]["settings"], manifest["identity"]["model"]
    if model is None:
        model = str(known["source"])
        if "/" not in model and not Path(model).is_dir():
            raise UsageError(f"the run is of the model {model!r}: say with --model where it is")
    options = Options(
        model=model,
        corpus=str(manifest["identity"]["corpus"]["source"]),
        output=folder,
        dtype=settings["dtype"],
        mask_token_id=settings.get("mask_token_id"),
        pooling=known.get("pooling", "auto"),
        seed=settings.get("seed", 0),
        **more,
    )
    check_numbers(options)
    return options


def _asked(manifest: Manifest, methods: str | None, folder: str) -> list[str]:
    """Names of the run's methods that are asked."""
    scored = [n for n, of in manifest["methods"].items() if "attributions" in of["tables"]]
    if methods is None:
        names = scored
    else:
        names = list(dict.fromkeys(name.strip() for name in methods.split(",") if name.strip()))
    unknown = [name for name in names if name not in scored]
    if unknown or not names:
        what = f"{unknown[0]} has no scores in {folder}" if unknown else "no method is named"
        raise UsageError(f"--methods: {what}; there are {', '.join(scored) or 'none'}")
    return names


def _settings(
    options: Options, manifest: Manifest, folder: Path, model: Model, device: str
) -> Settings:
    """Settings of a run as its manifest has them, without methods."""
    own = manifest["identity"]["settings"]
    given = own.get("target_from")
    target = own.get("target", "predicted") if given is None else GIVEN
    several = model.task in SEVERAL
    encoding = EncodeOptions(
        own.get("max_length") or model.of_texts.max_length,
        own.get("overflow", "truncate"),
        own.get("stride"),
        own.get("words", "whitespace"),
        need_label=target == "gold",
        target=target if several and isinstance(target, int) else None,
        objects=target == "objects",
    )
    return Settings(
        model=str(folder),
        model_name=str(manifest["identity"]["model"]["source"]),
        output=options.output.rstrip("/"),
        num_shards=own["num_shards"],
        target=target,
        given_targets=None if given is None else given["targets_sha256"],
        scalar=own.get("output", "logit"),  # type: ignore[arg-type]
        seed=own.get("seed", 0),
        dtype=own["dtype"],
        encoding=encoding,
        methods={},
        evaluation=None,
        device=device,
        token_budget=options.token_budget,
        mask_token_id=own.get("mask_token_id"),
        pooling=options.pooling,
        prompts=model.prompts,
        allow_pickle=options.allow_pickle,
        trust_remote_code=options.trust_remote_code,
        tokenizer=model.tokenizer is not None,
    )


# The instances --------------------------------------------------------------------------------


def _instances(settings: Settings, model: Model, limit: int) -> list[Instance]:
    """The instances of a run that are first by a hash of their ids, encoded anew.

    Raises:
        UsageError: If there are none, the copy of the corpus is gone, or they have become others.
    """
    root = settings.output
    chosen = nsmallest(limit, _places(root))
    if not chosen:
        raise UsageError(f"{root} has no instances yet: run `attribeam run` to its end first")
    if not staged(root, settings.num_shards):
        raise UsageError(
            f"{root} has no copy of its corpus any more: `attribeam run` makes it again"
        )
    found: dict[str, Instance] = {}
    for shard in sorted({place.shard for place in chosen}):
        ids = {place.row_id for place in chosen if place.shard == shard}
        rows = [row for row in read_rows(root, shard) if row.instance_id in ids]
        encoded, _ = encode_rows(model, rows, settings.encoding)
        if settings.given_targets is not None:
            encoded, _ = with_targets(encoded, root, settings.given_targets, shard)
        found |= {instance.instance_id: instance for instance in encoded}
    tokens = _tokens(settings, chosen)
    for place in chosen:
        own = found.get(place.instance_id)
        if own is None or not np.array_equal(own.input_ids, tokens[place.instance_id]):
            raise UsageError(
                f"{place.instance_id} of {root} is made of other tokens now: this version of "
                "attribeam or its libraries encodes texts in another way than the run's"
            )
    return [found[place.instance_id] for place in chosen]


def _places(root: str) -> Iterator[_Place]:
    for path in list_files(join(root, "instances")):
        place = parse_unit_path(f"instances/{path}")
        if place is None:
            continue
        for shard, table in each_shard(root, f"instances/{path}", place, ["instance_id", "row_id"]):
            for name, row in zip(*(table[c].to_pylist() for c in table.column_names), strict=True):
                yield _Place(md5(name.encode(), usedforsecurity=False).digest(), name, row, shard)


def _tokens(settings: Settings, chosen: Sequence[_Place]) -> dict[str, list[int]]:
    """Vocabulary ids by instance, as the run has them."""
    tokens: dict[str, list[int]] = {}
    for shard in {place.shard for place in chosen}:
        place = Place.of(Unit("instances"), shard, settings.num_shards)
        table = read_unit(settings.output, place, ["instance_id", "input_ids"])
        tokens |= dict(
            zip(table["instance_id"].to_pylist(), table["input_ids"].to_pylist(), strict=True)
        )
    return tokens
