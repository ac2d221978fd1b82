"""Two runs compared: whether methods say the same in both, and are as faithful.

The runs are of one corpus; of two models, checkpoints, seeds or precisions, say.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from attribeam.analysis.opening.database import dict_rows, literal
from attribeam.analysis.opening.runs import open_run, said
from attribeam.schemas import UsageError

Rows = list[dict[str, Any]]
_OTHER = "other"
_NAMED = 3  # Methods that a sentence names at most; the tables have all.
# How a metric is said, and whether more of it is better.
_METRICS = {"comprehensiveness": True, "sufficiency": False, "aopc": True}

_RUN = """
    select
        model_source as model,
        corpus_source as corpus,
        settings_target as target,
        settings_dtype as dtype,
        settings_seed as seed,
        (select count(*) from {of}instances) as instances,
        (select avg(correct::int) from {of}instances) as accuracy
    from {of}run
"""


@dataclass(frozen=True)
class Comparison:
    """What the comparison of two runs has found.

    Attributes:
        names: What the two runs are called.
        runs: A row of each: its model, its corpus, what it explains, its instances and accuracy.
        agreement: Rows of ``agreement_with``.
        faithfulness: Rows of ``faithfulness_with``, with the ``verdict`` of each: the name of the
            run that is better, or ``neither``.
        rankings: By protocol, operation and metric Kendall's tau b between the two runs' order of
            their methods, the number of these, and how many methods are ``better`` in the one run,
            in the other, and in neither.
        verdict: At most three sentences on all that.
    """

    names: tuple[str, str]
    runs: Rows
    agreement: Rows
    faithfulness: Rows
    rankings: Rows
    verdict: list[str]

    def __str__(self) -> str:
        return "\n".join(self.verdict)


def compare(folder: str | Path, other: str | Path) -> Comparison:
    """Compares a run with another one.

    Args:
        folder: Folder or address of the run.
        other: Those of the other one.

    Raises:
        UsageError: If one of them is no run, or they have no method or no instance in common.
    """
    with open_run(folder, others={_OTHER: other}, commented=False) as connection:
        try:
            return _compared(connection, _names(folder, other))
        except duckdb.Error as error:
            raise UsageError(f"{folder} and {other} can't be compared: {said(error)}") from error


def _names(folder: str | Path, other: str | Path) -> tuple[str, str]:
    """What the runs are called: the ends of their paths, or these where they are the same."""
    one, two = (str(each).rstrip("/") for each in (folder, other))
    ends = one.rpartition("/")[2], two.rpartition("/")[2]
    return ends if ends[0] != ends[1] else (one, two)


def orders_with(name: str) -> str:
    """SQL for how alike two runs order the methods, by the texts that both have.

    Args:
        name: What the other run is attached as.
    """
    return f"""\
select
    protocol,
    operation,
    metric,
    count(*) as methods,
    kendall_tau(list(value order by method), list(other_value order by method)) as kendall
