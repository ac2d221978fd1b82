-- How well a method finds the words of the human rationale: one row per instance and method.
--
-- See `word_ranks` for the score of a word, and for the instances that are left out: those without
-- a rationale, and those whose rationale marks no word or all of them.
--
-- Metrics of a choice of words choose as many as the rationale has, m; precision, recall and F1 are
-- then the same. `plausibility` also has the two usual choices of the same size for a whole corpus.
-- Spans are runs of neighbouring words, of the choice and of the rationale; none goes on from the
-- first text of a pair to the second.
--
-- What fools them is said in `plausibility`.
--
-- Metrics:
--   token_f1           higher is better; 0 to 1
--   token_iou          higher is better; 0 to 1
--   iou_precision      higher is better; 0 to 1
--   iou_recall         higher is better; 0 to 1
--   iou_f1             higher is better; 0 to 1
--   average_precision  higher is better; 0 to 1
--   auprc              higher is better; 0 to 1
--
-- Columns:
--   words              Number of words n
--   marked             Number of words in the rationale m
--   token_f1           Share of the m words with the highest scores that are in the rationale
--   token_iou          Of these and the rationale's, those in both over those in either
--   iou_precision      Share of the chosen spans whose intersection over union with a span of the
--                      rationale is at least 0.5. DeYoung et al. 2020 (ERASER)
--   iou_recall         Share of the rationale's spans that are matched so
--   iou_f1             Harmonic mean of both; 0 if nothing matches
--   average_precision  Mean over the rationale's words of the precision among the words that score
--                      as high or higher; what a random order has is about m / n
--   auprc              Area under the precision-recall curve by the trapezoidal rule, from
--                      precision 1 at recall 0, a point per distinct score: more than
--                      average_precision, as ERASER and HateXplain have it
--   rationale          The words in the rationale, counted from 1, in the order of the text
--   ranked             The words from the highest score to the lowest; of equal scores, the earlier
--                      first
--   text_words         Number of words of the whole text: more than n if it was cut or windowed
--   unseen             text_words - n: words that the instance lacks, beyond the model's limit or
--                      in other windows, where the rationale may mark some too
--   first_words        Number of the n words that are of the first text of a pair; a rationale of
--                      both marks words of both, and those of the second are counted on
create view plausibility_by_instance as
with chosen as (
    select
        *,
        len(marked) as m,
        list_sort(ranked[1:m]) as chosen,
        list_transform(marked, lambda word: scores[word]) as hits
    from word_ranks
),

spans as (
    select
        *,
        len(list_intersect(chosen, marked)) as found,
        span_firsts(chosen, first_words) as firsts,
        span_lasts(chosen, first_words) as lasts,
        span_firsts(marked, first_words) as true_firsts,
        span_lasts(marked, first_words) as true_lasts,
        -- Precision among the words that score as high as each marked one, and among the higher.
        list_transform(
            hits,
            lambda h: len(list_filter(hits, lambda s: s >= h))
                / len(list_filter(scores, lambda s: s >= h))
        ) as precisions,
        list_transform(
            hits,
            lambda h: coalesce(
                len(list_filter(hits, lambda s: s > h))
                / nullif(len(list_filter(scores, lambda s: s > h)), 0),
                1
            )
        ) as before
    from chosen
),

matched as (
    select
        *,
        matching_spans(firsts, lasts, true_firsts, true_lasts) as matches
    from spans
),

-- Instances that aren't whole texts. The text of several windows is stored once.
parts as (
    select
        i.instance_id,
        coalesce(i.rationale_segments, [0]) as own_texts,
        if(list_contains(own_texts, 0), word_count(t.text), 0)
            + if(list_contains(own_texts, 1), word_count(t.text_pair), 0) as text_words
    from instances as i
    left join (
        select row_id, text, text_pair from instances where text is not null
    ) as t using (row_id)
    where i.rationale is not null and (i.truncated or i."window" is not null)
)

select
    matched.instance_id,
    method,
    words,
    m as marked,
    found / m as token_f1,
    found / (2 * m - found) as token_iou,
    matches / len(firsts) as iou_precision,
    matches / len(true_firsts) as iou_recall,
    2 * matches / (len(firsts) + len(true_firsts)) as iou_f1,
    list_avg(precisions) as average_precision,
    (average_precision + list_avg(before)) / 2 as auprc,
    marked as rationale,
    ranked,
    case when p.instance_id is null then words else p.text_words end as text_words,
    case when p.instance_id is null then 0 else p.text_words - words end as unseen,
    first_words
from matched
left join parts as p using (instance_id);
