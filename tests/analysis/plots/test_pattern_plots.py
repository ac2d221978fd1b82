"""Plots of influence patterns: what the figures hold, against the views and literal rows."""

from collections.abc import Iterator
from itertools import pairwise

import duckdb
import plotly.graph_objects as go
import pytest

from attribeam.analysis.plots.figures import COLOURS, Row
from attribeam.analysis.plots.patterns import (
    PATTERN_PLOTS,
    pattern_ablation,
    pattern_consistency,
    pattern_flow,
)
from attribeam.analysis.plots.plots import page
from tests.schemas.test_pattern_views import LAYERS, Tables

# Two words and the position that is read out; the verb takes the subject's way from layer 1 on.
FLOW: list[Row] = [
    {
        "method": "m",
        "subset": "a",
        "source_role": role,
        "position": position,
        "readout": 3.0,
        "n": 8,
        "modal_nodes": nodes,
        "modal_heads": heads,
        "modal_share": 0.75,
        "modal_influence": influence,
    }
    for role, position, nodes, heads, influence in (
        ("subject", 1.0, ["subject", "subject", "target"], [-1, 4], 0.5),
        ("verb", 2.0, ["verb", "subject", "target"], [2, 4], 0.25),
    )
]


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with Tables().connect() as connection:
        yield connection


def rows_of(connection: duckdb.DuckDBPyConnection, name: str, **named: str) -> list[Row]:
    query = PATTERN_PLOTS[name].query
    asked = {key: named.get(key) for key in ("method", "subset") if f"${key}" in query}
    cursor = connection.execute(query, asked)
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


