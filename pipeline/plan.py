"""What is left to do: the units of each shard whose files aren't there yet."""

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.damage import discard_damaged, is_own
from pipeline.files import TEMPORARY, discard, join, list_checked
from schemas import TABLES, Unit, unit_path
from schemas.layout import parse_failures_path, shard_name


@dataclass(frozen=True)
class Task:
    """A shard and the units of it that are missing; the element of the Beam graph."""

    shard: int
    num_shards: int
    units: tuple[Unit, ...]


def units_of_run(methods: Mapping[str, Container[str]]) -> list[Unit]:
    """The units that every shard of a run has, in the order in which they are committed.

    Args:
        methods: Per method the tables that it fills.
    """
    units = [Unit("instances")]
    # Table by table: what curves are made of is there before them.
    units += [Unit(table, name) for table in TABLES for name in methods if table in methods[name]]
    return units


def plan(units: Iterable[Unit], num_shards: int, done: Iterable[str]) -> list[Task]:
    """Plans the tasks of a run.

    Args:
        units: Units that every shard is to have.
        num_shards: Number of shards.
        done: Paths of the files that are there, relative to the run's folder.

    Returns:
        A task for each shard that lacks units, in order.
    """
    there = set(done)
    names = [shard_name(shard, num_shards) for shard in range(num_shards)]
    missing: dict[int, list[Unit]] = defaultdict(list)
    for unit in units:
        folder = unit.folder
        for shard, name in enumerate(names):
            if f"{folder}/{name}" not in there:
                missing[shard].append(unit)
    return [Task(shard, num_shards, tuple(missing[shard])) for shard in sorted(missing)]


class Swept(NamedTuple):
    """What was found in a run's folder.

    Attributes:
        kept: Paths of the files that are left, relative to the folder.
        damaged: Those of the files that were cut short, which are gone now.
    """

    kept: list[str]
    damaged: list[str]


def sweep(root: str) -> Swept:
    """Deletes what a killed run left half written, and tables that a broken disk has cut short.

    With a unit's failures goes its table, so that both are made again.
    """
    kept, damaged = [], []
    for path, whole in list_checked(root):
        if path.endswith(TEMPORARY):
            discard(join(root, path))
        elif not whole and is_own(path):
            damaged.append(path)
        else:
            kept.append(path)
    if damaged:
        discard_damaged(root, damaged)
        gone = {unit_path(*found) for found in map(parse_failures_path, damaged) if found}
        kept = [path for path in kept if path not in gone]
    return Swept(kept, damaged)
