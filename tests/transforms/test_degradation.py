"""The degradation test: the numbers of IBA's authors, the views, and their intervals."""

from collections import defaultdict
from collections.abc import Sequence
from hashlib import md5
from math import exp, factorial
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from attribeam.analysis import open_run, verify
from attribeam.pipeline import Options
from attribeam.pipeline import run as run_pipeline
from attribeam.schemas import VIEWS, table_schema
from attribeam.transforms import Instance, Model, encode, load_model
from attribeam.transforms.evaluate import (
    CurvePoint,
    Evaluation,
    Order,
    Ranking,
    compat_count,
    curves,
    points_of,
)
from attribeam.transforms.inputs.seam import Operation
from tests.conftest import LoadTiny
from tests.support.authors import golden_numbers, golden_rows
from tests.support.models import GOLDENS
from tests.support.synthetic_run import Row, compared, synthetic_run, write_run
from tests.support.tiny import rows, write_jsonl

pytestmark = pytest.mark.usefixtures("padding_at_will")

Floats = NDArray[np.float64]

# The authors' ten cut points without the first, 0; the last, 1, is always there.
NINTHS = tuple(k / 9 for k in range(1, 9))
RANKED = ("iba_asis_l1", "iba_corpus_l1", "ig_pred", "random")
ORDERS: tuple[Order, ...] = ("morf", "lerf")
# Rounding of the weights moves probabilities in float32 by up to 8e-7.
FLOAT32 = 1e-5

# The authors' numbers --------------------------------------------------------------------------


def golden_part(key: str) -> NDArray[Any]:
    return golden_numbers("degradation")[key]


def golden_scores(ranked: str, number: int) -> Floats:
    scores = golden_part(f"{ranked}/scores")[number]
    return np.asarray(scores[~np.isnan(scores)], np.float64)


def compat(operation: Operation) -> Evaluation:
    return Evaluation(NINTHS, ORDERS, (operation,), "compat")


@pytest.fixture(scope="module")
def masking() -> Model:
    """The model of the goldens, with the mask token that the authors' code was given."""
    return load_model(GOLDENS / "bert-golden", mask_token_id=4)


def golden_instances(model: Model) -> list[Instance]:
    return encode(model, golden_rows())[:5]


def authors_steps(points: Sequence[Any]) -> list[Any]:
    """The points that the authors run: the distinct counts, from the first that isn't 0."""
    first: dict[int, Any] = {}
    for point in points:
        first.setdefault(point.removed, point)
    return [point for removed, point in first.items() if removed]


def padded(steps: list[Any], length: int = 9) -> list[Any]:
    return steps + [steps[-1]] * (length - len(steps))


def test_authors_counts(golden: LoadTiny) -> None:
    for number, instance in enumerate(golden_instances(golden("bert-golden"))):
        counts = [compat_count(fraction, len(instance)) for fraction in (*NINTHS, 1.0)]
        distinct = list(dict.fromkeys(counts))
        assert padded(distinct) == golden_part("n_removed")[number].tolist()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("ranked", RANKED)
def test_authors_positions(golden: LoadTiny, ranked: str, order: Order) -> None:
    for number, instance in enumerate(golden_instances(golden("bert-golden"))):
        points = points_of(instance, golden_scores(ranked, number), compat("delete"), 0)
        steps = padded(authors_steps([point for point in points if point.order == order]))
        expected = golden_part(f"{ranked}/{order}/kept_positions")[number]
        for point, positions in zip(steps, expected, strict=True):
            assert np.flatnonzero(~point.tokens).tolist() == positions[positions >= 0].tolist()


def golden_curves(model: Model, operation: Operation, ranked: str) -> list[list[CurvePoint]]:
    """The points of each golden text, explaining the class that the authors explained."""
    instances = golden_instances(model)
    fixture = golden_numbers("authors")["bert-golden/fixture_logits"]
    rankings = [
        Ranking(instance, ranked, golden_scores(ranked, number), int(fixture[number].argmax()))
        for number, instance in enumerate(instances)
    ]
    found, failures = curves(model, rankings, compat(operation), token_budget=1_000)
    assert failures == []
    return [points for points in found if points is not None]


