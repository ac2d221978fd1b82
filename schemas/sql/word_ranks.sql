-- The words of an instance as a method ranks them, beside its human rationale: one row per instance
-- and method. What `plausibility` is computed from.
--
-- A word's score is the sum of its tokens' or the largest of them, as `methods.word_score` says:
-- the sum of an additive method, else the largest (Chefer et al. 2021). It is `score` of `words`,
-- and the curves that remove words have the same ranking. Words are those of the texts that the
-- rationale is of, the first alone or as `instances.rationale_segments` says, and as far as the
-- model's limit let them in. Those of a pair are ranked together, and counted on from the first
-- text to the second. Instances without a rationale have no row, nor have those whose rationale
-- marks no word or all of them: no ranking is better than another there. Nor have scores that
-- aren't all finite.
--
-- Columns:
--   words        Number of words
--   marked       The words in the rationale, counted from 1, in the order of the text
--   ranked       The words from the highest score to the lowest; of equal scores, the earlier first
--   scores       Score of each word, in the order of the text
--   first_words  Number of the words that are of the first text; further ones are of the second
create view word_ranks as
with starts as (
    select
        instance_id,
        rationale,
        segment,
        list_filter(
            range(1, len(word_ids) + 1),
            lambda t: word_ids[t] is not null
                and list_contains(coalesce(rationale_segments, [0]), segment[t])
        ) as inner_tokens,
        list_filter(
            inner_tokens,
            lambda t: t = 1
                or word_ids[t - 1] is distinct from word_ids[t]
                or segment[t - 1] <> segment[t]
        ) as starts,
        -- The last tokens of the texts, which special ones may follow.
        list_filter(
            inner_tokens,
            lambda t, i: segment[t] is distinct from segment[inner_tokens[i + 1]]
        ) as lasts
    from instances
    where rationale is not null
),

bounds as (
    select
        instance_id,
        starts,
        list_transform(
            list_append(starts[2:], null),
            lambda next, word: case
                when segment[next] = segment[starts[word]] then next - 1
                when segment[starts[word]] = segment[lasts[1]] then lasts[1]
                else lasts[2]
            end
        ) as ends,
        len(starts) as words,
        len(list_filter(starts, lambda t: segment[t] = 0)) as first_words,
        list_filter(
            range(1, len(starts) + 1),
            lambda word: rationale[starts[word]] = 1
        ) as marked
    from starts
    where len(marked) between 1 and words - 1
),

scored as (
    select
        a.instance_id,
        a.method,
        b.words,
        b.marked,
        b.first_words,
        case
            when m.word_score = 'sum' then list_transform(
                b.starts,
                lambda start, word: list_sum(a.scores[start:b.ends[word]])
            )
            else list_transform(
                b.starts,
                lambda start, word: list_max(a.scores[start:b.ends[word]])
            )
        end as scores
    from attributions as a
    join bounds as b using (instance_id)
    left join methods as m using (method)
    where a.layer is null and isfinite(list_sum(a.scores))
)

select
    instance_id,
    method,
    words,
    marked,
    case
        when list_unique(scores) < words
            then list_grade_up(list_transform(scores, lambda s, i: {'score': -s, 'at': i}))
        else list_grade_up(list_transform(scores, lambda s: -s))
    end as ranked,
    scores,
    first_words
from scored;
