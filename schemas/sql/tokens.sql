-- Attributions in long form: one row per token of an instance under a method.
--
-- Special tokens are rows too; `where not special` leaves them out. Scores are raw.
--
-- Columns:
--   position    Index of the token in the instance, from 0; special tokens count
--   token       The token string
--   input_id    Vocabulary id of the token
--   word_id     Index of the word within its text; null for a special token
--   segment     0 for the first text, 1 for the second
--   char_start  First character of the token in its text, from 0
--   char_end    End character (exclusive) of the token in its text
--   rationale   1 where the token's word is in the human rationale, else 0; null without one
--   score       Raw score of the token
create view tokens as
select
    a.instance_id,
    a.method,
    a.target,
    a.layer,
    generate_subscripts(a.scores, 1) - 1 as position,
    unnest(i.tokens) as token,
    unnest(i.input_ids) as input_id,
    unnest(i.word_ids) as word_id,
    unnest(i.special) as special,
    unnest(i.segment) as segment,
    unnest(i.char_start) as char_start,
    unnest(i.char_end) as char_end,
    unnest(i.rationale) as rationale,
    unnest(a.scores) as score
from attributions as a
join instances as i using (instance_id);
