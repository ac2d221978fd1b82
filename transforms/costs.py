"""About how many forward passes a method takes, read from what its description says of its cost.

Nothing is computed by it: it weighs the parts of a job against each other, where a bar shows how
far that is. A plan measures instead.
"""

import re
from collections.abc import Mapping
from math import prod

# A backward pass is about two forward ones.
_PASSES = {"F": 1.0, "B": 2.0, "(F+B)": 3.0}
# What the sizes of a model and an instance are taken for, and parameters that say nothing.
_SIZES = {"L": 12.0, "T": 32.0, "d": 64.0, "H": 12.0, "m": 1.0, "units": 32.0, "features": 32.0}
_UNSAID = 32.0
_MEAN = re.compile(r"(\d+) (F )?in the mean")
_RANGE = re.compile(r"\d+ to (\d+)")
_WHERE = re.compile(r" (in float64|above layer|a layer)$")
_FACTOR = re.compile(r"\d+(?:\.\d+)?(?:/\d+)?|\(F\+B\)|[A-Za-z]+(?:/\d+)?")


def forward_passes(cost: str, params: Mapping[str, object]) -> float:
    """Returns about how many forward passes of an instance a method takes.

    Args:
        cost: Its description: a sum of products such as ``1 F + steps (F + B)``, of forward (F) and
            backward (B) passes and names of parameters; after a semicolon, other cases.
        params: Its parameters.
    """
    usual = cost.partition(";")[0].replace("(F + B)", "(F+B)")
    if mean := _MEAN.search(usual):
        each = 1.0 if mean[2] or "(F+B)" not in usual else _PASSES["(F+B)"]
        return float(mean[1]) * each
    terms = _RANGE.sub(r"\1", usual).split(" + ")
    return sum(_term(term, params) for term in terms)


def _term(term: str, params: Mapping[str, object]) -> float:
    where = _WHERE.search(term)
    factors = _FACTOR.findall(_WHERE.sub("", term))
    if not any(factor in _PASSES for factor in factors):
        # Arithmetic beside the passes, which are more than that.
        return 0.0 if factors == ["0"] else 1.0
    passes = prod(_value(factor, params) for factor in factors)
    return 2 * passes if where and "float64" in where[1] else passes


def _value(factor: str, params: Mapping[str, object]) -> float:
    name, _, divisor = factor.partition("/")
    if name.replace(".", "").isdigit():
        value = float(name)
    elif name in params:
        given = params[name]
        value = float(given) if isinstance(given, int | float) and given > 0 else _UNSAID
    else:
        value = (_PASSES | _SIZES).get(name, 1.0)  # Words such as "about" and "points".
    return value / float(divisor or 1)
