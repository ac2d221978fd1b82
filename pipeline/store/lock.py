"""One process at a time on a run's folder, or on a part of a run.

Two that plan from the same files would do the same work twice, and one would sweep away what the
other is writing. On a local disk the operating system holds the lock, and lets go of it however the
process ends. At a URL, or on a disk without locks, there is a lease: a file that its owner writes
anew every ``RENEW`` seconds. Who finds one watches it for ``WATCH`` seconds. If it changes,
somebody is there; if it doesn't, its owner is dead. Nobody's clock is compared with another's.

A part begins with the folder to itself, which other parts wait for, and then has a lock of its own.
Whoever has the folder looks for locks of parts that have shards in common with what it is to do.
"""

import errno
import json
import os
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from attribeam.pipeline.interruption import lastly
from attribeam.pipeline.parts import WHOLE, RunPart
from attribeam.pipeline.store.files import discard, exists, is_local, join, open_read, write_atomic
from attribeam.schemas import UsageError
from attribeam.schemas.layout import LOCK, parse_part_lock_path, part_lock_path

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

# For how often, and after how long, a folder is made that others are removing.
_TRIES, _PAUSE = 50, 0.01

# Not SIGINT, which is ignored by what a script starts in the background.
_ALARM = getattr(signal, "SIGUSR1", signal.SIGINT)

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class LostLeaseError(OSError):
    """Another process took this one for dead and has taken its folder over."""


class InUseError(UsageError):
    """Another process has a folder, or a part of a run.

    Attributes:
        content: What it says of itself, as far as that could be read.
    """

    def __init__(self, root: str, content: bytes | None) -> None:
        self.content = content
        super().__init__(
            f"--output {root} is in use by {_describe(content)}: wait until it is done, or name "
            "another --output"
        )


@contextmanager
def locked(root: str) -> Iterator[None]:
    """Has a run's folder to itself while the body runs; makes the folder if need be.

    Args:
        root: The run's folder, local or at a URL.

    Raises:
        UsageError: If another process has it, or a part of it, or it can't be written to.
        LostLeaseError: If another process took it over meanwhile; the body was interrupted.
    """
    with _folder(root), _holding(root, lambda: _take(root, LOCK)):
        _check_parts(root, WHOLE)
        yield


@contextmanager
def locked_part(root: str, part: RunPart) -> Iterator[Callable[[], None]]:
    """Has a part of a run to itself while the body runs, and first the whole folder.

    Waits while other parts have that.

    Args:
        root: The run's folder, local or at a URL.
        part: The part.

    Yields:
        What lets others have the folder; to be called once.

    Raises:
        UsageError: If another process has the part, or one that has shards in common with it, or
            the whole run; or the folder can't be written to.
        LostLeaseError: If another process took it over meanwhile; the body was interrupted.
    """
    with _folder(root), ExitStack() as alone:
        alone.enter_context(_holding(root, lambda: _wait(root, part)))
        _check_parts(root, part)
        with _holding(root, lambda: _take(root, part_lock_path(*part), part)):
            yield alone.close


@contextmanager
def _holding(root: str, take: "Callable[[], _FileLock | _Lease]") -> Iterator[None]:
    """Has a lock while the body runs."""
    with _in_a_sentence(root):
        lock = take()
    try:
        with lastly(lock.abandon):
            yield
        lock.check()
    except KeyboardInterrupt:
        lock.check()
        raise
    finally:
        lock.release()


@contextmanager
def _in_a_sentence(root: str) -> Iterator[None]:
    try:
        yield
    except UsageError:
        raise
    except Exception as error:  # The libraries of the stores raise a dozen kinds.
        raise UsageError(f"--output {root} can't be written to: {_reason(error)}") from error


def _take(
    root: str, name: str, part: RunPart | None = None, *, quiet: bool = False
) -> "_FileLock | _Lease":
    """Takes a lock.

    Args:
        root: The run's folder.
        name: Path of the lock, relative to it.
        part: What it is taken for; None for a whole run.
        quiet: Whether it has been said that somebody may have it.
    """
    path = join(root, name)
    return _system_lock(root, path, part) or _Lease(root, path, part, quiet=quiet)


