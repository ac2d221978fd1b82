-- The methods from the most faithful to the least, in few and short columns, so that all of them
-- fit a narrow terminal: one row per method, protocol and operation.
--
-- They are ordered by the area between the curves, LeRF less MoRF. `random` stands where a method
-- stands that knows nothing: what is below it is worse than that. Numbers are rounded to three
-- digits, ranks are of all digits; `faithfulness`, `complexity` and `cost_faithfulness` have them.
-- Methods are compared on the same instances (`ranking_over(common := false)` and the like, as in
-- `faithfulness`).
--
-- What fools it: neighbours may not differ (`faithfulness_differences`), another operation may rank
-- them otherwise, and methods that explain different classes can't be compared. Neither sparse nor
-- cheap is right for that: no order is by `gini` or `ms`.
--
-- Metrics:
--   rank            lower is better; 1 to the number of methods
--   auc_difference  higher is better; -1 to 1
--   comp            higher is better; -1 to 1
--   suff            lower is better; -1 to 1
--   gini            higher is sparser; 0 to below 1
--   ms              lower is cheaper; 0 or more
--
-- Columns:
--   rank            Place among the methods of the protocol and operation, from 1, the most
--                   faithful; equal ones share it. Null without the curves that it needs
--   auc_difference  As in `faithfulness`, -1 to 1; higher is better
--   comp            `comprehensiveness` of `faithfulness`, -1 to 1; higher is better
--   suff            `sufficiency` of `faithfulness`, -1 to 1; lower is better
--   gini            As in `complexity`, over the instances that all methods have scores of: 0 to
--                   below 1; higher is sparser
--   ms              Milliseconds an instance, as in `cost_faithfulness`; lower is cheaper
--   n               Number of instances with curves that are compared
--   left_out        As in `faithfulness`: number of instances that are not compared
create macro ranking_over(common := true, methods := null) as table
select
    f.method,
    case
        when f.auc_difference is not null
            then rank() over (
                partition by f.protocol, f.operation
                order by f.auc_difference desc nulls last
            )
    end as rank,
    round(f.auc_difference, 3) as auc_difference,
    round(f.comprehensiveness, 3) as comp,
    round(f.sufficiency, 3) as suff,
    round(c.gini, 3) as gini,
    round(1000 * f.seconds_per_instance, 1) as ms,
    f.n,
    f.protocol,
    f.operation,
    f.left_out
from cost_faithfulness_over(common, methods) as f
left join complexity_over(common, methods) as c using (method)
order by f.protocol, f.operation, rank nulls last, f.method;

create view ranking as
from ranking_over();
