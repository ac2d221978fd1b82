"""What must hold between the rows of a run, each as a query that finds where it does not.

A query gives one row: how many break the rule, and the smallest of them by name. The counting is
DuckDB's, which spills to disk, so that a run larger than memory can be checked.
"""

from attribeam.analysis.verifying.check_rules import CHECKED
from attribeam.analysis.verifying.detail_rules import ABLATION, HEADS, INFORMATION, LAYERS, PATTERNS
from attribeam.analysis.verifying.rules import (
    ATTRIBUTIONS,
    CURVES,
    EVALUATIONS,
    FAILURES,
    INSTANCES,
    LOCALISATION,
    WINDOWS,
    Check,
)

# What the curves of an instance under a method amount to. The points are counted and their hashes
# combined, which together differ wherever one is missing, doubled or not on the grid, without a
# table of all points in memory.
CURVE_KEYS = """
create temp table curve_keys as
select
    instance_id,
    method,
    max(units) as units,
    count(*) as points,
    any_value(protocol) as protocol,
    bit_xor(hash(protocol, "order", operation, round(fraction, 9))) as grid
from curves
group by all
"""

# Of the tables that methods fill beside their scores, those that have each layer of the model once
# for an instance, and all those that have rows for every instance.
BY_LAYER = ("layers", "information", "interactions")
DENSE = (*BY_LAYER, "heads", "tree_nodes", "pattern_ablation", "masks")

# The rows that there are of an instance under a method in a table, and their layers.
DETAIL_KEYS = "create temp table detail_keys as " + " union all ".join(
    f"""
    select
        '{table}' as name,
        instance_id,
        method,
        count(*) as rows,
        {"list_sort(list(layer))" if table in BY_LAYER else "null::int[]"} as layers
    from {table}
    group by all
    """
    for table in DENSE
)

# The instances that are in all of these tables that a method fills.
DETAILED = f"""
create temp table detailed as
select instance_id, method
from detail_keys
join methods using (method)
group by instance_id, method, tables
having count(distinct name) = len(list_intersect(tables, {list(DENSE)}))
"""

# The instances that have a method's scores, or, of a method without scores, its other rows.
ATTRIBUTED = """
create temp table attributed as
select distinct instance_id, method
from attributions
union
select instance_id, method
from detailed
join methods using (method)
where not list_contains(tables, 'attributions')
"""

# `grid`: the points that the evaluation of run.json asks for. LeRF has those at 1 - f, but for the
# protocols of authors, `compat` and `pixel`, which run every order at the same. Where units
# are removed one by one, there are further points, which depend on how many there are.
GRID = """
create temp table grid as
select
    protocol,
    "order",
    operation,
    units,
    case
        when "order" = 'lerf' and units is null and protocol not in ('compat', 'pixel')
            then 1 - fraction
        else fraction
    end as fraction
from (select unnest(?::varchar[]) as protocol)
cross join (select unnest(?::varchar[]) as "order")
cross join (select unnest(?::varchar[]) as operation)
cross join (
    select
        null as units,
        unnest(?::double[]) as fraction
    union all
    select
        units,
        unnest(range(1, units)) / units as fraction
    from (select distinct units from curve_keys where ?)
)
-- Of pairs, each side has the operations that there are for it.
where (protocol in ('patch', 'pixel')) = (operation in ('mean', 'black', 'drop'))
"""


def _detail_checks(table: str) -> tuple[Check, ...]:
    """What holds in every table that methods fill beside their scores, if it is a dense one."""
    layers = Check(
        table + ": {count} have not each layer of the model once, such as {example}",
        f"""
        select count(*), min(instance_id || ' under ' || method)
        from detail_keys
        cross join (select range(model_num_layers)::int[] as expected from run)
        where name = '{table}' and layers is distinct from expected
        """,
    )
    orphans = Check(
        table + ": {count} belong to no attribution, such as {example}",
        f"""
        select count(*), min(instance_id || ' under ' || method)
        from (from detail_keys where name = '{table}')
        anti join attributed using (instance_id, method)
        """,
    )
    failed = Check(
        table + ": {count} have also failed, such as {example}",
        f"""
        select count(*), min(instance_id || ' under ' || method)
        from (from detail_keys where name = '{table}')
        semi join (from failures where stage = 'attribute') using (instance_id, method)
        """,
    )
    return *((layers,) if table in BY_LAYER else ()), orphans, failed


_DETAILS = tuple(check for table in DENSE for check in _detail_checks(table))

CHECKS = (
    *INSTANCES,
    *WINDOWS,
    *ATTRIBUTIONS,
    *LAYERS,
    *INFORMATION,
    *HEADS,
    *PATTERNS,
    *ABLATION,
    *_DETAILS,
    *LOCALISATION,
    *CURVES,
    *FAILURES,
    *EVALUATIONS,
    *CHECKED,
)

# A row per method: what became of the instances. A failure of the stage `attribute` is one of the
# method's other tables where the instance is attributed. `detailed` are the instances that have
# rows in all of these.
ACCOUNTS = """
select
    m.method,
    (
        select count(*)
        from instances
        where question_kind is distinct from 'all' or not_of_all is null
    ) as instances,
    coalesce(a.n, 0) as attributed,
    coalesce(f.failed, 0) as failed,
    coalesce(c.n, 0) as evaluated,
    coalesce(f.unperturbed, 0) as not_evaluated,
    coalesce(d.n, 0) as detailed,
    coalesce(f.undetailed, 0) as not_detailed,
    g.median_gap,
    g.median_relative_gap
from methods as m
left join (select method, count(*) as n from attributed group by method) as a using (method)
left join (select method, count(*) as n from curve_keys group by method) as c using (method)
left join (select method, count(*) as n from detailed group by method) as d using (method)
left join (
    select
        method,
        count(*) filter (stage = 'attribute' and not attributed) as failed,
        count(*) filter (stage = 'attribute' and attributed) as undetailed,
        count(*) filter (stage = 'perturb') as unperturbed
    from (
        select
            method,
            stage,
            (instance_id, method) in (select (instance_id, method) from attributed) as attributed
        from failures
        where method is not null
    )
    group by method
) as f using (method)
left join completeness as g using (method)
order by m.method
"""

# Rows of the corpus: those of which there is an instance, those of which there is none, and the
# windows that failed of the former.
ROWS = """
select
    (select count(*) from instances) as instances,
    (select count(distinct row_id) from instances) as attributed,
    count(distinct row_id) filter (row_id not in (select row_id from instances)) as failed,
    count(*) filter (row_id in (select row_id from instances)) as lost_windows
from failures
where method is null
"""

# The instances of which nothing is known under a method, given as the parameter.
UNACCOUNTED = """
select count(*), min(instance_id)
from instances
anti join (from attributed where method = $method) using (instance_id)
anti join (from failures where method = $method and stage = 'attribute') using (instance_id)
where question_kind is distinct from 'all'
    or (select not_of_all from methods where method = $method) is null
"""
UNDETAILED = """
select count(*), min(instance_id)
from (select distinct instance_id from attributions where method = $method)
anti join (from detailed where method = $method) using (instance_id)
anti join (from failures where method = $method and stage = 'attribute') using (instance_id)
"""
UNEVALUATED = """
select count(*), min(instance_id)
from (select distinct instance_id from attributions where method = $method)
anti join (from curve_keys where method = $method) using (instance_id)
anti join (from failures where method = $method and stage = 'perturb') using (instance_id)
"""
