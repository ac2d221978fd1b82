-- How far the metrics of `segmentation` would move with other pictures of the same kind: 95 %
-- intervals by the bootstrap, one row per method and metric.
--
-- Percentiles over 1000 replicates (`bootstrap_weights`), on the same samples for all methods; in
-- each, counts are pooled and means taken anew. Questions about one picture are drawn together.
--
-- What fools them is said in `segmentation`.
--
-- Metrics:
--   value  higher is better; 0 to 1
--
-- Columns:
--   metric  Name of the column of `segmentation`
--   value   As in `segmentation`
--   low     2.5 % percentile over the replicates
--   high    97.5 % percentile over the replicates
--   n       Number of instances
--   left_out  As in `segmentation`: number of instances that are not compared
create macro localisation_intervals_over(common := true, methods := null) as table
with every as materialized (
    from localisation
    where methods is null or list_contains(methods, method)
),

explained as (
    select instance_id, count(*) as by_methods
    from every
    group by instance_id
),

found as materialized (
    select every.*
    from every
    join explained using (instance_id)
    where not common or by_methods = (select count(distinct method) from every)
),

weights as (
    select instance_id, bootstrap_weights(coalesce(row_id, instance_id)) as weights
    from instances
    semi join (select distinct instance_id from found) using (instance_id)
),

-- Unnested after the join, so that the join is a small one.
drawn as (
    select
        found.*,
        unnest(weights) as weight,
        unnest(range(1001)) as replicate
    from found
    join weights using (instance_id)
),

replicates as (
    select
        method,
        replicate,
        sum(weight * (tp + tn)) / sum(weight * (tp + fp + fn + tn)) as pixel_accuracy,
        sum(weight * tp) / nullif(sum(weight * (tp + fp + fn)), 0) as iou,
        sum(weight * tn) / nullif(sum(weight * (tn + fp + fn)), 0) as iou_background,
        (iou + iou_background) / 2 as miou,
        sum(weight * average_precision) / sum(weight) filter (not empty_mask)
            as average_precision,
        sum(weight * f1) / sum(weight) filter (not empty_mask) as f1,
        sum(weight * f1_rows) / sum(weight) filter (not empty_mask) as f1_rows,
        sum(weight * hit::int) / sum(weight) filter (not empty_mask) as pointing,
        sum(weight * mass_inside) / sum(weight) filter (mass_inside is not null) as mass_inside,
        sum(weight * rank_accuracy) / sum(weight) filter (not empty_mask) as rank_accuracy
    from drawn
    where weight > 0
    group by all
),

long as (
    unpivot replicates
    on pixel_accuracy, iou, iou_background, miou, average_precision, f1, f1_rows, pointing,
        mass_inside, rank_accuracy
    into name metric value mean
),

sizes as (
    select method, count(*) as n, (select count(*) from explained) - n as left_out
    from found
    group by method
)

select
    method,
    metric,
    any_value(mean) filter (replicate = 0) as value,
    quantile_cont(mean, 0.025) filter (replicate > 0) as low,
    quantile_cont(mean, 0.975) filter (replicate > 0) as high,
    n,
    left_out
from long
join sizes using (method)
group by all
order by method, metric;

create view localisation_intervals as
from localisation_intervals_over();
