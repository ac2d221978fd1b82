-- Whether both ends of a ranking of tokens rank the methods alike: one row per protocol and
-- operation. Rong et al. 2022 (ROAD) ask for it of a faithfulness test that can be believed.
--
-- Kendall's tau b over the methods, between their order by removing the most relevant first (area
-- under the MoRF curve, low is good) and that by removing the least relevant first (area under the
-- LeRF curve, high is good). Methods are compared on the same instances, as in `faithfulness`
-- (`ranking_agreement_over(common := false)` and the like).
--
-- What fools it: of few methods it takes few values, and of alike ones it is chance; `random` and
-- other methods that are far behind make it high. Both orders may be wrong in the same way, where
-- what is removed leaves an input that the model never saw: compare operations.
--
-- Metrics:
--   kendall  higher is better; -1 to 1
--
-- Columns:
--   methods   Number of methods with both areas
--   kendall   Kendall's tau b, -1 to 1; higher is better: 1 where both rank the methods alike, 0
--             where they have nothing to do with each other. Null where no two methods differ
--   n         Number of instances of a method, of the methods' smallest
--   left_out  As in `faithfulness`, of the methods' largest
create macro ranking_agreement_over(common := true, methods := null) as table
with areas as (
    select protocol, operation, method, auc_morf, auc_lerf, n, left_out
    from faithfulness_over(common, methods)
    where auc_morf is not null and auc_lerf is not null
),

pairs as (
    select
        protocol,
        operation,
        sign(b.auc_morf - a.auc_morf) as by_morf,
        sign(a.auc_lerf - b.auc_lerf) as by_lerf
    from areas as a
    join areas as b using (protocol, operation)
    where a.method < b.method
),

correlated as (
    select
        protocol,
        operation,
        sum(by_morf * by_lerf)
        / nullif(sqrt(sum(abs(by_morf))::double * sum(abs(by_lerf))), 0) as kendall
    from pairs
    group by all
)

select
    protocol,
    operation,
    count(*) as methods,
    any_value(kendall) as kendall,
    min(n) as n,
    max(left_out) as left_out
from areas
left join correlated using (protocol, operation)
group by all
order by protocol, operation;

create view ranking_agreement as
from ranking_agreement_over();
