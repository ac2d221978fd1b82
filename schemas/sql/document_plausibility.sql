-- How well each method finds the words of human rationales in whole texts, its windows put
-- together: one row per method, means over rows of the corpus (and questions about them). Every
-- text counts the same. It is what published numbers of long documents are of; `plausibility` is of
-- instances, which may be parts of texts.
--
-- `eraser_token_f1` and `eraser_iou_f1` choose the same share of every text, the mean share of the
-- corpus's rationales, as DeYoung et al. 2020 (ERASER) do; `token_f1` as many words as the text's
-- own rationale has. All are from 0 to 1, and higher is better.
--
-- What fools it: that people agree makes no explanation faithful. Words that the model never saw
-- have no score, rank last, and are missed where the rationale marks them, as in ERASER's code:
-- `unseen` says how many there are, and a run with `--overflow stride` sees them all. In older runs
-- such words are unknown, and values too high. Tokens in several windows have the mean of scores
-- that are of different contexts. A larger share is easier to hit: hold values against `random`.
--
-- Methods are compared on the texts that all of them rank:
--
--   from document_plausibility_over(common := false)
--   from document_plausibility_over(methods := ['lime', 'saliency'])
--
-- Metrics:
--   token_f1           higher is better; 0 to 1
--   eraser_token_f1    higher is better; 0 to 1
--   eraser_iou_f1      higher is better; 0 to 1
--   average_precision  higher is better; 0 to 1
--   auprc              higher is better; 0 to 1
--
-- Columns:
--   n                  Number of texts (and questions about them)
--   token_f1           Mean share of the m highest words that are in a rationale of m words
--   eraser_share       Mean share of the words that is in the rationale
--   eraser_token_f1    Mean F1 of that share of the words
--   eraser_iou_f1      F1 of the mean precision and recall of spans with an intersection over union
--                      of at least 0.5, of that share of the words
--   average_precision  Mean average precision of the ranking of words
--   auprc              Mean area under the precision-recall curve, trapezoidal, from precision 1 at
--                      recall 0
--   text_words         Number of words of the n texts
--   unseen             Number of them without a score
--   left_out           Number of texts that some method ranks and that are not among n
create macro document_plausibility_over(common := true, methods := null) as table
with every as materialized (
    select *, coalesce(question, -1) as asked
    from document_word_ranks
    where methods is null or list_contains(methods, method)
),

texts as (
    select
        row_id,
        asked,
        count(*) as by_methods,
        avg(len(marked) / words) as share
    from every
    group by row_id, asked
),

shares as (
    select avg(share) as share, count(*) as total from texts
),

picked as (
    select
        e.*,
        s.share,
        s.total,
        len(e.marked) as m,
        greatest(1, floor(s.share * e.words + 0.5))::bigint as k,
        list_sort(e.ranked[1:k]) as eraser,
        span_firsts(e.marked, e.first_words) as true_firsts,
        span_lasts(e.marked, e.first_words) as true_lasts,
        span_firsts(eraser, e.first_words) as firsts,
        span_lasts(eraser, e.first_words) as lasts,
        list_transform(e.marked, lambda w: e.scores[w]) as hits
    from every as e
    join texts as t using (row_id, asked)
    cross join shares as s
    where not common or t.by_methods = (select count(distinct method) from every)
),

measured as (
    select
        *,
        matching_spans(firsts, lasts, true_firsts, true_lasts) as matches,
        list_avg(list_transform(
            hits,
            lambda h: len(list_filter(hits, lambda s: s >= h))
                / len(list_filter(scores, lambda s: s >= h))
        )) as precision_with,
        list_avg(list_transform(
            hits,
            lambda h: coalesce(
                len(list_filter(hits, lambda s: s > h))
                / nullif(len(list_filter(scores, lambda s: s > h)), 0),
                1
            )
        )) as precision_before
    from picked
),

means as (
    select
        method,
        count(*) as n,
        avg(len(list_intersect(ranked[1:m], marked)) / m) as token_f1,
        any_value(share) as eraser_share,
        avg(2 * len(list_intersect(eraser, marked)) / (k + m)) as eraser_token_f1,
        harmonic_mean(avg(matches / len(firsts)), avg(matches / len(true_firsts)))
            as eraser_iou_f1,
        avg(precision_with) as average_precision,
        avg((precision_with + precision_before) / 2) as auprc,
        sum(words)::bigint as text_words,
        sum(unseen)::bigint as unseen
    from measured
    group by method
)

select
    method,
    coalesce(n, 0) as n,
    token_f1,
    eraser_share,
    eraser_token_f1,
    eraser_iou_f1,
    average_precision,
    auprc,
    text_words,
    unseen,
    (select total from shares) - coalesce(n, 0) as left_out
from (select distinct method from every)
left join means using (method)
order by method;

create view document_plausibility as
from document_plausibility_over();
