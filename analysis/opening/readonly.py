"""Files that DuckDB reads through Python, since what it reads by itself it could write as well."""

import fnmatch
import glob
import io
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NoReturn

import fsspec  # type: ignore[import-untyped]

# What the local folder of a run is called in its connection: ``run://instances/*.parquet``.
LOCAL = "run"
_READ = "rb"


class ReadOnlyFiles(fsspec.AbstractFileSystem):
    """A file system below one address whose files can be read, and nothing else be done to.

    Those below it have to say what there is (``glob`` and ``info``) and to open a file
    (``opened``).

    Attributes:
        protocol: What all addresses begin with, before ``://``.
        root: The address that all files' addresses begin with.
    """

    cachable = False  # Another one of the same address lists it again.
    protocol: str
    root: str
    _firsts: dict[str, list[str]] | None = None  # By glob, while no other files are given.

    @contextmanager
    def only_first(self) -> Iterator[None]:
        """While the body runs a glob gives the first file that it matches, and no other.

        Views and macros are made of patterns that DuckDB looks up again and again meanwhile, to
        find columns that one file has as well as all of them.
        """
        self._firsts = {}
        try:
            yield
        finally:
            self._firsts = None

    def opened(self, path: str) -> "Positioned":
        """Opens a file to be read."""
        raise NotImplementedError

    def open(self, path: str, mode: str = _READ, *_: Any, **__: Any) -> "Positioned":
        """Opens a file to be read.

        Raises:
            PermissionError: If it is opened for anything else, or may not be read.
            FileNotFoundError: If there is none.
        """
        if mode != _READ:
            self._refuse(path)
        return self.opened(path)

    def _refuse(self, *paths: Any, **_: Any) -> NoReturn:
        raise PermissionError(f"{paths[0]} can't be written or removed: the run is read-only")

    # All that fsspec knows by which something changes, in pieces or as a whole.
    touch = mkdir = makedirs = rmdir = rm = rm_file = _rm = cp_file = copy = mv = _refuse
    move = rename = delete = pipe = pipe_file = put = put_file = upload = truncate = _refuse


class Positioned(io.RawIOBase):
    """A file that several threads read at once, each where it asked to.

    DuckDB seeks, and then reads, and its threads share a file: one's read must not come where
    another one has sought meanwhile.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size
        self._next = 0  # Where whoever has not sought reads on.
        self._sought = threading.local()

    def at(self, position: int, size: int) -> bytes:
        """The bytes from a position on, which are fewer at the end alone."""
        raise NotImplementedError

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Sets where this thread reads next."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: self._size}[whence]
        self._sought.position = self._next = start + offset
        return self._next

    def tell(self) -> int:
        """Where this thread reads next."""
        sought: int | None = getattr(self._sought, "position", None)
        return self._next if sought is None else sought

    def read(self, size: int = -1) -> bytes:
        """Reads as many bytes, or to the end."""
        position = self.tell()
        data = self.at(position, max(self._size - position, 0) if size < 0 else size)
        self._sought.position = None
        self._next = position + len(data)
        return data

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True


class _LocalFile(Positioned):
    """A file of this machine."""

    def __init__(self, descriptor: int, size: int) -> None:
        super().__init__(size)
        self._descriptor = descriptor

    def at(self, position: int, size: int) -> bytes:
        """The bytes from a position on, which are fewer at the end alone."""
        data = os.pread(self._descriptor, size, position)
        while 0 < len(data) < size:  # A read gives 2 GiB at most.
            more = os.pread(self._descriptor, size - len(data), position + len(data))
            if not more:
                break
            data += more
        return data

    def close(self) -> None:
        """Closes it."""
        if not self.closed:
            os.close(self._descriptor)
        super().close()


class SharedFile(Positioned):
    """A file of another library, which reads for one thread at a time."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        super().__init__(size)
        self._file = file
        self._lock = threading.Lock()

    def at(self, position: int, size: int) -> bytes:
        """The bytes from a position on, which are fewer at the end alone."""
        with self._lock:
            self._file.seek(position)
            return self._file.read(size)

    def close(self) -> None:
        """Closes it."""
        if not self.closed:
            self._file.close()
        super().close()


