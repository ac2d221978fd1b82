"""The registry in words, as ``schemas/methods.json`` holds it.

``python -m attribeam.transforms.catalogue`` writes it anew.
"""

import json
from importlib.resources import as_file, files

from attribeam.schemas.catalogue import CATALOGUE, Entry
from attribeam.transforms.registry import DEFINED_BY, Method, methods, values_of


def text() -> str:
    """What the file holds."""
    entries = {name: entry_of(method) for name, method in sorted(methods().items())}
    return json.dumps(entries, indent=1, ensure_ascii=False) + "\n"


def entry_of(method: Method) -> Entry:
    """A method in words."""
    facts = {
        "signed": method.signed,
        "class-dependent": method.class_dependent,
        "class-independent": not method.class_dependent,
        "additive": method.additive,
        "stochastic": method.stochastic,
        "by layer": method.layered is not None,
    }
    return {
        "cost": method.cost,
        "facts": [name for name, true in facts.items() if true],
        "equation": method.equation,
        "paper": method.paper,
        "needs": [str(need) for need in method.needs(method.params({}))],
        "requires": [DEFINED_BY[trait] for trait in method.requires],
        "opt_in": method.opt_in,
        "defaults": {name: values_of(default) for name, default in method.defaults.items()},
        "presets": {
            name: ", ".join(f"{key}={value}" for key, value in preset.items())
            for name, preset in method.presets.items()
        },
    }


if __name__ == "__main__":
    with as_file(files("attribeam.schemas") / CATALOGUE) as path:
        path.write_text(text(), encoding="utf-8")