@pytest.mark.parametrize("name", PATTERN_PLOTS)
def test_a_page_from_the_views(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    rows = rows_of(connection, name, method="m")
    assert rows and "Plotly.newPlot" in page(PATTERN_PLOTS[name].draw(rows))
    # There is one method; sums in another order differ in their last digits.
    assert len(rows_of(connection, name)) == len(rows)
    assert rows_of(connection, name, method="another") == []


def links(figure: go.Figure) -> list[tuple[str, str, float, str]]:
    """From where, to where, how wide and in what colour."""
    sankey = figure.data[0]
    names = sankey.node.customdata
    of = sankey.link
    return [
        (names[one], names[other], value, colour)
        for one, other, value, colour in zip(of.source, of.target, of.value, of.color, strict=True)
    ]


def test_links_of_the_flow() -> None:
    figure = pattern_flow(FLOW)
    head, skip = (trace.line.color for trace in figure.data[1:])
    assert [trace.name for trace in figure.data[1:]] == ["attention head", "skip connection"]
    assert links(figure) == [
        ("subject@0", "subject@1", 0.5, skip),
        ("subject@1", "target@2", 0.5, head),
        ("verb@0", "subject@1", 0.25, head),
        ("subject@1", "target@2", 0.25, head),
    ]
    assert (
        figure.data[0].link.customdata[2]
        == "layer 0, head 2<br>of verb, influence 0.25, in 75% of 8"
    )
    assert "a (most frequent" in figure.layout.title.text


def test_places_of_the_flow() -> None:
    node = pattern_flow(FLOW).data[0].node
    place = dict(zip(node.customdata, zip(node.x, node.y, strict=True), strict=True))
    # A column a layer, a row a role, and what all end in where it stands in the sentence.
    assert [place[name][0] for name in ("subject@0", "subject@1", "target@2")] == [
        0.001,
        0.5,
        0.999,
    ]
    assert place["subject@0"][1] == place["subject@1"][1]
    assert place["subject@0"][1] < place["verb@0"][1] < place["target@2"][1]
    # A name stands where a row begins or is come into.
    names = dict(zip(node.customdata, node.label, strict=True))
    assert names == {name: name for name in names}
    long = {"modal_nodes": ["subject"] * 3 + ["target"], "modal_heads": [-1, -1, 4]}
    straight: list[Row] = [{**FLOW[0], **long}]
    assert list(pattern_flow(straight).data[0].node.label) == ["subject@0", "", "", "target@3"]


@pytest.mark.parametrize("subset", ["a", "b", None])
def test_rows_of_the_flow_do_not_touch(
    connection: duckdb.DuckDBPyConnection, subset: str | None
) -> None:
    named = {} if subset is None else {"subset": subset}
    rows = rows_of(connection, "pattern_flow", **named)
    # Without a name it is the first.
    assert {row["subset"] for row in rows} == {subset or "a"}
    figure = pattern_flow(rows)
    sankey = figure.data[0]
    total = sum(row["modal_influence"] for row in rows)
    assert sum(sankey.link.value) == pytest.approx(LAYERS * total)
    height = figure.layout.height - figure.layout.margin.t - figure.layout.margin.b
    filled = 1 - sankey.node.pad * (len(rows) - 1) / height
    # Plotly takes no more than two thirds of a column for the space between nodes.
    assert filled > 1 / 3
    through = [0.0] * len(sankey.node.x)
    for one, other, value in zip(
        sankey.link.source, sankey.link.target, sankey.link.value, strict=True
    ):
        through[other] += value
        if sankey.node.x[one] < 0.01:
            through[one] += value
    columns: dict[float, list[tuple[float, float]]] = {}
    for x, y, value in zip(sankey.node.x, sankey.node.y, through, strict=True):
        columns.setdefault(x, []).append((y, filled * value / total))
    assert len(columns) == LAYERS + 1
    for column in columns.values():
        column.sort()
        for (above, one), (below, other) in pairwise(column):
            assert above + one / 2 <= below - other / 2 + 1e-9
        assert column[0][0] - column[0][1] / 2 > -0.002
        assert column[-1][0] + column[-1][1] / 2 < 1.002


def test_a_flow_of_nothing() -> None:
    still: list[Row] = [{**row, "modal_influence": 0.0, "subset": None} for row in FLOW]
    figure = pattern_flow(still)
    assert set(figure.data[0].link.value) == {0.0}
    assert "all instances" in figure.layout.title.text


def test_consistency(connection: duckdb.DuckDBPyConnection) -> None:
    rows = rows_of(connection, "pattern_consistency")
    figure = pattern_consistency(rows)
    roles = {row["source_role"] for row in rows}
    assert len(figure.data) == 2 * len(roles)
    points = {
        (trace.xaxis, trace.name, point[0]): (x, y)
        for trace in figure.data
        for x, y, point in zip(trace.x, trace.y, trace.customdata, strict=True)
    }
    axis = {"embedding": "x", "attention": "x2"}
    assert points == {
        (axis[row["level"]], row["source_role"], row["subset"] or ""): (
            row["entropy"],
            row["accuracy"],
        )
        for row in rows
    }
    # A role looks like no other, and alike at both levels.
    looks = {(t.name, t.marker.color, t.marker.symbol) for t in figure.data}
    assert len(looks) == len({look[1:] for look in looks}) == len(roles)
    assert sum(trace.showlegend for trace in figure.data) == len(roles)
    titles = [note.text for note in figure.layout.annotations]
    (of_embedding,) = {row["correlation"] for row in rows if row["level"] == "embedding"}
    assert titles[0] == f"embedding level, r = {of_embedding:.2f}"
    assert {"a", "b"} <= set(titles) and f"{rows[0]['n']} instances" in figure.layout.title.text


def test_names_of_subsets_keep_apart() -> None:
    row: dict[str, object] = {
        "method": "m",
        "level": "attention",
        "source_role": "subject",
        "position": 1.0,
        "n": 8,
        "modal_pattern": "subject>target | 1",
        "correlation": None,
    }
    accuracies = {"one": 0.9, "two": 0.9, "three": 0.5}
    rows: list[Row] = [
        row | {"subset": subset, "entropy": index / 2, "accuracy": accuracy}
        for index, (subset, accuracy) in enumerate(accuracies.items())
    ]
    notes = {note.text: note.y for note in pattern_consistency(rows).layout.annotations}
    assert notes["one"] == 0.9 and notes["three"] == 0.5
    assert notes["two"] == pytest.approx(0.9 - 0.045 * 0.4)
    # Where nothing correlates, the title says nothing of it.
    assert "attention level" in notes


def test_ablation(connection: duckdb.DuckDBPyConnection) -> None:
    rows = rows_of(connection, "pattern_ablation")
    figure = pattern_ablation(rows)
    assert [trace.name for trace in figure.data] == ["all instances", "a", "b"]
    assert [trace.marker.color for trace in figure.data] == [COLOURS[-1], *COLOURS[:2]]
    for trace, subset in zip(figure.data, (None, "a", "b"), strict=True):
        kept = {row["kind"]: row["accuracy_kept"] for row in rows if row["subset"] == subset}
        assert dict(zip(trace.x, trace.y, strict=True)) == kept
    # The best that there may be is first, and what is compared with is no bar.
    assert list(figure.layout.xaxis.categoryarray) == ["attention", "nothing"]
    row = next(row for row in rows if row["kind"] == "attention" and row["subset"] is None)
    assert figure.data[0].customdata[0][1] == (
        f"{row['nodes']:.1f} nodes, {row['heads']:.1f} heads, {row['skips']:.1f} skips"
    )


def test_more_subsets_than_colours() -> None:
    row: dict[str, object] = {"method": "m", "kind": "attention", "n": 4, "nodes": 3.0}
    row |= {"accuracy": 0.5, "accuracy_kept": 0.6, "heads": None, "skips": None}
    subsets = [None, *(f"s{index}" for index in range(8))]
    rows: list[Row] = [row | {"subset": subset} for subset in subsets]
    figure = pattern_ablation(rows)
    assert len(figure.data) == len(COLOURS) == len({trace.marker.color for trace in figure.data})
    assert "2 more subsets not shown" in figure.layout.title.text
    assert figure.data[0].customdata[0][1] == "3.0 nodes"
