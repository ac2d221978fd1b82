-- Whether explanations notice that a model becomes noise: one row per check, method, kind of
-- randomisation, weights and stage; means over instances of how far scores stay what they were.
-- Adebayo et al. 2018 (model parameter randomisation test).
--
-- Stages go from the output to the input: `cascading` randomises a part and all above it,
-- `independent` a part alone. Low is good: what explains a model can't stay as it is. It is a curve
-- over stages, and never one mean. The class explained stays that of the untouched model.
--
-- What fools it: cascading stages keep the lower layers and, through skips, the input, so that
-- honest methods stay high too: look at independent ones beside. Methods that depend on no class
-- can't notice the head: compare them from the last layer on. `random` with the run's seed has 1
-- everywhere, which is the upper reference; the lower is 0. Of a class whose sign has turned,
-- `spearman` is near -1 and `spearman_absolute` high: the same words are marked. Few tokens are
-- noise: `least := 8` leaves shorter texts out. A test that is passed says nothing of faithfulness.
--
-- Methods are compared on the instances that all of them have scores of, at each stage:
--
--   from randomisation_over(least := 8)
--   from randomisation_over(common := false)
--   from randomisation_over(methods := ['lime', 'saliency'])
--
-- Metrics:
--   spearman           lower is better; -1 to 1
--   spearman_absolute  lower is better; -1 to 1
--   jaccard            lower is better; 0 to 1
--   spearman_smoothed  lower is better; -1 to 1
--
-- Columns:
--   n                  Number of instances
--   seeds              Number of seeds of the weights, whose means these are
--   spearman           Mean Spearman correlation with the untouched model's scores, -1 to 1; low is
--                      good. Instances where it is null don't count
--   spearman_absolute  The same of absolute scores
--   jaccard            Mean overlap of the highest quarter of the tokens, 0 to 1; low is good
--   spearman_smoothed  `spearman` of means over noised inputs, under --smooth; low is good.
--                      Hedstroem et al. 2024 (sMPRT)
--   changed            Share of the instances whose predicted class is another
--   left_out           Number of instances that some method has and that are not among n
create macro randomisation_over(least := 1, common := true, methods := null) as table
with own as materialized (
    from randomisation_by_instance
    where kind <> 'class' and (methods is null or list_contains(methods, method))
),

counted as (
    select
        *,
        count(*) over (partition by evaluation, kind, weights, seed, stage, instance_id) as had,
        count(distinct method) over (partition by evaluation, kind, weights, seed, stage) as most
    from own
),

sizes as (
    select
        evaluation,
        kind,
        weights,
        stage,
        count(distinct instance_id) as total
    from own
    group by all
)

select
    evaluation,
    method,
    kind,
    weights,
    stage,
    part,
    count(distinct instance_id) as n,
    count(distinct seed) as seeds,
    avg(spearman) as spearman,
    avg(spearman_absolute) as spearman_absolute,
    avg(jaccard) as jaccard,
    avg(spearman_smoothed) as spearman_smoothed,
    avg(changed::int) as changed,
    any_value(total) - count(distinct instance_id) as left_out
from counted
join sizes using (evaluation, kind, weights, stage)
where tokens >= least and (not common or had = most)
group by evaluation, method, kind, weights, stage, part
order by evaluation, kind, weights, method, stage;

create view randomisation as
from randomisation_over();
