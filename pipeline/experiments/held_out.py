"""What a finished run's heads are tried on: a labelled corpus, without the texts of the run.

Heads are ranked and triggers are found on the instances of a run; what comes of it is measured on
others. (The released scripts of Hao et al. 2021 rank heads by the first rows of the very file that
they evaluate on.)
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pyarrow as pa

from attribeam.analysis.opening.runs import load_manifest, reading
from attribeam.analysis.triggers import heads_of
from attribeam.pipeline.corpus.padding import count_padding, said
from attribeam.pipeline.corpus.staging import Corpus, open_corpus, read_rows, stage
from attribeam.pipeline.options import Options
from attribeam.pipeline.running.fingerprint import model_differences
from attribeam.pipeline.running.identity import base_name
from attribeam.pipeline.running.loadable import describe_again
from attribeam.pipeline.running.manifest import check_asks_model, check_is_own
from attribeam.pipeline.running.prepare import (
    check_numbers,
    load_checked,
    resolve_device,
    resolve_model,
)
from attribeam.pipeline.store.files import join, write_parquet
from attribeam.schemas import Failure, UsageError, table_schema
from attribeam.schemas.layout import evaluation_path
from attribeam.schemas.manifest import Manifest
from attribeam.transforms import EncodeOptions, Instance, Model, Prediction, attribute
from attribeam.transforms.inputs.encode import encode_rows

_ROWS = 512


@dataclass(frozen=True)
class HeldOutOptions:
    """What an evaluation is told, beside what the run's manifest says.

    Attributes:
        folder: The run's folder, on a local disk.
        corpus: Evaluation corpus (``sources.open_source``).
        model: Folder or hub id of the run's model; None for the one that the run names.
        method: The method whose heads are asked.
        split: Split of the corpus.
        limit: Most rows of it to take.
        columns: Column by role, where the guess is wrong.
        delimiter: What separates the fields of CSV and TSV; None for what their names say.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        allow_pickle: Load pickled weights.
        trust_remote_code: Let the model bring its own code.
    """

    folder: str
    corpus: str
    model: str | None = None
    method: str = "attattr"
    split: str | None = None
    limit: int | None = None
    columns: Mapping[str, str | None] = field(default_factory=dict)
    delimiter: str | None = None
    device: str = "auto"
    allow_pickle: bool = False
    trust_remote_code: bool = False


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The run's model, and instances that it predicts and that are not in the run.

    Attributes:
        options: What was asked for.
        model: The model, on its device.
        instances: The instances, each with a label.
        predictions: What the model says of each, as it is.
        encoding: How texts become tokens.
        corpus: Name of the corpus.
        split: Its split, where it is known.
        settings: What the instances depend on.
        overlapping: Number of texts left out because they are in the run.
        unlabelled: Number of rows left out because they have no label.
        failures: Rows that could not be read, encoded or predicted.
        notes: Sentences on what was guessed of the corpus.
    """

    options: HeldOutOptions
    model: Model
    instances: list[Instance]
    predictions: list[Prediction]
    encoding: EncodeOptions
    corpus: str
    split: str | None
    settings: dict[str, Any]
    overlapping: int
    unlabelled: int
    failures: list[Failure]
    notes: list[str] = field(default_factory=list)

    def predict(self, instances: Sequence[Instance]) -> list[Prediction]:
        """What the model says of instances, as it is now (perhaps pruned).

        Raises:
            RuntimeError: If it fails, although it predicted the instances before.
        """
        found = attribute(self.model, instances, [], target=0)
        if found.failures:
            raise RuntimeError(f"{found.failures[0].instance_id}: {found.failures[0].message}")
        return [prediction for prediction in found.predictions if prediction is not None]

    def write(self, table: str, settings: Mapping[str, Any], rows: Sequence[dict[str, Any]]) -> str:
        """Writes an evaluation's rows into the run; the same evaluation's file is replaced.

        Args:
            table: One of ``attribeam.schemas.tables.EVALUATIONS``.
            settings: What the rows depend on beside the instances.
            rows: The rows, but for the columns that all evaluations have.

        Returns:
            Path of the file.
        """
        key = json.dumps({**self.settings, **settings}, sort_keys=True)
        digest = blake2b(key.encode(), digest_size=6).hexdigest()
        name = f"{self.options.method}-{digest}"
        same = {
            "evaluation": name,
            "method": self.options.method,
            "corpus": self.corpus,
            "split": self.split,
        }
        path = join(self.options.folder, evaluation_path(table, name))
        content = pa.Table.from_pylist([{**same, **row} for row in rows], table_schema(table))
        write_parquet(path, content.replace_schema_metadata({"attribeam.evaluation": key}))
        describe_again(self.options.folder)
        return path


