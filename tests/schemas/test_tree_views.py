"""The views of trees and heads against what literal rows say."""

from collections.abc import Iterator
from importlib.resources import files
from math import sqrt
from typing import Any

import duckdb
import pytest

from attribeam.schemas import View
from tests.support.synthetic_run import create_tables

Row = dict[str, Any]

# A [CLS] that is read out first, and a [MASK] at position 2.
INSTANCES = """
create table instances as from (values
    ('a', ['[CLS]', 'not', 'a', 'bad', 'film', '[SEP]'], 0),
    ('b', ['[CLS]', 'the', '[MASK]', '[SEP]'], 2)
) as rows(instance_id, tokens, readout)
"""
EDGES = """
create table tree_edges as from (values
    ('a', 'm', 'paper', 0, 3, 1, 2, 0.5::float, 1.0::float),
    ('a', 'm', 'paper', 1, 3, 4, 2, 0.25::float, 0.5::float),
    ('a', 'm', 'paper', 2, 1, 0, 1, 0.125::float, 1.0::float),
    ('a', 'm', 'paper', 3, 4, 5, 0, 0.5::float, 1.0::float),
    -- The end of the flow: with it, [CLS] is above the top and below it.
    ('a', 'm', 'paper', 4, 0, 1, 3, 0.5::float, 1.0::float),
    ('a', 'm', 'paper', 5, 0, 3, 3, 0.5::float, 1.0::float),
    ('a', 'm', 'paper', 6, 0, 4, 3, 0.5::float, 1.0::float),
    ('a', 'm', 'paper', 7, 0, 5, 3, 0.5::float, 1.0::float),
    ('b', 'm', 'code', 0, 1, 3, 2, 0.5::float, 1.0::float),
    ('b', 'm', 'code', 1, 3, 0, 1, 0.5::float, 1.0::float),
    ('b', 'other', 'code', 0, 3, 2, 2, 0.5::float, 1.0::float)
) as rows(instance_id, method, algorithm, position, parent, child, layer, attr, prop)
"""
NODES = """
create table tree_nodes as from (values
    ('a', 'm', 'paper', 0, 0, false, 2, 0.0::float),
    ('a', 'm', 'paper', 1, 1, false, 1, 0.5::float),
    ('a', 'm', 'paper', 2, -1, false, null, 0.0::float),
    ('a', 'm', 'paper', 3, 1, true, 0, 1.0::float),
    ('a', 'm', 'paper', 4, 1, false, 1, 0.0::float),
    ('a', 'm', 'paper', 5, 0, false, 2, 0.0::float),
    ('b', 'm', 'code', 0, 0, false, 2, 0.0::float),
    ('b', 'm', 'code', 1, 1, true, 0, 1.0::float),
    ('b', 'm', 'code', 2, -1, false, null, 0.0::float),
    ('b', 'm', 'code', 3, 1, false, 1, 0.0::float),
    ('b', 'other', 'code', 2, 0, false, 1, 0.0::float),
    ('b', 'other', 'code', 3, 1, true, 0, 1.0::float),
    -- A token without anything to take from, and an instance without a tree.
    ('a', 'alone', 'code', 1, 0, true, 0, 1.0::float),
    ('b', 'alone', 'code', 1, -1, false, null, 0.0::float)
) as rows(instance_id, method, algorithm, token, state, is_root, depth, top_score)
"""
HEADS = """
create table heads as select *, top1 as attr_max from (values
    ('a', 'm', 0, 0, 0.50::float, 0.9::float, 0, 3, 0.5::float, 1, 3, 0.25::float, 3.0, 6.0),
    ('a', 'm', 0, 1, 0.25::float, 0.8::float, 1, 1, 0.25::float, 1, 2, 0.0::float, 1.0, 8.0),
    ('a', 'm', 1, 0, 0.50::float, 0.7::float, 5, 4, 0.5::float, 0, 0, 0.5::float, null, null),
    ('b', 'm', 0, 0, -0.5::float, 0.5::float, 0, 0, -0.5::float, 1, 1, -1.0::float, 1.0, 0.0),
    ('b', 'm', 0, 1, 0.25::float, 0.4::float, 3, 1, 0.25::float, 2, 0, 0.125::float, 2.0, 0.0),
    ('b', 'm', 1, 0, 0.00::float, 0.3::float, 2, 2, 0.0::float, 0, 1, 0.0::float, null, null),
    ('b', 'one', 0, 0, 0.0::float, 1.0::float, 0, 0, 0.0::float, null, null, null, 1.0, 1.0)
) as rows(
    instance_id, method, layer, head, largest, attention_mean, top1_from, top1_to, top1,
    top2_from, top2_to, top2, taylor_loss, taylor_logits
)
"""
VIEWS = ("head_importance", "receptive_field", "attribution_tree", "trigger_candidates")


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        for table in (INSTANCES, EDGES, NODES, HEADS):
            connection.execute(table)
        create_tables(connection, "attributions", "layers", "information")
        for view in ("compared", *VIEWS):
            connection.execute(source(view))
        yield connection


def select(connection: duckdb.DuckDBPyConnection, sql: str) -> list[Row]:
    cursor = connection.execute(sql)
    assert cursor.description is not None
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def tuples(connection: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[Any, ...]]:
    return connection.execute(sql).fetchall()


def source(view: str) -> str:
    return (files("attribeam.schemas") / "sql" / f"{view}.sql").read_text(encoding="utf-8")