def _system_lock(root: str, path: str, part: RunPart | None) -> "_FileLock | None":
    """A lock of the operating system's; None where there are none."""
    if is_local(root) and fcntl is not None:
        try:
            return _FileLock(root, Path(path), part)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
    return None


# Parts --------------------------------------------------------------------------------------------


def _wait(root: str, part: RunPart) -> "_FileLock | _Lease":
    """Takes a folder for the beginning of a part, as soon as no other part has it.

    A whole run has it for as long as it takes, and isn't waited for. Whoever has a lock and says
    nothing has only just taken it.
    """
    said = ""
    while True:
        try:
            return _take(root, LOCK, part, quiet=bool(said))
        except InUseError as error:
            about = _parsed(error.content)
            if about and "part" not in about:
                raise
            if (holder := _describe(error.content)) != said:
                _say(f"part {part} waits for {holder}, which prepares the run")
                said = holder
        time.sleep(LOOK)


def _check_parts(root: str, part: RunPart) -> None:
    """Removes the locks that dead processes have left on shards of a part.

    Whoever calls it has the folder, so that no part can begin meanwhile.

    Raises:
        InUseError: If one of these processes is alive.
    """
    with _in_a_sentence(root):
        found = ((name, parse_part_lock_path(name)) for name in _names(root))
        common = [name for name, other in found if other and part.overlaps(RunPart(*other))]
        leases = []
        for path in (join(root, name) for name in common):
            if (lock := _system_lock(root, path, part)) is not None:
                lock.release()
            else:
                leases.append(path)
        _watch(root, leases)
        for path in leases:
            discard(path)


def _names(root: str) -> list[str]:
    """Names of the locks of parts that are in a folder, among other names."""
    if is_local(root):
        return [path.name for path in Path(root).iterdir()]
    found = FileSystems.match([join(root, f"{LOCK}.*")])[0].metadata_list
    return [metadata.path.rpartition("/")[2] for metadata in found]


# What the file says, for messages only -----------------------------------------------------------


def _record(part: RunPart | None, **more: object) -> bytes:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    about = {"host": socket.gethostname(), "pid": os.getpid(), "started": started}
    own = {} if part is None else {"part": str(part)}
    return (json.dumps({**about, **own, **more}) + "\n").encode()


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
    part = f" (part {about['part']})" if "part" in about else ""
    return f"process {about['pid']} on {about['host']} since {about['started']}{part}"


def _say(sentence: str) -> None:
    print(f"attribeam: {sentence}", file=sys.stderr, flush=True)


# Folders -----------------------------------------------------------------------------------------


@contextmanager
def _folder(root: str) -> Iterator[None]:
    """A run's folder is there while the body runs, and doesn't stay empty after it."""
    if root.startswith("hf://"):
        raise UsageError(
            f"--output {root} is on the hub, which runs are published to: name a folder, and give "
            "that to `attribeam publish`"
        )
    made = _make_folder(root) if is_local(root) else []
    try:
        yield
    finally:
        _remove_empty(made)


def _make_folder(root: str) -> list[Path]:
    """Makes a folder with those above it; returns those that weren't there, the deepest first."""
    try:
        folder = Path(root)
        if _is_other(folder):
            raise UsageError(f"--output {root} is a file; name a folder")
    except OSError as error:
        raise UsageError(f"--output {root} can't be read: {error}") from error
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        _ensure(folder)
    except OSError as error:
        raise UsageError(f"--output {root} can't be written to: {error}") from error
    return made


