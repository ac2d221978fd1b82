"""Given scores beside the copy of the corpus, a file a shard, so that workers need nothing else."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from attribeam.pipeline.corpus.foreign import Foreign
from attribeam.pipeline.store.files import (
    discard_folder,
    exists,
    join,
    read_parquet,
    write_parquet,
)
from attribeam.schemas import UsageError
from attribeam.schemas.layout import corpus_path, given_path
from attribeam.transforms import Row
from attribeam.transforms.inputs.given_scores import Given
from attribeam.transforms.registry import IMPORTED

_SCHEMA = pa.schema(
    [
        ("row_id", pa.string()),
        ("instance_id", pa.string()),
        ("unit", pa.string()),
        ("scores", pa.list_(pa.float64())),
        ("tokens", pa.list_(pa.string())),
        ("input_ids", pa.list_(pa.int64())),
        ("spans", pa.list_(pa.list_(pa.int64()))),
        ("target", pa.int64()),
        ("problem", pa.string()),
        ("delta", pa.float64()),
    ]
)
# What an id of an instance has after that of its row.
_PART = re.compile(r"(?:/(?:\d+|image|text))?(?:#\d+)?$")


def stage_given(foreign: Foreign, root: str, num_shards: int, tell: Callable[[str], None]) -> None:
    """Writes given scores by shard, next to the rows that they are of.

    Args:
        foreign: The scores.
        root: The run's folder, which has the copy of the corpus.
        num_shards: Number of its shards.
        tell: Is given a sentence on scores that are of no row.

    Raises:
        UsageError: If none of them is of a row of the corpus.
    """
    paths = [_path(root, foreign.name, foreign.digest, shard) for shard in range(num_shards)]
    if all(exists(path) for path in paths):
        return
    by_key: dict[Any, list[int]] = {}
    for number, found in enumerate(foreign.found):
        by_key.setdefault(found.key, []).append(number)
        if found.given.instance_id is not None:
            by_key.setdefault(("part", _PART.sub("", str(found.key[1]))), []).append(number)
    taken: set[int] = set()
    for shard, path in enumerate(paths):
        rows = read_parquet(join(root, corpus_path(shard))).to_pylist()
        lines = [line for row in rows for line in _lines(row, by_key, foreign, taken)]
        write_parquet(path, pa.Table.from_pylist(lines, _SCHEMA))
    left = [found for number, found in enumerate(foreign.found) if number not in taken]
    if len(left) == len(foreign.found):
        discard_folder(join(root, given_path(foreign.name, foreign.digest, 0).rpartition("/")[0]))
        raise UsageError(
            f"--scores {foreign.name}: none of the {len(left)} sets of scores in {foreign.source} "
            f"is of a row of the corpus: the first is of {left[0].key[0]} {left[0].key[1]!r}"
        )
    if left:
        tell(
            f"scores {foreign.name}: {len(left)} of {len(foreign.found)} in {foreign.source} are "
            f"of no row of the corpus and left out, such as {left[0].key[0]} {left[0].key[1]!r}"
        )


def _lines(
    row: Mapping[str, Any], by_key: Mapping[Any, list[int]], foreign: Foreign, taken: set[int]
) -> Iterable[dict[str, Any]]:
    """The given scores of a row of the corpus, as they are written."""
    keys = [("id", row["instance_id"]), ("part", row["instance_id"])]
    keys += [("row", row.get("corpus_row"))]
    if row["text_pair"] is None:
        keys.append(("text", row["text"]))
    numbers = dict.fromkeys(number for key in keys for number in by_key.get(key, ()))
    taken.update(numbers)
    for number in numbers:
        given = foreign.found[number].given
        spans = None if given.spans is None else [list(span) for span in given.spans]
        yield {**vars(given), "row_id": row["instance_id"], "spans": spans}


def with_given(
    rows: Sequence[Row], root: str, methods: Mapping[str, Mapping[str, Any]], shard: int
) -> list[Row]:
    """The rows of a shard with the scores that were given for them.

    Args:
        rows: The rows.
        root: The run's folder.
        methods: Parameters by method, of those that are run.
        shard: Number of the shard.
    """
    given: dict[str, dict[str, list[Given]]] = {}
    for name, params in methods.items():
        if IMPORTED in params:
            table = read_parquet(_path(root, name, params[IMPORTED], shard))
            for line in table.to_pylist():
                own = given.setdefault(line.pop("row_id"), {}).setdefault(name, [])
                own.append(Given(**line))
    if not given:
        return list(rows)
    return [replace(row, given=given.get(row.instance_id, {})) for row in rows]


def _path(root: str, name: str, digest: str, shard: int) -> str:
    return join(root, given_path(name, digest, shard))
