"""Rules on the tables of every run: instances, scores, curves, failures, and its evaluations."""

from typing import NamedTuple


class Check(NamedTuple):
    """A rule: what is said with ``{count}`` and ``{example}`` where it is broken, and the query."""

    problem: str
    sql: str


def repeated(table: str, keys: str, what: str = "") -> Check:
    """The rule that rows of a table, of an instance under a method, have different keys.

    Args:
        table: The table.
        keys: The columns that tell rows of an instance and method apart.
        what: What the rows are called, with a blank after it.
    """
    return Check(
        f"{table}: {{count}} {what}occur more than once, such as {{example}}",
        f"""
        select count(*), min(instance_id || ' under ' || method)
        from (
            select instance_id, method
            from {table}
            group by instance_id, method, {keys}
            having count(*) > 1
        )
        """,
    )


def orphaned(table: str, keys: str) -> Check:
    """The rule that what is made of scores has some; ``keys`` has its instances and methods."""
    return Check(
        f"{table}: {{count}} belong to no attribution, such as {{example}}",
        f"""
        select count(*), min(instance_id || ' under ' || method)
        from {keys}
        anti join attributions using (instance_id, method)
        """,
    )


def of_other_class(table: str, do: str) -> Check:
    """The rule that what is made of scores is of the class that these explain; what rows ``do``."""
    return Check(
        f"{table}: {{count}} {do} another class than the scores explain, such as {{example}}",
        f"""
        select count(*), min(instance_id || ' under ' || method)
        from {table}
        join attributions using (instance_id, method)
        where {table}.target <> attributions.target
        """,
    )


# How far a probability moves when the same input is predicted among others. In sound runs the first
# point of a curve is its instance's own to the last digits (6e-8 in float32); coarser numbers round
# more, and a GPU adds in another order. A mix of two models is mostly off by far more.
_TOLERANCE = "case settings_dtype when 'float64' then 1e-6 when 'float32' then 1e-4 else 0.03 end"

INSTANCES = (
    Check(
        "instances: {count} ids occur more than once, such as {example}",
        """
        select count(*), min(instance_id)
        from (select instance_id from instances group by all having count(*) > 1)
        """,
    ),
    Check(
        "instances: {count} have lists of different lengths, such as {example}",
        """
        select count(*), min(instance_id)
        from (select *, coalesce(len(input_ids), len(tokens)) as length from instances)
        cross join run
        where length is null
            -- Of scores that were imported, the vocabulary may be unknown.
            or (input_ids is null and model_task <> 'imported')
            or len(tokens) <> length
            or len(word_ids) <> length
            or len(char_start) <> length
            or len(char_end) <> length
            or len(special) <> length
            or len(segment) <> length
            or len(rationale) <> length
            or len(roles) <> length
        """,
    ),
    Check(
        "instances: {count} pictures have not rows * columns patches, such as {example}",
        """
        select count(*), min(instance_id)
        from instances
        where rows * columns <> list_count(word_ids)
        """,
    ),
    Check(
        "instances: {count} have logits or probabilities that are no finite numbers, "
        "such as {example}",
        """
        select count(*), min(instance_id)
        from instances
        cross join run
        where not coalesce(
                isfinite(list_sum(logits)) and isfinite(list_sum(probabilities)),
                model_task = 'imported'
            )
            or list_count(logits) <> len(logits)
            or list_count(probabilities) <> len(probabilities)
        """,
    ),
    Check(
        "instances: the probabilities of {count} do not sum to 1, such as those of {example}",
        """
        select count(*), min(instance_id)
        from instances
        where abs(list_sum(probabilities) - 1) > 1e-3
            and coalesce(question_kind not in ('value', 'start', 'end', 'all'), true)
        """,
    ),
    Check(
        "instances: the prediction of {count} is not the largest logit, such as that of {example}",
        """
        select count(*), min(instance_id)
        from instances
        cross join run
        -- The last of a language model's is of many tokens.
        where not coalesce(
            logits[prediction + 1]
                = list_max(if(question_kind = 'next', logits[: len(logits) - 1], logits)),
            model_task = 'imported'
        )
        """,
    ),
    Check(
        "instances: {count} have also failed before they were one, such as {example}",
        """
        select count(*), min(instance_id)
        from instances
        semi join (from failures where method is null) using (instance_id)
        """,
    ),
)

