"""What makes a model and its tokenizer the same, whatever their files are called and how written.

A hash is of bytes or of content (``differences`` says how they are compared).
"""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig, PreTrainedTokenizerFast

from attribeam.pipeline.running.differences import identity_differences
from attribeam.schemas.manifest import Identity, ModelHashes, TokenizerIdentity
from attribeam.transforms import Model
from attribeam.transforms.network.folder import weights_read

_BLOCK = 1 << 20
# Of a tokenizer, what transformers reads; the first of them were the identity of runs before.
_BEFORE = ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "tokenizer_config.json")
_TOKENIZER = (*_BEFORE, "special_tokens_map.json", "added_tokens.json", "*.model", "*.codes")
# Of a configuration, what is about the file and not about the model.
_UNTOLD = ("transformers_version", "dtype", "torch_dtype")
_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


def model_hashes(folder: Path, config: PretrainedConfig) -> ModelHashes:
    """Hashes of a model's weights and configuration.

    Args:
        folder: The model's folder.
        config: Its configuration as it was read.
    """
    content = {
        key: value
        for key, value in config.to_dict().items()
        if key not in _UNTOLD and not key.startswith("_")
    }
    every = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    read = weights_read(folder, every)
    weights = _hash(every)
    return {
        "weights_sha256": weights,
        "weights_read_sha256": weights if read == every else _hash(read),
        "config_sha256": _hash([folder / "config.json"]),
        "config_content_sha256": _hash_of(content),
    }


def processor_record(processor: Any) -> dict[str, Any]:
    """What a processor of pictures does, and which one it is; all of it is what numbers hang on."""
    settings = {k: v for k, v in processor.to_dict().items() if v is not None}
    plain: dict[str, Any] = json.loads(json.dumps(settings, default=str, sort_keys=True))
    return {**plain, "class": type(processor).__name__}


def tokenizer_identity(
    folder: Path, tokenizer: PreTrainedTokenizerFast | None = None
) -> TokenizerIdentity | None:
    """Hashes of a tokenizer; None if the model has none.

    Args:
        folder: The model's folder.
        tokenizer: What is made of it; None where it isn't loaded.
    """
    before = [folder / name for name in _BEFORE if (folder / name).is_file()]
    every = [path for name in _TOKENIZER for path in sorted(folder.glob(name)) if path.is_file()]
    if not every:
        return None
    if not any(path.name in _BEFORE[:3] for path in before):
        before += sorted(folder.glob("*.model"))  # Of sentencepiece.
    named = sha256()
    for path in every:
        named.update(f"{path.name}\0{_hash([path])}\0".encode())
    return {
        "sha256": _hash(before),
        "files_sha256": named.hexdigest(),
        "content_sha256": None if tokenizer is None else _hash_of(_behaviour(tokenizer)),
    }


def _behaviour(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """What a tokenizer does, but for cutting and padding, which it is told with each text."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    return {
        "backend": {k: v for k, v in backend.items() if k not in ("truncation", "padding")},
        "special": {role: getattr(tokenizer, f"{role}_token_id") for role in _ROLES},
        "inputs": list(tokenizer.model_input_names),
        "truncation_side": tokenizer.truncation_side,
        "split_special_tokens": tokenizer.split_special_tokens,
    }


def _hash(paths: Sequence[Path]) -> str:
    """Hash of the content of files, one after the other."""
    digest = sha256()
    for path in paths:
        with path.open("rb") as handle:
            while block := handle.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def _hash_of(content: Mapping[str, Any]) -> str:
    """Hash of what can be written as JSON, whatever the order of its keys."""
    text = json.dumps(content, sort_keys=True, default=str)
    return sha256(text.encode(errors="surrogatepass")).hexdigest()


def model_differences(old: Identity, folder: Path, model: Model) -> list[str]:
    """What differs between the model and tokenizer of a run and those in a folder."""
    new = {
        "model": model_hashes(folder, model.whole.config),
        "tokenizer": tokenizer_identity(folder, model.tokenizer),
    }
    known = {key: old["model"].get(key) for key in new["model"] or ()}
    return list(identity_differences({"model": known, "tokenizer": old["tokenizer"]}, new))
