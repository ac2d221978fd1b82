"""One process at a time on a run's folder.

Two that plan from the same files would do the same work twice, and one would sweep away what the
other is writing. On a local disk the operating system holds the lock, and lets go of it however the
process ends. At a URL, or on a disk without locks, there is a lease: a file that its owner writes
anew every ``RENEW`` seconds. Who finds one watches it for ``WATCH`` seconds. If it changes,
somebody is there; if it doesn't, its owner is dead. Nobody's clock is compared with another's.
"""

import errno
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from attribeam.pipeline.interruption import lastly
from attribeam.pipeline.store.files import discard, exists, is_local, join, open_read, write_atomic
from attribeam.schemas import UsageError
from attribeam.schemas.layout import LOCK

try:
    import fcntl
except ImportError:  # Windows.
    fcntl = None  # type: ignore[assignment]

# Seconds. An owner may miss two renewals before it is taken for dead.
RENEW = 20.0
WATCH = 65.0
LOOK = 2.0
# In which two that take a lease at the same instant see who was last; that one has it.
SETTLE = 2.0

# Not SIGINT, which is ignored by what a script starts in the background.
_ALARM = getattr(signal, "SIGUSR1", signal.SIGINT)

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class LostLeaseError(OSError):
    """Another process took this one for dead and has taken its folder over."""


@contextmanager
def locked(root: str) -> Iterator[None]:
    """Has a run's folder to itself while the body runs; makes the folder if need be.

    Args:
        root: The run's folder, local or at a URL.

    Raises:
        UsageError: If another process has it, or it can't be written to.
        LostLeaseError: If another process took it over meanwhile; the body was interrupted.
    """
    if root.startswith("hf://"):
        raise UsageError(
            f"--output {root} is on the hub, which runs are published to: name a folder, and give "
            "that to `attribeam publish`"
        )
    made = _make_folder(root) if is_local(root) else []
    try:
        release = _take(root)
    except UsageError:
        _remove_empty(made)
        raise
    except Exception as error:  # The libraries of the stores raise a dozen kinds.
        _remove_empty(made)
        raise UsageError(f"--output {root} can't be written to: {_reason(error)}") from error
    try:
        with lastly(release.abandon):
            yield
        release.check()
    except KeyboardInterrupt:
        release.check()
        raise
    finally:
        release.release()
        _remove_empty(made)


def _take(root: str) -> "_FileLock | _Lease":
    path = join(root, LOCK)
    if is_local(root) and fcntl is not None:
        try:
            return _FileLock(root, Path(path))
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
    return _Lease(root, path)


def _busy(root: str, content: bytes | None) -> UsageError:
    return UsageError(
        f"--output {root} is in use by {_describe(content)}: wait until it is done, or name "
        "another --output"
    )


# What the file says, for messages only -----------------------------------------------------------


def _record(**more: object) -> bytes:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    about = {"host": socket.gethostname(), "pid": os.getpid(), "started": started}
    return (json.dumps({**about, **more}) + "\n").encode()


def _parsed(content: bytes | None) -> dict[str, Any]:
    try:
        found = json.loads(content or b"")
    except ValueError:  # It is just being written.
        return {}
    return found if isinstance(found, dict) else {}


def _describe(content: bytes | None) -> str:
    about = _parsed(content)
    if not {"host", "pid", "started"} <= about.keys():
        return "another process"
    return f"process {about['pid']} on {about['host']} since {about['started']}"


# Folders -----------------------------------------------------------------------------------------


def _make_folder(root: str) -> list[Path]:
    """Makes a folder with those above it; returns those that weren't there, the deepest first."""
    try:
        folder = Path(root)
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"--output {root} is a file; name a folder")
    except OSError as error:
        raise UsageError(f"--output {root} can't be read: {error}") from error
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--output {root} can't be written to: {error}") from error
    return made


