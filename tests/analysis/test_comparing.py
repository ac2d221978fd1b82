"""Two runs compared: agreement and paired differences against plain Python, names, refusals."""

import html
import json
import re
from dataclasses import replace
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

import attribeam as ab
from attribeam.analysis import compare, open_run
from attribeam.analysis.report.compared import _page
from attribeam.schemas import UsageError
from tests.support.synthetic_run import SyntheticRun, synthetic_run, write_run
from tests.support.tiny import command

ROWS = 8


@pytest.fixture(scope="module")
def runs() -> tuple[SyntheticRun, SyntheticRun]:
    """Two runs of the same instances, of which the other one's scores and curves differ."""
    one, other = (synthetic_run(seed=3, rows=ROWS, failing=False, dtype="float64") for _ in "ab")
    rng = np.random.default_rng(0)
    for row in other.attributions:
        row["scores"] = [score + rng.normal() for score in row["scores"]]
    for row in other.curves:
        if row["fraction"] > 0:
            row["probability"] *= 0.5 if row["method"] == "paths" else rng.uniform(0.7, 1)
    # One is explained for another class, and one is made of other tokens.
    for row in other.attributions:
        if row["instance_id"] == "row-0" and row["target"] is not None:
            row["target"] += 1
    other.instances[1]["input_ids"] = [7 for _ in other.instances[1]["input_ids"]]
    return one, other


