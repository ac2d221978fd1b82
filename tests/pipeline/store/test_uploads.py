"""Uploads: in order, one at a time, while others compute; the first error ends them."""

import threading

import pytest

from attribeam.pipeline.store import uploads
from attribeam.pipeline.store.uploads import Uploads


def test_calls_are_made_in_order_while_others_compute() -> None:
    done: list[int] = []
    gate = threading.Event()

    def call(number: int) -> None:
        gate.wait(60)
        done.append(number)

    waiting = Uploads()
    for number in range(20):
        waiting.add(lambda number=number: call(number))
    assert done == []  # And yet whoever adds goes on.
    gate.set()
    waiting.finish()
    assert done == [*range(20)]


def test_the_first_error_ends_them() -> None:
    done: list[int] = []
    gate = threading.Event()

    def fail() -> None:
        gate.wait(60)
        raise OSError("the network is gone")

    waiting = Uploads()
    waiting.add(fail)
    for number in range(5):
        waiting.add(lambda number=number: done.append(number))
    gate.set()
    with pytest.raises(OSError, match="the network is gone"):
        waiting.finish()
    assert done == []


def test_no_more_wait_than_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_MOST", 3)
    done: list[int] = []
    waiting = Uploads()
    for number in range(50):
        waiting.add(lambda number=number: done.append(number))
        assert number - len(done) <= 3
    waiting.finish()
    assert done == [*range(50)]


def test_what_is_stopped_is_not_made() -> None:
    begun, gate = threading.Event(), threading.Event()
    done: list[str] = []

    def first() -> None:
        begun.set()
        gate.wait(60)
        done.append("first")

    waiting = Uploads()
    waiting.add(first)
    waiting.add(lambda: done.append("second"))
    begun.wait(60)
    threading.Timer(0.05, gate.set).start()
    waiting.stop()
    assert done == ["first"]
