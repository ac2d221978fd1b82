"""What must hold between the rows of a run, each as a query that finds where it does not.

A query gives one row: how many break the rule, and the smallest of them by name. The counting is
DuckDB's, which spills to disk, so that a run larger than memory can be checked.
"""

from typing import NamedTuple


class Check(NamedTuple):
    """A rule: what is said with ``{count}`` and ``{example}`` where it is broken, and the query."""

    problem: str
    sql: str


# What the curves of an instance under a method amount to. The points are counted and their hashes
# combined, which together differ wherever one is missing, doubled or not on the grid, without a
# table of all points in memory.
CURVE_KEYS = """
create temp table curve_keys as
select
    instance_id,
    method,
    count(*) as points,
    bit_xor(hash(protocol, "order", operation, round(fraction, 9))) as grid
from curves
group by all
"""

# Of the tables that methods fill beside their scores, those that have each layer of the model once
# for an instance, and all those that have rows for every instance.
BY_LAYER = ("layers", "information", "interactions")
DENSE = (*BY_LAYER, "heads", "tree_nodes", "pattern_ablation")

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
# protocol `compat`, which runs every order at the same.
GRID = """
create temp table grid as
select
    protocol,
    "order",
    operation,
    case when "order" = 'lerf' and protocol <> 'compat' then 1 - fraction else fraction end
        as fraction
from (select ?::varchar as protocol)
cross join (select unnest(?::varchar[]) as "order")
cross join (select unnest(?::varchar[]) as operation)
cross join (select unnest(?::double[]) as fraction)
"""

_INSTANCES = (
    Check(
        "instances: {count} ids occur more than once, such as {example}",
        """
        select count(*), min(instance_id)
        from (select instance_id from instances group by all having count(*) > 1)
        """,
    ),
    Check(
        "instances: {count} have lists of different lengths, such as {example}",
        """
        select count(*), min(instance_id)
        from instances
        where input_ids is null
            or len(coalesce(tokens, input_ids::varchar[])) <> len(input_ids)
            or len(coalesce(word_ids, input_ids)) <> len(input_ids)
            or len(coalesce(char_start, input_ids)) <> len(input_ids)
            or len(coalesce(char_end, input_ids)) <> len(input_ids)
            or len(coalesce(special, input_ids::boolean[])) <> len(input_ids)
            or len(coalesce(segment::int[], input_ids)) <> len(input_ids)
            or len(coalesce(rationale::int[], input_ids)) <> len(input_ids)
            or len(coalesce(roles, input_ids::varchar[])) <> len(input_ids)
        """,
    ),
    Check(
        "instances: {count} have logits or probabilities that are no finite numbers, "
        "such as {example}",
        """
        select count(*), min(instance_id)
        from instances
        where not coalesce(isfinite(list_sum(logits)) and isfinite(list_sum(probabilities)), false)
            or list_count(logits) <> len(logits)
            or list_count(probabilities) <> len(probabilities)
        """,
    ),
    Check(
        "instances: the probabilities of {count} do not sum to 1, such as those of {example}",
        """
        select count(*), min(instance_id)
        from instances
        where abs(list_sum(probabilities) - 1) > 1e-3
        """,
    ),
    Check(
        "instances: the prediction of {count} is not the largest logit, such as that of {example}",
        """
        select count(*), min(instance_id)
        from instances
        where not coalesce(logits[prediction + 1] = list_max(logits), false)
        """,
    ),
    Check(
        "instances: {count} have also failed before they were one, such as {example}",
        """
        select count(*), min(instance_id)
        from instances
        semi join (from failures where method is null) using (instance_id)
        """,
    ),
)

