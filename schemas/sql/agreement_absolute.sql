-- How far the methods agree about the size of scores: the means of
-- `agreement_absolute_by_instance`, OpenXAI's six measures, one row per pair of methods (method_a <
-- method_b). Every instance counts the same. `agreement` ranks scores as they are, with their
-- signs.
--
-- All measures are the higher, the more alike. Agreement isn't faithfulness: two methods can be
-- wrong together. What else fools it: to rank sizes makes what speaks for and against a class
-- alike; a method without signs agrees in sign with what is positive; a random order has k / n of
-- the top k in common, which is more in short texts; near-twins agree by construction.
--
-- All pairs are compared on the same instances: those that every method has scores of. To compare
-- each pair on all that these two have, or some of the methods alone:
--
--   from agreement_absolute_over(common := false)
--   from agreement_absolute_over(methods := ['lime', 'saliency'])
--
-- The work grows with instances x pairs of methods x tokens.
--
-- Metrics:
--   feature_agreement        higher is more alike; 0 to 1
--   rank_agreement           higher is more alike; 0 to 1
--   sign_agreement           higher is more alike; 0 to 1
--   signed_rank_agreement    higher is more alike; 0 to 1
--   rank_correlation         higher is more alike; -1 to 1
--   pairwise_rank_agreement  higher is more alike; 0 to 1
--
-- Columns:
--   method_a  The method whose name comes first
--   method_b  The other
--   n         Number of instances that are compared, and that have a token to compare
--   constant  Number of them without a rank correlation: one token, or equal sizes for all
--   feature_agreement  Mean share of the top quarter that both have, 0 to 1
--   rank_agreement     Mean share of its places with the same token and rank, 0 to 1
--   sign_agreement     Mean share of it that both have with the same sign, 0 to 1
--   signed_rank_agreement    Mean share of its places with the same token, rank and sign, 0 to 1
--   rank_correlation   Mean of Pearson's correlation of the dense ranks over the others, -1 to 1
--   pairwise_rank_agreement  Mean share of the pairs of tokens that both rank alike, 0 to 1, over
--                      the instances with more than one token
--   left_out  Number of instances that some method has scores of and that are not among n
create macro agreement_absolute_over(common := true, methods := null) as table
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
        count(*) - count(rank_correlation) as constant,
        avg(feature_agreement) as feature_agreement,
        avg(rank_agreement) as rank_agreement,
        avg(sign_agreement) as sign_agreement,
        avg(signed_rank_agreement) as signed_rank_agreement,
        avg(rank_correlation) as rank_correlation,
        avg(pairwise_rank_agreement) as pairwise_rank_agreement
    from agreement_absolute_by_instance as p
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
    feature_agreement,
    rank_agreement,
    sign_agreement,
    signed_rank_agreement,
    rank_correlation,
    pairwise_rank_agreement,
    total - coalesce(n, 0) as left_out
from pairs
left join means using (method_a, method_b)
order by method_a, method_b;

create view agreement_absolute as
from agreement_absolute_over();
