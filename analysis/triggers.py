"""The triggers that a run's heads give: which tokens of which instance, the strongest first."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import duckdb

from attribeam.analysis.opening.manifest import of_pictures
from attribeam.analysis.opening.runs import load_manifest, reading
from attribeam.schemas import UsageError
from attribeam.schemas.manifest import Manifest

# Of each instance's strongest head the two largest entries; the second where it is strong enough.
_CANDIDATES = """
with connected as (
    select
        c.*,
        h.target,
        i.tokens as all_tokens,
        list_distinct(
            case
                when c.top2 is not null and ($both or c.second_share >= $ratio)
                    then [c.top1_from, c.top1_to, c.top2_from, c.top2_to]
                else [c.top1_from, c.top1_to]
            end
        ).list_filter(lambda position: not i.special[position + 1]).list_sort() as positions
    from trigger_candidates as c
    join heads as h using (instance_id, method, layer, head)
    join instances as i using (instance_id)
    where c.method = $method
        and c.score >= $least
        and h.target = coalesce($target, h.target)
)

select
    list_transform(positions, lambda position: all_tokens[position + 1]) as tokens,
    positions,
    score,
    instance_id,
    target,
    layer,
    head
from connected
where len(positions) > 0
order by score desc, instance_id
limit $limit
"""


class Candidate(NamedTuple):
    """A trigger, by where it comes from.

    Attributes:
        tokens: Its tokens, in order.
        positions: Their positions in the instance.
        score: Sum of the two largest attributions, whether the second is part of it or not.
        instance_id: The instance.
        explained: Class that the attributions explain.
        layer: Layer of the head.
        head: The head.
    """

    tokens: list[str]
    positions: list[int]
    score: float
    instance_id: str
    explained: int
    layer: int
    head: int


def trigger_candidates(
    connection: duckdb.DuckDBPyConnection,
    method: str,
    *,
    target: int | None = None,
    least: float = 0.02,
    ratio: float = 0.2,
    both: bool = False,
    limit: int = 10,
) -> list[Candidate]:
    """The best triggers of a run (Hao et al. 2021), those of special tokens alone left out.

    Args:
        connection: An open run.
        method: The method whose heads are asked.
        target: Only those of this explained class; None for all.
        least: Least score.
        ratio: The second connection is part of the trigger if its attribution is at least this
            share of the first's.
        both: It is, whatever its attribution.
        limit: Most triggers.
    """
    rows = connection.execute(
        _CANDIDATES,
        {
            "method": method,
            "target": target,
            "least": least,
            "ratio": ratio,
            "both": both,
            "limit": limit,
        },
    ).fetchall()
    return [Candidate(*row) for row in rows]


def heads_of(folder: str | Path, method: str) -> Manifest:
    """The manifest of a run whose heads can be asked.

    Raises:
        UsageError: If the folder is no run, one of pictures, or has no heads of the method.
    """
    manifest = load_manifest(folder)
    if of_pictures(manifest):
        raise UsageError(
            f"{folder} is a run of pictures, and `attribeam prune`, `triggers` and `attack` are of "
            "texts: a trigger is tokens that are put into other texts, and held-out corpora are "
            "read as texts"
        )
    if "heads" in manifest["methods"].get(method, {"tables": []})["tables"]:
        with reading(folder) as connection:
            query = "select count(*) from heads where method = ?"
            (found,) = connection.execute(query, [method]).fetchone() or (0,)
        if found:
            return manifest
    run = "RUN" if "layout" in manifest else folder
    of = " to the run that it was made of, and publish that again" if run == "RUN" else ""
    raise UsageError(
        f"{folder} has no heads of {method}: add them{of} with "
        f"`attribeam run ... --output {run} --methods attattr`"
    )


def class_of(name: str | None, labels: Sequence[str]) -> int | None:
    """Reads ``--target``: the number or the name of a class.

    Raises:
        UsageError: If the model has no such class.
    """
    if name is None:
        return None
    if name in labels:
        return labels.index(name)
    if name.isdecimal() and int(name) < len(labels):
        return int(name)
    listed = ", ".join(f"{number} ({label})" for number, label in enumerate(labels))
    raise UsageError(f"--target {name}: the model has no such class; it has {listed}")
