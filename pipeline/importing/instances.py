"""What an instance is by what files say of it, where no model and no tokenizer is asked.

The first file that says what an instance is made of decides: its units, tokens or words or spans of
characters, become the instance's tokens. What other files have is held against them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from attribeam.pipeline.corpus.foreign import Found, Record, class_of
from attribeam.schemas import table_schema
from attribeam.transforms.inputs.batch import Instance
from attribeam.transforms.inputs.given_scores import Floats, Given, UnalignedError, aligned

# What a record may say of an instance whatever it is made of, and per token.
_PLAIN = ("text", "text_pair", "split", "subset", "truncated", "rationale_segments")
_LISTS = ("special", "word_ids", "char_start", "char_end", "segment", "rationale", "roles")
_COLUMNS = table_schema("instances").names
# What two files may not say differently.
_ALIKE = ("text", "text_pair", "label", "prediction")


class InstanceError(ValueError):
    """What files say of an instance does not make one; the message says why."""


@dataclass(frozen=True)
class Described:
    """An instance as it is imported.

    Attributes:
        columns: Its row of ``instances``.
        words: Whether its tokens are words.
        length: Number of its tokens.
    """

    columns: dict[str, Any]
    words: bool
    length: int

    def scores(self, given: Given) -> Floats:
        """Given scores as those of its tokens, [T].

        Raises:
            UnalignedError: If they are of other tokens, words or characters.
        """
        if given.problem is not None:
            raise UnalignedError(given.problem)
        if given.unit == "word" and self.words:
            given = replace(given, unit="token")
        if given.unit != "token" and None in (self.columns["word_ids"] or [None]):
            given = self._checked_words(given)
        if self.columns["tokens"] is None and given.unit == "token":
            given = replace(given, tokens=None)
        if self.columns["input_ids"] is None:
            given = replace(given, input_ids=None)
        return aligned(self._instance, given)

    def _checked_words(self, given: Given) -> Given:
        """The same, where it can be known which of its tokens is of which word or character.

        Raises:
            UnalignedError: If it can't.
        """
        starts, plain = self.columns["char_start"], np.logical_not(self.columns["special"])
        placed = starts is not None and all(
            start is not None for start, one in zip(starts, plain, strict=True) if one
        )
        if placed and (given.unit == "span" or self.columns["text"] is not None):
            return given
        if given.unit == "word" and given.tokens is None:
            return given
        raise UnalignedError(
            f"is of {given.unit}s, and nothing says where in the text its tokens are "
            "(char_start, char_end)"
        )

    @property
    def _instance(self) -> Instance:
        """What scores are held against."""
        columns, length = self.columns, self.length
        numbers = np.arange(length, dtype=np.int32)
        ids, tokens = columns["input_ids"], columns["tokens"]
        return Instance(
            instance_id=columns["instance_id"],
            input_ids=numbers if ids is None else np.array(ids, np.int32),
            segment=_ints(columns["segment"], length, 0),
            special=np.array(columns["special"], bool),
            word_ids=_ints(columns["word_ids"], length, -1),
            char_start=_ints(columns["char_start"], length, -1),
            char_end=_ints(columns["char_end"], length, -1),
            tokens=("",) * length if tokens is None else tuple(tokens),
            text=columns["text"],
            text_pair=columns["text_pair"],
            truncated=bool(columns["truncated"]),
        )


def _ints(values: Sequence[int | None] | None, length: int, none: int) -> Any:
    """A list as an array, with a number for what is lacking."""
    found = [None] * length if values is None else values
    return np.array([none if value is None else value for value in found], np.int32)


def describe(
    name: str, found: Sequence[Found], labels: Sequence[str] | None, pad: int | None
) -> Described:
    """An instance, by what files say of it.

    Args:
        name: Its id.
        found: What they say, in their order.
        labels: Names of the classes.
        pad: The vocabulary id that is padding where it ends a row; None if there is none.

    Raises:
        InstanceError: If nothing says what it is made of, or what is said does not go together.
    """
    runs = [one.record["instance"] for one in found if one.record and "instance" in one.record]
    if runs:
        own = {column: runs[0].get(column) for column in _COLUMNS}
        length = len(own["input_ids"] or own["tokens"])
        return Described({**own, "instance_id": name}, False, length)
    records = [one.record or {} for one in found]
    for message in (record["failed"] for record in records if "failed" in record):
        raise InstanceError(message)
    columns: dict[str, Any] = dict.fromkeys(_COLUMNS)
    columns |= {"instance_id": name, "row_id": name, "truncated": False}
    for record in records:
        _add_plain(columns, record, labels)
    made = next((one for one in found if _is_made(one)), None)
    if made is None:
        made = _of_text(found, columns)
    columns |= _units(made, columns, pad)
    _add_lists(columns, made.record or {})
    _add_predictions(columns, records)
    length = len(columns["special"])
    if not length:
        raise InstanceError("has no tokens")
    return Described(columns, made.given.unit == "word", length)


def _is_made(one: Found) -> bool:
    """Whether a record says what an instance is made of."""
    given = one.given
    if given.unit == "span":
        return given.spans is not None and isinstance((one.record or {}).get("text"), str)
    return given.tokens is not None or (given.unit == "token" and given.input_ids is not None)


def _of_text(found: Sequence[Found], columns: Mapping[str, Any]) -> Found:
    """A record of words or spans whose text another one has."""
    text = columns["text"]
    for one in found if isinstance(text, str) else ():
        if one.given.unit == "word":
            return one._replace(given=replace(one.given, tokens=text.split()))
        if one.given.unit == "span" and one.given.spans is not None:
            return one
    raise InstanceError(
        "nothing says what its scores are of: records name `tokens`, `words` or `input_ids`, or "
        "have the `text` of words and spans; --corpus is a file of these, by id"
    )


def _add_plain(columns: dict[str, Any], record: Record, labels: Sequence[str] | None) -> None:
    """Adds what a record says of the whole instance, where nothing was said before.

    Raises:
        InstanceError: If it says something else than another one.
    """
    said = {name: record[name] for name in _PLAIN if record.get(name) is not None}
    said |= {
        name: class_of(record[name], labels)
        for name in ("label", "prediction")
        if record.get(name) is not None
    }
    numbers = [record[n] for n in ("corpus_row", "row", "idx") if record.get(n) is not None]
    if numbers:
        said["corpus_row"] = int(numbers[0])
    for name, value in said.items():
        if columns[name] is None or columns[name] is False:
            columns[name] = value
        elif name in _ALIKE and columns[name] != value:
            one, other = (repr(each)[:60] for each in (columns[name], value))
            raise InstanceError(f"files have two of its {name}: {one} and {other}")


def _units(made: Found, columns: Mapping[str, Any], pad: int | None) -> dict[str, Any]:
    """The columns that have an entry for each unit."""
    given, text = made.given, columns["text"]
    if given.unit == "span":
        spans = [*(given.spans or ())]
        if any(not 0 <= start < end <= len(text) for start, end in spans):
            raise InstanceError(f"has a span that is none of the text's {len(text)} characters")
        tokens: Sequence[str] | None = [text[start:end] for start, end in spans]
        found = {"char_start": [a for a, _ in spans], "char_end": [b for _, b in spans]}
        return {**_bare(len(spans)), "tokens": tokens, **found, "word_ids": _words(text, spans)}
    ids = None if given.input_ids is None else [*given.input_ids]
    if ids is not None and pad is not None:
        while ids and ids[-1] == pad:
            ids.pop()
    tokens = given.tokens
    if ids is not None and tokens is not None:
        tokens = tokens[: len(ids)]
        if len(tokens) != len(ids):
            raise InstanceError(f"has {len(tokens)} tokens and {len(ids)} input_ids")
    length = len(ids if tokens is None else tokens)  # type: ignore[arg-type]
    bare = {**_bare(length), "tokens": tokens, "input_ids": ids}
    if given.unit == "word" and isinstance(text, str) and text.split() == [*(tokens or ())]:
        spans = [match.span() for match in re.finditer(r"\S+", text)]
        bare |= {"char_start": [a for a, _ in spans], "char_end": [b for _, b in spans]}
    return bare


def _bare(length: int) -> dict[str, Any]:
    """Units of which nothing is known but that they follow each other."""
    return {
        "tokens": None,
        "input_ids": None,
        # Each a word of its own, unless the record says otherwise.
        "word_ids": None,
        "special": [False] * length,
        "segment": [0] * length,
    }


def _words(text: str, spans: Sequence[tuple[int, int]]) -> list[int]:
    """The number of the word that each span ends in."""
    ends = [match.end() for match in re.finditer(r"\S+", text)]
    return [
        min(int(np.searchsorted(ends, end - 1, side="right")), len(ends) - 1) for _, end in spans
    ]


def _add_lists(columns: dict[str, Any], record: Record) -> None:
    """Adds what a record says of each unit.

    Raises:
        InstanceError: If it says it of another number of units, or of texts that there are not.
    """
    length = len(columns["special"])
    texts = columns["rationale_segments"]
    if texts not in (None, [0], [1], [0, 1]):
        raise InstanceError(f"its rationale_segments are {texts!r:.60}, not [0], [1] or [0, 1]")
    for name in _LISTS:
        value = record.get(name)
        if value is None:
            continue
        if not isinstance(value, list) or len(value) < length:
            of = len(value) if isinstance(value, list) else 0
            raise InstanceError(f"its {name} has {of} entries, and it has {length} tokens")
        columns[name] = value[:length]
    columns["special"] = [bool(one) for one in columns["special"]]
    if columns["word_ids"] is None:
        plain = iter(range(length))
        columns["word_ids"] = [None if one else next(plain) for one in columns["special"]]
    for name in ("word_ids", "char_start", "char_end"):
        if columns[name] is not None:
            pairs = zip(columns[name], columns["special"], strict=True)
            columns[name] = [None if special or one == -1 else one for one, special in pairs]


def _add_predictions(columns: dict[str, Any], records: Sequence[Record]) -> None:
    """Adds what the model said, if a file has it.

    Raises:
        InstanceError: If its logits are no finite numbers, or of another class.
    """
    for record in records:
        logits = record.get("logits", record.get("predictions"))
        if columns["logits"] is None and logits:
            values = np.array(logits, np.float64)
            if not np.isfinite(values).all():
                raise InstanceError("its logits are no finite numbers")
            columns["logits"] = values.tolist()
            shifted = np.exp(values - values.max())
            columns["probabilities"] = (shifted / shifted.sum()).tolist()
            largest = int(values.argmax())
            if columns["prediction"] not in (None, largest):
                said = columns["prediction"]
                raise InstanceError(f"its prediction is {said}, and its largest logit {largest}")
            columns["prediction"] = largest
    if None not in (columns["label"], columns["prediction"]):
        columns["correct"] = columns["label"] == columns["prediction"]
