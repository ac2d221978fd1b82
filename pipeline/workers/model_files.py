"""The model for workers that are elsewhere: a copy in the run's folder, which they fetch.

A worker on this machine loads the model from where it is. Where workers may be on other machines,
the launcher copies what is needed to ``OUT/model/DIGEST``, a folder that ``from_pretrained`` would
load. The digest is of all that is in it: a file that is there is the right one, so that a copy that
was cut short goes on, and one that is there is not made again.
"""

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from attribeam.pipeline.settings import ModelCopy, Settings
from attribeam.pipeline.store.files import DamagedError, join, list_files, open_read, write_atomic
from attribeam.schemas.layout import model_path

_BLOCK = 1 << 20
_WORTH_SAYING = 50_000_000  # Bytes.


def copy_of(
    folder: Path, *, allow_pickle: bool = False, trust_remote_code: bool = False
) -> ModelCopy:
    """What of a model's folder has to be copied so that the model can be loaded from the copy.

    Args:
        folder: The model's folder.
        allow_pickle: Pickled weights too, where there are no safetensors.
        trust_remote_code: The model's own code too.
    """
    patterns = ["*.json", "*.txt", "*.model"]  # Configuration; tokenizer, in its several forms.
    weights = "*.safetensors"
    if allow_pickle and not any(folder.glob(weights)):
        weights = "pytorch_model*.bin"
    patterns += [weights, *(["*.py"] if trust_remote_code else [])]
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    # An empty file says nothing, and S3 can't be given one in parts.
    names = sorted(path.name for path in found if path.is_file() and path.stat().st_size)
    return ModelCopy(_digest(folder, names), tuple(names))


def send_model(settings: Settings) -> None:
    """Copies the model into the run's folder unless it is there, or no worker needs it."""
    copy = settings.model_copy
    if copy is None:
        return
    there = set(list_files(join(settings.output, model_path(copy.digest))))
    missing = [name for name in copy.names if name not in there]
    size = sum((Path(settings.model) / name).stat().st_size for name in missing)
    if size > _WORTH_SAYING:
        print(
            f"attribeam: copying the model to {settings.output} for the workers "
            f"({size / 1e6:.0f} MB)",
            file=sys.stderr,
            flush=True,
        )
    for name in missing:
        write_atomic(
            join(settings.output, model_path(copy.digest, name)),
            partial(_write_copy, Path(settings.model) / name),
        )


def _write_copy(source: Path, target: IO[bytes]) -> None:
    with source.open("rb") as handle:
        shutil.copyfileobj(handle, target, _BLOCK)


@contextmanager
def local_model(settings: Settings) -> Iterator[Path]:
    """The folder that this worker loads the model from; what is fetched is deleted afterwards.

    Raises:
        DamagedError: If the copy in the run's folder is not what was put there.
    """
    copy, folder = settings.model_copy, Path(settings.model)
    if copy is None or _is_copy(folder, copy):
        yield folder
        return
    with TemporaryDirectory(prefix="attribeam-model-") as temporary:
        folder = Path(temporary)
        for name in copy.names:
            path = join(settings.output, model_path(copy.digest, name))
            with open_read(path) as source, (folder / name).open("wb") as target:
                shutil.copyfileobj(source, target, _BLOCK)
        if not _is_copy(folder, copy):
            where = join(settings.output, model_path(copy.digest))
            raise DamagedError(f"{where} is damaged; delete it, and run the same command again")
        yield folder


def _is_copy(folder: Path, copy: ModelCopy) -> bool:
    """Whether the files in a folder are those that were described."""
    there = all((folder / name).is_file() for name in copy.names)
    return there and _digest(folder, copy.names) == copy.digest


def _digest(folder: Path, names: Sequence[str]) -> str:
    """Hash of files and their names."""
    digest = sha256()
    for name in names:
        digest.update(f"{name}\0{(folder / name).stat().st_size}\0".encode())
        with (folder / name).open("rb") as handle:
            while block := handle.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()[:16]