def check_folder(folder: str) -> None:
    """Checks that an evaluation can be written into a folder.

    Raises:
        UsageError: If it is no run, or a published one.
    """
    manifest = load_manifest(folder)
    check_asks_model(folder, manifest)
    check_is_own(folder, manifest)


def hold_out(options: HeldOutOptions) -> HeldOut:
    """Opens the model and the evaluation corpus, and leaves out what is in the run.

    Raises:
        UsageError: If anything is wrong, or no instance is left.
    """
    check_folder(options.folder)
    manifest = heads_of(options.folder, options.method)
    own = _own_options(options, manifest)
    device = resolve_device(own.device)
    folder = resolve_model(
        own.model, allow_pickle=own.allow_pickle, trust_remote_code=own.trust_remote_code
    )
    model = load_checked(folder, own)
    if model.modality != "text":
        raise UsageError("held-out evaluations are of texts, and the model of the run is of others")
    if model.task not in ("classification", "masked_lm"):
        raise UsageError(
            f"held-out evaluations are of models that give a text one class, and {own.model} is a "
            f"{model.task} model"
        )
    _check_identity(own, folder, model, manifest)
    corpus = open_corpus(
        own.corpus,
        model,
        split=own.split,
        limit=own.limit,
        columns=own.columns,
        delimiter=own.delimiter,
    )
    if model.task == "classification" and "label" not in corpus.columns:
        raise UsageError(
            f"an evaluation needs labels, but {own.corpus} has no label column; its columns are "
            f"{', '.join(corpus.source.columns)}: name one with --label-column"
        )
    # A rationale or roles that don't fit their text are of no consequence here.
    unneeded = ("rationale", "rationale_pair", "roles", "subset")
    plain = {role: name for role, name in corpus.columns.items() if role not in unneeded}
    needed = replace(corpus, columns=plain)
    encoding = EncodeOptions(own.max_length or model.max_length, own.overflow, words=own.words)
    rows, instances, failures, notes = _read(needed, model, encoding)
    labelled = [instance for instance in instances if instance.label is not None]
    kept, overlapping = _outside(options.folder, labelled)
    if not kept:
        raise UsageError(_nothing_left(own, rows, overlapping, len(instances) - len(labelled)))
    model.network.to(device)  # type: ignore[arg-type]
    found = attribute(model, kept, [], target=0)
    pairs = [(i, p) for i, p in zip(kept, found.predictions, strict=True) if p is not None]
    if not pairs:
        raise UsageError(f"the model predicts no text of {own.corpus}: {found.failures[0].message}")
    splits = {instance.split for instance, _ in pairs}
    return HeldOut(
        options=options,
        model=model,
        instances=[instance for instance, _ in pairs],
        predictions=[prediction for _, prediction in pairs],
        encoding=encoding,
        corpus=base_name(own.corpus),
        split=own.split or (splits.pop() if len(splits) == 1 else None),
        settings={
            "method": options.method,
            "fingerprint": corpus.source.fingerprint,
            "split": own.split,
            "limit": own.limit,
            "columns": dict(corpus.columns),
            **({"labels": dict(corpus.labels.record)} if corpus.labels.record else {}),
        },
        overlapping=overlapping,
        unlabelled=len(instances) - len(labelled),
        failures=[*failures, *found.failures],
        notes=notes,
    )


