"""The files of pictures that a corpus names by path."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from PIL import Image

from attribeam.pipeline.store.files import exists, is_local, join, open_read

# Suffixes of the formats that Pillow reads.
_SUFFIXES = frozenset(
    f".{each}"
    for each in (
        *("png", "jpg", "jpeg", "jpe", "jfif", "webp", "bmp", "dib", "gif", "tif", "tiff"),
        *("ppm", "pgm", "pbm", "pnm", "tga", "jp2", "avif", "ico", "pcx"),
    )
)
_MOST_SAID = 200


class PictureError(ValueError):
    """A file that can't be read; the message names it and says why."""


def is_picture(name: str) -> bool:
    """Whether a file's name is that of a picture."""
    return PurePosixPath(name).suffix.lower() in _SUFFIXES


def picture_file(path: str, places: Sequence[str]) -> bytes:
    """The content of a picture's file.

    Args:
        path: Its path, or where it is at a URL of a store.
        places: Folders that a relative path may start at, the first where it is goes.

    Raises:
        PictureError: If it is at none of them, is no file, is empty, can't be read, or is no
            picture: nothing else is copied, whatever a table names.
    """
    if path.startswith(("http://", "https://", "data:")):
        raise PictureError(f"{_short(path)} is at a URL that is not read: fetch the files first")
    absolute = not is_local(path) or Path(path).is_absolute()
    # The same places in other words are said once.
    distinct = list(dict.fromkeys(place.rstrip("/") or place for place in places))
    candidates = [path] if absolute else [join(each, path) if each else path for each in distinct]
    for candidate in candidates:
        content = _content(candidate)
        if content == b"":
            raise PictureError(f"the file {_short(path)} is empty")
        if content is not None:
            _check(content, path)
            return content
    below = "" if absolute else f" below {' or '.join(each or '.' for each in distinct)}"
    raise PictureError(f"there is no file {_short(path)}{below}")


def _content(path: str) -> bytes | None:
    """What is in a file; None if it isn't there."""
    try:
        if not exists(path):
            return None
        if is_local(path) and not Path(path).is_file():
            raise PictureError(f"{_short(path)} is no file")
        with open_read(path) as handle:
            return handle.read()
    except PictureError:
        raise
    except (OSError, ValueError) as error:
        raise PictureError(f"the file {_short(path)} can't be read: {error}") from error


def _check(content: bytes, path: str) -> None:
    """Checks that a file begins as a picture does; it is decoded later."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            Image.open(io.BytesIO(content)).close()
    except Image.DecompressionBombError:
        return  # Whether it is too large is asked when it is decoded.
    except (OSError, SyntaxError, ValueError) as error:
        raise PictureError(
            f"the file {_short(path)} is no picture in a format that can be read"
        ) from error


def _short(path: str) -> str:
    return path if len(path) <= _MOST_SAID else f"{path[:_MOST_SAID]}..."
