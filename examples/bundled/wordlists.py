"""How word lists are written down."""

from __future__ import annotations


def listed(words: str) -> tuple[str, ...]:
    """Read a list of words separated by white space, which may run over several lines."""
    return tuple(words.split())
