"""The views that test whether one method is better than another, against scipy and NumPy."""

from collections.abc import Mapping
from hashlib import md5
from itertools import combinations
from typing import Any

import duckdb
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import permutation_test

from tests.schemas.test_metric_views import by, select, views
from tests.support.synthetic_run import Row
from tests.transforms.test_degradation import poisson_weights

Floats = NDArray[np.float64]
Connection = duckdb.DuckDBPyConnection

METRICS = ("comprehensiveness", "sufficiency", "aopc", "log_odds", "auc_morf", "auc_lerf")
METRICS += ("auc_difference", "decision_flip_fraction")
TOY = {
    "A": (0.62, 0.55, 0.71, 0.40, 0.66, 0.58),
    "B": (0.51, 0.50, 0.69, 0.43, 0.52, 0.49),
    "C": (0.50, 0.58, 0.60, 0.41, 0.55, 0.57),
}


def metric_tables(values: Mapping[str, Mapping[str, float]], windows: int = 1) -> Connection:
    """Instances' comprehensiveness by method; sufficiency is 1 less that, log-odds its square.

    Neighbouring instances, so many as ``windows``, are of one text.
    """
    connection = duckdb.connect()
    columns = ", ".join(f"{name} double" for name in METRICS)
    connection.execute(
        "create table faithfulness_by_instance (instance_id text, method text, protocol text, "
        f"operation text, units int, probability double, {columns}, auc_random double, "
        "flipped bool)"
    )
    connection.execute("create table instances (instance_id text, row_id text)")
    for method, of in values.items():
        for name, value in of.items():
            connection.execute(
                "insert into faithfulness_by_instance by name select ? as instance_id, "
                "? as method, 'token' as protocol, 'mask' as operation, ? as comprehensiveness, "
                "1 - comprehensiveness as sufficiency, comprehensiveness ** 2 as log_odds",
                [name, method, value],
            )
    every = sorted({name for of in values.values() for name in of})
    for number, name in enumerate(every):
        connection.execute("insert into instances values (?, ?)", [name, text(number, windows)])
    # What `compared_curves` gives, of which it is tested elsewhere that it does.
    connection.execute(
        "create macro compared_curves(common, methods) as table select instance_id, method, "
        "protocol, operation, not common or count(*) over (partition by instance_id) = "
        f"{len(values)} as compared, {len(every)} as total from faithfulness_by_instance "
        "where methods is null or list_contains(methods, method)"
    )
    for view in views("bootstrap_weights", "faithfulness_differences"):
        connection.execute(view.sql)
    return connection


def text(number: int, windows: int) -> str:
    return f"text {number // windows}"


def flips_of(names: list[str], draws: int) -> NDArray[np.bool_]:
    """Which texts each draw flips, [draws, N], as the view's manual says."""
    prime = 2**31 - 1
    numbers = [int.from_bytes(md5(f"flip {name}".encode()).digest(), "little") for name in names]
    starts = np.array([number % prime for number in numbers])
    steps = np.array([(number >> 64) % prime for number in numbers])
    return (starts + np.arange(draws)[:, None] * steps) % prime < 2**30


def holm(values: list[float]) -> list[float]:
    order = np.argsort(values, kind="stable")
    steps = [(len(values) - rank) * values[at] for rank, at in enumerate(order)]
    corrected = np.minimum(1, np.maximum.accumulate(steps))
    return [float(corrected[list(order).index(at)]) for at in range(len(values))]


def test_few_instances_have_the_exact_p() -> None:
    toy = {m: {f"i{n}": v for n, v in enumerate(values)} for m, values in TOY.items()}
    with metric_tables(toy) as connection:
        rows = select(connection, "from faithfulness_differences")
    found = by(rows, "metric", "method_a", "method_b")
    printed = {
        ("A", "B"): (0.063333, 0.09375, 0.28125),
        ("A", "C"): (0.051667, 0.21875, 0.4375),
        ("B", "C"): (-0.011667, 0.78125, 0.78125),
    }
    for (a, b), (difference, p, p_holm) in printed.items():
        row = found["comprehensiveness", a, b]
        assert row["difference"] == pytest.approx(difference, abs=1e-6)
        assert (row["p"], row["p_holm"]) == (p, p_holm)
        assert (row["n"], row["draws"], row["left_out"]) == (6, 64, 0)
        peer = permutation_test(
            (np.array(TOY[a]) - TOY[b],), np.mean, permutation_type="samples", n_resamples=np.inf
        )
        assert row["p"] == pytest.approx(peer.pvalue, abs=1e-10)
        # The mirror image: the same test, and the same winner though lower is better.
        mirrored = found["sufficiency", a, b]
        assert (mirrored["better"], mirrored["p"]) == ("lower", p)
        assert mirrored["wins"] == row["wins"]
        assert mirrored["difference"] == pytest.approx(-row["difference"], abs=1e-10)
    assert found["comprehensiveness", "A", "B"]["wins"] == pytest.approx(5 / 6)
    assert found["comprehensiveness", "A", "B"]["d_z"] == pytest.approx(1.013279, abs=1e-6)
    assert {metric for metric, *_ in found} == {"comprehensiveness", "sufficiency", "log_odds"}


