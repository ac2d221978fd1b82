-- How the prediction reacts to removing what a method calls relevant: one row per instance, method,
-- protocol and operation.
--
-- p(f) is the probability of the explained class with the nominal fraction f of the units (tokens
-- or words) removed; p(0) is that of the whole input. MoRF removes the most relevant units first,
-- LeRF the least relevant first. Areas and flips use the exact share, removed / units, because on a
-- short text the number removed is a rounded one. A metric is null where the order that it needs
-- was not run. LeRF is run at 1 - f for every f that MoRF is run at.
--
-- Curves that can't be summed, with nothing to remove or a probability that is no number, have no
-- row; `left_out` of `faithfulness` counts them.
--
-- What fools them is said in `faithfulness`.
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
--
-- Columns:
--   units              Number of removable tokens or words
--   probability        p(0)
--   comprehensiveness  Mean over 0 < f < 1 of p(0) - p_morf(f). Higher is better. DeYoung et al.
--                      2020 (ERASER)
--   sufficiency        Mean over 0 < f < 1 of p(0) - p_lerf(1 - f), where only the most relevant
--                      fraction f is kept. Lower is better. DeYoung et al. 2020 (ERASER)
--   aopc               Mean over all points, both ends included, of p(0) - p_morf(f). Higher is
--                      better. Samek et al. 2017
--   log_odds           Mean over 0 < f < 1 of ln p_morf(f) - ln p(0), probabilities no smaller than
--                      1e-30. Lower is better. Shrikumar et al. 2017; Chen et al. 2019
--   auc_morf           Area under p_morf over the exact share, trapezoidal. Lower is better
--   auc_lerf           Area under p_lerf over the exact share, trapezoidal. Higher is better
--   auc_random         Area under p for a random order, over the exact share, trapezoidal
--   auc_difference     auc_lerf - auc_morf. Higher is better
--   flipped            True if some MoRF point is predicted as another class than the whole input
--   decision_flip_fraction  Smallest exact share of MoRF at which the predicted class is another,
--                      1 if it never is. Lower is better. Serrano & Smith 2019; Chrysostomou &
--                      Aletras 2021. No less than it would be unit by unit
--   decision_flip_low  The least that it may be unit by unit, if no class comes and goes between
--                      two points: a unit above the share before; 0 to 1. Equal to it where that
--                      is exact, as with the fractions `each`, and where no class changes
create view faithfulness_by_instance as
with points as (
    select
        instance_id,
        method,
        protocol,
        operation,
        fraction,
        removed,
        units,
        probability,
        flipped,
        "order" = 'morf' as morf,
        "order" = 'lerf' as lerf,
        "order" = 'random' as random,
        fraction > 0 and fraction < 1 as inside
    from curves
),

curve as (
    select
        instance_id,
        method,
        protocol,
        operation,
        max(units) as units,
        max(probability::double) filter (fraction = 0) as p0,
        avg(probability) filter (morf and inside) as inner_morf,
        avg(probability) filter (lerf and inside) as inner_lerf,
        avg(probability) filter (morf) as mean_morf,
        avg(ln(greatest(probability, 1e-30))) filter (morf and inside) as inner_log,
        list_sort(list(removed + probability / 2::double) filter (morf)) as morf,
        list_sort(list(removed + probability / 2::double) filter (lerf)) as lerf,
        list_sort(list(removed + probability / 2::double) filter (random)) as random,
        bool_or(flipped) filter (morf) as flipped,
        min(removed) filter (morf and flipped) as removed_to_flip
    from points
    group by all
    having min(units) > 0 and bool_and(isfinite(probability))
)

select
    instance_id,
    method,
    protocol,
    operation,
    units,
    p0 as probability,
    p0 - inner_morf as comprehensiveness,
    p0 - inner_lerf as sufficiency,
    p0 - mean_morf as aopc,
    inner_log - ln(greatest(p0, 1e-30)) as log_odds,
    area_under_curve(morf, units) as auc_morf,
    area_under_curve(lerf, units) as auc_lerf,
    area_under_curve(random, units) as auc_random,
    auc_lerf - auc_morf as auc_difference,
    flipped,
    case when flipped then removed_to_flip / units when not flipped then 1 end
        as decision_flip_fraction,
    case
        when flipped
            then (floor(list_filter(morf, lambda point: point < removed_to_flip)[-1]) + 1) / units
        when not flipped then 1
    end as decision_flip_low
from curve;
