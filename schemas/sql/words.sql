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

-- What of each word is the same under every method: where its tokens begin and end in the text, and
-- the characters before and after, up to 64, that no other word has.
placed as (
    select
        instance_id,
        row_id,
        starts,
        ends,
        list_select(segment, starts) as segments,
        list_select(word_ids, starts) as word_ids,
        list_select(rationale, starts) as rationales,
        list_select(char_start, starts) as firsts,
        list_select(char_end, ends) as pasts,
        list_transform(
            list_zip(
                segments, firsts, pasts, list_prepend(null, segments), list_prepend(null, pasts),
                segments[2:], firsts[2:]
            ),
            lambda w: {
                'segment': w[1],
                'first': w[2],
                'width': w[3] - w[2],
                'before': least(if(w[1] = w[4], greatest(w[2] - w[5], 0), w[2]), 64),
                'after': if(w[1] = w[6], least(greatest(w[7] - w[3], 0), 64), 64)
            }
        )[:len(starts)] as spans
    from edges
),

-- Only what is around each word is looked at, since texts may be long.
excerpted as (
    select
        p.* exclude (row_id),
        list_transform(
            p.spans,
            lambda span: substring(
                if(span['segment'] = 1, t.text_pair, t.text),
                span['first'] - span['before'] + 1,
                span['before'] + span['width'] + span['after']
            )
        ) as excerpts
    from placed as p
    -- The text of several windows is stored once.
    left join (
        select row_id, text, text_pair from instances where text is not null
    ) as t using (row_id)
),

spelled as (
    select
        * exclude (spans, excerpts),
        list_transform(
            list_zip(excerpts, spans),
            lambda w: word_within(w[1], w[2]['before'], w[2]['width'])
        ) as words
    from excerpted
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
    join spelled as p using (instance_id)
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
