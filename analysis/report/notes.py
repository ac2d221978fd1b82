"""What stands above the report's tables: on what methods are compared, and what can't be."""

from collections.abc import Sequence

from attribeam.analysis.plots.figures import Row
from attribeam.analysis.report.values import counted

# Methods whose curves follow the gold class, with the number of compared instances of which others
# follow another one.
GOLD_CURVES = """
    with starts as (
        select distinct instance_id, method, protocol, operation, target
        from curves
        semi join (from compared_curves(true, null) where compared)
            using (instance_id, method, protocol, operation)
        where fraction = 0
    ),

    differing as (
        select instance_id, protocol, operation
        from starts
        group by all
        having count(distinct target) > 1
    )

    select protocol, operation, method, settings_target::varchar as run, count(*) as instances
    from starts
    semi join differing using (instance_id, protocol, operation)
    join methods using (method)
    cross join run
    where params->>'target' = 'gold'
    group by all
    order by method
"""


def same_instances(rows: Sequence[Row]) -> str:
    """On which instances methods are compared, and how many are left out of that."""
    # A method without any curve that can be used has none that is compared.
    n, left_out = max((row["n"], row["left_out"]) for row in rows)
    if len(rows) == 1 and not left_out:
        return f"The method has {counted(n, 'instance')}."
    if not n:
        return (
            f"There is nothing to compare: none of the {counted(left_out, 'instance')} has curves "
            "of every method that can be used."
        )
    return (
        f"Methods are compared on the same {counted(n, 'instance')}, so that two may differ "
        f"surely even where their intervals overlap{not_common(left_out, 'curves')}."
    )


def other_classes(rows: Sequence[Row]) -> str:
    """Which methods follow the gold class where the others follow another one.

    Args:
        rows: Those of ``GOLD_CURVES`` under one protocol and operation.
    """
    if not rows:
        return ""
    *first, last = (row["method"] for row in rows)
    names = f"{', '.join(first)} and {last}" if first else last
    follow, their = ("follow", "Their") if first else ("follows", "Its")
    number, run = rows[0]["instances"], rows[0]["run"]
    theirs = "the predicted one" if run == "predicted" else f"class {run}"
    return (
        f" {names} {follow} the gold class (target=gold), all others {theirs}; on {number:,} of "
        f"the compared instances these are two classes. {their} curves begin at another "
        f"probability there: {their.lower()} values can't be compared with those of the others, "
        "and have neither bar nor star."
    )


def not_common(left_out: int, what: str) -> str:
    """How many instances are left out of a comparison, since not all methods have them."""
    if not left_out:
        return ""
    are = "is" if left_out == 1 else "are"
    return (
        f"; {left_out:,} more {are} left out, since some method has no {what} there that can be "
        "used"
    )


def parts_of_texts(rows: Sequence[Row]) -> str:
    """What is to be known where instances are not whole texts."""
    row = max(rows, key=lambda row: (row["cut"], row["unseen"] or 0))
    if not row["cut"]:
        return ""
    parts = "is a part of a text" if row["cut"] == 1 else "are parts of texts"
    unseen = ""
    if row["unseen"]:
        share = row["unseen"] / row["text_words"]
        unseen = (
            f", and {row['unseen']:,} of the {counted(row['text_words'], 'word')} of these texts "
            f"({share:.0%}) are in none of them"
        )
    return (
        f" Of the {row['n']:,}, {row['cut']:,} {parts}, cut at the limit or windows{unseen}. What "
        "the rationale marks elsewhere counts for nothing, so that these values can't be compared "
        "with those of whole texts, which are mostly lower."
    )
