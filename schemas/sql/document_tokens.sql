-- Attributions of whole rows of the corpus: one row per place in the text, under a method.
--
-- Under `--overflow stride` neighbouring windows overlap, and each gives a token of the overlap a
-- score. Here that is the mean over the windows that the token is in. Windows that explain
-- different classes (those that they predict) are kept apart, so a place has a row for each class;
-- `--target N` explains one in all windows. Special tokens, which belong to no place, have no row.
--
-- A place is what a token's characters say; tokens of the same characters (parts of a byte-level
-- emoji) are one, with the sum of their scores. In a pre-tokenised corpus, which has no characters,
-- it is the token's number among the row's tokens: `word_id`.
--
-- Columns:
--   segment     0 for the first text, 1 for the second
--   word_id     Index of the word within its text
--   char_start  First character in the text, from 0; null for a pre-tokenised corpus
--   char_end    End character (exclusive)
--   token       The token string; those of the same characters together
--   score       Mean over the windows of the raw score
--   windows     Number of windows that the mean is over
--   rationale   1 where the place's word is in the human rationale, else 0; null without one
--   question    Number of the question about the row; null where there is but one
create view document_tokens as
with placed as (
    select
        *,
        list_transform(
            list_zip(segment, coalesce(char_start, word_ids), special),
            lambda t: case when not t[3] then t[1] * 4294967296 + t[2] end
        ) as places,
        -- Most rows fit, and have a token to a place: nothing is to be put together there.
        "window" is null and list_unique(places) = len(special) - list_sum(special::int[]) as plain
    from instances
),

-- Not materialized: it has every token under every method, and nearly all are of one branch below.
exploded as not materialized (
    select
        i.row_id,
        i.instance_id,
        i.plain,
        a.method,
        a.target,
        a.layer,
        unnest(i.segment) as segment,
        unnest(i.word_ids) as word_id,
        unnest(i.char_start) as char_start,
        unnest(i.char_end) as char_end,
        unnest(i.tokens) as token,
        unnest(i.special) as special,
        unnest(a.scores) as score,
        unnest(i.rationale) as rationale,
        i.question,
        generate_subscripts(i.tokens, 1) as position
    from attributions as a
    join placed as i using (instance_id)
),

by_window as (
    select
        row_id,
        instance_id,
        method,
        target,
        layer,
        segment,
        word_id,
        char_start,
        char_end,
        string_agg(token, '' order by position) as token,
        count(*) as tokens,
        sum(score) as score,
        max(rationale) as rationale,
        question
    from exploded
    where not plain and not special
    group by all
)

select
    row_id,
    method,
    target,
    layer,
    segment,
    word_id,
    char_start,
    char_end,
    token,
    score::double as score,
    1::bigint as windows,
    rationale,
    question
from exploded
where plain and not special
union all
select
    row_id,
    method,
    target,
    layer,
    segment,
    word_id,
    char_start,
    char_end,
    arg_max(token, tokens) as token,
    avg(score) as score,
    count(*) as windows,
    max(rationale) as rationale,
    question
from by_window
group by all;
