-- Whether one method is more faithful than another: one row per pair of methods (method_a <
-- method_b), protocol, operation and metric. Paired: each instance's metric of one method less that
-- of the other, so that what makes an instance easy for both cancels, and differences can be sure
-- where the intervals of `faithfulness_intervals` overlap.
--
-- The interval is of the bootstrap, over the replicates of `bootstrap_weights`. p is of the sign
-- flips: if neither method were the better one, each difference could as well have had the other
-- sign. Of few texts all 2^n flips are tried; else they are drawn, as functions of the text's id
-- and the number of the draw alone (the same whenever and wherever they are computed), and p is
-- (1 + draws at least as far from 0) / (1 + draws). Windows of one text are drawn and flipped
-- together.
--
-- `p_holm` is p corrected for all pairs of methods of a protocol, an operation and a metric (Holm
-- 1979), not for many metrics looked at. Drawn p are no smaller than 1 / (1 + draws), so that the
-- number of draws grows with that of the pairs: 40 for each, at least 2000. To ask for another, or
-- for fewer pairs, which is the sharper test:
--
--   from faithfulness_differences_over(draws := 10000)
--   from faithfulness_differences_over(methods := ['lime', 'saliency'])
--   from faithfulness_differences_over(common := false)   each pair on all that both have
--
-- What fools it: the test is of the mean, and one of medians (Wilcoxon's) may say something else. A
-- small p says that a difference isn't 0, not that it is large: see `d_z`. Texts that stand in the
-- corpus twice are one observation, counted twice. All is of one model and one corpus. Methods that
-- explain different classes can't be compared (`faithfulness`).
--
-- The work is methods x instances x (1000 + draws) sums, and pairs x metrics x draws comparisons.
--
-- Metrics:
--   difference  better as its metric in `faithfulness`; -2 to 2; of log_odds -140 to 140
--   wins        higher is better for method_a; 0 to 1
--   p           lower is surer; above 0 to 1
--   p_holm      lower is surer; above 0 to 1
--   d_z         farther from 0 is a larger effect; any size
--
-- Columns:
--   method_a    The method whose name comes first
--   method_b    The other
--   metric      Name of the column of `faithfulness`
--   better      Which values are the better ones: higher or lower
--   n           Number of instances
--   difference  Mean of the metric of method_a less that of method_b, in its unit: above 0, a is
--               the better where higher is better, and the worse where lower is
--   low         2.5 % percentile of it over the bootstrap's replicates
--   high        97.5 % percentile
--   p           Share of the sign flips with a mean at least as far from 0, above 0 to 1; small
--               where the difference is sure
--   p_holm      The same, corrected for the number of pairs; p or more, at most 1
--   wins        Share of the instances of which method_a has the better value, 0 to 1
--   ties        Share of them of which both have the same
--   d_z         Effect size: difference over the standard deviation of the differences (of a
--               sample); of its sign, 0 for none. Null if all differences are equal
--   draws       Number of sign flips that p is of: 2^n, all there are, of few texts
--   left_out    Number of instances that some method has curves of and that are not among n
create macro faithfulness_differences_over(common := true, methods := null, draws := null) as table
with chosen as materialized (
    from compared_curves(common, methods)
),

found as materialized (
    select
        f.* exclude (units, probability, auc_random, flipped),
        coalesce(i.row_id, f.instance_id) as of_text
    from faithfulness_by_instance as f
    semi join (from chosen where compared) as k using (instance_id, method, protocol, operation)
    left join (select instance_id, row_id from instances) as i using (instance_id)
),

-- Instances that the same methods have the same metrics of: sums over them can be subtracted.
alike as (
    select
        instance_id,
        protocol,
        operation,
        any_value(of_text) as of_text,
        dense_rank() over (order by list_sort(list(
            [method, (comprehensiveness is null)::varchar, (sufficiency is null)::varchar]
        ))) as alike
    from found
    group by instance_id, protocol, operation
),

sizes as (
    select
        protocol,
        operation,
        count(distinct of_text) as texts,
        count(distinct method) as of_methods
    from found
    group by protocol, operation
),

asked as (
    select
        protocol,
        operation,
        coalesce(draws, greatest(2000, 20 * of_methods * (of_methods - 1))) as most,
        texts < 31 and (1::bigint << least(texts, 31)) <= most as exact,
        case when exact then 1::bigint << least(texts, 31) else most end as flips
    from sizes
),

-- How often each text counts in the replicates of the bootstrap, and in each sign flip whether it
-- is flipped: if flips are drawn, by the uniform of `bootstrap_weights`.
counts as (
    select
        t.*,
        list_concat(
            bootstrap_weights(of_text)[2:],
            list_transform(
                [{
                    'at': dense_rank() over (partition by protocol, operation order by of_text) - 1,
                    'start': (md5_number('flip ' || of_text) % 2147483647)::bigint,
                    'step': ((md5_number('flip ' || of_text) >> 64) % 2147483647)::bigint
                }],
                lambda seed: list_transform(
                    range(flips),
                    lambda flip: case
                        when exact then (flip >> seed.at) & 1
                        else ((seed.start + flip * seed.step) % 2147483647 < 1073741824)::int
                    end::tinyint
                )
            )[1]
        ) as counts
    from (select distinct of_text, protocol, operation from alike) as t
    join asked using (protocol, operation)
),

-- Unnested after the join, so that the join is a small one.
drawn as (
    select
        f.*,
        a.alike,
        unnest(c.counts) as weight,
        unnest(range(1, len(c.counts) + 1)) as replicate
    from found as f
    join alike as a using (instance_id, protocol, operation)
    join counts as c on f.of_text = c.of_text and f.protocol = c.protocol
        and f.operation = c.operation
),

-- A difference of means is one of sums, so that no pair is drawn anew.
sums as (
    select
        method,
        protocol,
        operation,
        alike,
        replicate,
        sum(weight)::double as n,
        sum(weight * comprehensiveness) as comprehensiveness,
        sum(weight * sufficiency) as sufficiency,
        sum(weight * aopc) as aopc,
        sum(weight * log_odds) as log_odds,
        sum(weight * auc_morf) as auc_morf,
        sum(weight * auc_lerf) as auc_lerf,
        sum(weight * auc_difference) as auc_difference,
        sum(weight * decision_flip_fraction) as decision_flip_fraction
    from drawn
    where weight > 0
    group by all
),

long_sums as (
    unpivot sums
    on comprehensiveness, sufficiency, aopc, log_odds, auc_morf, auc_lerf, auc_difference,
        decision_flip_fraction
    into name metric value total
),

long as (
    unpivot found
    on comprehensiveness, sufficiency, aopc, log_odds, auc_morf, auc_lerf, auc_difference,
        decision_flip_fraction
    into name metric value score
),

pairs as (
    select
        a.method as method_a,
        b.method as method_b,
        protocol,
        operation,
        metric,
        case
            when metric in ('comprehensiveness', 'aopc', 'auc_lerf', 'auc_difference') then 'higher'
            else 'lower'
        end as better,
        count(*) as n,
        avg(a.score - b.score) as difference,
        avg(case when better = 'higher' then a.score > b.score else a.score < b.score end::int)
            as wins,
        avg((a.score = b.score)::int) as ties,
        case
            when max(a.score - b.score) > min(a.score - b.score)
                then difference / stddev_samp(a.score - b.score)
        end as d_z,
        -- Sums in another order may differ by rounding.
        sum(abs(a.score) + abs(b.score)) * 1e-11 as rounding
    from long as a
    join long as b using (instance_id, protocol, operation, metric)
    where a.method < b.method
    group by all
),

replicates as (
    select
        a.method as method_a,
        b.method as method_b,
        protocol,
        operation,
        metric,
        replicate,
        sum(a.total - b.total) as total,
        sum(a.n) as n
    from long_sums as a
    join long_sums as b using (protocol, operation, metric, alike, replicate)
    where a.method < b.method
    group by all
),

tested as (
    select
        p.* exclude (rounding),
        quantile_cont(r.total / r.n, 0.025) filter (replicate <= 1000) as low,
        quantile_cont(r.total / r.n, 0.975) filter (replicate <= 1000) as high,
        -- Those that flip nothing have no row, and are as far from 0.
        any_value(flips) as tried,
        tried - count(*) filter (
            replicate > 1000
            and abs(p.n * difference - 2 * r.total) < abs(p.n * difference) - rounding
        ) as as_far,
        case when any_value(exact) then as_far / tried else (1 + as_far) / (1 + tried) end as p
    from pairs as p
    join replicates as r using (method_a, method_b, protocol, operation, metric)
    join asked using (protocol, operation)
    group by all
),

ranked as (
    select
        *,
        row_number() over family as rank,
        count(*) over (partition by protocol, operation, metric) as size
    from tested
    window family as (partition by protocol, operation, metric order by p, method_a, method_b)
)

select
    method_a,
    method_b,
    protocol,
    operation,
    metric,
    better,
    n,
    difference,
    low,
    high,
    p,
    least(1, max((size - rank + 1) * p) over (
        partition by protocol, operation, metric
        order by rank
    )) as p_holm,
    wins,
    ties,
    d_z,
    tried as draws,
    total - n as left_out
from ranked
join (select distinct protocol, operation, total from chosen) using (protocol, operation)
order by protocol, operation, metric, method_a, method_b;

create view faithfulness_differences as
from faithfulness_differences_over();
