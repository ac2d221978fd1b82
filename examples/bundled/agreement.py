"""A synthetic corpus of subject-verb agreement with attractors, for masked language models.

Every sentence hides one present (or past) verb whose number the subject decides. An attractor is
another noun, of the same number or of the other one, that stands near: between the subject and
the verb, or in the clause before. The structures are

- ``simple``: "the old keys [MASK] rusty" (no attractor);
- ``prepositional``: "the keys near the cabinet [MASK] rusty";
- ``object_relative``: "the keys (that) the farmers own [MASK] rusty";
- ``subject_relative``: "the pilots that know the farmer [MASK] tired";
- ``sentential_complement``: "the pilots say that the farmer [MASK] tired".

Determiners never show number. Verbs of embedded clauses agree with their own subjects and stand
half of the time in the past, where they show no number either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Literal

from examples.bundled.agreement_words import (
    ADVERBS,
    CLOSINGS,
    COPULAS,
    DETERMINERS,
    OPENINGS,
    PEOPLE,
    PERFECT,
    PERSON_ADJECTIVES,
    PERSON_EVENTS,
    PERSON_STATES,
    PERSON_TO_PERSON,
    PERSON_TO_THING,
    PERSON_VERBS,
    PLACES,
    SAYING,
    THING_ADJECTIVES,
    THING_EVENTS,
    THING_STATES,
    THING_VERBS,
    THINGS,
    Forms,
)
from examples.bundled.chance import happens, ranked

MASK = "[MASK]"
NUMBERS: tuple[Literal["singular"], Literal["plural"]] = ("singular", "plural")
Number = Literal["singular", "plural"]

_MAX_TRIES = 1000


@dataclass(frozen=True)
class AgreementExample:
    """One sentence. All positions count the words of ``text.split()`` from 0.

    Attributes:
        id: ``agreement-SEED-NUMBER``, unique over seeds.
        text: Lower-case words and a full stop, separated by single spaces, with one ``[MASK]``.
        good: The form of the verb that agrees with the subject.
        bad: The other form of the same verb.
        subject_index: Position of the subject's noun.
        attractor_index: Position of the attractor's noun, ``None`` where there is none.
        target_index: Position of ``[MASK]``.
        subject_number: "singular" or "plural".
        attractor_number: "singular" or "plural", ``None`` where there is no attractor.
        structure: One of ``STRUCTURES``.
    """

    id: str
    text: str
    good: str
    bad: str
    subject_index: int
    attractor_index: int | None
    target_index: int
    subject_number: Number
    attractor_number: Number | None
    structure: str


@dataclass(frozen=True)
class _Noun:
    """A noun phrase: its words, the noun the last of them, and both forms of the noun."""

    words: tuple[str, ...]
    forms: Forms


@dataclass(frozen=True)
class _Sentence:
    """Words up to the verb, and where the nouns stand among them."""

    words: tuple[str, ...]
    subject: int
    attractor: int | None


def generate(n: int, seed: int) -> list[AgreementExample]:
    """Write ``n`` different sentences.

    Subject numbers, attractor numbers and structures take turns, so that the first
    ``4 * len(STRUCTURES) * k`` sentences hold every combination ``k`` times. A longer list begins
    with the shorter ones of the same seed.

    Args:
        n: How many, 0 or more.
        seed: The same seed gives the same sentences.

    Returns:
        Sentences with different ids and texts.

    Raises:
        ValueError: ``n`` is negative.
        RuntimeError: No further new text was found: ``n`` is too large for the templates.
    """
    if n < 0:
        raise ValueError(f"n must not be negative, got {n}")
    rng = Random(f"agreement-{seed}")
    seen: set[str] = set()
    examples: list[AgreementExample] = []
    for number in range(n):
        example = _new_example(rng, number, f"agreement-{seed}-{number:06d}", seen)
        seen.add(example.text)
        examples.append(example)
    return examples


def _new_example(rng: Random, turn: int, name: str, seen: set[str]) -> AgreementExample:
    subject_number, attractor_number = turn % 2, turn // 2 % 2
    structure = tuple(STRUCTURES)[turn // 4 % len(STRUCTURES)]
    for _ in range(_MAX_TRIES):
        about_people = structure == "subject_relative" or happens(rng, 0.5)
        subject = _noun(rng, about_people, subject_number)
        start = STRUCTURES[structure](rng, subject, about_people, attractor_number)
        forms, rest = _predicate(rng, about_people)
        before, after = rest.split(MASK)
        words = (*start.words, *before.split(), MASK, *after.split(), ".")
        text = " ".join(words)
        if text not in seen:
            return AgreementExample(
                id=name,
                text=text,
                good=forms[subject_number],
                bad=forms[1 - subject_number],
                subject_index=start.subject,
                attractor_index=start.attractor,
                target_index=words.index(MASK),
                subject_number=NUMBERS[subject_number],
                attractor_number=None if start.attractor is None else NUMBERS[attractor_number],
                structure=structure,
            )
    raise RuntimeError(f"no new {structure} sentence in {_MAX_TRIES} tries")


def _noun(rng: Random, person: bool, number: int) -> _Noun:
    words = [rng.choice(DETERMINERS)]
    if happens(rng, 0.35):
        words.append(ranked(rng, PERSON_ADJECTIVES if person else THING_ADJECTIVES))
    forms = ranked(rng, PEOPLE if person else THINGS)
    return _Noun((*words, forms[number]), forms)


def _other_noun(rng: Random, person: bool, number: int, subject: _Noun) -> _Noun:
    """Draw an attractor, which is never the subject's own noun."""
    while (other := _noun(rng, person, number)).forms == subject.forms:
        pass
    return other


