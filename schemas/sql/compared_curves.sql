-- Which instances the methods are compared on by their curves: a table macro, one row per instance,
-- method, protocol and operation of `curves`.
--
-- Means over different instances can't be compared: who failed on the hardest text would look the
-- best. With `common`, `compared` is true for the instances that every method has curves of which
-- can be used, under the same protocol and operation; without, for all that the method itself has.
-- Curves can't be used if they have nothing to remove, or a probability that is no number. A method
-- that has none which can be used is no bar to the others. `methods` is a list of those that are
-- compared, null for all.
--
-- Almost always all are compared, so that it is several times as cheap to leave out of the curves
-- those that aren't (an anti join) as to keep those that are.
--
-- Its columns are instance_id, method, protocol, operation, `compared`, and `total`, the number of
-- instances that any of the methods has curves of.
create macro compared_curves(common, methods) as table
with own as (
    select
        instance_id,
        method,
        protocol,
        operation,
        min(units) > 0 and bool_and(isfinite(probability)) as usable
    from curves
    where methods is null or list_contains(methods, method)
    group by all
),

counted as (
    select
        instance_id,
        protocol,
        operation,
        count(*) filter (usable) as had
    from own
    group by all
),

ways as (
    select
        protocol,
        operation,
        count(distinct method) filter (usable) as needed
    from own
    group by all
),

totals as (
    select
        protocol,
        operation,
        count(*) as total
    from counted
    group by all
)

select
    o.instance_id,
    o.method,
    o.protocol,
    o.operation,
    o.usable and (not common or c.had = w.needed) as compared,
    t.total
from own as o
join ways as w using (protocol, operation)
join totals as t using (protocol, operation)
join counted as c using (instance_id, protocol, operation);
