"""The table that would be cited: methods against metrics, and what differs from the best."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import duckdb

from attribeam.analysis.plots.figures import CONTROL, Row
from attribeam.analysis.report.checks import of_largest
from attribeam.analysis.report.notes import GOLD_CURVES
from attribeam.analysis.report.values import finite, query_rows

LEVEL = 0.05  # Of Holm's corrected p.
_TESTED = {"auc_difference": "higher", "comprehensiveness": "higher", "sufficiency": "lower"}
_LABELS = {
    "auc_difference": "area",
    "comprehensiveness": "comprehen\N{SOFT HYPHEN}siveness",
    "sufficiency": "sufficiency",
}
_OTHERS = {  # By view: metric, label, which way is better.
    "plausibility": (("token_f1", "token F1", "higher"), ("auprc", "AUPRC", "higher")),
    "segmentation": (("miou", "mIoU", "higher"),),
    "infidelity": (("infidelity_relative", "relative infidelity", "lower"),),
    "sensitivity": (("largest", "max-sensitivity", "lower"),),
}
_OF_CHECKS = ("infidelity", "sensitivity")


class Entry(NamedTuple):
    """A cell: its value and interval as they are shown.

    Attributes:
        value: The number; None where there is none.
        text: As it is shown.
        interval: Its 95 % interval, or nothing.
        best: Whether it is the best of the column.
        tied: Whether a paired test doesn't tell it from the best.
    """

    value: float | None
    text: str
    interval: str = ""
    best: bool = False
    tied: bool = False


class Measure(NamedTuple):
    """A column.

    Attributes:
        label: Its heading.
        better: ``higher``, ``lower``, or nothing if neither is.
        tested: Whether there is a paired test.
        sql: What gives its numbers.
        entries: By method.
    """

    label: str
    better: str
    tested: bool
    sql: str
    entries: Mapping[str, Entry]


class Cited(NamedTuple):
    """The table: methods with their families, the control first, and columns."""

    methods: list[tuple[str, str]]
    measures: list[Measure]
    apart: list[str]


def cited_table(connection: duckdb.DuckDBPyConnection) -> Cited:
    """The columns that the run has rows for, and its methods in the order of the first column.

    Methods that follow another class than the others have no mark.
    """
    apart = {
        (row["protocol"], row["operation"], row["method"])
        for row in query_rows(connection, GOLD_CURVES)
    }
    measures = [
        *_of_curves(connection, apart),
        *_of_views(connection),
        *_of_randomisation(connection),
        *_of_cost(connection),
    ]
    families = {
        str(row["method"]): str(row["family"] or "")
        for row in query_rows(connection, "select method, family from methods")
        if any(row["method"] in measure.entries for measure in measures)
    }
    return Cited(
        _ordered(families, measures[0]) if measures else [],
        measures,
        sorted({method for _, _, method in apart}),
    )


def _ordered(families: Mapping[str, str], first: Measure) -> list[tuple[str, str]]:
    """The control, then families by the best of them in a column, and in them methods by that."""
    sign = -1 if first.better != "lower" else 1

    def place(method: str) -> tuple[bool, float]:
        entry = first.entries.get(method)
        known = entry is not None and entry.value is not None
        return (not known, sign * entry.value if entry and entry.value is not None else 0.0)

    heads: dict[str, tuple[bool, float]] = {}
    for method, family in families.items():
        if method != CONTROL:
            heads[family] = min(heads.get(family, place(method)), place(method))
    return sorted(
        families.items(),
        key=lambda pair: (
            pair[0] != CONTROL,
            heads.get(pair[1], (False, 0.0)) if pair[0] != CONTROL else (False, 0.0),
            pair[1],
            place(pair[0]),
            pair[0],
        ),
    )


def _of_curves(
    connection: duckdb.DuckDBPyConnection, apart: set[tuple[Any, Any, Any]]
) -> Iterator[Measure]:
    """Areas of each way to perturb; and of the first ERASER's two, with paired tests."""
    every = query_rows(connection, "from faithfulness_intervals")
    ways = sorted({(row["protocol"], row["operation"]) for row in every})
    if not ways:
        return
    tests = query_rows(
        connection,
        "from faithfulness_differences where metric in"
        " ('auc_difference', 'comprehensiveness', 'sufficiency')",
    )
    wanted = [(way, "auc_difference") for way in ways]
    wanted += [(ways[0], "comprehensiveness"), (ways[0], "sufficiency")]
    for way, metric in wanted:
        own = [
            row
            for row in every
            if (row["protocol"], row["operation"], row["metric"]) == (*way, metric)
        ]
        if not own:
            continue
        same = {
            frozenset((row["method_a"], row["method_b"])): row["p_holm"]
            for row in tests
            if (row["protocol"], row["operation"], row["metric"]) == (*way, metric)
        }
        out = {method for protocol, operation, method in apart if (protocol, operation) == way}
        yield Measure(
            f"{_LABELS[metric]}, {_said(*way)}",
            _TESTED[metric],
            True,
            f"from faithfulness_intervals where protocol = '{way[0]}' and operation = '{way[1]}'"
            f" and metric = '{metric}'",
            _entries(own, "value", _TESTED[metric], same, out),
        )


