"""A synthetic corpus of prompts that a language model goes on with, whose evidence is known.

- ``lookup``: "ann coin . tom ball . eva lamp . ask tom" goes on with "ball .". The evidence is the
  note that answers: its name and its thing.
- ``names``: "when ann and tom met , tom gave a coin to" goes on with "ann .". The evidence is the
  first mention of who is named once, and both of who is named twice.
- ``agreement``: "the clocks near the lamp" goes on with "are old .". The evidence is the subject;
  an attractor of the other number may stand in the way.

Sentences end with a full stop of their own, so that the parts of a prompt are its notes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from random import Random

import pyarrow as pa

NAMES = (
    *("ann", "ben", "carl", "dora", "eva", "finn", "gus", "hana"),
    *("ivan", "jane", "karl", "lena", "mona", "nils", "olga", "paul"),
)
THINGS = (
    *("coin", "ball", "lamp", "clock", "book", "key", "cup", "ring"),
    *("map", "pen", "box", "bell", "knife", "stone", "chair", "rope"),
)
PLACES = ("near", "behind", "under", "beside")
STATES = ("old", "new", "lost", "clean", "broken", "heavy")
STRUCTURES = ("lookup", "names", "agreement")
_MOST_NOTES = 5

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("continuation", pa.string(), nullable=False),
        pa.field("foil", pa.string(), nullable=False),
        pa.field("rationale", pa.list_(pa.int64()), nullable=False),
        pa.field("subset", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Note:
    """A prompt and what follows it.

    Attributes:
        id: ``notes-SEED-NUMBER``, unique over seeds.
        prompt: Lower-case words and marks, separated by single spaces.
        continuation: What follows, a blank before it.
        foil: What doesn't, of as many words.
        rationale: 1 for each word of ``prompt.split()`` that is evidence for the first word that
            follows, else 0.
        subset: One of ``STRUCTURES``.
    """

    id: str
    prompt: str
    continuation: str
    foil: str
    rationale: list[int]
    subset: str

    @property
    def text(self) -> str:
        """All of it."""
        return self.prompt + self.continuation


_Made = tuple[str, str, str, set[int]]


def _lookup(rng: Random) -> _Made:
    count = rng.randint(2, _MOST_NOTES)
    names, things = rng.sample(NAMES, count), rng.sample(THINGS, count)
    notes = [f"{name} {thing} ." for name, thing in zip(names, things, strict=True)]
    asked = rng.randrange(count)
    other = rng.choice([number for number in range(count) if number != asked])
    prompt = " ".join([*notes, f"ask {names[asked]}"])
    return prompt, f" {things[asked]} .", f" {things[other]} .", {3 * asked, 3 * asked + 1}


def _names(rng: Random) -> _Made:
    first, second = rng.sample(NAMES, 2)
    giver = rng.choice((first, second))
    receiver = second if giver == first else first
    thing = rng.choice(THINGS)
    prompt = f"when {first} and {second} met , {giver} gave the {thing} to"
    return prompt, f" {receiver} .", f" {giver} .", {1, 3, 6}


def _agreement(rng: Random) -> _Made:
    subject, near = rng.sample(THINGS, 2)
    plural, other = rng.random() < 0.5, rng.random() < 0.5
    words = ["the", _number(subject, plural=plural)]
    if rng.random() < 0.75:
        words += [rng.choice(PLACES), "the", _number(near, plural=other)]
    state = rng.choice(STATES)
    verbs = ("are", "is") if plural else ("is", "are")
    return " ".join(words), f" {verbs[0]} {state} .", f" {verbs[1]} {state} .", {1}


def _number(noun: str, *, plural: bool) -> str:
    if not plural:
        return noun
    return "knives" if noun == "knife" else f"{noun}es" if noun.endswith("x") else f"{noun}s"


_MAKE: dict[str, Callable[[Random], _Made]] = {
    "lookup": _lookup,
    "names": _names,
    "agreement": _agreement,
}


def generate(n: int, seed: int = 0) -> list[Note]:
    """Compose ``n`` prompts, of the structures in turn but for what is there already.

    Shorter corpora are what longer ones of the same seed begin with.

    Raises:
        ValueError: If there are not so many.
    """
    rng, seen, found = Random(seed), set[str](), list[Note]()
    tries = 0
    for structure in cycle(STRUCTURES):
        if len(found) == n:
            return found
        prompt, continuation, foil, evidence = _MAKE[structure](rng)
        tries += 1
        if tries > 100 * n:
            raise ValueError(f"there are no {n} different prompts")
        if prompt + continuation in seen:
            continue
        seen.add(prompt + continuation)
        marks = [int(at in evidence) for at in range(len(prompt.split()))]
        name = f"notes-{seed}-{len(found)}"
        found.append(Note(name, prompt, continuation, foil, marks, structure))
    return found


def words() -> list[str]:
    """All words and marks, in a fixed order."""
    forms = [_number(noun, plural=plural) for noun in THINGS for plural in (False, True)]
    other = ("the", "and", "when", "met", "gave", "to", "ask", "is", "are", ".", ",")
    return [*NAMES, *forms, *PLACES, *STATES, *other]
