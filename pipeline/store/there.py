"""Which files of a run's tables are there: a byte for each, since there may be very many."""

from collections.abc import Iterable, Iterator

from attribeam.schemas import Unit
from attribeam.schemas.layout import (
    FAILURES,
    Place,
    ShardNames,
    parse_failures_path,
    parse_unit_path,
    shard_name,
    shards_path,
)


class There:
    """The tables of a run that are there and their failures, by unit and shard.

    Attributes:
        num_shards: How many shards the run has; files of another number are none of its own.
    """

    def __init__(self, num_shards: int, paths: Iterable[str] = ()) -> None:
        self.num_shards = num_shards
        self._shard = ShardNames(num_shards)
        self._shards: dict[str, bytearray] = {}  # By folder: 1 where there is a file.
        self._joined: dict[str, Place] = {}  # Files of several shards, by path.
        for path in paths:
            self.add(path)

    def add(self, path: str) -> None:
        """Says that a file is there; one that is neither a table nor failures is passed over.

        Args:
            path: Its path, relative to the run's folder.
        """
        folder, _, name = path.rpartition("/")
        shard = self._shard(name)
        if shard is not None:
            if (shards := self.shards(folder)) is not None:
                shards[shard] = 1
        elif ".." in name:
            place = _place(path)
            if place is not None and place.num_shards == self.num_shards:
                self._joined[path] = place

    def shards(self, folder: str) -> bytearray | None:
        """Which shards have files of their own in a folder, to be added to.

        Args:
            folder: The folder, relative to the run's. None is given for one that has no tables.
        """
        if folder not in self._shards:
            if _place(f"{folder}/{shard_name(0, self.num_shards)}") is None:
                return None
            self._shards[folder] = bytearray(self.num_shards)
        return self._shards[folder]

    def tables(self, unit: Unit) -> bytes:
        """For each shard 1 if the unit's table is there, alone or in a file of several, else 0."""
        return self._of(unit.folder)

    def failures(self, unit: Unit) -> bytes:
        """For each shard 1 if a file of its failures is there, alone or with others, else 0."""
        return self._of(f"{FAILURES}/{unit}")

    def _of(self, folder: str) -> bytes:
        own_files = self._shards.get(folder)
        shards = bytearray(self.num_shards) if own_files is None else bytearray(own_files)
        for path, place in self._joined.items():
            if path.rpartition("/")[0] == folder:
                for shard in place.shards[: self.num_shards - place.shards.start]:
                    shards[shard] = 1
        return bytes(shards)

    def files_of_failures(self) -> Iterator[tuple[str, Place]]:
        """Yields the files of failures, folder by folder and in order: paths, and what they say."""
        start = f"{FAILURES}/"
        folders = {*self._shards, *(path.rpartition("/")[0] for path in self._joined)}
        for folder in sorted(each for each in folders if each.startswith(start)):
            table, _, method = folder.removeprefix(start).partition(".")
            unit = Unit(table, method or None)
            shards = self._shards.get(folder, b"")
            places = [p for path, p in self._joined.items() if path.rpartition("/")[0] == folder]
            singles = (n for n, is_there in enumerate(shards) if is_there)
            places += (Place.of(unit, shard, self.num_shards) for shard in singles)
            for place in sorted(places, key=lambda place: place.shards.start):
                yield shards_path(place, failures=True), place


def _place(path: str) -> Place | None:
    return parse_unit_path(path) or parse_failures_path(path)
