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
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from attribeam.pipeline.parts import RunPart
from attribeam.pipeline.store import lock
from attribeam.pipeline.store.files import TEMPORARY
from attribeam.pipeline.store.lock import LostLeaseError, locked, locked_part
from attribeam.schemas import UsageError
from attribeam.schemas.layout import LOCK, part_lock_path
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


def take_over(path: Path) -> None:
    """Takes a lease from this thread, again and again: its owner may just be renewing it."""
    other, end = path.with_name("other"), time.monotonic() + HANG
    while time.monotonic() < end:
        other.write_text(json.dumps(OTHER))
        other.replace(path)
        time.sleep(0.1)
    raise AssertionError("was not interrupted")


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

    def worker(_: int) -> None:
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

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(worker, range(4)))  # Which raises what any of them has.
    assert most == [1]
    assert had[0] > (20 if kind == "lock" else 0)
    assert files(tmp_path) == set()


def test_a_folder_that_comes_and_goes_is_no_file(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others make the folder and remove it again at any moment between two questions."""
    out = tmp_path / "out"
    mkdir, times = Path.mkdir, [0]

    def contested(self: Path, *args: Any, **kwargs: Any) -> None:
        if self == out and times[0] < 6:
            times[0] += 1
            raise (FileExistsError if times[0] % 2 else FileNotFoundError)(str(self))
        mkdir(self, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", contested)
    with locked(str(out)):
        assert files(out) == {LOCK}
    assert times == [6]
    assert files(tmp_path) == set()


def test_what_leads_to_nothing_is_refused(kind: str, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "none")
    with pytest.raises(UsageError, match="can't be written to: "), locked(str(link)):
        pass


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


# Parts


def locks(folder: Path) -> set[str]:
    """The files in a folder, but for leases that are just being renewed."""
    return {path for path in files(folder) if not path.endswith(TEMPORARY)}


def test_parts_work_side_by_side(kind: str, tmp_path: Path) -> None:
    parts = [RunPart(number, 3) for number in range(3)]
    with ExitStack() as stack:
        for part in parts:
            stack.enter_context(locked_part(str(tmp_path), part))()
        assert locks(tmp_path) == {part_lock_path(*part) for part in parts}
    assert locks(tmp_path) == set()


@pytest.mark.parametrize("other", [(1, 2), (3, 4), (0, 3), (0, 1)])
def test_what_has_shards_in_common_with_a_part_is_refused(
    kind: str, other: tuple[int, int], tmp_path: Path
) -> None:
    with locked_part(str(tmp_path), RunPart(1, 2)) as let_others:
        let_others()
        with (
            pytest.raises(UsageError, match=r"is in use by process .* \(part 1/2\): wait until"),
            locked_part(str(tmp_path), RunPart(*other)),
        ):
            pass
        # The folder is free again, and the part has lost nothing.
        with locked_part(str(tmp_path), RunPart(2, 4)):
            assert locks(tmp_path) == {LOCK, part_lock_path(1, 2), part_lock_path(2, 4)}
        assert locks(tmp_path) == {part_lock_path(1, 2)}


def test_a_whole_run_and_a_part_refuse_each_other(kind: str, tmp_path: Path) -> None:
    root = str(tmp_path)
    with locked_part(root, RunPart(1, 2)) as let_others:
        for _ in range(2):  # Whether the part has the folder or not.
            with pytest.raises(UsageError, match=r"\(part 1/2\)"), locked(root):
                pass
            let_others()
        assert locks(tmp_path) == {part_lock_path(1, 2)}
    with (
        locked(root),
        pytest.raises(UsageError, match=r"in use by process \d+ on [^(]*: wait until"),
        locked_part(root, RunPart(1, 2)),
    ):
        pass
    assert locks(tmp_path) == set()


def test_a_part_waits_while_another_begins(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, order = str(tmp_path), []
    said: list[str] = []
    monkeypatch.setattr(lock, "_say", said.append)

    def second() -> None:
        with locked_part(root, RunPart(1, 2)) as let_others:
            order.append("second")
            let_others()

    with locked_part(root, RunPart(0, 2)) as let_others:
        thread = threading.Thread(target=second)
        thread.start()
        until(lambda: any("waits for" in sentence for sentence in said))
        order.append("first")
        let_others()
        thread.join()  # Though the first part is still at work.
    assert order == ["first", "second"]
    (sentence,) = (sentence for sentence in said if "waits for" in sentence)
    holder = f"process {os.getpid()} on {os.uname().nodename} since 20"
    assert sentence.startswith(f"part 1/2 waits for {holder}")
    assert sentence.endswith(" (part 0/2), which prepares the run")
    assert locks(tmp_path) == set()


def test_who_waits_can_be_interrupted(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with locked_part(str(tmp_path), RunPart(0, 2)):
        monkeypatch.setattr(lock, "_say", interrupt)
        with pytest.raises(KeyboardInterrupt), locked_part(str(tmp_path), RunPart(1, 2)):
            pass
        assert locks(tmp_path) == {LOCK, part_lock_path(0, 2)}


def test_what_dead_parts_left_is_taken(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Watched together, and only those that matter."""
    watched = []
    monkeypatch.setattr(lock, "WATCH", 0.4)
    monkeypatch.setattr(lock, "_say", watched.append)
    names = [part_lock_path(1, 2), part_lock_path(3, 4), part_lock_path(0, 4)]
    for name in (LOCK, *names):
        (tmp_path / name).write_text(json.dumps({**OTHER, "part": "1/2"}))
    with locked_part(str(tmp_path), RunPart(1, 2)) as let_others:
        assert locks(tmp_path) == {LOCK, names[0], names[2]}
        let_others()
        assert locks(tmp_path) == {names[0], names[2]}
    assert len(watched) == (3 if kind == "lease" else 0)
    with locked(str(tmp_path)):
        assert locks(tmp_path) == {LOCK}


def test_what_is_no_lock_of_a_part_is_left(kind: str, tmp_path: Path) -> None:
    others = {f"{LOCK}.00001-of-00002.x", f"{LOCK}.1-of-2", "00001-of-00002"}
    for name in others:
        (tmp_path / name).write_text("")
    with locked_part(str(tmp_path), RunPart(1, 2)):
        assert locks(tmp_path) == {*others, LOCK, part_lock_path(1, 2)}
    assert locks(tmp_path) == others


@only_leases
@pytest.mark.parametrize("whole", [True, False])
def test_a_part_that_was_taken_for_dead_stops(kind: str, whole: bool, tmp_path: Path) -> None:
    """Of its two leases, either may be lost; the second after the first is given back."""
    before = signal.getsignal(signal.SIGUSR1)
    path = tmp_path / (LOCK if whole else part_lock_path(0, 2))
    with (
        pytest.raises(LostLeaseError, match="process 7 on elsewhere"),
        locked_part(str(tmp_path), RunPart(0, 2)) as let_others,
    ):
        if not whole:
            let_others()
        take_over(path)
    assert json.loads(path.read_text()) == OTHER
    assert locks(tmp_path) - {"other"} == {path.name}
    assert signal.getsignal(signal.SIGUSR1) == before


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
        take_over(path)
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
