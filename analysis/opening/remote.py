"""Runs that lie elsewhere, read-only: ``hf://`` and ``s3://`` through fsspec, and ``gs://``."""

import io
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
from fsspec.utils import glob_translate  # type: ignore[import-untyped]

from attribeam.analysis.opening.database import escape_glob
from attribeam.analysis.opening.google import GoogleStore
from attribeam.analysis.opening.readonly import Positioned, ReadOnlyFiles, SharedFile
from attribeam.schemas import UsageError
from attribeam.schemas.layout import MANIFEST

# The package that reads each protocol.
_PACKAGES = {"hf": "huggingface_hub", "s3": "s3fs", "gs": "google-cloud-storage"}
PROTOCOLS = tuple(_PACKAGES)
_REMOTE = re.compile(rf"({'|'.join(_PACKAGES)})://(.+)")
_NAMES = "hf://datasets/user/name, hf://datasets/user/name@revision, s3://bucket/path or gs://bucket/path"


def is_remote(folder: str | Path) -> bool:
    """Whether a folder is an address of a protocol that runs are read by (a path never is)."""
    return isinstance(folder, str) and _REMOTE.fullmatch(folder) is not None


class RemoteFiles(ReadOnlyFiles):
    """The files below one address, as they were when it was opened; nothing else, and read-only.

    They are listed once: DuckDB asks again and again what there is and how large it is, and each
    answer would be a request. What a file holds is read where and when it is needed.

    Attributes:
        protocol: ``hf``, ``s3`` or ``gs``.
        root: The address, which all files' addresses begin with, and a ``/``.
        manifest: What ``run.json`` holds.
    """

    def __init__(self, address: str) -> None:
        super().__init__()
        found = _REMOTE.fullmatch(address.rstrip("/"))
        if found is None:
            raise UsageError(f"{address} is no address of a run: it is {_NAMES}.")
        self.protocol = found[1]
        self._inner = _file_system(self.protocol, address)
        try:
            self.manifest: bytes = self._inner.cat_file(f"{found[0]}/{MANIFEST}")
            listed: Mapping[str, Any] = self._inner.find(found[0], detail=True)
        except FileNotFoundError as error:
            raise UsageError(
                f"{address} is no run, or you may not see it: it has no {MANIFEST}"
                f"{_reason(error)}. Give {_NAMES}."
            ) from error
        except Exception as error:  # Each of the libraries has its own, which share no base.
            raise UsageError(
                f"{address} can't be read{_reason(error) or f' ({type(error).__name__})'}. "
                f"Give {_NAMES}, and be logged in to what isn't public."
            ) from error
        self._files = {f"{self.protocol}://{name.lstrip('/')}": listed[name] for name in listed}
        # Not the address as it was given: a revision may be written in more than one way.
        manifests = [name for name in self._files if name.endswith(f"/{MANIFEST}")]
        self.root = min(manifests, key=len).removesuffix(MANIFEST)
        self._names = sorted(self._files)
        self._matched: dict[str, list[str]] = {}  # By glob; nothing changes any more.

    def glob(self, path: str, maxdepth: int | None = None, **_: Any) -> list[str]:
        """Addresses that match a glob, which is one too, in order."""
        if path not in self._matched:
            self._matched[path] = list(self._matching(path))
        return self._matched[path][: None if self._firsts is None else 1]

    def _matching(self, path: str) -> Iterator[str]:
        """Yields addresses that match a glob, in order, of those that begin as it does."""
        matches = re.compile(glob_translate(path)).match
        start = escape_glob(self.root)
        literal = ""
        if path.startswith(start):
            literal = self.root + re.split(r"[*?[]", path.removeprefix(start), maxsplit=1)[0]
        for name in islice(self._names, bisect_left(self._names, literal), None):
            if not name.startswith(literal):
                return
            if matches(name):
                yield name

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Size and type of a file.

        Raises:
            FileNotFoundError: If it was not there when the folder was opened.
        """
        if path not in self._files:
            raise FileNotFoundError(path)
        return {"name": path, "size": self._files[path]["size"], "type": "file"}

    def modified(self, path: str) -> datetime:
        """When a file was changed: never, as long as this folder is open."""
        return datetime.fromtimestamp(0, UTC)

    def opened(self, path: str) -> Positioned:
        """Opens a file that was there when the folder was opened."""
        size = self.info(path)["size"]
        if path == f"{self.root}{MANIFEST}":  # It is here, and asked for by many queries.
            return SharedFile(io.BytesIO(self.manifest), size)
        return SharedFile(self._inner.open(path, "rb"), size)


def _file_system(protocol: str, address: str) -> Any:
    try:
        if protocol == "gs":
            return GoogleStore()
        # Without its cache, which would list a folder as it was when it was opened before.
        return fsspec.filesystem(protocol, skip_instance_cache=True)
    except ImportError as error:
        package = _PACKAGES[protocol]
        raise UsageError(
            f"{address} needs the package {package}: install it with `pip install {package}`."
        ) from error


def _reason(error: Exception) -> str:
    """The first line of what a library says, in parentheses; nothing if it says nothing."""
    lines = str(error).strip().splitlines()
    return f" ({lines[0].rstrip('.')})" if lines else ""
