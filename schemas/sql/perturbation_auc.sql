-- Positive and negative perturbation of each method (Chefer et al. 2021; Chen et al. 2023, Beyond
-- Intuition): one row per method, protocol and operation.
--
-- Positive perturbation removes the most relevant units first (MoRF): the sooner accuracy falls,
-- the better. Negative perturbation removes the least relevant first (LeRF): the longer it lasts,
-- the better. Accuracy is that of the predictions against the gold labels, over all instances at
-- the same nominal fraction (tenths, of units that were removed one after the other:
-- `compared_points`); the area is over these fractions, by the trapezoidal rule. Instances
-- without a label count for the probabilities alone. A value is null where its order was not run.
--
-- The authors force accuracy to 0 where everything is removed. Of a text, the prediction on nothing
-- is right for the share of one class, so areas here have the end that was measured, and two
-- columns the forced one.
--
-- What fools them: accuracy also falls where the model was right by chance, and areas begin where
-- the model does, so that those of two models can't be compared. For inputs with parts missing see
-- `faithfulness`.
--
-- Metrics:
--   positive_accuracy         lower is better; 0 to 1
--   negative_accuracy         higher is better; 0 to 1
--   positive_probability      lower is better; 0 to 1
--   negative_probability      higher is better; 0 to 1
--   positive_accuracy_forced  lower is better; 0 to 1
--   negative_accuracy_forced  higher is better; 0 to 1
--
-- Columns:
--   n                     Number of instances
--   labelled              Number of them with a gold label
--   positive_accuracy     Area under the accuracy of MoRF; lower is better
--   negative_accuracy     Area under the accuracy of LeRF; higher is better
--   positive_probability  Area under the mean probability of the explained class, MoRF; lower is
--                         better
--   negative_probability  The same of LeRF; higher is better
--   positive_accuracy_forced  As positive_accuracy, with accuracy 0 at fraction 1
--   negative_accuracy_forced  As negative_accuracy, with accuracy 0 at fraction 1
--   left_out              As in `faithfulness`: number of instances that are not compared
create macro perturbation_auc_over(common := true, methods := null) as table
with chosen as materialized (
    from compared_curves(common, methods)
),

sizes as (
    select
        method,
        protocol,
        operation,
        count(*) filter (compared) as n,
        any_value(total) - n as left_out
    from chosen
    group by all
),

-- Of many instances, few may have curves.
labels as (
    select instance_id, label
    from instances
    semi join chosen using (instance_id)
),

kept as materialized (
    from compared_points(common, methods)
    where "order" in ('morf', 'lerf')
),

points as (
    select
        c.method,
        c.protocol,
        c.operation,
        c."order",
        c.fraction,
        count(i.label) as labelled,
        avg((c.prediction = i.label)::int) as accuracy,
        avg(c.probability) as probability
    from kept as c
    join labels as i using (instance_id)
    group by all
),

stepped as (
    select
        *,
        (lead(fraction) over curve - fraction) / 2 as half,
        half * (accuracy + lead(accuracy) over curve) as area,
        half * (
            accuracy
            + case when lead(fraction) over curve < 1 then 1 else 0 end * lead(accuracy) over curve
        ) as area_forced,
        half * (probability + lead(probability) over curve) as area_probability
    from points
    window curve as (partition by method, protocol, operation, "order" order by fraction)
)

select
    method,
    protocol,
    operation,
    n,
    coalesce(max(labelled), 0) as labelled,
    sum(area) filter ("order" = 'morf') as positive_accuracy,
    sum(area) filter ("order" = 'lerf') as negative_accuracy,
    sum(area_probability) filter ("order" = 'morf') as positive_probability,
    sum(area_probability) filter ("order" = 'lerf') as negative_probability,
    sum(area_forced) filter ("order" = 'morf') as positive_accuracy_forced,
    sum(area_forced) filter ("order" = 'lerf') as negative_accuracy_forced,
    left_out
from sizes
left join stepped using (method, protocol, operation)
where n = 0 or "order" is not null
group by all
order by method, protocol, operation;

create view perturbation_auc as
from perturbation_auc_over();
