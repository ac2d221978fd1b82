-- How far `degradation` would move with other instances of the same kind: 95 % intervals by the
-- bootstrap, one row per method, protocol and operation.
--
-- Percentiles over 1000 replicates. In each, every instance counts as often as a Poisson(1)
-- variable says, which is what drawing n of n with replacement comes to for large n, and
--
--   degradation = sum w (area under LeRF - area under MoRF) / sum w (p(0) - p(1))
--
-- is computed anew, its normalisation included. The counts are functions of the instance's id and
-- the replicate alone: the same for all methods, which are therefore compared on the same samples,
-- and the same whenever and wherever they are computed. In replicate r, instance i has the count
-- that belongs to the uniform (s_i + r t_i mod P) / P, P = 2^31 - 1, with s_i and t_i from the MD5
-- of its id. Any two replicates are then independent of each other, and more is not needed for the
-- percentiles to be as exact as those of wholly independent ones.
--
-- The work is methods x instances x 1000 sums: seconds for 5,000 instances and 20 methods.
-- Intervals of a few instances are too narrow; where top and bottom hardly differ, they have no
-- bounds.
--
-- Columns:
--   degradation  As in the view `degradation`
--   low          2.5 % percentile over the replicates
--   high         97.5 % percentile over the replicates
create view degradation_intervals as
with areas as (
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
    group by all
),

seeds as (
    select
        instance_id,
        (md5_number(instance_id) % 2147483647)::bigint as start,
        ((md5_number(instance_id) >> 64) % 2147483647)::bigint as step
    from (select distinct instance_id from curves)
),

uniforms as (
    select
        instance_id,
        replicate,
        (start + replicate * step) % 2147483647 / 2147483647 as u
    from seeds
    cross join (select unnest(range(1001)) as replicate)
),

-- Replicate 0 is the sample itself.
weights as (
    select
        instance_id,
        replicate,
        case
            when replicate = 0 or u between 0.36787944117144233 and 0.73575888234288464 then 1
            when u < 0.36787944117144233 then 0
            when u < 0.91969860292860584 then 2
            when u < 0.98101184312384619 then 3
            when u < 0.99634015317265633 then 4
            when u < 0.99940581518241839 then 5
            when u < 0.99991675885071196 then 6
            when u < 0.99998975080332535 then 7
            when u < 0.99999887479740203 then 8
            else 9
        end as weight
    from uniforms
    where weight > 0
),

replicates as (
    select
        method,
        protocol,
        operation,
        replicate,
        sum(weight * area) as area,
        sum(weight * span) as span
    from areas
    join weights using (instance_id)
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
    quantile_cont(score, 0.975) filter (replicate > 0) as high
from scores
group by all
order by method, protocol, operation;
