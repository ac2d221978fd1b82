"""What a model's folder holds: whether it can be loaded at all, and what to do where it can't."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas import UsageError


@contextmanager
def loading(what: str | Path) -> Iterator[None]:
    """Turns whatever goes wrong while something is loaded into one sentence."""
    try:
        yield
    except Exception as error:  # The libraries raise a dozen kinds; all mean a broken file.
        reason = next(iter(str(error).strip().splitlines()), "")
        message = f"{what} can't be loaded: {type(error).__name__}: {reason}"
        raise UsageError(message) from error


def check_files(folder: Path, *, allow_pickle: bool) -> None:
    """Checks that a folder holds a model whose weights can be loaded.

    Raises:
        UsageError: If it does not; says what it holds.
    """
    if not (folder / "config.json").is_file():
        raise UsageError(
            f"{folder} holds no model: it has no config.json; name a folder written by "
            "save_pretrained, or a hub id"
        )
    if (folder / "adapter_config.json").is_file():
        raise UsageError(
            f"{folder} holds an adapter of another model; merge them and save the whole with "
            "save_pretrained"
        )
    for index in folder.glob("*.index.json"):
        _check_index(index)
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for path in (*folder.glob("*.bin"), *folder.glob("*.pt")))
    if not pickles:
        raise UsageError(f"{folder} has a config.json but no weights (model.safetensors)")
    if not allow_pickle:
        raise UsageError(
            f"{folder} has only pickled weights ({', '.join(pickles)}), which can run code when "
            "loaded; save it again with save_pretrained (safetensors), or pass --allow-pickle if "
            "you trust its source"
        )


def _check_index(index: Path) -> None:
    """Refuses parts that are pickles, or outside the folder, where nobody hashes them."""
    with loading(index):
        parts = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    ending = ".safetensors" if index.name.endswith(".safetensors.index.json") else ".bin"
    for part in map(str, parts):
        if Path(part).name != part or not part.endswith(ending):
            raise UsageError(f"{index} names {part!r}, which is no {ending} file of its folder")
