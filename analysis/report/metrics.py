"""The report's tables of metrics: methods against what each view says of them."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import duckdb
from markupsafe import Markup

from attribeam.analysis.plots.figures import Row
from attribeam.analysis.report.notes import (
    GOLD_CURVES,
    not_common,
    other_classes,
    parts_of_texts,
    same_instances,
)
from attribeam.analysis.report.values import counted, finite, has_view, query_rows
from attribeam.schemas import VIEWS

# Which way a metric is better, and what it is called in a heading.
_FAITHFULNESS = {
    "n": ("instances", ""),
    "comprehensiveness": ("comprehen&shy;siveness", "higher"),
    "sufficiency": ("sufficiency", "lower"),
    "aopc": ("AOPC", "higher"),
    "log_odds": ("log-odds", "lower"),
    "auc_difference": ("AUC difference", "higher"),
    "degradation": ("degradation", "higher"),
    "decision_flip_fraction": ("decision flip", "lower"),
}
_DISTRIBUTIONS = {
    "n": ("instances", ""),
    "comprehensiveness_kl": ("comprehen&shy;siveness, KL", "higher"),
    "sufficiency_kl": ("sufficiency, KL", "lower"),
    "comprehensiveness_entropy": ("comprehen&shy;siveness, entropy", "lower"),
    "sufficiency_entropy": ("sufficiency, entropy", ""),
}
_PLAUSIBILITY = {
    "token_f1": ("token F1", "higher"),
    "token_iou": ("token IoU", "higher"),
    "iou_f1": ("IoU F1", "higher"),
    "average_precision": ("average precision", "higher"),
    "auprc": ("AUPRC", "higher"),
}
_COST = {
    "seconds_per_instance": ("ms an instance", "lower"),
    "tokens_per_second": ("tokens a second", "higher"),
    "instances": ("instances", ""),
    "failures": ("failures", "lower"),
    "median_gap": ("completeness gap", "lower"),
}
_CONTINUATIONS = {
    "n": ("instances", ""),
    "aopc_log_prob": ("AOPC of log-probability", "higher"),
    "aopc_normalised": ("AOPC, share of all", "higher"),
    "sufficiency": ("sufficiency", "lower"),
    "top1_drop": ("drop of the top 1", "higher"),
    "top3_drop": ("top 3", "higher"),
    "top5_drop": ("top 5", "higher"),
    "deletion": ("deletion", "lower"),
    "insertion": ("insertion", "higher"),
    "rise": ("RISE", "lower"),
    "mas": ("MAS", "lower"),
    "contrastive_flip": ("contrastive flip", "lower"),
}
_EVIDENCE = {
    "n": ("instances", ""),
    "mrr": ("MRR", "higher"),
    "recall": ("recall", "higher"),
    "chance": ("recall of chance", ""),
}
# Of costs only what isn't a matter of which instances a method was run on can be the best anyway.
_ANY_INSTANCES = ("failures", "median_gap")
_BY_LOG_PROB = "continuation_faithfulness"
_REMOVED = {
    "delete": "deleted",
    "mask": "masked",
    "pad": "hidden as padding",
    "impute": "filled by a masked LM",
    "mean": "painted with the mean colour",
    "black": "painted black",
    "drop": "left out",
}
_KEPT_WHOLE = ("n", "instances", "failures", "tokens_per_second")


class Column(NamedTuple):
    """A column of a table of metrics.

    Attributes:
        name: Name of the metric in its view.
        label: What stands in the heading.
        better: ``higher``, ``lower``, or nothing if neither is better.
        meaning: A sentence, of the view's manual.
        order: ``ascending`` or ``descending`` if the table is sorted by it at first.
        told: Which values are better and what range they have, of the view's manual.
    """

    name: str
    label: str
    better: str
    meaning: str
    order: str = ""
    told: str = ""


class Cell(NamedTuple):
    """A value of a metric, its interval as a text, and how it stands in its column.

    ``share`` is 0 for the worst of the column and 1 for the best.
    """

    value: float | None
    text: str
    interval: str = ""
    best: bool = False
    share: float | None = None


class Line(NamedTuple):
    """A method's cells."""

    name: str
    cells: list[Cell]


