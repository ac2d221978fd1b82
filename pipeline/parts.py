"""A part of a run, for schedulers that start many copies of one command.

Which shards are a part's own depends on its number and theirs alone, so that parts need not talk
with each other, and other parts of another number of them may go on with what they have left.
"""

import re
from collections.abc import Mapping
from math import gcd
from typing import NamedTuple

from attribeam.schemas import UsageError, UsageTypeError
from attribeam.schemas.errors import cut

_NUMBER = r"(\d{1,8})"
_SAID = re.compile(rf"{_NUMBER}/{_NUMBER}|auto(?:/{_NUMBER})?", re.ASCII)

_SLURM = "SLURM_ARRAY_TASK_"
_SLURM_ALL = tuple(f"{_SLURM}{name}" for name in ("ID", "MIN", "MAX", "STEP", "COUNT"))
_KUBERNETES = "JOB_COMPLETION_INDEX"


class RunPart(NamedTuple):
    """Those shards whose number, divided by the number of parts, leaves the part's number."""

    number: int
    parts: int

    def __str__(self) -> str:
        return f"{self.number}/{self.parts}"

    def has(self, shard: int) -> bool:
        """Whether a shard is of the part."""
        return shard % self.parts == self.number

    def shards(self, num_shards: int) -> range:
        """Its shards, of so many."""
        return range(self.number, num_shards, self.parts)

    def overlaps(self, other: "RunPart") -> bool:
        """Whether some number is that of a shard of both, however many shards there are.

        By the Chinese remainder theorem, there is one if the two leave the same number when they
        are divided by what the numbers of parts have in common.
        """
        return (self.number - other.number) % gcd(self.parts, other.parts) == 0


WHOLE = RunPart(0, 1)


def check_part(said: str | None) -> None:
    """Checks what is said of a part, as far as it can be checked without the environment.

    Raises:
        UsageError: If it is no part.
    """
    if said is not None:
        _parsed(said)


def part_of(said: str | None) -> RunPart:
    """The part that ``I/N`` is; the whole run for None.

    Raises:
        UsageError: If it is something else.
    """
    return WHOLE if said is None else read_part(said, {})[0]


def read_part(said: str, environment: Mapping[str, str]) -> tuple[RunPart, str]:
    """The part that is meant, and what of the environment it was taken from ("" for nothing).

    Args:
        said: ``I/N``; ``auto`` for the task of a Slurm array; ``auto/N`` for the pod of an indexed
            job of Kubernetes, which isn't told how many there are.
        environment: Variables of the environment; read for ``auto`` alone.

    Raises:
        UsageError: If it is none of these, or the environment doesn't say it.
    """
    index, count, pods = _parsed(said)
    if index is not None and count is not None:
        return RunPart(index, count), ""
    if pods is not None:
        return _of_kubernetes(said, pods, environment)
    return _of_slurm(environment)


def _parsed(said: object) -> tuple[int | None, int | None, int | None]:
    """Number of the part and of all parts, or the latter beside ``auto``."""
    if not isinstance(said, str):
        raise UsageTypeError(f"part is a text such as '0/4', and not a {type(said).__name__}")
    found = _SAID.fullmatch(said.strip())
    if found is None:
        raise UsageError(f"--part is I/N, auto or auto/N, not {cut(said, 80)}")
    index, count, pods = (None if number is None else int(number) for number in found.groups())
    if 0 in (count, pods):
        raise UsageError(f"--part {said}: a run has one part at least")
    if index is not None and count is not None and index >= count:
        raise UsageError(f"--part {said}: parts are counted from 0, so the last one is {count - 1}")
    return index, count, pods


def _of_slurm(environment: Mapping[str, str]) -> tuple[RunPart, str]:
    """The task of an array, whose ids may begin anywhere and go by steps."""
    lacking = [name for name in _SLURM_ALL if name not in environment]
    if lacking:
        pod = f"; {_KUBERNETES} is set: of Kubernetes it is auto/N" * (_KUBERNETES in environment)
        raise UsageError(
            f"--part auto is for the tasks of a Slurm array (sbatch --array), but {lacking[0]} "
            f"isn't set{pod}; or name the part, as in --part 0/4"
        )
    task, first, last, step, count = (_whole(name, environment) for name in _SLURM_ALL)
    if step < 1 or count < 1 or (last - first) // step + 1 != count or (task - first) % step:
        said = ", ".join(f"{name}={environment[name]}" for name in _SLURM_ALL)
        raise UsageError(
            f"--part auto: the ids of the Slurm array are no even steps ({said}); use an array "
            "such as 0-15, or name the part, as in --part 0/4"
        )
    part = RunPart((task - first) // step, count)
    if not 0 <= part.number < count:
        raise UsageError(
            f"--part auto: {_SLURM_ALL[0]}={task} is no task of an array from {first} to {last}"
        )
    by = f" by {step}" * (step != 1)
    return part, f"{_SLURM_ALL[0]}={task} of {count} tasks from {first} to {last}{by}"


def _of_kubernetes(said: str, count: int, environment: Mapping[str, str]) -> tuple[RunPart, str]:
    if _KUBERNETES not in environment:
        task = f"; {_SLURM_ALL[0]} is set: of Slurm it is auto" * (_SLURM_ALL[0] in environment)
        raise UsageError(
            f"--part {said} is for the pods of an indexed job of Kubernetes (completionMode: "
            f"Indexed), but {_KUBERNETES} isn't set{task}; or name the part, as in --part 0/{count}"
        )
    index = _whole(_KUBERNETES, environment)
    if not 0 <= index < count:
        raise UsageError(
            f"--part {said}: {_KUBERNETES}={index}, but {count} parts are 0 to {count - 1}; N is "
            "the job's completions"
        )
    return RunPart(index, count), f"{_KUBERNETES}={index}"


def _whole(name: str, environment: Mapping[str, str]) -> int:
    try:
        return int(environment[name])
    except ValueError:
        value = cut(environment[name], 80)
        raise UsageError(f"--part: {name} is no whole number, but {value!r}") from None
