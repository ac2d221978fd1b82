"""The sentence at the top of a report: which method is the most faithful, and which is near it."""

import duckdb

from attribeam.analysis.plots.figures import CONTROL, Row
from attribeam.analysis.report.values import counted, query_rows

NEAR = 0.9  # Of the best area between the curves: what is within reach of it.
# Asked for more than once, and of all curves.
_RANKED = """
    create temp table if not exists ranked_methods as
    select rank, method, auc_difference, ms, n, protocol, operation
    from ranking
    where rank is not null
    qualify dense_rank() over (order by protocol, operation) = 1
"""


def ranked(connection: duckdb.DuckDBPyConnection) -> list[Row]:
    """The methods under the first protocol and operation, the most faithful first."""
    connection.execute(_RANKED)
    return query_rows(connection, "from ranked_methods order by rank, method")


def verdict(rows: list[Row]) -> str:
    """A sentence or two on the methods; empty where there is nothing to compare.

    Args:
        rows: Those of ``ranked``.
    """
    named = [row for row in rows if row["method"] != CONTROL]
    if len(named) < 2:
        return ""
    best = named[0]
    of = f"{counted(best['n'], 'instance')}, by {best['operation']}"
    said = (
        f"{best['method']} is the most faithful here: {best['auc_difference']:.3f} between the "
        f"curves ({of}{_at(best)}).{_cheaper(best, named)}"
    )
    control = next((row for row in rows if row["method"] == CONTROL), None)
    if control is not None:
        low = [row["method"] for row in named if _area(row) <= _area(control)]
        said += f" No better than {CONTROL}: {', '.join(low)}." if low else ""
    return said


def _area(row: Row) -> float:
    return float(row["auc_difference"])


def _at(row: Row) -> str:
    return "" if row["ms"] is None else f", {row['ms']:,.3g} ms an instance"


def _cheaper(best: Row, named: list[Row]) -> str:
    """What is said of the cheapest method that is nearly as good."""
    near = [row for row in named if _area(row) >= NEAR * _area(best) and row["ms"] is not None]
    if best["ms"] is None or _area(best) <= 0 or not near:
        return ""
    cheapest = min(near, key=lambda row: (row["ms"], row["method"]))
    if cheapest["ms"] >= best["ms"]:
        return f" No other within {1 - NEAR:.0%} of that is cheaper."
    return (
        f" {cheapest['method']} comes to {_area(cheapest) / _area(best):.0%} of that"
        f"{_at(cheapest).replace(', ', ' at ')}."
    )
