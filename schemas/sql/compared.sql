-- Which instances the methods are compared on by what a table has of them: a table macro, one row
-- per instance and method. For curves see `compared_curves`.
--
-- `kind` says what: `scores`, `mixing`, `information` or `heads`. With `common`, `compared` is true
-- for the instances of which every method has that; without, for all that the method itself has.
-- What holds a number that isn't finite can't be used. A method that has nothing that can be used
-- is no bar to the others. `methods` is a list of those that are compared, null for all.
--
-- Its columns are instance_id, method, `compared`, and `total`, the number of instances that any of
-- the methods has.
create macro compared(kind, common, methods) as table
with every as (
    select
        'scores' as of_kind,
        instance_id,
        method,
        isfinite(list_sum(scores)) as usable
    from attributions
    where layer is null
    union all
    select
        'mixing' as of_kind,
        instance_id,
        method,
        bool_and(isfinite(list_sum(mixing))) as usable
    from layers
    where mixing is not null
    group by instance_id, method
    union all
    select
        'information' as of_kind,
        instance_id,
        method,
        bool_and(isfinite(list_sum(bits))) as usable
    from information
    group by instance_id, method
    union all
    select
        'heads' as of_kind,
        instance_id,
        method,
        bool_and(isfinite(attr_max + attention_mean + taylor_loss + taylor_logits)) as usable
    from heads
    group by instance_id, method
),

own as (
    select
        instance_id,
        method,
        usable is not false as usable
    from every
    where of_kind = kind and (methods is null or list_contains(methods, method))
),

counted as (
    select
        instance_id,
        count(*) filter (usable) as had
    from own
    group by instance_id
),

sizes as (
    select
        (select count(distinct method) from own where usable) as needed,
        (select count(*) from counted) as total
)

select
    o.instance_id,
    o.method,
    o.usable and (not common or c.had = s.needed) as compared,
    s.total
from own as o
join counted as c using (instance_id)
cross join sizes as s;
