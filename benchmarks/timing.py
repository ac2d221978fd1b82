"""Timing things against each other on machines that are noisy."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

ROUNDS = 5


@dataclass(frozen=True)
class Timing:
    """CPU seconds of each round, by name; the rounds were run in turn."""

    seconds: Mapping[str, list[float]]

    def median(self, name: str) -> float:
        """Median CPU seconds of one of them."""
        return median(self.seconds[name])

    def ratio(self, name: str, to: str) -> float:
        """Median over rounds of one's time over another's in the same round."""
        pairs = zip(self.seconds[name], self.seconds[to], strict=True)
        return median(a / b for a, b in pairs)


def in_turn(work: Mapping[str, Callable[[], object]], rounds: int = ROUNDS) -> Timing:
    """Times several things in turn: A B C, A B C, ..., after one round to warm up.

    CPU time of the whole process is taken, so that other processes don't count.
    """
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(rounds + 1):
        for name, call in work.items():
            start = time.process_time()
            call()
            if turn:
                seconds[name].append(time.process_time() - start)
    return Timing(seconds)
