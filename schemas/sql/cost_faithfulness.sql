-- What each method costs beside how faithful it is: one row per method, protocol and operation, the
-- cheapest first.
--
-- A method is on a metric's Pareto front if no other of the same protocol and operation is at least
-- as cheap and at least as faithful, and better in one of the two. A front is null where the
-- metric is.
--
-- What fools it: costs are of one machine, and a setting of a method (its points or samples) moves
-- it along the front. For the metrics see `faithfulness`.
--
-- Metrics:
--   seconds_per_instance  lower is cheaper; 0 or more
--   comprehensiveness     higher is better; -1 to 1
--   sufficiency           lower is better; -1 to 1
--   auc_difference        higher is better; -1 to 1
--   degradation           higher is better; any size, mostly -1 to 1
--
-- Columns:
--   n                      Number of instances with curves
--   seconds_per_instance   Mean over the same instances of the seconds of the attributions, as in
--                          `cost`; without the curves
--   comprehensiveness      As in `faithfulness`; higher is better
--   sufficiency            As in `faithfulness`; lower is better
--   auc_difference         As in `faithfulness`; higher is better
--   degradation            As in `degradation`; higher is better
--   on_front               Whether it is on the front of auc_difference
--   front_comprehensiveness  Whether it is on the front of comprehensiveness
--   front_sufficiency      Whether it is on the front of sufficiency
--   front_degradation      Whether it is on the front of degradation
--   left_out               As in `faithfulness`: number of instances that are not compared
create macro cost_faithfulness_over(common := true, methods := null) as table
with chosen as materialized (
    from compared_curves(common, methods)
    where compared
),

spent as (
    select
        k.method,
        k.protocol,
        k.operation,
        sum(a.seconds::double) / count(distinct k.instance_id) as seconds_per_instance
    from chosen as k
    join attributions as a using (instance_id, method)
    where isfinite(a.seconds)
    group by all
),

together as (
    select
        f.method,
        f.protocol,
        f.operation,
        f.n,
        s.seconds_per_instance,
        f.comprehensiveness,
        f.sufficiency,
        f.auc_difference,
        d.degradation,
        f.left_out
    from faithfulness_over(common, methods) as f
    join degradation_over(common, methods) as d using (method, protocol, operation)
    left join spent as s using (method, protocol, operation)
),

-- From the cheapest to the dearest, the best so far of the cheaper ones, and of the equally cheap.
best as (
    select
        *,
        max(comprehensiveness) over cheaper as best_comprehensiveness,
        max(comprehensiveness) over as_cheap as same_comprehensiveness,
        min(sufficiency) over cheaper as best_sufficiency,
        min(sufficiency) over as_cheap as same_sufficiency,
        max(auc_difference) over cheaper as best_difference,
        max(auc_difference) over as_cheap as same_difference,
        max(degradation) over cheaper as best_degradation,
        max(degradation) over as_cheap as same_degradation
    from together
    window
        cheaper as (
            partition by protocol, operation
            order by seconds_per_instance
            groups between unbounded preceding and 1 preceding
        ),
        as_cheap as (partition by protocol, operation, seconds_per_instance)
)

select
    method,
    protocol,
    operation,
    n,
    seconds_per_instance,
    comprehensiveness,
    sufficiency,
    auc_difference,
    degradation,
    auc_difference >= same_difference and coalesce(auc_difference > best_difference, true)
        as on_front,
    comprehensiveness >= same_comprehensiveness
    and coalesce(comprehensiveness > best_comprehensiveness, true) as front_comprehensiveness,
    sufficiency <= same_sufficiency and coalesce(sufficiency < best_sufficiency, true)
        as front_sufficiency,
    degradation >= same_degradation and coalesce(degradation > best_degradation, true)
        as front_degradation,
    left_out
from best
order by protocol, operation, seconds_per_instance, method;

create view cost_faithfulness as
from cost_faithfulness_over();
