-- What each token that follows a prompt comes from: the table of T_out x T_in, a row per cell.
--
-- The columns of a token are all tokens before it, of the prompt and of the continuation; sums over
-- those of the prompt alone are not complete. Scores are raw. `pivot continuations on position
-- using any_value(score) group by method, question, output` is the table as it is drawn.
--
-- Columns:
--   row_id     Row of the corpus
--   question   Number of the token that follows, from 0; null for all of them at once
--   output     Its string
--   position   Index of the token that it comes from, from 0; special tokens count
--   token      The string of that one
--   source     prompt or continuation: what it is of
--   segment    Number of its part of the prompt, from 0 (`continuation_sources`); null of none
--   removable  False where no perturbation removes it: special tokens (the first, those of a chat
--              template), and the one that the next is read from; with all at once the continuation
--   score      Raw score of the token
create view continuations as
with long as (
    select
        i.row_id,
        i.instance_id,
        a.method,
        a.target,
        i.question,
        i.token as output,
        i.prompt_length,
        i.readout,
        i.segments,
        generate_subscripts(a.scores, 1) - 1 as position,
        unnest(i.tokens) as token,
        unnest(i.special) as special,
        unnest(a.scores) as score
    from attributions as a
    join instances as i using (instance_id)
    where i.question_kind in ('next', 'all') and a.layer is null
)

select
    row_id,
    instance_id,
    method,
    target,
    question,
    output,
    position,
    token,
    case when position < prompt_length then 'prompt' else 'continuation' end as source,
    list_position(
        list_transform(segments, lambda s: not special and position between s."first" and s."last"),
        true
    ) - 1 as segment,
    not special and position <> coalesce(readout, -1)
        and (question is not null or position < prompt_length - 1) as removable,
    score
from long;
