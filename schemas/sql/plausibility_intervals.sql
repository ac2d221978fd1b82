-- How far the metrics of `plausibility` would move with other instances of the same kind: 95 %
-- intervals by the bootstrap, one row per method and metric.
--
-- Percentiles over 1000 replicates (`bootstrap_weights`), on the same samples for all methods. The
-- metrics are those whose choice of words needs no corpus: token_f1, token_iou, iou_f1,
-- average_precision and auprc. Windows of one text, and questions about it, are drawn together.
--
-- What fools them is said in `plausibility`; windows of a text count as instances here.
--
-- Metrics:
--   value  higher is better; 0 to 1
--
-- Columns:
--   metric  Name of the column of `plausibility`
--   value   As in `plausibility`
--   low     2.5 % percentile over the replicates
--   high    97.5 % percentile over the replicates
--   n       Number of instances
--   cut     Number of them that are not a whole text: cut at the model's limit, or windows
--   left_out  Number of instances that some method ranks and that are not among n
create macro plausibility_intervals_over(common := true, methods := null) as table
with every as materialized (
    from plausibility_by_instance
    where methods is null or list_contains(methods, method)
),

ranked as (
    select instance_id, count(*) as by_methods
    from every
    group by instance_id
),

found as (
    select e.*
    from every as e
    join ranked as r using (instance_id)
    where not common or r.by_methods = (select count(distinct method) from every)
),

weights as (
    select
        instance_id,
        bootstrap_weights(coalesce(row_id, instance_id)) as weights
    from instances
    semi join (select distinct instance_id from found) using (instance_id)
),

-- Unnested after the join, so that the join is a small one.
drawn as (
    select
        f.*,
        unnest(w.weights) as weight,
        unnest(range(1001)) as replicate
    from found as f
    join weights as w using (instance_id)
),

sizes as (
    select
        f.method,
        count(*) as n,
        count(*) filter (i.truncated or i."window" is not null) as cut,
        (select count(*) from ranked) - n as left_out
    from found as f
    join instances as i using (instance_id)
    group by f.method
),

sums as (
    select
        method,
        replicate,
        sum(weight) as n,
        sum(weight * token_f1) / n as token_f1,
        sum(weight * token_iou) / n as token_iou,
        sum(weight * iou_precision) / n as iou_precision,
        sum(weight * iou_recall) / n as iou_recall,
        sum(weight * average_precision) / n as average_precision,
        sum(weight * auprc) / n as auprc
    from drawn
    where weight > 0
    group by all
),

replicates as (
    select
        method,
        replicate,
        token_f1,
        token_iou,
        harmonic_mean(iou_precision, iou_recall) as iou_f1,
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
    quantile_cont(mean, 0.975) filter (replicate > 0) as high,
    n,
    cut,
    left_out
from long
join sizes using (method)
group by all
order by method, metric;

create view plausibility_intervals as
from plausibility_intervals_over();
