-- Which place a method has among the others, text by text, and how far two places must be apart to
-- differ: one row per method, protocol, operation and metric. Demsar 2006 compares classifiers so,
-- by Friedman's test and Nemenyi's critical difference.
--
-- On each text the methods are ranked by the metric, 1 for the best, equal ones with the mean of
-- their ranks; the windows of a text, and questions about it, count as one, by their mean. Texts
-- are those of which all methods have the metric. `friedman` is the statistic, corrected for ties,
-- of whether any method differs; it is chi squared with methods - 1 degrees of freedom. Two methods
-- differ, at 5 % over all pairs, where their mean ranks are more than `critical_difference` apart.
--
-- To ask for some of the methods, which changes all ranks:
--
--   from mean_ranks_over(methods := ['lime', 'saliency'])
--
-- What fools it: ranks say how often a method is ahead and not by how much, so that the order may be
-- another than that of the means (`faithfulness`). A place depends on who else was run: several
-- forms of one method push others down. Many texts make all differ that differ at all. Methods that
-- explain different classes can't be compared (`faithfulness`).
--
-- Metrics:
--   mean_rank  lower is better; 1 to the number of methods
--
-- Columns:
--   metric    comprehensiveness, sufficiency, aopc or auc_difference, as in `faithfulness`
--   n         Number of texts
--   methods   Number of methods that are ranked
--   mean_rank  Mean over texts, 1 to the number of methods; lower is better
--   low       2.5 % percentile of it over the bootstrap's replicates
--   high      97.5 % percentile
--   friedman  Friedman's statistic, 0 or more, of the whole; null if all methods are equal everywhere
--   critical_difference  Nemenyi's, at 5 %; null for one method or more than 60
--   left_out  Number of texts that some method has curves of and that are not among n
create macro mean_ranks_over(methods := null) as table
with chosen as materialized (
    from compared_curves(false, methods)
    where compared
),

means as materialized (
    select
        f.method,
        f.protocol,
        f.operation,
        coalesce(i.row_id, f.instance_id) as of_text,
        avg(f.comprehensiveness::double) as comprehensiveness,
        avg(f.sufficiency::double) as sufficiency,
        avg(f.aopc::double) as aopc,
        avg(f.auc_difference::double) as auc_difference
    from faithfulness_by_instance as f
    semi join chosen using (instance_id, method, protocol, operation)
    left join (select instance_id, row_id from instances) as i using (instance_id)
    group by all
),

long as (
    unpivot means
    on comprehensiveness, sufficiency, aopc, auc_difference
    into name metric value score
),

sizes as (
    select
        protocol,
        operation,
        metric,
        count(distinct method) as k,
        count(distinct of_text) as texts
    from long
    group by all
),

ranked as (
    select
        l.* exclude (score),
        rank() over (
            partition by l.of_text, l.protocol, l.operation, l.metric
            order by case when l.metric = 'sufficiency' then l.score else -l.score end
        ) + (
            count(*) over (
                partition by l.of_text, l.protocol, l.operation, l.metric, l.score
            ) - 1
        ) / 2 as place,
        count(*) over (partition by l.of_text, l.protocol, l.operation, l.metric) as had
    from long as l
),

complete as (
    select r.* exclude (had), s.k, s.texts
    from ranked as r
    join sizes as s using (protocol, operation, metric)
    where r.had = s.k
),

weighed as (
    select
        method,
        protocol,
        operation,
        metric,
        place,
        unnest(range(0, 1001)) as replicate,
        unnest(bootstrap_weights(of_text)) as weight
    from complete
),

replicated as (
    select
        method,
        protocol,
        operation,
        metric,
        replicate,
        sum(weight * place) / nullif(sum(weight), 0) as place
    from weighed
    group by all
),

intervals as (
    select
        method,
        protocol,
        operation,
        metric,
        quantile_cont(place, 0.025) filter (replicate > 0) as low,
        quantile_cont(place, 0.975) filter (replicate > 0) as high
    from replicated
    group by all
),

places as (
    select
        method,
        protocol,
        operation,
        metric,
        count(*) as n,
        any_value(k) as k,
        any_value(texts) as texts,
        avg(place) as mean_rank,
        sum((place - (k + 1) / 2) ** 2) as spread
    from complete
    group by all
)

select
    method,
    protocol,
    operation,
    metric,
    n,
    k as methods,
    mean_rank,
    low,
    high,
    (k - 1) * sum((n * (mean_rank - (k + 1) / 2)) ** 2) over whole
    / nullif(sum(spread) over whole, 0) as friedman,
    -- The studentized range of infinitely many degrees of freedom over the root of 2, of 2 to 60.
    [
        1.9600, 2.3437, 2.5690, 2.7278, 2.8497, 2.9483, 3.0309, 3.1017, 3.1637, 3.2187,
        3.2680, 3.3127, 3.3536, 3.3912, 3.4260, 3.4584, 3.4887, 3.5171, 3.5438, 3.5690,
        3.5929, 3.6156, 3.6373, 3.6579, 3.6776, 3.6964, 3.7145, 3.7319, 3.7486, 3.7647,
        3.7802, 3.7952, 3.8097, 3.8237, 3.8373, 3.8504, 3.8632, 3.8756, 3.8876, 3.8993,
        3.9107, 3.9219, 3.9327, 3.9432, 3.9535, 3.9636, 3.9734, 3.9830, 3.9923, 4.0015,
        4.0105, 4.0193, 4.0279, 4.0363, 4.0446, 4.0527, 4.0606, 4.0684, 4.0760
    ][k - 1] * sqrt(k * (k + 1) / (6 * n)) as critical_difference,
    texts - n as left_out
from places
join intervals using (method, protocol, operation, metric)
window whole as (partition by protocol, operation, metric)
order by protocol, operation, metric, mean_rank, method;

create view mean_ranks as
from mean_ranks_over();
