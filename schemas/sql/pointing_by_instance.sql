-- Where a method's relevance lies, beside the human rationale: one row per instance and method.
--
-- Of the same words, scores and instances as `plausibility_by_instance` (see `word_ranks`). What
-- fools them is said in `pointing`.
--
-- Metrics:
--   pointing        higher is better; 0 to 1
--   relevance_mass  higher is better; 0 to 1
--   roc_auc         higher is better; 0 to 1
--
-- Columns:
--   words           Number of words n
--   marked          Number of words in the rationale m
--   pointing        Whether the word with the highest score (of equal ones, the first) is in the
--                   rationale, 1 or 0; higher is better. Zhang et al. 2018 (pointing game)
--   chance          m / n: what pointing is for a random order, on average
--   relevance_mass  Share of the sum of the positive scores that lies in the rationale, 0 to 1;
--                   higher is better. Null if no score is positive. Arras et al. 2022
--   roc_auc         Area under the ROC curve: of all pairs of a word in the rationale and one that
--                   isn't, the share in which the former scores higher, of equal ones half; 0 to 1,
--                   0.5 for a random order; higher is better
create view pointing_by_instance as
with hits as (
    select
        *,
        len(marked) as m,
        list_transform(marked, lambda word: scores[word]) as hits
    from word_ranks
),

summed as (
    select
        *,
        list_sum(list_transform(scores, lambda s: greatest(s, 0)::double)) as positive,
        list_sum(list_transform(hits, lambda s: greatest(s, 0)::double)) as positive_marked,
        -- Twice the words that each of the marked ones beats, and once those that it equals.
        list_sum(list_transform(
            hits,
            lambda h: len(list_filter(scores, lambda s: s < h))
                + len(list_filter(scores, lambda s: s <= h))
        )) as beaten_twice
    from hits
)

select
    instance_id,
    method,
    words,
    m as marked,
    list_contains(marked, ranked[1])::int as pointing,
    m / words as chance,
    positive_marked / nullif(positive, 0) as relevance_mass,
    -- The marked words beat each other m * m / 2 times.
    (beaten_twice - m * m) / (2 * m * (words - m)) as roc_auc
from summed;
