"""Agreement, plausibility, intervals and the other views of metrics, against scipy, scikit-learn
and plain Python over the same rows.
"""

import io
import math
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from importlib.resources import files
from itertools import combinations, groupby
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

import duckdb
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import entropy, kendalltau, spearmanr
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score

from attribeam.analysis import open_run
from attribeam.analysis.query.terminal import print_rows
from attribeam.schemas import VIEWS, View, table_schema
from attribeam.schemas.tables import EVALUATIONS, TABLES
from tests.support.synthetic_run import (
    METHODS,
    Row,
    SyntheticRun,
    create_tables,
    synthetic_run,
    write_run,
)
from tests.transforms.test_degradation import poisson_weights

NEW = (
    "compared",
    "compared_curves",
    "compared_points",
    "faithfulness_normalised_by_instance",
    "faithfulness_normalised",
    "faithfulness_distributions_by_instance",
    "faithfulness_distributions",
    "inversions",
    "agreement_by_instance",
    "agreement",
    "agreement_absolute_by_instance",
    "agreement_absolute",
    "centred_ranks",
    "summed_lists",
    "consensus_by_instance",
    "consensus",
    "complexity_by_instance",
    "complexity",
    "ranking",
    "ranking_agreement",
    "span_firsts",
    "span_lasts",
    "matching_spans",
    "word_ranks",
    "word_count",
    "plausibility_by_instance",
    "plausibility",
    "grad_x_input_correlation",
    "perturbation_auc",
    "cost_faithfulness",
    "bootstrap_weights",
    "faithfulness_intervals",
    "faithfulness_differences",
    "plausibility_intervals",
    "pointing_by_instance",
    "pointing",
)
RUNS: dict[str, dict[str, Any]] = {
    "whole numbers": {"seed": 1, "rows": 40, "step": 1.0},
    "halves": {"seed": 2, "rows": 40, "step": 0.5},
    "no ties": {"seed": 3, "rows": 40},
    "double": {"seed": 4, "rows": 20, "dtype": "float64"},
}

Connection = duckdb.DuckDBPyConnection
Opened = tuple[SyntheticRun, Connection]


def views(*names: str) -> list[View]:
    by_name = {view.name: view for view in VIEWS}
    return [by_name[name] for name in names]


def make(step: float | None = None, **options: Any) -> SyntheticRun:
    """A run whose first method is called grad_x_input, and whose scores are rounded to a step."""
    run = synthetic_run(failing=False, **options)
    run.manifest["methods"]["grad_x_input"] = run.manifest["methods"].pop("gradient")
    for table in (run.attributions, run.curves):
        for row in table:
            row["method"] = row["method"].replace("gradient", "grad_x_input")
    for number, row in enumerate(run.attributions):
        if step is not None:
            row["scores"] = [round(score / step) * step for score in row["scores"]]
            if number % 17 == 3:
                row["scores"] = [0.0 for _ in row["scores"]]
    return run


@pytest.fixture(scope="module", params=RUNS)
def opened(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Opened]:
    run = make(**RUNS[request.param])
    with open_run(write_run(run, tmp_path_factory.mktemp("run")), commented=False) as connection:
        yield run, connection


def select(connection: Connection, sql: str) -> list[Row]:
    cursor = connection.execute(sql)
    assert cursor.description is not None
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def by(rows: list[Row], *keys: str) -> dict[tuple[Any, ...], Row]:
    found = {tuple(row.pop(key) for key in keys): row for row in map(dict, rows)}
    assert len(found) == len(rows)
    return found


def assert_same(found: dict[Any, Row], expected: dict[Any, Row], tolerance: float = 1e-6) -> None:
    assert set(found) == set(expected)
    for key, row in expected.items():
        assert list(found[key]) == list(row), key
        for name, value in row.items():
            if isinstance(value, float):
                assert found[key][name] == pytest.approx(value, rel=0, abs=tolerance), (key, name)
            else:
                assert found[key][name] == value, (key, name)


