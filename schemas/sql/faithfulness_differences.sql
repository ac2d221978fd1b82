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
-- The work is methods x metrics x texts x (1000 + draws) products, taken over lists, and pairs x
-- metrics x draws comparisons.
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
        dense_rank() over (order by list_sort(list(concat_ws(
            ' ',
            method,
            comprehensiveness is null,
            sufficiency is null,
            aopc is null,
            log_odds is null,
            auc_morf is null,
            auc_lerf is null,
            auc_difference is null,
            decision_flip_fraction is null
        )))) as alike
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

-- What decides how a text is drawn and flipped, in the order of lists. These are of 256 texts at
-- most, so that of a large corpus none is large.
texts as materialized (
    select
        *,
        (md5_number('flip ' || of_text) % 2147483647)::bigint as start,
        ((md5_number('flip ' || of_text) >> 64) % 2147483647)::bigint as step
    from (
        select
            *,
            dense_rank() over (partition by protocol, operation order by of_text) - 1 as place,
            (row_number() over (partition by protocol, operation, alike order by of_text) - 1)
            // 256 as block
        from (select distinct of_text, protocol, operation, alike from alike)
    )
),

-- How often each text counts in the replicates of the bootstrap, and, above 1000, whether a sign
-- flip flips it: a list for each replicate, so that its sum over the texts is a product of lists.
weights as (
    select
        protocol,
        operation,
        alike,
        block,
        replicate,
        list(weight::double order by of_text) as weights
    from (
        select
            * exclude (counts),
            unnest(counts) as weight,
            unnest(range(1, len(counts) + 1)) as replicate
        from (select *, bootstrap_weights(of_text)[2:] as counts from texts)
    )
    group by all
    union all
    select
        protocol,
        operation,
        alike,
        block,
        1001 + flip as replicate,
        case
            when exact then list_transform(seeds, lambda seed: ((flip >> seed.place) & 1)::double)
            -- As the uniform of `bootstrap_weights`.
            else list_transform(
                seeds,
                lambda seed: ((seed.start + flip * seed.step) % 2147483647 < 1073741824)::double
            )
        end as weights
    from (
        select
            *,
            unnest(range(flips)) as flip
        from (
            select
                protocol,
                operation,
                alike,
                block,
                list({'place': place, 'start': start, 'step': step} order by of_text) as seeds
            from texts
            group by all
        )
        join asked using (protocol, operation)
    )
),

long as (
    unpivot found
    on comprehensiveness, sufficiency, aopc, log_odds, auc_morf, auc_lerf, auc_difference,
        decision_flip_fraction
    into name metric value score
),

-- Every method has the same texts in a group, so that its sums of them are in the same order.
listed as materialized (
    select
        method,
        protocol,
        operation,
        metric,
        alike,
        block,
        dense_rank() over (partition by protocol, operation, metric, alike order by method)
            as place,
        list(score order by of_text) as scores,
        list(n order by of_text) as counts
    from (
        select
            l.method,
            protocol,
            operation,
            l.metric,
            alike,
            t.block,
            of_text,
            sum(l.score) as score,
            count(*)::double as n
        from long as l
        join (from alike select instance_id, protocol, operation, alike)
            using (instance_id, protocol, operation)
        join texts as t using (of_text, protocol, operation, alike)
        group by all
    )
    group by method, protocol, operation, metric, alike, block
),

-- A difference of means is one of sums, so that no pair is drawn anew: for each replicate a list of
-- the methods' sums.
sums as materialized (
    select
        protocol,
        operation,
        metric,
        alike,
        replicate,
        list(total order by place) as totals,
        max(n) as n
    from (
        select
            protocol,
            operation,
            l.metric,
            alike,
            w.replicate,
            l.place,
            sum(list_inner_product(l.scores, w.weights)) as total,
            -- As many of each method. Flips need no number.
            sum(list_inner_product(l.counts, w.weights))
                filter (l.place = 1 and w.replicate <= 1000) as n
        from listed as l
        join weights as w using (protocol, operation, alike, block)
        group by all
    )
    group by all
),

pairs as materialized (
    select
        row_number() over () as pair,
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

-- Where the sums of a pair stand in the lists, and in how many groups its texts are.
places as (
    select
        p.pair,
        protocol,
        operation,
        metric,
        a.alike,
        a.place as place_a,
        b.place as place_b,
        count(*) over (partition by p.pair) as groups,
        p.n * p.difference as whole,
        abs(whole) - p.rounding as near
    from pairs as p
    join (from listed where block = 0) as a using (protocol, operation, metric)
    join (from listed where block = 0) as b using (protocol, operation, metric, alike)
    where a.method = p.method_a and b.method = p.method_b
),

replicates as (
    select
        p.pair,
        s.replicate,
        p.whole,
        p.near,
        s.totals[p.place_a] - s.totals[p.place_b] as total,
        s.n
    from (from places where groups = 1) as p
    join sums as s using (protocol, operation, metric, alike)
    union all
    select
        p.pair,
        s.replicate,
        p.whole,
        p.near,
        sum(s.totals[p.place_a] - s.totals[p.place_b]) as total,
        sum(s.n) as n
    from (from places where groups > 1) as p
    join sums as s using (protocol, operation, metric, alike)
    group by all
),

drawn as (
    select
        pair,
        quantile_cont(total / n, 0.025) filter (replicate <= 1000 and n > 0) as low,
        quantile_cont(total / n, 0.975) filter (replicate <= 1000 and n > 0) as high,
        count(*) filter (replicate > 1000 and abs(whole - 2 * total) < near) as nearer
    from replicates
    group by pair
),

tested as (
    select
        p.* exclude (rounding),
        d.low,
        d.high,
        flips as tried,
        flips - d.nearer as as_far,
        case when exact then as_far / tried else (1 + as_far) / (1 + tried) end as p
    from pairs as p
    join drawn as d using (pair)
    join asked using (protocol, operation)
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