@pytest.fixture(scope="module")
def folders(
    runs: tuple[SyntheticRun, SyntheticRun], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("runs")
    return write_run(runs[0], root / "one"), write_run(runs[1], root / "two-b")


def test_scores_of_two_runs(
    runs: tuple[SyntheticRun, SyntheticRun], folders: tuple[Path, Path]
) -> None:
    one, other = runs
    with open_run(folders[0], others={"o": folders[1]}, commented=False) as connection:
        found = connection.execute("from agreement_with('o')").fetchall()
    by_key = {(row["instance_id"], row["method"]): row for row in other.attributions}
    special = {row["instance_id"]: (row["special"], row["readout"]) for row in one.instances}
    for method, n, spearman, absolute, _, other_class, other_tokens in found:
        values: dict[str, list[float]] = {"signed": [], "absolute": []}
        for row in one.attributions:
            theirs = by_key[row["instance_id"], row["method"]]
            flags, readout = special[row["instance_id"]]
            free = [at for at, own in enumerate(flags) if not own and at != readout]
            if row["method"] != method or row["instance_id"] == "row-1":
                continue
            if row["target"] != theirs["target"] or len(free) < 1:
                continue
            pair = [np.array(scores)[free] for scores in (row["scores"], theirs["scores"])]
            values["signed"].append(spearmanr(*pair).statistic)
            values["absolute"].append(spearmanr(*map(np.abs, pair)).statistic)
        assert n == len(values["signed"])
        assert (spearman, absolute) == tuple(
            pytest.approx(mean(x for x in own if not np.isnan(x))) for own in values.values()
        )
        assert other_tokens == 1
        assert other_class == ROWS - 1 - n
    assert {row[0] for row in found} == {"attention", "gradient", "paths"}
    assert {row[5] for row in found} >= {1}


def test_faithfulness_of_two_runs(folders: tuple[Path, Path]) -> None:
    sql = "select instance_id, method, comprehensiveness from {}faithfulness_by_instance"
    with open_run(folders[0], others={"o": folders[1]}, commented=False) as connection:
        ours, theirs = (
            {(name, method): value for name, method, value in connection.execute(s).fetchall()}
            for s in (sql.format(""), sql.format("o."))
        )
        found = compare(*folders)
    rows = {r["method"]: r for r in found.faithfulness if r["metric"] == "comprehensiveness"}
    for method, row in rows.items():
        own = [ours[key] - theirs[key] for key in ours if key[1] == method and key in theirs]
        assert row["n"] == len(own)
        assert row["difference"] == pytest.approx(mean(own))
        assert row["low"] <= row["difference"] <= row["high"]
    # Halved probabilities are far from what they were.
    assert rows["paths"]["verdict"] == "two-b"
    (ranking,) = [r for r in found.rankings if r["metric"] == "comprehensiveness"]
    names = sorted(rows)
    expected = kendalltau(
        [rows[name]["value"] for name in names], [rows[name]["other_value"] for name in names]
    ).statistic
    assert ranking["kendall"] == pytest.approx(expected)
    assert found.names == ("one", "two-b")
    assert len(found.verdict) == 3
    assert found.verdict[1].startswith("comprehensiveness (")
    assert "two-b under" in found.verdict[1] and "paths [" in found.verdict[1]
    counted = [
        list(rows.values()),
        *([r for r in rows.values() if r["verdict"] == v] for v in ("one", "two-b", "neither")),
    ]
    assert [sum(ranking["better"]), *ranking["better"]] == list(map(len, counted))


def test_a_run_is_as_good_as_itself(folders: tuple[Path, Path]) -> None:
    found = compare(folders[0], folders[0])
    assert ">-0.000" not in _page(
        replace(
            found,
            faithfulness=[{**row, "difference": -1e-9, "low": -1e-9} for row in found.faithfulness],
        )
    )
    assert {row["verdict"] for row in found.faithfulness} == {"neither"}
    assert {(row["spearman"], row["other_class"]) for row in found.agreement} == {(1, 0)}


def test_several_runs_on_the_command_line(folders: tuple[Path, Path]) -> None:
    sql = "select (select count(*) from one.instances) + count(*) as n from two_b.instances"
    outcome = command("query", *folders, sql, "--format", "csv")
    assert (outcome.status, outcome.out.splitlines()) == (0, ["n", str(2 * ROWS)])
    assert outcome.err.splitlines() == [f"one: {folders[0]}", f"two_b: {folders[1]}"]
    outcome = command("query", folders[0], folders[0], "from one_2.methods", "--format", "csv")
    assert outcome.status == 0 and f"one_2: {folders[0]}" in outcome.err
    macro = "select count(*) as n from agreement_with('two_b')"
    outcome = command("query", *folders, macro, "--format", "csv")
    assert outcome.out.splitlines() == ["n", "3"]


def test_nothing_in_common(folders: tuple[Path, Path], tmp_path: Path) -> None:
    stranger = synthetic_run(seed=9, rows=3, failing=False)
    for table in (stranger.instances, stranger.attributions, stranger.curves, stranger.layers):
        for row in table:
            row["instance_id"] = f"other-{row['instance_id']}"
    for row in stranger.instances:
        row["row_id"] = row["instance_id"]
    stranger.information.clear()
    stranger.shards = {f"other-{name}": shard for name, shard in stranger.shards.items()}
    folder = write_run(stranger, tmp_path / "stranger")
    with pytest.raises(UsageError, match="no instance in common"):
        compare(folders[0], folder)


def test_opened_runs_compare(folders: tuple[Path, Path]) -> None:
    with ab.open_run(folders[0]) as one, ab.open_run(folders[1]) as two:
        found = one.compare(two)
    assert found.names == ("one", "two-b")
    assert str(found) == "\n".join(found.verdict)
    assert [row["name"] for row in found.runs] == ["one", "two-b"]


def test_page_of_two_runs(folders: tuple[Path, Path]) -> None:
    """All differences are in the table as they are, and drawn; nothing of a run is markup."""
    outcome = command("report", *folders)
    path = folders[0] / "compared.html"
    assert (outcome.status, outcome.out.strip()) == (0, str(path))
    page = path.read_text(encoding="utf-8")
    found = compare(*folders)
    for sentence in found.verdict:
        assert sentence in html.unescape(page)
    for row in found.faithfulness:
        interval = f"<td>{row['low']:.3f} to {row['high']:.3f}</td>"
        assert f"<td>{row['difference']:.3f}</td>{interval}" in page
    (data,) = re.findall(r'id="figures-data">(.*?)</script>', page)
    figures = json.loads(data)["differences"]
    rows = [row for row in found.faithfulness if row["metric"] == "comprehensiveness"]
    dots = next(f for f in figures if f["layout"]["title"]["text"].startswith("compreh"))["data"][0]
    assert sorted(dots["x"]) == pytest.approx(sorted(row["difference"] for row in rows))
    assert (dots["marker"]["symbol"].count("circle")) == sum(
        row["verdict"] != "neither" for row in rows
    )


def test_page_takes_two_runs(folders: tuple[Path, Path]) -> None:
    outcome = command("report", *folders, folders[0])
    assert outcome.status == 2
    assert "--reproduce" in outcome.err


def test_runs_of_two_tokenizers(tmp_path: Path) -> None:
    """Curves of the same rows are compared though no tokens are the same."""
    one, other = (synthetic_run(seed=3, rows=4, failing=False) for _ in "ab")
    for instance in other.instances:
        instance["input_ids"] = [7 for _ in instance["input_ids"]]
    found = compare(write_run(one, tmp_path / "one"), write_run(other, tmp_path / "other"))
    assert {(row["n"], row["other_tokens"]) for row in found.agreement} == {(0, 4)}
    assert {row["n"] for row in found.faithfulness} == {4}
