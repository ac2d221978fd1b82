"""The evidence page against the views, and each of its numbers against its printed SQL."""

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from attribeam.analysis import open_run
from attribeam.analysis.evidence.cited import LEVEL, cited_table
from attribeam.analysis.evidence.figures import cliques, evidence_figures
from attribeam.analysis.evidence.page import write_evidence
from attribeam.analysis.evidence.robustness import survivals
from attribeam.analysis.opening.database import dict_rows
from attribeam.pipeline.commands.cli import main
from attribeam.schemas import UsageError
from tests.support.synthetic_run import SyntheticRun, synthetic_run, write_run
from tests.transforms.test_degradation import poisson_weights

NAMES = {"gradient": "bt_token", "paths": "random", "attention": "generic_attribution"}
EVIL = "</script><script>alert(1)</script><b>&amp;"
ROWS = 24


@pytest.fixture(scope="module")
def run() -> SyntheticRun:
    """A run of methods that claims are of, one of which is a third as good by one operation."""
    run = synthetic_run(seed=7, rows=ROWS, operations=("mask", "pad"), failing=False)
    methods = run.manifest["methods"]
    families = {"bt_token": "one", "random": "control", "generic_attribution": "two"}
    for old, new in NAMES.items():
        methods[new] = methods.pop(old) | {"family": families[new]}
    for rows in (run.attributions, run.layers, run.information, run.curves):
        for row in rows:
            row["method"] = NAMES[row["method"]]
    for row in run.curves:
        if (row["method"], row["operation"], row["order"]) == ("bt_token", "mask", "morf"):
            row["probability"] *= 1 - row["fraction"]
    run.manifest["evaluation"]["operations"] = ["mask", "pad"]
    run.manifest["identity"]["model"]["source"] = EVIL
    return run