from faithfulness_with({literal(name)})
where value is not null and other_value is not null and method <> 'random'
group by all"""


def _compared(connection: duckdb.DuckDBPyConnection, names: tuple[str, str]) -> Comparison:
    agreement = _rows(connection, f"from agreement_with('{_OTHER}')")
    if not agreement:
        raise UsageError(f"{names[0]} and {names[1]} have no method in common that has scores")
    faithfulness = _rows(connection, f"from faithfulness_with('{_OTHER}')")
    # Models of two tokenizers have curves of the same rows, though no scores of the same tokens.
    if not faithfulness and not any(row["n"] or row["other_class"] for row in agreement):
        raise UsageError(
            f"{names[0]} and {names[1]} have no instance in common: ids and tokens are compared, "
            "which the same corpus and tokenizer give"
        )
    for row in faithfulness:
        row["verdict"] = _better(row, names)
    rankings = _rows(
        connection,
        f"{orders_with(_OTHER)} order by all",
    )
    for row in rankings:
        row["better"] = [_count(faithfulness, row, name) for name in (*names, "neither")]
    verdict = [*_of_agreement(agreement), *_of_faithfulness(faithfulness, rankings, names)]
    runs = [
        {"name": name, **_rows(connection, _RUN.format(of=of))[0]}
        for name, of in zip(names, ("", f"{_OTHER}."), strict=True)
    ]
    return Comparison(names, runs, agreement, faithfulness, rankings, verdict)


def _rows(connection: duckdb.DuckDBPyConnection, sql: str) -> Rows:
    return [dict(row) for row in dict_rows(connection, sql)]


def _better(row: dict[str, Any], names: tuple[str, str]) -> str:
    """The run whose interval of the difference says that it is better."""
    low, high = row["low"], row["high"]
    if low is None or high is None or low <= 0 <= high:
        return "neither"
    return names[0] if (low > 0) == _METRICS[row["metric"]] else names[1]


def _of_agreement(rows: Rows) -> Iterator[str]:
    """A sentence on how alike scores are, and on what is left out of that."""
    known = [row for row in rows if row["spearman"] is not None]
    reasons = {
        "other_class": "are explained for another class in the other run",
        "other_tokens": "are not in both runs or of other tokens",
    }
    left = [
        f"up to {count} instances of a method, which {what}"
        for name, what in reasons.items()
        if (count := max(row[name] for row in rows))
    ]
    if known:
        most = max(known, key=lambda row: row["spearman"])
        least = min(known, key=lambda row: row["spearman"])
        out = f"; left out: {' and '.join(left)}" if left else ""
        yield (
            f"Scores are most alike under {most['method']} (mean Spearman {most['spearman']:.3f} "
            f"over {most['n']} instances) and least under {least['method']} "
            f"({least['spearman']:.3f} over {least['n']}){out}."
        )
    elif left:
        yield f"Scores are not compared; left out: {' and '.join(left)}."


def _of_faithfulness(rows: Rows, rankings: Rows, names: tuple[str, str]) -> Iterator[str]:
    """Sentences on the first metric and way to perturb, the headline; all are in the tables."""
    if not rankings:
        return
    ranking = min(rankings, key=lambda row: list(_METRICS).index(row["metric"]))
    way = [ranking[key] for key in ("protocol", "operation", "metric")]
    own = [row for row in rows if [row["protocol"], row["operation"], row["metric"]] == way]
    counts = [_counted(own, name) for name in (*names, "neither")]
    others = len(rankings) - 1
    more = f"; of {others} more metrics and ways the rows below" if others else ""
    yield (
        f"{way[2]} ({way[0]}, {way[1]}; {max(row['n'] for row in own)} instances): {names[0]} is "
        f"better under {counts[0]}, {names[1]} under {counts[1]}, neither under {counts[2]} (95 % "
        f"paired bootstrap intervals, not corrected for their number{more})."
    )
    if ranking["kendall"] is not None:
        yield (
            f"By that, methods but for random rank alike in both by Kendall's tau b of "
            f"{ranking['kendall']:.3f} ({ranking['methods']} methods)."
        )


def _count(rows: Rows, way: dict[str, Any], verdict: str) -> int:
    """How many methods have a verdict by a metric and way to perturb."""
    keys = ("protocol", "operation", "metric")
    return sum(row["verdict"] == verdict for row in rows if all(row[k] == way[k] for k in keys))


def _counted(rows: Sequence[dict[str, Any]], verdict: str) -> str:
    """How many methods have a verdict, and which where they are few, each with its interval."""
    found = [
        f"{row['method']} [{row['low']:.3f}, {row['high']:.3f}]"
        if row["low"] is not None
        else str(row["method"])
        for row in rows
        if row["verdict"] == verdict
    ]
    if not found:
        return "none"
    return ", ".join(found) if len(found) <= _NAMED else f"{len(found)} methods"
