"""Files of a run that are damaged: found, and taken away, so that they are made again."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from analysis.files import content_problems
from pipeline.files import DamagedError, discard, join, list_files, open_read, read_parquet
from schemas import parse_unit_path, table_schema, unit_path
from schemas.layout import CORPUS, FAILURES, STATISTICS, parse_failures_path


def is_own(path: str) -> bool:
    """Whether a path, relative to a run's folder, is that of a file that a run makes again."""
    return (
        parse_unit_path(path) is not None
        or parse_failures_path(path) is not None
        or path.startswith((f"{CORPUS}/rows-", f"{STATISTICS}/sample-"))
    )


def find_damaged(root: str, manifest: Mapping[str, Any]) -> Iterator[str]:
    """Reads every file of a run to its last page, and yields the paths of those that are damaged.

    Args:
        root: The run's folder.
        manifest: Its ``run.json``.
    """
    double = manifest["identity"]["settings"]["dtype"] == "float64"
    for path in sorted(filter(is_own, list_files(root))):
        if not _is_sound(root, path, double=double):
            yield path


def _is_sound(root: str, path: str, *, double: bool) -> bool:
    found = parse_unit_path(path)
    try:
        if found is None and parse_failures_path(path) is None:
            read_parquet(join(root, path))
            return True
        unit = None if found is None else found[0]
        schema = table_schema(FAILURES if unit is None else unit.table, double=double)
        with open_read(join(root, path)) as handle:
            return not any(content_problems(handle, unit, schema))
    except (DamagedError, pa.ArrowException):
        return False
    except OSError as error:
        # What Arrow finds has no number; that a file can't be read is another matter.
        if error.errno is not None:
            raise
        return False


def discard_damaged(root: str, paths: Iterable[str]) -> None:
    """Deletes damaged files, and with a unit's failures its table, which marks it as done."""
    for path in paths:
        found = parse_failures_path(path)
        if found is not None:
            discard(join(root, unit_path(*found)))
        discard(join(root, path))
