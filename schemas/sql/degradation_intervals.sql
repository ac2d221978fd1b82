-- How far `degradation` would move with other instances of the same kind: 95 % intervals by the
-- bootstrap, one row per method, protocol and operation.
--
-- Percentiles over 1000 replicates. In each, every instance counts as often as a Poisson(1)
-- variable says, which is what drawing n of n with replacement comes to for large n, and
--
--   degradation = sum w (area under LeRF - area under MoRF) / sum w (p(0) - p(1))
--
-- is computed anew, its normalisation included. The counts are those of `bootstrap_weights`, the
-- same for all methods, which are therefore compared on the same samples.
--
-- The work is methods x instances x 1000 sums: seconds for 5,000 instances and 20 methods.
-- Windows of one text, and questions about it, are drawn together. Intervals of a few texts are too
-- narrow; where top and bottom hardly differ, they have no bounds.
--
-- What fools it is said in `degradation`; an interval over texts says nothing of other corpora or
-- models.
--
-- Metrics:
--   degradation  higher is better; any size, mostly -1 to 1
--
-- Columns:
--   degradation  As in the view `degradation`
--   low          2.5 % percentile over the replicates
--   high         97.5 % percentile over the replicates
--   n            Number of instances
--   left_out     As in `faithfulness`: number of instances that are not compared
create macro degradation_intervals_over(common := true, methods := null) as table
with chosen as materialized (
    from compared_curves(common, methods)
),

areas as (
    select
        instance_id,
        method,
        protocol,
        operation,
        list_sort(list(removed + probability / 2::double) filter ("order" = 'lerf')) as lerf,
        list_sort(list(removed + probability / 2::double) filter ("order" = 'morf')) as morf,
        area_under_curve(lerf, max(units)) - area_under_curve(morf, max(units)) as area,
        avg(probability) filter (fraction = 0) - avg(probability) filter (fraction = 1) as span
    from curves
    anti join (from chosen where compared is not true) as k
        using (instance_id, method, protocol, operation)
    where methods is null or list_contains(methods, method)
    group by all
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
        areas.*,
        unnest(weights) as weight,
        unnest(range(1001)) as replicate
    from areas
    join weights using (instance_id)
),

replicates as (
    select
        method,
        protocol,
        operation,
        replicate,
        sum(weight * area) as area,
        sum(weight * span) as span
    from drawn
    where weight > 0
    group by all
),

scores as (
    select
        * exclude (area, span),
        case when abs(span) > 1e-12 then area / span end as score
    from replicates
)

select
    method,
    protocol,
    operation,
    any_value(score) filter (replicate = 0) as degradation,
    quantile_cont(score, 0.025) filter (replicate > 0) as low,
    quantile_cont(score, 0.975) filter (replicate > 0) as high,
    n,
    left_out
from sizes
left join scores using (method, protocol, operation)
group by all
order by method, protocol, operation;

create view degradation_intervals as
from degradation_intervals_over();
