-- How well an additive method adds up: one row per method that has a completeness gap.
--
-- The gap is delta = sum of scores + bias - (f(x) - f(baseline)), with f the explained output and
-- the bias 0 for a method that gives nothing to the model's biases; it is 0 for an exact method
-- (axiom of completeness: Sundararajan et al. 2017, section 3). The relative gap divides it by the
-- output difference f(x) - f(baseline) = sum of scores + bias - delta.
--
-- Methods are compared on the same instances, those of which each of them has a gap;
-- `completeness_over(common := false)` has each method's own.
--
-- Columns:
--   n                    Number of attributions with a gap
--   median_gap           Median of |delta|, in the unit of the output
--   mean_gap             Mean of |delta|
--   max_gap              Largest |delta|
--   median_relative_gap  Median of |delta| / |f(x) - f(baseline)|
--   left_out             Number of instances with a gap of some method that are not among n
create macro completeness_over(common := true, methods := null) as table
with chosen as materialized (
    from compared('gaps', common, methods)
),

gaps as (
    select
        method,
        abs(delta::double) as gap,
        abs(list_sum(scores) + coalesce(bias, 0) - delta) as difference
    from attributions
    semi join (from chosen where compared) as k using (instance_id, method)
    where delta is not null
),

sizes as (
    select
        method,
        count(*) filter (compared) as n,
        any_value(total) - n as left_out
    from chosen
    group by method
)

select
    method,
    n,
    median(gap) as median_gap,
    avg(gap) as mean_gap,
    max(gap) as max_gap,
    median(gap / nullif(difference, 0)) as median_relative_gap,
    left_out
from sizes
left join gaps using (method)
group by method, n, left_out
order by method;

create view completeness as
from completeness_over();
