"""Reading JSON: an object a line, or one array of objects."""

import io
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain
from typing import IO, Any

from attribeam.pipeline.corpus.fields import Fields, ReadRow, Seen, splits
from attribeam.pipeline.corpus.streams import is_text, text, undecoded
from attribeam.schemas import UsageError

_BLANK = " \t\r\n\v\f"
# Python doesn't make numbers of more digits than this.
_MOST_DIGITS = 4300
_ERRORS = (ValueError, RecursionError)


class _Doubled(dict[str, Any]):
    """An object that has a key more than once."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        names = [name for name, _ in pairs]
        self.doubled = {name for name in names if names.count(name) > 1}


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else _Doubled(pairs)


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) < _MOST_DIGITS else digits


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer)


def json_fields(path: str) -> Fields:
    """Columns of all objects in the file.

    Raises:
        UsageError: If an object has a key twice, or the file is one object over several lines.
    """
    seen = Seen()
    for where, values, _ in _values(path):
        if isinstance(values, _Doubled):
            name = min(values.doubled)
            raise UsageError(f"{path}: {where} has the key {name!r} twice: rename one of them")
        if isinstance(values, dict):
            seen.add(values)
    return seen.fields()


def json_rows(path: str, columns: Collection[str]) -> Iterator[ReadRow]:
    """The objects in the file, or what stands in their place."""
    for where, values, problem in _values(path):
        if problem is not None:
            yield {}, problem
        elif not isinstance(values, dict):
            yield {}, f"{where} is JSON but not an object"
        else:
            yield _row(values, columns)


def _row(values: dict[str, Any], columns: Collection[str]) -> ReadRow:
    found: dict[str, Any] = {}
    problem = None
    for name in columns:
        try:
            value = _value_at(values, name)
        except KeyError:
            continue
        except ValueError as error:
            problem = str(error)
            continue
        if isinstance(value, str) and not is_text(value):
            problem, value = f"{name} {undecoded(value)}", None
        found[name] = value
    return found, problem


def _value_at(values: Mapping[str, Any], name: str) -> Any:
    """The value of a key, or of the one that a dotted name leads to.

    Raises:
        KeyError: If there is none.
        ValueError: If there are two.
    """
    if name in values:
        if isinstance(values, _Doubled) and name in values.doubled:
            raise ValueError(f"an object has the key {name!r} twice")
        return values[name]
    for head, rest in splits(name):
        inner = values.get(head)
        if isinstance(inner, Mapping):
            try:
                return _value_at(inner, rest)
            except KeyError:
                continue
    raise KeyError(name)


# What stands in a file ------------------------------------------------------------------------

# Where a value stands, the value, and what is wrong with it if anything.
_Found = tuple[str, Any, str | None]


def _values(path: str) -> Iterator[_Found]:
    with text(path) as handle:
        number, line = _first(handle)
        start = line.strip(_BLANK)
        if start.startswith("["):
            yield from _items(path, line + handle.read())
            return
        rest: Iterable[str] = handle
        if start.startswith("{") and _line(line, number)[2] is not None:
            rest = _checked_rest(path, line, handle)
        for at, each in enumerate(chain([line], rest), number):
            if each.strip(_BLANK):
                yield _line(each, at)


def _first(handle: IO[str]) -> tuple[int, str]:
    """The first line that isn't blank, and its number."""
    found = ((number, line) for number, line in enumerate(handle, 1) if line.strip(_BLANK))
    return next(found, (1, ""))


def _line(line: str, number: int) -> _Found:
    where = f"line {number}"
    try:
        return where, _DECODER.decode(line.strip(_BLANK)), None
    except _ERRORS as error:
        reason = f"is not JSON: {error}" if is_text(line) else undecoded(line)
        return where, None, f"{where} {reason}"


def _checked_rest(path: str, line: str, handle: IO[str]) -> Iterable[str]:
    """The lines after a first one that is no object by itself.

    Raises:
        UsageError: If it is the beginning of one.
    """
    rest = handle.read()
    try:
        end = _DECODER.raw_decode((line + rest).lstrip(_BLANK))[1]
    except _ERRORS:
        end = 0
    if end > len(line):
        raise UsageError(
            f"{path} holds an object over several lines; write one object a line "
            "(`jq -c .` does that)"
        )
    return io.StringIO(rest, "\n" if "\n" in rest else "\r")


def _items(path: str, content: str) -> Iterator[_Found]:
    """What an array holds, one after another.

    Raises:
        UsageError: If it isn't whole, or more follows it.
    """
    at, number = _blank_until(content, 0) + 1, 0
    at = _blank_until(content, at)
    more = content[at : at + 1] != "]"
    while more:
        number += 1
        try:
            value, at = _DECODER.raw_decode(content, _blank_until(content, at))
        except _ERRORS as error:
            raise UsageError(f"{path}: item {number} of its array is not JSON: {error}") from error
        yield f"item {number}", value, None
        at = _blank_until(content, at)
        more = content[at : at + 1] == ","
        at += more
    if content[at : at + 1] != "]" or content[at + 1 :].strip(_BLANK):
        raise UsageError(f"{path}: its array doesn't end after item {number}, or more follows it")


def _blank_until(content: str, at: int) -> int:
    """Where what isn't blank goes on."""
    while content[at : at + 1] and content[at] in _BLANK:
        at += 1
    return at
