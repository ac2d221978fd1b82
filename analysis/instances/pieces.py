"""The tokens of an instance as they stand in its text."""

from collections.abc import Iterator, Mapping
from typing import Any

SPECIAL, GLUED = 1, 2  # What is marked of a piece.


def pieces(row: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """The tokens as they stand in the text, and whether they are special or go on a word."""
    texts = (row["text"], row["text_pair"])
    end, segment, word = None, None, None
    for at, token in enumerate(row["tokens"]):
        if row["special"][at]:
            yield token, SPECIAL
            end = word = None
            continue
        start = row["char_start"][at] if row["char_start"] else None
        same = row["segment"][at] == segment
        text = texts[row["segment"][at]] if row["segment"][at] in (0, 1) else None
        if text is None or start is None:
            # A pre-tokenised corpus has no text to stand in.
            glued = same and word is not None and row["word_ids"][at] == word
            yield (token.removeprefix("##") if glued else token), GLUED * glued
        else:
            # Tokens of a part of a character share its place.
            glued = (
                same and end is not None and start <= end and not text[start : start + 1].isspace()
            )
            first = max(start, end) if glued and end is not None else start
            piece = text[first : row["char_end"][at]].strip()
            yield piece or token, GLUED * glued
            end = row["char_end"][at]
        segment, word = row["segment"][at], row["word_ids"][at]
