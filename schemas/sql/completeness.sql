-- How well an additive method adds up: one row per method that has a completeness gap.
--
-- The gap is delta = sum of scores + bias + unattributed - (f(x) - f(baseline)), with f the
-- explained output, the bias 0 for a method that gives nothing to the model's biases, and
-- unattributed 0 for one that leaves nothing; it is 0 for an exact method (axiom of completeness:
-- Sundararajan et al. 2017, section 3). The relative gap divides it by the output difference
-- f(x) - f(baseline) = sum of scores + bias + unattributed - delta.
--
-- Methods are compared on the same instances, those of which each of them has a gap;
-- `completeness_over(common := false)` has each method's own.
--
-- What fools it: scores that add up needn't be right, since a sum says nothing of how it is shared
-- out. Relative gaps are large where the output hardly differs from that of the baseline.
--
-- Metrics:
--   median_gap           lower is better; 0 or more
--   mean_gap             lower is better; 0 or more
--   max_gap              lower is better; 0 or more
--   median_relative_gap  lower is better; 0 or more
--
-- Columns:
--   n                    Number of attributions with a gap
--   median_gap           Median of |delta|, in the unit of the output
--   mean_gap             Mean of |delta|
--   max_gap              Largest |delta|
--   median_relative_gap  Median of |delta| / |f(x) - f(baseline)|
--   left_out             Number of instances with a gap of some method that are not among n
create macro completeness_over(common := true, methods := null) as table
with every as materialized (
    select
        instance_id,
        method,
        abs(delta::double) as gap,
        list_sum(scores) + coalesce(bias, 0) + coalesce(unattributed, 0) as total,
        abs(total - delta) as difference,
        isfinite(gap) and isfinite(difference) is not false as usable
    from attributions
    where delta is not null and (methods is null or list_contains(methods, method))
),

counted as (
    select
        instance_id,
        count(*) filter (usable) as had
    from every
    group by instance_id
),

needed as (
    select count(distinct method) as methods
    from every
    where usable
),

chosen as (
    select
        e.method,
        e.gap,
        e.difference,
        e.usable and (not common or c.had = (select needed.methods from needed)) as compared
    from every as e
    join counted as c using (instance_id)
)

select
    method,
    count(*) filter (compared) as n,
    median(gap) filter (compared) as median_gap,
    avg(gap) filter (compared) as mean_gap,
    max(gap) filter (compared) as max_gap,
    median(gap / nullif(difference, 0)) filter (compared) as median_relative_gap,
    (select count(*) from counted) - n as left_out
from chosen
group by method
order by method;

create view completeness as
from completeness_over();
