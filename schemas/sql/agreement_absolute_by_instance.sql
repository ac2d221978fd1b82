-- How far two methods agree on one instance about the size of scores, by the six measures of
-- OpenXAI (Agarwal et al. 2022; Krishna et al. 2022): one row per instance and pair of methods
-- (method_a < method_b), over the tokens that can be removed, which are neither special nor read
-- out.
--
-- Tokens are ranked by |score|, from the largest; signs count in two measures alone. Ranks are
-- dense, as in the code of OpenXAI: equal sizes share a rank, and the next has the next number. Of
-- equal sizes, the earlier token's is the higher among the top k, and the later one's in
-- `pairwise_rank_agreement` (that is the code's too). Scores that aren't all finite have no row.
-- All measures are symmetrical, and the higher, the more alike; what fools them is said in
-- `agreement_absolute`.
--
-- Metrics:
--   feature_agreement        higher is more alike; 0 to 1
--   rank_agreement           higher is more alike; 0 to 1
--   sign_agreement           higher is more alike; 0 to 1
--   signed_rank_agreement    higher is more alike; 0 to 1
--   rank_correlation         higher is more alike; -1 to 1
--   pairwise_rank_agreement  higher is more alike; 0 to 1
--
-- Columns:
--   method_a  The method whose name comes first
--   method_b  The other
--   tokens  Number n of tokens that are compared
--   top_k   k = max(1, round(n / 4)): a quarter of the tokens
--   feature_agreement  Share of the top k that both have, 0 to 1: 2 j / (1 + j), j being a Jaccard
--           index
--   rank_agreement     Share of the k places at which both have the same token and rank, 0 to 1
--   sign_agreement     Share of the top k that both have with the same sign, 0 to 1
--   signed_rank_agreement    Share of the k places with the same token, rank and sign, 0 to 1
--   rank_correlation   Pearson's correlation of the dense ranks, -1 to 1. Null where a method gives
--           all tokens the same size, or there is but one
--   pairwise_rank_agreement  Share of the pairs of tokens that both rank alike, 0 to 1, about 0.5
--           by chance. Null of a single token
create view agreement_absolute_by_instance as
with removable as (
    select
        instance_id,
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
        list_transform(a.scores, lambda score: abs(score)) as all_sizes,
        list_select(all_sizes, r.positions) as sizes,
        len(r.positions) as n
    from attributions as a
    join removable as r using (instance_id)
    where a.layer is null and n > 0 and isfinite(list_sum(a.scores))
),

-- Positions from the smallest size to the largest: of equal ones the later is the larger in
-- `forward` and the earlier in `backward`.
sorted as (
    select
        * exclude (all_sizes),
        list_unique(sizes) < n as tied,
        case
            when tied
                then list_grade_up(list_transform(sizes, lambda s, i: {'size': s, 'at': i}))
            else list_grade_up(sizes)
        end as forward,
        case
            when tied
                then list_grade_up(list_transform(sizes, lambda s, i: {'size': s, 'at': -i}))
            else forward
        end as backward,
        case when tied then list_reverse_sort(list_distinct(sizes)) end as steps
    from kept
),

placed as (
    select
        instance_id,
        method,
        n,
        greatest(1, floor(n / 4 + 0.5))::bigint as k,
        forward,
        list_grade_up(forward) as rank,
        case
            when tied then list_transform(sizes, lambda size: list_position(steps, size))
            else list_transform(rank, lambda r: n + 1 - r)
        end as dense,
        list_transform(scores, lambda score: sign(score)::bigint + 1) as signs,
        case when tied then list_grade_up(backward) else rank end as backward_rank,
        list_reverse(backward)[1:k] as top
    from sorted
),

-- Whether a token is in the top k, and whether with each of the three signs; and at each place of
-- the top k the token, its rank and its sign in one number.
ranked as materialized (
    select
        instance_id,
        method,
        n,
        k,
        forward::usmallint[] as forward,
        rank::usmallint[] as rank,
        list_sum(dense) / n as mean,
        list_transform(dense, lambda r: r - mean) as centred,
        sqrt(nullif(list_inner_product(centred, centred), 0)) as norm,
        list_transform(backward_rank, lambda r: (r > n - k)::int::float) as in_top,
        list_concat(
            list_transform(in_top, lambda there, t: case when signs[t] = 0 then there else 0 end),
            list_transform(in_top, lambda there, t: case when signs[t] = 1 then there else 0 end),
            list_transform(in_top, lambda there, t: case when signs[t] = 2 then there else 0 end)
        ) as signed,
        list_transform(top, lambda t: dense[t] * 65536 + t) as ranked,
        list_transform(top, lambda t: (dense[t] * 65536 + t) * 4 + signs[t]) as ranked_signed
    from placed
)

select
    a.instance_id,
    a.method as method_a,
    b.method as method_b,
    a.n as tokens,
    a.k as top_k,
    list_inner_product(a.in_top, b.in_top) / a.k as feature_agreement,
    len(list_filter(a.ranked, lambda code, place: code = b.ranked[place])) / a.k as rank_agreement,
    list_inner_product(a.signed, b.signed) / a.k as sign_agreement,
    len(list_filter(a.ranked_signed, lambda code, place: code = b.ranked_signed[place])) / a.k
        as signed_rank_agreement,
    list_inner_product(a.centred, b.centred) / (a.norm * b.norm) as rank_correlation,
    1 - inversions(list_select(b.rank, a.forward)) / nullif(a.n * (a.n - 1) / 2, 0)
        as pairwise_rank_agreement
from ranked as a
join ranked as b on a.instance_id = b.instance_id and a.method < b.method;
