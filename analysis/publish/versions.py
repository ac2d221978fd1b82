"""The versions of a published run: what each changed of the one before, and what it is called.

Each is a tag of the data set, ``v1``, ``v2`` and so on, by which anybody reads it again. What a
version changed stands in its ``run.json``, and so which version it is.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from attribeam.schemas.layout import PUBLISHED
from attribeam.schemas.manifest import VersionRecord

_FIRST = "v1"
_MOST = 8  # Changes that are told one by one.


class Former(NamedTuple):
    """A version that was published: its ``run.json``, as far as that can be read."""

    manifest: Mapping[str, Any]

    @classmethod
    def of(cls, content: bytes) -> "Former":
        """That which has this ``run.json``."""
        try:
            found = json.loads(content)
        except ValueError:
            found = None
        return cls(found if isinstance(found, dict) else {})

    @property
    def history(self) -> list[VersionRecord]:
        """What it and those before it changed, but for the first."""
        found = self.manifest.get("versions")
        records = found if isinstance(found, list) else []
        return [
            {"version": one["version"], "changes": [str(each) for each in one["changes"]]}
            for one in records
            if isinstance(one, dict)
            and number_of(one.get("version")) is not None
            and isinstance(one.get("changes"), list)
        ]

    @property
    def name(self) -> str:
        """What it is called."""
        return self.history[-1]["version"] if self.history else _FIRST

    @property
    def message(self) -> str | None:
        """What its tag says; None of the first, which changed nothing."""
        return said_of(self.history[-1]) if self.history else None


def said_of(version: VersionRecord) -> str:
    """What a version changed, in a line."""
    return "; ".join(version["changes"])


def number_of(tag: object) -> int | None:
    """The number of a version by its tag; None of other tags."""
    text = str(tag)
    return int(text[1:]) if text[:1] == "v" and text[1:].isdecimal() else None


def newest(tags: Collection[str]) -> str | None:
    """The tag of the last version; None if there is none."""
    return max((tag for tag in tags if number_of(tag) is not None), key=_number, default=None)


def _number(tag: str) -> int:
    return number_of(tag) or 0


def next_name(former: Former | None, tags: Collection[str]) -> str:
    """What the version after a former one is called: tags of others are left to them."""
    number = 1 if former is None else _number(former.name) + 1
    while f"v{number}" in tags:
        number += 1
    return f"v{number}"


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What a version changed, a phrase each, by the ``run.json`` of both."""
    found = [*_of_methods(before, after), *_of_identity(before, after), *_of_rest(before, after)]
    if len(found) > _MOST:
        found = [*found[:_MOST], f"{len(found) - _MOST} more"]
    return found or ["the same run, with another card"]


def _of_methods(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    old, new = (_part(one, "methods") for one in (before, after))
    if added := [name for name in new if name not in old]:
        yield f"added: {_some(added)}"
    if gone := [name for name in old if name not in new]:
        yield f"left out: {_some(gone)}"
    both = [name for name in new if name in old]
    if other := [name for name in both if _part(new, name) != _part(old, name)]:
        yield f"other parameters, version or tables: {_some(other)}"


def _of_identity(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    old, new = (_part(one, "identity") for one in (before, after))
    for section in ("model", "tokenizer", "corpus", "settings"):
        one, other = _part(old, section), _part(new, section)
        names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
        if names:
            yield f"another {section}: {_some([_changed(n, one, other) for n in names])}"
    if before.get("evaluation") != after.get("evaluation"):
        yield "other perturbations"


def _of_rest(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    rows = [_rows(one) for one in (before, after)]
    if rows[0] != rows[1]:
        yield f"{rows[1]:,} instances instead of {rows[0]:,}"
    if before.get("incomplete") != after.get("incomplete"):
        yield f"the run is {after.get('incomplete') or 'whole'}"
    old, new = (_part(one, "files") for one in (before, after))
    shared = [path for path in new if path in old]
    told = _part(before, "methods") != _part(after, "methods")
    if not told and any(_part(new, path) != _part(old, path) for path in shared):
        other = sum(_part(new, path) != _part(old, path) for path in shared)
        yield f"other contents of {other} of {len(new)} files"


def _part(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = value.get(name)
    return found if isinstance(found, Mapping) else {}


def _rows(manifest: Mapping[str, Any]) -> int:
    """Number of instances."""
    files = _part(manifest, "files")
    own = [path for path in files if path.startswith(f"{PUBLISHED}/instances/")]
    return sum(int(_part(files, path).get("rows") or 0) for path in own)


def _changed(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """A value that has changed, if it can be said shortly."""
    values = [str(one.get(name)) for one in (before, after)]
    return name if max(map(len, values)) > 40 else f"{name} {values[1]} (was {values[0]})"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return ", ".join(names[:_MOST]) + more
