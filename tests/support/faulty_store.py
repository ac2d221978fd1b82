"""A store that disturbs those who use it: at a request of theirs it kills them or cuts their link.

Since the store chooses the moments, these don't depend on how fast the machine is, and all kinds of
them are met: before a request is done, after it is done but not answered, and in between two.
"""

import json
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable
from mmap import mmap
from pathlib import Path
from typing import Any, NamedTuple

from attribeam.schemas.layout import LOCK
from tests.support.hosts import Network

# Requests between two faults of a host, on average; how many of them one counts as that looks at a
# lock, which is most of what hosts do while they wait; seconds that a link is cut for.
_REQUESTS = 20
_LOOK = 0.01
_CUT = (0.1, 2.0)
KILL, CUT = "kill", "cut"
# Whether the request is done, and whether the host learns of that, once the link is there again.
BEFORE, LOST, HELD = MOMENTS = ("before", "lost", "held")


class Write(NamedTuple):
    """An object that was written, or copied to its place.

    Attributes:
        path: Its key.
        by: The process that wrote it.
    """

    path: str
    by: str


class Fault(NamedTuple):
    """What was done to a host.

    Attributes:
        kind: ``KILL`` or ``CUT``.
        host: Whose it was.
        moment: One of ``MOMENTS``.
        request: At which request: its method and path.
    """

    kind: str
    host: int
    moment: str
    request: str


class Lives:
    """The processes that are at work, by host, as all processes see them."""

    def __init__(self, hosts: int) -> None:
        self._ids = memoryview(mmap(-1, 8 * hosts)).cast("q")

    def __getitem__(self, host: int) -> int:
        return self._ids[host]

    def __setitem__(self, host: int, process: int) -> None:
        self._ids[host] = process


class Gate:
    """What all requests go through.

    Args:
        app: The store.
        network: Where the hosts are.
        lives: Their processes.
        faults: How many faults there will be.
        seed: Of their kinds and moments.
        log: File that takes a line of JSON for each write and each fault.
    """

    def __init__(
        self, app: Any, network: Network, lives: Lives, faults: int, seed: int, log: Path
    ) -> None:
        self._app, self._network, self._lives = app, network, lives
        self._left, self._random = faults, random.Random(seed)
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._turn = threading.Lock()
        self._wait: dict[int, float] = {}  # Requests of a host until its next fault.
        self._mended: dict[int, float] = {}  # When a link is there again.

    def __call__(self, request: dict[str, Any], answer: Callable[..., Any]) -> Iterable[bytes]:
        """Answers a request (WSGI)."""
        host = self._network.host(request)
        if host is None:
            return self._app(request, answer)  # type: ignore[no-any-return]
        if not self._network.isolated and time.monotonic() < self._mended.get(host, 0):
            return _dropped(request, answer)
        moment = self._fault(host, request)
        if moment == BEFORE:
            return _dropped(request, answer)
        found = self._done(request, answer)
        return _dropped(request, answer) if moment == LOST else found

    def _fault(self, host: int, request: dict[str, Any]) -> str:
        """Has a fault at a request if it is time for one; returns its moment, "" for none."""
        with self._turn:
            wait = self._wait.setdefault(host, self._requests())
            looks = LOCK in request["PATH_INFO"] and request["REQUEST_METHOD"] in ("GET", "HEAD")
            self._wait[host] = wait - (_LOOK if looks else 1)
            process = self._lives[host]
            if wait > 0 or not self._left or not process:
                return ""
            self._left -= 1
            self._wait[host] = self._requests()
            kind, moment = self._random.choice((KILL, CUT)), self._random.choice(MOMENTS)
            seconds = self._random.uniform(*_CUT)
            name = f"{request['REQUEST_METHOD']} {request['PATH_INFO']}"
            self._note(Fault(kind, host, moment, name))
        if kind == CUT:
            self._mended[host] = time.monotonic() + seconds
            self._network.set_link(host, up=False)
            threading.Timer(seconds, self._network.set_link, [host], {"up": True}).start()
        elif moment == BEFORE:
            os.kill(process, signal.SIGKILL)
        else:
            # Of a process that is dead nobody reads the answer: done, then killed.
            threading.Timer(0, os.kill, [process, signal.SIGKILL]).start()
        return moment

    def _requests(self) -> float:
        return self._random.expovariate(1 / _REQUESTS)

    def _done(self, request: dict[str, Any], answer: Callable[..., Any]) -> list[bytes]:
        """Has the store do what is asked, and notes what it wrote."""
        said: list[str] = []

        def noted(status: str, *more: Any) -> Any:
            said.append(status)
            return answer(status, *more)

        found = list(self._app(request, noted))
        if request["REQUEST_METHOD"] == "PUT" and said[0].startswith("200"):
            by = request.get("HTTP_USER_AGENT", "").rpartition("app/")[2].split()[0]
            self._note(Write(request["PATH_INFO"].lstrip("/"), by))
        return found

    def _note(self, what: Write | Fault) -> None:
        line = {type(what).__name__: what._asdict()}
        os.write(self._log, f"{json.dumps(line)}\n".encode())


def _dropped(request: dict[str, Any], answer: Callable[..., Any]) -> list[bytes]:
    """Ends the connection without a word."""
    request["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    answer("500 Dropped", [])
    return []


def serve(network: Network, gate: Callable[[Any], Gate], ready: int) -> None:
    """Serves S3's protocol until the process is killed.

    Args:
        network: Where the hosts are.
        gate: Puts a gate before the store.
        ready: File descriptor that the port is written to.
    """
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    app = gate(DomainDispatcherApplication(create_backend_app))
    everywhere = "0.0.0.0"  # Of a namespace, or all the addresses of the loopback.
    server = make_server(everywhere, 0, app, threaded=True)
    os.write(ready, f"{server.server_port}\n".encode())
    server.serve_forever()


def read_log(log: Path) -> tuple[list[Write], list[Fault]]:
    """The writes and the faults of a log, in order."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    writes = [Write(**line["Write"]) for line in lines if "Write" in line]
    return writes, [Fault(**line["Fault"]) for line in lines if "Fault" in line]
