-- What removing a subset of an instance's tokens does, beside what a method's scores of them add up
-- to: one row per check, instance, method and subset. Subsets are the same for all methods. Rows
-- are of methods whose scores explain the class that the subsets' outputs are of, or none.
--
-- Columns:
--   drop       The explained scalar of the whole input less that without the subset
--   predicted  Sum of the method's scores of the tokens removed
create view subset_drops as
select
    s.evaluation,
    s.instance_id,
    a.method,
    s.kind,
    s.sample,
    s.size,
    s.units,
    w.explained::double - s.explained as drop,
    list_inner_product(a.scores::double[], s.removed::int[]::double[]) as predicted
from subsets as s
join subsets as w using (evaluation, instance_id)
join attributions as a using (instance_id)
where w.kind = 'whole' and w.failure is null and s.kind <> 'whole' and a.layer is null
    and (a.target is null or a.target = s.target) and isfinite(list_sum(a.scores));
