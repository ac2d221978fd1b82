"""What is left to do: the units of each shard whose files aren't there yet."""

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from attribeam.pipeline.parts import WHOLE, RunPart
from attribeam.pipeline.store.files import Stamp
from attribeam.pipeline.store.joined import covered
from attribeam.schemas import TABLES, Unit
from attribeam.schemas.layout import shard_name


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
    num_shards: int,
    done: Iterable[str],
    again: Mapping[tuple[Unit, int], Stamp | None] | None = None,
    part: RunPart = WHOLE,
) -> list[Task]:
    """Plans the tasks of a run.

    Args:
        units: Units that every shard is to have.
        num_shards: Number of shards.
        done: Paths of the files that are there, relative to the run's folder.
        again: Units of single shards that are to be made again, whether they are there or not,
            with the stamps of tables that stay until they are replaced.
        part: The part of the run that is planned.

    Returns:
        A task for each shard of the part that lacks units, in order.
    """
    there = set(done)
    joined = covered(there, num_shards)
    names = {shard: shard_name(shard, num_shards) for shard in part.shards(num_shards)}
    missing: dict[int, list[Unit]] = defaultdict(list)
    for unit in units:
        folder, others = unit.folder, joined.get(unit, ())
        for shard, name in names.items():
            if f"{folder}/{name}" not in there and shard not in others:
                missing[shard].append(unit)
    before: dict[int, list[tuple[Unit, Stamp]]] = defaultdict(list)
    for (unit, shard), stamp in (again or {}).items():
        missing[shard].append(unit)
        if stamp is not None:
            before[shard].append((unit, stamp))
    return [
        Task(shard, num_shards, tuple(in_order(missing[shard])), tuple(before[shard]))
        for shard in sorted(missing)
    ]
