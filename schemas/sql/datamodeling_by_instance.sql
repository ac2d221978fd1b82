-- Whether the scores of what is left say how much of the output is left: a row per instance and
-- method, of runs with `random_masks`.
--
-- Spearman's rank correlation, over the masks, between the sum of the scores of the tokens that a
-- mask keeps and the output: the log-probability of all that follows a prompt, else the logarithm of
-- the odds of the class's probability p, ln p - ln(1 - p). Of equal values each has the mean of
-- their ranks. Where methods have no class, the output is that of the run's. Words are the sum of
-- their tokens.
--
-- What fools it is said in `datamodeling`.
--
-- Metrics:
--   lds  higher is better; -1 to 1
--
-- Columns:
--   masks   Number of masks
--   lds     Linear datamodeling score, -1 to 1; higher is better; null where either never varies. Park
--           et al. 2023 (TRAK); Cohen-Wang et al. 2024 (ContextCite)
create view datamodeling_by_instance as
with outputs as (
    select
        m.instance_id,
        m.method as masks,
        m.mask,
        m.target,
        m.kept,
        case
            when i.question_kind = 'all' then m.logit::double
            else ln(greatest(m.probability, 1e-30)) - ln(greatest(1 - m.probability, 1e-12))
        end as output
    from masks as m
    join instances as i using (instance_id)
),

sums as (
    select
        o.instance_id,
        a.method,
        o.masks,
        o.mask,
        o.output,
        coalesce(list_sum(list_where(a.scores, o.kept)::double[]), 0) as predicted
    from outputs as o
    join attributions as a using (instance_id)
    where a.layer is null and (a.target is null or a.target = o.target)
),

ranked as (
    select
        instance_id,
        method,
        rank() over by_output + (count(*) over same_output - 1) / 2 as place,
        rank() over by_sum + (count(*) over same_sum - 1) / 2 as predicted_place
    from sums
    window
        by_output as (partition by instance_id, method, masks order by output),
        same_output as (partition by instance_id, method, masks, output),
        by_sum as (partition by instance_id, method, masks order by predicted),
        same_sum as (partition by instance_id, method, masks, predicted)
)

select
    instance_id,
    method,
    count(*) as masks,
    case
        when stddev_pop(place) > 0 and stddev_pop(predicted_place) > 0
            then corr(place, predicted_place)
    end as lds
from ranked
group by instance_id, method;
