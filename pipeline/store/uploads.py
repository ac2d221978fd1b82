"""Writing to a store while the next shard is computed."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

# Calls that wait at most, which hold their tables in memory; a shard has some dozens.
_MOST = 64


class Uploads:
    """Calls that are made one after another, in the order in which they were given."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "uploads")
        self._waiting: deque[Future[None]] = deque()
        self._over = False

    def add(self, call: Callable[[], None]) -> None:
        """Has a call made; waits if many are waiting already.

        Raises:
            Exception: What one of the calls before has raised.
        """
        self._waiting.append(self._pool.submit(self._made, call))
        while self._waiting and (self._waiting[0].done() or len(self._waiting) > _MOST):
            self._take()

    def finish(self) -> None:
        """Waits for all calls; there can be no more of them then.

        Raises:
            Exception: What one of them has raised; those after it are not made.
        """
        try:
            while self._waiting:
                self._take()
        finally:
            self.stop()

    def stop(self) -> None:
        """Waits for the call that is under way; those after it are not made."""
        self._pool.shutdown(cancel_futures=True)

    def _made(self, call: Callable[[], None]) -> None:
        """Makes a call, unless one before has raised an error that nobody has taken yet."""
        if self._over:
            return
        try:
            call()
        except BaseException:
            self._over = True
            raise

    def _take(self) -> None:
        try:
            self._waiting.popleft().result()
        except BaseException:
            self.stop()
            raise