def expected_of(
    one: Floats, other: Floats, texts: list[str], draws: int, *, rounding: float = 1e-12
) -> Row:
    """The statistics of a pair from their definitions: texts are drawn and flipped whole."""
    difference = one - other
    names = sorted(set(texts))
    member = np.array([[name == of for of in texts] for name in names], float)
    weights = poisson_weights(names) @ member
    means = (weights @ difference) / weights.sum(axis=1)
    signs = 1 - 2 * (flips_of(names, draws) @ member)
    extreme = np.abs(signs @ difference) >= abs(difference.sum()) - rounding
    low, high = np.percentile(means, [2.5, 97.5])
    return {
        "n": len(one),
        "difference": difference.mean(),
        "low": low,
        "high": high,
        "p": (1 + extreme.sum()) / (1 + draws),
        "wins": (difference > 0).mean(),
        "ties": (difference == 0).mean(),
        "d_z": difference.mean() / difference.std(ddof=1),
        "draws": draws,
    }


@pytest.mark.parametrize("common", [True, False])
def test_differences_of_drawn_flips(common: bool) -> None:
    """Each method lacks other instances; instances are windows, two of a text."""
    rng = np.random.default_rng(5)
    names = [f"i{n:02d}" for n in range(60)]
    values = {
        m: dict(zip(names, np.round(rng.normal(0.1 * n, 0.3, len(names)), 1), strict=True))
        for n, m in enumerate("abcd")
    }
    for number, method in enumerate("abc"):
        del values[method][names[7 * number]]
    asked = f"from faithfulness_differences_over(common := {common})"
    with metric_tables(values, windows=2) as connection:
        rows = select(connection, f"{asked} where metric = 'comprehensiveness'")
    found = by(rows, "method_a", "method_b")
    for a, b in combinations("abcd", 2):
        compared = values.values() if common else (values[a], values[b])
        kept = [name for name in names if all(name in of for of in compared)]
        texts = [text(names.index(name), 2) for name in kept]
        pair = [np.array([values[method][name] for name in kept]) for method in (a, b)]
        expected = expected_of(*pair, texts, 2000)
        row = found[a, b]
        assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-10)
        assert row["left_out"] == len(names) - len(kept)
    corrected = holm([row["p"] for row in found.values()])
    assert [row["p_holm"] for row in found.values()] == pytest.approx(corrected, abs=1e-10)


def test_many_texts_some_without_a_metric() -> None:
    """More than are summed at once; what one lacks is left out for that metric alone."""
    rng = np.random.default_rng(7)
    names = [f"i{n:03d}" for n in range(270)]
    values = {
        m: dict(zip(names, rng.normal(0.03 * n, 0.3, 270), strict=True)) for n, m in enumerate("ab")
    }
    with metric_tables(values) as connection:
        connection.execute(
            "update faithfulness_by_instance set log_odds = null "
            "where instance_id = 'i005' and method = 'b'"
        )
        found = by(select(connection, "from faithfulness_differences"), "metric")
    for metric, power in (("comprehensiveness", 1), ("log_odds", 2)):
        kept = [name for name in names if metric != "log_odds" or name != "i005"]
        pair = [np.array([values[method][name] for name in kept]) ** power for method in "ab"]
        expected = expected_of(*pair, [text(names.index(name), 1) for name in kept], 2000)
        if metric == "log_odds":  # Of which less is better.
            expected["wins"] = 1 - expected["wins"]
        row = found[(metric,)]
        assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-10)


def test_methods_that_are_equal_do_not_differ() -> None:
    same: dict[str, Any] = {f"i{n}": 0.1 * n for n in range(3)}
    with metric_tables({"one": same, "two": same}) as connection:
        rows = select(connection, "from faithfulness_differences_over(draws := 4)")
    assert len(rows) == 3
    for row in rows:
        assert (row["difference"], row["low"], row["high"]) == (0, 0, 0)
        # Four draws are fewer than the eight flips that there are: p is drawn.
        assert (row["p"], row["p_holm"], row["draws"]) == (1, 1, 4)
        assert (row["wins"], row["ties"], row["d_z"]) == (0, 1, None)


def test_intervals_draw_the_windows_of_a_text_together() -> None:
    rng = np.random.default_rng(5)
    values = {"A": {f"i{n:02}": float(rng.random()) for n in range(24)}}
    with metric_tables(values, windows=3) as connection:
        connection.execute(views("faithfulness_intervals")[0].sql)
        found = by(select(connection, "from faithfulness_intervals"), "metric")
    names = sorted(values["A"])
    weights = poisson_weights([text(number, 3) for number in range(len(names))])
    own = np.array([values["A"][name] for name in names])
    means = (weights @ own)[weights.any(1)] / weights.sum(1)[weights.any(1)]
    row = found[("comprehensiveness",)]
    assert row["value"] == pytest.approx(own.mean(), abs=1e-12)
    assert (row["low"], row["high"]) == pytest.approx(
        tuple(np.percentile(means, (2.5, 97.5))), abs=1e-9
    )
