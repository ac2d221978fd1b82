-- How much of the words' influence their patterns carry: one row per method, level and subset, and
-- one over all instances (Lu et al. 2021, concentration).
--
-- A pattern stands for one way through the network out of very many (see `path_share`), and what it
-- carries of a word's influence shows how concentrated the flow is. Paths of opposite signs cancel
-- in the input influence and need not in a pattern, so a ratio above 1 is no error, and an
-- attention-level pattern may carry more than the embedding-level one that it refines. Ratios of
-- words with next to no influence are arbitrarily large: `concentration` therefore divides sums, in
-- which such words hardly count, and the mean is dominated by them. Nothing is clipped.
--
-- What fools it: influences of opposite sign cancel in the input influence, so that shares may be
-- above 1; a short network has few paths, and much in each.
--
-- Metrics:
--   concentration   higher is more concentrated; 0 or more
--   sign_agreement  higher is better; 0 to 1
--
-- Columns:
--   level           embedding or attention
--   subset          Subset of the corpus; null for all instances
--   n               Number of words, special tokens included, whose influences are finite
--   concentration   Sum of |influence| of the patterns over the sum of |input influence|
--   mean            Mean over words of influence / input influence; a word without any has none
--   median          The median of the same
--   sign_agreement  Share of words whose pattern has the sign of their input influence
create view pattern_concentration as
select
    p.method,
    p.level,
    i.subset,
    count(*) as n,
    sum(abs(p.influence::double)) / nullif(sum(abs(p.input_influence::double)), 0) as concentration,
    avg(p.influence::double / nullif(p.input_influence, 0)) as mean,
    median(p.influence::double / nullif(p.input_influence, 0)) as median,
    avg((sign(p.influence) = sign(p.input_influence))::int) as sign_agreement
from patterns as p
join instances as i using (instance_id)
where isfinite(p.influence) and isfinite(p.input_influence)
group by grouping sets ((p.method, p.level, i.subset), (p.method, p.level))
having grouping(i.subset) = 1 or i.subset is not null
order by p.method, p.level, i.subset nulls first;
