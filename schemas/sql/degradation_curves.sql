-- The curves behind `degradation`, averaged over the instances and normalised: one row per method,
-- protocol, operation, order and nominal fraction, to be plotted.
--
-- Instances are averaged at the same nominal fraction. On short texts the share that is really
-- removed is another, which is why `degradation` takes the area of each instance's own curve. Of
-- units that were removed one after the other, points are at tenths (`compared_points`).
--
-- Columns:
--   n            Number of instances
--   probability  Mean probability of the explained class
--   normalised   (probability - bottom) / (top - bottom), with `top` and `bottom` of `degradation`
--   kept         Share of instances that are predicted as the whole input is
--   left_out     As in `faithfulness`: number of instances that are not compared
create macro degradation_curves_over(common := true, methods := null) as table
with chosen as materialized (
    from compared_curves(common, methods)
),

totals as (
    select
        protocol,
        operation,
        any_value(total) as total
    from chosen
    group by all
),

points as (
    select
        method,
        protocol,
        operation,
        "order",
        fraction,
        count(*) as n,
        avg(probability) as probability,
        1 - avg(flipped::int) as kept
    from compared_points(common, methods)
    group by all
),

ends as (
    select
        *,
        avg(probability) filter (fraction = 0) over evaluation as top,
        avg(probability) filter (fraction = 1) over evaluation as bottom
    from points
    window evaluation as (partition by method, protocol, operation)
)

select
    method,
    protocol,
    operation,
    "order",
    fraction,
    n,
    probability,
    case when abs(top - bottom) > 1e-12 then (probability - bottom) / (top - bottom) end
        as normalised,
    kept,
    total - n as left_out
from ends
join totals using (protocol, operation)
order by method, protocol, operation, "order", fraction;

create view degradation_curves as
from degradation_curves_over();
