"""Views over the tables of `attribeam check`: toys by hand, scipy, and what must hold."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import entropy, kendalltau, pearsonr, spearmanr

from tests.schemas.test_metric_views import select
from tests.support.sanity import instance, scored, subset, tables_of_checks
from tests.support.synthetic_run import Row

EXACT = 1e-12
DROPS = {"100": 0.6, "010": 0.1, "001": 0.0, "110": 0.9, "101": 0.7, "011": 0.2}
TOYS = {
    "close": ([0.5, 0.2, 0.1], 0.015, 1.153226, 0.0101478, 0.035606, 0.994015, 0.996271, 0.999260),
    "one": ([1.0, 0, 0], 0.0516667, 0.733333, 0.0161111, 0.056530, 0.948815, 0.987829, 0.960769),
}


# Subsets -----------------------------------------------------------------------------------------


def of_drops(drops: dict[str, float], scores: dict[str, Sequence[float]]) -> dict[str, list[Row]]:
    count = len(next(iter(drops)))
    ones = [f"{1 << (count - 1 - at):0{count}b}" for at in range(count)]
    rows = [subset("i", "0" * count, 0, 0, "whole")]
    rows += [subset("i", bits, drops[bits], at, "one") for at, bits in enumerate(ones)]
    rows += [subset("i", bits, drop, at) for at, (bits, drop) in enumerate(drops.items())]
    return {
        "instances": [instance("i", count)],
        "attributions": [scored("i", method, own) for method, own in scores.items()],
        "subsets": rows,
    }


def test_infidelity_by_hand() -> None:
    tables = of_drops(DROPS, {name: own[0] for name, own in TOYS.items()})
    connection = tables_of_checks(tables, additive=["close"])
    found = {row["method"]: row for row in select(connection, "from infidelity_by_instance")}
    by_size = {
        (row["method"], row["size"]): row["correlation"]
        for row in select(connection, "from sensitivity_n")
    }
    names = ("infidelity", "beta", "infidelity_scaled", "infidelity_relative")
    for method, (_, *expected, first, second) in TOYS.items():
        row = found[method]
        own = [row[name] for name in (*names, "faithfulness_correlation")]
        assert own == pytest.approx(expected, abs=5e-7), method
        assert [by_size[method, 1], by_size[method, 2]] == pytest.approx([first, second], abs=5e-7)
        assert row["samples"] == len(DROPS)
    summary = {row["method"]: row for row in select(connection, "from infidelity")}
    # In units of the output for additive methods alone.
    assert summary["close"]["infidelity"] == pytest.approx(0.015)
    assert summary["one"]["infidelity"] is None
    assert (summary["one"]["n"], summary["one"]["left_out"]) == (1, 0)


def test_an_additive_model_is_explained_by_its_shares() -> None:
    shares = [0.5, -0.25, 2.0, 0.125]
    drops = {
        f"{number:04b}": sum(
            s for s, bit in zip(shares, f"{number:04b}", strict=True) if bit == "1"
        )
        for number in range(1, 16)
    }
    scores = {"shapley": shares, "zero": [0.0] * 4, "opposite": [-s for s in shares]}
    connection = tables_of_checks(of_drops(drops, scores))
    found = {row["method"]: row for row in select(connection, "from infidelity_by_instance")}
    row = found["shapley"]
    assert row["infidelity"] == row["infidelity_relative"] == 0
    assert (row["beta"], row["tau_loo"], row["non_sensitivity"]) == (1, 1, 0)
    assert row["faithfulness_correlation"] == pytest.approx(1, abs=EXACT)
    row = found["zero"]
    assert row["infidelity_relative"] == 1
    assert (row["beta"], row["faithfulness_correlation"], row["tau_loo"]) == (None, None, None)
    assert row["non_sensitivity"] == 1
    summary = {row["method"]: row["opposite"] for row in select(connection, "from infidelity")}
    assert summary == {"shapley": 0, "zero": 0, "opposite": 1}


def test_leaving_one_out_is_kendalls() -> None:
    rng = np.random.default_rng(0)
    for count in (2, 5, 30):
        scores, drops = (np.round(rng.normal(size=count) * 2) / 2 for _ in range(2))
        rows = [subset("i", "0" * count, 0, 0, "whole")]
        for at, drop in enumerate(drops.tolist()):
            bits = "".join("01"[here == at] for here in range(count))
            rows += [subset("i", bits, drop, at, kind) for kind in ("one", "random")]
        tables = {
            "instances": [instance("i", count)],
            "attributions": [scored("i", "m", scores.tolist())],
            "subsets": rows,
        }
        (row,) = select(tables_of_checks(tables), "from infidelity_by_instance")
        expected = kendalltau(scores, drops).statistic
        assert row["tau_loo"] == (None if math.isnan(expected) else pytest.approx(expected))
        varies = np.std(scores) > 0 and np.std(drops) > 0
        expected = pearsonr(scores, drops).statistic if varies else None
        assert row["faithfulness_correlation"] == (expected and pytest.approx(expected))


def test_subsets_of_another_class_are_no_evidence() -> None:
    tables = of_drops(DROPS, {"gold": [1.0, 0, 0], "any": [1.0, 0, 0]})
    tables["attributions"][0]["target"] = 1
    found = select(tables_of_checks(tables), "select method from infidelity_by_instance")
    assert found == [{"method": "any"}]


# Randomised weights ------------------------------------------------------------------------------


def stages(scores: dict[str, list[list[float]]]) -> dict[str, list[Row]]:
    """Scores of an untouched model, and of stages of a cascade, the last of which is all of it."""
    rows = []
    for method, (whole, *others) in scores.items():
        rows.append(scored("i", method, whole, kind="whole", stage=0))
        for stage, own in enumerate(others, 1):
            part = "embeddings" if stage == len(others) else f"layer.{len(others) - stage}"
            cut = {"kind": "cascading", "weights": "init", "seed": 0}
            rows.append(scored("i", method, own, **cut, stage=stage, part=part))
    count = len(next(iter(scores.values()))[0])
    return {"instances": [instance("i", count)], "randomised": rows}


def test_randomisation_by_hand() -> None:
    before = [4.0, 3, 2, 1]
    connection = tables_of_checks(
        stages(
            {
                "m1": [before, [4, 2, 3, 1], [-1, 4, -3, 2]],
                "random": [before, before, before],
                "constant": [before, [1, 1, 1, 1], before],
            }
        )
    )
    sql = "select method, spearman, spearman_absolute from randomisation order by method, stage"
    found = [tuple(row.values()) for row in select(connection, sql)]
    assert found[0] == ("constant", None, None)
    # Exactly.
    assert found[1] == ("constant", 1, 1)
    assert found[2] == ("m1", pytest.approx(0.8), pytest.approx(0.8))
    assert found[3] == ("m1", pytest.approx(0), pytest.approx(-0.2))
    assert found[4:] == [("random", 1, 1)] * 2
    assert select(connection, "from randomisation_over(least := 5)") == []


def test_methods_are_compared_on_the_same_instances() -> None:
    tables = stages({"one": [[1.0, 2], [1, 2]], "other": [[1.0, 2], [1, 2]]})
    for row in stages({"one": [[1.0, 2], [2, 1]]})["randomised"]:
        tables["randomised"].append({**row, "instance_id": "j"})
    tables["instances"].append(instance("j", 2))
    connection = tables_of_checks(tables)
    sql = "select method, n, left_out, spearman from {} order by method"
    found = [tuple(row.values()) for row in select(connection, sql.format("randomisation"))]
    assert found == [("one", 1, 1, 1), ("other", 1, 1, 1)]
    own = "randomisation_over(common := false)"
    found = [tuple(row.values()) for row in select(connection, sql.format(own))]
    assert found == [("one", 2, 0, 0), ("other", 1, 1, 1)]


def test_efficient_randomisation_by_hand() -> None:
    before, after = [0.9, 0.05, 0.03, -0.02, 0, 0], [0.3, -0.25, 0.2, 0.15, 0.1, 0]
    connection = tables_of_checks(stages({"m": [before, after], "flat": [[1.0] * 6, after]}))
    rows = select(connection, "from efficient_randomisation_over(bins := 5)")
    found = {row["method"]: row for row in rows}
    row = found["m"]
    assert row["entropy_before"] == pytest.approx(0.450561, abs=5e-7)
    assert row["entropy_after"] == pytest.approx(1.560710, abs=5e-7)
    assert row["rise"] == pytest.approx(2.463925, abs=5e-7)
    assert (found["flat"]["rise"], found["flat"]["n"], found["flat"]["without"]) == (None, 0, 1)
    (row,) = select(connection, "from efficient_randomisation where method = 'm'")
    for name, scores in (("before", before), ("after", after)):
        counts = np.histogram(np.abs(scores), bins=3)[0]
        assert row[f"entropy_{name}"] == pytest.approx(entropy(counts))


def test_another_class_is_explained_otherwise() -> None:
    tables = stages({"signed": [[1.0, 2, 3]], "blind": [[1.0, 2, 3]]})
    for method, own in {"signed": [-1.0, -2, -3], "blind": [1.0, 2, 3]}.items():
        tables["randomised"].append(scored("i", method, own, kind="class", stage=0))
    connection = tables_of_checks(tables)
    found = {row["method"]: row for row in select(connection, "from random_logit")}
    assert (found["signed"]["spearman"], found["signed"]["spearman_absolute"]) == (-1, 1)
    assert found["blind"]["spearman"] == 1
    assert select(connection, "from randomisation") == []


# Noise and seeds ---------------------------------------------------------------------------------


def noisy(factor: float = 1) -> dict[str, list[Row]]:
    draws: list[tuple[list[float], int, float]]
    draws = [([3, 3], 0, 2.0), ([2, 4.5], 0, 4.0), ([-3, 4], 1, 1.0)]
    return {
        "instances": [instance("i", 2)],
        "attributions": [scored("i", "m", [3 * factor, 4 * factor])],
        "noised": [
            scored("i", "m", [factor * x for x in own], sample=at, noise_norm=norm)
            | {"prediction": prediction}
            for at, (own, prediction, norm) in enumerate(draws)
        ],
    }


def test_sensitivity_by_hand() -> None:
    for factor in (1, 10):
        connection = tables_of_checks(noisy(factor))
        (row,) = select(connection, "from sensitivity_by_instance")
        assert (row["draws"], row["flipped"]) == (3, 1)
        # Whatever the scale of scores.
        assert row["largest"] == pytest.approx(1.2, abs=EXACT)
        assert row["average"] == pytest.approx(0.541202, abs=5e-7)
        assert row["unflipped"] == pytest.approx(0.223607, abs=5e-7)
        assert row["lipschitz"] == pytest.approx(6 * factor)
        (row,) = select(connection, "from sensitivity")
        assert row["flipped"] == pytest.approx(1 / 3)
    tables = noisy()
    tables["attributions"][0]["scores"] = [99.0, 0, 0, -99.0]
    (row,) = select(tables_of_checks(tables), "from sensitivity_by_instance")
    assert (row["largest"], row["average"]) == (None, None)


def test_reliability_by_hand() -> None:
    every = [[4.0, 3, 2, 1], [4.0, 2, 3, 1], [3.0, 4, 2, 1]]
    tables = {
        "instances": [instance("i", 4)],
        "attributions": [scored("i", "m", every[0])],
        "repeats": [scored("i", "m", own, seed=at) for at, own in enumerate(every[1:], 1)],
    }
    connection = tables_of_checks(tables)
    (row,) = select(connection, "from reliability_by_instance")
    assert (row["seeds"], row["spearman"]) == (3, pytest.approx(2 / 3))
    assert (row["noise"], row["signal"]) == (pytest.approx(5 / 12), pytest.approx(35 / 27))
    assert row["reliability"] == pytest.approx(0.892857, abs=5e-7)
    (row,) = select(connection, "from reliability")
    assert (row["n"], row["seeds"]) == (1, 3)


def test_rank_correlation_is_spearmans() -> None:
    rng = np.random.default_rng(1)
    connection = tables_of_checks({})
    sql = "select rank_correlation(?::double[], ?::double[]), kendall_tau(?::double[], ?::double[])"
    for count in (2, 3, 40, 150):
        one, other = (np.round(rng.normal(size=count) * 3) for _ in range(2))
        lists = [one.tolist(), other.tolist()] * 2
        (row,) = connection.execute(sql, lists).fetchall()
        expected = (spearmanr(one, other).statistic, kendalltau(one, other).statistic)
        for found, own in zip(row, expected, strict=True):
            assert found == (None if math.isnan(own) else pytest.approx(own, abs=EXACT))
