-- What each token that follows comes from, by the parts of the prompt: a row per method, token and
-- part, the part of the largest score first.
--
-- Columns:
--   row_id         Row of the corpus
--   question       Number of the token that follows, from 0; null for all of them at once
--   output         Its string
--   segment        Number of the part, from 0; null for what is of no part (a template's tokens, say,
--                  and what was said before)
--   kind           What the part is: a role of messages, document, sentence, or as the corpus says;
--                  else prompt or continuation
--   tokens         Number of its tokens
--   text           Its tokens, one after the other
--   score          Sum of their scores; what all tokens of a word or a part share (unit=word,
--                  unit=segment, sources=segments) counts once, so that long ones don't lead for that
--   share          Its share of the sum of the absolute sums of all parts
--   rank           By score, from 1
create view continuation_sources as
with ways as (
    select
        method,
        additive,
        json_extract_string(params, '$.unit') as unit,
        json_extract_string(params, '$.sources') as sources
    from methods
),

cells as (
    select
        c.*,
        case
            when w.additive or c.segment is null then c.position
            when 'segment' = w.unit or 'segments' = w.sources then -1
            when w.unit in ('word', 'bag')
                then coalesce(i.word_ids[c.position + 1], -2 - c.position)
            else c.position
        end as shared
    from continuations as c
    join instances as i using (instance_id)
    join ways as w using (method)
),

counted as (
    select
        *,
        row_number() over (
            partition by instance_id, method, segment, source, shared
            order by position
        ) = 1 as is_first
    from cells
),

parts as (
    select
        row_id,
        instance_id,
        method,
        question,
        output,
        segment,
        any_value(source) as source,
        count(*) as tokens,
        string_agg(token, ' ' order by position) as text,
        sum(score::double) filter (where is_first) as score
    from counted
    group by row_id, instance_id, method, question, output, segment, source
)

select
    p.row_id,
    p.instance_id,
    p.method,
    p.question,
    p.output,
    p.segment,
    coalesce(i.segments[p.segment + 1].kind, p.source) as kind,
    p.tokens,
    p.text,
    p.score,
    abs(p.score) / nullif(sum(abs(p.score)) over of_question, 0) as share,
    rank() over (
        partition by p.instance_id, p.method
        order by p.score desc
    ) as "rank"
from parts as p
join instances as i using (instance_id)
window of_question as (partition by p.instance_id, p.method)
order by p.row_id, p.method, p.question, "rank";
