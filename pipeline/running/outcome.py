"""What a run came to: what there is to ask about, and why there isn't more."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from attribeam.pipeline.parts import WHOLE, RunPart
from attribeam.pipeline.store.files import count_rows, join, list_files
from attribeam.pipeline.store.joined import each_shard
from attribeam.schemas import Unit, parse_unit_path
from attribeam.schemas.layout import FAILURES, parse_failures_path
from attribeam.transforms.inputs.variants import NothingToRemoveError
from attribeam.transforms.recovery import is_passing

# What differs between messages that say the same of different rows.
_OWN = re.compile(r"'[^']*'|\"[^\"]*\"|\d+")
# Tables that say nothing of whether anything was attributed.
_OF_OTHERS = ("instances", "localisation", "curves")
_BARE = f"{NothingToRemoveError.__name__}:"


class Reason(NamedTuple):
    """Why instances failed.

    Attributes:
        number: Number of failures of the kind.
        message: The class of the error, if it says anything, and the message of the first.
        alike: Whether all of them have that very message.
        passing: How many may not fail again: it was for want of memory, a network or a device.
    """

    number: int
    message: str
    alike: bool
    passing: int = 0


class Outcome(NamedTuple):
    """What there is in a run's folder.

    Attributes:
        failures: Rows of ``failures``, from this call and earlier ones.
        passing: Those of them that may not fail again (``Reason.passing``).
        bare: Those of them that are of instances with nothing to remove, where nothing went wrong.
        reasons: Why they are there, the most frequent first.
        predicted: Whether any row of the corpus is an instance.
        attributed: Whether a method of this call gave anything of any of them.
        evaluated: Whether one has curves.
    """

    failures: int
    passing: int
    bare: int
    reasons: list[Reason]
    predicted: bool
    attributed: bool
    evaluated: bool


def outcome(
    root: str,
    units: Sequence[Unit],
    num_shards: int,
    spoiled: Collection[str] = (),
    part: RunPart = WHOLE,
) -> Outcome:
    """Reads the failures of a run, and the footers of other files as far as need be.

    Args:
        root: The run's folder.
        units: The units of a call that is done.
        num_shards: Number of shards.
        spoiled: Paths of files that are known to be damaged.
        part: The part of the run that the outcome is of.

    Raises:
        DamagedError: If a file can't be read.
    """

    def any_rows(wanted: Callable[[Unit], bool]) -> bool:
        return any(
            count_rows(join(root, f"{unit.folder}/{name}"))
            for unit in filter(wanted, units)
            for name in sorted(list_files(join(root, unit.folder)))
            if (place := parse_unit_path(f"{unit.folder}/{name}")) is not None
            and place.num_shards == num_shards
            and any(map(part.has, place.shards))
        )

    found = reasons(root, spoiled, part)
    return Outcome(
        failures=sum(reason.number for reason in found),
        passing=sum(reason.passing for reason in found),
        bare=sum(reason.number for reason in found if reason.message.startswith(_BARE)),
        reasons=found,
        predicted=any_rows(lambda unit: unit.table == "instances"),
        attributed=any_rows(lambda unit: unit.table not in _OF_OTHERS),
        evaluated=any_rows(lambda unit: unit.table == "curves"),
    )


def reasons(root: str, spoiled: Collection[str] = (), part: RunPart = WHOLE) -> list[Reason]:
    """Why instances of a run, or of a part of it, failed, the most frequent reason first.

    Messages that differ in numbers or in what they quote are of one kind.
    """
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    different: set[str] = set()
    passing: Counter[str] = Counter()
    for error, message in _failures(root, spoiled, part):
        said = message if error == "RowError" else f"{error}: {message}"
        kind = _OWN.sub("#", said)
        counts[kind] += 1
        passing[kind] += is_passing(error, message)
        if first.setdefault(kind, said) != said:
            different.add(kind)
    return [
        Reason(number, first[kind], kind not in different, passing[kind])
        for kind, number in counts.most_common()
    ]


def _failures(root: str, spoiled: Collection[str], part: RunPart) -> Iterator[tuple[str, str]]:
    """Class and message of the failures, in order."""
    for path in (f"{FAILURES}/{name}" for name in sorted(list_files(join(root, FAILURES)))):
        place = parse_failures_path(path)
        if path in spoiled or place is None or not any(map(part.has, place.shards)):
            continue  # Of which some may be just being written, for another part.
        for shard, table in each_shard(root, path, place, ["error", "message"]):
            if part.has(shard):
                for row in table.to_pylist():
                    yield row["error"], row["message"]
