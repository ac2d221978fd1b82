"""What a model's folder holds: whether it can be loaded at all, and what to do where it can't."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from safetensors import safe_open

from attribeam.schemas import UsageError

_What = TypeVar("_What", str, Path)


@contextmanager
def loading(what: _What) -> Iterator[_What]:
    """Turns whatever goes wrong while something is loaded into one sentence."""
    try:
        yield what
    except Exception as error:  # The libraries raise a dozen kinds; all mean a broken file.
        reason = next(iter(str(error).strip().splitlines()), "")
        message = f"{what} can't be loaded: {type(error).__name__}: {reason}"
        raise UsageError(message) from error


def check_files(folder: Path, *, allow_pickle: bool) -> None:
    """Checks that a folder holds a model whose weights can be loaded.

    Raises:
        UsageError: If it does not; says what it holds.
    """
    if (folder / "adapter_config.json").is_file():
        raise UsageError(_adapter(folder))
    if not (folder / "config.json").is_file():
        raise UsageError(_no_config(folder))
    for index in folder.glob("*.index.json"):
        _check_index(index)
    if any(folder.glob("*.safetensors")):
        return
    found = {path.name for path in (*folder.glob("*.bin"), *folder.glob("*.pt"))}
    pickles = sorted(name for name in found if not name.startswith(_OF_TRAINING))
    if not pickles:
        raise UsageError(_no_weights(folder))
    if not allow_pickle:
        raise UsageError(
            f"{folder} has only pickled weights ({', '.join(pickles)}), which can run code when "
            "loaded; save it again with save_pretrained (safetensors), or pass --allow-pickle if "
            "you trust its source"
        )


# Types of weights that don't stand for other numbers, as safetensors names them.
_WHOLE = ("F16", "BF16", "F32", "F64")


def check_precision(folder: Path, quantised: Any) -> None:
    """Checks that weights are what gradients can pass, before any is read.

    Args:
        folder: The model's.
        quantised: What its configuration says of quantisation; None if that says nothing.

    Raises:
        UsageError: If they are of 8 bits or fewer; says what to do.
    """
    read = weights_read(folder, sorted(folder.glob("*.safetensors")))
    files = map(_packed, (path for path in read if path.suffix == ".safetensors"))
    how = _quantised(quantised) or next(filter(None, files), None)
    if how is None:
        return
    raise UsageError(
        f"the weights in {folder} are quantised ({how}): no gradient passes them, and no part of a "
        "layer can be read from them. Use the checkpoint that they were made of, or load it with "
        "transformers, call .dequantize() and save it again with save_pretrained (bfloat16 weights "
        "and --dtype bfloat16 take the least memory)"
    )


def weights_read(folder: Path, every: list[Path]) -> list[Path]:
    """The files of the weights that transformers reads: one, or those that an index names.

    Args:
        folder: The model's.
        every: All files in it that may be weights, which are the answer where neither is there.
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (whole := folder / name) in every:
            return [whole]
        if (index := folder / f"{name}.index.json").is_file():
            names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            return [folder / name for name in sorted(set(names))]
    return every


def _quantised(config: Any) -> str | None:
    """How a configuration says that weights are quantised."""
    if not config:
        return None
    said: dict[str, Any] = config if isinstance(config, dict) else config.to_dict()
    bits = 8 if said.get("load_in_8bit") else 4 if said.get("load_in_4bit") else said.get("bits")
    method = str(said.get("quant_method") or "quantization_config in config.json")
    method = "bitsandbytes" if said.get("load_in_8bit") or said.get("load_in_4bit") else method
    return method if bits is None else f"{method}, {bits} bits"


def _packed(path: Path) -> str | None:
    """Which weights of a file are no numbers of 16 bits or more, whatever a configuration says."""
    with loading(f"the weights in {path.parent}"), safe_open(path, framework="np") as weights:
        for name in weights.keys():  # noqa: SIM118
            kind = weights.get_slice(name).get_dtype()
            if name.endswith("weight") and kind not in _WHOLE:
                return f"{name} is of {kind}"
    return None


def _adapter(folder: Path) -> str:
    with loading(folder / "adapter_config.json") as path:
        config = json.loads(path.read_text(encoding="utf-8"))
        base = config.get("base_model_name_or_path") or "another model"
    return (
        f"{folder} holds an adapter of {base} (adapter_config.json) and not the whole model; merge "
        "the two, save the result with save_pretrained, its tokenizer beside it, and name that "
        "folder (peft: AutoPeftModelForSequenceClassification.from_pretrained(FOLDER)"
        ".merge_and_unload())"
    )


def _no_config(folder: Path) -> str:
    no = f"{folder} holds no model: it has no config.json"
    inner = [path.parent.name for path in folder.glob("*/config.json")]
    if inner:
        # The last of checkpoint-500, checkpoint-1000 and so on.
        last = max(inner, key=lambda name: (len(name), name))
        others = f" ({len(inner)} sub-folders do)" if len(inner) > 1 else ""
        return f"{no}, but {last} in it does{others}: name {folder / last}"
    words = any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))
    if words and not any(path for ending in _WEIGHTS for path in folder.glob(ending)):
        return f"{no}, only a tokenizer; name the folder that its model was saved to"
    return f"{no}; name a folder written by save_pretrained, or a hub id"


# Pickles that a trainer leaves beside the weights.
_OF_TRAINING = ("training_args", "optimizer", "scheduler", "scaler", "rng_state")
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt")
# Weights that transformers doesn't read, and the way out.
_FOREIGN = {
    "tf_model*.h5": ("TensorFlow", "from_tf=True"),
    "flax_model*.msgpack": ("Flax", "from_flax=True"),
    "*.onnx": ("ONNX", None),
    "*.gguf": ("GGUF", None),
}


def _no_weights(folder: Path) -> str:
    for pattern, (name, option) in _FOREIGN.items():
        found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob(pattern))
        if not found:
            continue
        there = f"{folder} has no weights (model.safetensors) but those of {name} ({found[0]})"
        if option is None:
            return f"{there}, which is an export: name the model that it was made from"
        return (
            f"{there}; save them anew with transformers 4, which reads both: AutoModelFor..."
            f".from_pretrained(FOLDER, {option}).save_pretrained(FOLDER)"
        )
    return f"{folder} has a config.json but no weights (model.safetensors)"


def _check_index(index: Path) -> None:
    """Refuses parts that are pickles, or outside the folder, where nobody hashes them."""
    with loading(index):
        parts = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    ending = ".safetensors" if index.name.endswith(".safetensors.index.json") else ".bin"
    for part in map(str, parts):
        if Path(part).name != part or not part.endswith(ending):
            raise UsageError(f"{index} names {part!r}, which is no {ending} file of its folder")
