-- How far the metrics of `plausibility` would move with other instances of the same kind: 95 %
-- intervals by the bootstrap, one row per method and metric.
--
-- Percentiles over 1000 replicates (`bootstrap_weights`), on the same samples for all methods. The
-- metrics are those whose choice of words needs no corpus: token_f1, token_iou, iou_f1,
-- average_precision and auprc.
--
-- Columns:
--   metric  Name of the column of `plausibility`
--   value   As in `plausibility`
--   low     2.5 % percentile over the replicates
--   high    97.5 % percentile over the replicates
create view plausibility_intervals as
with found as materialized (
    from plausibility_by_instance
),

weights as (
    select
        instance_id,
        unnest(bootstrap_weights(instance_id)) as weight,
        unnest(range(1001)) as replicate
    from (select distinct instance_id from found)
),

sums as (
    select
        f.method,
        w.replicate,
        sum(w.weight) as n,
        sum(w.weight * f.token_f1) / n as token_f1,
        sum(w.weight * f.token_iou) / n as token_iou,
        sum(w.weight * f.iou_precision) / n as iou_precision,
        sum(w.weight * f.iou_recall) / n as iou_recall,
        sum(w.weight * f.average_precision) / n as average_precision,
        sum(w.weight * f.auprc) / n as auprc
    from found as f
    join weights as w using (instance_id)
    where w.weight > 0
    group by all
),

replicates as (
    select
        method,
        replicate,
        token_f1,
        token_iou,
        coalesce(2 * iou_precision * iou_recall / nullif(iou_precision + iou_recall, 0), 0)
            as iou_f1,
        average_precision,
        auprc
    from sums
),

long as (
    unpivot replicates
    on token_f1, token_iou, iou_f1, average_precision, auprc
    into name metric value mean
)

select
    method,
    metric,
    any_value(mean) filter (replicate = 0) as value,
    quantile_cont(mean, 0.025) filter (replicate > 0) as low,
    quantile_cont(mean, 0.975) filter (replicate > 0) as high
from long
group by all
order by method, metric;
