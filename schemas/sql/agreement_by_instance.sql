-- How far two methods agree on one instance: one row per instance and pair of methods
-- (method_a < method_b), over the tokens that can be removed, which are neither special nor read
-- out.
--
-- Scores are compared by rank alone, as they are: methods differ in unit and scale, and the sign
-- counts. A correlation is null where a method gives all tokens the same score, or there is but one
-- token. Scores that aren't all finite have no row. Of some methods alone, the files of these are
-- read and no others:
--
--   from agreement_by_instance_over(methods := ['lime', 'saliency'])
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
create macro agreement_by_instance_over(methods := null) as table
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
        and (methods is null or list_contains(methods, a.method))
),

-- The ranks from `low` to `high` that each token shares with those of the same score: places in
-- the sorted list, which take less than ranks of lists do.
sorted as (
    select
        *,
        list_sort(scores) as upwards
    from kept
),

lowest as (
    select
        *,
        list_transform(scores, lambda s: list_position(upwards, s)) as low,
        list_reverse(upwards) as downwards
    from sorted
),

told as (
    select
        *,
        list_sum(low) < n * (n + 1) / 2 as tied
    from lowest
),

placed as (
    select
        instance_id,
        method,
        n,
        tied,
        low,
        case
            when tied
                then list_transform(scores, lambda s: n + 1 - list_position(downwards, s))
            else low
        end as high
    from told
),

-- Positions from the lowest score to the highest. Equal scores (`tied`) stand in the order of the
-- text in `forward` and against it in `backward`, and have ranks in the order of the text.
ordered as (
    select
        *,
        case
            when tied then list_transform(
                list_sort(list_transform(low, lambda r, i: r * 65536 + i)),
                lambda code: code & 65535
            )
            else list_transform(range(1, n + 1), lambda r: list_position(low, r))
        end as forward
    from placed
),

inverted as (
    select
        *,
        case
            when tied
                then list_transform(range(1, n + 1), lambda i: list_position(forward, i))
            else low
        end as rank,
        -- Equal scores share the places from `low` to `high`: the first has the last, and so on.
        case
            when tied then list_transform(forward, lambda t, r: forward[low[t] + high[t] - r])
        end as backward
    from ordered
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
        -- As `inversions` reads them.
        case
            when tied then list_transform(i.rank, lambda r, t: r + 65536 * (high[t] - r))
            else i.rank
        end::uinteger[] as rank,
        list_transform(low, lambda r, t: (r + high[t] - n - 1)::float) as centred,
        case
            when tied then nullif(sqrt(list_inner_product(centred, centred)::double), 0)
            else sqrt(nullif(n * (n * n - 1.0::double) / 3, 0))
        end as norm,
        greatest(1, floor(n / 4 + 0.5))::bigint as k,
        -- Ranks against the order of the text.
        list_transform(low, lambda r, t: (r + high[t] - i.rank[t] > n - k)::int::float) as top,
        -- Pairs with the same score: each of a group of g is one of g - 1.
        case when tied then (list_sum(high) - list_sum(low)) / 2 else 0 end as alike
    from inverted as i
),

-- Of two methods one has its ranks in the order of the other, one that ties none if there is any.
paired as (
    select
        a.instance_id,
        a.method as method_a,
        b.method as method_b,
        a.n,
        a.k,
        a.n * (a.n - 1) / 2 as every,
        a.alike as alike_a,
        b.alike as alike_b,
        list_inner_product(a.centred, b.centred) / (a.norm * b.norm) as spearman,
        list_inner_product(a.top, b.top)::bigint as in_both,
        case
            when a.tied and not b.tied then list_select(a.rank, b.forward)
            else list_select(b.rank, a.forward)
        end as turned,
        case when a.tied and b.tied then list_select(b.rank, a.backward) end as turned_back,
        case when a.tied and not b.tied then a.alike else b.alike end as alike
    from ranked as a
    join ranked as b on a.instance_id = b.instance_id and a.method < b.method
),

-- Twice the discordant pairs, and those that one method or both have the same score for. An order
-- without ties tells the discordant ones; where both have ties, the pairs that are tied in the
-- order alone are inverted in either order of the ties.
pairs as (
    select
        *,
        alike + case
            when turned_back is null then 2 * inversions(turned)
            else inversions(turned) + inversions(turned_back)
        end as against_twice
    from paired
)

select
    instance_id,
    method_a,
    method_b,
    n as tokens,
    spearman,
    (every - against_twice)
    / nullif(sqrt(every - alike_a) * sqrt(every - alike_b), 0) as kendall,
    k as top_k,
    in_both / (2 * k - in_both) as jaccard
from pairs;

create view agreement_by_instance as
from agreement_by_instance_over();
