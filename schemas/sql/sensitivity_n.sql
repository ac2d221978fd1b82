-- Whether scores say which subset of a size matters more: one row per check, method and size;
-- means over instances of Pearson's correlation between sums of scores and drops within subsets of
-- so many units. Ancona et al. 2018.
--
-- Higher is better, 1 at every size for exact shares of a linear model. Sizes aren't mixed, so that
-- a method gains nothing by more being lost where more is removed. What fools it: instances have
-- few subsets of a size (`samples`), whose correlations are noise of a small mean; those with fewer
-- than three, and those where nothing varies, don't count. Long texts alone have large sizes.
--
-- Metrics:
--   correlation  higher is better; -1 to 1
--
-- Columns:
--   n            Number of instances
--   samples      Mean number of subsets of the size
--   correlation  Mean correlation, -1 to 1; higher is better
create view sensitivity_n as
with by_size as (
    select
        evaluation,
        instance_id,
        method,
        size,
        count(*) as subsets,
        case
            when count(*) > 2 and stddev_pop(predicted) > 1e-12 and stddev_pop(drop) > 1e-12
                then corr(predicted, drop)
        end as own
    from subset_drops
    where kind = 'random'
    group by all
)

select
    evaluation,
    method,
    size,
    count(*) as n,
    avg(subsets) as samples,
    avg(own) as correlation
from by_size
where own is not null
group by evaluation, method, size
order by evaluation, method, size;