ATTRIBUTIONS = (
    repeated("attributions", "target, layer"),
    Check(
        "attributions: {count} belong to no instance, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from attributions
        anti join instances using (instance_id)
        """,
    ),
    Check(
        "attributions: {count} have not one score per token, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from attributions
        join instances using (instance_id)
        where coalesce(len(scores), -1) <> coalesce(len(input_ids), len(tokens))
        """,
    ),
    Check(
        "attributions: {count} have scores that are no finite numbers, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from attributions
        where not isfinite(list_sum(scores)) or list_count(scores) <> len(scores)
        """,
    ),
    Check(
        "attributions: {count} have a completeness gap that is no finite number, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from attributions
        where not isfinite(delta)
        """,
    ),
    Check(
        "attributions: {count} have a scale or bias that is no finite number, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from attributions
        where not isfinite(scale) or not isfinite(bias)
        """,
    ),
    Check(
        "attributions: {count} leave what is no finite number unattributed, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from attributions
        where not isfinite(unattributed)
        """,
    ),
    Check(
        "attributions: {count} of additive methods have no completeness gap, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from attributions
        join methods using (method)
        where additive and delta is null
        """,
    ),
    Check(
        "attributions: {count} cost a time that is no finite number from 0, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from attributions
        where not (isfinite(seconds) and seconds >= 0)
        """,
    ),
    Check(
        "attributions: {count} have also failed, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from attributions
        semi join (from failures where stage = 'attribute') using (instance_id, method)
        -- With other tables, which can be added later, it may be they that failed.
        anti join (select distinct method from detail_keys) using (method)
        """,
    ),
)

LOCALISATION = (
    repeated("localisation", "target"),
    orphaned("localisation", "localisation"),
    of_other_class("localisation", "look for"),
    Check(
        "localisation: {count} have counts that can't be, or shares beyond 0 and 1, such as "
        "{example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from localisation
        cross join (select max(tp + fp + fn + tn) as pixels from localisation)
        where least(tp, fp, fn, tn) < 0
            or tp + fp + fn + tn <> pixels
            or empty_mask <> (tp + fn = 0)
            or not coalesce(isfinite(average_precision + f1 + f1_rows + rank_accuracy), true)
            or greatest(average_precision, f1, f1_rows, rank_accuracy, mass_inside, mass_other)
                > 1 + 1e-9
            or least(average_precision, f1, f1_rows, rank_accuracy, mass_inside, mass_other) < 0
        """,
    ),
    Check(
        "localisation: {count} that are attributed and of pictures with a mask are missing, such "
        "as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from attributions
        semi join (select distinct method from localisation) using (method)
        semi join (from instances where rationale is not null) using (instance_id)
        anti join localisation using (instance_id, method)
        """,
    ),
)

CURVES = (
    Check(
        "curves: {count} have not the points that run.json asks for, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from curve_keys
        left join (
            select
                protocol,
                count(*) as points,
                bit_xor(hash(protocol, "order", operation, round(fraction, 9))) as grid
            from grid
            where units is null
            group by protocol
        ) as always using (protocol)
        left join (
            select
                protocol,
                units,
                count(*) as points,
                bit_xor(hash(protocol, "order", operation, round(fraction, 9))) as grid
            from grid
            where units is not null
            group by protocol, units
        ) as own using (protocol, units)
        where curve_keys.points is distinct from always.points + coalesce(own.points, 0)
            or curve_keys.grid is distinct from xor(always.grid, coalesce(own.grid, 0))
        """,
    ),
    Check(
        "curves: {count} points have values that are no finite numbers, or no probability, "
        "such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from curves
        where not coalesce(isfinite(logit) and probability between -1e-6 and 1 + 1e-6, false)
            and instance_id not in (
                select instance_id from instances
                where question_kind in ('value', 'start', 'end')
            )
        """,
    ),
    Check(
        "curves: {count} points have an entropy or a divergence that is no finite number, below 0, "
        "or not 0 where nothing is removed, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from curves
        where not (coalesce(isfinite(entropy) and entropy > -1e-6, true)
                and coalesce(isfinite(kl) and kl >= 0, true))
            or (fraction = 0 and kl > 0)
            or (entropy is null) <> (kl is null)
        """,
    ),
    Check(
        "curves: {count} points remove nothing where they should or something where they should "
        "not, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from curves
        where removed < 0 or (fraction = 0 and removed > 0) or (fraction = 1 and removed = 0)
        """,
    ),
    Check(
        "curves: {count} begin with another probability than their instance has, such as "
        "{example}: another model, tokenizer or text made one of the two",
        f"""
        select count(*), min(instance_id || ' under ' || method)
        from (
            select
                instance_id,
                method,
                probability,
                probabilities[
                    1 + coalesce(
                        curves.target,
                        case settings_target::varchar
                            when 'predicted' then instances.prediction
                            when 'gold' then label
                            else try_cast(settings_target::varchar as int)
                        end
                    )
                ] as whole,
                {_TOLERANCE} as tolerance
            from curves
            join instances using (instance_id)
            cross join run
            where fraction = 0
        )
        where not coalesce(abs(probability - whole) <= tolerance, false)
        """,
    ),
    orphaned("curves", "curve_keys"),
    of_other_class("curves", "points follow"),
    Check(
        "curves: {count} have also failed, such as {example}",
        """
        select count(*), min(instance_id || ' under ' || method)
        from curve_keys
        semi join (from failures where stage = 'perturb') using (instance_id, method)
        """,
    ),
)

# Under --overflow stride a row of the corpus is several instances: its windows, numbered from 0.
WINDOWS = (
    Check(
        "instances: {count} have ids that are not their row's, or of its windows and questions, "
        "such as {example}",
        """
        select count(*), min(instance_id)
        from instances
        where instance_id is distinct from
            row_id || coalesce('/' || "window", '/' || modality, '')
                || coalesce('#' || question, case question_kind when 'all' then '#all' end, '')
        """,
    ),
    Check(
        "instances: {count} rows of the corpus have not all of their windows, such as {example}",
        """
        select count(*), min(row_id)
        from (
            select row_id
            from (
                select row_id, "window" from instances where "window" is not null
                union all
                select row_id, try_cast(split_part(part, '#', 1) as int)
                from (select row_id, substr(instance_id, len(row_id) + 2) as part, instance_id
                    from failures where method is null)
                where substr(instance_id, len(row_id) + 1, 1) = '/'
                    and split_part(part, '#', 1) not in ('image', 'text')
            )
            group by row_id
            having max("window") is distinct from count(distinct "window") - 1
        )
        """,
    ),
    Check(
        "instances: {count} rows of the corpus have not all of their questions, such as {example}",
        """
        select count(*), min(row_id)
        from (
            select row_id
            from (
                select row_id, instance_id, question from instances where question is not null
                union all
                select row_id, instance_id, try_cast(split_part(part, '#', 2) as int)
                from (select row_id, substr(instance_id, len(row_id) + 1) as part, instance_id
                    from failures where method is null)
                where regexp_full_match(part, '(/[0-9]+)?#[0-9]+')
            )
            group by row_id, split_part(substr(instance_id, len(row_id) + 1), '#', 1)
            having max(question) is distinct from count(distinct question) - 1
                -- Of a language model one token may be all that is asked for.
                and count(distinct question) > 1
        )
        """,
    ),
    Check(
        "instances: {count} are windows of a row that is also one whole, such as {example}",
        """
        select count(*), min(instance_id)
        from (from instances where "window" is not null)
        semi join (
            select row_id from instances where "window" is null
            union all
            select row_id from failures where method is null and instance_id = row_id
        ) using (row_id)
        """,
    ),
)

FAILURES = (
    Check(
        "failures: {count} occur more than once, such as that of {example}",
        """
        select count(*), min(instance_id)
        from (
            select instance_id
            from failures
            group by instance_id, stage, method
            having count(*) > 1
        )
        """,
    ),
    Check(
        "failures: {count} have a stage or method that can't be, such as that of {example}",
        """
        select count(*), min(instance_id)
        from failures
        where case
            when method is null then stage not in ('read', 'encode', 'forward')
            else stage not in ('attribute', 'perturb')
                or method not in (select method from methods)
        end
        """,
    ),
)

EVALUATIONS = (
    Check(
        "pruning: {count} rows contradict themselves, such as one of {example}",
        """
        select count(*), min(evaluation)
        from pruning
        where not coalesce(
            correct between 0 and n
            and abs(accuracy - correct / n) < 1e-9
            and isfinite(loss) and loss >= 0
            and rate between 0 and 1
            and pruned between rate * heads - 1 and rate * heads + 1e-6
            and (importance = 'random') = (seed is not null),
            false
        )
        """,
    ),
    Check(
        "pruning: {count} rows occur more than once, such as one of {example}",
        """
        select count(*), min(evaluation)
        from (
            select evaluation
            from pruning
            group by evaluation, importance, seed, rate
            having count(*) > 1
        )
        """,
    ),
    Check(
        "attacks: {count} rows contradict themselves, such as one of {example}",
        """
        select count(*), min(evaluation)
        from attacks
        where not coalesce(
            flipped between 0 and correct_before
            and correct_before <= n
            and correct_after between correct_before - flipped and n - flipped
            and skipped >= 0
            and len(relative) = len(tokens) and len(segment) = len(tokens)
            and list_min(relative) > 0 and list_max(relative) <= 1,
            false
        )
        """,
    ),
)
