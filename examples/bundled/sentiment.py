"""A synthetic corpus of short English reviews whose labels need more than counting words.

Every review has one deciding opinion (or two that agree), and its label is the polarity of that
opinion: 0 negative, 1 positive. Around it stand neutral facts. The structures are

- ``plain``: opinion words that mean what they say ("the soup was superb"; "not only ... but also"
  is among them, as a trap);
- ``negation``: the opinion word says the opposite of the label ("is not at all dull", "nobody
  could call it dull"), or is negated twice ("I would not say that it isn't dull");
- ``intensifier``: a degree word stands before the opinion word ("terribly charming", "a bit
  dull"), or carries the opinion itself ("needlessly plain");
- ``contrast``: a conceded opinion of the other polarity stands beside the deciding one
  ("although the plot is clumsy, the acting is superb"; "X, but Y");
- ``distractor``: the review repeats an opinion of somebody else, an expectation, or a circumstance
  with an opinion word in it, of either polarity.

In ``contrast`` and ``distractor`` both parts may be negated or graded.

The gold rationale marks, in the deciding clauses only, (1) the opinion words: adjective, verb or
noun, or the adverb of a verdict such as "needlessly plain", whose neutral adjective is not marked;
(2) each word of their negators ("not at all", "far from", "nobody", "failed", "isn't"); (3) each
word of their degree words ("very", "a bit"). Nothing else is marked: no aspect, no connective and
no name of whose opinion it is, though these say which clause decides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from examples.bundled.chance import happens, ranked
from examples.bundled.markup import gold, muted, read
from examples.bundled.sentiment_clauses import (
    Holder,
    Modifier,
    Scene,
    clause,
    feeling,
    noun_phrase,
)
from examples.bundled.sentiment_words import ADJECTIVES, OTHERS

LABELS = ("negative", "positive")
MIN_WORDS, MAX_WORDS = 10, 30

# A template space this large gives a new text at almost every draw; many failures mean a bug.
_MAX_TRIES = 1000


@dataclass(frozen=True)
class SentimentExample:
    """One review.

    Attributes:
        id: ``sentiment-SEED-NUMBER``, unique over seeds.
        text: 10 to 30 words, separated by single spaces; punctuation hangs on the words.
        label: 0 negative, 1 positive.
        rationale: One 0 or 1 for each word of ``text.split()``; see the module for the rule.
        structure: One of ``STRUCTURES``.
    """

    id: str
    text: str
    label: int
    rationale: tuple[int, ...]
    structure: str


def generate(n: int, seed: int) -> list[SentimentExample]:
    """Write ``n`` different reviews.

    Labels alternate and structures take turns, so that the first ``2 * len(STRUCTURES) * k``
    reviews hold each label of each structure exactly ``k`` times. A longer list begins with the
    shorter ones of the same seed.

    Args:
        n: How many, 0 or more.
        seed: The same seed gives the same reviews.

    Returns:
        Reviews with different ids and texts.

    Raises:
        ValueError: ``n`` is negative.
        RuntimeError: No further new text was found: ``n`` is too large for the templates.
    """
    if n < 0:
        raise ValueError(f"n must not be negative, got {n}")
    rng = Random(f"sentiment-{seed}")
    structures = tuple(STRUCTURES)
    seen: set[str] = set()
    examples: list[SentimentExample] = []
    for number in range(n):
        label = number % 2
        structure = structures[number // 2 % len(structures)]
        text, rationale = _new_review(rng, label, structure, seen)
        seen.add(text)
        examples.append(
            SentimentExample(f"sentiment-{seed}-{number:06d}", text, label, rationale, structure)
        )
    return examples


def _new_review(
    rng: Random, label: int, structure: str, seen: set[str]
) -> tuple[str, tuple[int, ...]]:
    for _ in range(_MAX_TRIES):
        scene = Scene(rng)
        text, rationale = read(_with_facts(scene, STRUCTURES[structure](scene, label)))
        if text not in seen and MIN_WORDS <= len(rationale) <= MAX_WORDS:
            return text, rationale
    raise RuntimeError(f"no new {structure} review in {_MAX_TRIES} tries")


def _with_facts(scene: Scene, opinion: str) -> str:
    """Put neutral sentences before or after the opinion, or none."""
    before, after = happens(scene.rng, 0.4), happens(scene.rng, 0.35)
    sentences = [scene.fact()] if before else []
    sentences.append(opinion)
    if after:
        sentences.append(scene.fact())
    return " ".join(f"{sentence}." for sentence in sentences)


def _perhaps_two(scene: Scene, label: int, modifier: Modifier) -> str:
    """Write one clause, or two that agree."""
    first = clause(scene, label, modifier)
    if happens(scene.rng, 0.55):
        return first
    return f"{first}, and {clause(scene, label, modifier)}"


def _plain(scene: Scene, label: int) -> str:
    if happens(scene.rng, 0.15):
        noun, plural = scene.aspect()
        one, other = (gold(scene.new(ADJECTIVES[label])) for _ in range(2))
        return f"the {noun} {scene.be(plural)} not only {one} but also {other}"
    return _perhaps_two(scene, label, Modifier.NONE)


def _negation(scene: Scene, label: int) -> str:
    if happens(scene.rng, 0.15):
        return clause(scene, label, Modifier.TWICE)
    return _perhaps_two(scene, label, Modifier.NEGATED)


def _intensifier(scene: Scene, label: int) -> str:
    return _perhaps_two(scene, label, Modifier.GRADED)


def _any_modifier(rng: Random) -> Modifier:
    return rng.choices((Modifier.NONE, Modifier.NEGATED, Modifier.GRADED), weights=(45, 30, 25))[0]


_CONTRASTS = (
    "{conceded}, but {deciding}",
    "although {conceded}, {deciding}",
    "{deciding}, although {conceded}",
    "{conceded}. however, {deciding}",
    "even though {conceded}, {deciding}",
    "{deciding}, even if {conceded}",
    "{conceded}, yet {deciding}",
    "while {conceded}, {deciding}",
    "{deciding}, though {conceded}",
    "{conceded}; nevertheless, {deciding}",
    "I admit that {conceded}. all the same, {deciding}",
    "granted, {conceded}; {deciding}",
)
_SHORT_CONTRASTS = (
    "despite {conceded}, {deciding}",
    "{deciding} despite {conceded}",
    "for all {conceded}, {deciding}",
    "{deciding}, {conceded} notwithstanding",
)


def _contrast(scene: Scene, label: int) -> str:
    rng = scene.rng
    deciding = clause(scene, label, _any_modifier(rng))
    if happens(rng, 0.2):
        conceded, frame = noun_phrase(scene, 1 - label), ranked(rng, _SHORT_CONTRASTS)
    else:
        conceded, frame = clause(scene, 1 - label, _any_modifier(rng)), ranked(rng, _CONTRASTS)
    return frame.format(conceded=muted(conceded), deciding=deciding)


def _distractor(scene: Scene, label: int) -> str:
    rng = scene.rng
    # Mostly of the other polarity, but not always: whose opinion it is has to be read.
    polarity = 1 - label if happens(rng, 0.7) else label
    own = clause(scene, label, _any_modifier(rng))
    kinds = (_opinion_of_somebody_else, _expectation, _circumstance)
    foreign = muted(rng.choices(kinds, weights=(65, 15, 20))[0](scene, polarity))
    joined = (
        "{foreign}. {own}",
        "{foreign}; for my part, {own}",
        "{own}. {foreign}",
        "{foreign}. in my view, {own}",
        "{own}; {foreign}",
        "I told {friend} that {own}. {foreign}",
    )
    friend = rng.choice(OTHERS)[0]
    return ranked(rng, joined).format(foreign=foreign, own=own, friend=friend)


def _opinion_of_somebody_else(scene: Scene, polarity: int) -> str:
    rng = scene.rng
    name, subject, whom = ranked(rng, OTHERS)
    modifier = _any_modifier(rng)
    if happens(rng, 0.4):
        return feeling(scene, polarity, modifier, Holder(name, name))
    content = clause(scene, polarity, modifier, Holder(subject, whom))
    frames = (
        f"{name} said that {content}",
        f"{name} told me that {content}",
        f"according to {name}, {content}",
        f"{content}, or so {name} claimed",
        f"{name} insists that {content}",
    )
    return ranked(rng, frames)


def _expectation(scene: Scene, polarity: int) -> str:
    phrase = noun_phrase(scene, polarity)
    frames = (
        f"the blurb speaks of {phrase}",
        f"the advertisement had promised {phrase}",
        f"I had been told about {phrase}",
        f"some reviewers write about {phrase}",
    )
    return ranked(scene.rng, frames)


def _circumstance(scene: Scene, polarity: int) -> str:
    adjective = scene.new(ADJECTIVES[polarity])
    frames = (
        f"it was the end of a week of {adjective} weather",
        f"we talked about {adjective} holidays afterwards",
        f"that week had brought {adjective} news",
        f"we had come through {adjective} traffic",
    )
    return ranked(scene.rng, frames)


STRUCTURES: dict[str, Callable[[Scene, int], str]] = {
    "plain": _plain,
    "negation": _negation,
    "intensifier": _intensifier,
    "contrast": _contrast,
    "distractor": _distractor,
}
