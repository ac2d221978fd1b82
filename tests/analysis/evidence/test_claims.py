"""Claims: the rules of verdicts, and each statement against plain Python on tables made by hand."""

from collections.abc import Iterator
from math import atanh, sqrt, tanh
from typing import Any

import duckdb
import numpy as np
import pytest
from scipy.stats import spearmanr

from attribeam.analysis import open_run
from attribeam.analysis.evidence import statements
from attribeam.analysis.evidence.claims import CLAIMS, Comparison, Lacking, Seen
from attribeam.analysis.evidence.judging import (
    _AT_CHANCE,
    HOLDS,
    NOT_HERE,
    OPEN,
    PARTLY,
    UNJUDGED,
    _answer,
    judged,
    verdict_of,
)
from attribeam.analysis.opening.database import dict_rows
from attribeam.schemas import VIEWS
from tests.support.synthetic_run import synthetic_run, write_run
from tests.transforms.test_degradation import poisson_weights

EVERY = Seen(
    params={
        name: {}
        for name in (
            *("iba", "integrated_gradients", "lime", "grad_x_input", "globenc", "norm_n"),
            *("norm_n_res", "norm_n_resln", "w", "w_res", "w_fixed_res", "attention_rollout"),
            *("attattr", "influence", "pattern_ablation", "bt_token", "bt_head"),
            *("generic_attribution", "transformer_attribution"),
        )
    },
    operations=("mask",),
    kinds=frozenset({"embedding", "random", "conductance"}),
    importances=frozenset({"attattr", "attention", "random"}),
    tables=frozenset({"heads", "patterns", "attacks", "localisation", "pruning"}),
    layers=frozenset({"iba"}),
    subsets=2,
    other=None,
    pictures=False,
    target="predicted",
)


@pytest.fixture
def tables() -> Iterator[duckdb.DuckDBPyConnection]:
    """A database with the macros that statements call, for tables made by hand."""
    with duckdb.connect() as connection:
        for view in VIEWS:
            if view.name in ("bootstrap_weights", "centred_ranks", "rank_correlation"):
                connection.execute(view.sql)
        yield connection


def only(connection: duckdb.DuckDBPyConnection, sql: str) -> dict[str, Any]:
    (row,) = dict_rows(connection, sql)
    return dict(row)


@pytest.mark.parametrize(
    ("answers", "verdict"),
    [
        ([], UNJUDGED),
        (["for", "for"], HOLDS),
        (["for", "open"], PARTLY),
        (["for", "against"], PARTLY),
        (["against", "open"], NOT_HERE),
        (["against"], NOT_HERE),
        (["open", "open"], OPEN),
    ],
)
def test_verdicts(answers: list[str], verdict: str) -> None:
    assert verdict_of(answers) == verdict


def test_answers() -> None:
    above, below = Comparison("c", ""), Comparison("c", "", below=True)
    assert _answer(above, 20, 0.2, 0.1, 0.3) == "for"
    assert _answer(above, 20, -0.2, -0.3, -0.1) == "against"
    assert _answer(below, 20, -0.2, -0.3, -0.1) == "for"
    assert _answer(below, 20, 0.2, 0.1, 0.3) == "against"
    assert _answer(above, 20, 0.1, 0.0, 0.3) == "open"
    assert _answer(above, 19, 0.2, 0.1, 0.3) == "19 texts, fewer than 20"
    assert _answer(above, 20, None, None, None).startswith("no number")


