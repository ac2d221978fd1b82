-- Where the influence of words goes, over the patterns of many instances: one row per method,
-- level, subset, encoder layer, pair of roles and head, an edge of a Sankey diagram
-- (Lu et al. 2021).
--
-- Every pattern passes each layer once, so the weights of each layer have the same sum, and what
-- comes into a role leaves it. Instances without a subset are a subset of their own. Where a role
-- is unknown, the position takes its place. The largest turns:
--
--   from pattern_flow
--   where level = 'attention' and kind = 'head' and from_role <> to_role
--   order by weight desc limit 20
--
-- Columns:
--   level      embedding or attention
--   subset     Subset of the corpus; null for the instances without one
--   layer      Encoder layer, from 0
--   from_role  Role, or position, that the edge comes from
--   to_role    Role, or position, that it goes to
--   head       Head of the layer, from 0, or -1 for the skip connection; null at embedding level
--   kind       skip or head; null at embedding level
--   n          Number of patterns with this edge
--   weight     Sum of |influence| of these patterns
create view pattern_flow as
select
    n.method,
    n.level,
    i.subset,
    n.layer,
    coalesce(n.previous_role, n.previous::varchar) as from_role,
    coalesce(n.role, n.position::varchar) as to_role,
    n.head,
    n.kind,
    count(*) as n,
    sum(abs(n.influence::double)) as weight
from pattern_nodes as n
join instances as i using (instance_id)
where isfinite(n.influence)
group by all
order by n.method, n.level, i.subset, n.layer, weight desc, from_role, to_role, n.head;
