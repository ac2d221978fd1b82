"""Gold marks inside plain strings: ``*`` before a word says that the word decides the label.

Phrases are built from nested templates; a mark that travels inside the string cannot get out of
step with the words, whatever is put before, after or around them.
"""

from __future__ import annotations

MARK = "*"


def gold(words: str) -> str:
    """Mark every word of a phrase: ``"far from"`` becomes ``"*far *from"``."""
    return " ".join(MARK + word for word in words.split())


def muted(phrase: str) -> str:
    """Take all marks away: the phrase stays, but decides nothing."""
    return phrase.replace(MARK, "")


def with_article(phrase: str) -> str:
    """Put "a" or "an" before a phrase, by the first letter of its first word."""
    return ("an " if muted(phrase)[0] in "aeiou" else "a ") + phrase


def read(phrase: str) -> tuple[str, tuple[int, ...]]:
    """Turn a marked phrase into its text and its rationale.

    The first word, and every word after a full stop, is given a capital.

    Args:
        phrase: Words separated by white space, marked or not.

    Returns:
        The text with single spaces and no marks, and one 0 or 1 for each ``text.split()`` word.
    """
    words: list[str] = []
    rationale: list[int] = []
    for marked in phrase.split():
        word = muted(marked)
        starts_sentence = not words or words[-1].endswith(".")
        words.append(word[0].upper() + word[1:] if starts_sentence else word)
        rationale.append(int(marked.startswith(MARK)))
    return " ".join(words), tuple(rationale)
