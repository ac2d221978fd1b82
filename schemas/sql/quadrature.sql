-- How near integrals along paths are: a row per method and per table that has them.
--
-- An integral is taken at `steps` points. Its `error` is an estimate: the completeness gap, or what
-- half of the points would change, whichever is larger. Of `attributions` it is a share of the
-- largest score; of `interactions` (each layer's) it is in units of the output, and of `patterns` it
-- is what half of the points would add to a pattern's influence, as a share of the largest input
-- influence of the instance. What it was to be at most is the parameter `tolerance`; of patterns
-- those have missed it whose choice of nodes or heads was not sure at the most points. Integrals by
-- rules that aren't nested take all their points whatever the error, of which they may know nothing;
-- those have missed nothing.
--
-- What fools it: errors are estimates, by half of the points, and both may miss the same narrow
-- peak; rules that aren't nested estimate none.
--
-- Metrics:
--   median_error  lower is better; 0 or more
--   max_error     lower is better; 0 or more
--   missed        lower is better; 0 or more
--
-- Columns:
--   of            The table that the integrals are of
--   rule          The quadrature rule, as it was asked for
--   tolerance     Largest error to be content with; null by a rule that takes all its points anyway
--   n             Number of integrals
--   mean_steps    Mean number of points
--   most_steps    Most points that one took
--   median_error  Median of the estimated errors that are known
--   max_error     Largest of them
--   missed        Number of integrals that ended above the tolerance, or not sure
create view quadrature as
with asked as (
    select
        method,
        json_extract_string(params, '$.rule') as rule,
        json_extract(params, '$.tolerance')::double as asked_for,
        rule in ('auto', 'nested', 'nested_early') as refined
    from methods
),

largest as (
    select
        instance_id,
        method,
        max(abs(input_influence)) as influence
    from patterns
    group by instance_id, method
),

every as (
    select
        method,
        'attributions' as of,
        steps,
        error,
        null::boolean as sure
    from attributions
    where steps is not null
    union all
    select
        method,
        'interactions',
        steps,
        error,
        null::boolean
    from interactions
    union all
    select
        p.method,
        'patterns',
        p.points,
        abs(p.error) / nullif(l.influence, 0),
        p.sure
    from patterns as p
    join largest as l using (instance_id, method)
    where p.points is not null
)

select
    e.method,
    e.of,
    any_value(a.rule) as rule,
    any_value(if(a.refined, a.asked_for, null)) as tolerance,
    count(*) as n,
    avg(e.steps) as mean_steps,
    max(e.steps) as most_steps,
    median(e.error) as median_error,
    max(e.error) as max_error,
    count(*) filter (
        a.refined and if(e.of = 'patterns', not e.sure, e.error > a.asked_for)
    ) as missed
from every as e
join asked as a using (method)
group by e.method, e.of
order by e.method, e.of;
