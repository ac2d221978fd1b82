"""The views of metrics over runs in which much went wrong, against plain numpy.

What is compared is decided here by the definition: the instances that every method has something of
that can be used. Each metric is then computed from the rows of those.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import combinations
from statistics import pstdev
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr

from attribeam.analysis import open_run
from attribeam.schemas import VIEWS
from tests.schemas.test_metric_views import (
    Ranked,
    assert_same,
    by,
    compare,
    f1,
    matches,
    percentiles,
    plausibilities,
    runs,
    select,
    token_f1,
)
from tests.schemas.test_views import role
from tests.support.adversarial_run import adversarial_run
from tests.support.synthetic_run import Row, SyntheticRun, write_run
from tests.transforms.test_degradation import poisson_weights

RUNS: dict[str, dict[str, Any]] = {
    "all orders": {"seed": 0, "rows": 40},
    "morf alone": {"seed": 2, "rows": 12, "orders": ("morf",)},
    "double": {"seed": 4, "rows": 8, "dtype": "float64"},
    "one": {"seed": 6, "rows": 1, "orders": ("random",)},
}
WAY = ("protocol", "operation")
CURVE = ("method", *WAY)
FAITHFUL = ("comprehensiveness", "sufficiency", "aopc", "log_odds", "auc_morf", "auc_lerf")
FAITHFUL += (
    "auc_random",
    "auc_difference",
    "flipped",
    "decision_flip_fraction",
    "decision_flip_low",
)
WITHOUT_INTERVAL = ("auc_random", "flipped", "decision_flip_low")
# What has a row per token, word, edge or head of an instance, or an instance: as it is stored.
AS_STORED = ("tokens", "words", "document_tokens", "layer_tokens", "information_tokens")

Floats = NDArray[np.float64]
Key = tuple[str, str]  # An instance and a method.
Keyed = dict[tuple[Any, ...], Row]


class Choice(NamedTuple):
    """What methods are compared on, and what a macro is told of it."""

    arguments: str
    common: bool
    methods: tuple[str, ...] | None = None

    def ask(self, connection: duckdb.DuckDBPyConnection, view: str, *keys: str) -> Keyed:
        """The rows of a view, or of its macro, by the values of some columns."""
        source = f"{view}_over({self.arguments})" if self.arguments else view
        return by(select(connection, f"from {source}"), *keys)


CHOICES = (
    Choice("", True),
    Choice("common := false", False),
    Choice("methods := ['attention', 'paths']", True, ("attention", "paths")),
)


class Held(NamedTuple):
    """What is compared, and per method the number of instances and of those that are left out."""

    kept: set[Key]
    sizes: dict[str, tuple[int, int]]

    def names(self, method: str) -> list[str]:
        """The instances of a method that are compared."""
        return sorted(name for name, own in self.kept if own == method)


class Asked(NamedTuple):
    """A run, open, and what its methods are compared on."""

    run: SyntheticRun
    connection: duckdb.DuckDBPyConnection
    choice: Choice

    def hold(self, usable: Mapping[Key, bool], *more: str) -> Held:
        """What is compared, of the instances and methods that have something, usable or not."""
        wanted = self.choice.methods and (*self.choice.methods, *more)
        pairs = {key: ok for key, ok in usable.items() if wanted is None or key[1] in wanted}
        needed = {method for (_, method), ok in pairs.items() if ok}
        kept = {
            (name, method)
            for (name, method), ok in pairs.items()
            if ok and (not self.choice.common or all(pairs.get((name, each)) for each in needed))
        }
        total = len({name for name, _ in pairs})
        sizes = {}
        for method in {method for _, method in pairs}:
            n = sum(own == method for _, own in kept)
            sizes[method] = n, total - n
        return Held(kept, sizes)


Opened = tuple[SyntheticRun, duckdb.DuckDBPyConnection]


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Opened]]:
    """The runs, open."""
    with ExitStack() as stack:
        made = {name: adversarial_run(**options) for name, options in RUNS.items()}
        yield {
            name: (
                run,
                stack.enter_context(
                    open_run(write_run(run, tmp_path_factory.mktemp("run")), commented=False)
                ),
            )
            for name, run in made.items()
        }


@pytest.fixture(params=RUNS)
def opened(request: pytest.FixtureRequest, every: dict[str, Opened]) -> Opened:
    return every[request.param]


# A macro is asked of the first run alone: it is the SQL of the view.
@pytest.fixture(
    params=[
        *((name, CHOICES[0]) for name in RUNS),
        *(("all orders", choice) for choice in CHOICES[1:]),
    ],
    ids=lambda param: f"{param[0]} {param[1].arguments}".strip(),
)
def asked(request: pytest.FixtureRequest, every: dict[str, Opened]) -> Asked:
    name, choice = request.param
    return Asked(*every[name], choice)


def average(values: Sequence[float | None]) -> float | None:
    there = [float(value) for value in values if value is not None]
    return float(np.mean(there)) if there else None


def finite(*values: float | None) -> bool:
    return all(value is None or math.isfinite(value) for value in values)


# Curves ----------------------------------------------------------------------------------------

Orders = dict[str, list[Row]]


def ways(run: SyntheticRun) -> dict[tuple[str, ...], dict[Key, Orders]]:
    """The curves by protocol and operation, by instance and method, and by order."""
    found: dict[tuple[str, ...], dict[Key, Orders]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for row in sorted(run.curves, key=lambda row: float(row["fraction"])):
        key = row["instance_id"], row["method"]
        found[row["protocol"], row["operation"]][key][row["order"]].append(row)
    return found


def usable(orders: Orders) -> bool:
    points = [point for order in orders.values() for point in order]
    return all(finite(p["probability"]) and p["units"] > 0 for p in points)


def area(points: list[Row] | None) -> float | None:
    if not points:
        return None
    shares = [point["removed"] / point["units"] for point in points]
    return float(np.trapezoid([point["probability"] for point in points], shares))


def faithful(orders: Orders) -> Row:
    """The metrics of one instance."""
    p = {order: np.array([r["probability"] for r in rows]) for order, rows in orders.items()}
    morf, lerf = p.get("morf"), p.get("lerf")
    row: Row = dict.fromkeys(FAITHFUL)
    if morf is not None:
        logs = np.log(np.maximum(morf, 1e-30))
        flips = [r["removed"] / r["units"] for r in orders["morf"] if r["flipped"]]
        row["comprehensiveness"] = float(morf[0] - morf[1:-1].mean())
        row["aopc"] = float(morf[0] - morf.mean())
        row["log_odds"] = float(logs[1:-1].mean() - logs[0])
        row["flipped"], row["decision_flip_fraction"] = bool(flips), min(flips, default=1.0)
        before = [r for r in orders["morf"] if r["removed"] / r["units"] < min(flips, default=0)]
        row["decision_flip_low"] = (
            (before[-1]["removed"] + 1) / before[-1]["units"] if flips else 1.0
        )
    if lerf is not None:
        row["sufficiency"] = float(lerf[0] - lerf[1:-1].mean())
    for order in ("morf", "lerf", "random"):
        row[f"auc_{order}"] = area(orders.get(order))
    if morf is not None and lerf is not None:
        row["auc_difference"] = row["auc_lerf"] - row["auc_morf"]
    return row


def rows_of(run: SyntheticRun, names: Sequence[str]) -> list[str]:
    """The rows of the corpus that instances are of: their windows are drawn together."""
    rows = {row["instance_id"]: row["row_id"] for row in run.instances}
    return [rows[name] for name in names]


def held_curves(asked: Asked) -> Iterator[tuple[tuple[str, ...], dict[Key, Orders], Held]]:
    for way, curves in ways(asked.run).items():
        yield way, curves, asked.hold({key: usable(orders) for key, orders in curves.items()})


def test_faithfulness_by_instance(
    opened: Opened,
) -> None:
    run, connection = opened
    expected = {}
    for way, curves in ways(run).items():
        for key, orders in curves.items():
            if usable(orders):
                (first, *_), *_ = orders.values()
                expected[*key, *way] = {
                    "units": first["units"],
                    "probability": first["probability"],
                } | faithful(orders)
    rows = select(connection, "from faithfulness_by_instance")
    assert_same(by(rows, "instance_id", *CURVE), expected)


def test_faithfulness(asked: Asked) -> None:
    expected = {}
    for way, curves, held in held_curves(asked):
        for method, (n, left_out) in held.sizes.items():
            rows = [faithful(curves[name, method]) for name in held.names(method)]
            means = {metric: average([row[metric] for row in rows]) for metric in FAITHFUL}
            expected[method, *way] = {"n": n} | means | {"left_out": left_out}
    assert_same(asked.choice.ask(asked.connection, "faithfulness", *CURVE), expected)


class Degradation(NamedTuple):
    """The degradation test of a method: what each instance adds, [N], NaN where there is none."""

    lerf: Floats
    morf: Floats
    top: Floats
    bottom: Floats

    @classmethod
    def of(cls, curves: list[Orders]) -> "Degradation":
        rows = [
            (
                area(orders.get("lerf")),
                area(orders.get("morf")),
                np.mean([points[0]["probability"] for points in orders.values()]),
                np.mean([points[-1]["probability"] for points in orders.values()]),
            )
            for orders in curves
        ]
        return cls(*np.array(rows, np.float64).reshape(-1, 4).T)


def or_none(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def test_degradation(asked: Asked) -> None:
    expected = {}
    for way, curves, held in held_curves(asked):
        for method, (n, left_out) in held.sizes.items():
            of = Degradation.of([curves[name, method] for name in held.names(method)])
            top, bottom, lerf, morf = (
                np.mean(part) if n else math.nan for part in (of.top, of.bottom, of.lerf, of.morf)
            )
            span = top - bottom if abs(top - bottom) > 1e-12 else math.nan
            row = {"n": n, "top": top, "bottom": bottom}
            row |= {"lerf": (lerf - bottom) / span, "morf": (morf - bottom) / span}
            row |= {"degradation": (lerf - morf) / span}
            expected[method, *way] = {
                name: or_none(value) if name != "n" else n for name, value in row.items()
            } | {"left_out": left_out}
    assert_same(asked.choice.ask(asked.connection, "degradation", *CURVE), expected)


def test_degradation_curves(asked: Asked) -> None:
    expected = {}
    for way, curves, held in held_curves(asked):
        for method, (n, left_out) in held.sizes.items():
            own = [curves[name, method] for name in held.names(method)]
            if not own:
                continue
            of = Degradation.of(own)
            span = of.top.mean() - of.bottom.mean()
            for order, points in own[0].items():
                for at, point in enumerate(points):
                    p = np.mean([orders[order][at]["probability"] for orders in own])
                    expected[method, *way, order, point["fraction"]] = {
                        "n": n,
                        "probability": float(p),
                        "normalised": or_none((p - of.bottom.mean()) / span)
                        if abs(span) > 1e-12
                        else None,
                        "kept": float(np.mean([not o[order][at]["flipped"] for o in own])),
                        "left_out": left_out,
                    }
    keys = (*CURVE, "order", "fraction")
    assert_same(asked.choice.ask(asked.connection, "degradation_curves", *keys), expected)


def test_degradation_intervals(asked: Asked) -> None:
    expected = {}
    for way, curves, held in held_curves(asked):
        for method, (n, left_out) in held.sizes.items():
            row: Row = dict.fromkeys(("degradation", "low", "high"))
            names = held.names(method)
            if names:
                of = Degradation.of([curves[name, method] for name in names])
                weights = np.vstack([np.ones(n), poisson_weights(rows_of(asked.run, names))])
                spans = weights @ (of.top - of.bottom)
                scores = (weights @ (of.lerf - of.morf)) / np.where(spans, spans, math.nan)
                scores[np.abs(spans) <= 1e-12] = math.nan
                row["degradation"] = or_none(scores[0])
                there = scores[1:][np.isfinite(scores[1:])]
                if len(there):
                    row["low"], row["high"] = map(float, np.percentile(there, [2.5, 97.5]))
            expected[method, *way] = row | {"n": n, "left_out": left_out}
    assert_same(asked.choice.ask(asked.connection, "degradation_intervals", *CURVE), expected)


def test_faithfulness_intervals(asked: Asked) -> None:
    expected = {}
    for way, curves, held in held_curves(asked):
        for method, (n, left_out) in held.sizes.items():
            names = held.names(method)
            rows = [faithful(curves[name, method]) for name in names]
            for metric in FAITHFUL:
                if not rows or rows[0][metric] is None or metric in WITHOUT_INTERVAL:
                    continue
                values = np.array([row[metric] for row in rows], np.float64)
                weights = poisson_weights(rows_of(asked.run, names))
                expected[method, *way, metric] = percentiles(weights, values) | {
                    "n": n,
                    "left_out": left_out,
                }
    keys = (*CURVE, "metric")
    assert_same(asked.choice.ask(asked.connection, "faithfulness_intervals", *keys), expected)


def test_perturbation_auc(asked: Asked) -> None:
    labels = {row["instance_id"]: row["label"] for row in asked.run.instances}
    expected = {}
    for way, curves, held in held_curves(asked):
        for method, (n, left_out) in held.sizes.items():
            own = {name: curves[name, method] for name in held.names(method)}
            if n and not any({"morf", "lerf"} & set(orders) for orders in own.values()):
                continue
            labelled = [name for name in own if labels[name] is not None]
            row: Row = {"n": n, "labelled": len(labelled)}
            for what in ("accuracy", "probability", "accuracy_forced"):
                for order, side in (("morf", "positive"), ("lerf", "negative")):
                    some = {name: orders[order] for name, orders in own.items() if order in orders}
                    row[f"{side}_{what}"] = None
                    if some and (what == "probability" or labelled):
                        fractions = [point["fraction"] for point in next(iter(some.values()))]
                        values = np.mean(
                            [[p["probability"] for p in points] for points in some.values()]
                            if what == "probability"
                            else [
                                [p["prediction"] == labels[k] for p in some[k]] for k in labelled
                            ],
                            axis=0,
                        )
                        values[-1] *= what != "accuracy_forced"
                        row[f"{side}_{what}"] = float(np.trapezoid(values, fractions))
            expected[method, *way] = row | {"left_out": left_out}
    assert_same(asked.choice.ask(asked.connection, "perturbation_auc", *CURVE), expected)


# Costs -----------------------------------------------------------------------------------------


def test_cost(opened: Opened) -> None:
    run, connection = opened
    lengths = {row["instance_id"]: len(row["tokens"]) for row in run.instances}
    expected = {}
    for method in run.manifest["methods"]:
        rows = [row for row in run.attributions if row["method"] == method]
        known = [row for row in rows if finite(row["seconds"])]
        names = {row["instance_id"] for row in (*rows, *run.heads) if row["method"] == method}
        failed = {
            row["instance_id"]
            for row in run.failures
            if (row["method"], row["stage"]) == (method, "attribute")
        }
        seconds = sum(row["seconds"] for row in known) if known else None
        tokens = sum(lengths[row["instance_id"]] for row in known)
        expected[(method,)] = {
            "instances": len(names),
            "tokens": sum(lengths[name] for name in names),
            "seconds": seconds,
            "seconds_per_instance": seconds and seconds / len(known),
            "instances_per_second": seconds and len(known) / seconds,
            "tokens_per_second": seconds and tokens / seconds,
            "failures": len(failed),
        }
    assert {row["seconds"] for row in expected.values()} > {None}
    assert_same(by(select(connection, "from cost"), "method"), expected, 1e-2)


def test_cost_faithfulness(asked: Asked) -> None:
    keyed = {
        view: asked.choice.ask(asked.connection, view, *CURVE)
        for view in ("cost_faithfulness", "faithfulness", "degradation")
    }
    seconds = {
        (row["instance_id"], row["method"]): row["seconds"] for row in asked.run.attributions
    }
    metrics = {"comprehensiveness": 1, "sufficiency": -1, "auc_difference": 1, "degradation": 1}
    expected: Keyed = {}
    for way, _, held in held_curves(asked):
        for method, (n, left_out) in held.sizes.items():
            known = [seconds[key] for key in held.kept if key[1] == method]
            known = [value for value in known if finite(value)]
            both = keyed["faithfulness"][method, *way] | keyed["degradation"][method, *way]
            expected[method, *way] = {"n": n, "seconds_per_instance": average(known)}
            expected[method, *way] |= {metric: both[metric] for metric in metrics}
            expected[method, *way] |= {"left_out": left_out}
    fronts = {metric: f"front_{metric}" for metric in metrics} | {"auc_difference": "on_front"}
    for key, row in expected.items():
        found = keyed["cost_faithfulness"][key]
        assert_same({key: {name: found[name] for name in row}}, {key: row})
        for metric, sign in metrics.items():
            mine = cost_and_gain(row, metric, sign)
            others = [
                cost_and_gain(other, metric, sign)
                for way, other in expected.items()
                if way[1:] == key[1:] and other[metric] is not None
            ]
            dominated = any(o != mine and o[0] <= mine[0] and o[1] >= mine[1] for o in others)
            front = None if row[metric] is None else not dominated
            assert keyed["cost_faithfulness"][key][fronts[metric]] is front, (key, metric)


def cost_and_gain(row: Row, metric: str, sign: int) -> tuple[float, float]:
    seconds, value = row["seconds_per_instance"], row[metric]
    return math.inf if seconds is None else seconds, sign * (value or 0.0)


# Scores ----------------------------------------------------------------------------------------


def scores_of(run: SyntheticRun) -> dict[Key, list[float]]:
    return {(row["instance_id"], row["method"]): row["scores"] for row in run.attributions}


def held_scores(asked: Asked, *more: str) -> tuple[dict[Key, list[float]], Held]:
    scores = scores_of(asked.run)
    return scores, asked.hold({key: finite(*own) for key, own in scores.items()}, *more)


def test_agreement(asked: Asked) -> None:
    scores, held = held_scores(asked)
    places = {
        row["instance_id"]: [
            at for at, special in enumerate(row["special"]) if not special and at != row["readout"]
        ]
        for row in asked.run.instances
    }
    expected = {}
    for pair in combinations(sorted(held.sizes), 2):
        names = sorted(set(held.names(pair[0])) & set(held.names(pair[1])))
        rows = [
            compare(*([scores[name, method][at] for at in places[name]] for method in pair))
            for name in names
        ]
        total = sum(held.sizes[pair[0]])
        expected[pair] = {
            "n": len(rows),
            "constant": sum(row["spearman"] is None for row in rows),
            **{m: average([row[m] for row in rows]) for m in ("spearman", "kendall", "jaccard")},
            "left_out": total - len(rows),
        }
    found = asked.choice.ask(asked.connection, "agreement", "method_a", "method_b")
    assert_same(found, expected)


def test_grad_x_input_correlation(asked: Asked) -> None:
    scores, held = held_scores(asked, "grad_x_input")
    expected = {}
    for method in set(held.sizes) - {"grad_x_input"} if "grad_x_input" in held.sizes else ():
        names = sorted(set(held.names(method)) & set(held.names("grad_x_input")))
        found = [
            compare(*(np.abs(scores[name, each]).tolist() for each in (method, "grad_x_input")))
            for name in names
        ]
        there = [row["spearman"] for row in found if row["spearman"] is not None]
        expected[(method,)] = {
            "n": len(found),
            "constant": len(found) - len(there),
            "spearman": average(there),
            "std": pstdev(there) if there else None,
            "left_out": sum(held.sizes[method]) - len(found),
        }
    found_ = asked.choice.ask(asked.connection, "grad_x_input_correlation", "method")
    assert_same(found_, expected)


def test_completeness(asked: Asked) -> None:
    gaps = {
        (row["instance_id"], row["method"]): (
            row["delta"],
            sum(row["scores"]) + (row["bias"] or 0) - row["delta"],
        )
        for row in asked.run.attributions
        if row["delta"] is not None
    }
    held = asked.hold({key: finite(*gap) for key, gap in gaps.items()})
    expected = {}
    for method, (n, left_out) in held.sizes.items():
        own = np.abs([gaps[name, method] for name in held.names(method)]).reshape(-1, 2)
        expected[(method,)] = {
            "n": n,
            "median_gap": float(np.median(own[:, 0])) if n else None,
            "mean_gap": float(own[:, 0].mean()) if n else None,
            "max_gap": float(own[:, 0].max()) if n else None,
            "median_relative_gap": float(np.median(own[:, 0] / own[:, 1])) if n else None,
            "left_out": left_out,
        }
    assert_same(asked.choice.ask(asked.connection, "completeness", "method"), expected, 1e-5)


# Words -----------------------------------------------------------------------------------------


def ranked(run: SyntheticRun) -> dict[Key, tuple[Ranked, Row]]:
    """The words of each instance and method, and the metrics of the instance."""
    kept = [row for row in run.attributions if finite(*row["scores"])]
    found = plausibilities(SyntheticRun(run.manifest, run.instances, kept))
    texts = {row["row_id"]: row["text"] for row in run.instances if row["text"] is not None}
    instances = {row["instance_id"]: row for row in run.instances}
    for (name, _), (_, row) in found.items():
        if is_part(instances[name]):
            row["text_words"] = len(texts[instances[name]["row_id"]].split())
            row["unseen"] = row["text_words"] - row["words"]
    return found


def is_part(instance: Row) -> bool:
    return bool(instance["truncated"]) or instance["window"] is not None


def test_plausibility_by_instance(
    opened: Opened,
) -> None:
    run, connection = opened
    expected = {key: row for key, (_, row) in ranked(run).items()}
    found = select(connection, "from plausibility_by_instance")
    assert_same(by(found, "instance_id", "method"), expected)


def test_plausibility(asked: Asked) -> None:
    every = ranked(asked.run)
    held = asked.hold(dict.fromkeys(every, True))
    wanted = {name: words for (name, method), (words, _) in every.items() if method in held.sizes}
    instances = {row["instance_id"]: row for row in asked.run.instances}
    expected = {}
    for method, (n, left_out) in held.sizes.items():
        share = np.mean([len(of.rationale) / len(of.scores) for of in wanted.values()])
        number = max(1, math.floor(np.mean([len(of.rationale) for of in wanted.values()]) + 0.5))
        own = [every[name, method] for name in held.names(method)]
        parts = [instances[name] for name in held.names(method)]
        expected[(method,)] = {
            "n": n,
            **{
                metric: average([row[metric] for _, row in own])
                for metric in ("token_f1", "token_iou")
            },
            "iou_f1": mean_f1([(row["iou_precision"], row["iou_recall"]) for _, row in own]),
            **{m: average([row[m] for _, row in own]) for m in ("average_precision", "auprc")},
            "eraser_share": float(share),
            **chosen("eraser", [of for of, _ in own], float(share), None),
            "hatexplain_words": number,
            **chosen("hatexplain", [of for of, _ in own], None, number),
            **coverage(parts, [row for _, row in own]),
            "unranked": sum(
                row["method"] == method and instances[row["instance_id"]]["rationale"] is not None
                for row in asked.run.attributions
            )
            - sum(of == method for _, of in every),
            "left_out": left_out,
        }
    assert_same(asked.choice.ask(asked.connection, "plausibility", "method"), expected)


def chosen(name: str, own: list[Ranked], share: float | None, number: int | None) -> Row:
    """The metrics of a choice of words of one size for all, a share or a number of them."""
    scores, pairs = [], []
    for of in own:
        size = number if share is None else max(1, math.floor(share * len(of.scores) + 0.5))
        assert size is not None
        words = of.top(size)
        spans = runs(words) if share is not None else {(word, word + 1) for word in words}
        hits = matches(spans, runs(of.rationale))
        scores.append(token_f1(words, of.rationale))
        pairs.append((hits / len(spans), hits / len(runs(of.rationale))))
    return {f"{name}_token_f1": average(scores), f"{name}_iou_f1": mean_f1(pairs)}


def mean_f1(pairs: list[tuple[float, float]]) -> float | None:
    return f1(*map(float, np.mean(pairs, axis=0))) if pairs else None


def coverage(parts: list[Row], rows: list[Row]) -> Row:
    """How much there is of the texts that the instances are of."""
    texts = {part["row_id"]: row["text_words"] for part, row in zip(parts, rows, strict=True)}
    seen = {
        (part["row_id"], word)
        for part in parts
        for word, segment in zip(part["word_ids"], part["segment"], strict=True)
        if word is not None and segment == 0
    }
    return {
        "cut": sum(map(is_part, parts)),
        "texts": len(texts),
        "text_words": sum(texts.values()) if texts else None,
        "unseen": sum(texts.values()) - len(seen) if texts else None,
    }


def test_plausibility_intervals(asked: Asked) -> None:
    every = ranked(asked.run)
    held = asked.hold(dict.fromkeys(every, True))
    instances = {row["instance_id"]: row for row in asked.run.instances}
    expected = {}
    for method, (n, left_out) in held.sizes.items():
        names = held.names(method)
        if not names:
            continue
        weights = poisson_weights(rows_of(asked.run, names))
        sizes = {"n": n, "cut": sum(is_part(instances[name]) for name in names)}
        sizes |= {"left_out": left_out}
        rows = [every[name, method][1] for name in names]
        for metric in ("token_f1", "token_iou", "average_precision", "auprc"):
            values = np.array([row[metric] for row in rows], np.float64)
            expected[method, metric] = percentiles(weights, values) | sizes
        drawn = np.vstack([np.ones(n), weights[weights.any(axis=1)]])
        pairs = np.array([[row["iou_precision"], row["iou_recall"]] for row in rows], np.float64)
        scores = [f1(*pair) for pair in (drawn @ pairs) / drawn.sum(axis=1, keepdims=True)]
        low, high = np.percentile(scores[1:], [2.5, 97.5])
        expected[method, "iou_f1"] = {"value": scores[0], "low": low, "high": high} | sizes
    found = asked.choice.ask(asked.connection, "plausibility_intervals", "method", "metric")
    assert_same(found, expected)


# Layers and heads ------------------------------------------------------------------------------


def test_mixing(asked: Asked) -> None:
    special = {row["instance_id"]: row["special"] for row in asked.run.instances}
    rows = [row for row in asked.run.layers if row["mixing"] is not None]
    held = asked.hold(all_finite(rows, "mixing"))
    expected = {}
    for method, (n, left_out) in held.sizes.items():
        for layer in {row["layer"] for row in rows} if n else ():
            ratios: dict[bool, list[float]] = {False: [], True: []}
            for row in rows:
                key = row["instance_id"], method
                if row["method"] == method and row["layer"] == layer and key in held.kept:
                    for ratio, apart in zip(row["mixing"], special[key[0]], strict=True):
                        ratios[apart].append(ratio)
            expected[method, layer] = {
                "tokens": len(ratios[False]),
                "mixing": average(ratios[False]),
                "special_tokens": len(ratios[True]),
                "special_mixing": average(ratios[True]),
                "n": n,
                "left_out": left_out,
            }
    assert_same(asked.choice.ask(asked.connection, "mixing", "method", "layer"), expected)


def all_finite(rows: list[Row], *columns: str) -> dict[Key, bool]:
    """Whether all numbers of an instance under a method are."""
    found: dict[Key, bool] = defaultdict(lambda: True)
    for row in rows:
        key = row["instance_id"], row["method"]
        values = [row[column] for column in columns]
        found[key] &= all(finite(*(v if isinstance(v, list) else [v])) for v in values)
    return found


def test_information_flow(asked: Asked) -> None:
    instances = {row["instance_id"]: row for row in asked.run.instances}
    held = asked.hold(all_finite(asked.run.information, "bits"))
    groups: dict[tuple[Any, ...], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    total: dict[tuple[Any, ...], float] = defaultdict(float)
    for row in asked.run.information:
        name, method, layer = row["instance_id"], row["method"], row["layer"]
        if (name, method) in held.kept:
            for at, bits in enumerate(row["bits"]):
                kind, correct = role(instances[name], at), instances[name]["correct"]
                groups[method, layer, kind, correct][name].append(bits)
                total[name, method, layer] += bits
    expected = {}
    for key, of in groups.items():
        sums = {name: sum(bits) for name, bits in of.items()}
        tokens = sum(map(len, of.values()))
        expected[key] = {
            "instances": len(of),
            "tokens": tokens,
            "bits": sum(sums.values()) / tokens,
            "total": average(list(sums.values())),
            "share": average([bits / total[name, *key[:2]] for name, bits in sums.items()]),
            "left_out": held.sizes[key[0]][1],
        }
    keys = ("method", "layer", "role", "correct")
    assert_same(asked.choice.ask(asked.connection, "information_flow", *keys), expected)


MEASURES = ("attr_max", "attention_mean", "taylor_loss", "taylor_logits")


def importances(rows: list[Row]) -> dict[tuple[int, int], Floats]:
    """The means of the measures over instances, by layer and head."""
    grouped = defaultdict(list)
    for row in rows:
        grouped[row["layer"], row["head"]].append([row[measure] for measure in MEASURES])
    return {place: np.mean(values, axis=0) for place, values in grouped.items()}


def held_heads(asked: Asked) -> tuple[dict[str, list[Row]], Held]:
    held = asked.hold(all_finite(asked.run.heads, *MEASURES))
    rows = {
        method: [
            row
            for row in asked.run.heads
            if row["method"] == method and (row["instance_id"], method) in held.kept
        ]
        for method in held.sizes
    }
    return rows, held


@pytest.fixture
def asked_of_heads(asked: Asked) -> Asked:
    """The methods with heads are others."""
    if asked.choice.methods is None:
        return asked
    choice = Choice("methods := ['heads_b', 'paths']", True, ("heads_b", "paths"))
    return asked._replace(choice=choice)


def test_head_importance(asked_of_heads: Asked) -> None:
    rows, held = held_heads(asked_of_heads)
    lengths = {r["instance_id"]: len(r["tokens"]) for r in asked_of_heads.run.instances}
    expected = {}
    for method, (n, left_out) in held.sizes.items():
        means = importances(rows[method])
        order = sorted(means, key=lambda place: (-means[place][0], place))
        for place, (importance, attention, loss, logits) in means.items():
            layer = [other for other in order if other[0] == place[0]]
            norm = np.linalg.norm([means[other][3] for other in layer])
            expected[method, *place] = {
                "n": n,
                "tokens": average([lengths[name] for name in held.names(method)]),
                "importance": float(importance),
                "rank": 1 + order.index(place),
                "layer_rank": 1 + layer.index(place),
                "attention": float(attention),
                "taylor_loss": float(loss),
                "taylor_logits": float(logits),
                "taylor_logits_norm": float(norm),
                "left_out": left_out,
            }
    choice, connection = asked_of_heads.choice, asked_of_heads.connection
    assert_same(choice.ask(connection, "head_importance", "method", "layer", "head"), expected)


def test_head_agreement(asked_of_heads: Asked) -> None:
    rows, _ = held_heads(asked_of_heads)
    subsets = {row["instance_id"]: row["subset"] for row in asked_of_heads.run.instances}
    chosen_methods = asked_of_heads.choice.methods
    had = {
        row["instance_id"]
        for row in asked_of_heads.run.heads
        if chosen_methods is None or row["method"] in chosen_methods
    }
    groups = {}
    for method, own in rows.items():
        for subset in {subsets[row["instance_id"]] for row in own}:
            of = [row for row in own if subsets[row["instance_id"]] == subset]
            n = len({row["instance_id"] for row in of})
            left_out = sum(subsets[name] == subset for name in had) - n
            means = importances(of)
            groups[method, subset] = (
                [float(means[place][0]) for place in sorted(means)],
                n,
                left_out,
            )
    expected = {}
    for a, b in combinations(sorted(groups, key=lambda key: (key[0], key[1] or "")), 2):
        (one, n_a, left_a), (other, n_b, left_b) = groups[a], groups[b]
        expected[*a, *b] = {
            "instances_a": n_a,
            "instances_b": n_b,
            "heads": len(one),
            "pearson": float(pearsonr(one, other).statistic),
            "spearman": float(spearmanr(one, other).statistic),
            "left_out_a": left_a,
            "left_out_b": left_b,
        }
    keys = ("method_a", "subset_a", "method_b", "subset_b")
    choice, connection = asked_of_heads.choice, asked_of_heads.connection
    assert_same(choice.ask(connection, "head_agreement", *keys), expected)


# All of them -----------------------------------------------------------------------------------


def test_no_view_is_not_a_number_because_of_one_row(every: dict[str, Opened]) -> None:
    _, connection = every["all orders"]
    for view in VIEWS:
        if view.is_macro or view.name in AS_STORED:
            continue
        for row in select(connection, f"from {view.name}"):
            numbers = [value for value in row.values() if isinstance(value, float)]
            assert finite(*numbers), (view.name, row)


def test_the_runs_are_adversarial() -> None:
    """What the tests above are about is there."""
    run = adversarial_run(**RUNS["all orders"])
    asked = Asked(run, duckdb.connect(), CHOICES[0])
    for _, curves, held in held_curves(asked):
        assert {usable(orders) for orders in curves.values()} == {False, True}
        assert held.sizes["void"][0] == 0 and min(held.sizes["paths"]) > 2
    assert "hopeless" not in held_scores(asked)[1].sizes
    sizes = {len(row["tokens"]) - sum(row["special"]) for row in run.instances}
    assert 1 in sizes
    assert len({row["target"] for row in run.attributions}) == 3
    assert {row["window"] for row in run.instances} == {None, 0, 1}
    assert {row["truncated"] for row in run.instances} == {False, True}
    assert {row["label"] is None for row in run.instances} == {False, True}
    assert {row["unseen"] > 0 for _, row in ranked(run).values()} == {False, True}
