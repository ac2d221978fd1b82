"""Judges claims by rules that are stated beforehand."""

from typing import Any, NamedTuple

import duckdb

from attribeam.analysis.evidence.claims import CLAIMS, Claim, Comparison, Lacking, Seen
from attribeam.analysis.report.values import finite, query_column, query_count, query_rows
from attribeam.schemas.manifest import Manifest

# What the page says before it says anything else.
RULES = (
    "A comparison is a number that the claim puts above 0 (or below), with its 95 % interval: of "
    "means over texts by the bootstrap, rows of the corpus drawn; of correlations by Fisher's "
    "transformation.",
    "It is for the claim if the whole interval is on the claimed side of 0, against it if it is "
    "wholly on the other, and open if 0 is within.",
    "A claim holds if all its comparisons are for it; it holds partly if some are; it doesn't hold "
    "here if none is for it and some are against it; it is open if all are open.",
    "Nothing is said of pruning and triggers where the whole model isn't surely right more often "
    "than an even share of the classes would be: there is nothing to lose then.",
    "Nothing is judged by fewer than 20 texts, 10 heads or 6 groups. Intervals are not corrected "
    "for the number of comparisons.",
    "A verdict is of this model and this corpus, and no word on those of the paper.",
)
# Evaluations, of the key that claims take, whose whole model isn't surely above an even share.
_AT_CHANCE = """
    with counts as (
        select 'pruning' as of, any_value(n) as n, any_value(correct) as correct
        from pruning
        where rate = 0 and evaluation = (select min(evaluation) from pruning)
        union all
        select 'attacks' as of, sum(n) as n, sum(correct_before) as correct
        from attacks
        where rank = 1 and evaluation = (select min(evaluation) from attacks)
    )
    select of
    from counts
    where n > 0
        and correct / n - 1.959964 * sqrt(correct / n * (1 - correct / n) / n) <= 1 / {classes}
"""
HOLDS, PARTLY, NOT_HERE, OPEN, UNJUDGED = (
    *("holds", "holds partly", "doesn't hold here", "open"),
    "not judged",
)


class Finding(NamedTuple):
    """A comparison that was made.

    Attributes:
        comparison: Which.
        n: How many texts (or heads, groups) it is of.
        value: The number; None where there is none.
        low: Lower end of its interval.
        high: Upper end.
        answer: ``for``, ``against``, ``open``, or why it isn't judged.
    """

    comparison: Comparison
    n: int
    value: float | None
    low: float | None
    high: float | None
    answer: str

    @property
    def judged(self) -> bool:
        """Whether it is an answer."""
        return self.answer in ("for", "against", "open")


class Judgement(NamedTuple):
    """A claim with what was found.

    Attributes:
        claim: Which.
        verdict: One of those above.
        reason: Why it isn't judged; empty if it is.
        findings: Its comparisons.
        differs: What is another thing here than in the paper.
    """

    claim: Claim
    verdict: str
    reason: str
    findings: list[Finding]
    differs: list[str]


def judged(connection: duckdb.DuckDBPyConnection, seen: Seen) -> list[Judgement]:
    """All claims, in their order."""
    return [_judged(connection, claim, seen) for claim in CLAIMS]


def _judged(connection: duckdb.DuckDBPyConnection, claim: Claim, seen: Seen) -> Judgement:
    compared = claim.compared(seen)
    if isinstance(compared, Lacking):
        return Judgement(claim, UNJUDGED, compared.reason, [], [])
    findings = [_found(connection, comparison) for comparison in compared]
    verdict = verdict_of([finding.answer for finding in findings if finding.judged])
    reason = "" if verdict != UNJUDGED else "; ".join(dict.fromkeys(f.answer for f in findings))
    return Judgement(claim, verdict, reason, findings, claim.differs(seen))


def verdict_of(answers: list[str]) -> str:
    """The verdict by the rules on a claim's comparisons."""
    if not answers:
        return UNJUDGED
    if "for" in answers:
        return HOLDS if set(answers) == {"for"} else PARTLY
    return NOT_HERE if "against" in answers else OPEN


def _found(connection: duckdb.DuckDBPyConnection, comparison: Comparison) -> Finding:
    rows = query_rows(connection, comparison.sql)
    row: dict[str, Any] = dict(rows[0]) if rows else {}
    n = int(row.get("n") or 0)
    value, low, high = (finite(row.get(name)) for name in ("value", "low", "high"))
    return Finding(comparison, n, value, low, high, _answer(comparison, n, value, low, high))


def _answer(
    comparison: Comparison, n: int, value: float | None, low: float | None, high: float | None
) -> str:
    if n < comparison.least:
        return f"{n} {comparison.of}, fewer than {comparison.least}"
    if value is None or low is None or high is None:
        return "no number: one side is the same everywhere"
    if low <= 0 <= high:
        return "open"
    return "for" if (low > 0) != comparison.below else "against"


def seen_of(
    connection: duckdb.DuckDBPyConnection, manifest: Manifest, pictures: bool, others: list[str]
) -> Seen:
    """What a run has of what claims are judged by.

    Args:
        connection: The run, with the others by their names.
        manifest: Its manifest.
        pictures: Whether instances are pictures.
        others: Names of the other runs.
    """
    tables = ("heads", "patterns", "attacks", "localisation", "pruning")
    with_heads = [
        name for name in others if query_count(connection, f'select count(*) from "{name}".heads')
    ]
    return Seen(
        params={name: method["params"] for name, method in manifest["methods"].items()},
        operations=tuple(
            query_column(connection, "select distinct operation from curves order by operation")
        ),
        kinds=frozenset(query_column(connection, "select distinct kind from pattern_ablation")),
        importances=frozenset(query_column(connection, "select distinct importance from pruning")),
        tables=frozenset(
            table
            for table in tables
            if query_count(connection, f"select count(*) from (from {table} limit 1)")
        ),
        layers=frozenset(query_column(connection, "select distinct method from information")),
        subsets=query_count(
            connection,
            "select count(distinct subset) from instances semi join heads using (instance_id)",
        ),
        other=with_heads[0] if with_heads else None,
        pictures=pictures,
        target=str(manifest["identity"]["settings"]["target"]),
        chance=frozenset(
            query_column(
                connection,
                _AT_CHANCE.format(
                    classes=max(2, len(manifest["identity"]["model"]["labels"] or []))
                ),
            )
        ),
    )
