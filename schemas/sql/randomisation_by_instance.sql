-- How far a method's scores for one instance stay as they are while the model's weights are
-- randomised (`attribeam check`): one row per check, instance, method and stage, over the tokens
-- that can be removed. Rows of `kind` class are of the untouched model and another class. What it
-- means, and what fools it, is said in `randomisation` and `random_logit`.
--
-- Rows that failed, and scores that aren't all finite, have none.
--
-- Metrics:
--   spearman           lower is better; -1 to 1
--   spearman_absolute  lower is better; -1 to 1
--   jaccard            lower is better; 0 to 1
--   spearman_smoothed  lower is better; -1 to 1
--
-- Columns:
--   tokens             Number n of tokens that are compared
--   spearman           Spearman's correlation with the scores of the untouched model, -1 to 1; low
--                      is good. Null where either gives all tokens the same score, or of one token
--   spearman_absolute  The same of absolute scores: whether the same words matter, whatever for
--   jaccard            Of the quarter of the tokens that each scores highest, those in both over
--                      those in either, 0 to 1; low is good
--   spearman_smoothed  `spearman` of the means over noised inputs, of either model; null without
--                      --smooth. Hedstroem et al. 2024 (sMPRT)
--   changed            Whether the model predicts another class than before
create view randomisation_by_instance as
with compared as (
    select
        r.*,
        w.prediction as prediction_before,
        removable_positions(i.special, i.readout) as positions,
        list_select(r.scores, positions)::double[] as after,
        list_select(w.scores, positions)::double[] as before,
        list_select(r.smoothed, positions)::double[] as smooth_after,
        list_select(w.smoothed, positions)::double[] as smooth_before
    from randomised as r
    join randomised as w using (evaluation, instance_id, method)
    join instances as i using (instance_id)
    where r.kind <> 'whole' and w.kind = 'whole'
        and isfinite(list_sum(r.scores)) and isfinite(list_sum(w.scores))
),

topped as (
    select
        *,
        greatest(1, floor(len(positions) / 4 + 0.5))::bigint as k,
        list_grade_up(list_transform(after, lambda s, i: {'score': -s, 'at': i}))[1:k] as top_after,
        list_grade_up(list_transform(before, lambda s, i: {'score': -s, 'at': i}))[1:k]
            as top_before
    from compared
    where len(positions) > 0
)

select
    evaluation,
    instance_id,
    method,
    kind,
    weights,
    seed,
    stage,
    part,
    len(positions) as tokens,
    rank_correlation(before, after) as spearman,
    rank_correlation(
        list_transform(before, lambda s: abs(s)), list_transform(after, lambda s: abs(s))
    ) as spearman_absolute,
    len(list_intersect(top_before, top_after)) / len(list_distinct(top_before || top_after))
        as jaccard,
    case
        when smooth_before is not null and smooth_after is not null
            then rank_correlation(smooth_before, smooth_after)
    end as spearman_smoothed,
    prediction <> prediction_before as changed
from topped;
