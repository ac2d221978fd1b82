"""Writing the index of a run that is done (``attribeam.schemas.index``).

Workers have said what they wrote. What nobody has said, or not alike, is read, where that takes no
download: files of a worker that was killed, and of versions of before there was an index.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from attribeam.analysis.opening.files import units
from attribeam.analysis.opening.reading import checksum, content_problems
from attribeam.pipeline.store.files import count_rows, join, list_sized, open_read
from attribeam.pipeline.store.records import read_records, write_index
from attribeam.schemas import table_schema
from attribeam.schemas.index import INDEX, Entry
from attribeam.schemas.layout import FAILURES, Place, parse_failures_path, parse_unit_path
from attribeam.schemas.manifest import Manifest, is_double


@dataclass(frozen=True)
class _Files:
    """The files of a run's tables, by path: what each path says, and sizes."""

    places: Mapping[str, Place]
    sizes: Mapping[str, int]
    indexed: bool

    @classmethod
    def of(cls, root: str, manifest: Manifest) -> "_Files":
        """Those of the units that ``run.json`` has."""
        sizes = dict(list_sized(root))
        num_shards = manifest["identity"]["settings"]["num_shards"]
        known = {*units(manifest)}
        found = {path: parse_unit_path(path) or parse_failures_path(path) for path in sizes}
        own = {
            path: place
            for path, place in found.items()
            if place and place.unit in known and place.num_shards == num_shards
        }
        return cls(own, sizes, INDEX in sizes)


def index_run(root: str, manifest: Manifest, *, read: bool) -> None:
    """Writes the index of a run, unless there is nothing new to be said.

    The caller has the folder to itself, or the run is done.

    Args:
        root: The run's folder.
        manifest: Its ``run.json``.
        read: Whether files that nobody has said anything of are read for it; else they are left
            out, and whoever verifies the run reads them.
    """
    entries, records = read_records(root)
    if not records and not read:
        return
    files = _Files.of(root, manifest)
    if files.indexed and not records and files.places.keys() == {entry.path for entry in entries}:
        return
    said: dict[str, set[Entry]] = {}
    for entry in entries:
        if files.sizes.get(entry.path) == entry.bytes:
            said.setdefault(entry.path, set()).add(entry)
    known = {path: found.pop() for path, found in said.items() if len(found) == 1}
    unsaid = {path: place for path, place in files.places.items() if path not in known}
    found = (_read(root, path, place, manifest) for path, place in unsaid.items() if read)
    kept = (entry for path, entry in known.items() if path in files.places)
    write_index(root, [*kept, *filter(None, found)], records)


def _read(root: str, path: str, place: Place, manifest: Manifest) -> Entry | None:
    """The entry of a file that nobody has said anything of; None if it is damaged."""
    unit = None if path.startswith(f"{FAILURES}/") else place.unit
    table = FAILURES if unit is None else unit.table
    schema = table_schema(table, double=is_double(manifest))
    try:
        with open_read(join(root, path)) as handle:
            if any(content_problems(handle, unit, schema, place)):
                return None
        rows = count_rows(join(root, path))
        with open_read(join(root, path)) as handle:
            digest = checksum(handle)
            size = handle.tell()
    except (pa.ArrowException, OSError):
        return None
    of = place.unit.table, place.unit.method, place.shards[0], place.shards[-1]
    return Entry(path, *of, rows, size, digest)
