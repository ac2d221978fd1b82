-- How well each method finds the words of human rationales: one row per method, over the instances
-- of `plausibility_by_instance`. Every instance counts the same.
--
-- Which words a ranking chooses is a convention. `token_f1` and `iou_f1` choose as many words as
-- the instance's own rationale has. ERASER (DeYoung et al. 2020) chooses the same share of every
-- text, the mean share of the corpus's rationales (rounded to words, at least one). HateXplain
-- (Mathew et al. 2021) chooses the same number, their mean length in words (5 there), or all words
-- of a shorter text, and takes each chosen word for a span of its own: as in its code, both words
-- of a span of two then match it, and recall may exceed 1. The corpus's means are over the
-- instances that some method ranks.
--
-- Methods are compared on the same instances, those that all of them rank. To compare each on all
-- that it ranks, or some of them alone:
--
--   from plausibility_over(common := false)
--   from plausibility_over(methods := ['lime', 'saliency'])
--
-- As in ERASER's code, token F1 is the mean of the instances' F1, and IoU F1 that of the mean
-- precision and the mean recall.
--
-- An instance that is part of a text, cut at the model's limit or a window of it, is ranked as if
-- it were the whole: what the rationale marks elsewhere is not there to be missed, and parts in
-- which it marks nothing are left out. Values are then others than those of whole texts, mostly
-- higher; `cut`, `unseen` and `unranked` say how much of the texts this is about.
--
-- What fools them: a rationale is what people find convincing, not what the model used, and a model
-- that is right for wrong reasons has faithful explanations that score low. Long rationales are
-- found by chance: hold `random` beside them. Unmarked words may matter too. Parts of texts lack
-- words that the rationale may mark (`unseen`).
--
-- Metrics:
--   token_f1             higher is better; 0 to 1
--   token_iou            higher is better; 0 to 1
--   iou_f1               higher is better; 0 to 1
--   average_precision    higher is better; 0 to 1
--   auprc                higher is better; 0 to 1
--   eraser_token_f1      higher is better; 0 to 1
--   eraser_iou_f1        higher is better; 0 to 1
--   hatexplain_token_f1  higher is better; 0 to 1
--   hatexplain_iou_f1    higher is better; 0 to 1
--
-- Columns:
--   n                    Number of instances
--   token_f1             Mean share of the m highest words that are in a rationale of m words
--   token_iou            Mean of intersection over union of the same words
--   iou_f1               F1 of spans with an intersection over union of at least 0.5
--   average_precision    Mean average precision of the ranking of words
--   auprc                Mean area under the precision-recall curve, trapezoidal
--   eraser_share         Mean share of the words that is in the rationale
--   eraser_token_f1      Token F1 of that share of the words
--   eraser_iou_f1        IoU F1 of that share of the words, runs of them being spans
--   hatexplain_words     Mean number of words in the rationale, rounded
--   hatexplain_token_f1  Token F1 of that many words
--   hatexplain_iou_f1    IoU F1 of that many words, each a span
--   cut                  Number of the n instances that are not a whole text: cut, or windows
--   texts                Number of rows of the corpus that the n instances are of
--   text_words           Number of words of these texts; null where one of them isn't stored
--   unseen               Number of these words that are in none of the n instances: beyond the cut
--                        or in windows that are left out. The rationale may mark some
--   unranked             Number of the method's instances with a rationale that can't be ranked,
--                        since what they have of it marks no word or all of them
--   left_out             Number of instances that some method ranks and that are not among n
create macro plausibility_over(common := true, methods := null) as table
with every as materialized (
    from plausibility_by_instance
    where methods is null or list_contains(methods, method)
),

ranked as (
    select
        instance_id,
        count(*) as by_methods,
        any_value(marked) as marked,
        any_value(words) as words
    from every
    group by instance_id
),

groups as (
    select method, count(*) as ranked
    from every
    group by method
),

found as (
    select e.*
    from every as e
    join ranked as r using (instance_id)
    where not common or r.by_methods = (select count(*) from groups)
),

sizes as (
    select
        avg(marked / words) as share,
        case when count(*) > 0 then greatest(1, floor(avg(marked) + 0.5))::bigint end as number
    from ranked
),

