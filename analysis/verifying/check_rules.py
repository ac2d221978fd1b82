"""Rules on the tables of `attribeam check`: randomised, noised, subsets and repeats."""

from attribeam.analysis.verifying.rules import Check

# How far scores move when the same instance is explained among others, in the largest of them: much
# more than in float32, and less than where the class, the model or the settings are others.
_CLOSE = 0.05

# The columns that tell rows of an instance apart, and those of scores among the tables.
_KEYS = {
    "randomised": "method, kind, weights, seed, stage",
    "noised": "method, sample",
    "subsets": "kind, sample",
    "repeats": "method, seed",
}
_SCORED = ("randomised", "noised", "repeats")


def _of_table(table: str, keys: str) -> tuple[Check, ...]:
    """The rules that hold of each of them."""
    return (
        Check(
            f"{table}: {{count}} occur more than once, such as one of {{example}}",
            f"""
            select count(*), min(instance_id)
            from (
                select instance_id
                from {table}
                group by evaluation, instance_id, {keys}
                having count(*) > 1
            )
            """,
        ),
        Check(
            f"{table}: {{count}} belong to no instance, such as one of {{example}}",
            f"""
            select count(*), min(instance_id)
            from {table}
            anti join instances using (instance_id)
            """,
        ),
    )


def _of_scores(table: str) -> Check:
    return Check(
        f"{table}: {{count}} have not a score for each token, or neither scores nor a failure, "
        "such as one of {example}",
        f"""
        select count(*), min(t.instance_id)
        from {table} as t
        join instances as i using (instance_id)
        where (t.scores is null) = (t.failure is null) or len(t.scores) <> len(i.tokens)
        """,
    )


CHECKED = (
    *(check for table, keys in _KEYS.items() for check in _of_table(table, keys)),
    *map(_of_scores, _SCORED),
    Check(
        "randomised: {count} have no row of the untouched model, such as one of {example}",
        """
        select count(*), min(instance_id)
        from (from randomised where kind <> 'whole') as r
        anti join (from randomised where kind = 'whole') as w
            using (evaluation, instance_id, method)
        """,
    ),
    Check(
        "randomised: {count} of the untouched model differ from the run's attributions, such as "
        "that of {example}",
        f"""
        select count(*), min(r.instance_id || ' under ' || r.method)
        from randomised as r
        join attributions as a using (instance_id, method)
        where r.kind = 'whole' and a.layer is null and r.scores is not null and not coalesce(
            list_max(list_transform(r.scores, lambda s, i: abs(s - a.scores[i])))
            <= {_CLOSE} * list_max(list_transform(a.scores, lambda s: abs(s))),
            false
        )
        """,
    ),
    Check(
        "randomised: {count} contradict themselves, such as one of {example}",
        """
        select count(*), min(instance_id)
        from randomised
        where not coalesce(
            kind in ('whole', 'class', 'cascading', 'independent')
            and (kind in ('whole', 'class')) = (stage = 0)
            and (stage = 0) = (part is null)
            and (stage = 0) = (weights is null)
            and (stage = 0) = (seed is null),
            false
        )
        """,
    ),
    Check(
        "noised: {count} have no noise, such as one of {example}",
        """
        select count(*), min(instance_id)
        from noised
        where not coalesce(radius > 0 and noise_norm > 0 and isfinite(noise_norm), false)
        """,
    ),
    Check(
        "subsets: {count} contradict themselves or the instance, such as one of {example}",
        """
        select count(*), min(s.instance_id)
        from subsets as s
        join instances as i using (instance_id)
        where s.failure is null and not coalesce(
            len(s.removed) = len(i.special)
            and size between 0 and units and units > 0
            and (size = 0) = (kind = 'whole')
            and (kind <> 'one' or size = 1)
            and list_bool_or(s.removed) = (size > 0)
            and not list_bool_or(
                list_transform(s.removed, lambda r, number: r and i.special[number])
            ),
            false
        )
        """,
    ),
    Check(
        "subsets: {count} of whole inputs have another probability than the instance, such as "
        "that of {example}",
        f"""
        select count(*), min(s.instance_id)
        from subsets as s
        join instances as i using (instance_id)
        where s.kind = 'whole' and s.failure is null
            and not coalesce(
                abs(s.probability - i.probabilities[s.target + 1])
                <= {_CLOSE} * greatest(1, abs(i.probabilities[s.target + 1])),
                false
            )
        """,
    ),
)
