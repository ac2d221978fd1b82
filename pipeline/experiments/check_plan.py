"""What a check would take, by counting its passes and timing a few instances."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter

from attribeam.pipeline.experiments.check import Check, Step
from attribeam.transforms.inputs.kinds import inputs_of


@dataclass(frozen=True)
class Cost:
    """What is left of a check's table.

    Attributes:
        table: The table.
        steps: Number of steps.
        runs: How many times the methods are run on each instance.
        forwards: How many forward passes there are beside, over all instances.
        seconds: What that takes, measured on a few instances.
    """

    table: str
    steps: int
    runs: float
    forwards: int
    seconds: float


def plan_check(check: Check, steps: Sequence[Step], sample: int = 16) -> list[Cost]:
    """Counts what is left to do, and times it on the first instances.

    Nothing is written. Instances come in the order of a hash, so that the first are like all.

    Args:
        check: The check.
        steps: What is left.
        sample: Number of instances to time.
    """
    few = replace(check, again=replace(check.again, instances=check.instances[:sample]))
    share = _tokens(check) / max(1, _tokens(few))
    runs = any(step.passes for step in steps)
    per_run = share * _timed(few, check.methods) if runs else 0.0
    subsets = [step for step in steps if step.portion.table == "subsets"]
    per_subset = share * _timed(few, None) if subsets else 0.0
    costs = []
    for table in dict.fromkeys(step.portion.table for step in steps):
        own = [step for step in steps if step.portion.table == table]
        times = sum(step.passes * len(step.methods) / max(1, len(check.methods)) for step in own)
        done = len(own) / check.subset_steps if table == "subsets" else 0.0
        forwards = round(done * _forwards(check)) if table == "subsets" else 0
        seconds = done * per_subset if table == "subsets" else times * per_run
        costs.append(Cost(table, len(own), times, forwards, seconds))
    return costs


def _tokens(check: Check) -> int:
    return sum(map(len, check.instances))


def _forwards(check: Check) -> int:
    """Copies that subsets take: the whole, each unit, and the random ones."""
    units = (inputs_of(one).units_of(one, check.unit_of(one)) for one in check.instances)
    counts = [int(own.max()) + 1 for own in units]
    return sum(1 + count + check.options.samples for count in counts if count)


def _timed(check: Check, methods: Sequence[str] | None) -> float:
    """Seconds of the methods, or without them of subsets, once over the instances of a check.

    The first time is left out: what a library sets up is set up once.
    """
    taken = 0.0
    _ = check.given
    for _ in range(2):
        start = perf_counter()
        if methods is None:
            check.of_subsets(slice(None))
        else:
            check.attributed(methods, check.given)
        taken = perf_counter() - start
    return taken