picked as (
    select
        f.method,
        f.marked as m,
        greatest(1, floor(s.share * f.words + 0.5))::bigint as eraser_k,
        least(s.number, f.words) as hatexplain_k,
        f.rationale,
        list_sort(f.ranked[1:eraser_k]) as eraser,
        f.ranked[1:hatexplain_k] as hatexplain,
        span_firsts(f.rationale, f.first_words) as true_firsts,
        span_lasts(f.rationale, f.first_words) as true_lasts,
        span_firsts(eraser, f.first_words) as firsts,
        span_lasts(eraser, f.first_words) as lasts
    from found as f
    cross join sizes as s
),

matched as (
    select
        *,
        matching_spans(firsts, lasts, true_firsts, true_lasts) as eraser_matches,
        matching_spans(hatexplain, hatexplain, true_firsts, true_lasts) as hatexplain_matches
    from picked
),

of_corpus as (
    select
        method,
        avg(2 * len(list_intersect(eraser, rationale)) / (eraser_k + m)) as eraser_token_f1,
        avg(eraser_matches / len(firsts)) as eraser_precision,
        avg(eraser_matches / len(true_firsts)) as eraser_recall,
        avg(2 * len(list_intersect(hatexplain, rationale)) / (hatexplain_k + m))
            as hatexplain_token_f1,
        avg(hatexplain_matches / hatexplain_k) as hatexplain_precision,
        avg(hatexplain_matches / len(true_firsts)) as hatexplain_recall
    from matched
    group by method
),

own as (
    select
        method,
        count(*) as n,
        avg(token_f1) as token_f1,
        avg(token_iou) as token_iou,
        avg(iou_precision) as iou_precision,
        avg(iou_recall) as iou_recall,
        avg(average_precision) as average_precision,
        avg(auprc) as auprc
    from found
    group by method
),

-- The words that a part of a text has, by their numbers there; null for a whole text. Of a pair
-- those of each text that the rationale is of.
parts as (
    select
        instance_id,
        row_id,
        "window",
        question,
        case
            when truncated or "window" is not null
                then list_transform([0, 1], lambda text: list_distinct(list_filter(
                    word_ids,
                    lambda word, t: word is not null
                        and segment[t] = text
                        and list_contains(coalesce(rationale_segments, [0]), text)
                )))
        end as numbers
    from instances
    where rationale is not null
),

placed as (
    select
        f.method,
        f.words,
        f.text_words,
        p.row_id,
        p.numbers,
        max(list_max(p.numbers[1])) over earlier as last_before,
        max(list_max(p.numbers[2])) over earlier as last_before_of_pair,
        -- Questions about a part have the same words.
        p.question is not distinct from min(p.question) over (
            partition by f.method, p.row_id, p."window"
        ) as is_first
    from found as f
    join parts as p using (instance_id)
    window earlier as (
        partition by f.method, p.row_id
        order by p."window", p.question
        rows between unbounded preceding and 1 preceding
    )
),

-- A window's words but for those that the windows before it have.
covered as (
    select
        method,
        row_id,
        any_value(text_words) as text_words,
        count(numbers) as cut,
        sum(
            case
                when numbers is null then words
                else len(list_filter(numbers[1], lambda word: word > coalesce(last_before, -1)))
                    + len(list_filter(
                        numbers[2], lambda word: word > coalesce(last_before_of_pair, -1)
                    ))
            end
        ) filter (is_first) as seen
    from placed
    group by method, row_id
),

whole as (
    select
        method,
        sum(cut)::bigint as cut,
        count(*) as texts,
        case when count(text_words) = count(*) then sum(text_words)::bigint end as text_words,
        case when count(text_words) = count(*) then sum(text_words - seen)::bigint end as unseen
    from covered
    group by method
),

attributed as (
    select a.method, count(*) as instances
    from attributions as a
    semi join (from instances where rationale is not null) as i using (instance_id)
    where a.layer is null
    group by a.method
)

select
    method,
    coalesce(n, 0) as n,
    token_f1,
    token_iou,
    harmonic_mean(iou_precision, iou_recall) as iou_f1,
    average_precision,
    auprc,
    share as eraser_share,
    eraser_token_f1,
    harmonic_mean(eraser_precision, eraser_recall) as eraser_iou_f1,
    number as hatexplain_words,
    hatexplain_token_f1,
    harmonic_mean(hatexplain_precision, hatexplain_recall) as hatexplain_iou_f1,
    coalesce(cut, 0) as cut,
    coalesce(texts, 0) as texts,
    text_words,
    unseen,
    instances - ranked as unranked,
    (select count(*) from ranked) - coalesce(n, 0) as left_out
from groups
left join own using (method)
left join of_corpus using (method)
left join whole using (method)
left join attributed using (method)
cross join sizes
order by method;

create view plausibility as
from plausibility_over();
