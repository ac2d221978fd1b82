"""Whether the order of the methods survives another operation, another end, another model."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import duckdb

from attribeam.analysis.comparing import orders_with
from attribeam.analysis.report.values import finite, query_rows

# By text first, then by what the bootstrap draws: the order of the methods' means each time.
_SCORES = """\
with scores as (
    select
        f.method,
        f.protocol,
        f.operation,
        i.row_id as of_text,
        {scores}
    from faithfulness_by_instance as f
    semi join (from compared_curves(true, null) where compared)
        using (instance_id, method, protocol, operation)
    join instances as i using (instance_id)
    where f.method <> 'random' and {known}
    group by all
),
weighed as (
    select
        * exclude (of_text),
        unnest(range(0, 1001)) as replicate,
        unnest(bootstrap_weights(of_text)) as weight
    from scores
),
means as (
    select
        method,
        protocol,
        operation,
        replicate,
        {means}
    from weighed
    group by all
),
"""
_OPERATIONS = (
    _SCORES.format(
        scores="avg(f.auc_difference) as score",
        known="f.auc_difference is not null",
        means="sum(weight * score) / nullif(sum(weight), 0) as mean",
    )
    + """\
orders as (
    select
        a.protocol,
        a.operation as one,
        b.operation as other,
        replicate,
        count(*) as methods,
        kendall_tau(list(a.mean order by method), list(b.mean order by method)) as kendall
    from means as a
    join means as b using (method, protocol, replicate)
    where a.operation < b.operation
    group by all
)
select
    protocol,
    one,
    other,
    max(methods) as methods,
    max(kendall) filter (replicate = 0) as kendall,
    quantile_cont(kendall, 0.025) filter (replicate > 0) as low,
    quantile_cont(kendall, 0.975) filter (replicate > 0) as high
from orders
group by protocol, one, other
having max(methods) > 2
order by protocol, one, other"""
)
# As the view `ranking_agreement`, without random scores, which make it high.
_ENDS = (
    _SCORES.format(
        scores="-avg(f.auc_morf) as most_first,\n        avg(f.auc_lerf) as least_first",
        known="f.auc_morf is not null and f.auc_lerf is not null",
        means="sum(weight * most_first) / nullif(sum(weight), 0) as most,\n"
        "        sum(weight * least_first) / nullif(sum(weight), 0) as least",
    )
    + """\
orders as (
    select
        protocol,
        operation,
        replicate,
        count(*) as methods,
        kendall_tau(list(most order by method), list(least order by method)) as kendall
    from means
    group by all
)
select
    protocol,
    operation,
    max(methods) as methods,
    max(kendall) filter (replicate = 0) as kendall,
    quantile_cont(kendall, 0.025) filter (replicate > 0) as low,
    quantile_cont(kendall, 0.975) filter (replicate > 0) as high
from orders
group by protocol, operation
having max(methods) > 2
order by protocol, operation"""
)


class Survival(NamedTuple):
    """Kendall's tau b between two orders of the methods.

    Attributes:
        what: Which two.
        methods: Number of methods.
        kendall: -1 to 1.
        interval: Its 95 % interval over texts, or nothing.
        sql: What gives it.
    """

    what: str
    methods: int
    kendall: float
    interval: str
    sql: str


def survivals(connection: duckdb.DuckDBPyConnection, others: Sequence[str]) -> list[Survival]:
    """All pairs of orders that there are.

    Args:
        connection: The run, with the others by their names.
        others: Names of the other runs.
    """
    found = []
    for row in query_rows(connection, _OPERATIONS):
        if (tau := finite(row["kendall"])) is not None:
            what = f"by {row['one']} and by {row['other']}" + _of(row["protocol"])
            found.append(Survival(what, row["methods"], tau, _interval(row), _OPERATIONS))
    for row in query_rows(connection, _ENDS):
        if (tau := finite(row["kendall"])) is not None:
            what = f"most and least relevant first, by {row['operation']}" + _of(row["protocol"])
            found.append(Survival(what, row["methods"], tau, _interval(row), _ENDS))
    for other in others:
        sql = _between(other)
        for row in query_rows(connection, sql):
            if (tau := finite(row["kendall"])) is not None:
                what = f"here and in {other}, {row['metric']} by {row['operation']}"
                found.append(Survival(what + _of(row["protocol"]), row["methods"], tau, "", sql))
    return found


def _interval(row: Mapping[str, Any]) -> str:
    low, high = finite(row["low"]), finite(row["high"])
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def _of(protocol: str) -> str:
    return "" if protocol == "token" else f" ({protocol})"


def _between(other: str) -> str:
    """The order in another run, of the texts that both have."""
    return f"{orders_with(other)}\nhaving count(*) > 2\norder by all"