def _own_options(options: HeldOutOptions, manifest: Manifest) -> Options:
    """Options of the run, but for the corpus: texts become tokens as they did there."""
    settings = manifest["identity"]["settings"]
    model = options.model
    if model is None:
        model = str(manifest["identity"]["model"]["source"])
        if "/" not in model and not Path(model).is_dir():
            raise UsageError(f"the run is of the model {model!r}: say with --model where it is")
    own = Options(
        model=model,
        corpus=options.corpus,
        output=options.folder,
        split=options.split,
        limit=options.limit,
        columns=options.columns,
        delimiter=options.delimiter,
        device=options.device,
        dtype=settings["dtype"],
        max_length=settings["max_length"],
        # Here a text is one prediction, so of a long one the beginning counts.
        overflow="truncate" if settings["overflow"] == "stride" else settings["overflow"],
        words=settings["words"],
        mask_token_id=settings["mask_token_id"],
        allow_pickle=options.allow_pickle,
        trust_remote_code=options.trust_remote_code,
    )
    check_numbers(own)
    return own


def _check_identity(own: Options, folder: Path, model: Model, manifest: Manifest) -> None:
    """Another model than the run's would be pruned by heads that aren't its own."""
    run = manifest["identity"]
    if differences := model_differences(run, folder, model):
        raise UsageError(
            f"{own.model} is not the model of the run: {'; '.join(differences)}. "
            f"Name the run's ({run['model']['source']}) with --model"
        )


def _read(
    corpus: Corpus, model: Model, encoding: EncodeOptions
) -> tuple[int, list[Instance], list[Failure], list[str]]:
    """The number of rows of the corpus, those that can be encoded, the others, and what to say."""
    instances: list[Instance] = []
    failures: list[Failure] = []
    with TemporaryDirectory(prefix="attribeam-") as folder:
        count = stage(corpus, folder, shard_size=_ROWS).rows
        shards = -(-count // _ROWS)
        ids = "input_ids" in corpus.columns
        padding = count_padding(folder, shards, model) if ids else None
        for shard in range(shards):
            good, bad = encode_rows(model, read_rows(folder, shard), encoding)
            instances += good
            failures += bad
    return count, instances, failures, [*corpus.notes, *said(padding, model)]


def _outside(folder: str, instances: Sequence[Instance]) -> tuple[list[Instance], int]:
    """Those of the instances that are not in the run, and the number of the others.

    The same text or pair of texts is the same instance, and so are the same tokens.
    """
    schema = pa.schema(
        [
            ("number", pa.int64()),
            ("text", pa.string()),
            ("text_pair", pa.string()),
            ("input_ids", pa.list_(pa.int32())),
        ]
    )
    columns = {
        "number": range(len(instances)),
        "text": [instance.text for instance in instances],
        "text_pair": [instance.text_pair for instance in instances],
        "input_ids": [instance.input_ids.tolist() for instance in instances],
    }
    arrays = [pa.array(columns[each.name], each.type) for each in schema]
    with reading(folder) as connection:
        inside = _inside(connection, pa.Table.from_arrays(arrays, schema=schema))
    kept = [each for number, each in enumerate(instances) if number not in inside]
    return kept, len(inside)


def _inside(connection: duckdb.DuckDBPyConnection, given: pa.Table) -> set[int]:
    connection.register("given", given)
    rows = connection.execute(
        """
        select number from given semi join instances using (input_ids)
        union
        select number
        from given as g
        semi join instances as i on g.text = i.text and g.text_pair is not distinct from i.text_pair
        """
    ).fetchall()
    return {number for (number,) in rows}


def _nothing_left(own: Options, rows: int, overlapping: int, unlabelled: int) -> str:
    counts = {
        "in the run too": overlapping,
        "without a label": unlabelled,
        "unreadable": rows - overlapping - unlabelled,
    }
    listed = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    return (
        f"nothing of {own.corpus} is left to evaluate on ({listed}): give a labelled corpus, or "
        "another --split, that was not attributed"
    )


def left_out(held_out: HeldOut) -> list[str]:
    """Sentences on what was not evaluated, and why."""
    lines = []
    if held_out.overlapping:
        lines.append(f"{held_out.overlapping} left out: they are in the run")
    if held_out.unlabelled:
        lines.append(f"{held_out.unlabelled} left out: they have no label")
    reasons = Counter(failure.message for failure in held_out.failures)
    lines += [f"{count} failed: {reason}" for reason, count in reasons.most_common(3)]
    return lines