_ATTRIBUTIONS = (
    Check(
        "attributions: {count} occur more than once, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from (
            select instance_id, method
            from attributions
            group by instance_id, method, target, layer
            having count(*) > 1
        )
        """,
    ),
    Check(
        "attributions: {count} belong to no instance, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from attributions
        anti join instances using (instance_id)
        """,
    ),
    Check(
        "attributions: {count} have not one score per token, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from attributions
        join instances using (instance_id)
        where coalesce(len(scores), -1) <> len(input_ids)
        """,
    ),
    Check(
        "attributions: {count} have scores that are no finite numbers, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from attributions
        where not isfinite(list_sum(scores)) or list_count(scores) <> len(scores)
        """,
    ),
    Check(
        "attributions: {count} have a completeness gap that is no finite number, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from attributions
        where not isfinite(delta)
        """,
    ),
    Check(
        "attributions: {count} have a scale or bias that is no finite number, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from attributions
        where not isfinite(scale) or not isfinite(bias)
        """,
    ),
    Check(
        "attributions: {count} of additive methods have no completeness gap, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from attributions
        join methods using (method)
        where additive and delta is null
        """,
    ),
    Check(
        "attributions: {count} cost a time that is no finite number from 0, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from attributions
        where not (isfinite(seconds) and seconds >= 0)
        """,
    ),
    Check(
        "attributions: {count} have also failed, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from attributions
        semi join (from failures where stage = 'attribute') using (instance_id, method)
        -- With other tables, which can be added later, it may be they that failed.
        anti join (select distinct method from detail_keys) using (method)
        """,
    ),
)

_LAYERS = (
    Check(
        "layers: {count} have not one number per token, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from layers
        join instances using (instance_id)
        where coalesce(len(local), -1) <> len(input_ids)
            or coalesce(len(rollout), -1) <> len(input_ids)
            or len(coalesce(mixing, rollout)) <> len(input_ids)
        """,
    ),
    Check(
        "layers: {count} have values that are no finite numbers, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from layers
        where not coalesce(isfinite(list_sum(local)) and isfinite(list_sum(rollout)), false)
            or not coalesce(isfinite(scale), false)
            or not isfinite(list_sum(mixing))
            or list_count(local) <> len(local)
            or list_count(rollout) <> len(rollout)
            or list_count(mixing) <> len(mixing)
        """,
    ),
    Check(
        "layers: the rollout of {count} does not sum to 1, such as that of {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from layers
        where abs(list_sum(rollout) - 1) > 1e-3
        """,
    ),
    Check(
        "layers: {count} have context-mixing ratios outside 0 to 1, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from layers
        where list_min(mixing) < -1e-6 or list_max(mixing) > 1 + 1e-6
        """,
    ),
)

_INFORMATION = (
    Check(
        "information: {count} have not one number per token, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from information
        join instances using (instance_id)
        where coalesce(len(bits), -1) <> len(input_ids)
        """,
    ),
    Check(
        "information: {count} have bits that are no finite numbers from 0, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from information
        where not coalesce(isfinite(list_sum(bits)) and list_min(bits) > -1e-3, false)
            or list_count(bits) <> len(bits)
        """,
    ),
)


_HEADS = (
    Check(
        "heads: {count} have not each head once, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from (
            select instance_id, method
            from heads
            group by all
            having count(*) <> count(distinct (layer, head))
                or count(*) <> (select max(rows) from detail_keys where name = 'heads')
        )
        """,
    ),
    Check(
        "heads: {count} have values that are no finite numbers, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from heads
        where not coalesce(
            isfinite(attr_max + attr_sum + attr_positive + attr_negative)
            and isfinite(attention_mean + attention_max + taylor_loss + taylor_logits),
            false
        )
        """,
    ),
    Check(
        "interactions: {count} have lists of different lengths, or pairs outside the text, "
        "such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from interactions
        join instances using (instance_id)
        where len(query) is distinct from len(key)
            or len(query) is distinct from len(attr)
            or len(query) is distinct from len(prop)
            or list_min(query || key) < 0
            or list_max(query || key) >= len(input_ids)
        """,
    ),
    Check(
        "interactions: {count} have values that are no finite numbers, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from interactions
        where not coalesce(isfinite(output + without + gap + mass_dropped), false)
            or not isfinite(list_sum(attr)) or list_count(attr) <> len(attr)
            or not isfinite(list_sum(prop)) or list_count(prop) <> len(prop)
        """,
    ),
    Check(
        "interactions: in {count} the heads do not sum to the change of the output, "
        "such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from interactions
        join (
            select instance_id, method, layer, sum(attr_sum::double) as total
            from heads
            group by all
        ) using (instance_id, method, layer)
        where abs(total - (output - without)) > gap + 1e-4 * (1 + abs(output) + abs(without))
        """,
    ),
    Check(
        "tree_edges: {count} tokens have two parents, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from (
            select instance_id, method
            from tree_edges
            join instances using (instance_id)
            where parent <> readout
            group by instance_id, method, algorithm, child
            having count(*) > 1
        )
        """,
    ),
    Check(
        "tree_edges: {count} belong to no tree, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from tree_edges
        anti join (from tree_nodes where depth is not null) as n
            on n.instance_id = tree_edges.instance_id
            and n.method = tree_edges.method
            and n.algorithm = tree_edges.algorithm
            and n.token = tree_edges.child
        """,
    ),
    Check(
        "tree_nodes: {count} have not one row per token, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from (
            select instance_id, method
            from tree_nodes
            join instances using (instance_id)
            group by instance_id, method, algorithm, input_ids
            having count(*) <> len(input_ids) or count(distinct token) <> len(input_ids)
        )
        """,
    ),
)


_PATTERNS = (
    Check(
        "patterns: {count} belong to no attribution, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from patterns
        anti join attributions using (instance_id, method)
        """,
    ),
    Check(
        "patterns: {count} occur more than once, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from (
            select instance_id, method
            from patterns
            group by instance_id, method, level, source
            having count(*) > 1
        )
        """,
    ),
    Check(
        "patterns: {count} are no path from their token to the readout, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from patterns
        join instances using (instance_id)
        cross join (select model_num_layers as depth from run)
        where len(nodes) is distinct from depth + 1
            or len(patterns.roles) is distinct from depth + 1
            or nodes[1] is distinct from source
            or nodes[-1] is distinct from readout
            or list_min(nodes) < 0
            or list_max(nodes) >= len(input_ids)
            or (heads is null) is distinct from (level = 'embedding')
            or len(heads) <> depth
        """,
    ),
    Check(
        "patterns: {count} have influences that are no finite numbers, or of another sign than "
        "their token's, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from patterns
        where not coalesce(isfinite(influence + input_influence), false)
            or not isfinite(list_sum(steps)) or list_count(steps) <> len(steps)
            or not coalesce(isfinite(concentration), true)
            or influence * input_influence < 0
        """,
    ),
)


_ABLATION = (
    Check(
        "pattern_ablation: {count} kinds occur more than once, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from (
            select instance_id, method
            from pattern_ablation
            group by instance_id, method, kind
            having count(*) > 1
        )
        """,
    ),
    Check(
        "pattern_ablation: {count} outputs are no finite numbers, or not what is correct, "
        "such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from pattern_ablation
        where not coalesce(isfinite(output), false) or (output > 0) is distinct from correct
        """,
    ),
)


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

_CURVES = (
    Check(
        "curves: {count} have not the points that run.json asks for, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from curve_keys
        cross join (
            select
                count(*) as points,
                bit_xor(hash(protocol, "order", operation, round(fraction, 9))) as grid
            from grid
        ) as expected
        where curve_keys.points <> expected.points or curve_keys.grid <> expected.grid
        """,
    ),
    Check(
        "curves: {count} points have values that are no finite numbers, or no probability, "
        "such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from curves
        where not coalesce(isfinite(logit) and probability between -1e-6 and 1 + 1e-6, false)
        """,
    ),
    Check(
        "curves: {count} points remove nothing where they should or something where they should "
        "not, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from curves
        where removed < 0 or (fraction = 0 and removed > 0) or (fraction = 1 and removed = 0)
        """,
    ),
    Check(
        "curves: {count} belong to no attribution, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from curve_keys
        anti join attributions using (instance_id, method)
        """,
    ),
    Check(
        "curves: {count} have also failed, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from curve_keys
        semi join (from failures where stage = 'perturb') using (instance_id, method)
        """,
    ),
)

