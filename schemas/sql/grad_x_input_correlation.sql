-- How far each method ranks the tokens as gradient x input does: one row per method, the protocol
-- of GlobEnc (Modarressi et al. 2022, table 1).
--
-- Spearman's correlation per instance, over all tokens with the special ones, as the authors do;
-- then its mean and standard deviation over the instances. The authors' saliency is the L2 norm of
-- gradient x input, which a run has with `--set grad_x_input.reduce=norm`; of the default, the sum,
-- the absolute value is taken, and so it is of the other methods: a saliency has no sign. They
-- explain the gold class, which is `--target gold`. For signed scores over the tokens of the text,
-- see `agreement`. It tells how alike two methods are, not that either is faithful.
--
-- All methods are compared on the same instances, those that every one of them has scores of;
-- `grad_x_input_correlation_over` takes others, as `agreement_over` does.
--
-- What fools it: gradient x input is no truth, and whoever is like it inherits its faults; of short
-- texts it is noise.
--
-- Metrics:
--   spearman  higher is more alike; -1 to 1
--
-- Columns:
--   n         Number of instances that are compared
--   constant  Number of them without a correlation: one token, or equal magnitudes for all
--   spearman  Mean of Spearman's correlation over the others
--   std       Their standard deviation (over n, as numpy's); null without any
--   left_out  Number of instances that some method has scores of and that are not among n
create macro grad_x_input_correlation_over(common := true, methods := null) as table
with chosen as materialized (
    from compared(
        'scores',
        common,
        case when methods is not null then list_append(methods, 'grad_x_input') end
    )
),

magnitudes as (
    select
        instance_id,
        method,
        list_transform(scores, lambda s: abs(s)) as scores
    from attributions
    semi join (from chosen where compared) as k using (instance_id, method)
    where layer is null
),

sorted as (
    select
        *,
        list_sort(scores) as upwards
    from magnitudes
),

reversed as (
    select
        *,
        list_reverse(upwards) as downwards
    from sorted
),

-- Ranks as `centred_ranks` has them. Not materialized: of the two uses below each takes other
-- methods.
ranked as not materialized (
    select
        instance_id,
        method,
        list_transform(
            scores,
            lambda s: (list_position(upwards, s) - list_position(downwards, s))::float
        ) as ranks
    from reversed
),

centred as not materialized (
    select
        *,
        nullif(sqrt(list_inner_product(ranks, ranks)::double), 0) as norm
    from ranked
),

correlations as (
    select
        other.method,
        list_inner_product(other.ranks, reference.ranks)
        / (other.norm * reference.norm) as spearman
    from centred as other
    join centred as reference using (instance_id)
    where reference.method = 'grad_x_input' and other.method <> 'grad_x_input'
),

-- A row for each that is compared with it, also on no instance.
others as (
    select method, any_value(total) as total
    from chosen
    where method <> 'grad_x_input' and 'grad_x_input' in (select method from chosen)
    group by method
)

select
    method,
    count(c.method) as n,
    count(c.method) - count(spearman) as constant,
    avg(spearman) as spearman,
    stddev_pop(spearman) as std,
    any_value(total) - count(c.method) as left_out
from others as o
left join correlations as c using (method)
group by method
order by method;

create view grad_x_input_correlation as
from grad_x_input_correlation_over();
