"""What ``run.json`` says of a run: what its numbers depend on, and what it was run with."""

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import cast

import torch

from attribeam.pipeline.corpus.staging import Corpus
from attribeam.pipeline.options import Options
from attribeam.pipeline.running.fingerprint import (
    model_hashes,
    processor_record,
    tokenizer_identity,
)
from attribeam.pipeline.settings import Settings
from attribeam.pipeline.store.files import is_local
from attribeam.schemas.layout import FORMAT
from attribeam.schemas.manifest import (
    CorpusIdentity,
    Execution,
    Manifest,
    MethodRecord,
    ModelIdentity,
    SettingsIdentity,
)
from attribeam.transforms import Chosen, Model
from attribeam.transforms.inputs.pairs import SIDES

_LIBRARIES = ("apache-beam", "torch", "transformers", "tokenizers", "pyarrow", "numpy")


def record(
    options: Options,
    settings: Settings,
    model: Model,
    corpus: Corpus,
    rows: int,
    chosen: Iterable[Chosen],
    padding: dict[str, int] | None = None,
) -> Manifest:
    """The manifest of a call.

    Args:
        options: What was asked for.
        settings: What the workers get.
        model: The model.
        corpus: The corpus.
        rows: Rows of the corpus.
        chosen: The methods.
        padding: Rows of a pre-tokenised corpus that are padded (``padding.count_padding``).
    """
    folder = Path(settings.model)
    return {
        "format": FORMAT,
        "identity": {
            "model": _model_identity(options, folder, model),
            "tokenizer": tokenizer_identity(folder, model.tokenizer),
            "corpus": _corpus_identity(options, corpus, rows, padding),
            "settings": _settings_identity(options, settings, model, corpus.columns),
        },
        "methods": {choice.name: _method_record(choice, settings, model) for choice in chosen},
        "evaluation": settings.evaluation_record(),
        "executions": [_execution(options, settings)],
    }


def base_name(source: str) -> str:
    """A source's name without the folders it happens to lie in; a hub id or a URL as it is."""
    if Path(source).exists():
        return Path(source).resolve().name
    is_glob = is_local(source) and not {*"*?["}.isdisjoint(source)
    return Path(source).name if is_glob else source


def _model_identity(options: Options, folder: Path, model: Model) -> ModelIdentity:
    """What makes a model the same: its weights, its configuration and what it predicts."""
    identity = {
        "source": base_name(options.model),
        "architecture": type(model.whole).__name__,
        "task": model.task,
        "labels": model.labels,
        "num_layers": model.num_layers,
        "num_heads": model.num_heads,
        **model_hashes(folder, model.whole.config),
    }
    if model.mean:
        identity["pooling"] = "mean"
    if model.prompts is not None:
        # Their features are of the same folder's other tower.
        identity["prompts"] = {"texts": list(model.prompts), "features": "text_model"}
    if model.anatomy.closed and (grid := model.grid) is not None:
        # A grid that is laid on pictures, of which the network knows nothing.
        size = {"height": grid.patch_height, "width": grid.patch_width}
        identity["patches"] = {"rows": grid.rows, "columns": grid.columns, **size}
    if model.beside is not None:
        identity["towers"] = {
            SIDES[modality]: {"num_layers": tower.num_layers, "num_heads": tower.num_heads}
            for modality, tower in model.towers.items()
        }
    if model.processor is not None:
        identity["processor"] = processor_record(model.processor)
    return cast(ModelIdentity, identity)


def _corpus_identity(
    options: Options, corpus: Corpus, rows: int, padding: dict[str, int] | None
) -> CorpusIdentity:
    identity: CorpusIdentity = {
        "source": base_name(options.corpus),
        "fingerprint": corpus.source.fingerprint,
        "split": options.split,
        "limit": options.limit,
        "rows": rows,
        "columns": dict(corpus.columns),
    }
    if options.delimiter is not None:
        identity["delimiter"] = options.delimiter
    if corpus.labels.record:
        identity["labels"] = dict(corpus.labels.record)
    identity["padding"] = padding
    return identity


