"""A worker pool that an engine was told of: a launcher whose pool has died says so.

The engine that has lost its workers waits for them for ever, and so would the launcher.
"""

import socket
import threading
import time
from collections.abc import Callable

from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions

from attribeam.pipeline.options import Options
from attribeam.pipeline.workers.leash import WorkerDiedError

# The pool is asked so often, and dead when it hasn't answered for so long.
_ASK = 5.0
_DEAD = 30.0


def with_pool(options: Options, work: Callable[[], None]) -> None:
    """Runs a pipeline to its end, for as long as its worker pool answers, if it has one.

    Args:
        options: The options, which may have ``--environment_type=EXTERNAL`` and an address.
        work: Runs the pipeline.

    Raises:
        WorkerDiedError: If nobody answers at the pool's address any more.
    """
    address = _address(options)
    if address is None:
        work()
        return
    over = threading.Event()
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # Raised again below.
            errors.append(error)
        over.set()

    # Nothing else gets out of a runner that waits for what will never come.
    threading.Thread(target=run, name="pipeline", daemon=True).start()
    answered = time.monotonic()
    while not over.wait(_ASK):
        if _answers(address):
            answered = time.monotonic()
        elif time.monotonic() - answered > _DEAD:
            host, port = address
            raise WorkerDiedError(
                f"the worker pool at {host}:{port} has not answered for {_DEAD:.0f} s; start it "
                "again, and the job that waits for it may have to be cancelled at the engine"
            )
    if errors:
        raise errors[0]


def _address(options: Options) -> tuple[str, int] | None:
    """Where the pool is; None without one."""
    told = PipelineOptions(options.beam_flags).view_as(PortableOptions)
    if told.environment_type != "EXTERNAL":
        return None
    host, _, port = (told.environment_config or "").rpartition(":")
    return (host, int(port)) if host and port.isdecimal() else None


def _answers(address: tuple[str, int]) -> bool:
    """Whether anybody takes connections at an address."""
    try:
        socket.create_connection(address, timeout=_ASK).close()
    except OSError:
        return False
    return True
