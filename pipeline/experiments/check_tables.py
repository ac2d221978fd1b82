"""Rows of the tables of ``attribeam check``, and the files that they are committed in.

A file is a part of a check: a stage, a draw or a seed, of some methods. That it is there says that
the part is done, so that a check goes on where it stopped, and more methods, draws or seeds are
added to what is there.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from attribeam.pipeline.running.loadable import describe_again
from attribeam.pipeline.store.files import is_whole, join, list_files, open_read, write_parquet
from attribeam.schemas import Failure, table_schema
from attribeam.schemas.layout import evaluation_path
from attribeam.transforms import Attributions, Instance
from attribeam.transforms.subsets import SubsetPoint

_METHODS = b"attribeam.methods"


@dataclass(frozen=True)
class Portion:
    """A part of a check.

    Attributes:
        table: Its table.
        evaluation: Key of the check.
        name: Which part it is: ``cascading-init-0-3``, ``draw-00004``.
    """

    table: str
    evaluation: str
    name: str

    @property
    def prefix(self) -> str:
        """What its files' names begin with."""
        return f"{self.evaluation}--{self.name}--"

    def done(self, root: str) -> set[str]:
        """The methods whose rows are committed; of a table without methods, an empty name."""
        found: set[str] = set()
        for path in list_files(join(root, self.table)):
            whole = join(root, f"{self.table}/{path}")
            if path.startswith(self.prefix) and path.endswith(".parquet") and is_whole(whole):
                with open_read(whole) as handle:
                    metadata = pq.read_schema(handle).metadata or {}
                found.update(json.loads(metadata.get(_METHODS, b"[]")))
        return found

    def commit(
        self, root: str, rows: Sequence[Mapping[str, Any]], methods: Iterable[str], *, double: bool
    ) -> None:
        """Writes the rows of some methods."""
        names = json.dumps(sorted(methods))
        digest = blake2b(names.encode(), digest_size=4).hexdigest()
        schema = table_schema(self.table, double=double)
        content = [{"evaluation": self.evaluation, **row} for row in rows]
        table = pa.Table.from_pylist(content, schema).replace_schema_metadata({_METHODS: names})
        write_parquet(join(root, evaluation_path(self.table, f"{self.prefix}{digest}")), table)
        describe_again(root)


def score_rows(
    instances: Sequence[Instance],
    found: Attributions,
    methods: Iterable[str],
    **more: Any,
) -> list[dict[str, Any]]:
    """A row for each instance under each method: its scores, or why there are none.

    Args:
        instances: The instances.
        found: What was attributed to them.
        methods: Names of the methods.
        more: Columns that all rows have, or lists of them, an entry per instance.
    """
    why = {(f.instance_id, f.method): _said(f) for f in found.failures}
    rows = []
    for method in methods:
        for number, instance in enumerate(instances):
            row, prediction = found.rows[method][number], found.predictions[number]
            values: dict[str, Any] = {"instance_id": instance.instance_id, "method": method}
            values |= {k: v[number] if isinstance(v, list) else v for k, v in more.items()}
            if prediction is not None:
                target = prediction.target if row is None or row.target is None else row.target
                values |= {
                    "target": target,
                    "logit": float(prediction.logits[target]),
                    "probability": float(prediction.probabilities[target]),
                    "prediction": prediction.predicted,
                }
            name = instance.instance_id
            values["scores"] = None if row is None else row.scores
            values["failure"] = None
            if row is None:
                values["failure"] = why.get((name, method)) or why[name, None]
            rows.append(values)
    return rows


def add_smoothed(
    rows: Sequence[dict[str, Any]], several: Sequence[Sequence[dict[str, Any]]]
) -> None:
    """Adds the mean of the scores of rows and of the same of noised inputs.

    Null where one of them failed.
    """
    for number, row in enumerate(rows):
        scores = [row["scores"], *(others[number]["scores"] for others in several)]
        if all(own is not None for own in scores):
            row["smoothed"] = np.mean(scores, axis=0)


def subset_rows(
    instances: Sequence[Instance],
    points: Sequence[Sequence[SubsetPoint] | None],
    failures: Sequence[Failure],
    operation: str,
    protocol: str,
) -> list[dict[str, Any]]:
    """A row for each subset, and for each instance that has none."""
    why = {failure.instance_id: _said(failure) for failure in failures}
    rows: list[dict[str, Any]] = []
    for instance, own in zip(instances, points, strict=True):
        same = {
            "instance_id": instance.instance_id,
            "protocol": protocol,
            "operation": operation,
        }
        if own is None:
            rows.append({**same, "kind": "whole", "failure": why[instance.instance_id]})
        else:
            rows += [{**same, **point._asdict()} for point in own]
    return rows


def _said(failure: Failure) -> str:
    return f"{failure.error}: {failure.message}"
