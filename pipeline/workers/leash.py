"""Worker processes that end with the process that started them, and it with them.

Beam's in-memory runner waits for ever for a worker that was killed, and a worker whose launcher was
killed goes on until it has done what it was given. So every worker holds a connection to its
launcher, which both ends lose at once when the other is gone. This module is also what a worker
runs.
"""

import os
import shlex
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

# The command of a worker; without a shell left waiting for it. Signals that a terminal or a
# scheduler sends to all processes are for the launcher to act on, with which the workers go.
WORKER = (
    f"trap '' INT TERM HUP; exec {shlex.quote(sys.executable)} -m attribeam.pipeline.workers.leash"
)
_PORT = "ATTRIBEAM_LEASH"
# What Beam calls the threads that wait for a worker process, and those that talk with it.
_WAITING = "run_worker"
_TALKING = ("beam_control_read", "read_grpc_client_inputs")
_GRACE = 5.0


class WorkerDiedError(OSError):
    """A worker process ended before its work did."""


def follow_launcher() -> None:
    """In a worker process, makes it end as soon as its launcher does; elsewhere does nothing."""
    port = os.environ.pop(_PORT, None)
    if port is not None:
        threading.Thread(target=_follow, args=(int(port),), name="leash", daemon=True).start()


def _follow(port: int) -> None:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)) as connection:
        connection.recv(1)  # Nothing is ever sent.
    os._exit(1)


def run_leashed(work: Callable[[], None]) -> None:
    """Runs work that starts worker processes; ends all of them when it ends.

    The work runs in a thread of its own, since nothing else gets out of a runner that waits for
    what will never come.

    Args:
        work: Runs a pipeline to its end.

    Raises:
        WorkerDiedError: If a worker process was killed.
    """
    over = threading.Event()
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # Raised again below.
            errors.append(error)
        over.set()

    with _worker_errors(over, errors), _leash():
        threading.Thread(target=run, name="pipeline", daemon=True).start()
        over.wait()
    if errors:
        raise errors[0]


@contextmanager
def _leash() -> Iterator[None]:
    """Workers that are started in the body end with it."""
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as server:
        address = server.getsockname()
        cut = threading.Event()

        def accept() -> None:
            while not cut.is_set():
                held.append(server.accept()[0])

        accepting = threading.Thread(target=accept, name="leash", daemon=True)
        accepting.start()
        os.environ[_PORT] = str(address[1])
        try:
            yield
        finally:
            os.environ.pop(_PORT, None)
            cut.set()
            socket.create_connection(address).close()  # It waits for one.
            accepting.join()
            for connection in held:
                connection.close()
            # What they still write must be written before anybody else has the folder.
            for thread in threading.enumerate():
                if thread.name in (_WAITING, *_TALKING):
                    thread.join(_GRACE)


@contextmanager
def _worker_errors(over: threading.Event, errors: list[BaseException]) -> Iterator[None]:
    """Takes an error in a thread that waits for a worker for the end of all."""
    before = threading.excepthook

    def hook(error: threading.ExceptHookArgs) -> None:
        name = error.thread.name if error.thread is not None else ""
        if name == _WAITING:
            reason = str(error.exc_value).rsplit(" ", 1)[-1]
            if not over.is_set():
                errors.append(WorkerDiedError(_died(reason)))
            over.set()
        elif name not in _TALKING:
            before(error)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


def _died(status: str) -> str:
    killed = status in ("137", "-9")
    what = "was killed" if killed else f"ended with status {status}"
    why = " (is there too little memory for --workers of them?)" if killed else ""
    return f"a worker process {what}{why}"


if __name__ == "__main__":
    follow_launcher()
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)
