"""Files of several shards: which rows are a shard's, and taking shards out of them.

``attribeam compact`` makes them. Who reads a shard need not know whether it is in one; who makes a
shard again takes it out first, so that files stay what their names say.
"""

import time
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from itertools import accumulate

import pyarrow as pa
import pyarrow.parquet as pq

from attribeam.analysis.opening.reading import rows_of_shards
from attribeam.pipeline.store.files import (
    DamagedError,
    encode_parquet,
    exists,
    join,
    list_files,
    opened_parquet,
    read_parquet,
    write_beside,
)
from attribeam.pipeline.store.records import forget
from attribeam.pipeline.store.replacing import replace_files
from attribeam.schemas import Unit
from attribeam.schemas.layout import (
    FAILURES,
    SHARD_ROWS,
    Place,
    parse_failures_path,
    parse_unit_path,
    shards_path,
)

_TRIES, _PAUSE = 4, 0.5


def read_unit(root: str, place: Place, columns: list[str], *, failures: bool = False) -> pa.Table:
    """Reads the rows of one shard, from a file of its own or from one of several.

    Args:
        root: The run's folder.
        place: The unit and the shard.
        columns: Names of the columns that are read.
        failures: The failures of the unit instead of its table; of which there may be none.

    Raises:
        DamagedError: If it isn't there, or the file can't be read.
    """
    path = shards_path(place, failures=failures)
    for _ in range(_TRIES):
        if exists(join(root, path)):
            return read_parquet(join(root, path), columns)
        for other in joined_files(root, place.unit, failures=failures):
            if place.shards[0] in other.shards and other.num_shards == place.num_shards:
                return _read_of(root, other, place.shards[0], columns, failures=failures)
        if failures:
            return pa.table({name: pa.array([], pa.string()) for name in columns})
        time.sleep(_PAUSE)  # Another part of the run may just be taking a shard out.
    raise DamagedError(f"{join(root, path)} has gone: run the same command again")


def joined_files(root: str, unit: Unit, *, failures: bool = False) -> list[Place]:
    """The files of a unit that are of several shards."""
    folder = f"{FAILURES}/{unit}" if failures else unit.folder
    parse = parse_failures_path if failures else parse_unit_path
    found = (parse(f"{folder}/{name}") for name in sorted(list_files(join(root, folder))))
    return [place for place in found if place is not None and place.joined]


def _rows_of_shards(footer: pq.FileMetaData, place: Place, path: str) -> list[int]:
    """How many rows each shard of a file has, in order.

    Args:
        footer: The footer of the file.
        place: What its path says.
        path: The path, for the message.

    Raises:
        DamagedError: If the file doesn't say it.
    """
    if (rows := rows_of_shards(footer, place)) is not None:
        return rows
    raise DamagedError(
        f"{path} is damaged (it doesn't say which rows are of which shard): run the same command "
        "again with --repair"
    )


def each_shard(
    root: str, path: str, place: Place, columns: list[str] | None = None
) -> Iterator[tuple[int, pa.Table]]:
    """Yields the shards of a file and their rows.

    Raises:
        DamagedError: If the file can't be read.
    """
    with opened_parquet(join(root, path)) as parquet:
        rows = _rows_of_shards(parquet.metadata, place, join(root, path))
        table = parquet.read(columns)
    start = 0
    for shard, number in zip(place.shards, rows, strict=True):
        yield shard, table.slice(start, number)
        start += number


def take_out(
    root: str, parts: Iterable[tuple[Unit, int]], num_shards: int, damaged: Collection[str]
) -> None:
    """Makes files of one shard of those that have shards which are to be made again.

    The shards that are made again have none; of a file that is damaged no shard has.

    Args:
        root: The run's folder, which the caller has to itself.
        parts: Units and shards that are to be made again, in the order in which they go.
        num_shards: Number of shards of the run.
        damaged: Paths of files that are known to be damaged.
    """
    shards: dict[Unit, set[int]] = {}
    for unit, shard in parts:
        shards.setdefault(unit, set()).add(shard)
    for unit, again in shards.items():
        gone: list[str] = []
        come: dict[str, str] = {}
        for failures in (False, True):
            for place in joined_files(root, unit, failures=failures):
                if place.num_shards != num_shards or again.isdisjoint(place.shards):
                    continue
                path = shards_path(place, failures=failures)
                gone.append(path)
                if path not in damaged:
                    come |= _singles(root, path, place, again, failures=failures)
        if gone:
            # Who is killed after this finds no failures amiss that the index still names.
            forget(root, gone)
            replace_files(root, gone, come)


def _singles(
    root: str, path: str, place: Place, without: Collection[int], *, failures: bool
) -> dict[str, str]:
    """Writes a file for each shard of a file but some; returns their temporary paths by path."""
    made: dict[str, str] = {}
    for shard, table in each_shard(root, path, place):
        if shard in without or (failures and not len(table)):
            continue
        one = shards_path(Place.of(place.unit, shard, place.num_shards), failures=failures)
        said = dict(table.schema.metadata or {})
        said.pop(SHARD_ROWS.encode(), None)
        own = table.replace_schema_metadata(said or None)
        made[one] = write_beside(join(root, one), partial(encode_parquet, own))
    return made


def _read_of(
    root: str, place: Place, shard: int, columns: list[str] | None, *, failures: bool
) -> pa.Table:
    """The rows of a shard, of a file of which no more is read than the groups that they are in."""
    path = join(root, shards_path(place, failures=failures))
    with opened_parquet(path) as parquet:
        rows = _rows_of_shards(parquet.metadata, place, path)
        before = sum(rows[: place.shards.index(shard)])
        wanted = range(before, before + rows[place.shards.index(shard)])
        groups, start = _groups(parquet.metadata, wanted)
        table: pa.Table = parquet.read_row_groups(groups, columns)
    return table.slice(wanted.start - start, len(wanted))


def _groups(footer: pq.FileMetaData, wanted: range) -> tuple[list[int], int]:
    """The row groups that some rows are in, and the number of the first row of these."""
    sizes = [footer.row_group(number).num_rows for number in range(footer.num_row_groups)]
    ends = [*accumulate(sizes)]
    found = [
        number
        for number, (size, end) in enumerate(zip(sizes, ends, strict=True))
        if end - size < wanted.stop and end > wanted.start
    ]
    return found, (ends[found[0]] - sizes[found[0]] if found else wanted.start)
