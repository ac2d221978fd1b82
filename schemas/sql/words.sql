-- Attributions aggregated to words: one row per word of an instance under a method.
--
-- Which aggregate is right depends on the method: the sum keeps an additive method complete, the
-- maximum is usual where a score is a magnitude, the mean does not favour words of many tokens.
-- Special tokens belong to no word and have no row. `score` is the one that the method's words are
-- ranked by, in the curves that remove words and in `word_ranks`.
--
-- Columns:
--   segment     0 for the first text, 1 for the second
--   word_id     Index of the word within its text, from 0
--   word        The word as it stands in the text, without the whitespace around it; null for a
--               pre-tokenised corpus
--   position    Index of the word's first token in the instance, from 0
--   tokens      Number of tokens of the word
--   score_sum   Sum of the scores of the word's tokens
--   score_max   Largest score of the word's tokens (signed)
--   score_mean  Mean score of the word's tokens
--   rationale   1 where the word is in the human rationale, else 0; null without one
--   score       score_sum or score_max, as `methods.word_score` says
create view words as
with edges as (
    select
        instance_id,
        row_id,
        segment,
        word_ids,
        char_start,
        char_end,
        rationale,
        -- A word's tokens are neighbours.
        list_filter(
            range(1, len(word_ids) + 1),
            lambda t: word_ids[t] is not null and (
                t = 1
                or word_ids[t - 1] is distinct from word_ids[t]
                or segment[t - 1] <> segment[t]
            )
        ) as starts,
        list_filter(
            range(1, len(word_ids) + 1),
            lambda t: word_ids[t] is not null and (
                t = len(word_ids)
                or word_ids[t + 1] is distinct from word_ids[t]
                or segment[t + 1] <> segment[t]
            )
        ) as ends
    from instances
),

-- What is the same under every method.
placed as (
    select
        e.instance_id,
        e.starts,
        e.ends,
        list_select(e.segment, e.starts) as segments,
        list_select(e.word_ids, e.starts) as word_ids,
        list_select(e.rationale, e.starts) as rationales,
        -- Where each word is, and what no other word of its text has before and after it.
        list_transform(
            e.starts,
            lambda start, w: {
                'segment': e.segment[start],
                'first': e.char_start[start],
                'past': e.char_end[e.ends[w]],
                'before': least(
                    case
                        when w > 1 and e.segment[e.starts[w - 1]] = e.segment[start]
                            then greatest(e.char_start[start] - e.char_end[e.ends[w - 1]], 0)
                        else e.char_start[start]
                    end,
                    64
                ),
                'after': case
                    when e.segment[e.starts[w + 1]] = e.segment[start]
                        then least(
                            greatest(e.char_start[e.starts[w + 1]] - e.char_end[e.ends[w]], 0), 64
                        )
                    else 64
                end
            }
        ) as spans,
        list_transform(
            spans,
            lambda span: word_within(
                substring(
                    case when span['segment'] = 1 then t.text_pair else t.text end,
                    span['first'] - span['before'] + 1,
                    span['past'] - span['first'] + span['before'] + span['after']
                ),
                span['before'],
                span['past'] - span['first']
            )
        ) as words
    from edges as e
    -- The text of several windows is stored once.
    left join (
        select row_id, text, text_pair from instances where text is not null
    ) as t using (row_id)
),

scored as (
    select
        a.instance_id,
        a.method,
        a.target,
        a.layer,
        m.word_score,
        unnest(p.segments) as segment,
        unnest(p.word_ids) as word_id,
        unnest(p.words) as word,
        unnest(p.starts) - 1 as position,
        unnest(list_transform(p.starts, lambda start, w: a.scores[start:p.ends[w]])) as scores,
        unnest(p.rationales) as rationale
    from attributions as a
    join placed as p using (instance_id)
    left join methods as m using (method)
)

select
    instance_id,
    method,
    target,
    layer,
    segment,
    word_id,
    word,
    position,
    len(scores) as tokens,
    list_sum(scores) as score_sum,
    list_max(scores) as score_max,
    list_avg(scores) as score_mean,
    rationale,
    case when word_score = 'sum' then score_sum else score_max end as score
from scored;