def _is_other(folder: Path) -> bool:
    """Whether something is there that is no folder; asked once, since it may come and go."""
    try:
        return not stat.S_ISDIR(folder.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _ensure(folder: Path) -> None:
    """Makes a folder, which those who leave may be removing at the same time.

    Raises:
        OSError: If it can't be made.
    """
    for left in reversed(range(_TRIES)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, FileNotFoundError):
            # It was there a moment ago, or one above it was; so it is with a link to nothing.
            if not left or _is_other(folder):
                raise
            time.sleep(_PAUSE)
        else:
            return


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

    def __init__(self, root: str, path: Path, part: RunPart | None) -> None:
        self._path = path
        while True:
            _ensure(path.parent)
            with suppress(FileNotFoundError):  # Who was here before has just removed the folder.
                self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
                if self._locked(root):
                    break
                os.close(self._handle)
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, _record(part), 0)
        os.fsync(self._handle)  # Else other machines that share the disk would find it empty.

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
            raise InUseError(root, content) from None
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

    def __init__(self, root: str, path: str, part: RunPart | None, *, quiet: bool) -> None:
        self.lost: bytes | None = None
        self._path = path
        self._part = part
        self._token = uuid4().hex
        self._beat = 0
        self._root = root
        self._stop = threading.Event()
        self._owner = threading.get_ident()
        _watch(root, [path], quiet=quiet)
        try:
            self._write()
            time.sleep(SETTLE)
            content = _content(path)
        except BaseException:
            self.abandon()
            raise
        if not self._is_ours(content):
            raise InUseError(root, content)
        self._is_main = threading.current_thread() is threading.main_thread()
        if self._is_main:
            _alarm.listen()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def _write(self) -> None:
        content = _record(self._part, token=self._token, beat=self._beat)
        self._beat += 1
        if is_local(self._path):
            self._write_here(content)
            return
        with FileSystems.create(
            self._path, "application/octet-stream", CompressionTypes.UNCOMPRESSED
        ) as handle:
            handle.write(content)

    def _write_here(self, content: bytes) -> None:
        folder = Path(self._path).parent
        for left in reversed(range(_TRIES)):
            _ensure(folder)
            try:
                # Who looks while it is written is not to find it empty.
                write_atomic(self._path, lambda handle: handle.write(content))
            except OSError:
                if not left or folder.exists():
                    raise  # Else who was here before has just removed the folder.
            else:
                return

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
            _alarm.unlisten()
        self.abandon()

    def abandon(self) -> None:
        """Removes the lease of a process that is about to end."""
        self._stop.set()
        with suppress(Exception):  # It will be found dead.
            if self._is_ours(_content(self._path)):
                discard(self._path)


class _Alarm:
    """The signal that tells the main thread of a lost lease, while it has any.

    The first of two leases may be the first to go.
    """

    def __init__(self) -> None:
        self._leases = 0

    def listen(self) -> None:
        if not self._leases:
            self._before = signal.signal(_ALARM, _interrupt)
        self._leases += 1

    def unlisten(self) -> None:
        self._leases -= 1
        if not self._leases:
            signal.signal(_ALARM, self._before)


_alarm = _Alarm()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _watch(root: str, paths: Sequence[str], *, quiet: bool = False) -> None:
    """Returns when nobody has any of some leases.

    Raises:
        InUseError: If somebody renews one.
        UsageError: If they can't be read.
    """
    try:
        watched = {path: first for path in paths if (first := _first(path)) is not None}
    except Exception as error:
        raise UsageError(f"--output {root} can't be read: {_reason(error)}") from error
    for content in [] if quiet else watched.values():
        _say(
            f"{root} was left in use by {_describe(content)}; watching for {WATCH:.0f} s whether "
            "it still is"
        )
    end = time.monotonic() + WATCH
    while watched and time.monotonic() < end:
        time.sleep(LOOK)
        now = {path: _content(path) for path in watched}
        if changed := [now[path] for path in watched if now[path] not in (None, watched[path])]:
            raise InUseError(root, changed[0])
        watched = {path: first for path, first in watched.items() if now[path] is not None}


def _first(path: str) -> bytes | None:
    """What a lease says at first; None if there is none."""
    content = _content(path)
    if content is not None and not content:
        # It is just being written; or the disk has no locks, and this process made the file to find
        # that out.
        time.sleep(LOOK)
        content = _content(path) or None
    return content


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
