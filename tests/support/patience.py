"""How long a test waits for what has to happen. How long that takes is never what is tested."""

import time
from collections.abc import Callable

# Seconds: a way out if it never does, however much else the machine has to do.
HANG = 1800.0


def until(condition: Callable[[], object]) -> None:
    """Waits until something is so."""
    end = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)