_FAILURES = (
    Check(
        "failures: {count} occur more than once, such as that of {example}",
        """
        select count(*), min(instance_id)
        from (
            select instance_id
            from failures
            group by instance_id, stage, method
            having count(*) > 1
        )
        """,
    ),
    Check(
        "failures: {count} have a stage or method that can't be, such as that of {example}",
        """
        select count(*), min(instance_id)
        from failures
        where case
            when method is null then stage not in ('read', 'encode', 'forward')
            else stage not in ('attribute', 'perturb')
                or method not in (select method from methods)
        end
        """,
    ),
)

_EVALUATIONS = (
    Check(
        "pruning: {count} rows contradict themselves, such as one of {example}",
        """
        select count(*), min(evaluation)
        from pruning
        where not coalesce(
            correct between 0 and n
            and abs(accuracy - correct / n) < 1e-9
            and isfinite(loss) and loss >= 0
            and rate between 0 and 1
            and pruned between rate * heads - 1 and rate * heads + 1e-6
            and (importance = 'random') = (seed is not null),
            false
        )
        """,
    ),
    Check(
        "pruning: {count} rows occur more than once, such as one of {example}",
        """
        select count(*), min(evaluation)
        from (
            select evaluation
            from pruning
            group by evaluation, importance, seed, rate
            having count(*) > 1
        )
        """,
    ),
    Check(
        "attacks: {count} rows contradict themselves, such as one of {example}",
        """
        select count(*), min(evaluation)
        from attacks
        where not coalesce(
            flipped between 0 and correct_before
            and correct_before <= n
            and correct_after between correct_before - flipped and n - flipped
            and skipped >= 0
            and len(relative) = len(tokens) and len(segment) = len(tokens)
            and list_min(relative) > 0 and list_max(relative) <= 1,
            false
        )
        """,
    ),
)

CHECKS = (
    *_INSTANCES,
    *_ATTRIBUTIONS,
    *_LAYERS,
    *_INFORMATION,
    *_HEADS,
    *_PATTERNS,
    *_ABLATION,
    *_DETAILS,
    *_CURVES,
    *_FAILURES,
    *_EVALUATIONS,
)

# A row per method: what became of the instances. A failure of the stage `attribute` is one of the
# method's other tables where the instance is attributed. `detailed` are the instances that have
# rows in all of these.
ACCOUNTS = """
select
    m.method,
    (select count(*) from instances) as instances,
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

# The instances of which nothing is known under a method, given as the parameter.
UNACCOUNTED = """
select count(*), min(instance_id)
from instances
anti join (from attributed where method = $method) using (instance_id)
anti join (from failures where method = $method and stage = 'attribute') using (instance_id)
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
