"""Mean ranks of methods against scipy's Friedman test and studentized range."""

import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import friedmanchisquare, rankdata, studentized_range

from attribeam.analysis import open_run
from attribeam.analysis.opening.database import dict_rows
from tests.support.synthetic_run import METHODS, synthetic_run, write_run
from tests.transforms.test_degradation import poisson_weights


def test_mean_ranks(tmp_path: Path) -> None:
    """Of windows of one text, ties, and a text that a method lacks."""
    run = synthetic_run(seed=5, rows=11, shard_size=11, failing=True)
    for row in run.curves:
        if row["instance_id"] in ("row-6", "row-7") and row["fraction"] > 0:
            row["probability"] = 0.25  # All methods are equal there.
    for instance in run.instances:
        if instance["instance_id"] in ("row-8", "row-9"):
            instance["row_id"] = "text"
    texts = {row["instance_id"]: row["row_id"] for row in run.instances}
    with open_run(write_run(run, tmp_path / "run"), commented=False) as connection:
        rows = [dict(row) for row in dict_rows(connection, "from mean_ranks")]
        scores = list(dict_rows(connection, "from faithfulness_by_instance"))
        two = list(
            dict_rows(
                connection,
                "from mean_ranks_over(methods := ['paths', 'gradient']) where metric = 'aopc'",
            )
        )
    assert {row["metric"] for row in rows} == {
        *("comprehensiveness", "sufficiency", "aopc", "auc_difference")
    }
    for metric in {row["metric"] for row in rows}:
        values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for score in scores:
            values[texts[score["instance_id"]]][score["method"]].append(score[metric])
        sign = 1 if metric == "sufficiency" else -1
        names = [name for name, own in values.items() if len(own) == len(METHODS)]
        table = np.array([[sign * np.mean(values[n][m]) for m in METHODS] for n in names])
        places = np.array([rankdata(line) for line in table])
        weights = poisson_weights(names)
        replicates = (weights @ places) / weights.sum(axis=1)[:, None]
        own = {row["method"]: row for row in rows if row["metric"] == metric}
        for at, method in enumerate(METHODS):
            row = own[method]
            assert (row["n"], row["methods"]) == (len(names), 3)
            assert row["left_out"] == len(values) - len(names) > 0
            assert row["mean_rank"] == pytest.approx(places[:, at].mean(), abs=1e-10)
            bounds = np.percentile(replicates[:, at], [2.5, 97.5])
            assert (row["low"], row["high"]) == pytest.approx(tuple(bounds), abs=1e-10)
            assert row["friedman"] == pytest.approx(
                friedmanchisquare(*table.T).statistic, abs=1e-10
            )
            distance = studentized_range.ppf(0.95, 3, np.inf) / math.sqrt(2)
            distance *= math.sqrt(3 * 4 / (6 * len(names)))
            assert row["critical_difference"] == pytest.approx(distance, rel=1e-4)
    assert {row["methods"] for row in two} == {2}
    assert sum(row["mean_rank"] for row in two) == pytest.approx(3)
