-- Whether explanations become less orderly once all of a model is noise: one row per check, method
-- and weights. Hedstroem et al. 2024 (eMPRT): (H after - H before) / H before, H the entropy of a
-- histogram of the absolute scores of the tokens that can be removed, after all parts are
-- randomised.
--
-- Higher is better; below 0 scores are more orderly under noise. It needs one stage, the last of
-- `cascading`, and compares no ranks, so that it isn't fooled by what skips carry. What fools it: a
-- method whose scores are flat to begin with has nothing to rise to, and sparse ones have much;
-- few tokens fill few bins. The paper has 100 bins, of pixels; of n tokens there are the square
-- root of n here, rounded up, unless `bins` says another number:
--
--   from efficient_randomisation_over(bins := 10)
--
-- Metrics:
--   rise  higher is better; above -1
--
-- Columns:
--   n               Number of instances with an entropy before that isn't 0
--   rise            Mean of (H after - H before) / H before, above -1; higher is better
--   entropy_before  Mean entropy of the untouched model's scores, in nats
--   entropy_after   Mean entropy of those under noise
--   without         Number of instances that have no rise: all scores were in one bin, or equal
create macro efficient_randomisation_over(bins := null) as table
with last as (
    select
        evaluation,
        instance_id,
        method,
        weights,
        seed,
        scores
    from randomised
    where kind = 'cascading' and part = 'embeddings'
),

paired as (
    select
        l.evaluation,
        l.instance_id,
        l.method,
        l.weights,
        l.seed,
        removable_positions(i.special, i.readout) as positions,
        list_transform(list_select(w.scores, positions), lambda s: abs(s)::double) as before,
        list_transform(list_select(l.scores, positions), lambda s: abs(s)::double) as after,
        coalesce(bins, ceil(sqrt(len(positions)))::bigint) as number
    from last as l
    join randomised as w using (evaluation, instance_id, method)
    join instances as i using (instance_id)
    where w.kind = 'whole' and isfinite(list_sum(l.scores)) and isfinite(list_sum(w.scores))
),

binned as (
    select
        *,
        list_transform(before, lambda s: least(number - 1, floor(
            (s - list_min(before)) / nullif(list_max(before) - list_min(before), 0) * number
        ))) as bins_before,
        list_transform(after, lambda s: least(number - 1, floor(
            (s - list_min(after)) / nullif(list_max(after) - list_min(after), 0) * number
        ))) as bins_after
    from paired
    where len(positions) > 0
),

entropies as (
    select
        *,
        list_sum(list_transform(map_values(list_histogram(bins_before)), lambda c:
            c / len(before) * ln(len(before) / c))) as entropy_before,
        coalesce(list_sum(list_transform(map_values(list_histogram(bins_after)), lambda c:
            c / len(after) * ln(len(after) / c))), 0) as entropy_after
    from binned
),

risen as (
    select
        *,
        case
            when entropy_before > 1e-12 then (entropy_after - entropy_before) / entropy_before
        end as own_rise
    from entropies
)

select
    evaluation,
    method,
    weights,
    count(distinct instance_id) filter (own_rise is not null) as n,
    avg(own_rise) as rise,
    avg(entropy_before) filter (own_rise is not null) as entropy_before,
    avg(entropy_after) filter (own_rise is not null) as entropy_after,
    count(distinct instance_id) - n as without
from risen
group by evaluation, method, weights
order by evaluation, weights, method;

create view efficient_randomisation as
from efficient_randomisation_over();
