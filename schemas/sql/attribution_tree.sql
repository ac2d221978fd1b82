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
with recursive walk as (
    select
        instance_id,
        method,
        algorithm,
        token,
        0 as depth,
        null::int as parent,
        null::int as layer,
        null::double as attr,
        null::double as prop,
        [token] as path
    from tree_nodes
    where is_root

    union all

    select
        w.instance_id,
        w.method,
        w.algorithm,
        e.child,
        w.depth + 1,
        e.parent,
        e.layer,
        e.attr,
        e.prop,
        list_append(w.path, e.child)
    from walk as w
    join tree_edges as e
        on e.instance_id = w.instance_id
        and e.method = w.method
        and e.algorithm = w.algorithm
        and e.parent = w.token
    join instances as i on i.instance_id = e.instance_id
    where e.parent <> i.readout
)

select
    w.instance_id,
    w.method,
    w.algorithm,
    w.token,
    i.tokens[w.token + 1] as text,
    w.depth,
    w.parent,
    w.layer,
    w.attr,
    w.prop,
    n.state,
    w.path,
    list_transform(w.path, lambda position: i.tokens[position + 1]) as path_text
from walk as w
join tree_nodes as n using (instance_id, method, algorithm, token)
join instances as i using (instance_id)
order by w.instance_id, w.method, w.algorithm, w.path;
