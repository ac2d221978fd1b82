-- How well a method's scores say what removing subsets of tokens does: one row per check and
-- method; means over instances of what `infidelity_by_instance` has (`attribeam check`).
--
-- All methods are held against the same subsets, of sizes that are uniform from one unit to all.
-- What fools it: removed tokens leave inputs that the model wasn't trained on, as in `curves`: see
-- what other operations say. Subsets like those that LIME and SHAP are fitted to favour these two,
-- and LIME's and SHAP's own least squares are nearly what is measured. One instance's mean over 100
-- subsets has a standard error of 8 to 24 %: compare methods on the same check alone. A method
-- that gives all tokens the same has a fair `infidelity_relative` and `faithfulness_correlation`,
-- since more removed is more lost: hold others against `random`, and see `sensitivity_n`, where
-- sizes aren't mixed. `non_sensitivity` is 0 for any method without zeros.
--
-- Methods are compared on the instances that all of them have:
--
--   from infidelity_over(common := false)
--   from infidelity_over(methods := ['lime', 'saliency'])
--
-- Metrics:
--   infidelity                lower is better; 0 or more
--   infidelity_relative       lower is better; 0 to 1
--   faithfulness_correlation  higher is better; -1 to 1
--   tau_loo                   higher is better; -1 to 1
--   non_sensitivity           lower is better; 0 to 1
--   opposite                  lower is better; 0 to 1
--
-- Columns:
--   n                         Number of instances
--   infidelity                Mean infidelity, 0 or more, in squares of the explained scalar's
--                             unit; lower is better. Null of methods that aren't additive. Yeh et
--                             al. 2019
--   infidelity_relative       Mean infidelity of the best multiple of the scores over that of
--                             scores of zero, 0 to 1; lower is better
--   faithfulness_correlation  Mean correlation of sums of scores and drops, -1 to 1; higher is
--                             better. Bhatt et al. 2020
--   tau_loo                   Mean Kendall's tau b with leaving one out, -1 to 1; higher is better.
--                             Jain & Wallace 2019
--   non_sensitivity           Mean share of units without a score that matter, or the reverse, 0 to
--                             1; lower is better. Nguyen & Martinez 2020
--   opposite                  Share of instances whose scores are best multiplied by a number below
--                             0: removing what they mark raises the output; 0 to 1, lower is better
--   left_out                  Number of instances that some method has and that are not among n
create macro infidelity_over(common := true, methods := null) as table
with own as materialized (
    select
        *,
        count(*) over (partition by evaluation, instance_id) as had,
        count(distinct method) over (partition by evaluation) as most
    from infidelity_by_instance
    where methods is null or list_contains(methods, method)
)

select
    o.evaluation,
    o.method,
    count(*) filter (not common or had = most) as n,
    avg(infidelity) filter (m.additive and (not common or had = most)) as infidelity,
    avg(infidelity_relative) filter (not common or had = most) as infidelity_relative,
    avg(faithfulness_correlation) filter (not common or had = most) as faithfulness_correlation,
    avg(tau_loo) filter (not common or had = most) as tau_loo,
    avg(non_sensitivity) filter (not common or had = most) as non_sensitivity,
    avg((coalesce(beta, 0) < 0)::int) filter (not common or had = most) as opposite,
    any_value(t.total) - n as left_out
from own as o
join (
    select evaluation, count(distinct instance_id) as total from own group by evaluation
) as t using (evaluation)
left join (select method, additive from methods) as m using (method)
group by o.evaluation, o.method
order by o.evaluation, o.method;

create view infidelity as
from infidelity_over();
