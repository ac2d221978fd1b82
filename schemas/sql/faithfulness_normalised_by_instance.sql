-- Comprehensiveness and sufficiency of a method on one instance, as shares of what there is to lose
-- (Carton et al. 2020): one row per instance, method, protocol and operation.
--
-- An input whose prediction hardly reacts to being emptied can't lose much, whatever is removed,
-- and one that falls at the first token loses much under any method. With p(f) as in
-- `faithfulness_by_instance` and d(f) = max(0, p(0) - p(f)), drops are divided by d(1), the drop of
-- the emptied input.
-- Where that is below 0.05, there is nothing to be a share of, and both are null. Beside them,
-- comprehensiveness stands against that of a random order of the same instance, which has the same
-- fragility. What fools them is said in `faithfulness_normalised`. Curves without a row are those
-- that have none in `faithfulness_by_instance`.
--
-- Metrics:
--   normalised_comprehensiveness  higher is better; 0 to 20
--   normalised_sufficiency        higher is better; -19 to 1
--   ratio_to_random               higher is better; -20 to 20
--
-- Columns:
--   units            Number of units that can be removed
--   null_difference  d(1), 0 to 1; mean over the orders where their ends differ (`compat`)
--   normalised_comprehensiveness  Mean over 0 < f < 1 of d_morf(f) / d(1), 0 to 20, 1 where the
--                    most relevant alone lose all there is to lose; higher is better
--   normalised_sufficiency  Mean over 0 < f < 1 of 1 - d_lerf(1 - f) / d(1), -19 to 1, 1 where the
--                    most relevant alone lose nothing, 0 where they are worth no more than nothing;
--                    higher is better
--   comprehensiveness  As in `faithfulness_by_instance`; higher is better
--   comprehensiveness_random  The same of a random order
--   ratio_to_random  comprehensiveness / comprehensiveness_random, 1 for what is as good as a
--                    random order; higher is better. Null where the latter is below 0.05
create view faithfulness_normalised_by_instance as
with curve as (
    select
        instance_id,
        method,
        protocol,
        operation,
        max(units) as units,
        max(probability::double) filter (fraction = 0) as p0,
        avg(probability) filter (fraction = 1) as p1,
        list(probability) filter ("order" = 'morf' and fraction > 0 and fraction < 1) as morf,
        list(probability) filter ("order" = 'lerf' and fraction > 0 and fraction < 1) as lerf,
        avg(probability) filter ("order" = 'random' and fraction > 0 and fraction < 1) as random
    from curves
    group by all
    having min(units) > 0 and bool_and(isfinite(probability))
)

select
    instance_id,
    method,
    protocol,
    operation,
    units,
    greatest(0, p0 - p1) as null_difference,
    list_avg(list_transform(morf, lambda p: greatest(0, p0 - p)))
    / case when null_difference >= 0.05 then null_difference end as normalised_comprehensiveness,
    1 - list_avg(list_transform(lerf, lambda p: greatest(0, p0 - p)))
    / case when null_difference >= 0.05 then null_difference end as normalised_sufficiency,
    p0 - list_avg(morf) as comprehensiveness,
    p0 - random as comprehensiveness_random,
    comprehensiveness / case when comprehensiveness_random >= 0.05 then comprehensiveness_random end
        as ratio_to_random
from curve;
