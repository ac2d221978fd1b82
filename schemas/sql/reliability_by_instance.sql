-- How much of a stochastic method's scores for one instance is chance: one row per check, instance
-- and method (`attribeam check`, table `repeats`), over the tokens that can be removed and k seeds,
-- that of the run among them. What it means, and what fools it, is said in `reliability`.
--
-- Metrics:
--   spearman     higher is stabler; -1 to 1
--   reliability  higher is stabler; at most 1
--
-- Columns:
--   seeds        Number k of seeds
--   spearman     Mean Spearman correlation between two seeds, -1 to 1; higher is stabler
--   noise        Mean over tokens of the variance between seeds
--   signal       Variance between tokens of the mean over seeds
--   reliability  (signal - noise / k) / signal, at most 1; higher is stabler. Null without signal,
--                or of one token
create view reliability_by_instance as
with every as (
    select
        evaluation,
        instance_id,
        method,
        seed,
        scores
    from repeats
    union all
    select
        r.evaluation,
        a.instance_id,
        a.method,
        null as seed,
        a.scores
    from attributions as a
    join (select distinct evaluation, instance_id, method from repeats) as r
        using (instance_id, method)
    where a.layer is null
),

kept as materialized (
    select
        e.evaluation,
        e.instance_id,
        e.method,
        e.seed,
        list_select(e.scores, removable_positions(i.special, i.readout))::double[] as scores
    from every as e
    join instances as i using (instance_id)
    where isfinite(list_sum(e.scores))
),

pairs as (
    select
        a.evaluation,
        a.instance_id,
        a.method,
        avg(rank_correlation(a.scores, b.scores)) as spearman
    from kept as a
    join kept as b using (evaluation, instance_id, method)
    where coalesce(a.seed, -1e30) < coalesce(b.seed, -1e30)
    group by all
),

tokens as (
    select
        evaluation,
        instance_id,
        method,
        position,
        count(*) as seeds,
        var_samp(score) as variance,
        avg(score) as mean
    from (
        select
            evaluation,
            instance_id,
            method,
            unnest(scores) as score,
            unnest(range(1, len(scores) + 1)) as position
        from kept
    )
    group by all
),

parts as (
    select
        evaluation,
        instance_id,
        method,
        any_value(seeds) as seeds,
        avg(variance) as noise,
        var_samp(mean) as signal
    from tokens
    group by all
)

select
    evaluation,
    instance_id,
    method,
    seeds,
    spearman,
    noise,
    signal,
    (signal - noise / seeds) / nullif(signal, 0) as reliability
from parts
join pairs using (evaluation, instance_id, method);
