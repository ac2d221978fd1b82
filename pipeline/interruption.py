"""Ctrl-C, and the signals by which schedulers and terminals end a process: one sentence, at once.

A signal raises ``KeyboardInterrupt`` in the main thread, so that whoever holds a lock or a file
that is half written lets go of it. That may be in vain: libraries take it for an error of their
own, or compute for long without looking. So a thread that waits for nothing else ends the process
``GRACE`` seconds later, whatever goes on in it. That tears nothing, since files are renamed into
place whole.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

# Seconds until the process is ended from outside the main thread, and for what it must do before.
GRACE = 1.0
_LAST = 0.5
# The last isn't known on Windows.
_SIGNALS = [s for s in signal.Signals if s.name in ("SIGINT", "SIGTERM", "SIGHUP")]

_last_acts: list[Callable[[], object]] = []


@contextmanager
def lastly(act: Callable[[], object]) -> Iterator[None]:
    """While the body runs, ``act`` is done too where a signal ends the process from outside it.

    Args:
        act: What others would miss; it may be called from any thread, and again by the body's end.
    """
    _last_acts.append(act)
    try:
        yield
    finally:
        _last_acts.remove(act)


@contextmanager
def heeded(sentence: str) -> Iterator[None]:
    """The process ends with a sentence and status 128 + N where a signal N comes during the body.

    For a whole process, from its main thread: whatever the body raises or returns then, what comes
    after it isn't reached, and neither are threads waited for. A signal that is ignored, as under
    ``nohup``, stays so.

    Args:
        sentence: What is said on standard error.
    """
    ending = _Ending(sentence)
    ending.listen()
    try:
        yield
    finally:
        if ending.signal is not None:
            ending.leave()
        # What is left is Python's own end, in which an exception would be a traceback.
        for each in ending.heard:
            signal.signal(each, signal.SIG_DFL)


class _Ending:
    """The end of this process by a signal.

    Attributes:
        signal: The first that came; None as long as none has.
        heard: The signals that are listened to.
    """

    def __init__(self, sentence: str) -> None:
        self.signal: int | None = None
        self.heard: list[int] = []
        self._sentence = sentence
        self._raised = False
        self._said = threading.Lock()

    def listen(self) -> None:
        """Has the main thread interrupted by the signals, and a thread told of them."""
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        # Told by the system's own handler: Python's waits until the main thread leaves C code.
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        self.heard = [s for s in _SIGNALS if signal.getsignal(s) != signal.SIG_IGN]
        for each in self.heard:
            signal.signal(each, self._interrupt)
        threading.Thread(target=self._wait, args=(reading,), name="ending", daemon=True).start()

    def _interrupt(self, number: int, _: FrameType | None) -> None:
        self.signal = self.signal or number
        if not self._raised:  # A second one must not interrupt what the first has begun.
            self._raised = True
            _silence()
            raise KeyboardInterrupt

    def _wait(self, reading: int) -> None:
        while (number := os.read(reading, 1)[0]) not in self.heard:
            pass
        self.signal = self.signal or number
        threading.Event().wait(GRACE)
        last = threading.Thread(target=self._last, daemon=True)
        last.start()
        last.join(_LAST)
        os._exit(128 + number)

    def _last(self) -> None:
        for act in reversed(_last_acts):
            with suppress(BaseException):
                act()
        self._say()

    def _say(self) -> None:
        """Says the sentence, once, past whatever lock the stream's buffer has."""
        if self._said.acquire(blocking=False):
            with suppress(OSError):  # The terminal may be what has gone.
                os.write(2, f"{self._sentence}\n".encode())

    def leave(self) -> None:
        """Ends the process from its main thread."""
        assert self.signal is not None
        self._say()
        with suppress(BaseException):  # The reader may have gone, or never read; then see `_wait`.
            sys.stdout.flush()
        os._exit(128 + self.signal)


def _silence() -> None:
    """What anybody says from here on, of errors that are no errors, is of no interest."""
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  Until the process ends.
    logging.disable()
    sys.unraisablehook = lambda _: None
    threading.excepthook = lambda _: None
