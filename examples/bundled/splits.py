"""The split that a sentence belongs to, for all corpora."""

from __future__ import annotations

import hashlib
from typing import Literal

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def split_of(key: str) -> Split:
    """Give the split that a sentence belongs to, whatever corpus size or seed it comes from.

    80 % of all sentences are for training, 10 % for validation and 10 % for testing, by hash.
    """
    bucket = int.from_bytes(hashlib.sha256(key.lower().encode()).digest()[:8], "big") % 10
    return "train" if bucket < 8 else "validation" if bucket == 8 else "test"
