-- How well an additive method adds up: one row per method that has a completeness gap.
--
-- The gap is delta = sum of scores + bias - (f(x) - f(baseline)), with f the explained output and
-- the bias 0 for a method that gives nothing to the model's biases; it is 0 for an exact method
-- (axiom of completeness: Sundararajan et al. 2017, section 3). The relative gap divides it by the
-- output difference f(x) - f(baseline) = sum of scores + bias - delta.
--
-- Columns:
--   n                    Number of attributions with a gap
--   median_gap           Median of |delta|, in the unit of the output
--   mean_gap             Mean of |delta|
--   max_gap              Largest |delta|
--   median_relative_gap  Median of |delta| / |f(x) - f(baseline)|
create view completeness as
with gaps as (
    select
        method,
        abs(delta::double) as gap,
        abs(list_sum(scores) + coalesce(bias, 0) - delta) as difference
    from attributions
    where delta is not null
)

select
    method,
    count(*) as n,
    median(gap) as median_gap,
    avg(gap) as mean_gap,
    max(gap) as max_gap,
    median(gap / nullif(difference, 0)) as median_relative_gap
from gaps
group by method
order by method;
