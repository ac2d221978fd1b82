"""Plots: what the figures hold, against the views; and pages that need no network."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attribeam.analysis import open_run
from attribeam.analysis.plots.flow import degradation, information_flow
from attribeam.analysis.plots.heads import pruning
from attribeam.analysis.plots.plots import PLOTS, plot
from attribeam.schemas import UsageError, table_schema
from tests.support.synthetic_run import NUM_LAYERS, synthetic_run, write_run

RATES = (0.0, 0.5, 1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(synthetic_run(rows=30), tmp_path_factory.mktemp("run"))
    write_pruning(folder, "attattr-a", 20)
    write_pruning(folder, "attattr-b", 10)
    return folder


def write_pruning(folder: Path, evaluation: str, count: int) -> None:
    """Writes an evaluation by attributions and by three random orders, each worse than the last."""
    rows = [
        {
            "evaluation": evaluation,
            "method": "attattr",
            "importance": importance,
            "seed": seed,
            "corpus": "dev.parquet",
            "rate": rate,
            "pruned": int(12 * rate),
            "heads": 12,
            "n": count,
            "correct": count - int(count * rate) // (4 - (seed or 0)),
            "accuracy": 1 - rate / (4 - (seed or 0)),
            "loss": rate,
        }
        for importance, seed in (("attattr", None), *(("random", seed) for seed in range(3)))
        for rate in RATES
    ]
    (folder / "pruning").mkdir(exist_ok=True)
    content = pa.Table.from_pylist(rows, table_schema("pruning"))
    pq.write_table(content, folder / "pruning" / f"{evaluation}.parquet")


def rows_of(folder: Path, name: str) -> list[Mapping[str, Any]]:
    with open_run(folder, commented=False) as connection:
        cursor = connection.execute(PLOTS[name].query, {"method": None})
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


# Those of patterns and pictures have tests of their own.
@pytest.mark.parametrize(
    "name", [name for name in PLOTS if not name.startswith(("pattern_", "overlays"))]
)
def test_a_page_of_its_own(folder: Path, tmp_path: Path, name: str) -> None:
    path = plot(folder, name, tmp_path / "plot.html")
    page = path.read_text(encoding="utf-8")
    assert page.startswith("<html>") and "Plotly.newPlot" in page
    # plotly's script is in the page, and nothing is fetched.
    assert len(page) > 1_000_000
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page)


def test_it_lies_in_the_run_by_default(folder: Path) -> None:
    assert plot(folder, "degradation") == folder / "degradation.html"
    assert (folder / "degradation.html").is_file()


def test_information_flow(folder: Path) -> None:
    with open_run(folder, commented=False) as connection:
        cursor = connection.execute("from information_flow where method = 'attention'")
        names = [column[0] for column in cursor.description or ()]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        per_instance = connection.execute(
            "select layer, sum(bits) / count(distinct instance_id) from information_tokens "
            "group by layer order by layer"
        ).fetchall()
    figure = information_flow(rows)
    bars = [trace for trace in figure.data if trace.type == "bar"]
    lines = [trace for trace in figure.data if trace.type == "scatter"]
    for trace in bars:
        assert list(trace.x) == list(range(NUM_LAYERS))
    # Stacked, the bars are the information of an instance.
    for layer, bits in per_instance:
        assert sum(trace.y[layer] for trace in bars) == pytest.approx(bits, rel=1e-9)
    for trace in lines:
        role, says = trace.name.split(", ")
        correct = {"right": True, "wrong": False, "without label": None}[says]
        own = [row for row in rows if (row["role"], row["correct"]) == (role, correct)]
        expected = {row["layer"]: row["share"] for row in own}
        assert dict(zip(trace.x, trace.y, strict=True)) == expected
    assert {trace.line.dash for trace in lines} == {"solid", "dash"}


def test_degradation(folder: Path) -> None:
    rows = rows_of(folder, "degradation")
    figure = degradation(rows)
    methods = list(dict.fromkeys(row["method"] for row in rows))
    assert [trace.legendgroup for trace in figure.data] == [m for m in methods for _ in range(2)]
    for trace in figure.data:
        assert trace.x[0] == 0 and trace.x[-1] == 1
        assert trace.y[0] == pytest.approx(1) and trace.y[-1] == pytest.approx(0)


def test_pruning(folder: Path) -> None:
    rows = rows_of(folder, "pruning")
    # Of two evaluations the one of more texts.
    assert {row["evaluation"] for row in rows} == {"attattr-a"}
    figure = pruning(rows)
    assert figure.layout.title.text == (
        "Pruning: attattr, 20 texts of dev.parquet; 1 more not shown"
    )
    for axis, measure in (("x", "accuracy"), ("x2", "loss")):
        low, high, attattr, random = sorted(
            (trace for trace in figure.data if trace.xaxis == axis),
            key=lambda trace: (trace.mode != "lines", trace.name or ""),
        )
        assert {tuple(trace.x) for trace in (low, high, attattr, random)} == {RATES}
        own = [row for row in rows if row["importance"] == "attattr"]
        assert list(attattr.y) == [row[measure] for row in own]
        for number, rate in enumerate(RATES):
            values = [r[measure] for r in rows if r["seed"] is not None and r["rate"] == rate]
            assert (low.y[number], high.y[number]) == (min(values), max(values))
            assert random.y[number] == pytest.approx(sum(values) / 3)
        assert (low.fill, high.fill) == (None, "tonexty")
        assert attattr.line.color != random.line.color
        assert random.name == "random (mean of 3)"
    assert sum(trace.showlegend is not False for trace in figure.data) == 2


def test_one_method(folder: Path, tmp_path: Path) -> None:
    page = plot(folder, "degradation", tmp_path / "one.html", method="paths").read_text()
    assert "paths (" in page and "gradient (" not in page


def test_what_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no plot 'pie'; there are information_flow, deg"):
        plot(folder, "pie")
    with pytest.raises(UsageError, match="nothing of gradient to plot as information_flow: run "):
        plot(folder, "information_flow", method="gradient")
    with pytest.raises(UsageError, match="can't be written"):
        plot(folder, "degradation", tmp_path / "none" / "plot.html")
    with pytest.raises(UsageError, match="no run folder"):
        plot(tmp_path, "degradation")
