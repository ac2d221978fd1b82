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
    """Spreads the rationales given per whitespace word of the texts over the tokens.

    Raises:
        RowError: If one is of a text that is not there, or of another number of words.
    """
    if row.rationale is not None:
        _check_words("rationale", row.rationale, row.text, options)
    of_pair = pair_rationale(row)
    if of_pair is not None:
        _check_words("rationale_pair", of_pair, row.text_pair, options)
    if row.rationale is None and of_pair is None:
        return None
    marks = np.zeros(len(word_ids), np.int8)
    for text, given in enumerate((row.rationale, of_pair)):
        if given is not None:
            own = (np.array(sequence) == text) & (word_ids >= 0)
            marks[own] = np.array(given, np.int8)[word_ids[own]]
    return marks  # type: ignore[return-value]


def pair_rationale(row: Row) -> tuple[int, ...] | None:
    """The rationale of the second text; None without one.

    Raises:
        RowError: If there is no second text that it could be of.
    """
    if row.rationale_pair is None:
        return None
    if row.text_pair:
        return tuple(row.rationale_pair)
    if len(row.rationale_pair):
        count = len(row.rationale_pair)
        raise RowError(f"the rationale_pair has {count} entries, but the row has no second text")
    return None


def spread_roles(
    row: Row, word_ids: Ints, sequence: Sequence[int], options: EncodeOptions
) -> tuple[str | None, ...] | None:
    """Spreads roles given per whitespace word of the first text over the tokens."""
    if row.roles is None:
        return None
    _check_words("roles", row.roles, row.text, options)
    pairs = zip(word_ids.tolist(), sequence, strict=True)
    return tuple(row.roles[word] if text == 0 and word >= 0 else None for word, text in pairs)


def _check_words(
    name: str, given: Sequence[object], text: str | None, options: EncodeOptions
) -> None:
    count = len((text or "").split())
    if len(given) != count:
        raise RowError(f"the {name} has {len(given)} entries for {count} words")
    if options.words != "whitespace":
        raise RowError(f"entries of the {name} are of whitespace words (--words whitespace)")
