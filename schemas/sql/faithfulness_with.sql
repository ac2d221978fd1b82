-- Whether a method is more faithful in another run, of another model say, on the same rows of the
-- corpus: a table macro, one row per method of both, operation and metric. Its argument is the name
-- that the other run was given:
--
--   attribeam query OUT --with other=OTHER "from faithfulness_with('other')"
--
-- Differences are paired: of the instances that both runs have curves of, this run's less the
-- other's, with 95 % bootstrap intervals over rows of the corpus (`bootstrap_weights`). Instances
-- are the same by their ids; they may be made of other tokens.
--
-- What fools it: models differ in how sure they are, so that drops of probability differ for all
-- methods alike. See whether `random` differs as much, and whether the order of the methods does.
-- Two models are two: an interval over texts says nothing of other models.
--
-- Its columns are method, protocol, operation, metric (comprehensiveness and aopc: higher is
-- better; sufficiency: lower is better; all from -1 to 1); n, the number of instances; value and
-- other_value, the means of either run; difference, with its interval low to high.
--
-- Metrics:
--   difference  better as its metric in `faithfulness`; -2 to 2
create macro faithfulness_with(other) as table
with theirs as (
    from query(
        'select instance_id, method, protocol, operation, comprehensiveness, sufficiency, aopc '
        || 'from "' || replace(other, '"', '""') || '".faithfulness_by_instance'
    )
),

every as (
    select
        f.method,
        f.protocol,
        f.operation,
        i.row_id,
        unnest([
            {
                'metric': 'comprehensiveness',
                'one': f.comprehensiveness,
                'two': t.comprehensiveness
            },
            {'metric': 'sufficiency', 'one': f.sufficiency, 'two': t.sufficiency},
            {'metric': 'aopc', 'one': f.aopc, 'two': t.aopc}
        ], recursive := true)
    from faithfulness_by_instance as f
    join theirs as t using (instance_id, method, protocol, operation)
    join instances as i using (instance_id)
),

by_row as (
    select
        method,
        protocol,
        operation,
        metric,
        row_id,
        count(*) as n,
        sum(one::double) as one,
        sum(two::double) as two
    from every
    where isfinite(one) and isfinite(two)
    group by all
),

weighed as (
    select
        method,
        protocol,
        operation,
        metric,
        unnest(range(0, 1001)) as replicate,
        unnest(bootstrap_weights(row_id)) as weight,
        n,
        one,
        two
    from by_row
),

replicated as (
    select
        method,
        protocol,
        operation,
        metric,
        replicate,
        sum(weight * n) as total,
        sum(weight * one) / nullif(total, 0) as one,
        sum(weight * two) / nullif(total, 0) as two
    from weighed
    group by all
)

select
    method,
    protocol,
    operation,
    metric,
    max(total) filter (replicate = 0) as n,
    max(one) filter (replicate = 0) as value,
    max(two) filter (replicate = 0) as other_value,
    value - other_value as difference,
    quantile_cont(one - two, 0.025) filter (replicate > 0) as low,
    quantile_cont(one - two, 0.975) filter (replicate > 0) as high
from replicated
group by method, protocol, operation, metric
order by protocol, operation, metric, method;
