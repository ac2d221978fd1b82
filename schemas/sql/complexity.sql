-- How many tokens a method's explanations take: one row per method, means over the instances of
-- measures of how scores are spread. Every instance counts the same.
--
-- Of the tokens that can be removed, neither special nor read out, the shares of the absolute
-- scores q = |s| / sum |s| are taken. Few tokens are easier to read, and that is all: sparse isn't
-- right, and an explanation of one wrong token has the best values there are. Ask for faithfulness
-- beside it (`ranking`). Scores that are all 0 have no shares, and are counted in `constant`.
--
-- What else fools it: longer texts have larger entropies and numbers, so that values are of these
-- texts alone; `entropy_share` and `gini` depend less on length, but Gini's largest is 1 - 1 / n.
-- Squares of scores, or a softmax of them, look sparser than they are.
--
-- Methods are compared on the same instances: those that all of them have scores of. To compare
-- each on all that it has, or some of them alone:
--
--   from complexity_over(common := false)
--   from complexity_over(methods := ['lime', 'saliency'])
--
-- Metrics:
--   entropy           lower is less complex; 0 to the logarithm of the number of tokens
--   entropy_share     lower is less complex; 0 to 1
--   gini              higher is less complex; 0 to below 1
--   effective         lower is less complex; 1 to the number of tokens
--   effective_number  lower is less complex; 1 to the number of tokens
--
-- Columns:
--   n                 Number of instances that are compared, and that have a token to compare
--   constant          Number of them that have no shares, and count in no mean: all scores are 0
--   entropy           Mean of - sum q ln q in nats, 0 (one token) to ln of the number of tokens;
--                     lower is less complex. Bhatt et al. 2020
--   entropy_share     Mean of the entropy over the largest that there is, 0 to 1; lower is less
--                     complex. Null of a single token, which counts in none of it
--   gini              Mean Gini coefficient of the absolute scores, 0 (all equal) to below 1;
--                     higher is less complex. Chalasani et al. 2020
--   effective         Mean number of tokens with an absolute score of at least 5 % of the largest,
--                     1 or more; lower is less complex
--   effective_number  Mean of exp(entropy), which is k for k equal tokens and zeros elsewhere, 1 or
--                     more; lower is less complex
--   left_out          Number of instances that some method has scores of and that are not among n
create macro complexity_over(common := true, methods := null) as table
with chosen as materialized (
    from compared('scores', common, methods)
),

means as (
    select
        c.method,
        count(*) as n,
        count(*) - count(entropy) as constant,
        avg(entropy) as entropy,
        avg(entropy_share) as entropy_share,
        avg(gini) as gini,
        avg(effective) as effective,
        avg(effective_number) as effective_number
    from complexity_by_instance as c
    semi join (from chosen where compared) as k using (instance_id, method)
    group by c.method
)

select
    method,
    coalesce(n, 0) as n,
    coalesce(constant, 0) as constant,
    entropy,
    entropy_share,
    gini,
    effective,
    effective_number,
    total - coalesce(n, 0) as left_out
from (select method, any_value(total) as total from chosen group by method)
left join means using (method)
order by method;

create view complexity as
from complexity_over();
