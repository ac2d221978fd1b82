-- How alike the patterns of the same word are from sentence to sentence: one row per method, level,
-- subset and role of the word (Lu et al. 2021, consistency).
--
-- A group is a role within a subset of sentences of one structure, such as the subject in object
-- relative clauses. Two patterns are the same if the roles of their nodes are and, at attention
-- level, their heads. With p(k) the share of pattern k,
--
--   entropy = -sum over k of p(k) log2 p(k)
--
-- which is 0 if all are the same and at most log2 n. This estimate is too small by about
-- (number of possible patterns - 1) / (2 n ln 2) bits, so that only groups of one size can be
-- compared: of each group n instances are taken, n being the size of the method's smallest group.
-- They are those whose MD5 of the id is smallest, the same ones whenever it is asked for, and as
-- far as possible the same ones for all roles. Entropies of runs with another n can't be compared.
--
-- Where a role is unknown, the position takes its place, which does as well in sentences of one
-- structure and says little in others. Of several words with one role in an instance the first
-- counts. A role that fewer than half of a subset's instances have makes no group: a rare one would
-- else decide how large all are.
--
-- Columns:
--   level               embedding or attention
--   subset              Subset of the corpus; null for the instances without one
--   source_role         Role of the word that the patterns are of, or its position
--   position            Its mean position, from 0; special tokens count
--   n                   Number of instances taken, one pattern each; the same for all groups
--   available           Number of instances that there are in the group
--   n_patterns          Number of different patterns among those taken
--   entropy             Entropy of the patterns in bits
--   normalised_entropy  entropy / log2 n; null if n is 1
--   modal_share         Share of the most frequent pattern
--   modal_pattern       That pattern: subject>subject>target | skip>3, where the heads follow the
--                       nodes; of equals the first in the alphabet
--   modal_nodes         Its nodes, by role or position
--   modal_heads         Its heads, -1 for a skip connection; null at embedding level
--   modal_influence     Mean |influence| of the words that have it
--   accuracy            Share of all instances of the group that are predicted rightly
create view pattern_consistency as
with words as (
    select
        p.instance_id,
        p.method,
        p.level,
        i.subset,
        i.correct,
        p.source,
        list_transform(
            p.nodes, lambda node, number: coalesce(p.roles[number], node::varchar)
        ) as nodes,
        p.heads,
        p.influence
    from patterns as p
    join instances as i using (instance_id)
),

firsts as (
    select
        *,
        nodes[1] as source_role,
        array_to_string(nodes, '>') || coalesce(
            ' | ' || array_to_string(
                list_transform(heads, lambda head: if(head = -1, 'skip', head::varchar)), '>'
            ),
            ''
        ) as pattern
    from words
    qualify row_number() over (
        partition by instance_id, method, level, nodes[1]
        order by source
    ) = 1
),

sized as (
    select
        *,
        count(distinct instance_id) over (partition by method, level, subset) as instances,
        count(*) over role_group as available,
        avg(correct::int) over role_group as accuracy,
        avg(source) over role_group as position,
        row_number() over (
            partition by method, level, subset, source_role
            order by md5_number(instance_id), instance_id
        ) as number
    from firsts
    window role_group as (partition by method, level, subset, source_role)
),

taken as (
    select *
    from (
        select
            *,
            min(available) over (partition by method) as n
        from sized
        where 2 * available >= instances
    )
    where number <= n
),

counted as (
    select
        method,
        level,
        subset,
        source_role,
        pattern,
        any_value(position) as position,
        any_value(n) as n,
        any_value(available) as available,
        any_value(accuracy) as accuracy,
        any_value(nodes) as nodes,
        any_value(heads) as heads,
        avg(abs(influence::double)) filter (isfinite(influence)) as influence,
        count(*) / any_value(n) as share
    from taken
    group by method, level, subset, source_role, pattern
)

select
    method,
    level,
    subset,
    source_role,
    any_value(position) as position,
    any_value(n) as n,
    any_value(available) as available,
    count(*) as n_patterns,
    -- Of a single pattern it would be minus zero.
    abs(sum(share * log2(share))) as entropy,
    case when any_value(n) > 1 then entropy / log2(any_value(n)) end as normalised_entropy,
    max(share) as modal_share,
    first(pattern order by share desc, pattern) as modal_pattern,
    first(nodes order by share desc, pattern) as modal_nodes,
    first(heads order by share desc, pattern) as modal_heads,
    first(influence order by share desc, pattern) as modal_influence,
    any_value(accuracy) as accuracy
from counted
group by method, level, subset, source_role
order by method, level, subset, position, source_role;
