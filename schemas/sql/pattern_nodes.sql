-- Influence patterns in long form: one row per pattern and encoder layer that it passes, which is
-- one edge of its path (Lu et al. 2021).
--
-- The node below layer 0 is the source itself, and that after the last layer is the position read
-- out. At attention level an edge is one attention head, or the skip connection around the
-- attention block, which only an edge between equal positions can be. What follows in the layer
-- (the output projection, both layer norms, the feed-forward block and the residual around it) is
-- part of every edge, so a skip does not mean that the layer did nothing. Which heads bring the
-- subject to the position read out:
--
--   select layer, head, count(*) as n, sum(abs(influence)) as weight
--   from pattern_nodes
--   where level = 'attention' and kind = 'head' and source_role = 'subject' and not stay
--   group by all order by weight desc
--
-- Columns:
--   level          embedding (nodes only) or attention (nodes, and heads or skips between them)
--   source         Position of the word that the pattern is of, from 0; special tokens count
--   source_role    Its role; null if unknown
--   layer          Encoder layer of the edge, from 0
--   previous       Position that the edge comes from: the node before
--   previous_role  Its role; null if unknown
--   position       Position that the edge goes to, in the layer's output
--   token          The token string at position
--   role           Its role; null if unknown
--   head           Head of the layer, or -1 for the skip connection; null at embedding level
--   kind           skip or head; null at embedding level
--   stay           True if position = previous
--   influence      Influence of the whole pattern, with its sign
create view pattern_nodes as
select
    * exclude (influence),
    case when head = -1 then 'skip' when head is not null then 'head' end as kind,
    position = previous as stay,
    influence
from (
    select
        p.instance_id,
        p.method,
        p.level,
        p.source,
        p.roles[1] as source_role,
        generate_subscripts(p.nodes[2:], 1) - 1 as layer,
        unnest(p.nodes[:-2]) as previous,
        unnest(p.roles[:-2]) as previous_role,
        unnest(p.nodes[2:]) as position,
        unnest(list_transform(p.nodes[2:], lambda node: i.tokens[node + 1])) as token,
        unnest(p.roles[2:]) as role,
        unnest(p.heads) as head,
        p.influence
    from patterns as p
    join instances as i using (instance_id)
)
order by instance_id, method, level, source, layer;