def _said(protocol: str, operation: str) -> str:
    return operation if protocol == "token" else f"{operation} ({protocol})"


def _of_views(connection: duckdb.DuckDBPyConnection) -> Iterator[Measure]:
    """What there is no paired test of: the best is marked, and nothing beside it."""
    for view, metrics in _OTHERS.items():
        rows = of_largest(connection, view) if view in _OF_CHECKS else _rows(connection, view)
        where = (
            f" where evaluation = '{rows[0]['evaluation']}'" if view in _OF_CHECKS and rows else ""
        )
        for metric, label, better in metrics:
            own = [row for row in rows if finite(row[metric]) is not None]
            if own:
                yield Measure(
                    label,
                    better,
                    False,
                    f"select method, {metric} from {view}{where}",
                    _entries(own, metric, better, {}, set()),
                )


def _rows(connection: duckdb.DuckDBPyConnection, view: str) -> list[Row]:
    return query_rows(connection, f"from {view}")


def _of_randomisation(connection: duckdb.DuckDBPyConnection) -> Iterator[Measure]:
    """How far scores stay with the head, all down to the middle, and everything randomised."""
    rows = [
        row
        for row in of_largest(connection, "randomisation")
        if (row["kind"], row["weights"]) == ("cascading", "init") and row["stage"] > 0
    ]
    stages = sorted({(row["stage"], row["part"]) for row in rows})
    if not stages:
        return
    for stage, part in dict.fromkeys((stages[0], stages[len(stages) // 2], stages[-1])):
        own = [row for row in rows if row["stage"] == stage]
        yield Measure(
            f"kept after {part} is random",
            "",
            False,
            f"select method, spearman from randomisation where kind = 'cascading' and weights ="
            f" 'init' and stage = {stage} and evaluation = '{own[0]['evaluation']}'",
            _entries(own, "spearman", "", {}, set()),
        )


def _of_cost(connection: duckdb.DuckDBPyConnection) -> Iterator[Measure]:
    sql = "select method, 1000 * seconds_per_instance as ms from cost"
    own = [row for row in query_rows(connection, sql) if finite(row["ms"]) is not None]
    if own:
        entries = {str(row["method"]): Entry(float(row["ms"]), f"{row['ms']:,.3g}") for row in own}
        yield Measure("ms an instance", "", False, sql, entries)


def _entries(
    rows: Sequence[Row],
    metric: str,
    better: str,
    same: Mapping[frozenset[str], float],
    apart: Iterable[str],
) -> dict[str, Entry]:
    """A column's cells, with the best of it and what isn't told from that by its p.

    Random scores are never the best: they are the most stable, say.
    """
    out = set(apart)
    known = {
        str(row["method"]): value
        for row in rows
        if (value := finite(row[metric])) is not None and row["method"] not in (*out, CONTROL)
    }
    best = None
    if better and len(known) > 1:
        sign = 1 if better == "higher" else -1
        best = max(known, key=lambda method: (sign * known[method], method))
    entries = {}
    for row in rows:
        method, value = str(row["method"]), finite(row[metric])
        if value is None:
            continue
        low, high = finite(row.get("low")), finite(row.get("high"))
        interval = "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
        p = same.get(frozenset((method, best))) if best and method not in out else None
        entries[method] = Entry(
            value,
            f"{value:.3f}",
            interval,
            best is not None and (method == best or known.get(method) == known[best]),
            p is not None and p >= LEVEL,
        )
    return entries
