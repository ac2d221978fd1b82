-- How far the methods agree with each other: the means of `agreement_by_instance`, one row per pair
-- of methods (method_a < method_b). Every instance counts the same.
--
-- The work grows with instances x pairs of methods x tokens.
--
-- Columns:
--   method_a  The method whose name comes first
--   method_b  The other
--   n         Number of instances that both attributed, and that have a token to compare
--   constant  Number of them without correlations: one token, or equal scores for all
--   spearman  Mean of Spearman's rank correlation over the others
--   kendall   Mean of Kendall's tau b over the others
--   jaccard   Mean share of the top quarter of the tokens that they have in common: intersection
--             over union
create view agreement as
select
    method_a,
    method_b,
    count(*) as n,
    count(*) - count(spearman) as constant,
    avg(spearman) as spearman,
    avg(kendall) as kendall,
    avg(jaccard) as jaccard
from agreement_by_instance
group by method_a, method_b
order by method_a, method_b;
