-- What each method cost: one row per method, also if it failed everywhere or has no scores.
--
-- Seconds are those of the attributions: the passes and the work of the method alone, without
-- reading, encoding and writing. Passes that several methods share are counted for each of them.
-- They are kept with the scores, so that of a method without (`attattr`, which fills tables of heads
-- and trees) they aren't known. Each method is on its own instances, which may not be the others';
-- `cost_faithfulness` has seconds over the same ones.
--
-- What fools it: seconds are of one machine, one batch size and what else ran there. Methods that
-- failed on the long texts look cheaper: `cost_faithfulness` has the same texts for all.
--
-- Metrics:
--   seconds_per_instance  lower is cheaper; 0 or more
--   instances_per_second  higher is cheaper; 0 or more
--   tokens_per_second     higher is cheaper; 0 or more
--   failures              lower is better; 0 or more
--
-- Columns:
--   instances             Number of instances attributed: those in the method's tables
--   tokens                Number of tokens attributed, special tokens included
--   seconds               Sum over the instances; null where it isn't known
--   seconds_per_instance  seconds / instances
--   instances_per_second  instances / seconds
--   tokens_per_second     tokens / seconds
--   failures              Number of instances that the method failed on
create view cost as
with scored as (
    select
        method,
        count(*) as instances,
        sum(tokens) as tokens,
        sum(seconds) as seconds,
        -- What the rates are of.
        count(timed_tokens) as timed,
        sum(timed_tokens) as timed_tokens
    from (
        select
            method,
            sum(len(scores)) as tokens,
            sum(seconds::double) filter (isfinite(seconds)) as seconds,
            sum(len(scores)) filter (isfinite(seconds)) as timed_tokens
        from attributions
        group by method, instance_id
    )
    group by method
),

-- Methods without scores, by what they have instead.
silent as (
    select method
    from methods
    where not list_contains(tables, 'attributions')
),

others as (
    select instance_id, method from heads semi join silent using (method)
    union
    select instance_id, method from interactions semi join silent using (method)
    union
    select instance_id, method from tree_nodes semi join silent using (method)
    union
    select instance_id, method from patterns semi join silent using (method)
    union
    select instance_id, method from pattern_ablation semi join silent using (method)
    union
    select instance_id, method from layers semi join silent using (method)
    union
    select instance_id, method from information semi join silent using (method)
),

spent as (
    from scored
    union all
    select
        o.method,
        count(*) as instances,
        sum(len(i.tokens)) as tokens,
        null as seconds,
        null as timed,
        null as timed_tokens
    from others as o
    join instances as i using (instance_id)
    group by o.method
),

-- Of a run that has only begun, nothing is known.
begun as (
    select method
    from methods
    where exists (from instances) or exists (from failures)
),

failed as (
    select
        method,
        count(distinct instance_id) as failures
    from failures
    where stage = 'attribute'
    group by method
)

select
    method,
    coalesce(instances, 0) as instances,
    coalesce(tokens, 0)::bigint as tokens,
    seconds,
    seconds / nullif(timed, 0) as seconds_per_instance,
    timed / nullif(seconds, 0) as instances_per_second,
    timed_tokens / nullif(seconds, 0) as tokens_per_second,
    coalesce(failures, 0) as failures
from begun
full join spent using (method)
full join failed using (method)
order by seconds_per_instance, method;
