-- Whether a method says the same of the same instances in another run: a table macro, one row per
-- method of both. Its argument is the name that the other run was given:
--
--   attribeam query OUT --with other=OTHER "from agreement_with('other')"
--
-- The other run may be of the same model with another seed, precision or checkpoint, or of another
-- model. Instances are the same where ids and tokens are, and tokens are compared that can be
-- removed. Of a model trained on random labels, low is good: what is as alike as before explains the
-- text, and not the task (Adebayo et al. 2018, data randomisation). Of another training seed, it is
-- a ceiling for what scores on one model can mean; there higher is stabler.
--
-- What fools it: scores of different classes differ in sign for that reason alone, so that instances
-- that are explained for another class are left out and counted in `other_class`; `--target-from`
-- lets a run explain the classes of another. Methods that look at no weights agree with themselves.
--
-- Its columns are method; n, the number of instances compared; spearman, spearman_absolute and
-- jaccard, means over them of Spearman's correlation, -1 to 1, of that of absolute scores, and of
-- the overlap of the highest quarter of the tokens, 0 to 1; other_class, the number of instances
-- explained for another class in the other run; and other_tokens, the number of those of either run
-- that are not in the other one, or made of other tokens there.
--
-- Metrics:
--   spearman           higher is more alike; -1 to 1
--   spearman_absolute  higher is more alike; -1 to 1
--   jaccard            higher is more alike; 0 to 1
create macro agreement_with(other) as table
with theirs as materialized (
    from query(
        'select a.instance_id, a.method, a.target, a.scores, i.input_ids from "'
        || replace(other, '"', '""') || '".attributions as a join "'
        || replace(other, '"', '""') || '".instances as i using (instance_id) '
        || 'where a.layer is null'
    )
),

ours as materialized (
    select
        a.instance_id,
        a.method,
        a.target,
        a.scores,
        i.input_ids,
        removable_positions(i.special, i.readout) as positions
    from attributions as a
    join instances as i using (instance_id)
    where a.layer is null
),

shared as (
    select method from ours
    intersect
    select method from theirs
),

matched as (
    select
        method,
        o.instance_id is not null and t.instance_id is not null
            and o.input_ids = t.input_ids as same,
        same and o.target is distinct from t.target as elsewhere,
        list_select(o.scores, o.positions)::double[] as one,
        list_select(t.scores, o.positions)::double[] as other_one,
        greatest(1, floor(len(o.positions) / 4 + 0.5))::bigint as k
    from ours as o
    full join theirs as t using (method, instance_id)
    semi join shared using (method)
),

compared as (
    select
        *,
        same and not elsewhere and len(one) > 0
            and isfinite(list_sum(one)) and isfinite(list_sum(other_one)) as used,
        case when used then rank_correlation(one, other_one) end as own_spearman,
        case when used then rank_correlation(
            list_transform(one, lambda s: abs(s)), list_transform(other_one, lambda s: abs(s))
        ) end as own_absolute,
        list_grade_up(list_transform(one, lambda s, i: {'score': -s, 'at': i}))[1:k] as top,
        list_grade_up(list_transform(other_one, lambda s, i: {'score': -s, 'at': i}))[1:k]
            as other_top
    from matched
)

select
    method,
    count(*) filter (used) as n,
    avg(own_spearman) as spearman,
    avg(own_absolute) as spearman_absolute,
    avg(len(list_intersect(top, other_top)) / len(list_distinct(top || other_top)))
        filter (used) as jaccard,
    count(*) filter (elsewhere) as other_class,
    count(*) filter (same is not true) as other_tokens
from compared
group by method
order by method;
