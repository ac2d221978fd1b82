"""Plots: what the figures hold, against the views; and pages that need no network."""

import re
from pathlib import Path

import pytest

from analysis import open_run
from analysis.plots import PLOTS, degradation, information_flow, plot
from schemas import UsageError
from tests.synthetic_run import NUM_LAYERS, synthetic_run, write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(synthetic_run(rows=30), tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize("name", PLOTS)
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
    with open_run(folder) as connection:
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
    with open_run(folder) as connection:
        cursor = connection.execute(PLOTS["degradation"].query, {"method": None})
        names = [column[0] for column in cursor.description or ()]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    figure = degradation(rows)
    methods = list(dict.fromkeys(row["method"] for row in rows))
    assert [trace.legendgroup for trace in figure.data] == [m for m in methods for _ in range(2)]
    for trace in figure.data:
        assert trace.x[0] == 0 and trace.x[-1] == 1
        assert trace.y[0] == pytest.approx(1) and trace.y[-1] == pytest.approx(0)


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
