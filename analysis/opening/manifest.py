"""``run.json``: whether it has the shape that is relied on, as a run may come from anyone."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from attribeam.schemas import TABLES

# A method's name is a part of paths.
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
_MOST_SHARDS = 10_000_000
_NULL = type(None)
_Kinds = Mapping[str, tuple[type, ...]]

# By section of ``identity``, of which only the tokenizer may be null.
_IDENTITY: Mapping[str, _Kinds] = {
    "model": {
        **dict.fromkeys(("source", "architecture", "task", "weights_sha256"), (str,)),
        **dict.fromkeys(("num_layers", "num_heads"), (int,)),
        "labels": (list, _NULL),
    },
    "tokenizer": {},
    "corpus": {
        "source": (str,),
        "rows": (int,),
        "limit": (int, _NULL),
        "split": (str, _NULL),
    },
    "settings": {"dtype": (str,), "num_shards": (int,)},
}
_METHOD: _Kinds = {
    "params": (dict,),
    "tables": (list,),
    **dict.fromkeys(("signed", "class_dependent", "additive", "stochastic"), (bool, _NULL)),
    **dict.fromkeys(("paper", "equation", "word_score"), (str, _NULL)),
    "passes": (list, _NULL),
    "version": (int, _NULL),
}
_EVALUATION: _Kinds = {
    "protocol": (str,),
    **dict.fromkeys(("orders", "operations", "fractions"), (list, _NULL)),
}
_CALL: _Kinds = {
    "methods": (list, _NULL),
    **dict.fromkeys(("versions", "left_out"), (dict, _NULL)),
    **dict.fromkeys(("started", "device_name"), (str, _NULL)),
}


def misshapen(manifest: Mapping[str, Any]) -> str | None:
    """What is wrong with a manifest; None if nothing is.

    What is looked at is what paths and loops are made of, and what is read without a question.
    """
    return next(_problems(manifest), None)


def versions(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The versions of each library that a run was made with, in the order of its calls."""
    found: dict[str, dict[str, None]] = {}
    for call in manifest["executions"]:
        for name, version in (call.get("versions") or {}).items():
            found.setdefault(name, {})[str(version)] = None
    return {name: ", ".join(each) for name, each in found.items()}


def devices(manifest: Mapping[str, Any]) -> list[str]:
    """The devices that a run was made on, in the order of its calls."""
    names = (call.get("device_name") for call in manifest["executions"])
    return list(dict.fromkeys(str(name) for name in names if name))


def _problems(manifest: Mapping[str, Any]) -> Iterator[str]:
    identity, methods = manifest.get("identity"), manifest.get("methods")
    calls = manifest.get("executions")
    if not isinstance(identity, dict) or not isinstance(methods, dict):
        yield "it has no identity or methods"
        return
    for section, kinds in _IDENTITY.items():
        if section != "tokenizer" or identity.get(section) is not None:
            yield from _wrong(f"identity.{section}", identity.get(section), kinds, needed=True)
    yield from _not_texts("identity.model.labels", identity["model"]["labels"])
    if not 0 <= (shards := identity["settings"]["num_shards"]) <= _MOST_SHARDS:
        yield f"identity.settings.num_shards is {shards}"
    for name, method in methods.items():
        if not _NAME.fullmatch(name):
            yield f"a method is called {name!r}"
        yield from _wrong(f"methods.{name}", method, _METHOD)
        yield from _not_texts(f"methods.{name}.tables", method["tables"], TABLES)
        yield from _not_texts(f"methods.{name}.passes", method.get("passes"))
    if manifest.get("evaluation") is not None:
        yield from _wrong("evaluation", manifest["evaluation"], _EVALUATION)
        for key in ("orders", "operations"):
            yield from _not_texts(f"evaluation.{key}", manifest["evaluation"].get(key))
        yield from _not_numbers(manifest["evaluation"].get("fractions"))
    if not isinstance(calls, list):
        yield "it has no executions"
        return
    for number, call in enumerate(calls):
        yield from _wrong(f"executions.{number}", call, _CALL)
        yield from _not_texts(f"executions.{number}.methods", call.get("methods"))


def _wrong(name: str, found: object, kinds: _Kinds, *, needed: bool = False) -> Iterator[str]:
    """Yields what of an object is of another type, or missing where null must be written."""
    if not isinstance(found, dict):
        yield f"{name} is {_short(found)}"
        return
    for key, kind in kinds.items():
        # To isinstance, true is a number.
        if type(found.get(key)) not in kind or (needed and key not in found):
            yield f"{name}.{key} is {_short(found.get(key))}"


def _not_texts(name: str, found: list[Any] | None, known: tuple[str, ...] = ()) -> Iterator[str]:
    for entry in found or ():
        if not isinstance(entry, str) or (known and entry not in known):
            yield f"{name} has {_short(entry)}"


def _not_numbers(found: list[Any] | None) -> Iterator[str]:
    for entry in found or ():
        if type(entry) not in (int, float):
            yield f"evaluation.fractions has {_short(entry)}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def rows_of(corpus: Mapping[str, Any]) -> str:
    """How much of its corpus a run is of, for people.

    Reading ends at ``--limit``, so that how many rows there are beyond it is unknown.

    Args:
        corpus: What identifies it in ``run.json``.
    """
    rows = corpus["rows"]
    counted = f"{rows:,} rows" if rows != 1 else "1 row"
    if corpus["limit"] is None or corpus["limit"] > rows:
        return counted
    return f"the first {counted} (--limit {corpus['limit']})"
