"""Reading and writing files through Beam's file systems: local, gs://, s3:// alike.

A file comes into being whole or not at all: it is written under a unique temporary name beside its
place and renamed. Renaming is atomic on a local disk and per object on the cloud stores.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, NamedTuple
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystem import BeamIOError, CompressionTypes, FileMetadata
from apache_beam.io.filesystems import FileSystems

from attribeam.pipeline.store import gcs, s3
from attribeam.schemas.encoding import parquet_options

TEMPORARY = ".tmp"
# What a Parquet file ends in, after the length of its footer; and the least that one can have.
_MARK = b"PAR1"
_LEAST = 12

# What stores take in one request, by which an object is there whole or not at all.
_AT_ONCE = 8 << 20
_PUTS: dict[str, Callable[[str, bytes], None]] = {"s3": s3.put, "gs": gcs.put}

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


def write_beside(path: str, write: Callable[[Any], None]) -> str:
    """Writes what is to be at a path under a temporary name beside it, safe from a power cut.

    Returns:
        The temporary path.
    """
    temporary = f"{path}.{uuid4().hex}{TEMPORARY}"
    try:
        if is_local(path):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            with Path(temporary).open("xb") as handle:
                write(handle)
                handle.flush()
                os.fsync(handle.fileno())
            _sync_folder(Path(path).parent)
        else:
            with FileSystems.create(
                temporary, "application/octet-stream", CompressionTypes.UNCOMPRESSED
            ) as handle:
                write(handle)
    except BaseException:
        discard(temporary)
        raise
    return temporary


def move(source: str, target: str) -> None:
    """Gives a file another name, in the place of what has it."""
    if is_local(source):
        Path(source).replace(target)
    else:
        FileSystems.rename([source], [target])


def _sync_folder(folder: Path) -> None:
    """Makes what a folder holds safe from a power cut, where the system has that."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_content(path: str, content: Any) -> None:
    """Writes a file of what is in memory, whole or not at all: where it can be, by one request.

    Args:
        path: Where the file is to be; its folder is made if need be.
        content: Its bytes, as any object that has a buffer.
    """
    put = _PUTS.get(path.partition("://")[0]) if len(memoryview(content)) <= _AT_ONCE else None
    if put is None:
        write_atomic(path, lambda handle: handle.write(content))
    else:
        put(path, bytes(content))


class Hashed:
    """A file that is being written from its beginning to its end, and what is known of it then.

    Attributes:
        size: Bytes that were written.
        closed: Whether whoever writes it is done; the file itself is closed by who opened it.
    """

    def __init__(self, handle: IO[bytes]) -> None:
        self.size = 0
        self.closed = False
        self._handle = handle
        self._digest = sha256()

    @property
    def sha256(self) -> str:
        """The checksum of what was written, in hexadecimal digits."""
        return self._digest.hexdigest()

    def write(self, content: Any) -> int:
        """Writes some bytes."""
        self._digest.update(content)
        self.size += len(content)
        self._handle.write(bytes(content))
        return len(content)

    def tell(self) -> int:
        """Where is written next."""
        return self.size

    def flush(self) -> None:
        """Nothing is held back here."""

    def close(self) -> None:
        """Whoever writes is done."""
        self.closed = True


class Written(NamedTuple):
    """What was written: rows, bytes, and the SHA-256 of these in hexadecimal digits."""

    rows: int
    bytes: int
    sha256: str


def write_parquet(path: str, table: pa.Table) -> Written:
    """Writes a table as a Parquet file (``encode_parquet``), whole or not at all."""
    encoded = pa.BufferOutputStream()
    encode_parquet(table, encoded)
    content = encoded.getvalue()
    write_content(path, content)
    return Written(len(table), content.size, sha256(content).hexdigest())


def encode_parquet(table: pa.Table, handle: Any) -> None:
    """Writes a table as Parquet, as all of ours are encoded (``schemas.encoding``)."""
    pq.write_table(table, handle, **parquet_options(table.schema))