@pytest.fixture(scope="module")
def folder(run: SyntheticRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(run, tmp_path_factory.mktemp("evidence") / "run")


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    assert main(["report", str(folder), "--reproduce"]) == 0
    return (folder / "evidence.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def connection(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_run(folder, commented=False) as connection:
        yield connection


def test_table(connection: duckdb.DuckDBPyConnection) -> None:
    table = cited_table(connection)
    tests = list(dict_rows(connection, "from faithfulness_differences"))
    for measure in table.measures:
        found = {row["method"]: row for row in dict_rows(connection, measure.sql)}
        for method, entry in measure.entries.items():
            values = [v for v in found[method].values() if isinstance(v, float)]
            assert any(v == pytest.approx(entry.value, rel=1e-6) for v in values)
    assert table.methods[0] == ("random", "control")
    assert {method for method, _ in table.methods} == set(NAMES.values())
    labels = [measure.label for measure in table.measures]
    assert labels[:2] == ["area, mask", "area, pad"]
    marks = set()
    for measure, operation in zip(table.measures[:2], ("mask", "pad"), strict=True):
        known = {m: e.value for m, e in measure.entries.items() if e.value is not None}
        best = max((m for m in known if m != "random"), key=lambda m: known[m])
        for method, entry in measure.entries.items():
            assert entry.best == (method == best)
            p = [
                row["p_holm"]
                for row in tests
                if (row["operation"], row["metric"]) == (operation, "auc_difference")
                and {row["method_a"], row["method_b"]} == {method, best}
            ]
            assert entry.tied == (method != best and p[0] >= LEVEL)
            marks.add((entry.best, entry.tied))
    assert marks == {(True, False), (False, True), (False, False)}


def test_rows_of_a_method_of_another_class_have_no_mark(run: SyntheticRun, tmp_path: Path) -> None:
    """Curves that follow the gold class can't be the best of those that follow the predicted."""
    other = synthetic_run(seed=7, rows=8, failing=False)
    other.manifest["methods"]["gradient"]["params"] = {"target": "gold"}
    for row in other.curves:
        if row["method"] == "gradient":
            row["target"] = (row["target"] + 1) % 3
    with open_run(write_run(other, tmp_path / "run"), commented=False) as connection:
        table = cited_table(connection)
    assert table.apart == ["gradient"]
    own = [m.entries["gradient"] for m in table.measures if m.tested]
    assert own
    assert not any(entry.best or entry.tied for entry in own)


def test_order_of_three_methods_survives(tmp_path: Path) -> None:
    run = synthetic_run(seed=2, rows=8, operations=("mask", "pad"), failing=False)
    path = write_run(run, tmp_path / "run")
    with open_run(path, others={"same": path}, commented=False) as connection:
        found = {row.what: row for row in survivals(connection, ["same"])}
        again = [row["kendall"] for row in dict_rows(connection, found["by mask and by pad"].sql)]
        scores = list(dict_rows(connection, "from faithfulness_by_instance"))
    names = sorted({row["instance_id"] for row in scores})
    weights = np.vstack([np.ones(len(names)), poisson_weights(names)])

    def means(column: str, operation: str) -> np.ndarray[Any, Any]:
        """A method's mean, weighed, by draw of the bootstrap."""
        known = {
            (row["instance_id"], row["method"]): row[column]
            for row in scores
            if row["operation"] == operation
        }
        methods = ("attention", "gradient", "paths")
        return weights @ np.array([[known[name, method] for method in methods] for name in names])

    for what, one, other in (
        ("by mask and by pad", means("auc_difference", "mask"), means("auc_difference", "pad")),
        (
            "most and least relevant first, by mask",
            -means("auc_morf", "mask"),
            means("auc_lerf", "mask"),
        ),
    ):
        taus = sum(
            np.sign(one[:, a] - one[:, b]) * np.sign(other[:, a] - other[:, b])
            for a, b in ((0, 1), (0, 2), (1, 2))
        ) / np.float64(3)
        row = found[what]
        assert (row.methods, row.kendall) == (3, pytest.approx(taus[0]))
        low, high = np.percentile(taus[1:], [2.5, 97.5])
        assert row.interval == f"{low:.3f} to {high:.3f}"
    assert again == [pytest.approx(found["by mask and by pad"].kendall)]
    between = [row for what, row in found.items() if what.startswith("here and in same")]
    assert len(between) == 6
    assert {row.kendall for row in between} == {1.0}


def test_cliques() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        ranks = sorted(rng.uniform(1, 8, size=int(rng.integers(2, 9))))
        runs = [
            (a, b)
            for a in range(len(ranks))
            for b in range(a + 1, len(ranks))
            if ranks[b] - ranks[a] <= 1.5
        ]
        longest = [
            (a, b)
            for a, b in runs
            if not any((c, d) != (a, b) and c <= a and b <= d for c, d in runs)
        ]
        assert cliques(ranks, 1.5) == longest


def test_figures(connection: duckdb.DuckDBPyConnection) -> None:
    figures = {section.key: section for section, _ in evidence_figures(connection)}
    ranks = {
        row["method"]: row
        for row in dict_rows(connection, "from mean_ranks where operation = 'mask'")
        if row["metric"] == "auc_difference"
    }
    assert set(figures) == {"ranks", "cost-faithfulness"}  # The run has no checks.
    first = figures["ranks"].figures[0]
    assert first.name == "auc_difference, mask"
    dots = first.figure["data"][0]
    found = {name: x for (name, *_), x in zip(dots["customdata"], dots["x"], strict=True)}
    assert found == pytest.approx({name: row["mean_rank"] for name, row in ranks.items()})
    assert dots["x"] == sorted(dots["x"])
    ruler = first.figure["data"][-1]["x"]
    assert ruler[1] - ruler[0] == pytest.approx(ranks["random"]["critical_difference"])


def test_page_holds_what_its_sql_gives(page: str, connection: duckdb.DuckDBPyConnection) -> None:
    """Every number of a claim is the answer to the query that is printed under it."""
    articles = re.findall(r'<article class="claim" id="([\w-]+)">(.*?)</article>', page, re.DOTALL)
    assert len(articles) == 13
    checked = 0
    for _, text in articles:
        queries = re.findall(r'<p class="note">.*?</p><pre>(.*?)</pre>', text, re.DOTALL)
        rows = re.findall(r"<tr><td>.*?</td><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td>", text)
        assert len(queries) == len(rows)
        for query, (value, interval, of) in zip(queries, rows, strict=True):
            (row,) = dict_rows(connection, html.unescape(query))
            assert of.split()[0] == f"{row['n']:,}"
            if value:
                assert value == f"{row['value']:.3f}"
                assert interval == f"{row['low']:.3f} to {row['high']:.3f}"
                checked += 1
    assert checked >= 1
    by_key = dict(articles)
    assert re.search(r'class="chip holds">holds<', by_key["bt-token"])
    assert "--methods bt_head" in by_key["bt-head"]
    assert "not judged" in by_key["attattr-pruning"]


def test_a_comparison_is_the_bootstrap_of_paired_differences(
    page: str, connection: duckdb.DuckDBPyConnection
) -> None:
    scores = {
        (row["instance_id"], row["method"]): row["auc_difference"]
        for row in dict_rows(connection, "from faithfulness_by_instance")
        if row["operation"] == "mask"
    }
    names = sorted({name for name, _ in scores})
    differences = np.array(
        [scores[n, "bt_token"] - scores[n, "generic_attribution"] for n in names]
    )
    weights = poisson_weights(names)
    low, high = np.percentile(weights @ differences / weights.sum(axis=1), [2.5, 97.5])
    assert len(names) == ROWS
    said = f"<td>{differences.mean():.3f}</td><td>{low:.3f} to {high:.3f}</td><td>{ROWS} texts</td>"
    assert said in page


def test_texts_of_a_run_are_no_markup(page: str) -> None:
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_commands_are_code(page: str) -> None:
    assert "needs <code>attribeam prune</code> on a run" in page
    assert "`attribeam" not in re.sub(r"<script.*?</script>|<pre.*?</pre>", "", page, flags=re.S)


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run folder"):
        write_evidence(tmp_path)
