"""Loading a model so that it can be explained: safetensors, no remote code, nothing missing."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    AutoConfig,
    PretrainedConfig,
    PreTrainedModel,
)

from schemas import UsageError
from transforms.anatomy import anatomy_of
from transforms.capture import IMPLEMENTATION
from transforms.folder import check_files, loading
from transforms.model import Model, Task
from transforms.tokenizer import load_tokenizer

# Types of the weights; under ``mixed`` the passes compute in bfloat16 (``Model.mixed``).
DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "mixed": torch.float32,
}

_TASKS: dict[str, Task] = {
    "ForSequenceClassification": "classification",
    "ForMaskedLM": "masked_lm",
}


def load_model(
    folder: str | Path,
    *,
    dtype: str = "float32",
    device: str | torch.device = "cpu",
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    mask_token_id: int | None = None,
) -> Model:
    """Loads a fine-tuned model and its tokenizer from a local folder.

    Args:
        folder: Folder with ``config.json``, safetensors weights and, unless the corpus is
            pre-tokenised, a fast tokenizer.
        dtype: ``float32``, ``float64``, ``bfloat16`` or ``mixed``, whatever the weights were saved
            in.
        device: Where to put it.
        allow_pickle: Load pickled weights (which can run code) where there are no safetensors.
        trust_remote_code: Let the model bring its own code.
        mask_token_id: Vocabulary id of the mask token, for a model without tokenizer.

    Raises:
        UsageError: If the folder holds no model that can be explained; says what is missing.
    """
    folder = Path(folder)
    check_files(folder, allow_pickle=allow_pickle)
    with loading(folder / "config.json"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    anatomy = anatomy_of(config)
    class_name, task = _task_of(folder, config)
    _check_variant(folder, config)
    with loading(f"the weights in {folder}"):
        network, report = getattr(transformers, class_name).from_pretrained(
            folder,
            config=config,
            dtype=DTYPES[dtype],
            attn_implementation=IMPLEMENTATION,
            output_loading_info=True,
            local_files_only=True,
            use_safetensors=None if allow_pickle else True,
            ignore_mismatched_sizes=True,  # They are refused below, by name.
        )
    _check_weights(folder, report)
    tokenizer = load_tokenizer(folder, trust_remote_code=trust_remote_code)
    torch.set_float32_matmul_precision("highest")
    first = anatomy.first_position(config)
    if mask_token_id is None and tokenizer is not None:
        mask_token_id = tokenizer.mask_token_id
    return Model(
        network=network.eval().requires_grad_(False).to(device),
        anatomy=anatomy,
        task=task,
        tokenizer=tokenizer,
        mask_id=mask_token_id,
        pad_id=int(config.pad_token_id or 0),
        max_length=int(config.max_position_embeddings) - first,
        mixed=dtype == "mixed",
    )


def _task_of(folder: Path, config: PretrainedConfig) -> tuple[str, Task]:
    names = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures")
    name = str(names[0]) if names and isinstance(names, list) else "an unnamed architecture"
    for ending, task in _TASKS.items():
        kind = getattr(transformers, name, None) if name.endswith(ending) else None
        if isinstance(kind, type) and issubclass(kind, PreTrainedModel):
            if task == "classification":
                _check_outputs(folder, config)
            return name, task
    raise UsageError(
        f"{folder} is {name}; only ...{' and ...'.join(_TASKS)} can be explained "
        '(see "architectures" in its config.json)'
    )


def _check_outputs(folder: Path, config: PretrainedConfig) -> None:
    if (config.num_labels or 0) < 2:
        raise UsageError(
            f"{folder} has a single output (a regression); only classifiers of two or more classes "
            "can be explained"
        )
    if config.problem_type == "multi_label_classification":
        raise UsageError(f"{folder} is a multi-label classifier; only single-label ones are known")


def _check_variant(folder: Path, config: PretrainedConfig) -> None:
    """Refuses variants of a family that would be computed as if they were the usual kind."""
    if getattr(config, "position_embedding_type", None) not in (None, "absolute"):
        raise UsageError(
            f"{folder} has relative position embeddings ({config.position_embedding_type}), which "
            "transformers no longer computes"
        )
    if getattr(config, "is_decoder", False):
        raise UsageError(f"{folder} is a decoder; only encoders can be explained")


def _check_weights(folder: Path, report: dict[str, Any]) -> None:
    lacking = [*report["missing_keys"], *(str(key[0]) for key in report["mismatched_keys"])]
    if lacking:
        some = ", ".join(sorted(lacking)[:3])
        raise UsageError(
            f"the weights in {folder} lack {len(lacking)} parameters of the model ({some}, ...): "
            "transformers would fill them with random numbers; was it fine-tuned for this task?"
        )
