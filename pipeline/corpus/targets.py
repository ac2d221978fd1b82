"""The classes that another run explains, which this one is to explain too (``--target-from``).

They are read of the other run once, and lie beside the copy of the corpus, a file a shard, so that
workers need nothing else and a run goes on as it was begun.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from attribeam.analysis import open_run
from attribeam.analysis.opening.database import dict_rows
from attribeam.analysis.opening.remote import is_remote
from attribeam.pipeline.store.files import exists, join, read_parquet, write_parquet
from attribeam.schemas import Failure, UsageError
from attribeam.schemas.layout import corpus_path, given_path
from attribeam.transforms import Instance, Model
from attribeam.transforms.inputs.targets import GIVEN_RULE, SEVERAL, runner_up_of

# What their folder is called.
_FOLDER = "target"
_LACKING = (
    "the run of --target-from explains no class of this instance: it failed there, its windows are "
    "others, or it has no label"
)
_SCHEMA = pa.schema([("instance_id", pa.string()), ("target", pa.int64())])

# The class of each instance, where scores or curves say it, of methods that explain the run's own.
_STORED = """
select instance_id, any_value(target)
from (
    select instance_id, method, target from attributions
    union all
    select instance_id, method, target from curves
)
semi join (
    select method from methods where coalesce(params ->> 'target', 'explained') = 'explained'
) using (method)
where target is not null
group by instance_id
"""
_ROWS = """
select row_id, instance_id from instances
union all
select coalesce(row_id, instance_id), null from failures where method is null
"""


@dataclass(frozen=True)
class GivenTargets:
    """The classes that another run explains.

    Attributes:
        source: Where it is, as it was given.
        by_row: Per row of its corpus the class by instance; of rows that it has failed on, none.
    """

    source: str
    by_row: Mapping[str, Mapping[str, int]]

    @property
    def digest(self) -> str:
        """Checksum of the classes: they are the same as long as this is."""
        every = sorted(pair for own in self.by_row.values() for pair in own.items())
        return sha256(json.dumps(every).encode()).hexdigest()


def read_targets(source: str, model: Model) -> GivenTargets:
    """Reads which class another run explains of each of its instances.

    Args:
        source: Its folder, or the address of a published one.
        model: The model whose outputs are to be explained.

    Raises:
        UsageError: If it can't be read, the two models have other classes, or there is nothing to
            be taken from it.
    """
    wish = f"--target-from {source}"
    if model.task in SEVERAL:
        raise UsageError(
            f"{wish}: each instance of a {model.task} model asks for one output already, which its "
            "id says: leave --target-from out, and name the same --target as there"
        )
    if not is_remote(source) and not Path(source).is_dir():
        raise UsageError(f"{wish}: there is no such folder: name that of a run")
    try:
        with open_run(source, commented=False) as connection:
            (run,) = dict_rows(connection, "from run")
            _check_alike(wish, run, model)
            targets = _targets(wish, connection, run.get("settings_target", "predicted"))
            by_row: dict[str, dict[str, int]] = {}
            for row, name in connection.execute(_ROWS).fetchall():
                own = by_row.setdefault(row, {})
                if name in targets:
                    own[name] = targets[name]
    except duckdb.Error as error:
        raise UsageError(f"{wish} can't be read: {str(error).splitlines()[0]}") from error
    if not targets:
        raise UsageError(f"{wish}: that run explains nothing yet: run it to its end first")
    return GivenTargets(source, by_row)


def _check_alike(wish: str, run: Mapping[str, Any], model: Model) -> None:
    """Checks that a class has the same number and name in both models."""
    if run["model_task"] != model.task:
        raise UsageError(
            f"{wish}: that run is of a {run['model_task']} model, and this is a {model.task} "
            "model, whose classes are others: name a run of the same task"
        )
    theirs, ours = run.get("model_labels"), model.labels
    if (theirs or None) != (list(ours) if ours else None):
        raise UsageError(
            f"{wish}: the classes there are {', '.join(theirs or ['unknown'])}, and those of this "
            f"model {', '.join(ours or ['unknown'])}: they must be the same, in the same order "
            "(id2label in the model's config.json)"
        )


def _targets(wish: str, connection: duckdb.DuckDBPyConnection, rule: str | int) -> dict[str, int]:
    """The class by instance, as the run's own rule has it."""
    if rule == "objects":
        raise UsageError(
            f"{wish}: it explains the things that masks are of, which --target objects does here "
            "too: use that"
        )
    if rule == "runner_up":
        pairs = connection.execute("select instance_id, logits, prediction from instances")
        return {
            name: runner_up_of(np.array(logits, np.float64), prediction)
            for name, logits, prediction in pairs.fetchall()
        }
    if rule == GIVEN_RULE:
        found = dict(connection.execute(_STORED).fetchall())
        if not found:
            raise UsageError(
                f"{wish}: it took its classes from another run itself, and has neither curves nor "
                "a method that stores them: name the run that it took them from"
            )
        return found
    column = {"predicted": "prediction", "gold": "label"}.get(str(rule), f"{rule}::int")
    rows = connection.execute(f"select instance_id, {column} from instances").fetchall()
    return {name: target for name, target in rows if target is not None}


def stage_targets(given: GivenTargets, root: str, num_shards: int) -> None:
    """Writes the classes by shard, next to the rows that they are of.

    Args:
        given: The classes.
        root: The run's folder, which has the copy of the corpus.
        num_shards: Number of its shards.

    Raises:
        UsageError: If the other run has nothing of some of the rows.
    """
    paths = [_path(root, given.digest, shard) for shard in range(num_shards)]
    if all(exists(path) for path in paths):
        return
    lines: list[list[dict[str, Any]]] = []
    missing: list[str] = []
    count = 0
    for shard in range(num_shards):
        ids = read_parquet(join(root, corpus_path(shard)))["instance_id"].to_pylist()
        count += len(ids)
        missing += [row for row in ids if row not in given.by_row]
        pairs = (pair for row in ids for pair in given.by_row.get(row, {}).items())
        lines.append([{"instance_id": name, "target": target} for name, target in pairs])
    if missing:
        raise UsageError(
            f"--target-from {given.source}: it has none of {len(missing)} of the {count} rows of "
            f"the corpus, such as {missing[0]}: run it to its end on the same corpus (--limit, "
            "--split), or give this run the rows that are there; ids are the corpus's own, or come "
            "of what is in a row and where it stands"
        )
    for path, own in zip(paths, lines, strict=True):
        write_parquet(path, pa.Table.from_pylist(own, _SCHEMA))


def with_targets(
    instances: Sequence[Instance], root: str, digest: str, shard: int
) -> tuple[list[Instance], list[Failure]]:
    """The instances of a shard with the classes that are given for them.

    Args:
        instances: The instances.
        root: The run's folder.
        digest: Checksum of the classes.
        shard: Number of the shard.

    Returns:
        Those that have one, and a failure for each of the others.
    """
    lines = read_parquet(_path(root, digest, shard)).to_pylist()
    targets = {line["instance_id"]: line["target"] for line in lines}
    found, failures = [], []
    for one in instances:
        name = one.instance_id
        if name in targets:
            found.append(replace(one, own_target=targets[name]))
        else:
            failures.append(
                Failure(name, "encode", None, "RowError", _LACKING, one.row_id, one.corpus_row)
            )
    return found, failures


def _path(root: str, digest: str, shard: int) -> str:
    return join(root, given_path(_FOLDER, digest, shard))
