-- The words of a whole text as a method ranks them, beside its human rationale: one row per row of
-- the corpus and method. What `document_plausibility` is computed from.
--
-- A word's score is the sum of its tokens' scores in `document_tokens`, which are means over the
-- windows, or the largest of them, as `methods.word_score` says. Of windows that explain different
-- classes, those of the class that most of the text's places have count (of equals, the document's
-- prediction). Words of the first text alone have rationales here. Words without a score, beyond
-- the model's limit or in windows that failed or explain another class, are the last of the
-- ranking, in the order of the text: `unseen` counts them. Texts without a rationale have no row,
-- nor have those whose rationale marks no word or all of them.
--
-- What is marked in words that the model never saw is known where `instances.text_rationale` is
-- there; in older runs, and pre-tokenised corpora, the text ends with its last word that was seen.
--
-- Columns:
--   words   Number of words of the text
--   unseen  Number of them without a score
--   marked  The words in the rationale, counted from 1, in the order of the text
--   ranked  The words from the highest score to the lowest; of equal scores, the earlier first
--   scores  Score of each word, in the order of the text; unseen ones have that of the lowest less 1
create view document_word_ranks as
with classes as (
    select
        t.row_id,
        t.method,
        t.question,
        t.target,
        count(*) as places,
        bool_or(t.target = d.prediction) as predicted
    from document_tokens as t
    left join documents as d
        on t.row_id = d.row_id and t.question is not distinct from d.question
    where t.layer is null and t.rationale is not null
    group by all
),

chosen as (
    select
        row_id,
        method,
        question,
        arg_max(struct_pack(target := target), (places, coalesce(predicted, false)::int)) as own
    from classes
    group by all
),

by_word as (
    select
        t.row_id,
        t.method,
        t.question,
        t.word_id,
        case when any_value(m.word_score) = 'sum' then sum(t.score) else max(t.score) end as score,
        max(t.rationale) as rationale
    from document_tokens as t
    join chosen as c
        on t.row_id = c.row_id and t.method = c.method
        and t.question is not distinct from c.question
        and t.target is not distinct from c.own.target
    left join methods as m on t.method = m.method
    where t.layer is null and t.segment = 0 and t.word_id is not null and isfinite(t.score)
    group by t.row_id, t.method, t.question, t.word_id
),

texts as (
    select row_id, any_value(text_rationale) as text_rationale
    from instances
    where text_rationale is not null
    group by row_id
),

lists as (
    select
        w.row_id,
        w.method,
        w.question,
        map(list(w.word_id), list(w.score)) as score_of,
        any_value(t.text_rationale) as text_rationale,
        map(list(w.word_id), list(w.rationale)) as rationale_of,
        coalesce(len(any_value(t.text_rationale)), max(w.word_id) + 1)::bigint as words,
        min(w.score) - 1 as least
    from by_word as w
    left join texts as t using (row_id)
    group by w.row_id, w.method, w.question
),

filled as (
    select
        *,
        words - cardinality(score_of)::bigint as unseen,
        list_transform(range(words), lambda w: coalesce(score_of[w::int], least)) as scores,
        list_filter(
            range(1, words + 1),
            lambda w: coalesce(text_rationale[w], rationale_of[(w - 1)::int], 0) = 1
        ) as marked
    from lists
)

select
    row_id,
    method,
    question,
    words,
    unseen,
    marked,
    list_grade_up(list_transform(scores, lambda s, i: {'score': -s, 'at': i})) as ranked,
    scores
from filled
where len(marked) between 1 and words - 1;