def _predicate(rng: Random, person: bool) -> tuple[Forms, str]:
    """Choose the verb, and write everything from the subject's end on but the full stop."""
    closing = f" {ranked(rng, CLOSINGS)}" if happens(rng, 0.5) else ""
    kind = rng.choices(("copula", "perfect", "verb"), weights=(50, 15, 35))[0]
    if kind == "copula":
        state = ranked(rng, PERSON_STATES if person else THING_STATES)
        degree = "very " if happens(rng, 0.25) else ""
        return ranked(rng, COPULAS), f"{MASK} {degree}{state}{closing}"
    if kind == "perfect":
        event = ranked(rng, PERSON_EVENTS if person else THING_EVENTS)
        return PERFECT, f"{MASK} {event}{closing}"
    adverb = f"{ranked(rng, ADVERBS)} " if happens(rng, 0.3) else ""
    closing = closing or f" {ranked(rng, CLOSINGS)}"
    return ranked(rng, PERSON_VERBS if person else THING_VERBS), f"{adverb}{MASK}{closing}"


def _opening(rng: Random) -> tuple[str, ...]:
    return (*ranked(rng, OPENINGS).split(), ",") if happens(rng, 0.2) else ()


def _embedded(rng: Random, verbs: tuple[tuple[str, str, str], ...], number: int) -> str:
    """Choose a verb in the form for a subject of this number, or in the past."""
    return ranked(rng, verbs)[2 if happens(rng, 0.5) else number]


def _simple(rng: Random, subject: _Noun, _person: bool, _number: int) -> _Sentence:
    words = _opening(rng) + subject.words
    return _Sentence(words, len(words) - 1, None)


def _prepositional(rng: Random, subject: _Noun, _person: bool, number: int) -> _Sentence:
    head = _opening(rng) + subject.words
    other = _other_noun(rng, happens(rng, 0.5), number, subject)
    words = (*head, *ranked(rng, PLACES).split(), *other.words)
    return _Sentence(words, len(head) - 1, len(words) - 1)


def _object_relative(rng: Random, subject: _Noun, person: bool, number: int) -> _Sentence:
    head = _opening(rng) + subject.words
    other = _other_noun(rng, True, number, subject)
    middle = (*head, *(("that",) if happens(rng, 0.6) else ()), *other.words)
    verb = _embedded(rng, PERSON_TO_PERSON if person else PERSON_TO_THING, number)
    return _Sentence((*middle, verb), len(head) - 1, len(middle) - 1)


def _subject_relative(rng: Random, subject: _Noun, _person: bool, number: int) -> _Sentence:
    head = _opening(rng) + subject.words
    towards_person = happens(rng, 0.5)
    verbs = PERSON_TO_PERSON if towards_person else PERSON_TO_THING
    other = _other_noun(rng, towards_person, number, subject)
    number_of_subject = subject.forms.index(subject.words[-1])
    words = (*head, "that", _embedded(rng, verbs, number_of_subject), *other.words)
    return _Sentence(words, len(head) - 1, len(words) - 1)


def _sentential_complement(rng: Random, subject: _Noun, _person: bool, number: int) -> _Sentence:
    head = _opening(rng) + _other_noun(rng, True, number, subject).words
    link = ("that",) if happens(rng, 0.8) else ()
    words = (*head, _embedded(rng, SAYING, number), *link, *subject.words)
    return _Sentence(words, len(words) - 1, len(head) - 1)


STRUCTURES: dict[str, Callable[[Random, _Noun, bool, int], _Sentence]] = {
    "simple": _simple,
    "prepositional": _prepositional,
    "object_relative": _object_relative,
    "subject_relative": _subject_relative,
    "sentential_complement": _sentential_complement,
}
