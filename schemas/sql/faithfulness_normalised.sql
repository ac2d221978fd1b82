-- Faithfulness of each method as a share of what the inputs have to lose: the means of
-- `faithfulness_normalised_by_instance`, one row per method, protocol and operation. Every instance
-- that counts counts the same.
--
-- Emptied inputs are as little like texts as a model ever sees, and how far a prediction falls on
-- them is half of a drop; divided by it, methods can be compared between operations, texts and
-- models (Carton et al. 2020). `degradation` divides by it too, once for the corpus.
--
-- What fools it: instances that hardly react to being emptied are left out (`unreacting`), so that
-- values are of the others alone; those that react little count as much as all others, though their
-- shares are of a small number, and go beyond 1, or far below 0. A drop is no evidence where what
-- is left is an input that the model never saw: compare operations. Rises of the probability count
-- as no drop. `ratio_to_random` is a ratio of means, since that of single instances has no mean to
-- speak of; it is of all instances.
--
-- Methods are compared on the same instances, as in `faithfulness`:
--
--   from faithfulness_normalised_over(common := false)
--   from faithfulness_normalised_over(methods := ['lime', 'saliency'])
--
-- Metrics:
--   normalised_comprehensiveness  higher is better; 0 to 20
--   normalised_sufficiency        higher is better; -19 to 1
--   ratio_to_random               higher is better; -20 to 20
--
-- Columns:
--   n                Number of instances that are compared
--   unreacting       Number of them whose prediction falls by less than 0.05 when they are emptied:
--                    they count in no normalised mean
--   null_difference  Mean drop of the others when they are emptied, 0.05 to 1
--   normalised_comprehensiveness  Mean of the share that is lost without the most relevant, 0 to
--                    20; higher is better
--   normalised_sufficiency  Mean of the share that isn't lost with the most relevant alone, -19 to
--                    1; higher is better, unlike `sufficiency` of `faithfulness`
--   ratio_to_random  Mean comprehensiveness over that of a random order, 1 for what is as good;
--                    higher is better. Null where the latter is below 0.05
--   left_out         As in `faithfulness`: number of instances that are not compared
create macro faithfulness_normalised_over(common := true, methods := null) as table
with chosen as materialized (
    from compared_curves(common, methods)
),

sizes as (
    select
        method,
        protocol,
        operation,
        count(*) filter (compared) as n,
        any_value(total) - n as left_out
    from chosen
    group by all
),

means as (
    select
        f.method,
        f.protocol,
        f.operation,
        count(*) filter (null_difference < 0.05) as unreacting,
        avg(null_difference) filter (null_difference >= 0.05) as null_difference,
        avg(normalised_comprehensiveness) as normalised_comprehensiveness,
        avg(normalised_sufficiency) as normalised_sufficiency,
        avg(comprehensiveness) as comprehensiveness,
        avg(comprehensiveness_random) as comprehensiveness_random
    from faithfulness_normalised_by_instance as f
    semi join (from chosen where compared) as k using (instance_id, method, protocol, operation)
    group by all
)

select
    method,
    protocol,
    operation,
    n,
    coalesce(unreacting, 0) as unreacting,
    null_difference,
    normalised_comprehensiveness,
    normalised_sufficiency,
    comprehensiveness / case when comprehensiveness_random >= 0.05 then comprehensiveness_random end
        as ratio_to_random,
    left_out
from sizes
left join means using (method, protocol, operation)
order by method, protocol, operation;

create view faithfulness_normalised as
from faithfulness_normalised_over();
