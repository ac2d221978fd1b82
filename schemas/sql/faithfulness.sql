-- Faithfulness of each method: the means of `faithfulness_by_instance`, one row per method,
-- protocol and operation. Every instance counts the same.
--
-- Methods are compared on the same instances: those that all of them have curves of, under the same
-- protocol and operation, so that who fails on the hard texts is none the better for it. A method
-- without any curves is no bar to the others. This is so in all views that compare methods, and the
-- macro of the same name with `_over` takes what else they can be compared on:
--
--   from faithfulness_over(common := false)                 each on all instances that it has
--   from faithfulness_over(methods := ['lime', 'saliency'])  those that these two have in common
--
-- Instances whose curves can't be summed (nothing to remove, or a probability that is no number)
-- are left out, as in `faithfulness_by_instance`.
--
-- Of methods that explain different classes (`target` of `curves`), curves begin at different
-- probabilities: they can't be compared.
--
-- All but the flips are linear in the probabilities, so they are computed from sums over the
-- instances with equally many units, whose curves have their points in the same places. That is
-- several times as fast as the mean of a row per instance, and equal to it. With the means of whole
-- and of emptied inputs beside, that is a macro of its own, which `degradation` asks too.
--
-- What fools them: emptied and half-emptied inputs are like nothing that the model was trained on,
-- so that a drop may be of their shape and not of what is gone: compare operations. A probability
-- near 0 or 1 hardly moves, whatever is removed. A method that only finds what many words say alike
-- removes one of them to no effect. `random` is what nothing comes to. Ranges are those of
-- probabilities: of models whose outputs are values there are none, nor decision flips.
--
-- Metrics:
--   comprehensiveness       higher is better; -1 to 1
--   sufficiency             lower is better; -1 to 1
--   aopc                    higher is better; -1 to 1
--   log_odds                lower is better; -70 to 70
--   auc_morf                lower is better; 0 to 1
--   auc_lerf                higher is better; 0 to 1
--   auc_difference          higher is better; -1 to 1
--   decision_flip_fraction  lower is better; 0 to 1
--   decision_flip_low       lower is better; 0 to 1
--   flipped                 higher is better; 0 to 1
--
-- Columns:
--   n                  Number of instances
--   comprehensiveness  Mean drop of the probability when the most relevant is removed; higher is
--                      better
--   sufficiency        Mean drop when only the most relevant is kept; lower is better
--   aopc               Area over the MoRF curve (Samek et al. 2017); higher is better
--   log_odds           Mean change of ln p when the most relevant is removed; lower is better
--   auc_morf           Area under the MoRF curve; lower is better
--   auc_lerf           Area under the LeRF curve; higher is better
--   auc_random         Area under the curve of a random order
--   auc_difference     auc_lerf - auc_morf; higher is better
--   flipped            Share of instances whose predicted class changes somewhere on the MoRF curve
--   decision_flip_fraction  Mean share of the units to remove (MoRF) until the predicted class
--                      changes, 1 where it never does; lower is better. It is known to the
--                      fractions alone, from above
--   decision_flip_low  Mean of the least that it may be between them; 0 to 1, equal to it if all
--                      units were removed one after the other (`--fractions each`)
--   left_out           Number of instances that some method has curves of and that are not among n
create macro faithfulness_and_ends(common, methods) as table
with chosen as materialized (
    from compared_curves(common, methods)
),

kept as (
    select c.*
    from curves as c
    anti join (from chosen where compared is not true) as k
        using (instance_id, method, protocol, operation)
    where methods is null or list_contains(methods, method)
),

pooled as (
    select
        method,
        protocol,
        operation,
        "order",
        fraction,
        units,
        max(removed) as removed,
        count(*) as n,
        sum(probability) as p,
        sum(ln(greatest(probability, 1e-30))) as log_p
    from kept
    group by all
),

-- How many points an instance has may depend on its units: every instance counts the same.
stepped as (
    select
        *,
        fraction > 0 and fraction < 1 as inside,
        sum(n) filter (fraction = 0) over every as alike,
        sum(n) over every / alike as points,
        nullif(sum(n) filter (inside) over every, 0) / alike as inner_points,
        (lead(removed) over curve - removed) * (p + lead(p) over curve) / 2 / units as area
    from pooled
    window
        curve as (
            partition by method, protocol, operation, "order", units
            order by fraction
        ),
        every as (partition by method, protocol, operation, "order", units)
),

ordered as (
    select
        method,
        protocol,
        operation,
        "order",
        sum(n) filter (fraction = 0) as instances,
        sum(n) filter (fraction = 0 and inner_points > 0) as with_inside,
        sum(p) filter (fraction = 0) / instances as p0,
        sum(n) filter (fraction = 1) as emptied,
        sum(p) filter (fraction = 1) as p1,
        (
            sum(p) filter (fraction = 0 and inner_points > 0)
            - sum(p / inner_points) filter (inside)
        ) / with_inside as inner_drop,
        p0 - sum(p / points) / instances as drop,
        (
            sum(log_p / inner_points) filter (inside)
            - sum(log_p) filter (fraction = 0 and inner_points > 0)
        ) / with_inside as log_change,
        sum(area) / instances as area
    from stepped
    group by all
),

linear as (
    select
        method,
        protocol,
        operation,
        any_value(inner_drop) filter ("order" = 'morf') as comprehensiveness,
        any_value(inner_drop) filter ("order" = 'lerf') as sufficiency,
        any_value(drop) filter ("order" = 'morf') as aopc,
        any_value(log_change) filter ("order" = 'morf') as log_odds,
        any_value(area) filter ("order" = 'morf') as auc_morf,
        any_value(area) filter ("order" = 'lerf') as auc_lerf,
        any_value(area) filter ("order" = 'random') as auc_random,
        sum(p0 * instances) / sum(instances) as top,
        sum(p1) / sum(emptied) as bottom
    from ordered
    group by all
),

first_flips as (
    select
        method,
        protocol,
        operation,
        any_value(units) as units,
        bool_or(flipped) filter ("order" = 'morf') as flipped,
        min(removed) filter ("order" = 'morf' and flipped) as to_flip,
        list(removed) filter ("order" = 'morf') as steps
    from kept
    group by instance_id, method, protocol, operation
),

shares as (
    select
        * exclude (units, to_flip, steps),
        to_flip / units as seen,
        (list_max(list_filter(steps, lambda step: step < to_flip)) + 1) / units as least
    from first_flips
),

flips as (
    select
        method,
        protocol,
        operation,
        avg(flipped::int) as flipped,
        avg(case when flipped then seen when not flipped then 1 end) as decision_flip_fraction,
        avg(case when flipped then least when not flipped then 1 end) as decision_flip_low
    from shares
    group by all
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
)

select
    method,
    protocol,
    operation,
    n,
    comprehensiveness,
    sufficiency,
    aopc,
    log_odds,
    auc_morf,
    auc_lerf,
    auc_random,
    auc_lerf - auc_morf as auc_difference,
    flipped,
    decision_flip_fraction,
    decision_flip_low,
    left_out,
    top,
    bottom
from sizes
left join flips using (method, protocol, operation)
left join linear using (method, protocol, operation)
order by method, protocol, operation;

create macro faithfulness_over(common := true, methods := null) as table
select * exclude (top, bottom)
from faithfulness_and_ends(common, methods);

create view faithfulness as
from faithfulness_over();
