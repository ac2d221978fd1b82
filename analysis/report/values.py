"""Small things that the parts of the report share: values of queries, and numbers with nouns."""

import math
import re
from functools import cache
from typing import Any

import duckdb
import numpy as np

from attribeam.analysis.opening.database import dict_rows
from attribeam.analysis.plots.figures import Row
from attribeam.schemas import VIEWS

Array = np.ndarray[Any, np.dtype[Any]]


@cache
def _registered() -> frozenset[str]:
    return frozenset(view.name for view in VIEWS)


def has_view(view: str) -> bool:
    """Whether this version has a view of that name."""
    return view in _registered()


def query_rows(connection: duckdb.DuckDBPyConnection, query: str) -> list[Row]:
    """The rows of a query as dictionaries."""
    return [settled(row) for row in dict_rows(connection, query)]


def settled(row: Row) -> Row:
    """Without the last digits of numbers: those of a sum depend on what its threads did when."""
    return {
        name: float(f"{value:.9g}") if isinstance(value, float) else value
        for name, value in row.items()
    }


def query_column(connection: duckdb.DuckDBPyConnection, query: str) -> list[Any]:
    """The values of a query's only column."""
    return [value for (value,) in connection.execute(query).fetchall()]


def query_count(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    """The only value of a query that counts."""
    return int(query_column(connection, query)[0])


def finite(value: float | None) -> float | None:
    """The number, if it is one."""
    return value if value is not None and math.isfinite(value) else None


def plural(number: int, noun: str) -> str:
    """A noun as it stands after a number."""
    return noun if number == 1 else f"{noun}s"


def of_patches(text: str) -> str:
    """What the report says of tokens and texts, said of patches and pictures."""
    for word, other in (("token", "patch"), ("word", "patch"), ("text", "picture")):
        text = re.sub(rf"\b{word}s\b", "patches" if other == "patch" else f"{other}s", text)
        text = re.sub(rf"\b{word}\b", other, text)
    return text


def counted(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number:,} {plural(number, noun)}"
