"""Seeded choices that both corpus generators share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from random import Random
from typing import TypeVar

Item = TypeVar("Item")

# A little steeper than Zipf's law, so that the ends of short lists are rare as well: rare words
# are what a small vocabulary has to split and what a small model knows least about.
_STEEPNESS = 1.1
_OFFSET = 3.0


@cache
def _cumulative_weights(count: int) -> list[float]:
    return list(accumulate((rank + _OFFSET) ** -_STEEPNESS for rank in range(count)))


def ranked(rng: Random, items: Sequence[Item]) -> Item:
    """Draw one item, the earlier in the list the more often (a Zipf-like law)."""
    return rng.choices(items, cum_weights=_cumulative_weights(len(items)))[0]


def happens(rng: Random, probability: float) -> bool:
    """Toss a coin that comes up true with this probability."""
    return rng.random() < probability
