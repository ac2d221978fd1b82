-- How much the tokens take from each other in each layer: one row per encoder layer and method, of
-- the norm-based methods that were run with --layers.
--
-- The context-mixing ratio of a token is the norm of what it takes from the other tokens over that
-- and the norm of what it keeps of itself (Kobayashi et al. 2021). The means are over tokens, so
-- that a long text counts more; [CLS], [SEP] and the like are apart. Methods are compared on the same
-- instances; `mixing_over(common := false)` has each method's own.
--
-- Columns:
--   layer           Encoder layer, from 0
--   tokens          Number of tokens that are not special
--   mixing          Their mean ratio, 0 (each keeps to itself) to 1
--   special_tokens  Number of special tokens
--   special_mixing  Their mean ratio
--   n               Number of instances
--   left_out        Number of instances that some method has ratios of and that are not among n
create macro mixing_over(common := true, methods := null) as table
with chosen as materialized (
    from compared('mixing', common, methods)
),

sizes as (
    select
        method,
        count(*) filter (compared) as n,
        any_value(total) - n as left_out
    from chosen
    group by method
)

select
    method,
    layer,
    count(*) filter (not special) as tokens,
    avg(mixing) filter (not special) as mixing,
    count(*) filter (special) as special_tokens,
    avg(mixing) filter (special) as special_mixing,
    n,
    left_out
from sizes
join (
    select
        l.method,
        l.layer,
        unnest(l.mixing)::double as mixing,
        unnest(i.special) as special
    from layers as l
    semi join (from chosen where compared) as k using (instance_id, method)
    join instances as i using (instance_id)
    where l.mixing is not null
) using (method)
group by method, layer, n, left_out
order by method, layer;

create view mixing as
from mixing_over();
