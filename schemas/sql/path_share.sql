-- How small a part of the network a pattern is: the share of all paths from its word to the
-- position read out, one row per method, level and subset, and one over all instances
-- (Lu et al. 2021).
--
-- A path picks, in each of L layers, one of H heads and the position among S that it leads to, or
-- the skip connection. From a word to the position read out, t, there are
--
--   paths = [word is t] + ((H S + 1)^L - 1) / S
--
-- of them. A pattern of the attention level is one path. One of the embedding level is as many as
-- there are heads and skips between its nodes: the product over layers of H, or H + 1 where it
-- stays at its position. Beside the share of influence that patterns carry:
--
--   select level, concentration, log10
--   from pattern_concentration join path_share using (method, level, subset)
--   where subset = 'object_relative'
--
-- Columns:
--   level        embedding or attention
--   subset       Subset of the corpus; null for all instances
--   n            Number of patterns
--   mean         Mean over patterns of their paths over all paths
--   median       The median of the same
--   log10        Mean of the decimal logarithm of the same
--   log10_paths  Mean of the decimal logarithm of the number of all paths
create view path_share as
with counted as (
    select
        p.method,
        p.level,
        i.subset,
        case p.level
            when 'attention' then 1
            else list_product(
                list_transform(
                    range(1, len(p.nodes)),
                    lambda layer:
                    r.model_num_heads + (p.nodes[layer] = p.nodes[layer + 1])::int::double
                )
            )
        end as own,
        (p.source = p.nodes[-1])::int + (
            (r.model_num_heads * len(i.tokens) + 1)::double ** r.model_num_layers - 1
        ) / len(i.tokens) as every
    from patterns as p
    join instances as i using (instance_id)
    cross join run as r
)

select
    method,
    level,
    subset,
    count(*) as n,
    avg(own / every) as mean,
    median(own / every) as median,
    avg(log10(own / every)) as log10,
    avg(log10(every)) as log10_paths
from counted
group by grouping sets ((method, level, subset), (method, level))
having grouping(subset) = 1 or subset is not null
order by method, level, subset nulls first;
