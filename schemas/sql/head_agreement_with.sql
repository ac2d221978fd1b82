-- Whether the same heads matter in another run, such as one on another corpus: a table macro, one
-- row per method of either run. Its argument is a glob of the other run's files:
--
--   attribeam query OUT "from head_agreement_with('OTHER/heads/*/*.parquet')" --external-access
--
-- The columns are method, other_method, heads (the number compared), the Pearson and Spearman
-- correlations of the mean largest attribution over the heads, as in `head_agreement`, and the
-- numbers n and other_n of instances that the means are over.
create macro head_agreement_with(files) as table
with importance as (
    select false as other, method, layer, head, avg(attr_max::double) as importance, count(*) as n
    from heads
    where isfinite(attr_max)
    group by all
    union all
    select true as other, method, layer, head, avg(attr_max::double) as importance, count(*) as n
    from read_parquet(files, hive_partitioning = false)
    where isfinite(attr_max)
    group by all
),

ranked as (
    select
        *,
        rank() over same as low,
        count(*) over (partition by other, method, importance) as equal
    from importance
    window same as (partition by other, method order by importance)
)

select
    a.method,
    b.method as other_method,
    count(*) as heads,
    corr(a.importance, b.importance) as pearson,
    corr(a.low + (a.equal - 1) / 2, b.low + (b.equal - 1) / 2) as spearman,
    max(a.n) as n,
    max(b.n) as other_n
from ranked as a
join ranked as b using (layer, head)
where not a.other and b.other
group by a.method, b.method
order by a.method, b.method;
