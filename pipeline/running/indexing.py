"""Writing the index of a run that is done (``attribeam.schemas.index``).

Workers have said what they wrote. What nobody has said, or not alike, is read, where that takes no
download: files of a worker that was killed, and of versions of before there was an index.
"""

from collections.abc import Iterator, Sequence
from itertools import chain

import pyarrow as pa

from attribeam.analysis.opening.files import units
from attribeam.analysis.opening.reading import checksum, content_problems
from attribeam.pipeline.store.files import count_rows, join, list_sized, open_read
from attribeam.pipeline.store.records import Said, write_index
from attribeam.schemas import table_schema
from attribeam.schemas.index import Entry
from attribeam.schemas.layout import (
    FAILURES,
    Place,
    parse_failures_path,
    parse_unit_path,
    shards_of,
)
from attribeam.schemas.manifest import Manifest, is_double


def index_run(root: str, manifest: Manifest, *, read: bool) -> None:
    """Writes the index of a run, unless there is nothing new to be said.

    The caller has the folder to itself, or the run is done. Files are gone through folder by
    folder, since all entries of a large run would be more than all else that its launcher holds.

    Args:
        root: The run's folder.
        manifest: Its ``run.json``.
        read: Whether files that nobody has said anything of are read for it; else they are left
            out, and whoever verifies the run reads them.
    """
    said = Said(root)
    if not said.records and not read:
        return
    known = [*units(manifest)]
    folders = sorted(each for unit in known for each in (unit.folder, f"{FAILURES}/{unit}"))
    if said.is_indexed and not said.records and _is_all_said(root, folders, said, manifest):
        return
    found = (_entries(root, folder, said, manifest, read=read) for folder in folders)
    write_index(root, chain.from_iterable(found), said.records)


def _is_all_said(root: str, folders: Sequence[str], said: Said, manifest: Manifest) -> bool:
    """Whether the index names each file that is there, and no other."""
    number = 0
    for folder in folders:
        paths = {entry.path for entry in said.of(folder)}
        if paths != _files(root, folder, manifest).keys():
            return False
        number += len(paths)
    return number == said.number


def _files(root: str, folder: str, manifest: Manifest) -> dict[str, int]:
    """The files of the run's own in a folder of a unit or of its failures: paths and sizes."""
    num_shards = manifest["identity"]["settings"]["num_shards"]
    found = ((shards_of(name), name, size) for name, size in list_sized(join(root, folder)))
    return {f"{folder}/{name}": size for of, name, size in found if of and of[1] == num_shards}


def _entries(
    root: str, folder: str, said: Said, manifest: Manifest, *, read: bool
) -> Iterator[Entry]:
    """Yields what the index is to say of the files in a folder, in order."""
    files = _files(root, folder, manifest)
    known: dict[str, Entry | None] = {}
    for entry in said.of(folder):
        if files.get(entry.path) == entry.bytes:
            # What was said in two ways is not known.
            known[entry.path] = entry if known.get(entry.path, entry) == entry else None
    for path in sorted(files):
        found = known.get(path)
        place = parse_unit_path(path) or parse_failures_path(path)
        if found is None and read and place is not None:
            found = _read(root, path, place, manifest)
        if found is not None:
            yield found


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
