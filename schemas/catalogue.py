"""What methods there are, as ``methods.json`` lists them: for whom torch is too slow to import.

The file is written from the registry (``python -m attribeam.transforms.catalogue``), and a test
holds the two against each other.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import TypedDict

from attribeam.schemas.errors import UsageError

CATALOGUE = "methods.json"


class Entry(TypedDict):
    """A method of the registry, in words.

    Attributes:
        facts: What its scores are: ``signed``, ``additive`` and so on.
        requires: What of a model it is defined by, a sentence each.
        opt_in: Why it isn't among ``all``; None if it is.
        defaults: Parameters, with the values that they may have or their default.
        presets: Parameters by preset, in words.
    """

    cost: str
    facts: list[str]
    equation: str
    paper: str
    needs: list[str]
    requires: list[str]
    opt_in: str | None
    defaults: dict[str, str]
    presets: dict[str, str]


@cache
def catalogue() -> Mapping[str, Entry]:
    """The methods by name, sorted."""
    text = (files("attribeam.schemas") / CATALOGUE).read_text(encoding="utf-8")
    found: dict[str, Entry] = json.loads(text)
    return found


def check_names(names: Iterable[str], known: Collection[str]) -> None:
    """Checks that methods are there.

    Raises:
        UsageError: If one isn't; names the one that is most like it.
    """
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UsageError(f"there is no method {name!r}{hint} (`attribeam methods` lists them)")