def _remove_empty(folders: list[Path]) -> None:
    """So that what is refused leaves nothing behind."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


# On a local disk ---------------------------------------------------------------------------------


class _FileLock:
    """A lock of the operating system's on a file in the folder."""

    def __init__(self, root: str, path: Path) -> None:
        self._path = path
        while True:
            path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # Who was here before has just removed the folder.
                self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
                if self._locked(root):
                    break
                os.close(self._handle)
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, _record(), 0)

    def _locked(self, root: str) -> bool:
        """Locks the open file; whether that is still the one that the name leads to."""
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return self._path.stat().st_ino == os.fstat(self._handle).st_ino
        except FileNotFoundError:
            return False
        except BlockingIOError:
            content = os.pread(self._handle, 4096, 0)
            os.close(self._handle)
            raise _busy(root, content) from None
        except OSError:
            os.close(self._handle)
            raise

    def check(self) -> None:
        """Nobody takes it from a process that lives."""

    def abandon(self) -> None:
        """Removes the file of a process that is about to end, whose lock goes with it."""
        self._path.unlink(missing_ok=True)

    def release(self) -> None:
        # In this order: who opens the name afterwards makes a new file, and who has opened this one
        # finds out that the name doesn't lead to it any more.
        self._path.unlink(missing_ok=True)
        os.close(self._handle)


# At a URL ----------------------------------------------------------------------------------------


class _Lease:
    """A file that is renewed by a thread for as long as this process has the folder.

    Attributes:
        lost: What another process wrote that has taken the lease over; None as long as none has.
    """

    def __init__(self, root: str, path: str) -> None:
        self.lost: bytes | None = None
        self._path = path
        self._token = uuid4().hex
        self._beat = 0
        self._root = root
        self._stop = threading.Event()
        self._owner = threading.get_ident()
        _watch(root, path)
        self._write()
        time.sleep(SETTLE)
        content = _content(path)
        if not self._is_ours(content):
            raise _busy(root, content)
        self._is_main = threading.current_thread() is threading.main_thread()
        if self._is_main:
            self._before = signal.signal(_ALARM, _interrupt)
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def _write(self) -> None:
        content = _record(token=self._token, beat=self._beat)
        self._beat += 1
        if is_local(self._path):
            # Who looks while it is written is not to find it empty.
            write_atomic(self._path, lambda handle: handle.write(content))
            return
        with FileSystems.create(
            self._path, "application/octet-stream", CompressionTypes.UNCOMPRESSED
        ) as handle:
            handle.write(content)

    def _is_ours(self, content: bytes | None) -> bool:
        return _parsed(content).get("token") == self._token

    def _renew(self) -> None:
        while not self._stop.wait(RENEW):
            # A network that is away for a moment comes back; if it stays away for long, another
            # process has the lease then, and that is found out here.
            with suppress(Exception):
                content = _content(self._path)
                if content is None or self._is_ours(content):
                    self._write()
                else:
                    self.lost = content
                    if self._is_main:
                        signal.pthread_kill(self._owner, _ALARM)
                    return

    def check(self) -> None:
        """Raises an error if another process has the lease now."""
        if self.lost is not None:
            raise LostLeaseError(
                f"{_describe(self.lost)} has taken {self._root} over, since this process was "
                f"silent for {WATCH:.0f} s"
            )

    def release(self) -> None:
        self._stop.set()
        self._thread.join()
        if self._is_main:
            signal.signal(_ALARM, self._before)
        self.abandon()

    def abandon(self) -> None:
        """Removes the lease of a process that is about to end."""
        self._stop.set()
        with suppress(Exception):  # It will be found dead.
            if self._is_ours(_content(self._path)):
                discard(self._path)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _watch(root: str, path: str) -> None:
    """Returns when nobody has the lease.

    Raises:
        UsageError: If somebody renews it.
    """
    try:
        first = _content(path)
        if first == b"":
            # It is just being written; or the disk has no locks, and this process made the file to
            # find that out.
            time.sleep(LOOK)
            first = _content(path) or None
    except Exception as error:
        raise UsageError(f"--output {root} can't be read: {_reason(error)}") from error
    if first is None:
        return
    print(
        f"attribeam: {root} was left in use by {_describe(first)}; watching for {WATCH:.0f} s "
        "whether it still is",
        file=sys.stderr,
        flush=True,
    )
    end = time.monotonic() + WATCH
    while time.monotonic() < end:
        time.sleep(LOOK)
        content = _content(path)
        if content is None:
            return
        if content != first:
            raise _busy(root, content)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {text}"


def _content(path: str) -> bytes | None:
    """What a lease says; None if there is none."""
    if not exists(path):
        return None
    try:
        with open_read(path) as handle:
            return handle.read()
    except Exception:
        if exists(path):
            raise
        return None  # It went between the two.
