"""Scores that others computed for a row, and whether they are of the tokens that an instance has.

Nothing is guessed: whatever does not fit says how, and the instance has no scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from attribeam.transforms.inputs.batch import Instance

Floats = NDArray[np.float64]
GivenUnit = Literal["token", "word", "span"]


class UnalignedError(ValueError):
    """Scores that are not of an instance's tokens; the message says how they differ."""


@dataclass(frozen=True)
class Given:
    """Scores that were given for a row of a corpus, or for one of its instances.

    Attributes:
        scores: A score for each unit.
        unit: What they are of: tokens of the model's, words, or spans of characters of the text.
        instance_id: The window or question of the row that they are of; None for the whole row.
        tokens: The tokens or words as whoever gave the scores had them; None if unknown.
        input_ids: Vocabulary ids of the tokens, perhaps with padding after them; None if unknown.
        spans: First and end character (exclusive) of each span.
        target: Class that they explain; None where that isn't said.
        problem: What was wrong with them when they were read; they fit nothing then.
        delta: What they miss the difference of outputs by, of an additive method; None if unknown.
    """

    scores: Sequence[float]
    unit: GivenUnit = "token"
    instance_id: str | None = None
    tokens: Sequence[str] | None = None
    input_ids: Sequence[int] | None = None
    spans: Sequence[tuple[int, int]] | None = None
    target: int | None = None
    problem: str | None = None
    delta: float | None = None


def given_for(instance: Instance, method: str) -> Given:
    """The scores that were given for an instance under a method.

    Raises:
        UnalignedError: If there are none, or several, or those of the whole text of a window.
    """
    every: Sequence[Given] = instance.given.get(method, ())
    own = [given for given in every if given.instance_id == instance.instance_id]
    whole = [given for given in every if given.instance_id is None]
    if not own and whole and instance.window is not None:
        raise UnalignedError("the scores are of the whole text, and this is a window of it")
    if not own and whole and instance.question is not None:
        raise UnalignedError("the scores are of the row, which is asked several questions")
    found = own or whole
    if len(found) != 1:
        what = "no scores were given" if not found else f"{len(found)} sets of scores were given"
        raise UnalignedError(f"{what} for it")
    if found[0].problem is not None:
        raise UnalignedError(found[0].problem)
    return found[0]


def aligned(instance: Instance, given: Given) -> Floats:
    """The given scores as those of an instance's tokens, [T].

    A token of a word or a span has its score; special tokens that were given none have 0.

    Raises:
        UnalignedError: If they are of other tokens, words or characters.
    """
    by_unit = {"token": _of_tokens, "word": _of_words, "span": _of_spans}
    return by_unit[given.unit](instance, given)


def _of_tokens(instance: Instance, given: Given) -> Floats:
    scores = np.asarray(given.scores, np.float64)
    if given.input_ids is not None:
        scores = _without_padding(instance, given.input_ids, scores)
    plain = np.flatnonzero(~instance.special)
    if len(scores) not in (len(instance), len(plain)):
        without = f" ({len(plain)} without special ones)" if len(plain) < len(instance) else ""
        raise UnalignedError(
            f"has {len(scores)} scores, the text has {len(instance)} tokens{without}"
        )
    at = np.arange(len(instance)) if len(scores) == len(instance) else plain
    if given.tokens is not None:
        _check_named("token", [instance.tokens[position] for position in at], given.tokens)
    values = np.zeros(len(instance))
    values[at] = scores
    return values


def _without_padding(instance: Instance, ids: Sequence[int], scores: Floats) -> Floats:
    """The scores of the tokens that are no padding: what stands after the instance's own."""
    own = instance.input_ids.tolist()
    if len(ids) != len(scores):
        raise UnalignedError(f"has {len(scores)} scores of {len(ids)} tokens")
    after = {*ids[len(own) :]}
    if [*ids[: len(own)]] != own or len(after) > 1:
        raise UnalignedError("its input_ids are those of another text, or of another tokenizer")
    return scores[: len(own)]


def _of_words(instance: Instance, given: Given) -> Floats:
    keys = [
        (int(segment), int(word))
        for segment, word in zip(instance.segment, instance.word_ids, strict=True)
    ]
    words = [key for key in dict.fromkeys(keys) if key[1] >= 0]
    more = len(given.scores) - len(words)
    # Of a text that was cut, words are missing at its end.
    if more and not (more > 0 and instance.truncated and instance.text_pair is None):
        raise UnalignedError(f"has {len(given.scores)} scores, the text has {len(words)} words")
    if given.tokens is not None:
        if len(given.tokens) != len(given.scores):
            raise UnalignedError(
                f"has {len(given.scores)} scores of {len(given.tokens)} words of its own"
            )
        if instance.text is not None:
            named = [_word(instance, keys, word) for word in words]
            _check_named("word", named, given.tokens[: len(named)])
    by_word = dict(zip(words, map(float, given.scores), strict=False))
    return np.array([by_word.get(key, 0.0) for key in keys])


def _word(instance: Instance, keys: Sequence[tuple[int, int]], word: tuple[int, int]) -> str:
    """A word as it is written."""
    at = [position for position, key in enumerate(keys) if key == word]
    text = instance.text_pair if word[0] else instance.text
    start, end = instance.char_start[at].min(), instance.char_end[at].max()
    return (text or "")[start:end].strip()


def _of_spans(instance: Instance, given: Given) -> Floats:
    spans = given.spans or ()
    if len(spans) != len(given.scores):
        raise UnalignedError(f"has {len(given.scores)} scores of {len(spans)} spans")
    if instance.text is None:
        raise UnalignedError("spans of characters are of texts, and this row has none")
    last = max((end for _, end in spans), default=0)
    if last > len(instance.text) or any(not 0 <= start < end for start, end in spans):
        raise UnalignedError(
            f"has a span that is none of the text's {len(instance.text)} characters"
        )
    values = np.zeros(len(instance))
    first = (~instance.special) & (instance.segment == 0)
    for position in np.flatnonzero(first):
        start, end = instance.char_start[position], instance.char_end[position]
        own = {number for number, (a, b) in enumerate(spans) if a < end and b > start}
        if len(own) > 1:
            raise UnalignedError(
                f"the token {instance.tokens[position]!r} (characters {start} to {end}) lies in "
                f"{len(own)} spans"
            )
        values[position] = sum(given.scores[number] for number in own)
    return values


def _check_named(what: str, own: Sequence[str], given: Sequence[str]) -> None:
    """Checks that tokens or words are those that whoever gave the scores had."""
    if len(own) != len(given):
        raise UnalignedError(f"names {len(given)} {what}s, the text has {len(own)}")
    for number, (ours, theirs) in enumerate(zip(own, given, strict=True)):
        if ours != theirs:
            raise UnalignedError(
                f"is of other {what}s: number {number} is {theirs[:40]!r}, and {ours[:40]!r} in "
                "the text"
            )
