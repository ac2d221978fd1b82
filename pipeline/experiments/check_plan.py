"""What a check would take, by counting its passes and timing a few instances."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter

from attribeam.pipeline.experiments.check import Check, Step
from attribeam.transforms.inputs.variants import NothingToRemoveError
from attribeam.transforms.subsets import subsets_of


@dataclass(frozen=True)
class Cost:
    """What is left of a check's table.

    Attributes:
        table: The table.
        steps: Number of steps.
        runs: How many times the methods are run on each instance.
        forwards: How many forward passes there are beside, over all instances: copies that are
            alike are run once.
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
    # Of each set of methods by itself: those that are stochastic, say, may be the dearest of all.
    wanted = dict.fromkeys(step.methods for step in steps if step.passes)
    per_run = {methods: share * _timed(few, methods) for methods in wanted}
    subsets = [step for step in steps if step.portion.table == "subsets"]
    per_subset = share * _timed(few, None) if subsets else 0.0
    costs = []
    for table in dict.fromkeys(step.portion.table for step in steps):
        own = [step for step in steps if step.portion.table == table]
        times = sum(step.passes * len(step.methods) / max(1, len(check.methods)) for step in own)
        run = sum(step.passes * per_run.get(step.methods, 0.0) for step in own)
        done = len(own) / check.subset_steps if table == "subsets" else 0.0
        forwards = round(done * _forwards(check)) if table == "subsets" else 0
        seconds = done * per_subset if table == "subsets" else run
        costs.append(Cost(table, len(own), times, forwards, seconds))
    return costs


def _tokens(check: Check) -> int:
    return sum(map(len, check.instances))


def _forwards(check: Check) -> int:
    """Copies that subsets take: the whole, each unit, and random ones that are others."""
    samples, seed = check.options.samples, check.again.settings.seed
    total = 0
    for one in check.instances:
        try:
            subsets = subsets_of(one, check.unit_of(one), samples, seed)
        except NothingToRemoveError:
            continue
        total += len({subset.removed.tobytes() for subset in subsets})
    return total


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
