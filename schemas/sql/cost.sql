-- What each method cost: one row per method, also if it failed everywhere.
--
-- Seconds are those of the attributions: the passes and the work of the method alone, without
-- reading, encoding and writing. Passes that several methods share are counted for each of them.
--
-- Columns:
--   instances             Number of instances attributed
--   tokens                Number of tokens attributed, special tokens included
--   seconds               Sum over the instances
--   seconds_per_instance  seconds / instances
--   instances_per_second  instances / seconds
--   tokens_per_second     tokens / seconds
--   failures              Number of instances that the method failed on
create view cost as
with spent as (
    select
        method,
        count(distinct instance_id) as instances,
        sum(len(scores)) as tokens,
        sum(seconds::double) as seconds
    from attributions
    group by method
),

failed as (
    select method, count(*) as failures
    from failures
    where stage = 'attribute'
    group by method
)

select
    method,
    coalesce(instances, 0) as instances,
    coalesce(tokens, 0)::bigint as tokens,
    coalesce(seconds, 0) as seconds,
    seconds / instances as seconds_per_instance,
    instances / nullif(seconds, 0) as instances_per_second,
    tokens / nullif(seconds, 0) as tokens_per_second,
    coalesce(failures, 0) as failures
from spent
full join failed using (method)
order by seconds_per_instance, method;
