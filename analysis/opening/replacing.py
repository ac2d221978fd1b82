"""Files that are put into a run's folder whole, in the place of what was called so."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO
from uuid import uuid4

from attribeam.schemas import UsageError

_SUFFIX = ".tmp"
_STALE = 60.0  # Seconds after which nobody writes a temporary file any more.


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file as ``replacing`` does.

    Raises:
        UsageError: If it can't be written.
    """
    with replacing(path) as handle:
        handle.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Writes a file under another name, and then gives it its own.

    A link of that name, which may be anyone's, is replaced and not followed. What is interrupted
    leaves nothing; what is killed leaves a temporary file, which the next one removes.

    Raises:
        UsageError: If it can't be written.
    """
    prefix = f".{path.name}."
    temporary = path.with_name(f"{prefix}{uuid4().hex}{_SUFFIX}")
    try:
        _sweep(path.parent, prefix)
        try:
            with temporary.open("wb") as handle:
                yield handle
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):  # Where nothing can be written, nothing is there.
                temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: Exception) -> UsageError:
    """What is said where a file can't be written."""
    reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
    return UsageError(f"{path} can't be written: {reason}")


def _sweep(folder: Path, prefix: str) -> None:
    """Removes what such a writer that was killed has left."""
    for path in folder.iterdir():
        ours = path.name.startswith(prefix) and path.name.endswith(_SUFFIX)
        with suppress(FileNotFoundError):  # Another one was faster.
            if ours and time.time() - path.lstat().st_mtime > _STALE:
                path.unlink()
