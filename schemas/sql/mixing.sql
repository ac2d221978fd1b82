-- How much the tokens take from each other in each layer: one row per encoder layer and method, of
-- the norm-based methods that were run with --layers.
--
-- The context-mixing ratio of a token is the norm of what it takes from the other tokens over that
-- and the norm of what it keeps of itself (Kobayashi et al. 2021). The means are over tokens, so
-- that a long text counts more; [CLS], [SEP] and the like are apart.
--
-- Columns:
--   layer           Encoder layer, from 0
--   tokens          Number of tokens that are not special
--   mixing          Their mean ratio, 0 (each keeps to itself) to 1
--   special_tokens  Number of special tokens
--   special_mixing  Their mean ratio
create view mixing as
select
    method,
    layer,
    count(*) filter (not special) as tokens,
    avg(mixing) filter (not special) as mixing,
    count(*) filter (special) as special_tokens,
    avg(mixing) filter (special) as special_mixing
from (
    select
        l.method,
        l.layer,
        unnest(l.mixing)::double as mixing,
        unnest(i.special) as special
    from layers as l
    join instances as i using (instance_id)
    where l.mixing is not null
)
group by method, layer
order by method, layer;
