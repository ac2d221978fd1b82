"""A launcher whose worker pool is gone says so instead of waiting for ever."""

import socket
import threading
from collections.abc import Callable

import pytest

from attribeam.pipeline.options import Options
from attribeam.pipeline.workers import pool
from attribeam.pipeline.workers.leash import WorkerDiedError
from attribeam.pipeline.workers.pool import with_pool
from tests.support.patience import HANG


def options(port: int | None) -> Options:
    """Of an engine whose workers are at a port of this machine."""
    beam: list[str] = ["--job_endpoint=localhost:1"]
    if port is not None:
        beam += ["--environment_type=EXTERNAL", f"--environment_config=127.0.0.1:{port}"]
    return Options("m", "c", "s3://bucket/run", runner="PortableRunner", beam=beam)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_ASK", 0.02)
    monkeypatch.setattr(pool, "_DEAD", 0.2)


@pytest.fixture
def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def failing() -> None:
    raise RuntimeError("no")


def test_a_pool_that_dies_ends_the_run(listening: socket.socket) -> None:
    port = listening.getsockname()[1]
    waiting = threading.Event()

    def work() -> None:
        listening.close()
        waiting.wait(HANG)

    with pytest.raises(WorkerDiedError, match=f"the worker pool at 127.0.0.1:{port} has not ans"):
        with_pool(options(port), work)
    waiting.set()


@pytest.mark.parametrize("has_pool", [True, False])
def test_else_the_work_is_done(has_pool: bool, listening: socket.socket) -> None:
    port = listening.getsockname()[1] if has_pool else None
    done: list[int] = []
    work: Callable[[], None] = lambda: done.append(1)  # noqa: E731
    with_pool(options(port), work)
    assert done == [1]
    with pytest.raises(RuntimeError, match="no"):
        with_pool(options(port), failing)
    listening.close()
