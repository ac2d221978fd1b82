-- The points of `curves` of the instances that are compared (`compared_curves`), at fractions that
-- all of them have: a table macro, with the columns of `curves`.
--
-- Where units are removed one after the other (`--fractions each`), a short text has other
-- fractions than a long one, and means over those that happen to have one can't be compared. There,
-- each text's points are taken that it would have at 0, 1 and the tenths between: those with the
-- number of units removed that is nearest to it, halves up, and at least one. A point may stand for
-- several.
create macro compared_points(common, methods) as table
with chosen as materialized (
    from compared_curves(common, methods)
),

kept as (
    select c.*
    from curves as c
    anti join (from chosen where compared is not true) as k
        using (instance_id, method, protocol, operation)
    where methods is null or list_contains(methods, method)
),

uneven as materialized (
    select
        method,
        protocol,
        operation,
        "order"
    from (
        select
            method,
            protocol,
            operation,
            "order",
            fraction,
            count(*) as n
        from kept
        group by all
    )
    group by all
    having min(n) < max(n)
),

moved as (
    select
        *,
        unnest(list_filter(range(11), lambda tenth: removed = case
            when tenth = 0 then 0
            when tenth = 10 then units
            when "order" = 'lerf'
                then units - least(units, greatest(1, floor((10 - tenth) * units / 10 + 0.5)))
            else least(units, greatest(1, floor(tenth * units / 10 + 0.5)))
        end)) / 10 as tenths
    from kept
    semi join uneven using (method, protocol, operation, "order")
)

from kept
anti join uneven using (method, protocol, operation, "order")
union all
select * exclude (tenths) replace (tenths as fraction)
from moved;
