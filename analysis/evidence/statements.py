"""SQL of the numbers that claims are judged by: each a row of n, value, low and high.

They are printed as they are asked, so that a reader may ask them again.
"""

from attribeam.analysis.opening.database import literal

# From rows of a text and a value to the mean over texts, with its bootstrap interval.
_MEAN = """\
with own as (
    {of}
),
by_text as (
    select of_text, avg(value::double) as value from own where isfinite(value) group by of_text
),
weighed as (
    select
        value,
        unnest(range(0, 1001)) as replicate,
        unnest(bootstrap_weights(of_text)) as weight
    from by_text
),
replicated as (
    select replicate, sum(weight) as n, sum(weight * value) / nullif(sum(weight), 0) as value
    from weighed
    group by replicate
)
select
    coalesce(max(n) filter (replicate = 0), 0)::bigint as n,
    max(value) filter (replicate = 0) as value,
    quantile_cont(value, 0.025) filter (replicate > 0) as low,
    quantile_cont(value, 0.975) filter (replicate > 0) as high
from replicated"""

# From a correlation over n things to its interval by Fisher's transformation.
_CORRELATION = """\
with own as (
    {of}
),
transformed as (
    select
        *,
        atanh(greatest(-0.999999, least(0.999999, value))) as z,
        1.959964 / sqrt(nullif(greatest(n - 3, 0), 0)) as error
    from own
)
select n, value, tanh(z - error) as low, tanh(z + error) as high
from transformed"""


def mean_of(rows: str) -> str:
    """The mean over texts of what a query gives as ``of_text`` and ``value``."""
    return _MEAN.format(of=rows.replace("\n", "\n    "))


def area_ahead(method: str, other: str, operation: str) -> str:
    """How far a method's area between the curves is above another's, of the same class."""
    return mean_of(
        f"""\
select i.row_id as of_text, a.auc_difference - b.auc_difference as value
from faithfulness_by_instance as a
join faithfulness_by_instance as b using (instance_id, protocol, operation)
join instances as i using (instance_id)
where a.method = {literal(method)}
    and b.method = {literal(other)}
    and operation = {literal(operation)}
    and abs(a.probability - b.probability) < 0.001"""
    )


def nearer_gradient(method: str, other: str) -> str:
    """How far a method's rank correlation with gradient x input is above another's, all tokens."""
    return mean_of(
        f"""\
select
    i.row_id as of_text,
    rank_correlation(
        list_transform(a.scores, lambda s: abs(s)), list_transform(g.scores, lambda s: abs(s))
    ) - rank_correlation(
        list_transform(b.scores, lambda s: abs(s)), list_transform(g.scores, lambda s: abs(s))
    ) as value
from attributions as a
join attributions as b using (instance_id)
join attributions as g using (instance_id)
join instances as i using (instance_id)
where a.method = {literal(method)}
    and b.method = {literal(other)}
    and g.method = 'grad_x_input'
    and a.layer is null
    and b.layer is null
    and g.layer is null"""
    )


def gathered(method: str) -> str:
    """Share of the bits at the position read out: after the last layer less after the first."""
    return mean_of(
        f"""\
with shares as (
    select
        instance_id,
        layer,
        sum(bits::double) filter (role = 'readout') / nullif(sum(bits::double), 0) as share
    from information_tokens
    where method = {literal(method)}
    group by instance_id, layer
)
select i.row_id as of_text, max_by(s.share, s.layer) - min_by(s.share, s.layer) as value
from shares as s
join instances as i using (instance_id)
group by s.instance_id, i.row_id"""
    )


