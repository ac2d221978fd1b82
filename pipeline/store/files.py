"""Reading and writing files through Beam's file systems: local, gs://, s3:// alike.

A file comes into being whole or not at all: it is written under a unique temporary name beside its
place and renamed. Renaming is atomic on a local disk and per object on the cloud stores.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

from attribeam.schemas.encoding import parquet_options

TEMPORARY = ".tmp"
# What a Parquet file ends in, after the length of its footer; and the least that one can have.
_MARK = b"PAR1"
_LEAST = 12

Stamp = tuple[int, float]  # Size of a file, and when it was written.


class DamagedError(OSError):
    """A file's content is not what was written."""


def is_local(path: str) -> bool:
    """Whether a path is on a local disk rather than at a URL."""
    return "://" not in path


def join(root: str, relative: str) -> str:
    """A path below a folder, local or at a URL."""
    return f"{root.rstrip('/')}/{relative}"


def exists(path: str) -> bool:
    """Whether there is a file at the path."""
    return Path(path).exists() if is_local(path) else bool(FileSystems.exists(path))


def open_read(path: str) -> IO[bytes]:
    """Opens a file as it is, without decompressing it by its name."""
    if is_local(path):
        return Path(path).open("rb")
    handle: IO[bytes] = FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)
    return handle


def write_atomic(path: str, write: Callable[[Any], None]) -> None:
    """Writes a file whole: to a temporary name first, then renamed into place.

    Args:
        path: Where the file is to be; its folder is made if need be.
        write: Writes the content to the binary handle it is given.
    """
    temporary = f"{path}.{uuid4().hex}{TEMPORARY}"
    if is_local(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileSystems.create(
            temporary, "application/octet-stream", CompressionTypes.UNCOMPRESSED
        ) as handle:
            write(handle)
        FileSystems.rename([temporary], [path])
    except BaseException as error:
        discard(temporary)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            # "No space left on device" doesn't say on which.
            error.filename = path
        raise


def write_parquet(path: str, table: pa.Table) -> None:
    """Writes a table as a Parquet file (``encode_parquet``), whole or not at all."""
    write_atomic(path, lambda handle: encode_parquet(table, handle))


def encode_parquet(table: pa.Table, handle: Any) -> None:
    """Writes a table as Parquet, as all of ours are encoded (``schemas.encoding``)."""
    pq.write_table(table, handle, **parquet_options(table.schema))


def read_parquet(path: str, columns: list[str] | None = None) -> pa.Table:
    """Reads a Parquet file.

    Raises:
        DamagedError: If it has no whole footer, or a page's checksum is wrong.
    """
    with _opened(path) as parquet:
        return parquet.read(columns)


def count_rows(path: str) -> int:
    """Number of rows of a Parquet file, by its footer.

    Raises:
        DamagedError: If it has no whole footer.
    """
    with _opened(path) as parquet:
        return int(parquet.metadata.num_rows)


@contextmanager
def _opened(path: str) -> Iterator[pq.ParquetFile]:
    with open_read(path) as handle:
        try:
            yield pq.ParquetFile(handle, page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            # What Arrow finds has no number; that a file can't be read is another matter.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            reason = str(error).splitlines()[0]
            raise DamagedError(
                f"{path} is damaged ({reason}): run the same command again with --repair"
            ) from error


def is_whole(path: str) -> bool:
    """Whether a Parquet file is there and not cut short, as far as its end tells."""
    return stamp(path) is not None


def stamp(path: str) -> Stamp | None:
    """What of a Parquet file changes when it is written anew; None if there is no whole one.

    At a URL it takes one request. Machines that share a disk find the same.
    """
    if is_local(path):
        if not _ends_well(path):
            return None
        about = Path(path).stat()
        return about.st_size, about.st_mtime_ns
    found = FileSystems.match([path])[0].metadata_list
    if not found or found[0].size_in_bytes < _LEAST:
        return None
    return found[0].size_in_bytes, found[0].last_updated_in_seconds


def _ends_well(path: str) -> bool:
    """Whether a local file ends in a Parquet footer; quick enough for some 100,000 of them."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        size = os.lseek(handle, 0, os.SEEK_END)
        if size < _LEAST:
            return False
        os.lseek(handle, size - 8, os.SEEK_SET)
        end = os.read(handle, 8)
    finally:
        os.close(handle)
    return end[4:] == _MARK and int.from_bytes(end[:4], "little") + _LEAST <= size


def discard(path: str) -> None:
    """Deletes a file if it is there."""
    if is_local(path):
        Path(path).unlink(missing_ok=True)
    elif FileSystems.exists(path):
        FileSystems.delete([path])


def discard_folder(path: str) -> None:
    """Deletes a folder and all in it if it is there."""
    if is_local(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        found = [m.path for m in FileSystems.match([join(path, "**")])[0].metadata_list]
        if found:
            FileSystems.delete(found)


def list_files(root: str) -> list[str]:
    """Paths of all files below a folder, relative to it; empty if it doesn't exist."""
    return list(_walk(root, "")) if is_local(root) else [path for path, _ in _listed(root)]


def list_checked(root: str) -> Iterator[tuple[str, bool]]:
    """Paths of all files below a folder, and whether those that are Parquet are whole.

    At a URL, where a file is written whole or not at all, only the sizes in the listing are looked
    at.
    """
    if is_local(root):
        for path in _walk(root, ""):
            yield path, not path.endswith(".parquet") or _ends_well(f"{root}/{path}")
    else:
        for path, size in _listed(root):
            yield path, not path.endswith(".parquet") or size >= _LEAST


def _listed(root: str) -> list[tuple[str, int]]:
    """Paths and sizes of the files at a URL."""
    try:
        found = FileSystems.match([join(root, "**")])[0].metadata_list
    except BeamIOError:
        return []
    prefix = root.rstrip("/") + "/"
    return [(metadata.path.removeprefix(prefix), metadata.size_in_bytes) for metadata in found]


def _walk(folder: str, prefix: str) -> Iterator[str]:
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name
