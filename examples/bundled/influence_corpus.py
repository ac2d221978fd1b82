"""Sentences for influence patterns (Lu et al. 2021): six subtasks, with a role for every word.

A sentence hides the word that has to agree with its subject, and holds another noun (the
attractor) that the model may fall for. The subtasks are

- ``object_relative``: "the farmers that the pilot knows [MASK] tired .";
- ``subject_relative``: "the farmers that know the pilot [MASK] tired .";
- ``sentential_complement``: "the pilot said the farmers [MASK] tired .";
- ``prepositional``: "the farmers next to the pilot [MASK] tired .";
- ``reflexive_number``: "the farmers that the pilot knows helped [MASK] .";
- ``reflexive_gender``: "the king who can help my sister will trust [MASK] .".

Patterns are compared word by word over the sentences of a subtask, so all of them have one
structure, and a word stands where its role stands. Within a subtask the forms take turns: the
number (S or P) or the gender (M or F) of the subject, then that of the attractor.

``python -m examples.bundled.influence_corpus --output FILE`` writes them. With ``--convert`` it
writes the same columns for other sentences of which only the positions of the nouns are known.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from math import prod
from pathlib import Path
from random import Random
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from examples.bundled.agreement import MASK, NUMBERS
from examples.bundled.agreement_words import PERSON_STATES, Forms
from examples.bundled.splits import split_of
from examples.bundled.wordlists import listed

GENDERS = ("masculine", "feminine")
ROLES = listed(
    "subject_determiner subject attractor_determiner attractor relativizer preposition "
    "auxiliary verb main_auxiliary main_verb target adjective punctuation "
    # Only in converted sentences.
    "complementizer modifier other"
)

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("subtask", pa.string(), nullable=False),
        pa.field("form", pa.string(), nullable=False),
        pa.field("split", pa.string()),
        pa.field("text", pa.string(), nullable=False),
        pa.field("good", pa.string(), nullable=False),
        pa.field("bad", pa.string(), nullable=False),
        pa.field("roles", pa.list_(pa.string()), nullable=False),
        pa.field("subject_index", pa.int64(), nullable=False),
        pa.field("attractor_index", pa.int64()),
        pa.field("target_index", pa.int64(), nullable=False),
        pa.field("subject_number", pa.string(), nullable=False),
        pa.field("attractor_number", pa.string()),
        pa.field("subject_gender", pa.string()),
        pa.field("attractor_gender", pa.string()),
    ]
)


@dataclass(frozen=True)
class InfluenceExample:
    """One sentence. All positions count the words of ``text.split()`` from 0.

    Attributes:
        id: ``influence-SEED-SUBTASK-NUMBER``, unique over seeds.
        subtask: One of ``SUBTASKS``; in a converted table also another name.
        form: Number or gender of the subject and of the attractor: "SP", "MF".
        split: Split that the sentence belongs to by its hash, ``None`` if converted. A model
            trained on a training split has seen no sentence of the others.
        text: Lower-case words and a full stop, separated by single spaces, with one ``[MASK]``.
        good: The word that agrees with the subject.
        bad: The word that does not.
        roles: One of ``ROLES`` for each word. No role but ``preposition`` comes twice.
        subject_index: Position of the subject's noun.
        attractor_index: Position of the attractor's noun, ``None`` where there is none.
        target_index: Position of ``[MASK]``.
        subject_number: "singular" or "plural".
        attractor_number: "singular" or "plural", ``None`` where there is no attractor.
        subject_gender: "masculine" or "feminine", ``None`` unless the gender decides.
        attractor_gender: Likewise.
    """

    id: str
    subtask: str
    form: str
    split: str | None
    text: str
    good: str
    bad: str
    roles: tuple[str, ...]
    subject_index: int
    attractor_index: int | None
    target_index: int
    subject_number: str
    attractor_number: str | None
    subject_gender: str | None = None
    attractor_gender: str | None = None


# Words and templates --------------------------------------------------------------------------

# Every list holds pairs of forms. Those of nouns and embedded verbs are singular and plural, or
# masculine and feminine; a word that does not change is its own second form.
#
# The bundled model was trained on all of these words, and its tokenizer has each of them as one
# token, so that the tokens of a subtask stand at fixed positions as well.


def _same(words: str | Iterable[str]) -> tuple[Forms, ...]:
    listing = words.split() if isinstance(words, str) else words
    return tuple((word, word) for word in listing)


# Nouns that go with "himself" and with "herself".
_EITHER_GENDER: tuple[Forms, ...] = (
    *((noun, noun + "s") for noun in listed("teacher pilot farmer doctor singer neighbour")),
    *((noun, noun + "s") for noun in listed("student painter guard")),
    ("child", "children"),
)
_PEOPLE: tuple[Forms, ...] = (*_EITHER_GENDER, ("woman", "women"), ("man", "men"))
_COUPLES: tuple[Forms, ...] = (
    ("man", "woman"),
    ("actor", "actress"),
    ("policeman", "policewoman"),
    ("duke", "duchess"),
    ("host", "hostess"),
    ("boy", "girl"),
    ("brother", "sister"),
    ("king", "queen"),
    ("uncle", "aunt"),
)

_COPULAS: tuple[Forms, ...] = (("is", "are"),)
_REFLEXIVES: tuple[Forms, ...] = (("himself", "themselves"), ("herself", "themselves"))
_SINGULAR_REFLEXIVES: tuple[Forms, ...] = (("himself", "herself"),)


@dataclass(frozen=True)
class _Slot:
    """A word of a template: its role, what may stand there, and the noun it agrees with."""

    role: str
    words: tuple[Forms, ...]
    agrees_with: Literal["subject", "attractor"] = "subject"


@dataclass(frozen=True)
class _Template:
    """The structure of a subtask.

    Attributes:
        letters: Of the two values of what the target shows: "SP" or "MF".
        nouns: The subject and the attractor are two different ones of these.
        targets: Good and bad word, or the reverse, by the subject; they take turns.
        slots: All words in their order; those of the nouns and the target are empty.
    """

    letters: str
    nouns: tuple[Forms, ...]
    targets: tuple[Forms, ...]
    slots: tuple[_Slot, ...]


_SUBJECT = (_Slot("subject_determiner", _same("the")), _Slot("subject", ()))
_ATTRACTOR = (_Slot("attractor_determiner", _same("the")), _Slot("attractor", ()))
_THAT = _Slot("relativizer", _same("that"))
_KNOWN: tuple[Forms, ...] = (("knows", "know"), ("likes", "like"))
_TARGET = _Slot("target", ())
_STOP = _Slot("punctuation", _same("."))
_STATE = (_TARGET, _Slot("adjective", _same(PERSON_STATES)), _STOP)
_OBJECT_RELATIVE = (*_SUBJECT, _THAT, *_ATTRACTOR, _Slot("verb", _KNOWN, "attractor"))
_SELF_VERBS = _same("helped admired watched trusted remembered")

_ANY_DETERMINER = _same("the my our")
_AUXILIARIES = _same("can could will would")
_BASES = _same("help like watch trust admire remember")

_TEMPLATES: dict[str, _Template] = {
    "object_relative": _Template("SP", _PEOPLE, _COPULAS, (*_OBJECT_RELATIVE, *_STATE)),
    "subject_relative": _Template(
        "SP", _PEOPLE, _COPULAS, (*_SUBJECT, _THAT, _Slot("verb", _KNOWN), *_ATTRACTOR, *_STATE)
    ),
    "sentential_complement": _Template(
        *("SP", _PEOPLE, _COPULAS),
        (*_ATTRACTOR, _Slot("verb", _same("said thought knew")), *_SUBJECT, *_STATE),
    ),
    "prepositional": _Template(
        *("SP", _PEOPLE, _COPULAS),
        (
            *_SUBJECT,
            *(_Slot("preposition", forms) for forms in (_same("next"), _same("to"))),
            *_ATTRACTOR,
            *_STATE,
        ),
    ),
    "reflexive_number": _Template(
        *("SP", _EITHER_GENDER, _REFLEXIVES),
        (*_OBJECT_RELATIVE, _Slot("main_verb", _SELF_VERBS), _TARGET, _STOP),
    ),
    "reflexive_gender": _Template(
        *("MF", _COUPLES, _SINGULAR_REFLEXIVES),
        (
            *(_Slot("subject_determiner", _ANY_DETERMINER), _SUBJECT[1]),
            _Slot("relativizer", _same("who that")),
            *(_Slot("auxiliary", _AUXILIARIES), _Slot("verb", _BASES)),
            *(_Slot("attractor_determiner", _ANY_DETERMINER), _ATTRACTOR[1]),
            *(_Slot("main_auxiliary", _AUXILIARIES), _Slot("main_verb", _BASES)),
            *(_TARGET, _STOP),
        ),
    ),
}
SUBTASKS = tuple(_TEMPLATES)
VERBS, REFLEXIVES = SUBTASKS[:4], SUBTASKS[4:]  # What the target is.


def vocabulary(subtask: str) -> frozenset[str]:
    """Give all words that a subtask's sentences and targets may hold.

    Sentences have one length in tokens where each of these is one token.
    """
    template = _TEMPLATES[subtask]
    groups = (template.nouns, template.targets, *(slot.words for slot in template.slots))
    return frozenset(word for group in groups for forms in group for word in forms)


# Generating -----------------------------------------------------------------------------------

# Which form of the subject and which of the attractor.
_FORMS = ((0, 0), (0, 1), (1, 0), (1, 1))


def generate(
    sentences: int, seed: int, subtasks: Sequence[str] = SUBTASKS
) -> list[InfluenceExample]:
    """Write different sentences of each subtask.

    Forms take turns, so that a multiple of four holds each of them equally often; a multiple of
    eight does so with "himself" and "herself". A longer list of a subtask begins with the shorter
    ones of the same seed, whatever other subtasks are asked for.

    Args:
        sentences: How many of each subtask, 0 or more.
        seed: The same seed gives the same sentences.
        subtasks: Some of ``SUBTASKS``.

    Returns:
        Sentences with different ids and texts, subtask by subtask.

    Raises:
        ValueError: ``sentences`` is negative, or more than a subtask's words can give.
    """
    if sentences < 0:
        raise ValueError(f"sentences must not be negative, got {sentences}")
    return [
        example for subtask in subtasks for example in _of_subtask(subtask, sentences, f"{seed}")
    ]


def _of_subtask(subtask: str, count: int, seed: str) -> Iterator[InfluenceExample]:
    template = _TEMPLATES[subtask]
    texts = [
        _texts(template, form, Random(f"influence-{seed}-{subtask}-{form}"), -(-(count - at) // 4))
        for at, form in enumerate(_FORMS)
    ]
    for turn in range(count):
        form = _FORMS[turn % 4]
        targets = template.targets[turn // 4 % len(template.targets)]
        name = f"influence-{seed}-{subtask}-{turn:06d}"
        yield _example(name, subtask, form, targets, next(texts[turn % 4]))


def _texts(
    template: _Template, form: tuple[int, int], rng: Random, count: int
) -> Iterator[tuple[str, ...]]:
    """Draw this many different fillings of a template, as words."""
    pairs = list(permutations(template.nouns, 2))
    axes = [len(slot.words) or 1 for slot in template.slots]
    total = len(pairs) * prod(axes)
    if count > total:
        raise ValueError(f"there are {total} sentences of a form, {count} were asked for")
    drawn: set[int] = set()
    while len(drawn) < count:
        number = rng.randrange(total)
        if number not in drawn:
            drawn.add(number)
            rest, pair = divmod(number, len(pairs))
            yield _filled(template, form, pairs[pair], rest)


def _filled(
    template: _Template, form: tuple[int, int], nouns: tuple[Forms, Forms], rest: int
) -> tuple[str, ...]:
    """Fill the slots; ``rest`` numbers the combinations of their words."""
    value = dict(zip(("subject", "attractor"), form, strict=True))
    noun = dict(zip(("subject", "attractor"), nouns, strict=True))
    words: list[str] = []
    for slot in template.slots:
        if slot.role == "target":
            words.append(MASK)
        elif slot.role in noun:
            words.append(noun[slot.role][value[slot.role]])
        else:
            rest, choice = divmod(rest, len(slot.words))
            words.append(slot.words[choice][value[slot.agrees_with]])
    return tuple(words)


def _example(
    name: str, subtask: str, form: tuple[int, int], targets: Forms, words: tuple[str, ...]
) -> InfluenceExample:
    template = _TEMPLATES[subtask]
    roles = tuple(slot.role for slot in template.slots)
    text = " ".join(words)
    by_number = template.letters == "SP"
    numbers = [NUMBERS[value] for value in form] if by_number else ["singular", "singular"]
    genders = [None, None] if by_number else [GENDERS[value] for value in form]
    return InfluenceExample(
        id=name,
        subtask=subtask,
        form="".join(template.letters[value] for value in form),
        split=split_of(text),
        text=text,
        good=targets[form[0]],
        bad=targets[1 - form[0]],
        roles=roles,
        subject_index=roles.index("subject"),
        attractor_index=roles.index("attractor"),
        target_index=roles.index("target"),
        subject_number=numbers[0],
        attractor_number=numbers[1],
        subject_gender=genders[0],
        attractor_gender=genders[1],
    )


# Converting -----------------------------------------------------------------------------------

_NEEDED = listed(
    "id text good bad target_index subject_index attractor_index subject_number attractor_number"
)
# Names that the subtasks go by elsewhere.
_TEMPLATE_SUBTASKS = {
    "obj_rel_across_anim": "object_relative",
    "subj_rel": "subject_relative",
    "sent_comp": "sentential_complement",
    "prep_anim": "prepositional",
    "reflexives_across": "reflexive_number",
}
_DETERMINERS = frozenset(listed("the a an some any no this these my your his her its our their"))
_RELATIVIZERS = frozenset(listed("that who which whom"))
_PREPOSITIONS = frozenset(
    listed("near behind beside next to with opposite in close across by under above at on of from")
)
_MODALS = frozenset(listed("can could will would may might must should shall"))
_ANAPHORS = frozenset(listed("himself herself itself themselves"))
_BE = frozenset(listed("is are was were"))


def converted(table: pa.Table) -> list[InfluenceExample]:
    """Bring sentences with known positions into the form of this corpus.

    The table has a sentence a row, with the columns ``id``, ``text`` (with one ``[MASK]``),
    ``good`` and ``bad``, ``target_index``, ``subject_index`` and ``attractor_index`` (positions
    among the words of the text; the attractor's may be null), ``subject_number`` and
    ``attractor_number`` (``sing`` and ``plur``, or in full). The subtask is read off a column
    ``template``, ``subtask`` or ``structure``. Sentences without a final stop get one.

    Roles follow from the positions and from lists of function words; a word whose role can't be
    told so is ``other``.

    Args:
        table: See above; other columns are ignored.

    Returns:
        A sentence per row, in the table's order.

    Raises:
        ValueError: A column is missing, or a row's positions don't fit its text.
    """
    missing = [name for name in _NEEDED if name not in table.column_names]
    if missing:
        raise ValueError(f"the table lacks the columns {', '.join(missing)}")
    return [_converted(row) for row in table.to_pylist()]


def _converted(row: Mapping[str, Any]) -> InfluenceExample:
    words = str(row["text"]).split()
    if words and words[-1][-1] not in ".?!":
        words.append(".")
    target, subject, attractor = (
        row[f"{name}_index"] for name in ("target", "subject", "attractor")
    )
    if [at for at, word in enumerate(words) if word == MASK] != [target]:
        raise ValueError(f"{row['id']}: {MASK} is not the one word at target_index ({target})")
    if not 0 <= (-1 if subject is None else subject) < len(words):
        raise ValueError(f"{row['id']}: subject_index ({subject}) is no position in the text")
    if attractor is not None and not 0 <= attractor < len(words):
        raise ValueError(f"{row['id']}: attractor_index ({attractor}) is no position in the text")
    name = row.get("template") or row.get("subtask") or row.get("structure") or "other"
    numbers = [_number(row[f"{noun}_number"]) for noun in ("subject", "attractor")]
    genders = [row.get(f"{noun}_gender") for noun in ("subject", "attractor")]
    marks = genders if genders[0] else numbers
    return InfluenceExample(
        id=str(row["id"]),
        subtask=_TEMPLATE_SUBTASKS.get(name, name),
        form="".join(str(mark)[0].upper() for mark in marks if mark),
        split=None,
        text=" ".join(words),
        good=row["good"],
        bad=row["bad"],
        roles=_Reading(tuple(words), subject, attractor, target, row["good"]).roles(),
        subject_index=subject,
        attractor_index=attractor,
        target_index=target,
        subject_number=str(numbers[0]),
        attractor_number=numbers[1],
        subject_gender=genders[0],
        attractor_gender=genders[1],
    )


def _number(name: str | None) -> str | None:
    if name is None:
        return None
    found = [number for number in NUMBERS if number == name or number[:4] == name]
    if not found:
        raise ValueError(f"{name!r} is no number (sing, plur)")
    return found[0]


@dataclass(frozen=True)
class _Reading:
    """Roles of words whose nouns and target are known."""

    words: tuple[str, ...]
    subject: int
    attractor: int | None
    target: int
    good: str

    def roles(self) -> tuple[str, ...]:
        """Give a role for each word."""
        roles = {self.target: "target", self.subject: "subject"}
        if self.attractor is not None:
            roles[self.attractor] = "attractor"
        starts = {name: self._mark_phrase(roles, at) for at, name in [*roles.items()][1:]}
        if self.attractor is not None and self.subject < self.attractor:
            between = range(self.subject + 1, starts["attractor"])
            self._mark_inside(roles, between, self.attractor + 1)
        elif self.attractor is not None:
            self._mark_clause(roles, range(self.attractor + 1, starts["subject"]))
        self._mark_around_target(roles)
        for at, word in enumerate(self.words):
            if not any(character.isalnum() for character in word):
                roles.setdefault(at, "punctuation")
        return tuple(roles.get(at, "other") for at in range(len(self.words)))

    def _is(self, at: int, kind: frozenset[str]) -> bool:
        return self.words[at].lower() in kind

    def _mark_phrase(self, roles: dict[int, str], noun: int) -> int:
        """Mark what stands before a noun, back to its determiner, and give where that starts."""
        for at in range(noun - 1, -1, -1):
            if at in roles or self._is(at, _RELATIVIZERS | _PREPOSITIONS):
                return noun
            if self._is(at, _DETERMINERS):
                roles[at] = f"{roles[noun]}_determiner"
                roles |= dict.fromkeys(range(at + 1, noun), "modifier")
                return at
        return noun

    def _mark_inside(self, roles: dict[int, str], between: range, after: int) -> None:
        """Mark what is between a subject and an attractor after it, or else the attractor's verb.

        Args:
            roles: Gets the roles.
            between: From the subject to the attractor's phrase.
            after: Position after the attractor, where its verb would stand.
        """
        if between and self._is(between[0], _PREPOSITIONS):
            roles |= dict.fromkeys(between, "preposition")
            return
        if between and self._is(between[0], _RELATIVIZERS):
            roles[between[0]] = "relativizer"
            between = between[1:]
        if between:  # that know the pilot
            roles |= {at: "auxiliary" for at in between if self._is(at, _MODALS)}
            roles.setdefault(between[-1], "verb")
        else:  # (that) the pilot knows
            roles.setdefault(after, "verb")

    def _mark_clause(self, roles: dict[int, str], between: range) -> None:
        """Mark what is between an attractor and a subject after it."""
        if between and self._is(between[0], _RELATIVIZERS):  # the pilot that the farmers [MASK]
            roles[between[0]] = "relativizer"
        elif between:  # the pilot said (that) the farmers [MASK]
            roles[between[0]] = "verb"
            roles |= {at: "complementizer" for at in between if self.words[at] == "that"}

    def _mark_around_target(self, roles: dict[int, str]) -> None:
        if self.good.lower() in _ANAPHORS:
            roles.setdefault(self.target - 1, "main_verb")
            if self._is(self.target - 2, _MODALS):
                roles.setdefault(self.target - 2, "main_auxiliary")
        elif self.good.lower() in _BE and self.target == len(self.words) - 3:
            roles[self.target + 1] = "adjective"


# Writing --------------------------------------------------------------------------------------


def as_table(examples: Sequence[InfluenceExample]) -> pa.Table:
    """Give sentences as a table of ``SCHEMA``."""
    return pa.Table.from_pylist([asdict(example) for example in examples], SCHEMA)


def main() -> None:
    """Write the corpus, or a converted one, from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--sentences", type=int, default=1000, help="how many of each subtask (1000)")
    add("--seed", type=int, default=0)
    add("--subtasks", nargs="+", choices=SUBTASKS, default=SUBTASKS, metavar="NAME")
    add("--convert", type=Path, metavar="FILE", help="Parquet file to convert (see converted)")
    add("--output", type=Path, required=True, help="Parquet file to write")
    options = parser.parse_args()
    if options.convert:
        examples = converted(pq.read_table(options.convert))
    else:
        examples = generate(options.sentences, options.seed, options.subtasks)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(as_table(examples), options.output, compression="zstd")
    print(f"{len(examples)} sentences in {options.output}")


if __name__ == "__main__":
    main()
