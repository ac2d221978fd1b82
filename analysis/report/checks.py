"""The report's tables of what `attribeam check` has found, with what fools each."""

from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
from markupsafe import escape

from attribeam.analysis.plots.figures import Row
from attribeam.analysis.report.metrics import Sheet, sheet_of
from attribeam.analysis.report.notes import not_common
from attribeam.analysis.report.values import counted, has_view, query_rows

_INFIDELITY = {
    "infidelity": ("infidelity", "lower"),
    "infidelity_relative": ("relative infidelity", "lower"),
    "faithfulness_correlation": ("faithfulness correlation", "higher"),
    "tau_loo": ("Kendall with leaving one out", "higher"),
    "non_sensitivity": ("non-sensitivity", "lower"),
    "opposite": ("opposite", "lower"),
}
_SENSITIVITY = {
    "largest": ("max-sensitivity", "lower"),
    "average": ("average sensitivity", "lower"),
    "unflipped": ("of unchanged predictions", "lower"),
    "lipschitz": ("Lipschitz", ""),
}
_RELIABILITY = {
    "spearman": ("Spearman between seeds", "higher"),
    "reliability": ("reliability", "higher"),
}
# Its columns are parts of the model, and its rows are of one kind of randomisation.
_KINDS = {
    "cascading": "a part and all above it are randomised",
    "independent": "one part alone is randomised",
}


def check_sheets(connection: duckdb.DuckDBPyConnection) -> Iterator[Sheet]:
    """The tables of the checks that the run has; of several of a kind, that of most instances."""
    if not has_view("infidelity"):
        return
    if rows := of_largest(connection, "infidelity"):
        yield _sheet(
            rows,
            "infidelity",
            _INFIDELITY,
            "infidelity_relative",
            "Subsets of tokens",
            "Whether scores add up to what the explained output loses as random subsets are "
            "removed, the same subsets for all methods. More removed is more lost, so that even "
            "random scores do fair: hold others against them. What is removed leaves inputs that "
            "the model wasn't trained on.",
        )
    yield from _randomisation_sheets(connection)
    if rows := of_largest(connection, "sensitivity"):
        yield _sheet(
            rows,
            "sensitivity",
            _SENSITIVITY,
            "largest",
            "Noise on the input",
            "How far a little noise moves scores, over their size. Stable isn't right: a method "
            "that gives the same whatever the input has 0. Lipschitz is in a method's own unit, "
            "and compares none.",
        )
    if rows := of_largest(connection, "reliability"):
        yield _sheet(
            rows,
            "reliability",
            _RELIABILITY,
            "reliability",
            "Seeds",
            "How much of a stochastic method's scores is chance. More samples buy reliability; "
            "random scores have none.",
        )


def _randomisation_sheets(connection: duckdb.DuckDBPyConnection) -> Iterator[Sheet]:
    every = of_largest(connection, "randomisation")
    for kind, what in _KINDS.items():
        for weights in sorted({row["weights"] for row in every}):
            own = [row for row in every if (row["kind"], row["weights"]) == (kind, weights)]
            if not own:
                continue
            parts = {row["part"]: row["stage"] for row in own}
            named = sorted(parts, key=lambda part: int(parts[part]))
            by_method: dict[str, dict[str, Any]] = {}
            for row in own:
                pivot = by_method.get(row["method"], {"method": row["method"]})
                pivot = {**pivot, row["part"]: row["spearman"]}
                pivot |= {"n": row["n"], "left_out": row["left_out"]}
                by_method[row["method"]] = pivot
            columns = {part: (str(escape(part)), "lower") for part in named}
            sheet = _sheet(
                list(by_method.values()),
                "randomisation",
                columns,
                named[-1],
                f"Randomised weights, {kind}" + f" ({weights})" * (weights != "init"),
                f"Spearman's correlation of scores with those of the untouched model, as {what}; "
                "from the output to the input. Low is good: what explains a model can't stay as "
                "it is. A method that depends on no class can't notice the head, random scores "
                "notice nothing, and skips carry the input through whatever is above it.",
            )
            meaning = "Mean Spearman correlation with the untouched model's scores, -1 to 1"
            told = [
                column._replace(meaning=meaning, told="lower is better; -1 to 1")
                for column in sheet.columns
            ]
            key = f"randomisation-{kind}-{weights}"
            yield sheet._replace(key=key, columns=told)


def of_largest(connection: duckdb.DuckDBPyConnection, view: str) -> list[Row]:
    """Rows of a view, of the check of the most instances; of equals, the last by name."""
    rows = query_rows(connection, f"from {view}")
    if not rows:
        return []
    most = max(rows, key=lambda row: (row["n"], row["evaluation"]))
    return [row for row in rows if row["evaluation"] == most["evaluation"]]


def _sheet(
    rows: Sequence[Row],
    view: str,
    metrics: dict[str, tuple[str, str]],
    first: str,
    title: str,
    note: str,
) -> Sheet:
    n, left_out = max((row["n"], row.get("left_out", 0)) for row in rows)
    return Sheet(
        view,
        title,
        f"{note} Over {counted(n, 'instance')}{not_common(left_out, 'scores')} "
        f"(`attribeam check`, view {view}).",
        *sheet_of(rows, metrics, {}, (view,), first),
    )
