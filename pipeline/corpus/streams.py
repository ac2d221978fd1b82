"""A file's content as bytes or as text: decompressed by its name, decoded by its first bytes."""

import bz2
import codecs
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import IO, Any

import pyarrow as pa

from attribeam.pipeline.store.files import open_read
from attribeam.schemas import UsageError

_HEAD = 1 << 12
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# What files that are no text begin with.
_BINARY = {
    b"PAR1": "Parquet",
    b"ARROW1": "Arrow",
    b"PK\x03\x04": "zip or Excel",
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"SQLite format 3\x00": "SQLite",
    b"%PDF-": "PDF",
}


def suffixes(path: str) -> tuple[str, str]:
    """The suffix of a file's format and of its compression, either perhaps empty."""
    name = PurePosixPath(path)
    packed = name.suffix.lower()
    if packed == ".gzip":
        # As pandas' manual names a Parquet file, which is compressed inside.
        inner = PurePosixPath(name.stem).suffix.lower()
        return (inner, "") if inner == ".parquet" else (inner, ".gz")
    if packed in _OPENERS:
        return PurePosixPath(name.stem).suffix.lower(), packed
    return packed, ""


@contextmanager
def content(path: str) -> Iterator[IO[bytes]]:
    """A file's content, decompressed if its name says so."""
    with open_read(path) as handle:
        opener = _OPENERS.get(suffixes(path)[1])
        if opener is None:
            yield handle
        else:
            with opener(handle, path) as unpacked:
                yield unpacked


def _member(handle: IO[bytes], path: str) -> Any:
    """The only file in a zip archive."""
    archive = zipfile.ZipFile(handle)
    names = [info.filename for info in archive.infolist() if not info.is_dir()]
    names = [name for name in names if not name.startswith("__MACOSX/")]
    if len(names) != 1:
        raise UsageError(f"{path} holds {len(names)} files: unpack it into a folder")
    return archive.open(names[0])


_OPENERS: dict[str, Callable[[IO[bytes], str], Any]] = {
    ".gz": lambda handle, _: gzip.GzipFile(fileobj=handle),
    ".bz2": lambda handle, _: bz2.BZ2File(handle),
    ".xz": lambda handle, _: lzma.LZMAFile(handle),  # noqa: SIM115
    ".zst": lambda handle, _: pa.CompressedInputStream(pa.PythonFile(handle, "r"), "zstd"),
    ".zip": _member,
}


@contextmanager
def text(path: str) -> Iterator[IO[str]]:
    r"""A file's text: UTF-8, or what a byte order mark says.

    Bytes that are not UTF-8 become lone surrogates, so that one bad row does no harm to the others.
    Lines end in ``\n``, and a carriage return is a character like any other, unless the file has
    nothing else to end its lines.

    Raises:
        UsageError: If the file begins like one of another kind.
    """
    with content(path) as handle:
        head = b""
        while len(head) < _HEAD and (block := handle.read(_HEAD - len(head))):
            head += block
        encoding = _encoding(path, head)
        errors = "surrogatepass" if encoding.startswith(("utf-16", "utf-32")) else "surrogateescape"
        stream = io.BufferedReader(_Rest(head, handle), 1 << 16)
        start = head.decode(encoding, "ignore")
        # Files of old Macs end their lines in carriage returns.
        newline = "\r" if "\r" in start and "\n" not in start else "\n"
        yield io.TextIOWrapper(stream, encoding, errors, newline)


class _Rest(io.RawIOBase):
    """A stream from its start again, of which the first bytes were read already."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self._head, self._rest = head, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._head[: len(buffer)] or self._rest.read(len(buffer))
        self._head = self._head[len(buffer) :]
        buffer[: len(block)] = block
        return len(block)


def _encoding(path: str, head: bytes) -> str:
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            return encoding
    for start, kind in _BINARY.items():
        if head.startswith(start):
            raise UsageError(f"{path} is no text: it begins as a {kind} file does")
    start = head[:32]
    for first, name in ((1, "UTF-16LE"), (0, "UTF-16BE")):
        zeros, others = start[first::2], start[1 - first :: 2]
        if len(zeros) > 2 and not any(zeros) and 0 not in others[: len(zeros)]:
            raise UsageError(
                f"{path} is not UTF-8; it looks like {name} without a byte order mark: "
                f"`iconv -f {name} -t UTF-8` makes it one that can be read"
            )
    return "utf-8"


def is_text(value: str) -> bool:
    """Whether a string is without lone surrogates, which stand for what could not be decoded."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def undecoded(value: str) -> str:
    """Says why bytes that were kept as lone surrogates are no text."""
    try:
        value.encode(errors="surrogateescape").decode()
    except UnicodeDecodeError as error:
        return f"is not valid UTF-8: {error.reason} at byte {error.start}"
    except UnicodeEncodeError as error:
        return f"holds a lone surrogate at character {error.start}"
    return "holds a lone surrogate"
