-- Whether a method tells classes apart: of pictures with things of several classes, how much more of
-- a map lies on the thing of the explained class than on the others; one row per method.
--
-- Over the instances of which a mask is known to be of the explained class and another one is not.
-- `--target objects` explains every class that a mask of a picture is of. A method that knows no
-- class gives all of them one map, and comes to 0.5, but for rounding, where all are explained.
--
-- What fools it: things of different sizes hold different shares of any map, which evens out only
-- where every class of a picture is explained. Shares are of positive scores alone.
--
--   from class_discrimination_over(common := false)
--   from class_discrimination_over(methods := ['bt_head', 'bt_token'])
--
-- Metrics:
--   own_share  higher is better; 0 to 1
--   own_hit    higher is better; 0 to 1
--   other_hit  lower is better; 0 to 1
--
-- Columns:
--   n             Number of instances
--   own_share     Mean of m / (m + o), m and o being the shares of the positive scores on the
--                 class's own thing and on the others, 0 to 1; higher is better, 0.5 is none
--   without_mass  Number of instances with nothing on any of them, which count in no share
--   own_hit       Share of the instances whose highest pixel is on the class's own thing; higher is
--                 better
--   other_hit     The same of the others; lower is better
--   left_out      Number of instances that some method explains and that are not among n
create macro class_discrimination_over(common := true, methods := null) as table
with every as materialized (
    from localisation
    where (methods is null or list_contains(methods, method))
        and region = 'object'
        and hit_other is not null
        and not empty_mask
),

explained as (
    select instance_id, count(*) as by_methods
    from every
    group by instance_id
),

groups as (
    select distinct method from every
),

means as (
    select
        method,
        count(*) as n,
        avg(mass_inside / nullif(mass_inside + mass_other, 0)) as own_share,
        count(*) filter (coalesce(mass_inside + mass_other, 0) = 0) as without_mass,
        avg(hit::int) as own_hit,
        avg(hit_other::int) as other_hit
    from every
    join explained using (instance_id)
    where not common or by_methods = (select count(*) from groups)
    group by method
)

select
    method,
    coalesce(n, 0) as n,
    own_share,
    coalesce(without_mass, 0) as without_mass,
    own_hit,
    other_hit,
    (select count(*) from explained) - coalesce(n, 0) as left_out
from groups
left join means using (method)
order by method;

create view class_discrimination as
from class_discrimination_over();