class Sheet(NamedTuple):
    """A table of methods and metrics; ``fools`` is what makes them look better than they are."""

    key: str
    title: str
    note: str
    columns: list[Column]
    rows: list[Line]
    fools: str = ""


def metric_sheets(connection: duckdb.DuckDBPyConnection) -> Iterator[Sheet]:
    """The tables of the metrics that the run has."""
    yield from _faithfulness_sheets(connection)
    yield from _distribution_sheets(connection)
    yield from _continuation_sheets(connection)
    plausible = query_rows(connection, "from plausibility") if has_view("plausibility") else []
    if plausible:
        yield _plausibility_sheet(connection, plausible)
    if costs := query_rows(connection, "from cost"):
        yield _cost_sheet(costs, query_rows(connection, "from completeness"))


def _cost_sheet(costs: list[Row], gaps: list[Row]) -> Sheet:
    by_method = {row["method"]: row for row in gaps}
    rows = [{**by_method.get(row["method"], {}), **row} for row in costs]
    columns, lines, fools = sheet_of(
        rows, _COST, {}, ("cost", "completeness"), "seconds_per_instance"
    )
    timed = {row["instances"] for row in costs if finite(row["seconds_per_instance"]) is not None}
    unequal = unknown = ""
    if len(timed) > 1:
        unequal = (
            " Methods were not run on the same instances, since some failed or aren't done: none "
            "is marked as the cheapest."
        )
        for at, column in enumerate(columns):
            if column.name not in _ANY_INSTANCES:
                for line in lines:
                    line.cells[at] = line.cells[at]._replace(best=False)
    if any(row["instances"] and row["seconds"] is None for row in costs):
        unknown = " Of methods without scores of tokens, seconds aren't kept."
    return Sheet(
        "cost",
        "Cost",
        "Passes and work of the attributions alone, without reading, encoding and the "
        f"perturbation curves.{unequal}{unknown} The completeness gap is the median over the "
        "instances, of the additive methods.",
        columns,
        lines,
        fools,
    )


def _faithfulness_sheets(connection: duckdb.DuckDBPyConnection) -> Iterator[Sheet]:
    """A table per way to perturb."""
    rows = query_rows(
        connection,
        "select f.*, d.degradation, c.seconds_per_instance from faithfulness as f"
        " join degradation as d using (method, protocol, operation)"
        " join cost_faithfulness as c using (method, protocol, operation)",
    )
    intervals = _intervals(
        query_rows(connection, "select *, 'degradation' as metric from degradation_intervals")
    )
    if has_view("faithfulness_intervals"):
        intervals |= _intervals(query_rows(connection, "from faithfulness_intervals"))
    metrics = {**_FAITHFULNESS, "seconds_per_instance": _COST["seconds_per_instance"]}
    gold = query_rows(connection, GOLD_CURVES) if rows else []
    ways = sorted({(row["protocol"], row["operation"]) for row in rows})
    for number, way in enumerate(ways):
        protocol, operation = way
        own, apart = (
            [row for row in some if (row["protocol"], row["operation"]) == way]
            for some in (rows, gold)
        )
        what = {"word": "words", "patch": "patches"}.get(protocol, "tokens")
        how = _REMOVED.get(operation, str(operation))
        if protocol == "compat":
            how += " and counted as IBA's authors do"
        yield Sheet(
            f"faithfulness-{number}" if number else "faithfulness",
            f"Faithfulness, {what} {operation}" if len(ways) > 1 else "Faithfulness",
            f"How the probability of the explained class reacts as {what} are {how} along a "
            "method's ranking. ↑: higher is better, ↓: lower is better; a bar is the longer the "
            "better, a star the best. Below a value its 95 % interval over instances. "
            f"{same_instances(own)}{other_classes(apart)} A click on a heading sorts.",
            *sheet_of(
                own,
                metrics,
                {
                    (m, c): bounds
                    for (m, c, *own_way), bounds in intervals.items()
                    if tuple(own_way) == way
                },
                ("faithfulness", "degradation", "cost_faithfulness"),
                "degradation",
                [row["method"] for row in apart],
            ),
        )


