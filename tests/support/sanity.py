"""Tables of `attribeam check` as rows, with the views over them."""

from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from attribeam.schemas import VIEWS, table_schema
from tests.support.synthetic_run import Row

_TABLES = ("instances", "attributions", "randomised", "noised", "subsets", "repeats")
_VIEWS = (
    *("inversions", "centred_ranks", "removable_positions", "rank_correlation", "kendall_tau"),
    *("randomisation_by_instance", "randomisation", "efficient_randomisation", "random_logit"),
    *("subset_drops", "infidelity_by_instance", "infidelity", "sensitivity_n"),
    *("sensitivity_by_instance", "sensitivity", "reliability_by_instance", "reliability"),
)


def tables_of_checks(
    tables: Mapping[str, Sequence[Row]], additive: Sequence[str] = ()
) -> duckdb.DuckDBPyConnection:
    """Tables in float64, whatever isn't given empty or null, and the views over them."""
    connection = duckdb.connect()
    for name in _TABLES:
        rows = [{"evaluation": "e", **row} for row in tables.get(name, ())]
        own = pa.Table.from_pylist(rows, table_schema(name, double=True))
        connection.register(f"_{name}", own)
        connection.execute(f"create table {name} as from _{name}")
    connection.execute("create table methods (method text, additive boolean)")
    for method in {row["method"] for row in tables.get("attributions", ())}:
        connection.execute("insert into methods values (?, ?)", [method, method in additive])
    by_name = {view.name: view for view in VIEWS}
    for name in _VIEWS:
        connection.execute(by_name[name].sql)
    return connection


def instance(name: str, tokens: int, **more: Any) -> Row:
    """An instance of so many tokens between two special ones."""
    special = [True, *[False] * tokens, True]
    return {"instance_id": name, "special": special, "readout": 0, "prediction": 0, **more}


def scored(name: str, method: str, scores: Sequence[float], **more: Any) -> Row:
    """Scores of the tokens between two special ones, whose scores are the largest of all."""
    padded = [99.0, *scores, -99.0]
    return {"instance_id": name, "method": method, "scores": padded, "prediction": 0, **more}


def subset(name: str, bits: str, drop: float, sample: int, kind: str = "random") -> Row:
    """A subset of the tokens between two special ones, as 0 and 1, and what removing it drops."""
    removed = [False, *(bit == "1" for bit in bits), False]
    return {
        "instance_id": name,
        "kind": kind,
        "sample": sample,
        "removed": removed,
        "size": sum(removed),
        "units": len(bits),
        "target": 0,
        "explained": 3 - drop,
    }