@pytest.mark.parametrize("view", VIEWS)
def test_every_column_is_explained(connection: duckdb.DuckDBPyConnection, view: str) -> None:
    lines = [line[3:] for line in source(view).splitlines() if line.startswith("--")]
    explained = list(View(view, "\n".join(lines), "").columns)
    columns = [column for (column, *_) in tuples(connection, f"describe {view}")]
    assert explained == [name for name in columns if name not in ("instance_id", "method")]


def test_head_importance(connection: duckdb.DuckDBPyConnection) -> None:
    found = select(connection, "from head_importance_over(common := false)")
    names = ("method", "layer", "head", "n", "tokens", "importance", "rank", "layer_rank")
    assert [tuple(row[name] for name in names) for row in found] == [
        # Of equal means the lower layer is first.
        ("m", 0, 0, 2, 5.0, 0.0, 3, 2),
        ("m", 0, 1, 2, 5.0, 0.25, 1, 1),
        ("m", 1, 0, 2, 5.0, 0.25, 2, 1),
        ("one", 0, 0, 1, 4.0, 0.0, 1, 1),
    ]
    assert [row["attention"] for row in found] == pytest.approx([0.7, 0.6, 0.5, 1.0])
    assert [row["taylor_loss"] for row in found] == [2.0, 1.5, None, 1.0]
    assert [row["taylor_logits"] for row in found] == [3.0, 4.0, None, 1.0]
    assert [row["taylor_logits_norm"] for row in found] == [sqrt(9 + 16)] * 2 + [None, 1.0]
    assert [row["left_out"] for row in found] == [0, 0, 0, 1]
    # Both methods have the second instance alone.
    both = select(connection, "from head_importance")
    assert [(row["method"], row["n"], row["left_out"], row["importance"]) for row in both] == [
        ("m", 1, 1, -0.5),
        ("m", 1, 1, 0.25),
        ("m", 1, 1, 0.0),
        ("one", 1, 1, 0.0),
    ]


def test_receptive_field(connection: duckdb.DuckDBPyConnection) -> None:
    assert tuples(connection, "from receptive_field") == [
        ("m", "code", 1, 1, 3.0, 3, 3, 3, 3, 3, 0.0),
        ("m", "code", 2, 1, 2.0, 2, 2, 2, 2, 2, 0.0),
        # Distances 1; 1; 2 and 1. Those from [CLS] in the last layer are left out.
        ("m", "paper", 0, 1, 1.0, 1, 1, 1, 1, 1, 1.0),
        ("m", "paper", 1, 1, 1.0, 1, 1, 1, 1, 1, 1.0),
        ("m", "paper", 2, 2, 1.5, 1, 1, 1, 2, 2, 0.5),
        ("other", "code", 2, 1, 1.0, 1, 1, 1, 1, 1, 1.0),
    ]


def test_attribution_tree(connection: duckdb.DuckDBPyConnection) -> None:
    columns = "instance_id, method, token, text, depth, parent, layer, attr, prop, state, path"
    assert tuples(connection, f"select {columns} from attribution_tree") == [
        ("a", "alone", 1, "not", 0, None, None, None, None, 0, [1]),
        ("a", "m", 3, "bad", 0, None, None, None, None, 1, [3]),
        ("a", "m", 1, "not", 1, 3, 2, 0.5, 1.0, 1, [3, 1]),
        ("a", "m", 0, "[CLS]", 2, 1, 1, 0.125, 1.0, 0, [3, 1, 0]),
        ("a", "m", 4, "film", 1, 3, 2, 0.25, 0.5, 1, [3, 4]),
        ("a", "m", 5, "[SEP]", 2, 4, 0, 0.5, 1.0, 0, [3, 4, 5]),
        ("b", "m", 1, "the", 0, None, None, None, None, 1, [1]),
        ("b", "m", 3, "[SEP]", 1, 1, 2, 0.5, 1.0, 1, [1, 3]),
        ("b", "m", 0, "[CLS]", 2, 3, 1, 0.5, 1.0, 0, [1, 3, 0]),
        ("b", "other", 3, "[SEP]", 0, None, None, None, None, 1, [3]),
        ("b", "other", 2, "[MASK]", 1, 3, 2, 0.5, 1.0, 0, [3, 2]),
    ]
    texts = tuples(connection, "select path_text from attribution_tree where token = 5")
    assert texts == [(["bad", "film", "[SEP]"],)]
    # The depths that were stored are those of the paths.
    keys = "instance_id, method, algorithm, token, depth"
    nodes = tuples(connection, f"select {keys} from tree_nodes where state >= 0 order by all")
    assert nodes == tuples(connection, f"select {keys} from attribution_tree order by all")


def test_trigger_candidates(connection: duckdb.DuckDBPyConnection) -> None:
    found = tuples(connection, "from trigger_candidates")
    assert found == [
        # Layers 0 and 1 are equal.
        ("a", "m", 0, 0, 0.75, 0.5, 0.5, 0, 3, "[CLS]", "bad", 0.25, 1, 3, "not", "bad"),
        ("b", "m", 0, 1, 0.375, 0.5, 0.25, 3, 1, "[SEP]", "the", 0.125, 2, 0, "[MASK]", "[CLS]"),
        ("b", "one", 0, 0, 0.0, None, 0.0, 0, 0, "[CLS]", "[CLS]", *[None] * 5),
    ]