def _settings_identity(
    options: Options, settings: Settings, model: Model, columns: Mapping[str, str]
) -> SettingsIdentity:
    encoding = settings.encoding
    assert options.shard_size is not None  # Decided on when the corpus was copied.
    identity: SettingsIdentity = {
        "target": settings.target_rule,
        "output": settings.scalar,
        "dtype": settings.dtype,
        "seed": settings.seed,
        "max_length": encoding.max_length,
        "overflow": encoding.overflow,
        "stride": encoding.stride,
        "words": encoding.words,
        "token_types": _token_types(model, columns),
        "mask_token_id": model.of_texts.mask_id,
        "shard_size": options.shard_size,
        "num_shards": settings.num_shards,
    }
    if settings.given_targets is not None:
        assert options.target_from is not None
        source = base_name(options.target_from.rstrip("/"))
        identity["target_from"] = {"source": source, "targets_sha256": settings.given_targets}
    if settings.pixels:
        identity["pixels"] = True
    if model.task == "causal_lm":
        identity["max_new_tokens"] = encoding.max_new_tokens
        identity["segments"] = encoding.segments
    return identity


def _token_types(model: Model, columns: Mapping[str, str]) -> str | None:
    """Where the token types come from; None for a model that tells none apart."""
    if model.token_types < 2:
        return None
    if "input_ids" in columns:
        return "corpus" if "token_type_ids" in columns else "zeros"
    names = [] if model.tokenizer is None else model.tokenizer.model_input_names
    return "tokenizer" if "token_type_ids" in names else "zeros"


def _method_record(choice: Chosen, settings: Settings, model: Model) -> MethodRecord:
    """What is kept of a method; of pairs with what each side has in place of ``auto``."""
    record = _plain_record(choice, settings, model)
    if model.beside is not None:
        fits = choice.by_tower(model)
        record["sides"] = {
            SIDES[modality]: {k: v for k, v in fit.params.items() if choice.params[k] != v}
            for modality, fit in fits.items()
        }
        passes = (kind.record for fit in fits.values() for kind in fit.needs)
        record["passes"] = list(dict.fromkeys(passes))
    return record


def described_method(choice: Chosen, tables: Sequence[str], passes: Sequence[str]) -> MethodRecord:
    """What is kept of a method, whatever it was run with.

    Args:
        choice: The method.
        tables: Those that a run has of it.
        passes: The passes that its scores come from.
    """
    method = choice.method
    return {
        "params": dict(choice.params),
        "version": method.version,
        "tables": list(tables),
        "family": method.family,
        "signed": choice.signed,
        "class_dependent": method.class_dependent,
        "additive": method.additive,
        "stochastic": method.stochastic,
        "word_score": choice.word_score,
        "target": choice.target,
        "passes": list(passes),
        "cost": method.cost,
        "paper": method.paper,
        "equation": method.equation,
    }


def _plain_record(choice: Chosen, settings: Settings, model: Model) -> MethodRecord:
    passes = [kind.record for kind in choice.needs]
    record = described_method(choice, settings.tables[choice.name], passes)
    if model.task == "causal_lm" and (why := choice.not_of_all(model)) is not None:
        record["not_of_all"] = why
    return record


def _execution(options: Options, settings: Settings) -> Execution:
    """What a call ran with that its numbers don't depend on."""
    elsewhere = settings.model_copy is not None
    execution: Execution = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "methods": list(settings.methods),
        "device": settings.device,
        # What workers elsewhere have, they alone know.
        "device_name": None if elsewhere else _device_name(settings.device),
        "token_budget": settings.token_budget,
        "workers": settings.workers,
        "processors": None if elsewhere else os.cpu_count(),
        "runner": options.runner,
        "versions": {name: version(name) for name in ("attribeam", *_LIBRARIES)},
    }
    if options.part is not None:
        execution["part"] = options.part
    return execution


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"
