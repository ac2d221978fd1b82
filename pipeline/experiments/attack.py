"""Adversarial triggers of a run, put into other texts: what the model still gets right.

After Hao et al. 2021. White-box and untargeted; the triggers are found in the texts of the run,
and tried on others.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import duckdb
import numpy as np

from attribeam.analysis.opening.database import identifier
from attribeam.analysis.opening.runs import reading
from attribeam.analysis.triggers import Candidate, class_of, heads_of, trigger_candidates
from attribeam.pipeline.experiments.held_out import HeldOut, HeldOutOptions, check_folder, hold_out
from attribeam.schemas import UsageError
from attribeam.transforms import Instance
from attribeam.transforms.passes.trees import HeadFacts
from attribeam.transforms.triggers import Trigger, attacked, inserted, trigger_of


class Count(NamedTuple):
    """What a trigger does to the instances of a gold class (the columns of ``attacks``)."""

    gold: int
    n: int
    skipped: int
    correct_before: int
    correct_after: int
    flipped: int


@dataclass(frozen=True)
class Attack:
    """The result of ``attack``: rows of the table ``attacks``, where they lie, and of what."""

    held_out: HeldOut
    rows: list[dict[str, Any]]
    path: str


def triggers_of(
    options: HeldOutOptions,
    *,
    target: str | None = None,
    least: float = 0.02,
    both: bool = False,
    limit: int = 10,
) -> list[tuple[Candidate, Trigger]]:
    """The best triggers of a run, and where they come from.

    Args:
        options: The run and the method.
        target: Number or name of the class that they are to explain; None for all.
        least: Least score.
        both: Take both connections, however weak the second.
        limit: Most triggers.

    Raises:
        UsageError: If there is none.
    """
    manifest = heads_of(options.folder, options.method)
    if limit < 1:
        raise UsageError(f"--triggers is at least 1, not {limit}")
    explained = class_of(target, manifest["identity"]["model"]["labels"] or ())
    with reading(options.folder) as connection:
        found = trigger_candidates(
            connection,
            options.method,
            target=explained,
            least=least,
            both=both,
            limit=limit,
        )
        if not found:
            of = "" if target is None else f" of class {target}"
            raise UsageError(
                f"{options.folder} has no trigger{of} with a score of {least:g} or more: "
                "lower --least"
            )
        return [(each, _rebuilt(connection, options.method, each, both)) for each in found]


def _rebuilt(
    connection: duckdb.DuckDBPyConnection, method: str, candidate: Candidate, both: bool
) -> Trigger:
    """The trigger of a candidate, by the run's rows of its instance and its head."""
    instance = _instance(connection, candidate.instance_id)
    columns = ", ".join(identifier(name) for name in HeadFacts._fields)
    facts = connection.execute(
        f"select {columns} from heads "
        "where instance_id = ? and method = ? and layer = ? and head = ?",
        [candidate.instance_id, method, candidate.layer, candidate.head],
    ).fetchone()
    assert facts is not None
    return trigger_of(instance, HeadFacts(*facts), both=both)


def _instance(connection: duckdb.DuckDBPyConnection, instance_id: str) -> Instance:
    """The tokens of an instance of the run, without what a trigger has no use for."""
    row = connection.execute(
        "select input_ids, segment, special, tokens from instances where instance_id = ?",
        [instance_id],
    ).fetchone()
    assert row is not None
    input_ids, segment, special, tokens = row
    nowhere = np.full(len(input_ids), -1, np.int32)
    return Instance(
        instance_id,
        input_ids=np.array(input_ids, np.int32),
        segment=np.array(segment, np.int32),
        special=np.array(special, bool),
        word_ids=nowhere,
        char_start=nowhere,
        char_end=nowhere,
        tokens=tuple(tokens),
    )


def with_trigger(instance: Instance, trigger: Trigger, longest: int) -> Instance | None:
    """The instance with the whole trigger in it, or None if it has no place for it.

    A text that grows too long loses its end, as it would if the trigger had been in it from the
    start; the trigger is not to lose anything, nor the position that is read out.

    Args:
        instance: The instance.
        trigger: The trigger.
        longest: Most tokens.
    """
    places = inserted(trigger, instance.segment, instance.special, longest=longest)
    if int((places < 0).sum()) < len(trigger) or instance.readout not in places:
        return None
    return attacked(instance, trigger, longest=longest)


def counts(held_out: HeldOut, trigger: Trigger) -> Iterator[Count]:
    """What a trigger does, per gold class that there is."""
    longest = held_out.encoding.max_length
    changed = [with_trigger(instance, trigger, longest) for instance in held_out.instances]
    after = iter(held_out.predict([instance for instance in changed if instance is not None]))
    found = [
        (int(instance.label or 0), before.predicted, None if new is None else next(after).predicted)
        for instance, before, new in zip(
            held_out.instances, held_out.predictions, changed, strict=True
        )
    ]
    for gold in sorted({gold for gold, _, _ in found}):
        own = [(before, now) for of, before, now in found if of == gold]
        tried = [(before == gold, now == gold) for before, now in own if now is not None]
        yield Count(
            gold=gold,
            n=len(tried),
            skipped=len(own) - len(tried),
            correct_before=sum(before for before, _ in tried),
            correct_after=sum(now for _, now in tried),
            flipped=sum(before and not now for before, now in tried),
        )


def attack(
    options: HeldOutOptions,
    *,
    triggers: int = 3,
    target: str | None = None,
    least: float = 0.02,
    both: bool = False,
) -> Attack:
    """Puts the best triggers of a run into an evaluation corpus, into the table ``attacks``.

    Args:
        options: The run, its model and the evaluation corpus.
        triggers: Number of triggers to try, each by itself.
        target: Number or name of the class that they are to explain; None for all.
        least: Least score.
        both: Take both connections, however weak the second.

    Raises:
        UsageError: If anything is wrong; nothing has been tried then.
    """
    check_folder(options.folder)
    chosen = triggers_of(options, target=target, least=least, both=both, limit=triggers)
    held_out = hold_out(options)
    rows = [
        {
            "rank": rank,
            "source_id": candidate.instance_id,
            "explained": candidate.explained,
            "tokens": list(trigger.tokens),
            "segment": list(trigger.segment),
            "relative": list(trigger.relative),
            "score": trigger.score,
            **count._asdict(),
        }
        for rank, (candidate, trigger) in enumerate(chosen, 1)
        for count in counts(held_out, trigger)
    ]
    settings = {"triggers": triggers, "target": target, "least": least, "both": both}
    return Attack(held_out, rows, held_out.write("attacks", settings, rows))


def successes(result: Attack) -> tuple[list[str], list[list[Any]]]:
    """The rows as the view ``attack_success`` has them: a header and its lines."""
    names = ["trigger", "gold", "n", "skipped", "accuracy_before", "accuracy_after", "success"]
    labels = result.held_out.model.labels
    return names, [
        [
            " ".join(row["tokens"]),
            labels[row["gold"]],
            row["n"],
            row["skipped"],
            row["correct_before"] / row["n"] if row["n"] else None,
            row["correct_after"] / row["n"] if row["n"] else None,
            row["flipped"] / row["correct_before"] if row["correct_before"] else None,
        ]
        for row in result.rows
    ]