def _distribution_sheets(connection: duckdb.DuckDBPyConnection) -> Iterator[Sheet]:
    """A table per way to perturb, of runs that keep what the model says of all classes."""
    view = "faithfulness_distributions"
    found = query_rows(connection, f"from {view} where n > 0") if has_view(view) else []
    ways = sorted({(row["protocol"], row["operation"]) for row in found})
    for number, way in enumerate(ways):
        own = [row for row in found if (row["protocol"], row["operation"]) == way]
        yield Sheet(
            f"distributions-{number}",
            f"Faithfulness of all that the model says{f', {way[0]}s {way[1]}' * (len(ways) > 1)}",
            "ERASER's entropy and KL forms, in nats: how the whole distribution changes without "
            "the most relevant (comprehensiveness) and with that alone (sufficiency), as means "
            f"over the fractions. {same_instances(own)}",
            *sheet_of(own, _DISTRIBUTIONS, {}, (view,), "comprehensiveness_kl"),
        )


def _continuation_sheets(connection: duckdb.DuckDBPyConnection) -> Iterator[Sheet]:
    """Of language models: a table per way to perturb, of single tokens; and one of evidence."""
    rows = query_rows(connection, "from continuation_faithfulness where question_kind = 'next'")
    ways = sorted({(row["protocol"], row["operation"]) for row in rows})
    for number, way in enumerate(ways):
        own = [row for row in rows if (row["protocol"], row["operation"]) == way]
        what, how = f"{way[0]}s", _REMOVED.get(way[1], str(way[1]))
        yield Sheet(
            f"continuation-faithfulness-{number}",
            f"Faithfulness to what follows{f', {what} {way[1]}' if len(ways) > 1 else ''}",
            f"How the log-probability of each token that follows reacts as {what} before it are "
            f"{how} along a method's ranking. Never removed are special tokens (the first, those "
            "of a chat template), and the one that the next is read from.",
            *sheet_of(own, _CONTINUATIONS, {}, (f"{_BY_LOG_PROB}_by_instance",), "aopc_log_prob"),
        )
    found = query_rows(
        connection,
        "select method, sum(n)::int as n, sum(n * mrr) / sum(n) as mrr,"
        " sum(n * recall) / sum(n) as recall, sum(n * chance) / sum(n) as chance"
        " from evidence where question_kind = 'next' group by method order by method",
    )
    if found:
        yield Sheet(
            "evidence",
            "Evidence",
            "Whether the evidence that is known for what follows has the highest scores, over "
            "tokens that can be removed. Evidence is what we know, and faithfulness what the model "
            "uses: see both.",
            *sheet_of(found, _EVIDENCE, {}, ("evidence_by_instance", "evidence"), "mrr"),
        )


def _plausibility_sheet(connection: duckdb.DuckDBPyConnection, rows: list[Row]) -> Sheet:
    intervals: dict[tuple[Any, ...], tuple[float, float]] = {}
    if has_view("plausibility_intervals"):
        intervals = _intervals(query_rows(connection, "from plausibility_intervals"))
    n, left_out = max((row["n"], row["left_out"]) for row in rows)
    return Sheet(
        "plausibility",
        "Plausibility",
        f"How well a method's highest words are those of human rationales, over "
        f"{counted(n, 'instance')}{not_common(left_out, 'scores')}.{parts_of_texts(rows)} "
        "That people agree does not make an explanation faithful.",
        *sheet_of(
            rows,
            _PLAUSIBILITY,
            {key[:2]: bounds for key, bounds in intervals.items()},
            ("plausibility",),
            "auprc",
        ),
    )


