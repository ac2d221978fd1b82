-- How far two methods agree on one instance: one row per instance and pair of methods
-- (method_a < method_b), over the tokens that can be removed, which are neither special nor read
-- out.
--
-- Scores are compared by rank alone, as they are: methods differ in unit and scale, and the sign
-- counts. A correlation is null where a method gives all tokens the same score, or there is but one
-- token. Scores that aren't all finite have no row.
--
-- What fools them is said in `agreement`.
--
-- Metrics:
--   spearman  higher is more alike; -1 to 1
--   kendall   higher is more alike; -1 to 1
--   jaccard   higher is more alike; 0 to 1
--
-- Columns:
--   method_a  The method whose name comes first
--   method_b  The other
--   tokens    Number n of tokens that are compared
--   spearman  Spearman's correlation: Pearson's of the ranks; equal scores share their mean rank
--   kendall   Kendall's tau b: (concordant - discordant pairs of tokens) over the geometric mean of
--             the numbers of pairs that each method tells apart (Kendall 1945)
--   top_k     k = max(1, round(n / 4)): a quarter of the tokens
--   jaccard   Of the k tokens that each method scores highest, those in both over those in either;
--             of equal scores, the earlier token's counts as the higher
create view agreement_by_instance as
with removable as (
    select
        instance_id,
        readout,
        list_filter(
            range(1, len(special) + 1),
            lambda position: not special[position] and position is distinct from readout + 1
        ) as positions
    from instances
),

kept as (
    select
        a.instance_id,
        a.method,
        list_select(a.scores, r.positions) as scores,
        len(r.positions) as n
    from attributions as a
    join removable as r using (instance_id)
    where a.layer is null and n > 0 and isfinite(list_sum(a.scores))
),

-- Positions from the lowest score to the highest. Equal scores (`tied`) stand in the order of the
-- text in `forward` and against it in `backward`: the mean of both is then the mean rank, and each
-- tied pair is in one order in the one and in the other in the other.
sorted as (
    select
        *,
        list_unique(scores) < n as tied,
        case
            when tied
                then list_grade_up(list_transform(scores, lambda s, i: {'score': s, 'at': i}))
            else list_grade_up(scores)
        end as forward,
        case
            when tied
                then list_grade_up(list_transform(scores, lambda s, i: {'score': s, 'at': -i}))
        end as backward
    from kept
),

inverted as (
    select * exclude (scores), list_grade_up(forward) as rank, list_grade_up(backward) as rank_back
    from sorted
),

-- The factor 2 keeps mean ranks whole numbers.
ranked as materialized (
    select
        instance_id,
        method,
        n,
        tied,
        -- Small types: all rows are held in memory.
        forward::usmallint[] as forward,
        backward::usmallint[] as backward,
        rank::usmallint[] as rank,
        rank_back::usmallint[] as rank_back,
        case
            when tied
                then list_transform(i.rank, lambda r, t: (r + i.rank_back[t] - n - 1)::float)
            else list_transform(i.rank, lambda r: (2 * r - n - 1)::float)
        end as centred,
        case
            when tied then nullif(sqrt(list_inner_product(centred, centred)::double), 0)
            else sqrt(nullif(n * (n * n - 1.0::double) / 3, 0))
        end as norm,
        greatest(1, floor(n / 4 + 0.5))::bigint as k,
        list_transform(coalesce(i.rank_back, i.rank), lambda r: (r > n - k)::int::float) as top,
        n * (n - 1) / 2
        - case when tied then inversions(list_select(i.rank, i.backward)) else 0 end as apart
    from inverted as i
),

pairs as (
    select
        a.instance_id,
        a.method as method_a,
        b.method as method_b,
        a.n,
        a.k,
        a.apart as apart_a,
        b.apart as apart_b,
        list_inner_product(a.centred, b.centred) / (a.norm * b.norm) as spearman,
        list_inner_product(a.top, b.top)::bigint as in_both,
        -- Mean over both orders of either method's ties, where a pair that any of them ties is
        -- inverted half of the times.
        case
            when not a.tied and not b.tied
                then inversions(list_select(b.rank, a.forward)) * 2
            when not b.tied
                then inversions(list_select(b.rank, a.forward))
                    + inversions(list_select(b.rank, a.backward))
            when not a.tied
                then inversions(list_select(b.rank, a.forward))
                    + inversions(list_select(b.rank_back, a.forward))
            else (
                inversions(list_select(b.rank, a.forward))
                + inversions(list_select(b.rank, a.backward))
                + inversions(list_select(b.rank_back, a.forward))
                + inversions(list_select(b.rank_back, a.backward))
            ) / 2
        end as inverted_twice
    from ranked as a
    join ranked as b on a.instance_id = b.instance_id and a.method < b.method
)

select
    instance_id,
    method_a,
    method_b,
    n as tokens,
    spearman,
    (n * (n - 1) / 2 - inverted_twice)
    / nullif(sqrt(apart_a) * sqrt(apart_b), 0) as kendall,
    k as top_k,
    in_both / (2 * k - in_both) as jaccard
from pairs;
