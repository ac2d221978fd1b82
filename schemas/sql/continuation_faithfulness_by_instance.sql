-- How what follows a prompt reacts to removing what a method calls relevant, by log-probability:
-- one row per instance (a token, or all at once), method, protocol and operation.
--
-- lp(f) is the log-probability with the nominal fraction f of what can be removed gone; lp(0) is
-- that of the whole input, lp(1) that with all of it gone. Never removed are special tokens (the
-- first, those of a chat template) and the position that the next token is read from; where all
-- that follows is asked for, that is kept too (`continuations.removable`). A metric is null where
-- the order that it needs was not run.
--
-- What fools them is said in `continuation_faithfulness`.
--
-- Metrics:
--   aopc_log_prob           higher is better; any size
--   aopc_normalised         higher is better; any size, mostly 0 to 1
--   sufficiency             lower is better; any size
--   sufficiency_normalised  lower is better; any size, mostly 0 to 1
--   top1_drop               higher is better; any size
--   top3_drop               higher is better; any size
--   top5_drop               higher is better; any size
--   deletion                lower is better; 0 to 1
--   insertion               higher is better; 0 to 1
--   rise                    lower is better; 0 to 1
--   mas                     lower is better; 0 to 1
--   contrastive_flip        lower is better; 0 to 1
--
-- Columns:
--   question_kind       next for a token that follows, all for all of them at once
--   units               Number of tokens, words or segments that can be removed
--   log_prob            lp(0)
--   lost                lp(0) - lp(1): what all that can be removed has to say
--   aopc_log_prob       Mean over 0 < f < 1 of lp(0) - lp_morf(f). Higher is better. Samek et al. 2017;
--                       DeYoung et al. 2020 on log-probabilities
--   aopc_normalised     That over lost; null where lost is below 0.1
--   sufficiency         Mean over 0 < f < 1 of lp(0) - lp_lerf(1 - f), where only the most relevant
--                       fraction f is kept. Lower is better
--   sufficiency_normalised  That over lost; null where lost is below 0.1
--   top1_drop           lp(0) - lp with the 1 most relevant unit gone; null without such a point
--                       (`--fractions each`, or shares that come to that number). Higher is better.
--                       Cohen-Wang et al. 2024 (ContextCite), with --units segment
--   top3_drop           The same of the 3 most relevant
--   top5_drop           The same of the 5 most relevant
--   deletion            Area under the probability as the most relevant are removed first, over the
--                       exact share. Lower is better. Petsiuk et al. 2018
--   insertion           The same as they are put back first: the least relevant removed first.
--                       Higher is better
--   rise                Area under lp_morf, scaled so that it goes from 1 to 0 and made never to
--                       rise; lower is better. As FlashTrace has RISE
--   mas                 The same of the curve plus its distance from the share of the positive scores
--                       that is left, from 0 to 1 again. Lower is better; null but for tokens, and
--                       where no score is positive. Walker et al. 2024 (magnitude aligned scoring)
--   contrastive_flip    Smallest exact share of MoRF at which the foil is the likelier one, 1 if it
--                       never is; 0 if it is from the start. Lower is better
create view continuation_faithfulness_by_instance as
with points as (
    select
        c.*,
        i.question_kind as kind,
        removed / units::double as share,
        fraction > 0 and fraction < 1 as inside
    from curves as c
    join instances as i using (instance_id)
    where i.question_kind in ('next', 'all') and c.log_prob is not null
),

curve as (
    select
        instance_id,
        method,
        protocol,
        operation,
        any_value(kind) as question_kind,
        max(units) as units,
        max(log_prob::double) filter (fraction = 0) as full_lp,
        max(log_prob::double) filter (fraction = 1) as empty_lp,
        avg(log_prob::double) filter ("order" = 'morf' and inside) as inner_morf,
        avg(log_prob::double) filter ("order" = 'lerf' and inside) as inner_lerf,
        max(log_prob::double) filter ("order" = 'morf' and removed = 1) as without1,
        max(log_prob::double) filter ("order" = 'morf' and removed = 3) as without3,
        max(log_prob::double) filter ("order" = 'morf' and removed = 5) as without5,
        list_sort(list(removed + probability / 2::double) filter ("order" = 'morf')) as morf,
        list_sort(list(removed + probability / 2::double) filter ("order" = 'lerf')) as lerf,
        list_sort(
            list({'x': share, 'k': removed, 'y': log_prob::double}) filter ("order" = 'morf')
        ) as steps,
        min(share) filter ("order" = 'morf' and foil_log_prob > log_prob) as flip,
        count(*) filter ("order" = 'morf' and foil_log_prob is not null) as with_foil
    from points
    group by instance_id, method, protocol, operation
    having bool_and(isfinite(log_prob))
),

-- The curve from 1 down to 0, never rising: RISE's.
falling as (
    select
        *,
        full_lp - empty_lp as lost,
        list_transform(
            steps,
            lambda s, n: {
                'x': s.x,
                'k': s.k,
                'y': list_min(list_transform(
                    steps[:n],
                    lambda t: least(1, greatest(0, (t.y - empty_lp) / (full_lp - empty_lp)))
                ))
            }
        ) as fallen
    from curve
),

weights as (
    select
        instance_id,
        method,
        list_sort(list(greatest(score, 0)::double) filter (removable), 'desc') as positive
    from continuations
    group by instance_id, method
),

-- Plus its distance from the share of the scores that is left.
aligned as (
    select
        f.*,
        list_transform(
            f.fallen,
            lambda s: {
                'x': s.x,
                'y': s.y + abs(s.y - coalesce(list_sum(w.positive[s.k + 1:]), 0)
                    / list_sum(w.positive))
            }
        ) as far,
        list_min(list_transform(far, lambda s: s.y)) as least_far,
        list_max(list_transform(far, lambda s: s.y)) as most_far,
        list_sum(w.positive) > 0 as has_positive
    from falling as f
    left join weights as w using (instance_id, method)
)

select
    instance_id,
    method,
    protocol,
    operation,
    question_kind,
    units,
    full_lp as log_prob,
    lost,
    full_lp - inner_morf as aopc_log_prob,
    case when lost >= 0.1 then (full_lp - inner_morf) / lost end as aopc_normalised,
    full_lp - inner_lerf as sufficiency,
    case when lost >= 0.1 then (full_lp - inner_lerf) / lost end as sufficiency_normalised,
    full_lp - without1 as top1_drop,
    full_lp - without3 as top3_drop,
    full_lp - without5 as top5_drop,
    area_under_curve(morf, units) as deletion,
    area_under_curve(lerf, units) as insertion,
    case
        when lost >= 0.1
            then list_sum(list_transform(
                fallen[2:], lambda s, n: (s.x - fallen[n].x) * (s.y + fallen[n].y) / 2
            ))
    end as rise,
    case
        when lost >= 0.1 and protocol = 'token' and has_positive
            then (
                list_sum(list_transform(
                    far[2:], lambda s, n: (s.x - far[n].x) * (s.y + far[n].y) / 2
                )) - least_far
            ) / (most_far - least_far)
    end as mas,
    case when with_foil > 0 then coalesce(flip, 1) end as contrastive_flip
from aligned;
