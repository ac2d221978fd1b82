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
create view document_tokens as
with places as (
    select
        i.row_id,
        t.instance_id,
        t.method,
        t.target,
        t.layer,
        t.segment,
        t.word_id,
        t.char_start,
        t.char_end,
        string_agg(t.token, '' order by t.position) as token,
        count(*) as tokens,
        sum(t.score) as score,
        max(t.rationale) as rationale
    from tokens as t
    join instances as i using (instance_id)
    where not t.special
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
    arg_max(token, tokens) as token,
    avg(score) as score,
    count(*) as windows,
    max(rationale) as rationale
from places
group by all;
