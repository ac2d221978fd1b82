"""Opinion clauses: one holder, one aspect, one opinion word, perhaps negated or graded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from random import Random

from examples.bundled.chance import Item, happens, ranked
from examples.bundled.markup import gold, with_article
from examples.bundled.sentiment_words import (
    ADJECTIVES,
    DIMINISHERS,
    DOMAINS,
    EFFECTS,
    FACT_SLOTS,
    INTENSIFIERS,
    NEGATORS,
    NEUTRAL_ADJECTIVES,
    NOUN_DEGREES,
    NOUNS,
    VERB_DEGREES,
    VERBS,
    VERDICT_ADVERBS,
    Domain,
)

_DIDNT = gold("didn't")
_AFTER_VERB = ("a little", "very much", "immensely", "enormously", "somewhat")


class Modifier(Enum):
    """What a clause does to its opinion word; ``TWICE`` is a negated negation."""

    NONE = "none"
    NEGATED = "negated"
    GRADED = "graded"
    TWICE = "twice"


@dataclass(frozen=True)
class Holder:
    """Whose opinion a clause gives, as its subject and as its object."""

    subject: str
    object: str


WRITER = Holder("I", "me")


@dataclass
class Scene:
    """One review in the making: its domain, its tense, and what it has already said."""

    rng: Random
    domain: Domain = field(init=False)
    present: bool = field(init=False)
    _aspects: list[tuple[str, bool]] = field(init=False)
    _said: set[object] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        self.domain = self.rng.choice(DOMAINS)
        self.present = happens(self.rng, 0.4)
        self._aspects = [(noun, False) for noun in self.domain.singular]
        self._aspects += [(noun, True) for noun in self.domain.plural]

    def new(self, items: Sequence[Item]) -> Item:
        """Draw an item that this review has not drawn before, the earlier ones more often."""
        while (chosen := ranked(self.rng, items)) in self._said:
            pass
        self._said.add(chosen)
        return chosen

    def aspect(self, *, singular: bool = False) -> tuple[str, bool]:
        """Give an aspect that the review has not used, and whether it is plural."""
        aspects = [aspect for aspect in self._aspects if not (singular and aspect[1])]
        return self.new(aspects)

    def thing(self) -> str:
        """Name what is reviewed, once; afterwards an aspect: no review judges the thing twice."""
        things = self.domain.things
        return self.aspect(singular=True)[0] if self._said & {*things} else self.new(things)

    def be(self, plural: bool) -> str:
        """Give the form of "to be" in the tense of the review."""
        if self.present:
            return "are" if plural else "is"
        return "were" if plural else "was"

    def fact(self) -> str:
        """Give a neutral sentence about the thing, without its stop."""
        slots = {name: ranked(self.rng, values) for name, values in FACT_SLOTS.items()}
        return self.new(self.domain.facts).format(**slots)


def clause(scene: Scene, polarity: int, modifier: Modifier, holder: Holder = WRITER) -> str:
    """Write an opinion clause.

    Args:
        scene: The review it belongs to; an aspect of it is used up.
        polarity: What the whole clause says: 0 negative, 1 positive. The opinion word of a
            negated clause has the other polarity.
        modifier: What is done to the opinion word.
        holder: Who feels it; clauses with an adjective or a noun may not name the holder.

    Returns:
        The clause in lower case without stop, its deciding words marked.
    """
    if modifier is Modifier.TWICE:
        inner = clause(scene, 1 - polarity, Modifier.NEGATED, holder)
        return f"{_denial(scene, holder)} {inner}"
    if modifier is Modifier.NEGATED and happens(scene.rng, 0.12):
        inner = clause(scene, 1 - polarity, Modifier.NONE, holder)
        return f"{_denial(scene, holder)} {inner}"
    kinds = (_with_adjective, _with_verb, _with_effect, _with_noun)
    kind = scene.rng.choices(kinds, weights=(55, 18, 15, 12))[0]
    return kind(scene, polarity, modifier, holder)


def feeling(scene: Scene, polarity: int, modifier: Modifier, holder: Holder) -> str:
    """Write an opinion clause that names its holder: "my aunt *loved the bread"."""
    kind = _with_verb if happens(scene.rng, 0.6) else _with_effect
    return kind(scene, polarity, modifier, holder)


def noun_phrase(scene: Scene, polarity: int) -> str:
    """Write an aspect with its adjective: "the *clumsy plot"."""
    return f"the {gold(scene.new(ADJECTIVES[polarity]))} {scene.aspect()[0]}"


def _denial(scene: Scene, holder: Holder) -> str:
    """Open a clause whose negation stands outside of it."""
    who = holder.subject
    openings = (
        f"{who} would {gold('not')} say that",
        f"it is {gold('not')} true that",
        f"{gold('nobody')} can claim that",
        f"{who} could {gold('never')} claim that",
        f"it would be {gold('wrong')} to say that",
    )
    return ranked(scene.rng, openings)


def _with_adjective(scene: Scene, polarity: int, modifier: Modifier, holder: Holder) -> str:
    if modifier is Modifier.NEGATED:
        return _negated_adjective(scene, 1 - polarity, holder)
    noun, plural = scene.aspect()
    quality = _quality(scene, polarity, graded=modifier is Modifier.GRADED)
    frames = [
        f"the {noun} {scene.be(plural)} {quality}",
        f"the {noun} seemed {quality}",
        f"{holder.subject} found the {noun} {quality}",
        f"the {noun} proved {quality}",
        f"the {noun} turned out {quality}",
        f"the {noun} struck {holder.object} as {quality}",
    ]
    return ranked(scene.rng, frames)


def _quality(scene: Scene, polarity: int, *, graded: bool) -> str:
    """Write an adjective, or a degree word and an adjective, or a verdict on a neutral one."""
    rng = scene.rng
    if not graded:
        return gold(scene.new(ADJECTIVES[polarity]))
    if happens(rng, 0.35):
        verdict = gold(scene.new(VERDICT_ADVERBS[polarity]))
        return f"{verdict} {ranked(rng, NEUTRAL_ADJECTIVES)}"
    degree = ranked(rng, INTENSIFIERS if happens(rng, 0.6) else DIMINISHERS)
    return gold(f"{degree} {scene.new(ADJECTIVES[polarity])}")


def _negated_adjective(scene: Scene, word_polarity: int, holder: Holder) -> str:
    rng = scene.rng
    noun, plural = scene.aspect()
    word = gold(scene.new(ADJECTIVES[word_polarity]))
    be, who = scene.be(plural), holder.subject
    isnt = gold(be + "n't")
    frames = [
        f"the {noun} {be} {gold(ranked(rng, NEGATORS))} {word}",
        f"the {noun} {be} {gold(ranked(rng, NEGATORS))} {word}",
        f"the {noun} {isnt} {word}",
        f"{who} did {gold('not')} find the {noun} {word}",
        f"the {noun} {_DIDNT} seem {word}",
        f"{gold('nobody')} could call the {noun} {word}",
        f"there is {gold('nothing')} {word} about the {noun}",
        f"{who} would {gold('not')} call the {noun} {word}",
    ]
    return ranked(rng, frames)


def _with_verb(scene: Scene, polarity: int, modifier: Modifier, holder: Holder) -> str:
    rng, who = scene.rng, holder.subject
    noun = scene.aspect()[0]
    negated = modifier is Modifier.NEGATED
    base, past = scene.new(VERBS[polarity ^ negated])
    if negated:
        frames = (
            f"{who} did {gold('not')} {gold(base)} the {noun}",
            f"{who} {gold('never')} {gold(past)} the {noun}",
            f"{who} {_DIDNT} {gold(base)} the {noun}",
            f"{who} could {gold('not')} {gold(base)} the {noun}",
        )
        return ranked(rng, frames)
    if modifier is Modifier.GRADED:
        if happens(rng, 0.3):
            return f"{who} {gold(past)} the {noun} {gold(rng.choice(_AFTER_VERB))}"
        return f"{who} {gold(ranked(rng, VERB_DEGREES))} {gold(past)} the {noun}"
    return f"{who} {gold(past)} the {noun}"


def _with_effect(scene: Scene, polarity: int, modifier: Modifier, holder: Holder) -> str:
    rng, whom = scene.rng, holder.object
    noun = scene.aspect()[0]
    negated = modifier is Modifier.NEGATED
    word_polarity = polarity ^ negated
    base, past = scene.new(EFFECTS[word_polarity])
    if negated:
        frames = [
            f"the {noun} did {gold('not')} {gold(base)} {whom}",
            f"the {noun} {gold('never')} {gold(past)} {whom}",
            f"the {noun} {_DIDNT} {gold(base)} {whom}",
        ]
        # Things can fail to please; nobody says that they failed to bore.
        if word_polarity == 1:
            frames.insert(1, f"the {noun} {gold('failed')} to {gold(base)} {whom}")
        return ranked(rng, frames)
    if modifier is Modifier.GRADED:
        return f"the {noun} {gold(ranked(rng, VERB_DEGREES))} {gold(past)} {whom}"
    return f"the {noun} {gold(past)} {whom}"


def _with_noun(scene: Scene, polarity: int, modifier: Modifier, holder: Holder) -> str:
    """Judge the thing as a whole, or an aspect of it once the thing has had its judgement."""
    rng = scene.rng
    thing = scene.thing()
    be = scene.be(plural=False)
    if modifier is Modifier.NEGATED:
        word = scene.new(NOUNS[1 - polarity])
        isnt = gold(be + "n't")
        frames = (
            f"the {thing} {be} {gold('no')} {gold(word)}",
            f"the {thing} {isnt} {with_article(gold(word))}",
            f"the {thing} {be} {gold('hardly')} {with_article(gold(word))}",
            f"{holder.subject} would {gold('not')} call the {thing} {with_article(gold(word))}",
        )
        return ranked(rng, frames)
    word = gold(scene.new(NOUNS[polarity]))
    if modifier is Modifier.GRADED:
        word = f"{gold(ranked(rng, NOUN_DEGREES))} {word}"
    return f"the {thing} {be} {with_article(word)}"
