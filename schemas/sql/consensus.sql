-- How far each method ranks tokens as the other families of methods do: the means of
-- `consensus_by_instance`, one row per method. Every instance counts the same.
--
-- One family, one vote: near-twins (`bt_token` and `bt_head`, the norm-based methods) would else
-- outvote the others. Agreement isn't faithfulness: methods can be wrong together, and a method
-- that alone sees what the model does stands alone (Krishna et al. 2022, Neely et al. 2021). Ask
-- for `ranking` beside it; `random` says what chance is, about 0.
--
-- What else fools it: scores are ranked as they are, so that a method whose negative scores mean
-- against is compared with magnitudes, which have none; `absolute := true` ranks sizes. On short
-- texts it is noise. Kendall's W is the larger the fewer votes there are: of m votes that have
-- nothing to do with each other it is about 1 / m. Runs begun before families were recorded have
-- each method as a family of its own (`families`).
--
-- Methods are compared on the same instances, those that all of them have scores of, and vote
-- there. To compare each on all that it has, or to have some of them alone, which then alone vote:
--
--   from consensus_over(common := false)
--   from consensus_over(methods := ['lime', 'saliency', 'alti'])
--   from consensus_over(absolute := true)
--
-- Metrics:
--   consensus    higher is more alike; -1 to 1
--   concordance  higher is more alike; 0 to 1
--
-- Columns:
--   family       As in `consensus_by_instance`
--   families     Number of families that vote, the fewest on any of the instances
--   n            Number of instances that are compared, and that have a token to compare
--   constant     Number of them without a correlation, which count in no mean of it
--   consensus    Mean of Spearman's correlation with the mean of the other families' votes, -1 to
--                1; higher is more alike
--   concordance  Mean of Kendall's W of all votes, 0 to 1; higher is more alike. The same for all
--                methods on the same instances
--   left_out     Number of instances that some method has scores of and that are not among n
create macro consensus_over(common := true, methods := null, absolute := false) as table
with chosen as materialized (
    from compared('scores', common, methods)
),

means as (
    select
        c.method,
        any_value(family) as family,
        min(families) as families,
        count(*) as n,
        count(*) - count(consensus) as constant,
        avg(consensus) as consensus,
        avg(concordance) as concordance
    from consensus_by_instance_over(methods, absolute) as c
    semi join (from chosen where compared) as k using (instance_id, method)
    group by c.method
)

select
    method,
    family,
    families,
    coalesce(n, 0) as n,
    coalesce(constant, 0) as constant,
    consensus,
    concordance,
    total - coalesce(n, 0) as left_out
from (select method, any_value(total) as total from chosen group by method)
left join means using (method)
order by method;

create view consensus as
from consensus_over();
