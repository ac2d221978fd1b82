"""Labels of a corpus as numbers of the model's classes: by name where names are known.

A number may be that of a class, or the name of one ("1" to "5"), or what the corpus calls a class
of its own (ClassLabel of ``datasets``). Names win; where two readings are left that differ, the
corpus is refused.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice
from typing import Any

import numpy as np

from attribeam.pipeline.corpus.fields import Field, find
from attribeam.pipeline.corpus.sources import Source
from attribeam.schemas import UsageError

# A number as text; that of a column with gaps has become a float on its way (pandas).
_NUMBER = re.compile(r"([+-]?\d{1,18})(\.0*)?")
_DIGITS = re.compile(r"(?<!\S)-?\d+|\d+")
# Different labels that are looked at before a corpus is read, to see what they can be.
_MOST = 1000
_MOST_SAID = 8
# What transformers calls classes without names.
_NAMELESS = re.compile(r"LABEL_\d+")


class LabelError(ValueError):
    """A label that is none."""


@dataclass(frozen=True)
class Reading:
    """How the labels of a part of a corpus are read.

    Attributes:
        classes: Names of the model's classes.
        numbers: Class by number, where numbers are names; None where they are classes.
        names: The corpus's own names of its classes, if it has any: numbers are of these.
        own: The model's class for each of them; None if it has no such class.
    """

    classes: Sequence[str]
    numbers: Mapping[int, int] | None = None
    names: Sequence[str] = ()
    own: Sequence[int | None] = ()

    def __call__(self, value: Any) -> int | None:
        """The class of a label; None for none: nothing, NaN, or -1 where that is no name.

        Raises:
            LabelError: If it is none of the model's.
        """
        value = plain(value)
        if value is None:
            return None
        number, text = number_of(value), str(value).strip()
        if isinstance(value, str) and text in self.names:
            return self._own(self.names.index(text))
        if number is not None and not (isinstance(value, bool) and self._named(text) is not None):
            return self._numbered(number)
        found = self._named(text)
        if found is None:
            raise LabelError(self._none(text))
        return found

    def _named(self, text: str) -> int | None:
        found = named(text, self.classes)
        if len(found) > 1:
            raise LabelError(f"the label {text!r} could be {_either(found, self.classes)}")
        return found[0] if found else None

    def _numbered(self, number: int) -> int | None:
        if number == -1 and -1 not in (self.numbers or ()):
            return None
        if self.names:
            if not 0 <= number < len(self.names):
                raise LabelError(
                    f"the label {number} is none of the corpus's own ({', '.join(self.names)})"
                )
            return self._own(number)
        if self.numbers is not None:
            if number not in self.numbers:
                raise LabelError(self._none(str(number)))
            return self.numbers[number]
        if not -(2**63) <= number < 2**63:
            raise LabelError(f"the label {number} is not the number of a class")
        return number

    def _own(self, number: int) -> int:
        found = self.own[number]
        if found is None:
            raise LabelError(self._none(self.names[number]))
        return found

    def _none(self, text: str) -> str:
        return f"the label {text!r} is none of the model's ({', '.join(self.classes)})"


@dataclass(frozen=True)
class Labels:
    """How the labels of a corpus are read.

    Attributes:
        readings: A reading for each part.
        record: Class by label, for ``run.json``, where numbers are not those of classes.
        notes: Sentences on what names were taken for.
    """

    readings: Sequence[Reading]
    record: Mapping[str, int | None] = field(default_factory=dict)
    notes: Sequence[str] = ()


def named(text: str, classes: Sequence[str]) -> list[int]:
    """The classes that a name is of: that of just this name, or else those but for its case."""
    if text in classes:
        return [classes.index(text)]
    return [at for at, name in enumerate(classes) if name.casefold() == text.casefold()]


def plain(value: Any) -> Any:
    """A value as Python holds it; None for what stands for nothing."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, float | Decimal) and math.isnan(value):
        return None
    return None if isinstance(value, str) and not value.strip() else value


def number_of(value: Any) -> int | None:
    """The whole number that a value is, or says; None if it is none."""
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float | Decimal):
        return int(value) if math.isfinite(value) and value == int(value) else None
    found = _NUMBER.fullmatch(value.strip()) if isinstance(value, str) else None
    return int(found[1]) if found else None


def _either(found: Iterable[int], classes: Sequence[str]) -> str:
    return " or ".join(f"the model's {classes[at]!r} (class {at})" for at in found)


# Deciding -------------------------------------------------------------------------------------


def read_labels(
    source: Source, column: str | None, classes: Sequence[str], limit: int | None
) -> Labels:
    """Decides how the labels of a corpus are read.

    Args:
        source: The corpus.
        column: Its column of labels; None if it has none.
        classes: Names of the model's classes.
        limit: Most rows that are taken.

    Raises:
        UsageError: If there are two ways that differ.
    """
    known = [None if column is None else find(part.fields, column) for part in source.parts]
    own = [_own_names(each, classes) for each in known]
    unnamed = Reading(classes)
    notes: list[str] = []
    numbers = _numbers_in_names(classes)
    if column is not None and numbers is not None and not all(own):
        values = _numbers_of(source, column, own, limit)
        unnamed, notes = _of_numbers(source.name, classes, numbers, values)
    readings = []
    for part, names in zip(source.parts, own, strict=True):
        reading, said = _of_names(part.name, names, classes) if names else (unnamed, [])
        readings.append(reading)
        notes = list(dict.fromkeys([*notes, *said]))
    return Labels(readings, _record(readings), notes)


