-- How far the methods agree with each other: the means of `agreement_by_instance`, one row per pair
-- of methods (method_a < method_b). Every instance counts the same.
--
-- All pairs are compared on the same instances: those that every method has scores of. To compare
-- each pair on all that these two have, or some of the methods alone:
--
--   from agreement_over(common := false)
--   from agreement_over(methods := ['lime', 'saliency'])
--
-- The work grows with instances x pairs of methods x tokens.
--
-- What fools them: methods that are alike by construction agree, right or wrong, and none is more
-- faithful for it (`consensus` gives a family one vote). Of short texts correlations are noise.
-- Scores of opposite sign disagree though they name the same words: `agreement_absolute`.
--
-- Metrics:
--   spearman  higher is more alike; -1 to 1
--   kendall   higher is more alike; -1 to 1
--   jaccard   higher is more alike; 0 to 1
--
-- Columns:
--   method_a  The method whose name comes first
--   method_b  The other
--   n         Number of instances that are compared, and that have a token to compare
--   constant  Number of them without correlations: one token, or equal scores for all
--   spearman  Mean of Spearman's rank correlation over the others
--   kendall   Mean of Kendall's tau b over the others
--   jaccard   Mean share of the top quarter of the tokens that they have in common: intersection
--             over union
--   left_out  Number of instances that some method has scores of and that are not among n
create macro agreement_over(common := true, methods := null) as table
with chosen as materialized (
    from compared('scores', common, methods)
),

pairs as (
    select
        a.method as method_a,
        b.method as method_b,
        any_value(a.total) as total
    from (select method, any_value(total) as total from chosen group by method) as a
    join (select distinct method from chosen) as b on a.method < b.method
    group by all
),

means as (
    select
        p.method_a,
        p.method_b,
        count(*) as n,
        count(*) - count(spearman) as constant,
        avg(spearman) as spearman,
        avg(kendall) as kendall,
        avg(jaccard) as jaccard
    from agreement_by_instance_over(methods) as p
    semi join (from chosen where compared) as a
        on p.instance_id = a.instance_id and p.method_a = a.method
    semi join (from chosen where compared) as b
        on p.instance_id = b.instance_id and p.method_b = b.method
    group by p.method_a, p.method_b
)

select
    method_a,
    method_b,
    coalesce(n, 0) as n,
    coalesce(constant, 0) as constant,
    spearman,
    kendall,
    jaccard,
    total - coalesce(n, 0) as left_out
from pairs
left join means using (method_a, method_b)
order by method_a, method_b;

create view agreement as
from agreement_over();
