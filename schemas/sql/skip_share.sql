-- How often patterns pass a layer by its skip connection instead of an attention head: one row per
-- method, subset and encoder layer, over the patterns of the attention level, and rows over all
-- layers and over all instances (Lu et al. 2021).
--
-- A skip connection leads from a position to itself alone. Among the edges that stay where they
-- are, it competes with the heads, so `stay_skip_share` is the share of those that could choose.
-- The skip is that around the attention block; see `pattern_nodes`.
--
-- Columns:
--   subset                Subset of the corpus; null for all instances
--   layer                 Encoder layer, from 0; null for all layers
--   edges                 Number of edges: one per word and layer
--   skip_share            Share of them that are skips
--   stays                 Number of edges that stay at their position
--   stay_skip_share       Share of those that are skips; null if there are none
--   influence_skip_share  As skip_share, each edge weighted by |influence| of its pattern
create view skip_share as
select
    n.method,
    i.subset,
    n.layer,
    count(*) as edges,
    avg((n.kind = 'skip')::int) as skip_share,
    count(*) filter (n.stay) as stays,
    avg((n.kind = 'skip')::int) filter (n.stay) as stay_skip_share,
    coalesce(sum(abs(n.influence::double)) filter (n.kind = 'skip' and isfinite(n.influence)), 0)
    / nullif(sum(abs(n.influence::double)) filter (isfinite(n.influence)), 0)
        as influence_skip_share
from pattern_nodes as n
join instances as i using (instance_id)
where n.level = 'attention'
group by grouping sets (
    (n.method, i.subset, n.layer), (n.method, i.subset), (n.method, n.layer), (n.method)
)
having grouping(i.subset) = 1 or i.subset is not null
order by n.method, i.subset nulls first, n.layer nulls first;
