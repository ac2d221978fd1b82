-- Whether the same heads matter: correlation of head importance between the subsets of a corpus, or
-- between methods, one row per pair (Hao et al. 2021 compare data sets).
--
-- The importance of a head is the mean over instances of its largest attribution, as in
-- `head_importance`. A group is a method and a subset (subtask, domain) of the corpus; instances
-- without a subset are a group of their own. `head_agreement_with` compares with another run.
-- Several methods are compared on the same instances of a subset; `head_agreement_over(common :=
-- false)` has each method's own.
--
-- What fools it: a few heads of large importance are most of Pearson's correlation; importances of
-- few instances are noise; and heads that matter for all that the model does agree on any subset.
--
-- Metrics:
--   pearson   higher is more alike; -1 to 1
--   spearman  higher is more alike; -1 to 1
--
-- Columns:
--   method_a     Method of the first group
--   subset_a     Its subset; null for the instances without one
--   instances_a  Number of its instances
--   method_b     Method of the second group
--   subset_b     Its subset
--   instances_b  Number of its instances
--   heads        Number of heads that are compared
--   pearson      Correlation of the importances over the heads
--   spearman     Correlation of their ranks
--   left_out_a   Number of instances of subset_a that some method has and that are not compared
--   left_out_b   Number of those of subset_b
create macro head_agreement_over(common := true, methods := null) as table
with chosen as materialized (
    from compared('heads', common, methods)
),

-- Of each subset the instances that any method has.
subsets as (
    select i.subset, count(distinct k.instance_id) as total
    from chosen as k
    join instances as i using (instance_id)
    group by all
),

importance as (
    select
        h.method,
        i.subset,
        h.layer,
        h.head,
        count(*) as n,
        avg(h.attr_max::double) as importance
    from heads as h
    semi join (from chosen where compared) as k using (instance_id, method)
    join instances as i using (instance_id)
    group by all
),

ranked as (
    select
        i.*,
        rank() over same as low,
        count(*) over (partition by method, i.subset, importance) as equal,
        s.total - n as left_out
    from importance as i
    join subsets as s on i.subset is not distinct from s.subset
    window same as (partition by method, i.subset order by importance)
)

select
    a.method as method_a,
    a.subset as subset_a,
    max(a.n) as instances_a,
    b.method as method_b,
    b.subset as subset_b,
    max(b.n) as instances_b,
    count(*) as heads,
    corr(a.importance, b.importance) as pearson,
    corr(a.low + (a.equal - 1) / 2, b.low + (b.equal - 1) / 2) as spearman,
    max(a.left_out) as left_out_a,
    max(b.left_out) as left_out_b
from ranked as a
join ranked as b using (layer, head)
where (a.method, coalesce(a.subset, '')) < (b.method, coalesce(b.subset, ''))
group by a.method, a.subset, b.method, b.subset
order by method_a, subset_a, method_b, subset_b;

create view head_agreement as
from head_agreement_over();