def read_parquet(path: str, columns: list[str] | None = None) -> pa.Table:
    """Reads a Parquet file.

    Raises:
        DamagedError: If it has no whole footer, or a page's checksum is wrong.
    """
    with opened_parquet(path) as parquet:
        return parquet.read(columns)


def count_rows(path: str) -> int:
    """Number of rows of a Parquet file, by its footer.

    Raises:
        DamagedError: If it has no whole footer.
    """
    with opened_parquet(path) as parquet:
        return int(parquet.metadata.num_rows)


@contextmanager
def opened_parquet(path: str) -> Iterator[pq.ParquetFile]:
    """Opens a Parquet file, whose pages' checksums are compared when they are read.

    Raises:
        DamagedError: If it has no whole footer, or a page's checksum is wrong.
    """
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
    return list(each_file(root))


def each_file(root: str) -> Iterator[str]:
    """Yields paths as ``list_files`` gives them, as they are found, since they may be very many."""
    if is_local(root):
        return (f"{folder}/{name}" if folder else name for folder, name, _ in _walk(root))
    return (path for path, _ in _listed(root))


def list_checked(
    root: str, is_known: Callable[[str, os.DirEntry[str]], bool] = lambda *_: False
) -> Iterator[tuple[str, bool]]:
    """Paths of all files below a folder, and whether those that are Parquet are whole.

    They are yielded as they are found, since they may be very many. At a URL, where a file is
    written whole or not at all, only the sizes in the listing are looked at.

    Args:
        root: The folder.
        is_known: Whether a file on a local disk, by its folder relative to the root and its entry,
            is known to be whole. It isn't yielded then; the others are opened, to see whether they
            end in a footer.
    """
    if not is_local(root):
        for path, size in _listed(root):
            yield path, not path.endswith(".parquet") or size >= _LEAST
        return
    for folder, name, entry in _walk(root):
        if not is_known(folder, entry):
            path = f"{folder}/{name}" if folder else name
            yield path, not name.endswith(".parquet") or _ends_well(f"{root}/{path}")


def list_sized(root: str) -> list[tuple[str, int]]:
    """Paths of all files below a folder, relative to it, and their sizes."""
    if not is_local(root):
        return _listed(root)
    return [
        (f"{folder}/{name}" if folder else name, entry.stat().st_size)
        for folder, name, entry in _walk(root)
    ]


def _listed(root: str) -> list[tuple[str, int]]:
    """Paths and sizes of the files at a URL."""
    return [(path, metadata.size_in_bytes) for path, metadata in _matched(root)]


def _matched(root: str) -> list[tuple[str, FileMetadata]]:
    """The files at a URL: paths relative to it, and what a listing says of them."""
    try:
        found = FileSystems.match([join(root, "**")])[0].metadata_list
    except BeamIOError:
        return []
    prefix = root.rstrip("/") + "/"
    return [(metadata.path.removeprefix(prefix), metadata) for metadata in found]


def _walk(root: str) -> Iterator[tuple[str, str, os.DirEntry[str]]]:
    """Yields what is below a folder: folder, relative to it, name and entry.

    What is asked of an entry is to be asked before the next one.
    """
    below = [""]
    while below:
        folder = below.pop()
        with suppress(FileNotFoundError, NotADirectoryError), _scanned(f"{root}/{folder}") as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    below.append(f"{folder}/{entry.name}" if folder else entry.name)
                else:
                    yield folder, entry.name, entry


@contextmanager
def _scanned(folder: str) -> Iterator[Iterator[os.DirEntry[str]]]:
    """The entries of a folder; where it can be, the system looks up its path once for all."""
    if os.scandir not in os.supports_fd:
        with os.scandir(folder) as entries:
            yield entries
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with os.scandir(descriptor) as entries:
            yield entries
    finally:
        os.close(descriptor)
