"""Every column of every view against plain Python over the same rows."""

import math
from collections import defaultdict
from collections.abc import Iterator
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

import duckdb
import numpy as np
import pytest

from attribeam.analysis import open_run
from attribeam.schemas import VIEWS
from benchmarks.sql_scale import ELSEWHERE, without_query
from tests.support.synthetic_run import (
    MIXING,
    NUM_LAYERS,
    Row,
    SyntheticRun,
    compared,
    synthetic_run,
    write_run,
)

RUNS: dict[str, dict[str, Any]] = {
    "all orders": {"seed": 0},
    "two operations": {"seed": 1, "operations": ("mask", "delete")},
    "morf only": {"seed": 2, "orders": ("morf",)},
    "lerf only": {"seed": 3, "orders": ("lerf",)},
    "random only": {"seed": 4, "orders": ("random",)},
    "thirds": {"seed": 5, "fractions": (1 / 3, 2 / 3)},
    "nothing inside": {"seed": 6, "fractions": ()},
    "asymmetric": {"seed": 7, "fractions": (0.01, 0.05, 0.1, 0.2, 0.5)},
    "double": {"seed": 8, "dtype": "float64"},
    "long": {"seed": 9, "rows": 40, "shard_size": 7},
}

Opened = tuple[SyntheticRun, duckdb.DuckDBPyConnection]


@pytest.fixture(scope="module", params=RUNS)
def opened(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Opened]:
    run = synthetic_run(**RUNS[request.param])
    with open_run(write_run(run, tmp_path_factory.mktemp("run")), commented=False) as connection:
        yield run, connection


def select(connection: duckdb.DuckDBPyConnection, sql: str) -> list[Row]:
    cursor = connection.execute(sql)
    assert cursor.description is not None
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def assert_rows(found: list[Row], expected: list[Row], *keys: str) -> None:
    """Same rows whatever their order; numbers to the precision of float32 in, double out."""

    def key(row: Row) -> tuple[str, ...]:
        return tuple(str(row[name]) for name in keys)

    assert len({key(row) for row in found}) == len(found)
    assert sorted(map(key, found)) == sorted(map(key, expected))
    for one, other in zip(sorted(found, key=key), sorted(expected, key=key), strict=True):
        assert list(one) == list(other)
        for name, value in other.items():
            if isinstance(value, float):
                assert one[name] == pytest.approx(value, rel=1e-6, abs=1e-6), (name, key(one))
            else:
                assert one[name] == value, (name, key(one))


def area(points: list[Row] | None) -> float | None:
    if not points:
        return None
    shares = [point["removed"] / points[-1]["removed"] for point in points]
    return float(np.trapezoid([point["probability"] for point in points], shares))


def drops(points: list[Row]) -> list[float]:
    return [points[0]["probability"] - point["probability"] for point in points]


def sufficiency(points: list[Row]) -> float | None:
    inside = drops(points)[1:-1]
    return mean(inside) if inside else None


def log_odds(points: list[Row]) -> float | None:
    logs = [math.log(max(point["probability"], 1e-30)) for point in points]
    return mean(logs[1:-1]) - logs[0] if logs[1:-1] else None


def flip(points: list[Row]) -> float:
    flips = (
        point["removed"] / points[-1]["removed"]
        for point in points
        if point["prediction"] != points[0]["prediction"]
    )
    return next(flips, 1.0)


def flip_low(points: list[Row]) -> float:
    """A unit more than the last point before the class first changes."""
    for before, point in pairwise(points):
        if point["prediction"] != points[0]["prediction"]:
            return float((before["removed"] + 1) / points[-1]["removed"])
    return 1.0


