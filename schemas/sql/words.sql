-- Attributions aggregated to words: one row per word of an instance under a method.
--
-- Which aggregate is right depends on the method: the sum keeps an additive method complete, the
-- maximum is usual where a score is a magnitude, the mean does not favour words of many tokens.
-- Special tokens belong to no word and have no row.
--
-- Columns:
--   segment     0 for the first text, 1 for the second
--   word_id     Index of the word within its text, from 0
--   word        The word as it stands in the text; null for a pre-tokenised corpus
--   position    Index of the word's first token in the instance, from 0
--   tokens      Number of tokens of the word
--   score_sum   Sum of the scores of the word's tokens
--   score_max   Largest score of the word's tokens (signed)
--   score_mean  Mean score of the word's tokens
--   rationale   1 where the word is in the human rationale, else 0; null without one
create view words as
with grouped as (
    select
        instance_id,
        method,
        target,
        layer,
        segment,
        word_id,
        min(char_start) as char_start,
        max(char_end) as char_end,
        min(position) as position,
        count(*) as tokens,
        sum(score) as score_sum,
        max(score) as score_max,
        avg(score) as score_mean,
        max(rationale) as rationale
    from tokens
    where word_id is not null
    group by all
)
select
    g.instance_id,
    g.method,
    g.target,
    g.layer,
    g.segment,
    g.word_id,
    substring(
        case when g.segment = 1 then t.text_pair else t.text end,
        g.char_start + 1,
        g.char_end - g.char_start
    ) as word,
    g.position,
    g.tokens,
    g.score_sum,
    g.score_max,
    g.score_mean,
    g.rationale
from grouped as g
join instances as i using (instance_id)
-- The text of several windows is stored once.
left join (
    select row_id, text, text_pair from instances where text is not null
) as t using (row_id);
