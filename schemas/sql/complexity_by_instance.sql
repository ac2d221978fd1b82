-- How a method's scores are spread over the tokens of one instance: one row per instance and
-- method, over the tokens that can be removed, which are neither special nor read out.
--
-- Measures are of the shares q = |s| / sum |s|: signs and scale don't count. They are null where
-- all scores are 0. Scores that aren't all finite have no row. What they mean, and what fools them,
-- is said in `complexity`.
--
-- Metrics:
--   entropy           lower is less complex; 0 to the logarithm of the number of tokens
--   entropy_share     lower is less complex; 0 to 1
--   gini              higher is less complex; 0 to below 1
--   effective         lower is less complex; 1 to the number of tokens
--   effective_number  lower is less complex; 1 to the number of tokens
--
-- Columns:
--   tokens            Number n of tokens
--   entropy           - sum q ln q in nats, 0 to ln n; lower is less complex. Bhatt et al. 2020
--   entropy_share     entropy / ln n, 0 to 1; null of a single token
--   gini              Gini coefficient of |s|, 0 to 1 - 1 / n: the sum over i of (2 i - n - 1) q_i
--                     / n, q ascending; higher is less complex. Chalasani et al. 2020
--   effective         Number of tokens with |s| of at least 5 % of the largest, 1 to n; lower is
--                     less complex
--   effective_number  exp(entropy), 1 to n; lower is less complex
create view complexity_by_instance as
with removable as (
    select
        instance_id,
        list_filter(
            range(1, len(special) + 1),
            lambda position: not special[position] and position is distinct from readout + 1
        ) as positions
    from instances
),

kept as (
    select
        a.instance_id,
        a.method,
        list_sort(list_transform(
            list_select(a.scores, r.positions), lambda score: abs(score)::double
        )) as sizes
    from attributions as a
    join removable as r using (instance_id)
    where a.layer is null and len(r.positions) > 0 and isfinite(list_sum(a.scores))
),

-- Over the largest first: the sum of tiny scores may be 0.
scaled as (
    select
        instance_id,
        method,
        len(sizes) as n,
        coalesce(nullif(sizes[-1], 0), 1) as largest,
        list_transform(kept.sizes, lambda size: size / largest) as ratios
    from kept
),

-- With r in place of the shares, q = r / sum r: the entropy is ln sum r - sum r ln r / sum r.
summed as (
    select
        instance_id,
        method,
        n,
        list_sum(ratios) as total,
        list_sum(list_transform(ratios, lambda r: r * ln(greatest(r, 1e-300)))) as of_logs,
        list_inner_product(ratios, range(1, n + 1)::double[]) as of_ranks,
        len(list_filter(ratios, lambda r: r >= 0.05)) as effective
    from scaled
)

-- Neither is below 0, as rounding may have it.
select
    instance_id,
    method,
    n as tokens,
    case when total > 0 then greatest(0, ln(total) - of_logs / total) end as entropy,
    entropy / nullif(ln(n), 0) as entropy_share,
    case when total > 0 then greatest(0, 2 * of_ranks / total - n - 1) / n end as gini,
    nullif(effective, 0) as effective,
    exp(entropy) as effective_number
from summed;