@pytest.mark.parametrize("ranked", RANKED)
def test_authors_probabilities_without_tokens(golden: LoadTiny, ranked: str) -> None:
    found = golden_curves(golden("bert-golden"), "delete", ranked)
    for number, of_text in enumerate(found):
        for order in ORDERS:
            points = [point for point in of_text if point.order == order]
            whole = golden_part("original_prob")[number]
            assert points[0].probability == pytest.approx(whole, abs=FLOAT32)
            assert golden_part("original_correct")[number]
            steps = padded(authors_steps(points))
            key = f"{ranked}/{order}"
            probabilities = [point.probability for point in steps]
            assert probabilities == pytest.approx(
                golden_part(f"{key}/prob")[number].tolist(), abs=FLOAT32
            )
            kept = [not point.flipped for point in steps]
            assert kept == golden_part(f"{key}/correct")[number].tolist()


@pytest.mark.parametrize("ranked", RANKED)
def test_authors_probabilities_with_masks(masking: Model, ranked: str) -> None:
    for number, of_text in enumerate(golden_curves(masking, "mask", ranked)):
        for order in ORDERS:
            steps = authors_steps([point for point in of_text if point.order == order])
            key = f"{ranked}/{order}"
            expected = golden_part(f"{key}/replace_prob")[number]
            # This part of the authors' code doesn't repeat the last count.
            expected = expected[~np.isnan(expected)]
            probabilities = [point.probability for point in steps]
            assert probabilities == pytest.approx(expected.tolist(), abs=FLOAT32)
            kept = [not point.flipped for point in steps]
            assert kept == golden_part(f"{key}/replace_correct")[number][: len(kept)].tolist()


def test_a_run_by_the_authors_count_is_sound(tiny_folder: Any, tmp_path: Path) -> None:
    corpus = write_jsonl(tmp_path / "corpus.jsonl", rows(6))
    evaluation = Evaluation(NINTHS, operations=("mask", "delete"), protocol="compat")
    options = Options(
        str(tiny_folder("bert")),
        str(corpus),
        str(tmp_path / "out"),
        methods="random,saliency",
        evaluation=evaluation,
        device="cpu",
    )
    run_pipeline(options)
    assert verify(tmp_path / "out").problems == []
    with open_run(tmp_path / "out", commented=False) as connection:
        found = connection.execute("select protocol, n, degradation from degradation").fetchall()
    assert [row[:2] for row in found] == [("compat", 6)] * 4
    assert all(np.isfinite(row[2]) for row in found)


# The views -------------------------------------------------------------------------------------

RUNS: dict[str, dict[str, Any]] = {
    "all orders": {"seed": 0},
    "two operations": {"seed": 1, "operations": ("mask", "delete")},
    "morf only": {"seed": 2, "orders": ("morf",)},
    "random only": {"seed": 3, "orders": ("random",)},
    "thirds": {"seed": 4, "fractions": (1 / 3, 2 / 3)},
    "nothing inside": {"seed": 5, "fractions": ()},
    "double": {"seed": 6, "dtype": "float64"},
}
KEYS = ("method", "protocol", "operation")
REPLICATES = 1000
NAN = float("nan")


class Sums(NamedTuple):
    """What each instance adds to the sums of one method, [N] each, NaN where it wasn't run."""

    instances: list[str]
    whole: Floats
    empty: Floats
    lerf: Floats
    morf: Floats

    def score(self, weights: Floats) -> Floats:
        """Degradation with each instance counted so many times, [..., N] to [...]."""
        return (weights @ (self.lerf - self.morf)) / (weights @ (self.whole - self.empty))


def area(points: list[Row]) -> float:
    if not points:
        return NAN
    shares = [point["removed"] / point["units"] for point in points]
    return float(np.trapezoid([point["probability"] for point in points], shares))