class LocalFiles(ReadOnlyFiles):
    """The files of a run's folder on this machine, as they are at any time.

    Links that lead out of the folder, and what is no regular file, are not there; but a snapshot in
    the hub's cache is all links, into the ``blobs`` beside all snapshots.

    Args:
        folder: The folder.
        protocol: What their addresses begin with.
    """

    def __init__(self, folder: Path, protocol: str = LOCAL) -> None:
        super().__init__()
        self.protocol = protocol
        self.root = f"{protocol}://"
        self._folder = os.path.realpath(folder)
        self._blobs = _blobs(self._folder)
        self._inside: dict[str, bool] = {}

    def glob(self, path: str, maxdepth: int | None = None, **_: Any) -> list[str]:
        """Addresses of what matches a glob, in order."""
        relative = self._relative(path)
        if self._firsts is None:
            return self._all(relative)
        if path not in self._firsts:
            if "**" in relative:
                self._firsts[path] = self._all(relative)[:1]
            else:
                first = self._first("", relative.split("/"))
                self._firsts[path] = [] if first is None else [self.root + first]
        return self._firsts[path]

    def _all(self, pattern: str) -> list[str]:
        """Addresses of all that matches a glob, in order."""
        names = glob.iglob(pattern, root_dir=self._folder, recursive=True)
        return sorted(self.root + name for name in names if self._holds(os.path.dirname(name)))

    def _first(self, parent: str, parts: Sequence[str]) -> str | None:
        """The first path that matches the parts of a glob below a folder; None if none does."""
        pattern, *rest = parts
        try:
            names = os.listdir(os.path.join(self._folder, parent))
        except (FileNotFoundError, NotADirectoryError):
            return None
        matching = fnmatch.filter(names, pattern)
        if not pattern.startswith("."):
            matching = [name for name in matching if not name.startswith(".")]
        if not self._holds(parent):
            return None
        if not rest:
            return os.path.join(parent, min(matching)) if matching else None
        below = (self._first(os.path.join(parent, name), rest) for name in sorted(matching))
        return next((path for path in below if path is not None), None)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Size and type of a file.

        Raises:
            FileNotFoundError: If there is none.
            PermissionError: If it is not in the folder.
        """
        return {"name": path, "size": self._stat(path).st_size, "type": "file"}

    def modified(self, path: str) -> datetime:
        """When a file was changed."""
        return datetime.fromtimestamp(self._stat(path).st_mtime, UTC)

    def opened(self, path: str) -> Positioned:
        """Opens a file."""
        # Without waiting, if it is a pipe; what is a link is followed in `_file`, not here.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._file(path), flags)
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            os.close(descriptor)
            raise FileNotFoundError(f"{path} is no file")
        return _LocalFile(descriptor, found.st_size)

    def _stat(self, path: str) -> os.stat_result:
        found = os.lstat(self._file(path))
        if not stat.S_ISREG(found.st_mode):
            raise FileNotFoundError(f"{path} is no file")
        return found

    def _file(self, path: str) -> str:
        """The path of a file, which is no link, and in no folder that leads elsewhere."""
        relative = self._relative(path)
        file = os.path.join(self._folder, relative)
        if self._holds(os.path.dirname(relative)):
            if not os.path.islink(file):
                return file
            file = os.path.realpath(file)
            if self._is_below(file) or os.path.dirname(file) == self._blobs:
                return file
        raise PermissionError(f"{path} leads out of the run's folder")

    def _holds(self, parent: str) -> bool:
        """Whether a folder is in the run's; asked once, since it may have many files."""
        if parent not in self._inside:
            self._inside[parent] = self._is_below(
                os.path.realpath(os.path.join(self._folder, parent))
            )
        return self._inside[parent]

    def _is_below(self, real: str) -> bool:
        return os.path.commonpath([real, self._folder]) == self._folder

    def _relative(self, path: str) -> str:
        relative = path.removeprefix(self.root)
        if relative == path or relative.startswith("/") or ".." in relative.split("/"):
            raise PermissionError(f"{path} is not in the run's folder")
        return relative


def _blobs(folder: str) -> str | None:
    """Where the files of a snapshot in the hub's cache are; None of another folder."""
    parent, grandparent = os.path.dirname(folder), os.path.dirname(os.path.dirname(folder))
    blobs = os.path.join(grandparent, "blobs")
    is_there = os.path.basename(parent) == "snapshots" and os.path.isdir(blobs)
    return blobs if is_there and not os.path.islink(blobs) else None


class RenamedFiles(ReadOnlyFiles):
    """Files under another protocol, since a connection knows one of each.

    Args:
        files: The files.
        protocol: What their addresses begin with instead.
    """

    def __init__(self, files: ReadOnlyFiles, protocol: str) -> None:
        super().__init__()
        self.protocol = protocol
        self.root = f"{protocol}://"
        self._files = files

    @contextmanager
    def only_first(self) -> Iterator[None]:
        """While the body runs a glob gives the first file that it matches, and no other."""
        with self._files.only_first():
            yield

    def glob(self, path: str, maxdepth: int | None = None, **_: Any) -> list[str]:
        """Addresses that match a glob, in order."""
        pattern = glob.escape(self._files.root) + path.removeprefix(self.root)
        return [self.root + p.removeprefix(self._files.root) for p in self._files.glob(pattern)]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Size and type of a file."""
        return {**self._files.info(self._other(path)), "name": path}

    def modified(self, path: str) -> datetime:
        """When a file was changed."""
        changed: datetime = self._files.modified(self._other(path))
        return changed

    def opened(self, path: str) -> Positioned:
        """Opens a file."""
        return self._files.opened(self._other(path))

    def _other(self, path: str) -> str:
        return self._files.root + path.removeprefix(self.root)
