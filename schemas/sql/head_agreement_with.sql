-- Whether the same heads matter in another run, such as one on another corpus: a table macro, one
-- row per method of either run. Its argument is the name that the other run was given:
--
--   attribeam query OUT --with other=OTHER "from head_agreement_with('other')"
--
-- or, with --external-access, a glob of its files: 'OTHER/heads/*/*.parquet'.
--
-- The columns are method, other_method, heads (the number compared), the Pearson and Spearman
-- correlations of the mean largest attribution over the heads, as in `head_agreement`, and the
-- numbers n and other_n of instances that the means are over.
--
-- What fools it is said in `head_agreement`.
--
-- Metrics:
--   pearson   higher is more alike; -1 to 1
--   spearman  higher is more alike; -1 to 1
create macro head_agreement_with(files) as table
with importance as (
    select false as other, method, layer, head, avg(attr_max::double) as importance, count(*) as n
    from heads
    where isfinite(attr_max)
    group by all
    union all
    select true as other, method, layer, head, avg(attr_max::double) as importance, count(*) as n
    from query(
        case
            when contains(files, '/') then
                'from read_parquet(''' || replace(files, '''', '''''')
                || ''', hive_partitioning = false)'
            else 'from "' || replace(files, '"', '""') || '".heads'
        end
    )
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
