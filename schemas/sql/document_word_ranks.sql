-- The words of a whole text as a method ranks them, beside its human rationale: one row per row of
-- the corpus and method. What `document_plausibility` is computed from.
--
-- A word's score is the sum of its tokens' scores in `document_tokens`, which are means over the
-- windows, or the largest of them, as `methods.word_score` says. Of windows that explain different
-- classes, those of the class that most of the text's places have count (of equals, the document's
-- prediction). Words are those of the texts that the rationale is of, the first alone or as
-- `instances.rationale_segments` says; those of a pair are ranked together, and counted on from the
-- first text to the second. Words without a score, beyond the model's limit or in windows that
-- failed or explain another class, are the last of the ranking, in the order of the text: `unseen`
-- counts them. Texts without a rationale have no row, nor have those whose rationale marks no word
-- or all of them.
--
-- What is marked in words that the model never saw is known where `instances.text_rationale` and
-- `text_pair_rationale` are there; in older runs, and pre-tokenised corpora, the text ends with its
-- last word that was seen.
--
-- Columns:
--   words        Number of words of the text, or the texts
--   unseen       Number of them without a score
--   marked       The words in the rationale, counted from 1, in the order of the text
--   ranked       The words from the highest score to the lowest; of equal scores, the earlier first
--   scores       Score of each word, in the order of the text; unseen ones have that of the lowest
--                less 1
--   first_words  Number of the words that are of the first text; further ones are of the second
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

-- What the rationale is of; and all its marks, of texts that are in parts.
texts as (
    select
        row_id,
        any_value(coalesce(rationale_segments, [0])) as segments,
        any_value(text_rationale) as first_marks,
        any_value(text_pair_rationale) as pair_marks
    from instances
    where rationale is not null
    group by row_id
),

by_word as (
    select
        t.row_id,
        t.method,
        t.question,
        t.segment,
        t.word_id,
        t.segment * 4294967296 + t.word_id as key,
        case when any_value(m.word_score) = 'sum' then sum(t.score) else max(t.score) end as score,
        max(t.rationale) as rationale
    from document_tokens as t
    join chosen as c
        on t.row_id = c.row_id and t.method = c.method
        and t.question is not distinct from c.question
        and t.target is not distinct from c.own.target
    join texts as own on t.row_id = own.row_id and list_contains(own.segments, t.segment)
    left join methods as m on t.method = m.method
    where t.layer is null and t.word_id is not null and isfinite(t.score)
    group by t.row_id, t.method, t.question, t.segment, t.word_id
),

lists as (
    select
        w.row_id,
        w.method,
        w.question,
        coalesce(
            len(any_value(t.first_marks)), max(w.word_id) filter (w.segment = 0) + 1, 0
        )::bigint as first_words,
        first_words + coalesce(
            len(any_value(t.pair_marks)), max(w.word_id) filter (w.segment = 1) + 1, 0
        )::bigint as words,
        map(list(w.key), list(w.score)) as score_of,
        map(list(w.key), list(w.rationale)) as rationale_of,
        list_concat(any_value(t.first_marks), any_value(t.pair_marks)) as marks,
        min(w.score) - 1 as least
    from by_word as w
    left join texts as t using (row_id)
    group by w.row_id, w.method, w.question
),

filled as (
    select
        *,
        words - cardinality(score_of)::bigint as unseen,
        list_transform(
            range(words), lambda w: if(w < first_words, w, w - first_words + 4294967296)
        ) as keys,
        list_transform(keys, lambda key: coalesce(score_of[key], least)) as scores,
        list_filter(
            range(1, words + 1),
            lambda w: coalesce(marks[w], rationale_of[keys[w]], 0) = 1
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
    scores,
    first_words
from filled
where len(marked) between 1 and words - 1;
