"""One process at a time on a folder: locks of the system, and leases where there are none.

That a lock goes when its process is killed, and what a second process says: ``test_kill.py``.
"""

import errno
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from attribeam.pipeline.store import lock
from attribeam.pipeline.store.lock import LostLeaseError, locked
from attribeam.schemas import UsageError
from attribeam.schemas.layout import LOCK
from tests.support.patience import HANG, until
from tests.support.tiny import files

OTHER = {"host": "elsewhere", "pid": 7, "started": "2026-01-01T00:00:00+00:00", "token": "x"}


@pytest.fixture(params=["lock", "lease"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways, in a hurry, but that nobody is taken for dead who is only slow."""
    for name, seconds in {"RENEW": 0.05, "WATCH": HANG, "LOOK": 0.02, "SETTLE": 0.1}.items():
        monkeypatch.setattr(lock, name, seconds)
    if request.param == "lease":
        monkeypatch.setattr(lock, "fcntl", None)
    return str(request.param)


only_leases = pytest.mark.parametrize("kind", ["lease"], indirect=True)


def test_a_folder_that_is_in_use_is_refused(kind: str, tmp_path: Path) -> None:
    with locked(str(tmp_path)):
        with (
            pytest.raises(UsageError, match="is in use by process") as caught,
            locked(str(tmp_path)),
        ):
            pass
        message = str(caught.value)
        assert f"process {os.getpid()} on {os.uname().nodename} since 20" in message
        assert message.endswith("wait until it is done, or name another --output")
        # Who was refused has not taken away the lock of the other.
        assert files(tmp_path) == {LOCK}
    assert files(tmp_path) == set()
    with locked(str(tmp_path)):
        pass


def test_a_folder_that_was_made_for_nothing_goes_again(kind: str, tmp_path: Path) -> None:
    with locked(f"{tmp_path}/a/b/"):
        assert files(tmp_path) == {f"a/b/{LOCK}"}
    assert list(tmp_path.iterdir()) == []
    with locked(f"{tmp_path}/a/b"):
        (tmp_path / "a" / "b" / "file").write_bytes(b"")
    assert files(tmp_path) == {"a/b/file"}


def test_an_error_lets_go(kind: str, tmp_path: Path) -> None:
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), locked(str(tmp_path)):
            raise error
    assert files(tmp_path) == set()


def test_what_a_dead_process_left_is_taken(
    kind: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lock, "WATCH", 0.4)
    (tmp_path / LOCK).write_text(json.dumps(OTHER))
    start = time.monotonic()
    with locked(str(tmp_path)):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    said = capsys.readouterr().err
    if kind == "lease":
        assert time.monotonic() - start > lock.WATCH
        assert "was left in use by process 7 on elsewhere since 2026-01-01" in said
    else:
        assert not said
    assert files(tmp_path) == set()


def test_no_two_have_it_at_once(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the one before takes the file away while the next one opens it."""
    # So long a lease is not left alone between looking for one and writing it.
    monkeypatch.setattr(lock, "SETTLE", 2.0)
    inside: list[int] = []
    most, had = [0], [0]
    start = threading.Barrier(4)

    def worker() -> None:
        start.wait()
        end = time.monotonic() + 1
        while time.monotonic() < end:
            try:
                with locked(f"{tmp_path}/out"):
                    inside.append(1)
                    most[0] = max(most[0], len(inside))
                    had[0] += 1
                    time.sleep(0.0005)
                    inside.pop()
            except UsageError as error:
                assert "in use" in str(error)

    threads = [threading.Thread(target=worker) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert had[0] > (20 if kind == "lock" else 0)
    assert files(tmp_path) == set()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
@pytest.mark.parametrize("kind", ["lock"], indirect=True)
def test_a_disk_without_locks_gets_a_lease(
    kind: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    with locked(str(tmp_path)):
        assert "token" in json.loads((tmp_path / LOCK).read_text())
    assert files(tmp_path) == set()


def test_what_cannot_be_written_to(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    for root, message in (
        (str(file), f"--output {file} is a file; name a folder"),
        (f"{file}/below", f"--output {file}/below can't be written to: "),
        ("/proc/attribeam", "--output /proc/attribeam can't be written to: "),
        ("no://bucket/out", "--output no://bucket/out can't be read: "),
    ):
        with pytest.raises(UsageError) as caught, locked(root):
            pass
        assert str(caught.value).startswith(message)


# Leases


@only_leases
def test_a_lease_is_kept_for_as_long_as_it_is_renewed(kind: str, tmp_path: Path) -> None:
    with locked(str(tmp_path)):
        seen = set()
        while len(seen) < 10:
            with pytest.raises(UsageError, match="in use"), locked(str(tmp_path)):
                pass
            seen.add((tmp_path / LOCK).read_bytes())


@only_leases
def test_a_lease_that_goes_while_it_is_watched_is_free(kind: str, tmp_path: Path) -> None:
    path = tmp_path / LOCK
    path.write_text(json.dumps(OTHER))
    threading.Timer(0.1, path.unlink).start()
    with locked(str(tmp_path)):  # Watched for longer, the test would not end.
        assert path.exists()


@only_leases
def test_who_was_taken_for_dead_stops(kind: str, tmp_path: Path) -> None:
    """A machine that slept, say; what the other one has is left to it."""
    path = tmp_path / LOCK
    with pytest.raises(LostLeaseError, match="process 7 on elsewhere"), locked(str(tmp_path)):
        path.write_text(json.dumps(OTHER))
        time.sleep(HANG)
        raise AssertionError("was not interrupted")
    assert json.loads(path.read_text()) == OTHER


@only_leases
def test_an_interrupt_of_the_user_is_one(kind: str, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with pytest.raises(KeyboardInterrupt), locked(str(tmp_path)):
        raise KeyboardInterrupt
    assert signal.getsignal(signal.SIGUSR1) == before


@only_leases
def test_a_thread_finds_out_at_the_end(kind: str, tmp_path: Path) -> None:
    """Signals reach the main thread alone."""
    found: list[BaseException] = []

    def work() -> None:
        try:
            with locked(str(tmp_path)):
                (tmp_path / LOCK).write_text(json.dumps(OTHER))
                until(lambda: "lease" not in {one.name for one in threading.enumerate()})
        except LostLeaseError as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(found) == 1


@only_leases
def test_a_network_that_is_away_for_a_moment(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = lock._content
    calls: Iterator[int] = iter(range(1000))

    def content(path: str) -> bytes | None:
        if threading.current_thread().name == "lease" and next(calls) < 3:
            raise ConnectionError("no route")
        return read(path)

    monkeypatch.setattr(lock, "_content", content)
    with locked(str(tmp_path)):
        before = (tmp_path / LOCK).read_bytes()
        until(lambda: (tmp_path / LOCK).read_bytes() not in (before, b""))
    assert files(tmp_path) == set()