def test_no_claim_of_an_empty_run_is_judged_and_all_its_queries_run(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    run = synthetic_run(rows=3, failing=False)
    folder = write_run(run, tmp_path_factory.mktemp("claims") / "run")
    with open_run(folder, others={"o": folder}, commented=False) as connection:
        found = judged(connection, EVERY)
        between = statements.same_heads("attattr", "o")
        assert list(dict_rows(connection, between)) == []
    assert [each.claim for each in found] == list(CLAIMS)
    assert all(each.findings for each in found)
    assert {each.verdict for each in found} == {UNJUDGED}
    assert all(each.reason for each in found)


def test_every_claim_says_what_it_lacks() -> None:
    bare = Seen({}, (), *[frozenset[str]()] * 4, 0, None, pictures=False, target="predicted")
    for claim in CLAIMS:
        lacking = claim.compared(bare)
        assert isinstance(lacking, Lacking)
        assert "need" in lacking.reason
    assert len({claim.key for claim in CLAIMS}) == len(CLAIMS)
    assert len({claim.paper for claim in CLAIMS}) == 5


def test_what_differs_is_said() -> None:
    by_key = {claim.key: claim for claim in CLAIMS}
    said = by_key["globenc-highest"].differs(
        EVERY._replace(params={"globenc": {}, "norm_n": {}, "grad_x_input": {"reduce": "sum"}})
    )
    assert any("w_res" in text for text in said)
    assert any("reduce=norm" in text for text in said)
    assert any("predicted class" in text for text in said)
    gold = {**EVERY.params, "grad_x_input": {"reduce": "norm"}}
    assert by_key["globenc-highest"].differs(EVERY._replace(params=gold, target="gold")) == []


def test_mean_of_texts_with_windows(tables: duckdb.DuckDBPyConnection) -> None:
    values = {"a": [1.0, 3.0], "b": [5.0], "c": [-1.0, 0.0, 4.0], "d": [float("nan")]}
    rows = [(name, value) for name, own in values.items() for value in own]
    tables.execute("create table given (of_text text, value double)")
    tables.executemany("insert into given values (?, ?)", rows)
    found = only(tables, statements.mean_of("select of_text, value from given"))
    means = np.array([2.0, 5.0, 1.0])
    weights = poisson_weights(["a", "b", "c"])
    weights = weights[weights.any(axis=1)]
    bounds = np.percentile(weights @ means / weights.sum(axis=1), [2.5, 97.5])
    assert (found["n"], found["value"]) == (3, pytest.approx(means.mean()))
    assert (found["low"], found["high"]) == pytest.approx(tuple(bounds))


def test_correlation_of_heads(tables: duckdb.DuckDBPyConnection) -> None:
    tables.execute(
        "create table head_agreement as select 'attattr' as method_a, 'attattr' as method_b,"
        " unnest([12, 12]) as heads, unnest([0.9, 0.5]) as spearman"
    )
    found = only(tables, statements.same_heads("attattr", None))
    error = 1.959964 / sqrt(9)
    assert (found["n"], found["value"]) == (12, 0.5)
    assert found["low"] == pytest.approx(tanh(atanh(0.5) - error))
    assert found["high"] == pytest.approx(tanh(atanh(0.5) + error))


def test_area_of_pruning(tables: duckdb.DuckDBPyConnection) -> None:
    """Of unevenly spaced rates, with two random orders."""
    rates = [0.0, 0.25, 1.0]
    curves = {
        ("attattr", None): [0.9, 0.8, 0.5],
        ("random", 0): [0.9, 0.6, 0.5],
        ("random", 1): [0.9, 0.4, 0.5],
    }
    tables.execute(
        "create table pruning (evaluation text, method text, importance text, seed int,"
        " rate double, accuracy double, n int)"
    )
    for (importance, seed), accuracies in curves.items():
        for rate, accuracy in zip(rates, accuracies, strict=True):
            tables.execute(
                "insert into pruning values ('e', 'attattr', ?, ?, ?, ?, 100)",
                [importance, seed, rate, accuracy],
            )
    found = only(tables, statements.pruned_longer("attattr", "random"))
    ours, theirs = np.array([0.9, 0.8, 0.5]), np.array([0.9, 0.5, 0.5])
    errors = np.sqrt((ours * (1 - ours) + theirs * (1 - theirs)) / 100)
    value, error = np.trapezoid(ours - theirs, rates), np.trapezoid(errors, rates)
    assert found["value"] == pytest.approx(value)
    assert (found["low"], found["high"]) == pytest.approx(
        (value - 1.959964 * error, value + 1.959964 * error)
    )


def test_what_triggers_take(tables: duckdb.DuckDBPyConnection) -> None:
    """The interval of paired answers, of classes that the strongest trigger doesn't speak for."""
    tables.execute(
        "create table attacks as select 'e' as evaluation, 'attattr' as method,"
        " unnest([1, 1, 2]) as rank, unnest([0, 0, 0]) as explained, unnest([0, 1, 1]) as gold,"
        " unnest([50, 100, 100]) as n, unnest([40, 80, 80]) as correct_before,"
        " unnest([45, 35, 0]) as correct_after, unnest([0, 50, 80]) as flipped"
    )
    found = only(tables, statements.attacked("attattr"))
    changes = np.array([1.0] * 50 + [-1.0] * 5 + [0.0] * 45)  # Lost, won, the same.
    error = 1.959964 * changes.std() / sqrt(100)
    assert (found["n"], found["value"]) == (100, pytest.approx(0.45))
    assert (found["low"], found["high"]) == pytest.approx((0.45 - error, 0.45 + error))


def test_share_of_skips(tables: duckdb.DuckDBPyConnection) -> None:
    tables.execute("create table run as select 4 as model_num_heads")
    tables.execute("create table instances as select unnest(['a', 'b']) as instance_id,"
                   " unnest(['a', 'b']) as row_id")  # fmt: skip
    edges = [("a", "skip", True), ("a", "head", True), ("a", "head", False), ("b", "skip", True)]
    tables.execute(
        "create table pattern_nodes (instance_id text, kind text, stay bool, level text,"
        " method text)"
    )
    tables.executemany(
        "insert into pattern_nodes values (?, ?, ?, 'attention', 'influence')", edges
    )
    found = only(tables, statements.skips("influence"))
    assert found["value"] == pytest.approx((0.5 + 1) / 2 - 1 / 5)


def test_bits_that_gather(tables: duckdb.DuckDBPyConnection) -> None:
    tables.execute("create table instances as select 'a' as instance_id, 'a' as row_id")
    bits = [(0, "text", 3.0), (0, "readout", 1.0), (2, "text", 1.0), (2, "readout", 3.0)]
    bits += [(1, "text", 9.0), (1, "readout", 0.0)]
    tables.execute(
        "create table information_tokens (layer int, role text, bits double, instance_id text,"
        " method text)"
    )
    tables.executemany("insert into information_tokens values (?, ?, ?, 'a', 'iba')", bits)
    assert only(tables, statements.gathered("iba"))["value"] == pytest.approx(0.5)


def test_rank_correlation_with_the_gradient(tables: duckdb.DuckDBPyConnection) -> None:
    rng = np.random.default_rng(1)
    scores = {name: rng.normal(size=9) for name in ("globenc", "norm_n", "grad_x_input")}
    tables.execute("create table instances as select 'a' as instance_id, 'a' as row_id")
    tables.execute(
        "create table attributions (method text, scores double[], instance_id text, layer int)"
    )
    for name, own in scores.items():
        tables.execute("insert into attributions values (?, ?, 'a', null)", [name, own.tolist()])
    found = only(tables, statements.nearer_gradient("globenc", "norm_n"))
    one, two = (
        float(spearmanr(abs(scores[name]), abs(scores["grad_x_input"])).statistic)
        for name in ("globenc", "norm_n")
    )
    assert found["value"] == pytest.approx(one - two)


@pytest.mark.parametrize(("correct", "found"), [(50, {"pruning"}), (55, {"pruning"}), (80, set())])
def test_models_at_chance(tables: duckdb.DuckDBPyConnection, correct: int, found: set[str]) -> None:
    """Nothing is said of what a model loses that is right by chance."""
    tables.execute(
        f"create table pruning as select 'e' as evaluation, 0.0 as rate, 100 as n, {correct} as "
        "correct; create table attacks (evaluation text, rank int, n int, correct_before int)"
    )
    sql = _AT_CHANCE.format(classes=2)
    assert {of for (of,) in tables.execute(sql).fetchall()} == found
    claim = next(claim for claim in CLAIMS if claim.key == "attattr-pruning")
    compared = claim.compared(EVERY._replace(chance=frozenset(found)))
    assert isinstance(compared, Lacking) == bool(found)
