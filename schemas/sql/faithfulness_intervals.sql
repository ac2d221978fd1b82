-- How far the means of `faithfulness` would move with other instances of the same kind: 95 %
-- intervals by the bootstrap, one row per method, protocol, operation and metric.
--
-- Percentiles over 1000 replicates (`bootstrap_weights`), in each of which the weighted mean of
-- `faithfulness_by_instance` is computed anew. Methods are compared on the same samples, so that
-- intervals which overlap can still differ surely. A metric whose order was not run has no row. The
-- work is methods x instances x 1000 sums: seconds for 5,000 instances and 20 methods. Windows of
-- one text, and questions about it, are drawn together. Intervals of a few texts are too narrow.
--
-- What fools them: the intervals of two methods may overlap where the difference is sure, since
-- both are of the same texts: ask `faithfulness_differences`. They say nothing of other corpora or
-- models. For the metrics see `faithfulness`.
--
-- Metrics:
--   value  better as its metric in `faithfulness`; as there
--
-- Columns:
--   metric  Name of the column of `faithfulness`
--   value   As in `faithfulness`
--   low     2.5 % percentile over the replicates
--   high    97.5 % percentile over the replicates
--   n       Number of instances
--   left_out  As in `faithfulness`: number of instances that are not compared
create macro faithfulness_intervals_over(common := true, methods := null) as table
with chosen as materialized (
    from compared_curves(common, methods)
),

sizes as (
    select
        method,
        protocol,
        operation,
        count(*) filter (compared) as n,
        any_value(total) - n as left_out
    from chosen
    group by all
),

weights as (
    select
        instance_id,
        bootstrap_weights(coalesce(row_id, instance_id)) as weights
    from instances
    semi join (select distinct instance_id from chosen where compared) using (instance_id)
),

-- Unnested after the join, so that the join is a small one.
drawn as (
    select
        f.*,
        unnest(w.weights) as weight,
        unnest(range(1001)) as replicate
    from faithfulness_by_instance as f
    semi join (from chosen where compared) as k using (instance_id, method, protocol, operation)
    join weights as w using (instance_id)
),

replicates as (
    select
        method,
        protocol,
        operation,
        replicate,
        sum(weight * comprehensiveness) / sum(weight) as comprehensiveness,
        sum(weight * sufficiency) / sum(weight) as sufficiency,
        sum(weight * aopc) / sum(weight) as aopc,
        sum(weight * log_odds) / sum(weight) as log_odds,
        sum(weight * auc_morf) / sum(weight) as auc_morf,
        sum(weight * auc_lerf) / sum(weight) as auc_lerf,
        sum(weight * auc_difference) / sum(weight) as auc_difference,
        sum(weight * decision_flip_fraction) / sum(weight) as decision_flip_fraction
    from drawn
    where weight > 0
    group by all
),

long as (
    unpivot replicates
    on comprehensiveness, sufficiency, aopc, log_odds, auc_morf, auc_lerf, auc_difference,
        decision_flip_fraction
    into name metric value mean
)

select
    method,
    protocol,
    operation,
    metric,
    any_value(mean) filter (replicate = 0) as value,
    quantile_cont(mean, 0.025) filter (replicate > 0) as low,
    quantile_cont(mean, 0.975) filter (replicate > 0) as high,
    n,
    left_out
from long
join sizes using (method, protocol, operation)
group by all
order by method, protocol, operation, metric;

create view faithfulness_intervals as
from faithfulness_intervals_over();