def faithfulness(run: SyntheticRun) -> list[Row]:
    """One row per instance, method, protocol and operation, by the definitions."""
    curves: dict[tuple[str, ...], dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    names = ("instance_id", "method", "protocol", "operation")
    for point in sorted(run.curves, key=lambda row: row["fraction"]):
        curves[tuple(point[name] for name in names)][point["order"]].append(point)
    rows = []
    for key, orders in curves.items():
        morf, lerf, random = (orders.get(order) for order in ("morf", "lerf", "random"))
        some = next(iter(orders.values()))
        area_morf, area_lerf, area_random = area(morf), area(lerf), area(random)
        inside = drops(morf)[1:-1] if morf else []
        rows.append(
            dict(zip(names, key, strict=True))
            | {
                "units": some[-1]["removed"],
                "probability": some[0]["probability"],
                "comprehensiveness": mean(inside) if inside else None,
                "sufficiency": sufficiency(lerf) if lerf else None,
                "aopc": mean(drops(morf)) if morf else None,
                "log_odds": log_odds(morf) if morf else None,
                "auc_morf": area_morf,
                "auc_lerf": area_lerf,
                "auc_random": area_random,
                "auc_difference": area_lerf - area_morf if area_lerf and area_morf else None,
                "flipped": any(p["prediction"] != morf[0]["prediction"] for p in morf)
                if morf
                else None,
                "decision_flip_fraction": flip(morf) if morf else None,
                "decision_flip_low": flip_low(morf) if morf else None,
            }
        )
    return rows


def averaged(rows: list[Row], name: str) -> float | None:
    values = [float(row[name]) for row in rows if row[name] is not None]
    return mean(values) if values else None


def grouped(rows: list[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in names)].append(row)
    return groups


def test_faithfulness_by_instance(opened: Opened) -> None:
    run, connection = opened
    found = select(connection, "from faithfulness_by_instance")
    assert found
    assert_rows(found, faithfulness(run), "instance_id", "method", "protocol", "operation")


def test_faithfulness_is_the_mean_over_instances(opened: Opened) -> None:
    run, connection = opened
    keys = ("method", "protocol", "operation")
    metrics = [row for row in faithfulness(run)[0] if row not in ("instance_id", *keys)][2:]
    every = faithfulness(run)
    kept = compared(every)
    assert 0 < len(kept) < len(every)
    of_some = [row for row in every if row["method"] in ("gradient", "paths")]
    total = len({row["instance_id"] for row in every})
    for view, rows in (
        ("faithfulness", kept),
        ("faithfulness_over(common := false)", every),
        ("faithfulness_over(methods := ['paths', 'gradient'])", compared(of_some)),
    ):
        expected = [
            dict(zip(keys, key, strict=True))
            | {"n": len(own)}
            | {name: averaged(own, name) for name in metrics}
            | {"left_out": total - len(own)}
            for key, own in grouped(rows, *keys).items()
        ]
        assert_rows(select(connection, f"from {view}"), expected, *keys)


def test_tokens(opened: Opened) -> None:
    run, connection = opened
    instances = {row["instance_id"]: row for row in run.instances}
    lists = {
        "token": "tokens",
        "input_id": "input_ids",
        "word_id": "word_ids",
        "special": "special",
        "segment": "segment",
        "char_start": "char_start",
        "char_end": "char_end",
        "rationale": "rationale",
    }
    expected = []
    for row in run.attributions:
        instance = instances[row["instance_id"]]
        for position, score in enumerate(row["scores"]):
            expected.append(
                {name: row[name] for name in ("instance_id", "method", "target", "layer")}
                | {"position": position}
                | {
                    name: None if instance[source] is None else instance[source][position]
                    for name, source in lists.items()
                }
                | {"score": score}
            )
    assert_rows(select(connection, "from tokens"), expected, "instance_id", "method", "position")


def test_layer_tokens(opened: Opened) -> None:
    run, connection = opened
    instances = {row["instance_id"]: row for row in run.instances}
    expected = [
        {name: row[name] for name in ("instance_id", "method", "layer")}
        | {
            "position": position,
            "token": instances[row["instance_id"]]["tokens"][position],
            "local": local,
            "rollout": row["rollout"][position],
            "mixing": None if row["mixing"] is None else row["mixing"][position],
            "special": instances[row["instance_id"]]["special"][position],
        }
        for row in run.layers
        for position, local in enumerate(row["local"])
    ]
    keys = ("instance_id", "method", "layer", "position")
    assert_rows(select(connection, "from layer_tokens"), expected, *keys)


def test_mixing(opened: Opened) -> None:
    run, connection = opened
    special = {row["instance_id"]: row["special"] for row in run.instances}
    ratios = [
        {"method": row["method"], "layer": row["layer"], "special": apart, "ratio": ratio}
        for row in run.layers
        if row["mixing"] is not None
        for ratio, apart in zip(row["mixing"], special[row["instance_id"]], strict=True)
    ]
    expected = []
    for (method, layer), rows in grouped(ratios, "method", "layer").items():
        own, others = ([r["ratio"] for r in rows if r["special"] == s] for s in (False, True))
        expected.append(
            {
                "method": method,
                "layer": layer,
                "tokens": len(own),
                "mixing": mean(own),
                "special_tokens": len(others),
                "special_mixing": mean(others),
                "n": len(special) - 1,
                "left_out": 0,
            }
        )
    assert len(expected) == NUM_LAYERS * len(MIXING)
    assert_rows(select(connection, "from mixing"), expected, "method", "layer")


def role(instance: Row, position: int) -> str:
    """What kind of token it is, as `information_tokens` says."""
    if position == instance["readout"]:
        return "readout"
    if instance["special"][position]:
        return "special"
    if instance["rationale"] is not None and instance["rationale"][position]:
        return "rationale"
    return "text" if any(map(str.isalnum, instance["tokens"][position])) else "punctuation"


def information_tokens(run: SyntheticRun) -> list[Row]:
    instances = {row["instance_id"]: row for row in run.instances}
    return [
        {name: row[name] for name in ("instance_id", "method", "layer", "target")}
        | {
            "position": position,
            "token": instances[row["instance_id"]]["tokens"][position],
            "role": role(instances[row["instance_id"]], position),
            "correct": instances[row["instance_id"]]["correct"],
            "bits": bits,
        }
        for row in run.information
        for position, bits in enumerate(row["bits"])
    ]


def test_information_tokens(opened: Opened) -> None:
    run, connection = opened
    expected = information_tokens(run)
    assert {row["role"] for row in expected} > {"readout", "special", "text"}
    keys = ("instance_id", "method", "layer", "position")
    assert_rows(select(connection, "from information_tokens"), expected, *keys)


def test_information_flow(opened: Opened) -> None:
    run, connection = opened
    total = {
        (row["instance_id"], row["method"], row["layer"]): sum(row["bits"])
        for row in run.information
    }
    keys = ("method", "layer", "role", "correct")
    expected = []
    for key, rows in grouped(information_tokens(run), *keys).items():
        own = {
            name: sum(row["bits"] for row in of)
            for (name,), of in grouped(rows, "instance_id").items()
        }
        expected.append(
            dict(zip(keys, key, strict=True))
            | {
                "instances": len(own),
                "tokens": len(rows),
                "bits": mean(row["bits"] for row in rows),
                "total": mean(own.values()),
                "share": mean(bits / total[name, *key[:2]] for name, bits in own.items()),
                "left_out": 0,
            }
        )
    assert_rows(select(connection, "from information_flow"), expected, *keys)


def test_words(opened: Opened) -> None:
    run, connection = opened
    instances = {row["instance_id"]: row for row in run.instances}
    expected = []
    for row in run.attributions:
        instance = instances[row["instance_id"]]
        pieces = [
            {"segment": segment, "word": word, "position": position}
            for position, (segment, word) in enumerate(
                zip(instance["segment"], instance["word_ids"], strict=True)
            )
            if word is not None
        ]
        for (segment, word), members in grouped(pieces, "segment", "word").items():
            positions = [member["position"] for member in members]
            scores = [row["scores"][position] for position in positions]
            text = instance["text_pair" if segment else "text"]
            start = instance["char_start"][positions[0]]
            rationale = instance["rationale"]
            expected.append(
                {name: row[name] for name in ("instance_id", "method", "target", "layer")}
                | {
                    "segment": segment,
                    "word_id": word,
                    "word": text[start : instance["char_end"][positions[-1]]],
                    "position": positions[0],
                    "tokens": len(positions),
                    "score_sum": sum(scores),
                    "score_max": max(scores),
                    "score_mean": mean(scores),
                    "rationale": None if rationale is None else rationale[positions[0]],
                    "score": sum(scores) if row["method"] == "paths" else max(scores),
                }
            )
            assert expected[-1]["word"] == text.split()[word]
    keys = ("instance_id", "method", "segment", "word_id")
    assert_rows(select(connection, "from words"), expected, *keys)


def test_cost(opened: Opened) -> None:
    run, connection = opened
    groups = grouped(run.attributions, "method")
    each = {key: mean(row["seconds"] for row in rows) for key, rows in groups.items()}
    expected = []
    for key, rows in groups.items():
        seconds = sum(row["seconds"] for row in rows)
        tokens = sum(len(row["scores"]) for row in rows)
        expected.append(
            {
                "method": key[0],
                "instances": len(rows),
                "tokens": tokens,
                "seconds": seconds,
                "seconds_per_instance": each[key],
                "instances_per_second": len(rows) / seconds,
                "tokens_per_second": tokens / seconds,
                "failures": 0 if key[0] == "gradient" else 1,
            }
        )
    found = select(connection, "from cost")
    assert_rows(found, expected, "method")
    seconds = [row["seconds_per_instance"] for row in found]
    assert seconds == sorted(seconds)


def test_completeness(opened: Opened) -> None:
    run, connection = opened
    rows = [row for row in run.attributions if row["method"] == "paths"]
    gaps = [abs(row["delta"]) for row in rows]
    assert {row["bias"] is None for row in rows} == {True, False}
    relative = [
        abs(row["delta"]) / abs(sum(row["scores"]) + (row["bias"] or 0) - row["delta"])
        for row in rows
    ]
    expected = {
        "method": "paths",
        "n": len(rows),
        "median_gap": median(gaps),
        "mean_gap": mean(gaps),
        "max_gap": max(gaps),
        "median_relative_gap": median(relative),
        "left_out": 0,
    }
    assert_rows(select(connection, "from completeness"), [expected], "method")


def test_failure_summary(opened: Opened) -> None:
    run, connection = opened
    expected = [
        {name: row[name] for name in ("stage", "method", "error")}
        | {"count": 1, "example": row["instance_id"], "message": row["message"]}
        for row in run.failures
    ]
    assert len(expected) == 4
    assert_rows(select(connection, "from failure_summary"), expected, "stage", "method")


def test_a_curve_by_hand(tmp_path: Path) -> None:
    """Four units, of which halves are removed: the areas are two trapezoids each."""
    run = synthetic_run(rows=1, fractions=(0.5,), orders=("morf", "lerf"), failing=False)
    values = {
        ("morf", 0.0): (0, 0.8, 1),
        ("morf", 0.5): (2, 0.4, 0),
        ("morf", 1.0): (4, 0.2, 1),
        ("lerf", 0.0): (0, 0.8, 1),
        ("lerf", 0.5): (2, 0.6, 1),
        ("lerf", 1.0): (4, 0.2, 1),
    }
    for row in run.curves:
        point = values[row["order"], row["fraction"]]
        row["removed"], row["probability"], row["prediction"] = point
        row["units"], row["flipped"] = 4, row["prediction"] != 1
    with open_run(write_run(run, tmp_path), commented=False) as connection:
        for view in ("faithfulness", "faithfulness_by_instance"):
            (row,) = select(connection, f"from {view} where method = 'gradient'")
            keys = ("instance_id", "method", "protocol", "operation", "n", "left_out")
            found = {name: row[name] for name in row if name not in keys}
            expected: Row = {
                "comprehensiveness": 0.4,
                "sufficiency": 0.2,
                "aopc": (0.0 + 0.4 + 0.6) / 3,
                "log_odds": math.log(0.4) - math.log(0.8),
                "auc_morf": 0.5 * 0.6 + 0.5 * 0.3,
                "auc_lerf": 0.5 * 0.7 + 0.5 * 0.4,
                "auc_random": None,
                "auc_difference": 0.1,
                "flipped": 1,
                "decision_flip_fraction": 0.5,
                # Of the four units one may have been enough.
                "decision_flip_low": 0.25,
            }
            if view == "faithfulness_by_instance":
                expected = {"units": 4, "probability": 0.8} | expected
            assert list(found) == list(expected)
            found["flipped"] = int(found["flipped"])
            assert found == pytest.approx(expected, abs=1e-7)


def test_a_probability_of_zero_has_finite_log_odds(tmp_path: Path) -> None:
    run = synthetic_run(rows=1, fractions=(0.5,), failing=False)
    for row in run.curves:
        row["probability"] = 0.0 if row["fraction"] else 1.0
    with open_run(write_run(run, tmp_path), commented=False) as connection:
        for view in ("faithfulness", "faithfulness_by_instance"):
            for row in select(connection, f"from {view}"):
                assert row["log_odds"] == pytest.approx(math.log(1e-30))


def test_a_method_that_only_failed_has_a_cost(tmp_path: Path) -> None:
    run = synthetic_run(rows=2, failing=False)
    gone = [row for row in run.attributions if row["method"] == "paths"]
    run.attributions = [row for row in run.attributions if row["method"] != "paths"]
    run.curves = [row for row in run.curves if row["method"] != "paths"]
    run.failures = [
        {
            "instance_id": row["instance_id"],
            "stage": "attribute",
            "method": "paths",
            "error": "OutOfMemoryError",
            "message": "",
        }
        for row in gone
    ]
    with open_run(write_run(run, tmp_path), commented=False) as connection:
        (row,) = select(connection, "from cost where method = 'paths'")
    assert (row["instances"], row["failures"], row["seconds_per_instance"]) == (0, 2, None)


def test_a_run_that_has_only_begun_has_empty_views(tmp_path: Path) -> None:
    run = synthetic_run(rows=2)
    write_run(run, tmp_path)
    for file in tmp_path.rglob("*.parquet"):
        file.unlink()
    with open_run(tmp_path, commented=False) as connection:
        for view in VIEWS:
            if not view.is_macro:
                assert select(connection, f"from {view.name}") == []


def test_every_sql_file_is_a_view_with_a_comment() -> None:
    names = {
        path.name.removesuffix(".sql") for path in (files("attribeam.schemas") / "sql").iterdir()
    }
    assert {view.name for view in VIEWS} == names
    for view in VIEWS:
        assert view.comment.endswith(tuple("abcdefghijklmnopqrstuvwxyz0123456789.|)")), view.name
        assert view.sql.startswith(("create view", "create macro"))
        assert view.name in view.sql.splitlines()[0]


def test_every_column_is_commented(tmp_path: Path) -> None:
    with open_run(write_run(synthetic_run(), tmp_path)) as connection:
        columns = select(
            connection,
            "select table_name, column_name, comment from duckdb_columns() "
            "where not internal and table_name <> 'run'",
        )
        views = select(connection, "select comment from duckdb_views() where comment is not null")
        macros = select(
            connection,
            "select function_name as name, comment from duckdb_functions() where function_type in "
            "('macro', 'table_macro') and not internal",
        )
    # Keys of groups mean what they mean in the tables; all else is explained.
    assert [row for row in columns if row["comment"] is None] == []
    explained = {(view.name, column) for view in VIEWS for column in view.columns}
    assert explained <= {(row["table_name"], row["column_name"]) for row in columns}
    assert len(views) == sum(not view.is_macro for view in VIEWS)
    made = {each.name for view in VIEWS for each in view.created if each.kind != "view"}
    assert {row["name"]: bool(row["comment"]) for row in macros} == dict.fromkeys(made, True)


def test_the_benchmark_of_views_asks_all() -> None:
    assert without_query() == []
    assert {*ELSEWHERE} <= {view.name for view in VIEWS}
