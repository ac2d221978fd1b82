"""The views over `localisation`, against numbers by NumPy of the same rows."""

from collections.abc import Iterator
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from attribeam.schemas import table_schema
from tests.schemas.test_metric_views import by, select, views
from tests.support.synthetic_run import Row
from tests.transforms.test_degradation import poisson_weights

PIXELS = 400
METHODS = ("a", "b", "c")


def rows_of(rng: np.random.Generator) -> list[Row]:
    """30 pictures; some with an empty mask, some with a second thing, and some not under c."""
    rows = []
    for number in range(30):
        empty, second, known = number % 11 == 3, number % 3 == 0, number % 5 != 4
        inside = 0 if empty else int(rng.integers(20, 200))
        for method in METHODS[: 2 if number % 7 == 6 else 3]:
            tp = int(rng.integers(0, inside + 1))
            fp = int(rng.integers(0, PIXELS - inside))
            shares: dict[str, Any] = {
                name: None if empty else float(rng.random())
                for name in ("average_precision", "f1", "f1_rows", "rank_accuracy")
            }
            mass = None if empty or number % 8 == 5 else float(rng.random())
            rows.append(
                {
                    "instance_id": f"i{number}",
                    "method": method,
                    "target": number % 2,
                    "region": "object" if known else "mask",
                    "threshold": "mean",
                    "tp": tp,
                    "fp": fp,
                    "fn": inside - tp,
                    "tn": PIXELS - inside - fp,
                    **shares,
                    "hit": None if empty else bool(rng.random() < 0.5),
                    "mass_inside": mass,
                    "hit_other": bool(rng.random() < 0.5) if second and known else None,
                    "mass_other": mass and (1 - mass) / 2 if second and known else None,
                    "empty_mask": empty,
                }
            )
    return rows


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return rows_of(np.random.default_rng(0))


@pytest.fixture(scope="module")
def connection(rows: list[Row]) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as opened:
        table = pa.Table.from_pylist(rows, table_schema("localisation"))
        opened.register("found", table)
        opened.execute("create table localisation as from found")
        # Two questions about each picture but for the last.
        opened.execute(
            "create table instances as select distinct instance_id, "
            "'p' || (instance_id[2:]::int // 2) as row_id from found"
        )
        names = ("segmentation_by_instance", "segmentation", "bootstrap_weights")
        for view in views(*names, "localisation_intervals", "class_discrimination"):
            opened.execute(view.sql)
        yield opened


def mean(values: Any) -> float:
    return float(np.mean([value for value in values if value is not None]))


def pooled(rows: list[Row], weights: Any = None) -> dict[str, float]:
    """The metrics of some rows, each of which counts so often."""
    w = np.ones(len(rows)) if weights is None else np.asarray(weights, float)
    counts = {name: np.array([row[name] for row in rows]) for name in ("tp", "fp", "fn", "tn")}
    tp, fp, fn, tn = (float(w @ counts[name]) for name in counts)
    found = {
        "pixel_accuracy": (tp + tn) / (PIXELS * w.sum()),
        "iou": tp / (tp + fp + fn),
        "iou_background": tn / (tn + fp + fn),
    }
    found["miou"] = (found["iou"] + found["iou_background"]) / 2
    named = {"hit": "pointing"}
    for name in ("average_precision", "f1", "f1_rows", "hit", "mass_inside", "rank_accuracy"):
        there = np.array([row[name] is not None for row in rows])
        values = np.array([float(row[name] or 0) for row in rows])
        found[named.get(name, name)] = float((w * there) @ values / (w * there).sum())
    return found


def common(rows: list[Row]) -> dict[str, list[Row]]:
    """Rows by method, of the pictures that all have."""
    every = {m: {row["instance_id"] for row in rows if row["method"] == m} for m in METHODS}
    shared = set.intersection(*every.values())
    return {
        m: [row for row in rows if row["method"] == m and row["instance_id"] in shared]
        for m in METHODS
    }


def test_segmentation(connection: duckdb.DuckDBPyConnection, rows: list[Row]) -> None:
    found = by(select(connection, "from segmentation"), "method")
    for method, own in common(rows).items():
        row = found[(method,)]
        assert {name: row[name] for name in pooled(own)} == pytest.approx(pooled(own), abs=1e-12)
        assert (row["n"], row["left_out"]) == (26, 4)
        assert row["empty"] == sum(each["empty_mask"] for each in own) > 0
        assert row["of_other_class"] == sum(each["region"] == "mask" for each in own) > 0
        assert row["without_mass"] == sum(
            each["mass_inside"] is None and not each["empty_mask"] for each in own
        )
        shares = [(e["tp"] + e["fn"]) / PIXELS for e in own if not e["empty_mask"]]
        assert row["chance"] == pytest.approx(mean(shares), abs=1e-12)
    alone = select(connection, "from segmentation_over(common := false, methods := ['a'])")
    assert [(row["method"], row["n"], row["left_out"]) for row in alone] == [("a", 30, 0)]


def test_by_instance(connection: duckdb.DuckDBPyConnection, rows: list[Row]) -> None:
    found = by(select(connection, "from segmentation_by_instance"), "instance_id", "method")
    assert len(found) == len(rows)
    row = next(row for row in rows if not row["empty_mask"])
    own, expected = found[row["instance_id"], row["method"]], pooled([row])
    assert {name: own[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert own["chance"] == (row["tp"] + row["fn"]) / PIXELS


def test_intervals(connection: duckdb.DuckDBPyConnection, rows: list[Row]) -> None:
    found = by(select(connection, "from localisation_intervals"), "method", "metric")
    for method, own in common(rows).items():
        drawn = poisson_weights([f"p{int(row['instance_id'][1:]) // 2}" for row in own])
        samples = [pooled(own, weights) for weights in drawn]
        for metric, value in pooled(own).items():
            row = found[method, metric]
            assert row["value"] == pytest.approx(value, abs=1e-12)
            bounds = np.percentile([sample[metric] for sample in samples], (2.5, 97.5))
            assert (row["low"], row["high"]) == pytest.approx(tuple(bounds), abs=1e-9)
            assert (row["n"], row["left_out"]) == (26, 4)


def test_class_discrimination(connection: duckdb.DuckDBPyConnection, rows: list[Row]) -> None:
    of = [r for r in rows if r["hit_other"] is not None and not r["empty_mask"]]
    found = by(select(connection, "from class_discrimination"), "method")
    for method, own in common(of).items():
        row = found[(method,)]
        shares = [
            r["mass_inside"] / (r["mass_inside"] + r["mass_other"])
            for r in own
            if r["mass_inside"] is not None
        ]
        assert row["own_share"] == pytest.approx(np.mean(shares), abs=1e-12)
        assert row["without_mass"] == len(own) - len(shares)
        assert row["own_hit"] == pytest.approx(np.mean([r["hit"] for r in own]), abs=1e-12)
        assert row["other_hit"] == pytest.approx(np.mean([r["hit_other"] for r in own]), abs=1e-12)
        assert row["n"] == len(own)
