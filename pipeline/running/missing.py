"""What is left to do: the units of each shard whose files aren't there yet."""

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from itertools import repeat

from attribeam.pipeline.parts import WHOLE, RunPart
from attribeam.pipeline.store.files import Stamp
from attribeam.pipeline.store.there import There
from attribeam.schemas import TABLES, Unit


@dataclass(frozen=True)
class Task:
    """A shard and the units of it that are missing; the element of the Beam graph.

    Attributes:
        shard: Number of the shard.
        num_shards: How many there are.
        units: Its units that are to be made, in the order in which they are committed.
        before: The stamps of those whose tables are there and are to be replaced.
    """

    shard: int
    num_shards: int
    units: tuple[Unit, ...]
    before: tuple[tuple[Unit, Stamp], ...] = ()


def units_of_run(methods: Mapping[str, Container[str]]) -> list[Unit]:
    """The units that every shard of a run has, in the order in which they are committed.

    Args:
        methods: Per method the tables that it fills.
    """
    units = [Unit("instances")]
    # Table by table: what curves are made of is there before them.
    units += [Unit(table, name) for table in TABLES for name in methods if table in methods[name]]
    return units


def in_order(units: Iterable[Unit]) -> list[Unit]:
    """Units in the order in which they are committed, each once; methods stay in theirs."""
    return sorted(dict.fromkeys(units), key=lambda unit: TABLES.index(unit.table))


def plan(
    units: Iterable[Unit],
    there: There,
    again: Mapping[tuple[Unit, int], Stamp | None] | None = None,
    part: RunPart = WHOLE,
) -> list[Task]:
    """Plans the tasks of a run.

    Args:
        units: Units that every shard is to have.
        there: The files that are there.
        again: Units of single shards of the part that are to be made again, whether they are there
            or not, with the stamps of tables that stay until they are replaced.
        part: The part of the run that is planned.

    Returns:
        A task for each shard of the part that lacks units, in order.
    """
    ordered, num_shards = in_order(units), there.num_shards
    more: dict[int, list[tuple[Unit, Stamp | None]]] = defaultdict(list)
    for (unit, shard), stamp in (again or {}).items():
        more[shard].append((unit, stamp))
    found = [there.tables(unit)[part.number :: part.parts] for unit in ordered]
    # Most shards lack the same units, which are held once for all of them.
    lacking: dict[tuple[int, ...], tuple[Unit, ...]] = {}
    tasks = []
    flags = zip(*found, strict=True) if found else repeat(())
    for shard, has in zip(part.shards(num_shards), flags, strict=False):
        if has not in lacking:
            lacking[has] = tuple(
                u for u, is_there in zip(ordered, has, strict=True) if not is_there
            )
        missing, own = lacking[has], more.get(shard, [])
        if own:
            missing = tuple(in_order([*missing, *(unit for unit, _ in own)]))
        if missing:
            before = tuple((unit, stamp) for unit, stamp in own if stamp is not None)
            tasks.append(Task(shard, num_shards, missing, before))
    return tasks
