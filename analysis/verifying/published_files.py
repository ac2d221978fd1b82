"""The files of a published run: which there should be, and whether each can be read to its end."""

import re
from collections.abc import Iterator
from hashlib import file_digest
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from attribeam.analysis.opening.files import Survey, unfollowed
from attribeam.analysis.opening.reading import content_problems
from attribeam.analysis.opening.runs import linked_folders
from attribeam.schemas import TABLES, Unit, table_schema
from attribeam.schemas.layout import OVERLAYS, PUBLISHED, UNFINISHED, WIDE
from attribeam.schemas.manifest import Manifest, is_double
from attribeam.schemas.tables import EVALUATIONS

_NAME = re.compile(r"(.+)-(\d{5,})-of-(\d{5,})\.parquet")
_POINTER = b"version https://git-lfs.github.com/spec/"
_SUMMARIES = ("methods", "run")
_AGAIN = "Download the data set again"


class _Part(NamedTuple):
    """A file, by its name: which part of how many it is, of which split."""

    path: Path
    split: str
    number: int
    of: int


def survey_published(root: Path, manifest: Manifest) -> Survey:
    """Reads every file of a published run, one at a time.

    A table without rows has no file, so that which tables there should be is for those to say who
    count their rows; how many files a table has is in their names.

    Args:
        root: The folder.
        manifest: Its ``run.json``.
    """
    problems: list[str] = []
    if (root / UNFINISHED).exists():
        problems.append(f"its upload had not finished ({UNFINISHED}). {_AGAIN} when it has")
    # What tells of run.json alone is there whatever was found.
    problems += [
        f"{PUBLISHED}/{table}: is missing. {_AGAIN}"
        for table in _SUMMARIES
        if not any((root / PUBLISHED / table).glob("*.parquet"))
    ]
    problems += _unlike(root, manifest)
    there = expected = 0
    sound: dict[str, list[str]] = {table: [] for table in TABLES}
    for folder in sorted({path.parent for path in (root / PUBLISHED).rglob("*.parquet")}):
        name = folder.relative_to(root).as_posix()
        unit = _unit(folder.relative_to(root / PUBLISHED).parts, manifest)
        if unit is None and any(path.startswith(f"{name}/") for path in manifest.get("files", {})):
            continue  # Of a later version; its files are what was published.
        if unit is None:
            problems.append(f"{name}: run.json has no such table or method. Move it elsewhere")
            continue
        parts, strangers = _parts(folder)
        most = max((part.of for part in parts), default=0)
        numbers = {
            part.number for part in parts if part.of == most and part.split == parts[0].split
        }
        there += len(numbers)
        expected += most
        problems += [f"{name}/{file}: no file of a table is named so" for file in strangers]
        if numbers != set(range(most)) or len(parts) != most:
            problems.append(
                f"{name}: {len(parts)} files, which are not parts 0 to {most - 1} of {most} of one "
                f"split. {_AGAIN}"
            )
        for part in parts:
            path = part.path.relative_to(root).as_posix()
            problems += [f"{path}: {problem}" for problem in _problems(part.path, unit, manifest)]
            if unit.table in sound:
                sound[unit.table].append(path)
    problems += [
        f"{path}: a link, which queries don't follow. Put the folder itself there"
        for path in linked_folders(root)
    ]
    problems += unfollowed(root, [path for paths in sound.values() for path in paths])
    shards = 0 if problems else manifest["identity"]["settings"]["num_shards"]
    return Survey(problems, there, expected, shards, sound)


def _unlike(root: Path, manifest: Manifest) -> Iterator[str]:
    """Yields which files are not those that were published, by their checksums."""
    records = manifest.get("files") or {}
    for path, record in records.items():
        file = root / path
        if not file.is_file():
            yield f"{path}: is missing. {_AGAIN}"
            continue
        with file.open("rb") as handle:
            if handle.read(len(_POINTER)) == _POINTER:
                continue  # What is told of it in its turn.
            handle.seek(0)
            digest = file_digest(handle, "sha256").hexdigest()
        if digest != record["sha256"]:
            yield f"{path}: is not what was published: its sha256 is another. {_AGAIN}"
    there = {path.relative_to(root).as_posix() for path in (root / PUBLISHED).rglob("*.parquet")}
    for path in sorted(there - records.keys() if records else ()):
        yield f"{path}: run.json has no such file. Move it elsewhere"


def _unit(folders: tuple[str, ...], manifest: Manifest) -> Unit | None:
    """What the files of a folder below ``data`` are of; None if run.json knows nothing of it."""
    match folders:
        case ["instances" | "failures" | "methods" | "run" | "wide" | "overlays" as table]:
            return Unit(table)
        case [table] if table in EVALUATIONS:
            return Unit(table)
        case [table, method] if table in TABLES and method in manifest["methods"]:
            return Unit(table, method)
    return None


def _parts(folder: Path) -> tuple[list[_Part], list[str]]:
    """The files of a folder, and the names of those that are no parts of a table."""
    found = [(path, _NAME.fullmatch(path.name)) for path in sorted(folder.glob("*.parquet"))]
    parts = [_Part(path, m[1], int(m[2]), int(m[3])) for path, m in found if m is not None]
    return parts, [path.name for path, match in found if match is None]


def _problems(file: Path, unit: Unit, manifest: Manifest) -> Iterator[str]:
    """Yields what is wrong with a file."""
    try:
        with file.open("rb") as handle:
            if handle.read(len(_POINTER)) == _POINTER:
                yield "is not here, but only what Git LFS says of it. Run `git lfs pull`"
                return
        if unit.table in _SUMMARIES:
            yield from _summary_problems(file, unit.table, manifest)
            return
        if unit.table in (WIDE, OVERLAYS):
            yield from _wide_problems(file)
            return
        double = is_double(manifest)
        for problem in content_problems(file, unit, table_schema(unit.table, double=double)):
            yield f"{problem}. Publish the run again with this version of attribeam"
    except (pa.ArrowException, OSError) as error:
        yield f"damaged ({str(error).splitlines()[0]}). {_AGAIN}"


def _summary_problems(file: Path, table: str, manifest: Manifest) -> Iterator[str]:
    """Yields where a table that tells of run.json says something else."""
    rows = pq.ParquetFile(file, page_checksum_verification=True).read()
    if table == "run" and len(rows) != 1:
        yield f"has {len(rows)} rows, and there is one run. {_AGAIN}"
    if table == "methods" and rows["method"].to_pylist() != [*manifest["methods"]]:
        yield f"has other methods than run.json. {_AGAIN}"


def _wide_problems(file: Path) -> Iterator[str]:
    """Reads a file for people to its end, and yields which of its columns are lacking."""
    with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
        for batch in parquet.iter_batches(100):
            lacking = {"instance_id", "label", "prediction"} - {*batch.schema.names}
            if lacking:
                yield f"has no column {', '.join(sorted(lacking))}. {_AGAIN}"
                return