def _own_names(known: Field | None, classes: Sequence[str]) -> Sequence[str]:
    """Names of the classes that numbers of a column are of.

    Where the corpus has names alone, they have numbers only of a model that has no names of its
    own, and as many classes: it was made of folders in the order of their names.
    """
    if known is None or known.classes is None:
        return ()
    nameless = all(_NAMELESS.fullmatch(name) for name in classes)
    same = nameless and len(known.classes) == len(classes)
    return known.classes if known.numbered or same else ()


def _record(readings: Iterable[Reading]) -> dict[str, int | None]:
    record: dict[str, int | None] = {}
    for reading in readings:
        if any(at not in (None, number) for number, at in enumerate(reading.own)):
            record |= dict(zip(reading.names, reading.own, strict=True))
        elif reading.numbers is not None:
            record |= {str(number): at for number, at in reading.numbers.items()}
    return record


# Numbers that are names -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Numbers:
    """Class by the number that its name is, or has in it."""

    classes: Mapping[int, int]
    whole: bool


def _numbers_in_names(classes: Sequence[str]) -> _Numbers | None:
    """None if numbers can't be names, or are the same classes by name and by number."""
    numbered = ((at, number_of(name)) for at, name in enumerate(classes))
    whole = {at: number for at, number in numbered if number is not None}
    found = whole
    if not whole:
        digits = [_DIGITS.findall(name) for name in classes]
        if any(len(each) != 1 for each in digits):
            return None
        found = {at: int(each[0]) for at, each in enumerate(digits)}
    numbers = {number: at for at, number in found.items()}
    if len(numbers) < len(found) or all(number == at for number, at in numbers.items()):
        return None
    return _Numbers(numbers, bool(whole))


def _numbers_of(
    source: Source, column: str, own: Sequence[Sequence[str]], limit: int | None
) -> set[int]:
    """The different numbers in a column of labels, of the parts that have no names for them."""
    found: set[int] = set()
    for record in islice(source.records({column}), limit):
        number = None if own[record.part] else number_of(plain(record.values.get(column)))
        if number is not None:
            found.add(number)
        if len(found) > _MOST:
            break
    return found


def _of_numbers(
    source: str, classes: Sequence[str], numbers: _Numbers, values: set[int]
) -> tuple[Reading, list[str]]:
    """The reading of numbers that may be names, given those that the corpus has."""
    values = values - ({-1} - {*numbers.classes})
    if not numbers.whole and all(numbers.classes.get(number) == number for number in values):
        return Reading(classes), []
    by_name = values <= {*numbers.classes}
    by_number = values <= {*range(len(classes))}
    others = sorted((values - {*numbers.classes}) & {*range(len(classes))})
    said = _some(
        f"{number} is class {at} ({classes[at]})" for number, at in sorted(numbers.classes.items())
    )
    if values and (others if numbers.whole else by_name == by_number):
        also = f"; {others[0]} is no name, but the number of a class" if others else ""
        raise UsageError(
            f"the labels of {source} can be read in two ways: by the names of the model's classes "
            f"({said}), or as their numbers ("
            + _some(f"{at} is {name}" for at, name in enumerate(classes))
            + f"){also}. Write names as labels, or --label-column none"
        )
    if numbers.whole or by_name:
        return Reading(classes, numbers.classes), [f"labels by name: {said}"] if values else []
    return Reading(classes), []


# Names of the corpus's own --------------------------------------------------------------------


def _of_names(part: str, names: Sequence[str], classes: Sequence[str]) -> tuple[Reading, list[str]]:
    """The reading of numbers that have names, and what to say of it."""
    own = _matched(part, names, classes)
    unknown = [at for at, found in enumerate(own) if found is None]
    by_number = [at if at < len(classes) else None for at in range(len(names))]
    numeric = all(number_of(name) is not None for name in names)
    agreeing = all(found in (None, at) for at, found in enumerate(own))
    if len(unknown) == len(names) or (agreeing and len(names) == len(classes)):
        said = _some(
            f"{at} ({names[at]}) is class {at} ({classes[at]})"
            for at in unknown
            if at < len(classes)
        )
        plainly = not unknown or [number_of(name) for name in names] == [*range(len(names))]
        notes = [] if plainly else [f"labels by number, since the model has other names: {said}"]
        return Reading(classes, names=names, own=by_number), notes
    if unknown and numeric:
        raise UsageError(
            f"the labels of {part} can be read in two ways: by the names of its classes "
            f"({', '.join(names)}), of which the model has some ({', '.join(classes)}), or by "
            "their numbers. Write names that the model has as labels"
        )
    said = _some(
        f"{name} is {'none' if at is None else f'class {at} ({classes[at]})'}"
        for name, at in zip(names, own, strict=True)
    )
    same = [f"labels by name: {said}"] if own != by_number else []
    return Reading(classes, names=names, own=own), same


def _matched(part: str, names: Sequence[str], classes: Sequence[str]) -> list[int | None]:
    """The model's class for each name; one that another name is exactly is not taken twice."""
    exact = {classes.index(name) for name in names if name in classes}
    own: list[int | None] = []
    for name in names:
        found = [at for at in named(name, classes) if classes[at] == name or at not in exact]
        if len(found) > 1:
            raise UsageError(f"the class {name!r} of {part} could be {_either(found, classes)}")
        own.append(found[0] if found else None)
    return own


def _some(sentences: Iterable[str]) -> str:
    """The first of some sentences, in one."""
    every = list(sentences)
    return ", ".join(every[:_MOST_SAID]) + ", ..." * (len(every) > _MOST_SAID)
