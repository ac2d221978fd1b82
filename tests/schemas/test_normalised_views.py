"""Normalised faithfulness and that of distributions, against plain Python over the same curves."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import duckdb
import numpy as np
import pytest
from scipy.stats import entropy

from attribeam.analysis import open_run
from tests.schemas.test_metric_views import assert_same, average, by, select
from tests.support.synthetic_run import Row, SyntheticRun, compared, synthetic_run, write_run

KEYS = ("instance_id", "method", "protocol", "operation")
SHARES = ("normalised_comprehensiveness", "normalised_sufficiency")


@pytest.fixture(scope="module")
def opened(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[SyntheticRun, duckdb.DuckDBPyConnection]]:
    run = synthetic_run(seed=3, rows=30, operations=("mask", "delete"), dtype="float64")
    folder = write_run(run, tmp_path_factory.mktemp("run"))
    with open_run(folder, commented=False) as connection:
        yield run, connection


def share(value: float, of: float) -> float | None:
    return value / of if of >= 0.05 else None


def of_curves(curves: list[Row]) -> dict[tuple[Any, ...], Row]:
    """One row per instance, method, protocol and operation, by the definitions."""
    grouped: dict[tuple[Any, ...], dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in sorted(curves, key=lambda row: row["fraction"]):
        grouped[tuple(row[key] for key in KEYS)][row["order"]].append(row)
    found = {}
    for key, orders in grouped.items():
        drops = {
            order: np.array([points[0]["probability"] - p["probability"] for p in points])
            for order, points in orders.items()
        }
        empty = max(0.0, float(drops["morf"][-1]))
        morf, lerf, random = (drops[order][1:-1] for order in ("morf", "lerf", "random"))
        kept = share(float(np.maximum(lerf, 0).mean()), empty)
        found[key] = {
            "units": orders["morf"][0]["units"],
            "null_difference": empty,
            "normalised_comprehensiveness": share(float(np.maximum(morf, 0).mean()), empty),
            "normalised_sufficiency": None if kept is None else 1 - kept,
            "comprehensiveness": float(morf.mean()),
            "comprehensiveness_random": float(random.mean()),
            "ratio_to_random": share(float(morf.mean()), float(random.mean())),
        }
    return found


def test_by_instance(opened: tuple[SyntheticRun, duckdb.DuckDBPyConnection]) -> None:
    run, connection = opened
    expected = of_curves(run.curves)
    found = by(select(connection, "from faithfulness_normalised_by_instance"), *KEYS)
    assert_same(found, expected, 1e-10)
    # Of all kinds there are some.
    shares = [row["normalised_comprehensiveness"] for row in expected.values()]
    assert None in shares and max(value for value in shares if value is not None) > 1
    assert any(row["ratio_to_random"] is None for row in expected.values())


@pytest.mark.parametrize("common", [True, False])
def test_means(common: bool, opened: tuple[SyntheticRun, duckdb.DuckDBPyConnection]) -> None:
    run, connection = opened
    kept = compared(run.curves) if common else run.curves
    total = len({row["instance_id"] for row in run.curves})
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for (_, *key), row in of_curves(kept).items():
        groups[tuple(key)].append(row)
    expected = {}
    for key, rows in groups.items():
        lost = [row["null_difference"] for row in rows]
        ends = [mean(row[name] for row in rows) for name in list(rows[0])[4:6]]
        expected[key] = {
            "n": len(rows),
            "unreacting": sum(value < 0.05 for value in lost),
            "null_difference": average([value for value in lost if value >= 0.05]),
            **{name: average([row[name] for row in rows]) for name in SHARES},
            "ratio_to_random": share(*ends),
            "left_out": total - len(rows),
        }
    asked = f"from faithfulness_normalised_over(common := {common})"
    assert_same(by(select(connection, asked), *KEYS[1:]), expected, 1e-10)


def test_by_hand(tmp_path: Path) -> None:
    run = synthetic_run(rows=1, fractions=(0.5,), failing=False, dtype="float64")
    inner = {"morf": 0.6, "lerf": 0.7, "random": 0.8}
    for row in run.curves:
        ends = {0.0: 0.9, 1.0: 0.5}
        row["probability"] = ends.get(row["fraction"], inner[row["order"]])
    with open_run(write_run(run, tmp_path), commented=False) as connection:
        row = by(select(connection, "from faithfulness_normalised"), "method")["paths",]
    assert row["null_difference"] == pytest.approx(0.4, abs=1e-10)
    assert row["normalised_comprehensiveness"] == pytest.approx(0.75, abs=1e-10)
    assert row["normalised_sufficiency"] == pytest.approx(0.5, abs=1e-10)
    assert row["ratio_to_random"] == pytest.approx(3, abs=1e-10)
    assert (row["n"], row["unreacting"], row["left_out"]) == (1, 0, 0)


# Distributions ---------------------------------------------------------------------------------

FORMS = (
    "entropy",
    "comprehensiveness_entropy",
    "sufficiency_entropy",
    "comprehensiveness_kl",
    "sufficiency_kl",
)


def erasers(curves: list[Row]) -> dict[tuple[Any, ...], Row]:
    """One row per instance, method, protocol and operation, as ERASER's code has its forms.

    Distributions of the synthetic curves are of two classes.
    """
    grouped: dict[tuple[Any, ...], dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in sorted(curves, key=lambda row: row["fraction"]):
        grouped[tuple(row[key] for key in KEYS)][row["order"]].append(row)
    found = {}
    for key, orders in grouped.items():
        values: Row = {"units": orders["morf"][0]["units"]}
        for order, name in (("morf", "comprehensiveness"), ("lerf", "sufficiency")):
            whole, *inner = ([p["probability"], 1 - p["probability"]] for p in orders[order][:-1])
            values["entropy"] = entropy(whole)
            values[f"{name}_entropy"] = mean(entropy(whole) - entropy(one) for one in inner)
            values[f"{name}_kl"] = mean(entropy(one, whole) for one in inner)
        found[key] = {name: values[name] for name in ("units", *FORMS)}
    return found


def test_distributions_by_instance(
    opened: tuple[SyntheticRun, duckdb.DuckDBPyConnection],
) -> None:
    run, connection = opened
    found = by(select(connection, "from faithfulness_distributions_by_instance"), *KEYS)
    assert_same(found, erasers(run.curves), 1e-10)


@pytest.mark.parametrize("common", [True, False])
def test_means_of_distributions(common: bool, tmp_path: Path) -> None:
    """Of what was written before there were entropies there are none, and it is counted."""
    run = synthetic_run(seed=3, rows=12, dtype="float64")
    before = [r for r in run.curves if r["method"] == "paths" and r["instance_id"] == "row-7"]
    before += [row for row in run.curves if row["method"] == "attention"]
    for row in before:
        row["entropy"] = row["kl"] = None
    has = [row for row in run.curves if row["entropy"] is not None]
    usable = compared(run.curves) if common else has
    usable = [row for row in usable if row["entropy"] is not None]
    values: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for (_, *key), row in erasers(compared(usable) if common else usable).items():
        values[tuple(key)].append(row)
    total = len({row["instance_id"] for row in run.curves})
    expected = {
        key: {
            "n": len(rows),
            **{name: average([row[name] for row in rows]) for name in FORMS},
            "left_out": total - len(rows),
        }
        for key, rows in values.items()
    }
    none = {"n": 0, **dict.fromkeys(FORMS), "left_out": total}
    expected["attention", "token", "mask"] = none
    asked = f"from faithfulness_distributions_over(common := {common})"
    with open_run(write_run(run, tmp_path), commented=False) as connection:
        assert_same(by(select(connection, asked), *KEYS[1:]), expected, 1e-10)
