"""Words of a text: which token is of which, and what a corpus says of words, spread over tokens."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from attribeam.transforms.inputs.batch import Ints
from attribeam.transforms.inputs.row import EncodeOptions, Row, RowError


def whitespace_words(
    texts: Sequence[str], sequence: Sequence[int], offsets: NDArray[np.int32]
) -> Ints:
    """Index of the whitespace-separated word, within its text, that each token starts in."""
    ends = [np.array([m.end() for m in re.finditer(r"\S+", text)] or [0]) for text in texts]
    words = np.full(len(sequence), -1, np.int32)
    for index, text in enumerate(texts):
        mine = np.array(sequence) == index
        # A byte-level tokenizer counts the blank before a word into it, so the last character, not
        # the first, says which word it is.
        last = np.maximum(offsets[mine, 1] - 1, offsets[mine, 0])
        found = np.searchsorted(ends[index], last, side="right")
        words[mine] = np.minimum(found, len(text.split()) - 1)
    return words


def spread_rationale(
    row: Row, word_ids: Ints, sequence: Sequence[int], options: EncodeOptions
) -> Ints | None:
    """Spreads a rationale given per whitespace word of the first text over the tokens."""
    if row.rationale is None:
        return None
    _check_words(row, "rationale", row.rationale, options)
    marks = np.zeros(len(word_ids), np.int8)
    first = (np.array(sequence) == 0) & (word_ids >= 0)
    marks[first] = np.array(row.rationale, np.int8)[word_ids[first]]
    return marks  # type: ignore[return-value]


def spread_roles(
    row: Row, word_ids: Ints, sequence: Sequence[int], options: EncodeOptions
) -> tuple[str | None, ...] | None:
    """Spreads roles given per whitespace word of the first text over the tokens."""
    if row.roles is None:
        return None
    _check_words(row, "roles", row.roles, options)
    pairs = zip(word_ids.tolist(), sequence, strict=True)
    return tuple(row.roles[word] if text == 0 and word >= 0 else None for word, text in pairs)


def _check_words(row: Row, name: str, given: Sequence[object], options: EncodeOptions) -> None:
    count = len((row.text or "").split())
    if len(given) != count:
        raise RowError(f"the {name} has {len(given)} entries for {count} words")
    if options.words != "whitespace":
        raise RowError(f"entries of the {name} are of whitespace words (--words whitespace)")