def sums(rows_: list[Row]) -> dict[tuple[str, ...], Sums]:
    """The sums of each method, protocol and operation, by the definitions."""
    grouped: dict[tuple[str, ...], dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in sorted(rows_, key=lambda row: float(row["fraction"])):
        grouped[tuple(row[name] for name in KEYS)][row["instance_id"]].append(row)
    found = {}
    for key, of_instance in grouped.items():
        columns = [
            (
                points[0]["probability"],
                points[-1]["probability"],
                area([point for point in points if point["order"] == "lerf"]),
                area([point for point in points if point["order"] == "morf"]),
            )
            for points in of_instance.values()
        ]
        found[key] = Sums(list(of_instance), *np.array(columns).T)
    return found


def connect(rows_: list[Row], threads: int = 1) -> duckdb.DuckDBPyConnection:
    """The views of degradation over these curves alone."""
    connection = duckdb.connect()
    connection.execute(f"set threads = {threads}")
    schema = pa.schema(
        [
            field.with_type(pa.string()) if pa.types.is_dictionary(field.type) else field
            for field in table_schema("curves", double=True)
        ]
    )
    connection.register("given", pa.Table.from_pylist(rows_, schema=schema))
    connection.execute("create table curves as from given")
    connection.execute(
        "create table instances as select distinct instance_id, instance_id as row_id from given"
    )
    for view in VIEWS:
        others = ("area_under_curve", "bootstrap_weights", "compared_curves", "compared_points")
        if view.name in (*others, "faithfulness") or view.name.startswith("degradation"):
            connection.execute(view.sql)
    return connection


def by_key(connection: duckdb.DuckDBPyConnection, view: str) -> dict[tuple[Any, ...], Row]:
    cursor = connection.execute(f"from {view}")
    assert cursor.description is not None
    names = [column[0] for column in cursor.description]
    rows_ = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    keys = (*KEYS, "order", "fraction") if view == "degradation_curves" else KEYS
    found = {tuple(row.pop(key) for key in keys): row for row in rows_}
    assert len(found) == len(rows_)
    return found


def numbers(row: Row) -> Row:
    return {name: NAN if value is None else value for name, value in row.items()}


@pytest.mark.parametrize("name", RUNS)
def test_degradation_is_its_definition(name: str, tmp_path: Path) -> None:
    run = synthetic_run(**RUNS[name])
    if name != "double":
        # As the files have it: where top and bottom are near each other, that matters.
        for row in run.curves:
            row["probability"] = float(np.float32(row["probability"]))
    with open_run(write_run(run, tmp_path), commented=False) as connection:
        found = by_key(connection, "degradation")
        points = by_key(connection, "degradation_curves")
    kept = compared(run.curves)
    left_out = len({row["instance_id"] for row in run.curves})
    left_out -= len({row["instance_id"] for row in kept})
    assert left_out == 2
    expected = sums(kept)
    assert list(found) == sorted(expected)
    for key, of in expected.items():
        top, bottom = of.whole.mean(), of.empty.mean()
        lerf, morf = ((a.mean() - bottom) / (top - bottom) for a in (of.lerf, of.morf))
        row = {"n": len(of.instances), "top": top, "bottom": bottom}
        row |= {"lerf": lerf, "morf": morf, "degradation": lerf - morf, "left_out": left_out}
        assert numbers(found[key]) == pytest.approx(row, rel=1e-9, abs=1e-9, nan_ok=True)
    averaged: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in kept:
        averaged[tuple(row[name] for name in (*KEYS, "order", "fraction"))].append(row)
    assert list(points) == sorted(averaged)
    for point, of_point in averaged.items():
        top, bottom = (float(found[point[:3]][end]) for end in ("top", "bottom"))
        mean = np.mean([row["probability"] for row in of_point])
        assert points[point] == pytest.approx(
            {
                "n": len(of_point),
                "probability": mean,
                "normalised": (mean - bottom) / (top - bottom),
                "kept": np.mean([not row["flipped"] for row in of_point]),
                "left_out": left_out,
            },
            rel=1e-9,
            abs=1e-9,
        )


def curve(instance: str, order: str, *points: tuple[int, float], method: str = "one") -> list[Row]:
    """A curve from (removed, probability) pairs; the last of them has everything removed."""
    units = points[-1][0]
    return [
        {
            "instance_id": instance,
            "method": method,
            "protocol": "token",
            "order": order,
            "operation": "mask",
            "fraction": removed / units,
            "removed": removed,
            "units": units,
            "probability": probability,
            "logit": 0.0,
            "prediction": 0,
            "flipped": probability < 0.5,
        }
        for removed, probability in points
    ]


def test_degradation_by_hand() -> None:
    """Normalised by the means over both texts: by its own, the second would divide by 0."""
    rows_ = [
        *curve("a", "lerf", (0, 1.0), (2, 0.8), (4, 0.2)),
        *curve("a", "morf", (0, 1.0), (2, 0.2), (4, 0.2)),
        *curve("b", "lerf", (0, 0.6), (1, 0.6)),
        *curve("b", "morf", (0, 0.6), (1, 0.6)),
    ]
    with connect(rows_) as connection:
        (row,) = by_key(connection, "degradation").values()
        points = by_key(connection, "degradation_curves")
        (interval,) = by_key(connection, "degradation_intervals").values()
    # The areas are 0.7 and 0.4 of the first text, and 0.6 of the second.
    expected = {"n": 2, "top": 0.8, "bottom": 0.4, "lerf": 0.625, "morf": 0.25, "left_out": 0}
    assert row == pytest.approx(expected | {"degradation": 0.375}, abs=1e-9)
    ends = [points["one", "token", "mask", "morf", end] for end in (0.0, 1.0)]
    assert [end["normalised"] for end in ends] == pytest.approx([1, 0], abs=1e-9)
    assert [end["kept"] for end in ends] == [1, 0.5]
    assert interval["degradation"] == pytest.approx(0.375, abs=1e-9)


def test_a_model_that_does_not_react_has_no_degradation() -> None:
    rows_ = [
        *curve("a", "lerf", (0, 0.1), (2, 0.8), (4, 0.3)),
        *curve("a", "morf", (0, 0.1), (2, 0.2), (4, 0.3)),
        *curve("b", "lerf", (0, 0.3), (1, 0.1)),
        *curve("b", "morf", (0, 0.3), (1, 0.1)),
    ]
    with connect(rows_) as connection:
        (row,) = by_key(connection, "degradation").values()
        points = by_key(connection, "degradation_curves")
        (interval,) = by_key(connection, "degradation_intervals").values()
    assert (row["lerf"], row["morf"], row["degradation"]) == (None, None, None)
    assert {point["normalised"] for point in points.values()} == {None}
    assert interval["degradation"] is None


# The intervals ---------------------------------------------------------------------------------


def poisson_weights(instances: list[str]) -> Floats:
    """The counts of each instance in each replicate, [replicates, N], as the view's manual says."""
    prime = 2**31 - 1
    shares = np.cumsum([exp(-1) / factorial(count) for count in range(9)])
    columns = []
    for name in instances:
        number = int.from_bytes(md5(name.encode()).digest(), "little")
        start, step = number % prime, (number >> 64) % prime
        uniform = [(start + replicate * step) % prime / prime for replicate in range(1, 1001)]
        columns.append(np.searchsorted(shares, uniform, side="right"))
    return np.array(columns, np.float64).T


def random_curves(count: int, methods: int = 2) -> list[Row]:
    rng = np.random.default_rng(3)
    rows_ = []
    for number in range(count):
        units = int(rng.integers(2, 30))
        whole, empty = rng.uniform(0.5, 1), rng.uniform(0, 0.6)
        for method in range(methods):
            for order, gain in (("lerf", 0.1 * method), ("morf", 0.0)):
                half = float(rng.uniform(0, 0.8)) + gain
                points = ((0, whole), (units // 2, half), (units, empty))
                rows_ += curve(f"text {number}", order, *points, method=f"method {method}")
    return rows_


def test_intervals_are_what_the_counts_give() -> None:
    rows_ = random_curves(60)
    with connect(rows_) as connection:
        found = by_key(connection, "degradation_intervals")
    for key, of in sums(rows_).items():
        replicates = of.score(poisson_weights(of.instances))
        low, high = np.percentile(replicates, [2.5, 97.5])
        expected = {"degradation": of.score(np.ones(60)), "low": low, "high": high}
        expected |= {"n": 60, "left_out": 0}
        assert found[key] == pytest.approx(expected, abs=1e-9)


def test_the_counts_are_those_of_a_poisson_variable() -> None:
    weights = poisson_weights([f"text {number}" for number in range(400)])
    # Standard errors: of a mean of 400,000 counts 0.0016, of a correlation of 400 of them 0.05.
    assert weights.mean() == pytest.approx(1, abs=0.008)
    assert weights.var() == pytest.approx(1, abs=0.015)
    between = np.asarray(np.corrcoef(weights[:40]))[np.triu_indices(40, 1)]
    assert between.std() == pytest.approx(0.05, abs=0.01)
    assert abs(between.mean()) < 0.01


def test_intervals_are_near_those_of_resampling() -> None:
    """Against drawing n of n with replacement: the width to a tenth, the ends to one of it."""
    rows_ = random_curves(300)
    with connect(rows_) as connection:
        found = by_key(connection, "degradation_intervals")
    rng = np.random.default_rng(0)
    for key, of in sums(rows_).items():
        drawn = rng.multinomial(300, np.full(300, 1 / 300), size=20_000).astype(np.float64)
        low, high = np.percentile(of.score(drawn), [2.5, 97.5])
        width, row = high - low, found[key]
        assert row["high"] - row["low"] == pytest.approx(width, rel=0.1)
        assert (row["low"], row["high"]) == pytest.approx((low, high), abs=0.1 * width)
        assert row["low"] < row["degradation"] < row["high"]


def test_methods_are_compared_on_the_same_samples() -> None:
    """Of methods with the same curves, one without one of the texts, in any order."""
    rows_ = random_curves(40, methods=1)
    twin = [row | {"method": "twin"} for row in rows_]
    other = [row | {"method": "other"} for row in rows_ if row["instance_id"] != "text 7"]
    with connect([*rows_, *other, *twin]) as connection:
        same = by_key(connection, "degradation_intervals")
        own = by_key(connection, "degradation_intervals_over(common := false)")
        two = by_key(
            connection, "degradation_intervals_over(methods := ['twin', 'method 0', 'unknown'])"
        )
    first, second, third = (same[name, "token", "mask"] for name in ("method 0", "twin", "other"))
    assert first == pytest.approx(second)
    assert first == pytest.approx(third)
    assert (first["n"], first["left_out"]) == (39, 1)
    first, second, third = (own[name, "token", "mask"] for name in ("method 0", "twin", "other"))
    assert first == pytest.approx(second)
    assert first != pytest.approx(third)
    assert [(row["n"], row["left_out"]) for row in (first, third)] == [(40, 0), (39, 1)]
    assert two["twin", "token", "mask"] == pytest.approx(first)
    assert len(two) == 2


def test_intervals_do_not_depend_on_rows_or_threads() -> None:
    rows_ = random_curves(50)
    with connect(rows_) as connection:
        expected = by_key(connection, "degradation_intervals")
    order = np.random.default_rng(1).permutation(len(rows_))
    with connect([rows_[at] for at in order], threads=3) as connection:
        found = by_key(connection, "degradation_intervals")
    assert list(found) == list(expected)
    for key, row in expected.items():
        assert found[key] == pytest.approx(row, abs=1e-12)


def test_without_an_order_there_is_no_interval() -> None:
    rows_ = [row for row in random_curves(5) if row["order"] == "morf"]
    with connect(rows_) as connection:
        found = by_key(connection, "degradation_intervals")
    empty = {"degradation": None, "low": None, "high": None, "n": 5, "left_out": 0}
    assert list(found.values()) == [empty, empty]