def _intervals(rows: Iterable[Row]) -> dict[tuple[Any, ...], tuple[float, float]]:
    """Bounds by method, metric, and protocol and operation where there are some."""
    return {
        (row["method"], row["metric"], *(row[k] for k in ("protocol", "operation") if k in row)): (
            row["low"],
            row["high"],
        )
        for row in rows
        if row["low"] is not None and row["high"] is not None
    }


def sheet_of(
    rows: Sequence[Row],
    metrics: Mapping[str, tuple[str, str]],
    intervals: Mapping[tuple[Any, ...], tuple[float, float]],
    views: Sequence[str],
    first: str,
    apart: Collection[str] = (),
) -> tuple[list[Column], list[Line], str]:
    """Columns of those metrics that some method has, a line per method, and what fools them.

    The best method comes first. Methods that stand ``apart`` are compared with no other, and come
    last.
    """
    meanings: dict[str, str] = {}
    told: dict[str, str] = {}
    asked = {view.name: view for view in VIEWS if view.name in views}
    for view in asked.values():
        meanings |= view.columns
        told |= {name: f"{of.better}; {of.range}" for name, of in view.metrics.items()}
    columns = [
        # Labels are ours, and a long one may be hyphenated.
        Column(
            name,
            Markup(label),
            better,
            meanings.get(name, ""),
            {"higher": "descending", "lower": "ascending"}[better] if name == first else "",
            told.get(name, ""),
        )
        for name, (label, better) in metrics.items()
        if any(finite(row.get(name)) is not None for row in rows)
    ]
    cells: dict[str, list[Cell]] = {row["method"]: [] for row in rows}
    for column in columns:
        values = {row["method"]: finite(row.get(column.name)) for row in rows}
        for method, cell in _cells(column, values, intervals, apart).items():
            cells[method].append(cell)
    lead = {row["method"]: finite(row.get(first)) for row in rows}
    sign = -1 if metrics[first][1] == "higher" else 1

    def place(method: str) -> tuple[bool, bool, float, str]:
        value = lead[method]
        return value is None, method in apart, 0.0 if value is None else sign * value, method

    # The manual of the view whose metric leads speaks for the sheet.
    fools = next((asked[name].fools for name in views if asked[name].fools), "")
    return columns, [Line(method, cells[method]) for method in sorted(cells, key=place)], fools


def _cells(
    column: Column,
    values: Mapping[str, float | None],
    intervals: Mapping[tuple[Any, ...], tuple[float, float]],
    apart: Collection[str],
) -> dict[str, Cell]:
    """A column: its values, which is best, and how far the others are from it."""
    known = [v for method, v in values.items() if v is not None and method not in apart]
    low, high = min(known, default=0.0), max(known, default=0.0)
    best = {"higher": high, "lower": low}.get(column.better)
    cells = {}
    for method, value in values.items():
        if value is None:
            cells[method] = Cell(None, "")
            continue
        among = method not in apart
        share = None
        # Of costs, whose largest may be a thousand times the others', a bar would say nothing.
        if among and best is not None and high > low and column.name not in _COST:
            share = round((value - low if best == high else high - value) / (high - low), 3)
        bounds = intervals.get((method, column.name))
        interval = f"{bounds[0]:.3f} to {bounds[1]:.3f}" if bounds else ""
        cells[method] = Cell(
            value,
            _shown(column.name, value),
            interval,
            among and value == best and high > low,
            share,
        )
    return cells


def _shown(name: str, value: float) -> str:
    if name == "seconds_per_instance":
        return f"{1000 * value:#,.3g}".rstrip(".") if value < 0.9995 else f"{1000 * value:,.0f}"
    if name in _KEPT_WHOLE:
        return f"{value:,.0f}"
    return f"{value:.3g}" if name == "median_gap" else f"{value:.3f}"
