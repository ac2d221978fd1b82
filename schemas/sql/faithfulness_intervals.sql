-- How far the means of `faithfulness` would move with other instances of the same kind: 95 %
-- intervals by the bootstrap, one row per method, protocol, operation and metric.
--
-- Percentiles over 1000 replicates (`bootstrap_weights`), in each of which the weighted mean of
-- `faithfulness_by_instance` is computed anew. Methods are compared on the same samples, so that
-- intervals which overlap can still differ surely. A metric whose order was not run has no row. The
-- work is methods x instances x 1000 sums: seconds for 5,000 instances and 20 methods. Intervals of
-- a few instances are too narrow.
--
-- Columns:
--   metric  Name of the column of `faithfulness`
--   value   As in `faithfulness`
--   low     2.5 % percentile over the replicates
--   high    97.5 % percentile over the replicates
create view faithfulness_intervals as
with weights as (
    select
        instance_id,
        unnest(bootstrap_weights(instance_id)) as weight,
        unnest(range(1001)) as replicate
    from (select distinct instance_id from curves)
),

-- A metric is there for all instances of a group or, where its order was not run, for none.
replicates as (
    select
        f.method,
        f.protocol,
        f.operation,
        w.replicate,
        sum(w.weight * f.comprehensiveness) / sum(w.weight) as comprehensiveness,
        sum(w.weight * f.sufficiency) / sum(w.weight) as sufficiency,
        sum(w.weight * f.aopc) / sum(w.weight) as aopc,
        sum(w.weight * f.log_odds) / sum(w.weight) as log_odds,
        sum(w.weight * f.auc_morf) / sum(w.weight) as auc_morf,
        sum(w.weight * f.auc_lerf) / sum(w.weight) as auc_lerf,
        sum(w.weight * f.auc_difference) / sum(w.weight) as auc_difference,
        sum(w.weight * f.decision_flip_fraction) / sum(w.weight) as decision_flip_fraction
    from faithfulness_by_instance as f
    join weights as w using (instance_id)
    where w.weight > 0
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
    quantile_cont(mean, 0.975) filter (replicate > 0) as high
from long
group by all
order by method, protocol, operation, metric;
