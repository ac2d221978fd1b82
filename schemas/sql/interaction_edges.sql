-- The strongest interactions in long form: one row per pair of tokens, layer and method.
--
-- Columns:
--   layer       Encoder layer, from 0
--   rank        Rank of the pair in the layer, 1 for the largest attribution
--   query       Position of the token that takes, from 0; special tokens count
--   key         Position of the token that is taken from
--   query_text  The token string at query
--   key_text    The token string at key
--   attr        Attribution of the pair, summed over the heads
--   prop        attr over the layer's largest outside the readout's row
create view interaction_edges as
select
    n.instance_id,
    n.method,
    n.layer,
    generate_subscripts(n.query, 1) as rank,
    unnest(n.query) as query,
    unnest(n.key) as key,
    unnest(list_transform(n.query, lambda position: i.tokens[position + 1])) as query_text,
    unnest(list_transform(n.key, lambda position: i.tokens[position + 1])) as key_text,
    unnest(n.attr) as attr,
    unnest(n.prop) as prop
from interactions as n
join instances as i using (instance_id);
