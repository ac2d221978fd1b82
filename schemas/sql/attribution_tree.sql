-- The attribution trees: one row per token in the tree of an instance, under a method and algorithm
-- (Hao et al. 2021), the top first.
--
-- The edges from the position that is read out, which end a tree of the algorithm `paper`, are
-- part of no path: every token of the tree has one, and it is in `tree_edges`.
--
-- Columns:
--   algorithm  code or paper
--   token      Position of the token in the instance, from 0; special tokens count
--   text       The token string
--   depth      Number of edges from the top, 0 for the top itself
--   parent     Position of the token above it; null for the top
--   layer      Encoder layer of the edge from the parent, from 0; null for the top
--   attr       Attribution of that edge, summed over the heads; null for the top
--   prop       That over the layer's largest; null for the top
--   state      1 if the token has children, 0 if it is a leaf
--   path       Positions from the top to the token
--   path_text  The token strings of the path
create view attribution_tree as
with branches as (
    select
        e.*,
        list([e.parent, e.child]) over (
            partition by e.instance_id, e.method, e.algorithm
            order by e.position
        ) as edges
    from tree_edges as e
    join instances as i using (instance_id)
    where e.parent is distinct from i.readout
),

paths as (
    select
        instance_id,
        method,
        algorithm,
        child as token,
        parent,
        layer,
        attr::double as attr,
        prop::double as prop,
        -- Edges are added below what is there already: going back from this one, each that ends
        -- where the path begins makes it longer. A recursive query would grow the trees of all
        -- instances even if one is asked for.
        list_reduce(
            list_reverse(edges),
            lambda path, edge: if(edge[2] = path[1], list_prepend(edge[1], path), path),
            [child]
        ) as path
    from branches

    union all

    select instance_id, method, algorithm, token, null, null, null, null, [token]
    from tree_nodes
    where is_root
)

select
    p.instance_id,
    p.method,
    p.algorithm,
    p.token,
    i.tokens[p.token + 1] as text,
    (len(p.path) - 1)::int as depth,
    p.parent,
    p.layer,
    p.attr,
    p.prop,
    n.state,
    p.path,
    list_transform(p.path, lambda position: i.tokens[position + 1]) as path_text
from paths as p
join tree_nodes as n using (instance_id, method, algorithm, token)
join instances as i using (instance_id)
order by p.instance_id, p.method, p.algorithm, p.path;
