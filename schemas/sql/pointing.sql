-- Where the relevance of each method lies, beside human rationales: one row per method, the means
-- of `pointing_by_instance`. Every instance counts the same.
--
-- `plausibility` asks which words a method would choose; these ask of its first word (pointing), of
-- its scores themselves (relevance mass) and of its whole order (ROC AUC).
--
-- What fools them: a rationale is what people find convincing, not what the model used. Where
-- rationales are long, pointing is high by chance: compare it with `chance`, which is also about
-- the relevance mass of equal scores. The mass grows with the sharpness of the scores, and one
-- large score decides it; it leaves out words that speak against the class. The ROC AUC counts
-- the many words that nobody marked as much as the first ones: for short rationales in long texts
-- `auprc` of `plausibility` says more. Instances may be parts of texts, as in `plausibility`.
--
-- Methods are compared on the same instances, those that all of them rank. To compare each on all
-- that it ranks, or some of them alone:
--
--   from pointing_over(common := false)
--   from pointing_over(methods := ['lime', 'saliency'])
--
-- Metrics:
--   pointing        higher is better; 0 to 1
--   relevance_mass  higher is better; 0 to 1
--   roc_auc         higher is better; 0 to 1
--
-- Columns:
--   n               Number of instances
--   pointing        Share of them whose word with the highest score is in the rationale, 0 to 1;
--                   higher is better. Zhang et al. 2018 (pointing game)
--   chance          Mean share of the words that is in the rationale: pointing of a random order
--   relevance_mass  Mean share of the positive scores that lies in the rationale, 0 to 1; higher
--                   is better. Arras et al. 2022
--   without_mass    Number of instances without a positive score, which count in no relevance mass
--   roc_auc         Mean area under the ROC curve, 0 to 1, 0.5 for a random order; higher is better
--   left_out        Number of instances that some method ranks and that are not among n
create macro pointing_over(common := true, methods := null) as table
with every as materialized (
    from pointing_by_instance
    where methods is null or list_contains(methods, method)
),

ranked as (
    select instance_id, count(*) as by_methods
    from every
    group by instance_id
),

groups as (
    select distinct method from every
),

means as (
    select
        e.method,
        count(*) as n,
        avg(pointing) as pointing,
        avg(chance) as chance,
        avg(relevance_mass) as relevance_mass,
        count(*) - count(relevance_mass) as without_mass,
        avg(roc_auc) as roc_auc
    from every as e
    join ranked as r using (instance_id)
    where not common or r.by_methods = (select count(*) from groups)
    group by e.method
)

select
    method,
    coalesce(n, 0) as n,
    pointing,
    chance,
    relevance_mass,
    coalesce(without_mass, 0) as without_mass,
    roc_auc,
    (select count(*) from ranked) - coalesce(n, 0) as left_out
from groups
left join means using (method)
order by method;

create view pointing as
from pointing_over();
