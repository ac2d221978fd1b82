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
--
-- What is asked for is said where each table is read, so that no other file is opened.
create macro compared(kind, common, methods) as table
with every as (
    select
        instance_id,
        method,
        isfinite(list_sum(scores)) as usable
    from attributions
    where kind = 'scores' and layer is null
        and (methods is null or list_contains(methods, method))
    union all
    select
        instance_id,
        method,
        bool_and(isfinite(list_sum(mixing))) as usable
    from layers
    where kind = 'mixing' and mixing is not null
        and (methods is null or list_contains(methods, method))
    group by instance_id, method
    union all
    select
        instance_id,
        method,
        bool_and(isfinite(list_sum(bits))) as usable
    from information
    where kind = 'information'
        and (methods is null or list_contains(methods, method))
    group by instance_id, method
    union all
    select
        instance_id,
        method,
        bool_and(isfinite(attr_max + attention_mean + taylor_loss + taylor_logits)) as usable
    from heads
    where kind = 'heads'
        and (methods is null or list_contains(methods, method))
    group by instance_id, method
),

own as (
    select
        instance_id,
        method,
        usable is not false as usable
    from every
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
