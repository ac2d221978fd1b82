"""What is left to do: the units of each shard whose files aren't there yet."""

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from pipeline.files import TEMPORARY, discard, join, list_files
from schemas import TABLES, Unit, parse_unit_path


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
    there: dict[int, set[Unit]] = defaultdict(set)
    for path in done:
        parsed = parse_unit_path(path)
        if parsed is not None and parsed[2] == num_shards:
            there[parsed[1]].add(parsed[0])
    wanted = list(units)
    missing = {s: tuple(u for u in wanted if u not in there[s]) for s in range(num_shards)}
    return [Task(shard, num_shards, units) for shard, units in missing.items() if units]


def sweep(root: str) -> list[str]:
    """Deletes what a killed run left half written; returns the paths of all other files."""
    kept = []
    for path in list_files(root):
        if path.endswith(TEMPORARY):
            discard(join(root, path))
        else:
            kept.append(path)
    return kept
