-- How far a method ranks an instance's tokens as the other families of methods do: one row per
-- instance and method, over the tokens that can be removed, which are neither special nor read out.
--
-- A family (`methods.family`) has one vote, however many methods it has: the ranking of its
-- methods' mean ranks. `consensus` is Spearman's correlation of a method's ranks with the mean of
-- the votes of the other families, not of its own. `random` has a row, but no vote. Methods vote
-- where they have scores that are all finite. What it means, and what fools it, is said in
-- `consensus`; the macro behind it takes the methods that there are to be, and whether signs count:
--
--   from consensus_by_instance_over(methods := ['lime', 'saliency', 'alti'], absolute := true)
--
-- Metrics:
--   consensus    higher is more alike; -1 to 1
--   concordance  higher is more alike; 0 to 1
--
-- Columns:
--   family       Family of the method; the method itself in runs that don't say
--   families     Number of families that vote on the instance
--   tokens       Number of tokens
--   consensus    Spearman's correlation with the mean of the other families' votes, -1 to 1; higher
--                is more alike. Null where either ranks nothing above anything, or there are no
--                others
--   concordance  Kendall's W of the votes, corrected for ties, 0 (as good as chance, or opposite)
--                to 1 (all the same); higher is more alike. Null of fewer than two votes, or if
--                none tells tokens apart. Kendall & Babington Smith 1939
create macro consensus_by_instance_over(methods := null, absolute := false) as table
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
        coalesce(m.family, a.method) as family,
        case
            when absolute then list_transform(a.scores, lambda score: abs(score)) else a.scores
        end as sizes,
        list_select(sizes, r.positions) as scores
    from attributions as a
    join removable as r using (instance_id)
    left join (select method, family from methods) as m using (method)
    where a.layer is null and len(r.positions) > 0 and isfinite(list_sum(a.scores))
        and (methods is null or list_contains(methods, a.method))
),

ranked as materialized (
    select
        instance_id,
        method,
        family,
        centred_ranks(scores) as ranks
    from kept
),

votes as materialized (
    select
        instance_id,
        family,
        case
            when count(*) = 1 then any_value(ranks)
            else centred_ranks(summed_lists(list(ranks)))
        end as vote
    from ranked
    where method <> 'random'
    group by instance_id, family
),

together as (
    select
        instance_id,
        count(*) as families,
        summed_lists(list(vote)) as total,
        sum(list_inner_product(vote, vote)) as own
    from votes
    group by instance_id
),

beside as (
    select
        r.*,
        t.families,
        case
            when t.families > 1
                then list_inner_product(t.total, t.total) / nullif(t.families * t.own, 0)
        end as concordance,
        case
            when v.vote is null then t.total
            else list_transform(t.total, lambda rank, i: rank - v.vote[i])
        end as others
    from ranked as r
    left join together as t using (instance_id)
    left join votes as v
        on r.instance_id = v.instance_id and r.family = v.family and r.method <> 'random'
)

select
    instance_id,
    method,
    family,
    coalesce(families, 0) as families,
    len(ranks) as tokens,
    list_inner_product(ranks, others) / nullif(
        sqrt(list_inner_product(ranks, ranks)) * sqrt(list_inner_product(others, others)), 0
    ) as consensus,
    concordance
from beside;

create view consensus_by_instance as
from consensus_by_instance_over();