def pruned_longer(method: str, other: str) -> str:
    """Area under accuracy over the share of heads pruned, less that by another importance.

    The tables have counts alone. The interval is the widest that they allow if an instance's two
    predictions don't oppose each other: errors at all rates are taken to go together.
    """
    return f"""\
with points as (
    select importance, rate, avg(accuracy) as accuracy, any_value(n) as n
    from pruning
    where method = {literal(method)}
        and evaluation = (select min(evaluation) from pruning)
        and importance in ('attattr', {literal(other)})
    group by importance, rate
),
sides as (
    select
        a.rate,
        a.n,
        a.accuracy - b.accuracy as ahead,
        sqrt((a.accuracy * (1 - a.accuracy) + b.accuracy * (1 - b.accuracy)) / a.n) as error
    from points as a
    join points as b using (rate)
    where a.importance = 'attattr' and b.importance = {literal(other)}
),
stepped as (
    select
        *,
        (coalesce(lead(rate) over (order by rate), rate)
            - coalesce(lag(rate) over (order by rate), rate)) / 2 as width
    from sides
)
select
    max(n) as n,
    sum(width * ahead) as value,
    sum(width * ahead) - 1.959964 * sum(width * error) as low,
    sum(width * ahead) + 1.959964 * sum(width * error) as high
from stepped
having count(*) > 1"""


def same_heads(method: str, other: str | None) -> str:
    """Spearman's correlation of the importance of heads, with another run or between subsets."""
    if other is not None:
        return _CORRELATION.format(
            of=f"""select heads as n, spearman as value
    from head_agreement_with({literal(other)})
    where method = {literal(method)} and other_method = {literal(method)}"""
        )
    return _CORRELATION.format(
        of=f"""select heads as n, spearman as value
    from head_agreement
    where method_a = {literal(method)} and method_b = {literal(method)}
    order by spearman
    limit 1"""
    )


def attacked(method: str) -> str:
    """What the strongest trigger takes from the accuracy of classes that it doesn't speak for."""
    return f"""\
with counts as (
    select
        sum(n) as n,
        sum(flipped) as lost,
        sum(correct_after - (correct_before - flipped)) as won
    from attacks
    where method = {literal(method)}
        and rank = 1
        and gold <> explained
        and evaluation = (select min(evaluation) from attacks)
)
select
    n::bigint as n,
    (lost - won) / n as value,
    (lost - won) / n - 1.959964 * sqrt(((lost + won) / n - ((lost - won) / n) ** 2) / n) as low,
    (lost - won) / n + 1.959964 * sqrt(((lost + won) / n - ((lost - won) / n) ** 2) / n) as high
from counts
where n > 0"""


def skips(method: str) -> str:
    """Share of skips among the edges of patterns that stay, less an even one of heads and skip."""
    return mean_of(
        f"""\
select
    i.row_id as of_text,
    avg((n.kind = 'skip')::int) - 1 / (1 + any_value(r.model_num_heads)) as value
from pattern_nodes as n
join instances as i using (instance_id)
cross join run as r
where n.level = 'attention' and n.stay and n.method = {literal(method)}
group by instance_id, i.row_id"""
    )


def kept_right(kind: str, other: str) -> str:
    """Share of instances right with some nodes alone, less that with others."""
    return mean_of(
        f"""\
select i.row_id as of_text, a.correct::int - b.correct::int as value
from pattern_ablation as a
join pattern_ablation as b using (instance_id, method)
join instances as i using (instance_id)
where a.kind = {literal(kind)}
    and b.kind = {literal(other)}
    and isfinite(a.output)
    and isfinite(b.output)"""
    )


def consistent(method: str, level: str) -> str:
    """Correlation of the entropy of a word's patterns with accuracy, over words and subsets."""
    return _CORRELATION.format(
        of=f"""select groups as n, correlation as value
    from pattern_consistency_accuracy
    where method = {literal(method)} and level = {literal(level)} and source_role is null"""
    )


def segments_better(method: str, other: str) -> str:
    """How far the IoU of a method's maps with masks is above another's."""
    return mean_of(
        f"""\
select i.row_id as of_text, a.miou - b.miou as value
from segmentation_by_instance as a

join segmentation_by_instance as b using (instance_id)
join instances as i using (instance_id)
where a.method = {literal(method)} and b.method = {literal(other)}"""
    )
