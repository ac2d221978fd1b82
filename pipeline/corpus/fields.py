"""What is known of a corpus's columns before their values are read: their kinds and classes."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from attribeam.pipeline.corpus.streams import is_text
from attribeam.schemas import UsageError

_PLURALS = {"bytes": "bytes", "object": "objects", "nothing": "nothing", "other": "other values"}
_LIST = "list of "
# Names within objects are looked at down to here, and so many of an object: some are made of ids.
_DEEPEST = 4
_MOST_INNER = 1000


@dataclass(frozen=True)
class Field:
    """A column, or a field of an object.

    Attributes:
        kinds: What its values are: ``text``, ``bytes``, ``integer``, ``number``, ``boolean``,
            ``time``, ``object``, ``map``, ``nothing``, ``other``, or ``list of`` these; empty if
            that isn't known.
        classes: Names of the classes whose numbers it holds, if it says.
        numbered: Whether these have numbers in the corpus; folders have names alone, and stand in
            the order of these.
        inner: Fields of the objects that it holds.
    """

    kinds: frozenset[str] = frozenset()
    classes: tuple[str, ...] | None = None
    inner: Mapping[str, "Field"] = field(default_factory=dict)
    numbered: bool = True


Fields = Mapping[str, Field]
# What a reader gives of a row: the values that were asked for by name, and what is wrong with it
# if anything.
ReadRow = tuple[dict[str, Any], str | None]


def find(fields: Fields, name: str) -> Field | None:
    """The column of a name, or the field of objects that a dotted name leads to."""
    if name in fields:
        return fields[name]
    for head, rest in splits(name):
        found = find(fields[head].inner, rest) if head in fields else None
        if found is not None:
            return found
    return None


def class_name(known: Field | None, value: Any) -> Any:
    """The name of the class that a number is of, where the column tells; else the value."""
    if known is None or known.classes is None or not isinstance(value, int):
        return value
    return known.classes[value] if 0 <= value < len(known.classes) else None


def splits(name: str) -> Iterator[tuple[str, str]]:
    """Ways to take a dotted name apart into a field and what is inside."""
    for at, character in enumerate(name):
        if character == ".":
            yield name[:at], name[at + 1 :]


def guess(source: str, role: str, names: Iterable[str], guesses: Iterable[str]) -> str | None:
    """The first guess that is a column's name, exactly or else but for its case.

    Raises:
        UsageError: If several columns are meant as well.
    """
    given = list(names)
    for name in guesses:
        if name in given:
            return name
        alike = [each for each in given if each.casefold() == name]
        if len(alike) > 1:
            listed = " and ".join(map(repr, alike))
            raise UsageError(
                f"{source} has the columns {listed}, which differ by case only: name one with "
                f"--{role}-column"
            )
        if alike:
            return alike[0]
    return None


def check_names(path: str, names: Iterable[str]) -> None:
    """Checks that no two columns have the same name; those without a name are never read.

    Raises:
        UsageError: If two have.
    """
    seen: set[str] = set()
    for name in names:
        if name and name in seen:
            raise UsageError(f"{path} has the column {name!r} twice: rename one of them")
        seen.add(name)


def holds(kinds: Iterable[str]) -> str:
    """Kinds as a sentence says them: ``integers and lists of texts``."""
    some = {*kinds} - {"nothing"}
    return " and ".join(sorted(map(_plural, some))) or "nothing"


def _plural(kind: str) -> str:
    if kind.startswith(_LIST):
        return "lists of " + _plural(kind.removeprefix(_LIST))
    return _PLURALS.get(kind, f"{kind}s")


# Arrow ----------------------------------------------------------------------------------------


def of_schema(schema: pa.Schema) -> dict[str, Field]:
    """Fields of an Arrow schema, in order.

    Raises:
        ValueError: If its metadata has features of ``datasets``, and they can't be read.
    """
    known = _classes_of(schema)
    return {each.name: _of_type(each.type, known.get(each.name)) for each in schema}


def _of_type(kind: pa.DataType, classes: Any) -> Field:
    if isinstance(kind, pa.BaseExtensionType):
        return _of_type(kind.storage_type, classes)
    names = classes if isinstance(classes, tuple) else None
    inner: dict[str, Field] = {}
    if pa.types.is_struct(kind):
        named = classes if isinstance(classes, Mapping) else {}
        inner = {each.name: _of_type(each.type, named.get(each.name)) for each in kind}
    return Field(kinds_of(kind), names, inner)


def kinds_of(kind: pa.DataType) -> frozenset[str]:
    """What values of an Arrow type are."""
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return kinds_of(kind.storage_type)
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return kinds_of(kind.value_type)
    if is_list(kind):
        return frozenset(_LIST + inner for inner in kinds_of(kind.value_type))
    tests = {
        "text": (types.is_string, types.is_large_string, types.is_string_view),
        "bytes": (
            *(types.is_binary, types.is_large_binary, types.is_binary_view),
            types.is_fixed_size_binary,
        ),
        "integer": (types.is_integer,),
        "number": (types.is_floating, types.is_decimal),
        "boolean": (types.is_boolean,),
        "time": (types.is_temporal,),
        "object": (types.is_struct,),
        "map": (types.is_map,),
        "nothing": (types.is_null,),
    }
    found = (name for name, each in tests.items() if any(test(kind) for test in each))
    return frozenset({next(found, "other")})


def is_list(kind: pa.DataType) -> bool:
    """Whether values of an Arrow type are lists."""
    types = pa.types
    tests = (
        *(types.is_list, types.is_large_list, types.is_fixed_size_list),
        *(types.is_list_view, types.is_large_list_view),
    )
    return any(test(kind) for test in tests)


# Values ---------------------------------------------------------------------------------------


class Seen:
    """Fields of objects that are met one after another (JSON)."""

    def __init__(self) -> None:
        self._kinds: dict[str, set[str]] = {}
        self._inner: dict[str, Seen] = {}

    def add(self, values: Mapping[str, Any], depth: int = 1) -> None:
        """Notes what an object holds."""
        for name, value in values.items():
            kinds = self._kinds.get(name)
            if kinds is None:
                if depth > 1 and len(self._kinds) >= _MOST_INNER:
                    continue
                kinds = self._kinds[name] = set()
            kinds |= _kinds_of_value(value)
            if isinstance(value, Mapping) and depth < _DEEPEST:
                if name not in self._inner:
                    self._inner[name] = Seen()
                self._inner[name].add(value, depth + 1)

    def fields(self) -> dict[str, Field]:
        """All that was noted."""
        return {
            name: Field(
                frozenset(kinds), inner=self._inner[name].fields() if name in self._inner else {}
            )
            for name, kinds in self._kinds.items()
        }


_OF_PYTHON: dict[type, frozenset[str]] = {
    str: frozenset({"text"}),
    bool: frozenset({"boolean"}),
    int: frozenset({"integer"}),
    float: frozenset({"number"}),
    type(None): frozenset({"nothing"}),
}


def _kinds_of_value(value: Any) -> frozenset[str]:
    known = _OF_PYTHON.get(type(value))
    if known is not None:
        return known
    if isinstance(value, list):
        inner = frozenset[str]().union(*map(_kinds_of_value, value)) or {"nothing"}
        return frozenset(_LIST + kind for kind in inner)
    return frozenset({"object"})


# Names of classes -----------------------------------------------------------------------------


def _classes_of(schema: pa.Schema) -> dict[str, Any]:
    """Names of classes that the metadata of ``datasets`` tells (``classes_in``)."""
    content = (schema.metadata or {}).get(b"huggingface")
    if content is None:
        return {}
    try:
        info = json.loads(content).get("info") or {}
        return classes_in(info.get("features"))
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(f"its metadata of datasets is damaged: {error!r}") from error


def classes_in(features: Any) -> dict[str, Any]:
    """Names of classes in features (ClassLabel), as ``datasets`` writes them to JSON.

    Returns:
        Names by column; of a column of objects, the same by field.

    Raises:
        ValueError: If a name is no text.
    """
    found: dict[str, Any] = {}
    for name, feature in features.items() if isinstance(features, Mapping) else ():
        if not isinstance(feature, Mapping):
            continue
        if feature.get("_type") == "ClassLabel":
            names = feature.get("names") or map(str, range(feature.get("num_classes") or 0))
            found[str(name)] = tuple(map(str, names))
            if not all(map(is_text, found[str(name)])):
                raise ValueError(f"the classes of {name!r} have names with lone surrogates")
        elif "_type" not in feature:
            found[str(name)] = classes_in(feature)
    return found
