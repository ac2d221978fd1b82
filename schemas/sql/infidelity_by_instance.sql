-- How well a method's scores of one instance say what removing subsets of its tokens does: one row
-- per check, instance and method (`attribeam check`, table `subsets`). With I a subset, I . phi the
-- sum of its scores and d the drop of the explained scalar, over random subsets. What they mean,
-- and what fools them, is said in `infidelity`.
--
-- Metrics:
--   infidelity                lower is better; 0 or more
--   infidelity_relative       lower is better; 0 to 1
--   faithfulness_correlation  higher is better; -1 to 1
--   tau_loo                   higher is better; -1 to 1
--   non_sensitivity           lower is better; 0 to 1
--   infidelity_scaled         lower is better; 0 or more
--
-- Columns:
--   samples                   Number of random subsets
--   infidelity                Mean of (I . phi - d)^2, in squares of the explained scalar's unit, 0
--                             or more; lower is better. Yeh et al. 2019. Of scores that are no
--                             shares of an output it says nothing
--   beta                      What scores are best multiplied by: mean of (I . phi) d over that of
--                             (I . phi)^2. Below 0 they say the opposite of what happens
--   infidelity_scaled         Infidelity of beta phi (captum's normalize); lower is better
--   infidelity_relative       infidelity_scaled over the mean of d^2, 0 (perfect) to 1 (as scores
--                             of zero); lower is better
--   faithfulness_correlation  Pearson's correlation of I . phi and d, -1 to 1; higher is better.
--                             Bhatt et al. 2020, here over subsets of all sizes
--   tau_loo                   Kendall's tau b of the scores of units and the drops when each is
--                             left out, -1 to 1; higher is better. Jain & Wallace 2019
--   non_sensitivity           Share of the units whose score is 0 and whose drop isn't, or the
--                             reverse, 0 to 1; lower is better. 0 is less than 1e-5 of the largest.
--                             Nguyen & Martinez 2020
create view infidelity_by_instance as
with random as (
    select
        *,
        sum(predicted * drop) over own / nullif(sum(predicted * predicted) over own, 0) as beta
    from subset_drops
    where kind = 'random'
    window own as (partition by evaluation, instance_id, method)
),

of_random as (
    select
        evaluation,
        instance_id,
        method,
        count(*) as samples,
        avg((predicted - drop) ** 2) as infidelity,
        any_value(beta) as beta,
        avg((coalesce(beta, 0) * predicted - drop) ** 2) as infidelity_scaled,
        infidelity_scaled / nullif(avg(drop * drop), 0) as infidelity_relative,
        -- Of what never varies DuckDB's is NaN.
        case
            when stddev_pop(predicted) > 1e-12 and stddev_pop(drop) > 1e-12
                then corr(predicted, drop)
        end as faithfulness_correlation
    from random
    group by evaluation, instance_id, method
),

lists as (
    select
        evaluation,
        instance_id,
        method,
        list(predicted order by sample) as scores,
        list(drop order by sample) as drops,
        1e-5 * list_max(list_transform(scores, lambda s: abs(s))) as no_score,
        1e-5 * list_max(list_transform(drops, lambda d: abs(d))) as no_drop
    from subset_drops
    where kind = 'one'
    group by evaluation, instance_id, method
),

of_ones as (
    select
        evaluation,
        instance_id,
        method,
        kendall_tau(scores, drops) as tau_loo,
        list_avg(list_transform(
            scores,
            lambda s, i: ((abs(s) <= no_score) <> (abs(drops[i]) <= no_drop))::int::double
        )) as non_sensitivity
    from lists
)

select
    evaluation,
    instance_id,
    method,
    samples,
    infidelity,
    beta,
    infidelity_scaled,
    infidelity_relative,
    faithfulness_correlation,
    tau_loo,
    non_sensitivity
from of_random
left join of_ones using (evaluation, instance_id, method);