def number_or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def average(values: list[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return mean(there) if there else None


# Agreement -------------------------------------------------------------------------------------


def compare(one: Sequence[float], other: Sequence[float]) -> Row:
    """Agreement of two lists of scores by the definitions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spearman = spearmanr(one, other).statistic if len(one) > 1 else math.nan
        kendall = kendalltau(one, other).statistic if len(one) > 1 else math.nan
    k = max(1, math.floor(len(one) / 4 + 0.5))
    # Python's sort keeps the earlier of equals first.
    tops = [
        set(sorted(range(len(scores)), key=lambda at: -scores[at])[:k]) for scores in (one, other)
    ]
    return {
        "tokens": len(one),
        "spearman": number_or_none(spearman),
        "kendall": number_or_none(kendall),
        "top_k": k,
        "jaccard": len(tops[0] & tops[1]) / len(tops[0] | tops[1]),
    }


def agreements(run: SyntheticRun) -> dict[tuple[str, ...], Row]:
    instances = {row["instance_id"]: row for row in run.instances}
    scores: dict[str, dict[str, list[float]]] = defaultdict(dict)
    for row in run.attributions:
        instance = instances[row["instance_id"]]
        scores[row["instance_id"]][row["method"]] = [
            score
            for at, score in enumerate(row["scores"])
            if not instance["special"][at] and at != instance["readout"]
        ]
    return {
        (name, a, b): compare(of[a], of[b])
        for name, of in scores.items()
        for a, b in combinations(sorted(of), 2)
    }


def test_agreement_by_instance(opened: Opened) -> None:
    run, connection = opened
    expected = agreements(run)
    assert len(expected) == 3 * len(run.instances)
    found = select(connection, "from agreement_by_instance")
    assert_same(by(found, "instance_id", "method_a", "method_b"), expected)


def test_agreement_is_the_mean_over_instances(opened: Opened) -> None:
    run, connection = opened
    grouped = defaultdict(list)
    for (_, *pair), row in agreements(run).items():
        grouped[tuple(pair)].append(row)
    expected = {
        pair: {
            "n": len(rows),
            "constant": sum(row["spearman"] is None for row in rows),
            **{
                name: average([row[name] for row in rows])
                for name in ("spearman", "kendall", "jaccard")
            },
            "left_out": 0,
        }
        for pair, rows in grouped.items()
    }
    assert_same(by(select(connection, "from agreement"), "method_a", "method_b"), expected)


def insert_scores(connection: Connection, name: str, method: str, scores: list[float]) -> None:
    connection.execute(
        "insert into attributions by name select ? as instance_id, ? as method, ? as scores",
        [name, method, scores],
    )


def tables_of_tokens(scores: dict[str, dict[str, list[float]]]) -> Connection:
    """Instances between two special tokens, whose scores are the largest of all."""
    connection = duckdb.connect()
    connection.execute("create table instances (instance_id text, special bool[], readout int)")
    create_tables(connection, *set(TABLES) - {"instances"})
    for name, of in scores.items():
        length = len(next(iter(of.values())))
        special = [True, *[False] * length, True]
        connection.execute("insert into instances values (?, ?, 0)", [name, special])
        for method, values in of.items():
            insert_scores(connection, name, method, [99.0, *values, -99.0])
    asked = ("compared", "inversions", "agreement_by_instance", "agreement")
    for view in views(*asked, "complexity_by_instance", "complexity"):
        connection.execute(view.sql)
    return connection


def test_agreement_on_texts_of_any_length() -> None:
    """The permutations of up to 50, up to 110 and more tokens are counted in different ways."""
    rng = np.random.default_rng(0)
    lengths = [1, 2, 3, 16, 24, 49, 50, 51, 52, 64, 100, 109, 110, 111, 128, 300]
    scores: dict[str, dict[str, list[float]]] = {}
    for length in lengths:
        base = rng.normal(size=length)
        scores[f"of {length}"] = {
            "a": np.float32(base).tolist(),
            "b": np.float32(base + rng.normal(size=length)).tolist(),
            "clamped": np.float32(np.maximum(base, 0)).tolist(),
            "rounded": np.round(base + rng.normal(size=length)).tolist(),
            "reversed": np.float32(-base).tolist(),
        }
    with tables_of_tokens(scores) as connection:
        found = by(
            select(connection, "from agreement_by_instance"), "instance_id", "method_a", "method_b"
        )
    expected = {
        (name, a, b): compare(of[a], of[b])
        for name, of in scores.items()
        for a, b in combinations(sorted(of), 2)
    }
    assert_same(found, expected)
    assert found["of 300", "a", "reversed"]["kendall"] == -1


def test_agreement_by_hand() -> None:
    scores = {
        # Of four tokens, one is in the top; the earlier of equals counts as higher.
        "t": {"a": [4.0, 3, 2, 1], "b": [3.0, 4, 2, 1], "c": [5.0, 5, 5, 1], "d": [2.0, 2, 2, 2]},
    }
    with tables_of_tokens(scores) as connection:
        rows = by(select(connection, "from agreement_by_instance"), "method_a", "method_b")
        (pair,) = select(connection, "from agreement where method_a = 'a' and method_b = 'd'")
    assert rows["a", "b"]["spearman"] == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert rows["a", "b"]["kendall"] == pytest.approx(4 / 6)
    assert rows["a", "b"]["jaccard"] == 0
    # c tells three of the six pairs apart, and orders them as a does.
    assert rows["a", "c"]["kendall"] == pytest.approx(3 / math.sqrt(6 * 3))
    assert rows["a", "c"]["jaccard"] == 1
    assert (rows["a", "d"]["spearman"], rows["a", "d"]["kendall"]) == (None, None)
    assert rows["a", "d"]["jaccard"] == 1
    assert (pair["n"], pair["constant"], pair["spearman"]) == (1, 1, None)


@pytest.mark.parametrize("length", [0, 1, 2, 7, 50, 51, 110, 111, 400])
def test_inversions(length: int) -> None:
    permutation = (np.random.default_rng(length).permutation(length) + 1).tolist()
    expected = sum(a > b for a, b in combinations(permutation, 2))
    with duckdb.connect() as connection:
        connection.execute(views("inversions")[0].sql)
        sql = "select inversions(?::bigint[]), inversions(range(?, 0, -1))"
        found = connection.execute(sql, [permutation, length]).fetchone()
    assert found == (expected, length * (length - 1) // 2)


@pytest.mark.parametrize("length", [7, 50, 51, 110, 111, 400])
def test_inversions_of_values_that_are_shared(length: int) -> None:
    values = np.random.default_rng(length).integers(length // 2, size=length)
    ranks = values.argsort(kind="stable").argsort() + 1
    equal_after = (values <= values[:, None]).sum(axis=1) - ranks
    expected = sum(one > other for one, other in combinations(values.tolist(), 2))
    with duckdb.connect() as connection:
        connection.execute(views("inversions")[0].sql)
        codes = (ranks + 65536 * equal_after).tolist()
        found = connection.execute("select inversions(?::uinteger[])", [codes]).fetchone()
    assert found == (expected,)


def test_scores_of_one_layer_are_left_out(tmp_path: Path) -> None:
    run = make(rows=3)
    for row in run.attributions:
        if row["method"] == "paths":
            row["layer"] = 1
    with open_run(write_run(run, tmp_path), commented=False) as connection:
        pairs = {row["method_b"] for row in select(connection, "from agreement")}
        methods = {row["method"] for row in select(connection, "from word_ranks")}
    assert (pairs, "paths" in methods) == ({"grad_x_input"}, False)


# Complexity ------------------------------------------------------------------------------------


def spread(scores: Sequence[float]) -> Row:
    """Complexity of a list of scores, by other formulas than the view's."""
    sizes = np.abs(np.array(scores, np.float64))
    n, total = len(sizes), sizes.sum()
    if total == 0:
        measures = dict.fromkeys(("entropy", "entropy_share", "gini", "effective"))
        return {"tokens": n} | measures | {"effective_number": None}
    nats = float(entropy(sizes))
    return {
        "tokens": n,
        "entropy": nats,
        "entropy_share": nats / math.log(n) if n > 1 else None,
        # Half of the relative mean absolute difference of all pairs.
        "gini": float(np.abs(sizes[:, None] - sizes).sum() / (2 * n * total)),
        "effective": int((sizes >= 0.05 * sizes.max()).sum()),
        "effective_number": math.exp(nats),
    }


def test_complexity_by_instance(opened: Opened) -> None:
    run, connection = opened
    instances = {row["instance_id"]: row for row in run.instances}
    expected = {}
    for row in run.attributions:
        instance = instances[row["instance_id"]]
        zipped = enumerate(zip(row["scores"], instance["special"], strict=True))
        kept = [s for at, (s, special) in zipped if not special and at != instance["readout"]]
        # As they are stored.
        kept = np.array(kept, stored_type(run)).tolist()
        expected[row["instance_id"], row["method"]] = spread(kept)
    found = by(select(connection, "from complexity_by_instance"), "instance_id", "method")
    assert_same(found, expected, 1e-10)
    means: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for (_, method), row in expected.items():
        means[(method,)].append(row)
    names = ("entropy", "entropy_share", "gini", "effective", "effective_number")
    summary = {
        key: {
            "n": len(rows),
            "constant": sum(row["entropy"] is None for row in rows),
            **{name: average([row[name] for row in rows]) for name in names},
            "left_out": 0,
        }
        for key, rows in means.items()
    }
    assert_same(by(select(connection, "from complexity"), "method"), summary, 1e-10)


def stored_type(run: SyntheticRun) -> str:
    return str(run.manifest["identity"]["settings"]["dtype"])


def test_complexity_by_hand() -> None:
    scores = {
        "t": {
            "spread": [4.0, -2, 1, 1],
            "equal": [1.0, 1, 1, 1],
            "one": [0.0, 0, 0, 5],
            "none": [0.0, 0, 0, 0],
            "tiny": [0.0, 0, 0, 1e-45],
        },
        "one token": {name: [3.0] for name in ("spread", "equal", "one", "none", "tiny")},
    }
    with tables_of_tokens(scores) as connection:
        rows = by(select(connection, "from complexity_by_instance"), "instance_id", "method")
        (none,) = select(connection, "from complexity where method = 'none'")
    names = ("entropy", "entropy_share", "gini", "effective", "effective_number")
    found = {key: tuple(row[name] for name in names) for key, row in rows.items()}
    nats = 1.75 * math.log(2)
    expected = (nats, 0.875, 0.3125, 4, 2**1.75)
    assert found["t", "spread"] == pytest.approx(expected, abs=1e-10)
    assert found["t", "equal"] == pytest.approx((math.log(4), 1, 0, 4, 4), abs=1e-10)
    assert found["t", "one"] == found["t", "tiny"] == (0, 0, 0.75, 1, 1)
    assert math.copysign(1, found["t", "one"][0]) == 1
    assert found["t", "none"] == (None,) * 5
    assert found["one token", "one"] == (0, None, 0, 1, 1)
    assert (none["n"], none["constant"], none["entropy"]) == (2, 1, 0)


# Gradient x input ------------------------------------------------------------------------------


def test_grad_x_input_correlation(opened: Opened) -> None:
    run, connection = opened
    scores = {
        (row["instance_id"], row["method"]): np.abs(row["scores"]) for row in run.attributions
    }
    expected = {}
    for method in set(METHODS) - {"gradient"}:
        found = [
            compare(scores[name, method].tolist(), scores[name, "grad_x_input"].tolist())[
                "spearman"
            ]
            for name in (row["instance_id"] for row in run.instances)
        ]
        there = [value for value in found if value is not None]
        expected[(method,)] = {
            "n": len(found),
            "constant": len(found) - len(there),
            "spearman": mean(there),
            "std": pstdev(there),
            "left_out": 0,
        }
    rows = select(connection, "from grad_x_input_correlation")
    assert_same(by(rows, "method"), expected)


def test_without_grad_x_input_there_is_no_correlation_with_it(tmp_path: Path) -> None:
    with open_run(write_run(synthetic_run(), tmp_path), commented=False) as connection:
        assert select(connection, "from grad_x_input_correlation") == []


# Plausibility ----------------------------------------------------------------------------------

Span = tuple[int, int]


class Ranked:
    """The words of the first text: their scores, and whether they are in the rationale."""

    def __init__(self, instance: Row, method: str, scores: Sequence[float]):
        words: dict[int, list[int]] = defaultdict(list)
        for at, word in enumerate(instance["word_ids"]):
            if word is not None and instance["segment"][at] == 0:
                words[word].append(at)
        joined = sum if method == "paths" else max
        self.scores = [joined(scores[at] for at in words[word]) for word in sorted(words)]
        self.marked = [instance["rationale"][words[word][0]] for word in sorted(words)]

    @property
    def order(self) -> list[int]:
        return sorted(range(len(self.scores)), key=lambda word: -self.scores[word])

    def top(self, k: int) -> set[int]:
        return set(self.order[:k])

    @property
    def rationale(self) -> set[int]:
        return {word for word, marked in enumerate(self.marked) if marked}


def runs(words: set[int]) -> set[Span]:
    """Runs of neighbouring words, as ERASER's spans: first word and the one after the last."""
    groups = groupby(enumerate(sorted(words)), lambda pair: pair[1] - pair[0])
    lists = [[word for _, word in group] for _, group in groups]
    return {(of[0], of[-1] + 1) for of in lists}


def overlap(one: Span, other: Span) -> float:
    a, b = (set(range(*span)) for span in (one, other))
    return len(a & b) / len(a | b)


def matches(predicted: set[Span], true: set[Span]) -> int:
    """ERASER's: predictions whose best overlap reaches a half."""
    return sum(max(overlap(span, of) for of in true) >= 0.5 for span in predicted)


def f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision and recall else 0.0


def token_f1(chosen: set[int], true: set[int]) -> float:
    common = len(chosen & true)
    return f1(common / len(chosen), common / len(true))


def plausibilities(run: SyntheticRun) -> dict[tuple[str, str], tuple[Ranked, Row]]:
    instances = {row["instance_id"]: row for row in run.instances}
    found = {}
    for row in run.attributions:
        instance = instances[row["instance_id"]]
        if instance["rationale"] is None:
            continue
        ranked = Ranked(instance, row["method"], row["scores"])
        if len(set(ranked.marked)) < 2:
            continue
        true = ranked.rationale
        chosen = ranked.top(len(true))
        hits = matches(runs(chosen), runs(true))
        precision, recall, _ = precision_recall_curve(ranked.marked, ranked.scores)
        found[row["instance_id"], row["method"]] = (
            ranked,
            {
                "words": len(ranked.scores),
                "marked": len(true),
                "token_f1": token_f1(chosen, true),
                "token_iou": len(chosen & true) / len(chosen | true),
                "iou_precision": hits / len(runs(chosen)),
                "iou_recall": hits / len(runs(true)),
                "iou_f1": f1(hits / len(runs(chosen)), hits / len(runs(true))),
                "average_precision": float(average_precision_score(ranked.marked, ranked.scores)),
                "auprc": float(auc(recall, precision)),
                "rationale": [word + 1 for word in sorted(true)],
                "ranked": [word + 1 for word in ranked.order],
                "text_words": len(ranked.scores),
                "unseen": 0,
                "first_words": len(ranked.scores),
            },
        )
    return found


def test_plausibility_by_instance(opened: Opened) -> None:
    run, connection = opened
    expected = {key: row for key, (_, row) in plausibilities(run).items()}
    left_out = {row["instance_id"] for row in run.instances} - {name for name, _ in expected}
    assert {
        row["rationale"] is None for row in run.instances if row["instance_id"] in left_out
    } == {
        True,
        False,
    }
    found = select(connection, "from plausibility_by_instance")
    assert_same(by(found, "instance_id", "method"), expected)


def test_plausibility(opened: Opened) -> None:
    run, connection = opened
    rows = plausibilities(run)
    of_instance = {name: ranked for (name, _), (ranked, _) in rows.items()}.values()
    share = mean(len(of.rationale) / len(of.scores) for of in of_instance)
    number = max(1, math.floor(mean(len(of.rationale) for of in of_instance) + 0.5))
    expected = {}
    for method in {method for _, method in rows}:
        own = [row for (_, of), (_, row) in rows.items() if of == method]
        ranked = [ranked for (_, of), (ranked, _) in rows.items() if of == method]
        eraser = [of.top(max(1, math.floor(share * len(of.scores) + 0.5))) for of in ranked]
        hatexplain = [of.top(number) for of in ranked]
        true = [of.rationale for of in ranked]
        iou = {}
        for name, spans in (
            ("eraser", [runs(words) for words in eraser]),
            ("hatexplain", [{(word, word + 1) for word in words} for words in hatexplain]),
        ):
            hits = [matches(a, runs(b)) for a, b in zip(spans, true, strict=True)]
            precision = mean(n / len(a) for n, a in zip(hits, spans, strict=True))
            recall = mean(n / len(runs(b)) for n, b in zip(hits, true, strict=True))
            iou[name] = f1(precision, recall)
        means = {name: mean(row[name] for row in own) for name in list(own[0])[2:-5]}
        expected[(method,)] = {
            "n": len(own),
            "token_f1": means["token_f1"],
            "token_iou": means["token_iou"],
            "iou_f1": f1(means["iou_precision"], means["iou_recall"]),
            "average_precision": means["average_precision"],
            "auprc": means["auprc"],
            "eraser_share": share,
            "eraser_token_f1": mean(map(token_f1, eraser, true)),
            "eraser_iou_f1": iou["eraser"],
            "hatexplain_words": number,
            "hatexplain_token_f1": mean(map(token_f1, hatexplain, true)),
            "hatexplain_iou_f1": iou["hatexplain"],
            "cut": 0,
            "texts": len(own),
            "text_words": sum(row["words"] for row in own),
            "unseen": 0,
            "unranked": sum(row["rationale"] is not None for row in run.instances) - len(own),
            "left_out": 0,
        }
    assert_same(by(select(connection, "from plausibility"), "method"), expected)


def tables_of_words(
    texts: Sequence[tuple[list[int] | None, list[int | None], list[float]]],
    word_score: str = "max",
    pairs: Sequence[tuple[int, list[int] | None]] | None = None,
) -> Connection:
    """Instances from (rationale, words, scores) per token, between two special tokens.

    Of pairs also the number of the first text's tokens, and which texts the rationale is of.
    """
    connection = duckdb.connect()
    connection.execute("create table methods (method text, word_score text)")
    connection.execute("insert into methods values ('one', ?)", [word_score])
    connection.execute(
        'create table instances (instance_id text, row_id text, "window" int, truncated bool, '
        "text text, word_ids int[], segment int[], rationale tinyint[], question int, "
        "text_pair text, rationale_segments tinyint[])"
    )
    create_tables(connection, "attributions")
    for number, (rationale, words, scores) in enumerate(texts):
        row = [str(number), str(number), None, False, None, [None, *words, None]]
        marks = None if rationale is None else [0, *rationale, 0]
        first, of = (len(words), None) if pairs is None else pairs[number]
        segments = [int(token > first) for token in range(len(words) + 2)]
        connection.execute(
            "insert into instances values (?, ?, ?, ?, ?, ?, ?, ?, null, null, ?)",
            [*row, segments, marks, of],
        )
        insert_scores(connection, str(number), "one", [9.0, *scores, 9.0])
    registered: tuple[str, ...] = ("span_firsts", "span_lasts", "matching_spans", "word_ranks")
    registered += ("word_count", "harmonic_mean")
    registered += ("plausibility_by_instance", "plausibility")
    for view in views(*registered, "pointing_by_instance", "pointing"):
        connection.execute(view.sql)
    return connection


def test_plausibility_by_hand() -> None:
    # Six words, the third of two tokens; words 2, 3 and 6 are marked, words 3, 1 and 2 highest.
    words = [0, 1, 2, 2, 3, 4, 5]
    rationale = [0, 1, 1, 1, 0, 0, 1]
    scores = [0.5, 0.4, -1.0, 0.9, 0.1, 0.2, 0.3]
    with tables_of_words([(rationale, words, scores)]) as connection:
        (ranks,) = select(connection, "from word_ranks")
        (row,) = select(connection, "from plausibility_by_instance")
        (total,) = select(connection, "from plausibility")
    assert (ranks["words"], ranks["marked"]) == (6, [2, 3, 6])
    assert ranks["ranked"] == [3, 1, 2, 6, 5, 4]
    assert ranks["scores"] == pytest.approx([0.5, 0.4, 0.9, 0.1, 0.2, 0.3])
    assert row["token_f1"] == pytest.approx(2 / 3)
    assert row["token_iou"] == pytest.approx(2 / 4)
    # Words 1 to 3 against 2 to 3: two of three.
    assert (row["iou_precision"], row["iou_recall"]) == (1, 0.5)
    assert row["iou_f1"] == pytest.approx(2 / 3)
    assert row["average_precision"] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    before = (1, 1 / 2, 2 / 3)
    assert row["auprc"] == pytest.approx((1 + 2 / 3 + 3 / 4 + sum(before)) / 6)
    assert (total["n"], total["eraser_share"], total["hatexplain_words"]) == (1, 0.5, 3)
    assert total["eraser_token_f1"] == row["token_f1"]
    assert total["eraser_iou_f1"] == row["iou_f1"]
    # Each word for itself: 2 and 3 reach a half of the span 2 to 3, and word 6 is not chosen.
    assert total["hatexplain_iou_f1"] == pytest.approx(f1(2 / 3, 2 / 2))


def test_rationales_of_pairs_by_hand() -> None:
    """Words 3 and 4 are marked and chosen, of two texts: two spans, not one."""
    words = [0, 1, 2, None, 0, 1, 1, 2]
    marks = [0, 0, 1, 0, 1, 0, 0, 1]
    scores = [0.7, 0.1, 0.9, 9.0, 0.8, 0.2, 0.3, 0.4]
    of_first = [0, 0, 1, 0, 0, 0, 0, 0]
    cases: Any = [(marks, words, scores)] * 2 + [(of_first, words, scores)]
    # [SEP], of a score that no word has, is the last token of the first text.
    pairs: Any = [(4, [0, 1]), (4, [1]), (4, None)]
    with tables_of_words(cases, "sum", pairs) as connection:
        ranks = by(select(connection, "from word_ranks"), "instance_id")
        rows = by(select(connection, "from plausibility_by_instance"), "instance_id")
        (total,) = select(connection, "from plausibility")
    names = ("words", "first_words", "marked", "ranked")
    assert [ranks["0",][name] for name in names] == [6, 3, [3, 4, 6], [3, 4, 1, 5, 6, 2]]
    assert [ranks["1",][name] for name in names] == [3, 0, [1, 3], [1, 2, 3]]
    assert [ranks["2",][name] for name in names] == [3, 3, [3], [3, 1, 2]]
    assert ranks["0",]["scores"] == pytest.approx([0.7, 0.1, 0.9, 0.8, 0.5, 0.4])
    # The spans 1, 3 and 4 against 3, 4 and 6: none is of words of both texts.
    both = rows["0",]
    assert [both[name] for name in ("iou_precision", "iou_recall")] == pytest.approx([2 / 3] * 2)
    assert [rows["1",][name] for name in ("token_f1", "iou_f1")] == pytest.approx([1 / 2, 2 / 3])
    assert (rows["2",]["token_f1"], rows["2",]["first_words"], total["n"]) == (1, 3, 3)


def test_pointing(opened: Opened) -> None:
    run, connection = opened
    expected: dict[tuple[str, ...], Row] = {}
    means: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for key, (ranked, _) in plausibilities(run).items():
        positive = np.maximum(ranked.scores, 0)
        marked = np.array(ranked.marked, bool)
        total = float(positive.sum())
        expected[key] = {
            "words": len(marked),
            "marked": int(marked.sum()),
            "pointing": int(marked[ranked.order[0]]),
            "chance": float(marked.mean()),
            "relevance_mass": float(positive[marked].sum()) / total if total else None,
            "roc_auc": float(roc_auc_score(marked, ranked.scores)),
        }
        means[key[1:]].append(expected[key])
    found = select(connection, "from pointing_by_instance")
    assert_same(by(found, "instance_id", "method"), expected)
    summary = {
        key: {
            "n": len(rows),
            **{name: average([row[name] for row in rows]) for name in ("pointing", "chance")},
            "relevance_mass": average([row["relevance_mass"] for row in rows]),
            "without_mass": sum(row["relevance_mass"] is None for row in rows),
            "roc_auc": average([row["roc_auc"] for row in rows]),
            "left_out": 0,
        }
        for key, rows in means.items()
    }
    assert_same(by(select(connection, "from pointing"), "method"), summary)


def test_pointing_by_hand() -> None:
    texts: list[tuple[list[int] | None, list[int], list[float]]] = [
        # The first of the equal highest is marked; of the 3 pairs it wins two and ties one.
        ([1, 0, 0, 0], [0, 1, 2, 3], [2.0, 2.0, -1.0, 0.5]),
        # Nothing is positive; the two marked words win one of their four pairs.
        ([0, 1, 0, 1], [0, 1, 2, 3], [0.0, -1.0, -2.0, -4.0]),
    ]
    with tables_of_words(texts) as connection:
        rows = by(select(connection, "from pointing_by_instance"), "instance_id")
        (total,) = select(connection, "from pointing")
    names = ("pointing", "chance", "relevance_mass", "roc_auc")
    assert [rows["0",][name] for name in names] == pytest.approx([1, 0.25, 2 / 4.5, 2.5 / 3])
    assert [rows["1",][name] for name in names] == [0, 0.5, None, 0.25]
    assert (total["n"], total["pointing"], total["without_mass"]) == (2, 0.5, 1)
    assert total["relevance_mass"] == pytest.approx(2 / 4.5, abs=1e-10)


def test_words_are_ranked_by_their_sums_where_the_method_says_so() -> None:
    texts: Any = [([0, 1, 1, 1, 0, 0, 1], [0, 1, 2, 2, 3, 4, 5], [0.5, 0.4, -1, 0.9, 0.1, 0.2, 0])]
    with tables_of_words(texts, "sum") as connection:
        (ranks,) = select(connection, "from word_ranks")
    assert ranks["scores"] == pytest.approx([0.5, 0.4, -0.1, 0.1, 0.2, 0])
    assert ranks["ranked"] == [1, 2, 5, 4, 6, 3]


def test_equal_scores_rank_no_word_above_another() -> None:
    with tables_of_words([([1, 0, 0, 0], [0, 1, 2, 3], [0.5] * 4)]) as connection:
        (row,) = select(connection, "from plausibility_by_instance")
    assert row["average_precision"] == 1 / 4
    assert row["auprc"] == pytest.approx((1 + 1 / 4) / 2)


@pytest.mark.parametrize("rationale", [None, [0, 0, 0], [1, 1, 1]])
def test_rationales_that_no_ranking_fits_better_are_left_out(rationale: list[int] | None) -> None:
    texts: list[Any] = [
        (rationale, [0, 1, 2], [0.1, 0.2, 0.3]),
        ([0, 0, 1], [0, 1, 2], [0.1, 0.2, 0.3]),
    ]
    with tables_of_words(texts[:1]) as connection:
        assert select(connection, "from plausibility_by_instance") == []
        assert select(connection, "from plausibility") == []
    with tables_of_words(texts) as connection:
        (row,) = select(connection, "from plausibility")
    assert (row["n"], row["token_f1"], row["eraser_share"]) == (1, 1, pytest.approx(1 / 3))


def test_parts_of_texts_are_told_from_whole_ones() -> None:
    """A text that is cut, one in three windows of which the last has no mark, and a whole one."""
    marks = {"cut": {1, 5}, "windows": {1, 4}, "whole": {2}}
    parts = [
        ("cut", None, True, 6, range(4)),
        ("windows/0", 0, False, 9, range(4)),
        ("windows/1", 1, False, 9, range(3, 7)),
        ("windows/2", 2, False, 9, range(6, 9)),
        ("whole", None, False, 3, range(3)),
    ]
    with tables_of_words([]) as connection:
        for name, number, truncated, length, words in parts:
            row_id = name.split("/")[0]
            text = "\u2003".join("word" for _ in range(length)) if not number else None
            ids, segments = [None, *words, None], [0] * (len(words) + 2)
            rationale = [0, *(int(word in marks[row_id]) for word in words), 0]
            connection.execute(
                "insert into instances values (?, ?, ?, ?, ?, ?, ?, ?, null, null, null)",
                [name, row_id, number, truncated, text, ids, segments, rationale],
            )
            scores = [0.0, *map(float, words), 0.0]
            insert_scores(connection, name, "one", scores)
        found = by(select(connection, "from plausibility_by_instance"), "instance_id", "method")
        (total,) = select(connection, "from plausibility")
        connection.execute(views("bootstrap_weights")[0].sql)
        connection.execute(views("plausibility_intervals")[0].sql)
        intervals = select(connection, "from plausibility_intervals")
    assert {
        name: (row["words"], row["text_words"], row["unseen"]) for (name, _), row in found.items()
    } == {
        "cut": (4, 6, 2),
        "windows/0": (4, 9, 5),
        "windows/1": (4, 9, 5),
        "whole": (3, 3, 0),
    }
    names = ("n", "cut", "texts", "text_words", "unseen", "unranked")
    # Of the text in windows, what only the last has is unseen: two words of nine.
    assert [total[name] for name in names] == [4, 3, 3, 18, 4, 1]
    assert {(row["n"], row["cut"]) for row in intervals} == {(4, 3)}


def test_words_are_those_of_python() -> None:
    spaces = [chr(n) for n in range(0x3001) if chr(n).isspace()]
    texts = ["", " ", "a", "a b", " a\u200bb\tc ", "\x00 \x01", "".join(f"é{s}" for s in spaces)]
    with duckdb.connect() as connection:
        connection.execute(views("word_count")[0].sql)
        found = connection.execute(
            "select word_count(text) from (select unnest(?) as text)", [texts]
        ).fetchall()
    assert [count for (count,) in found] == [len(text.split()) for text in texts]


def test_words_of_the_second_text_do_not_count(opened: Opened) -> None:
    run, connection = opened
    assert any(row["text_pair"] for row in run.instances)
    words = {row["instance_id"]: len(row["text"].split()) for row in run.instances}
    for row in select(connection, "from word_ranks"):
        assert row["words"] == words[row["instance_id"]]


# Perturbation and cost -------------------------------------------------------------------------


def test_perturbation_auc(opened: Opened) -> None:
    run, connection = opened
    labels = {row["instance_id"]: row["label"] for row in run.instances}
    points: dict[tuple[str, ...], dict[tuple[str, float], list[Row]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for row in run.curves:
        key = (row["method"], row["protocol"], row["operation"])
        points[key][row["order"], row["fraction"]].append(row)
    expected = {}
    for key, of in points.items():
        areas: Row = {}
        for order, name in (("morf", "positive"), ("lerf", "negative")):
            fractions = sorted(fraction for o, fraction in of if o == order)
            rows = [of[order, fraction] for fraction in fractions]
            right = [mean(r["prediction"] == labels[r["instance_id"]] for r in at) for at in rows]
            likely = [mean(r["probability"] for r in at) for at in rows]
            areas[f"{name}_accuracy"] = float(np.trapezoid(right, fractions))
            areas[f"{name}_probability"] = float(np.trapezoid(likely, fractions))
            areas[f"{name}_accuracy_forced"] = float(np.trapezoid([*right[:-1], 0], fractions))
        names = [
            f"{name}_{what}"
            for what in ("accuracy", "probability", "accuracy_forced")
            for name in ("positive", "negative")
        ]
        size = len(run.instances)
        expected[key] = {"n": size, "labelled": size} | {name: areas[name] for name in names}
        expected[key] |= {"left_out": 0}
    found = by(select(connection, "from perturbation_auc"), "method", "protocol", "operation")
    assert_same(found, expected)


def test_perturbation_without_labels_or_an_order(tmp_path: Path) -> None:
    run = make(rows=4, orders=("morf", "random"))
    for number, row in enumerate(run.instances):
        if number:
            row["label"] = row["correct"] = None
    with open_run(write_run(run, tmp_path), commented=False) as connection:
        rows = select(connection, "from perturbation_auc")
    assert len(rows) == 3
    for row in rows:
        assert (row["n"], row["labelled"]) == (4, 1)
        assert row["positive_accuracy"] is not None
        assert (row["negative_accuracy"], row["negative_probability"]) == (None, None)


def cost_tables(rows: list[tuple[Any, ...]]) -> Connection:
    """(method, seconds, comprehensiveness, sufficiency, auc_difference, degradation) rows."""
    connection = duckdb.connect()
    connection.execute("create table given (m text, s real, c real, u real, a real, d real)")
    connection.executemany("insert into given values (?, ?, ?, ?, ?, ?)", rows)
    way = "m as method, 'token' as protocol, 'mask' as operation"
    connection.execute(
        "create macro faithfulness_over(common, methods) as table "
        f"select {way}, 7 as n, c as comprehensiveness, u as sufficiency, a as auc_difference, "
        "0 as left_out from given"
    )
    connection.execute(
        "create macro degradation_over(common, methods) as table "
        f"select {way}, d as degradation from given"
    )
    connection.execute(
        "create macro compared_curves(common, methods) as table "
        f"select 'one' as instance_id, {way}, true as compared from given"
    )
    connection.execute(
        "create view attributions as select 'one' as instance_id, m as method, s as seconds "
        "from given"
    )
    connection.execute(views("cost_faithfulness")[0].sql)
    return connection


def test_fronts_are_those_of_pairwise_comparison() -> None:
    rng = np.random.default_rng(0)
    # Few distinct values, so that methods are equally cheap, or equally faithful, or both.
    rows = [(f"m{n}", *rng.integers(5, size=5).astype(float).tolist()) for n in range(60)]
    with cost_tables(rows) as connection:
        found = by(select(connection, "from cost_faithfulness"), "method", "protocol", "operation")
    signs = {"front_comprehensiveness": (2, 1), "front_sufficiency": (3, -1)}
    signs |= {"on_front": (4, 1), "front_degradation": (5, 1)}
    for name, (column, sign) in signs.items():
        for row in rows:
            dominated = any(
                other[1] <= row[1]
                and sign * other[column] >= sign * row[column]
                and (other[1], other[column]) != (row[1], row[column])
                for other in rows
            )
            assert found[row[0], "token", "mask"][name] is not dominated, (name, row)


def test_a_front_by_hand() -> None:
    rows = [
        ("cheap", 1.0, 0.1, 0.3, 0.1, None),
        ("waste", 2.0, 0.1, 0.4, 0.1, None),
        ("good", 3.0, 0.5, 0.2, 0.6, None),
        ("failed", None, 0.4, 0.1, 0.4, None),
    ]
    with cost_tables(rows) as connection:
        found = select(connection, "from cost_faithfulness")
    assert [row["method"] for row in found] == ["cheap", "waste", "good", "failed"]
    assert [row["on_front"] for row in found] == [True, False, True, False]
    assert {row["front_degradation"] for row in found} == {None}


def test_cost_faithfulness_has_what_the_other_views_have(opened: Opened) -> None:
    _, connection = opened
    keys = ("method", "protocol", "operation")
    found = by(select(connection, "from cost_faithfulness"), *keys)
    faithful = by(select(connection, "from faithfulness"), *keys)
    degraded = by(select(connection, "from degradation"), *keys)
    cost = by(select(connection, "from cost"), "method")
    assert set(found) == set(faithful)
    for key, row in found.items():
        for name in ("n", "comprehensiveness", "sufficiency", "auc_difference"):
            assert row[name] == pytest.approx(faithful[key][name])
        assert row["degradation"] == pytest.approx(degraded[key]["degradation"])
        seconds = cost[key[:1]]["seconds_per_instance"]
        assert row["seconds_per_instance"] == pytest.approx(seconds)


def test_ranking(opened: Opened) -> None:
    _, connection = opened
    rows = select(connection, "from ranking")
    ways = ("method", "protocol", "operation")
    faithful = by(select(connection, "from faithfulness"), *ways)
    complex_ = by(select(connection, "from complexity"), "method")
    cost = by(select(connection, "from cost_faithfulness"), *ways)
    assert len(rows) == len(faithful) == 3
    assert [row["rank"] for row in rows] == [1, 2, 3]
    of = [faithful[tuple(row[way] for way in ways)] for row in rows]
    areas = [row["auc_difference"] for row in of]
    assert areas == sorted(areas, reverse=True)
    short = {"auc_difference": "auc_difference", "comp": "comprehensiveness", "suff": "sufficiency"}
    for row, whole in zip(rows, of, strict=True):
        for name, source in short.items():
            assert row[name] == pytest.approx(whole[source], abs=0.0005 + 1e-9)
        assert row["gini"] == pytest.approx(complex_[row["method"],]["gini"], abs=0.0005 + 1e-9)
        seconds = cost[tuple(row[way] for way in ways)]["seconds_per_instance"]
        assert row["ms"] == pytest.approx(1000 * seconds, abs=0.05 + 1e-9)
        assert (row["n"], row["left_out"]) == (whole["n"], whole["left_out"])


def test_ranking_of_many_methods_fits_a_terminal() -> None:
    rows: list[tuple[Any, ...]] = [
        (f"transformer_attributn{n:02d}", n / 100, 0.1 + n / 50, 0.2 - n / 70, n // 2 / 50, 0.3)
        for n in range(28)
    ]
    rows.append(("without_curves", 0.1, 0.1, None, None, None))
    with cost_tables(rows) as connection:
        connection.execute(
            "create macro complexity_over(common, methods) as table "
            "select m as method, 0.25 + s / 3 as gini from given"
        )
        connection.execute(views("ranking")[0].sql)
        table = connection.execute("from ranking")
        names = [column[0] for column in table.description or ()]
        cells = table.fetchall()
    # Two at a time are equal, and share their rank.
    expected = [2 * (n // 2) + 1 for n in range(28)]
    assert [row[names.index("rank")] for row in cells] == [*expected, None]
    out = io.StringIO()
    print_rows(names, cells, out, width=80)
    first, *_ = out.getvalue().split("\n\n")
    assert max(map(len, first.splitlines())) <= 80
    assert first.count("attributn") == 28
    head, *_ = first.splitlines()
    assert head.split() == ["method", "rank", "auc_difference", "comp", "suff", "gini", "ms"]
    assert "in all rows: n 7, protocol token, operation mask" in out.getvalue()


def test_ranking_agreement_by_hand() -> None:
    ways = {
        "mask": ([0.3, 0.4, 0.5, 0.7], [0.9, 0.8, 0.85, 0.7]),
        "pad": ([0.3, 0.3, 0.5, 0.7], [0.9, 0.8, 0.8, 0.95]),
        "delete": ([0.3, 0.3, 0.3, 0.3], [0.9, 0.8, 0.85, 0.7]),
    }
    given = [
        (operation, f"m{n}", morf, lerf)
        for operation, areas in ways.items()
        for n, (morf, lerf) in enumerate(zip(*areas, strict=True))
    ]
    with duckdb.connect() as connection:
        connection.execute("create table given (o text, m text, x double, y double)")
        # A method without one of the areas, and an operation with one method alone.
        given += [("mask", "m4", 0.2, None), ("other", "m0", 0.1, 0.2)]
        connection.executemany("insert into given values (?, ?, ?, ?)", given)
        connection.execute(
            "create macro faithfulness_over(common, methods) as table select m as method, "
            "'token' as protocol, o as operation, x as auc_morf, y as auc_lerf, 7 as n, "
            "2 as left_out from given"
        )
        connection.execute(views("ranking_agreement")[0].sql)
        found = by(select(connection, "from ranking_agreement"), "operation")
    for operation, (morf, lerf) in ways.items():
        row = found[operation,]
        assert (row["methods"], row["n"], row["left_out"]) == (4, 7, 2)
        expected = number_or_none(float(kendalltau([-area for area in morf], lerf).statistic))
        assert row["kendall"] == pytest.approx(expected, abs=1e-10), operation
    assert found["mask",]["kendall"] == pytest.approx(2 / 3, abs=1e-10)
    assert found["delete",]["kendall"] is None
    assert (found["other",]["methods"], found["other",]["kendall"]) == (1, None)


# Intervals -------------------------------------------------------------------------------------

Floats = NDArray[np.float64]


def test_bootstrap_weights() -> None:
    names = [f"text {number}" for number in range(50)]
    with duckdb.connect() as connection:
        connection.execute(views("bootstrap_weights")[0].sql)
        rows = connection.execute(
            "select bootstrap_weights(name) from (select unnest(?) as name)", [names]
        ).fetchall()
    found = np.array([row[0] for row in rows], np.float64).T
    assert np.array_equal(found, np.vstack([np.ones(50), poisson_weights(names)]))


def percentiles(weights: Floats, values: Floats) -> Row:
    weights = weights[weights.any(axis=1)]  # A few texts may all be left out.
    means = (weights @ values) / weights.sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {"value": float(values.mean()), "low": float(low), "high": float(high)}


def test_faithfulness_intervals(opened: Opened) -> None:
    _, connection = opened
    keys = ("method", "protocol", "operation")
    grouped = defaultdict(list)
    for row in select(connection, "from faithfulness_by_instance"):
        grouped[tuple(row[key] for key in keys)].append(row)
    metrics = ("comprehensiveness", "sufficiency", "aopc", "log_odds", "auc_morf", "auc_lerf")
    metrics += ("auc_difference", "decision_flip_fraction")
    expected = {}
    for key, rows in grouped.items():
        weights = poisson_weights([row["instance_id"] for row in rows])
        for metric in metrics:
            values = np.array([row[metric] for row in rows])
            expected[*key, metric] = percentiles(weights, values)
            expected[*key, metric] |= {"n": len(rows), "left_out": 0}
    found = by(select(connection, "from faithfulness_intervals"), *keys, "metric")
    assert_same(found, expected, 1e-9)
    means = by(select(connection, "from faithfulness"), *keys)
    for (*key, metric), row in found.items():
        assert row["value"] == pytest.approx(means[tuple(key)][metric])
        assert row["low"] <= row["value"] <= row["high"]


def test_a_metric_whose_order_was_not_run_has_no_interval(tmp_path: Path) -> None:
    with open_run(write_run(make(orders=("morf",)), tmp_path), commented=False) as connection:
        metrics = {row["metric"] for row in select(connection, "from faithfulness_intervals")}
    assert "auc_morf" in metrics
    assert not metrics & {"sufficiency", "auc_lerf", "auc_difference"}


def test_plausibility_intervals(opened: Opened) -> None:
    _, connection = opened
    grouped = defaultdict(list)
    for row in select(connection, "from plausibility_by_instance"):
        grouped[row["method"]].append(row)
    expected = {}
    for method, rows in grouped.items():
        weights = poisson_weights([row["instance_id"] for row in rows])
        names = ("token_f1", "token_iou", "iou_precision", "iou_recall")
        names += ("average_precision", "auprc")
        values = {name: np.array([float(row[name]) for row in rows]) for name in names}
        for name in ("token_f1", "token_iou", "average_precision", "auprc"):
            expected[method, name] = percentiles(weights, values[name])
        every = np.vstack([np.ones(len(rows)), weights[weights.any(axis=1)]])
        precision, recall = (
            (every @ values[name]) / every.sum(axis=1) for name in ("iou_precision", "iou_recall")
        )
        total = np.where(precision + recall > 0, precision + recall, 1)
        scores = 2 * precision * recall / total
        low, high = np.percentile(scores[1:], [2.5, 97.5])
        expected[method, "iou_f1"] = {
            "value": float(scores[0]),
            "low": float(low),
            "high": float(high),
        }
        for metric in (*names[:2], "iou_f1", *names[4:]):
            expected[method, metric] |= {"n": len(rows), "cut": 0, "left_out": 0}
    found = by(select(connection, "from plausibility_intervals"), "method", "metric")
    assert_same(found, expected, 1e-9)
    means = by(select(connection, "from plausibility"), "method")
    for (method, metric), row in found.items():
        assert row["value"] == pytest.approx(means[(method,)][metric])


# All of them -----------------------------------------------------------------------------------


def test_a_run_that_has_only_begun_has_empty_views(tmp_path: Path) -> None:
    write_run(synthetic_run(rows=2), tmp_path)
    for file in tmp_path.rglob("*.parquet"):
        file.unlink()
    with open_run(tmp_path, commented=False) as connection:
        for view in views(*NEW):
            if not view.is_macro:
                assert select(connection, f"from {view.name}") == [], view.name


def test_a_run_without_rationales_or_curves_has_empty_views(tmp_path: Path) -> None:
    run = make(rows=4, evaluate=False)
    for row in run.instances:
        row["rationale"] = None
    with open_run(write_run(run, tmp_path), commented=False) as connection:
        full = {view.name for view in views(*NEW) if not view.is_macro} & {
            name
            for name in NEW
            if not views(name)[0].is_macro and select(connection, f"from {name}")
        }
    assert full == {
        "agreement_by_instance",
        "agreement",
        "agreement_absolute_by_instance",
        "agreement_absolute",
        "consensus_by_instance",
        "consensus",
        "complexity_by_instance",
        "complexity",
        "grad_x_input_correlation",
    }


def test_every_column_is_explained(opened: Opened) -> None:
    _, connection = opened
    inherited = {field.name for table in (*TABLES, *EVALUATIONS) for field in table_schema(table)}
    for view in views(*NEW):
        text = (files("attribeam.schemas") / "sql" / f"{view.name}.sql").read_text(encoding="utf-8")
        assert text.startswith("-- ")
        assert max(map(len, text.splitlines())) <= 100
        assert view.sql.startswith(("create view", "create macro"))
        assert view.name in view.sql.splitlines()[0]
        assert view.comment.endswith(tuple("abcdefghijklmnopqrstuvwxyz0123456789.|)")), view.name
        if not view.is_macro:
            rows = select(connection, f"select column_name from (describe {view.name})")
            columns = {row["column_name"] for row in rows}
            assert columns <= inherited | set(view.columns), view.name
            assert set(view.columns) <= columns, view.name


def test_one_instance_is_what_the_whole_view_has(opened: Opened) -> None:
    _, connection = opened
    name = select(connection, "from word_ranks")[0]["instance_id"]
    for view in ("agreement_by_instance", "plausibility_by_instance", "word_ranks"):
        every = select(connection, f"from {view} order by all")
        one = select(connection, f"from {view} where instance_id = '{name}' order by all")
        assert one == [row for row in every if row["instance_id"] == name] != []
