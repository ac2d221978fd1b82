-- How far tokens take from: one row per method, algorithm and layer, over the edges of all
-- attribution trees (Hao et al. 2021).
--
-- The distance of an edge is |parent - child| in tokens, special tokens counted. The edges to the
-- position that is read out, which end a tree of the algorithm `paper`, are left out: where a [CLS]
-- stands says nothing about distance.
--
-- Columns:
--   algorithm  code or paper
--   layer      Encoder layer, from 0
--   n          Number of edges
--   mean       Mean distance
--   p10        Distance that a tenth of the edges are within
--   p25        The same of a quarter
--   median     The same of a half
--   p75        The same of three quarters
--   p90        The same of nine tenths
--   local      Share of the edges between neighbours, whose distance is 1
create view receptive_field as
select
    e.method,
    e.algorithm,
    e.layer,
    count(*) as n,
    avg(abs(e.parent - e.child)) as mean,
    quantile_disc(abs(e.parent - e.child), 0.1) as p10,
    quantile_disc(abs(e.parent - e.child), 0.25) as p25,
    quantile_disc(abs(e.parent - e.child), 0.5) as median,
    quantile_disc(abs(e.parent - e.child), 0.75) as p75,
    quantile_disc(abs(e.parent - e.child), 0.9) as p90,
    avg((abs(e.parent - e.child) = 1)::int) as local
from tree_edges as e
join instances as i using (instance_id)
where e.parent is distinct from i.readout
group by all
order by e.method, e.algorithm, e.layer;
