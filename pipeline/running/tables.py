"""From results to Arrow tables of the contract's schemas."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from attribeam.schemas import Failure, table_schema
from attribeam.schemas.errors import one_line
from attribeam.schemas.tables import IMAGE_METADATA
from attribeam.transforms import Attribution, Instance, Prediction
from attribeam.transforms.evaluate import CurvePoint, Evaluation, Ranking
from attribeam.transforms.inputs.images.picture import Picture
from attribeam.transforms.localise import Localisation, localise

Columns = dict[str, Sequence[Any] | pa.Array]


def instances_table(pairs: Sequence[tuple[Instance, Prediction]], *, double: bool) -> pa.Table:
    """The ``instances`` table of instances and what the model says of them."""
    instances = [instance for instance, _ in pairs]
    predictions = [prediction for _, prediction in pairs]
    columns: Columns = {
        name: [getattr(instance, name) for instance in instances]
        for name in ("instance_id", "window", "split", "tokens", "input_ids", "special")
    }
    columns |= {
        name: [getattr(instance, name) for instance in instances]
        for name in ("segment", "truncated", "readout", "label", "rationale", "roles", "subset")
    }
    columns["corpus_row"] = [instance.corpus_row for instance in instances]
    for name in ("word_ids", "char_start", "char_end"):
        columns[name] = _with_nulls([getattr(instance, name) for instance in instances])
    first = _firsts(instances)
    columns |= {
        "row_id": [instance.row_id or instance.instance_id for instance in instances],
        "text": [i.text if own else None for i, own in zip(instances, first, strict=True)],
        "text_pair": [
            i.text_pair if own else None for i, own in zip(instances, first, strict=True)
        ],
        "rationale_segments": [instance.rationale_segments for instance in instances],
        "contrast": [instance.contrast_words for instance in instances],
        "prediction": [prediction.predicted for prediction in predictions],
        "probabilities": [prediction.probabilities for prediction in predictions],
        "logits": [prediction.logits for prediction in predictions],
        "correct": [
            None if instance.label is None else prediction.predicted == instance.label
            for instance, prediction in pairs
        ],
        "question": [instance.question for instance in instances],
        "question_kind": [instance.question_kind for instance in instances],
        "outputs": [instance.asked_names for instance in instances],
        "modality": [instance.side for instance in instances],
    }
    part = [i.truncated or i.window is not None for i in instances]
    columns |= {
        name: [
            getattr(i, name) if own and cut else None
            for i, own, cut in zip(instances, first, part, strict=True)
        ]
        for name in ("text_rationale", "text_pair_rationale")
    }
    own = [instance.own_columns for instance in instances]
    names = [name for name in table_schema("instances").names if name not in columns]
    columns |= {name: [of.get(name) for of in own] for name in names}
    table = _table("instances", columns, double=double)
    return with_metadata(table, IMAGE_METADATA) if any("image" in of for of in own) else table


def _firsts(instances: Sequence[Instance]) -> list[bool]:
    """Which instances the text of their row is stored with: the first of its windows there is.

    With each of them, the size of the table would be quadratic in that of a text. Of pairs it is
    that of the text.
    """
    seen: set[tuple[str, str | None]] = set()
    first = []
    for instance in instances:
        key = instance.row_id, instance.side
        first.append(key not in seen)
        if instance.row_id is not None:
            seen.add((instance.row_id, instance.side))
    return first


def attributions_table(
    rows: Sequence[tuple[Instance, Attribution]], method: str, *, double: bool
) -> pa.Table:
    """The ``attributions`` table of one method."""
    columns: Columns = {
        "instance_id": [instance.instance_id for instance, _ in rows],
        "method": [method] * len(rows),
        "target": [row.target for _, row in rows],
        "layer": [None] * len(rows),
        "scores": [row.scores for _, row in rows],
        "delta": [row.delta for _, row in rows],
        "scale": [row.scale for _, row in rows],
        "bias": [row.bias for _, row in rows],
        "seconds": [row.seconds for _, row in rows],
        "pixels": [row.pixels for _, row in rows],
        "unattributed": [row.unattributed for _, row in rows],
        "steps": [row.steps for _, row in rows],
        "error": [row.error for _, row in rows],
    }
    return _table("attributions", columns, double=double)


def details_table(
    name: str, rows: Sequence[tuple[Instance, Attribution]], method: str, *, double: bool
) -> pa.Table:
    """A table that one method fills beside its scores (``attribeam.transforms.details``)."""
    flat = [
        (instance.instance_id, method, *detail)
        for instance, row in rows
        for detail in row.details[name]
    ]
    names = table_schema(name).names
    columns = dict(zip(names, zip(*flat, strict=True), strict=True)) if flat else {}
    return _table(name, {column: columns.get(column, ()) for column in names}, double=double)


def localisation_table(rankings: Iterable[Ranking], method: str, *, double: bool) -> pa.Table:
    """The ``localisation`` table of one method: a row for each picture that has a mask."""
    found = [
        (r.instance.instance_id, localise(r.instance, r.scores, r.target, r.pixels))
        for r in rankings
        if isinstance(r.instance, Picture)
    ]
    rows = [(name, row) for name, row in found if row is not None]
    columns: Columns = {
        "instance_id": [name for name, _ in rows],
        "method": [method] * len(rows),
    }
    for name in Localisation._fields:
        columns[name] = [getattr(row, name) for _, row in rows]
    return _table("localisation", columns, double=double)


def curves_table(
    curves: Iterable[tuple[Ranking, Sequence[CurvePoint]]], evaluation: Evaluation, *, double: bool
) -> pa.Table:
    """The ``curves`` table of one method: a row per point."""
    rows = [(ranking, point) for ranking, points in curves for point in points]
    columns: Columns = {
        "instance_id": [ranking.instance.instance_id for ranking, _ in rows],
        "method": [ranking.method for ranking, _ in rows],
        "protocol": [evaluation.of(ranking.instance).protocol for ranking, _ in rows],
    }
    for name in CurvePoint._fields:
        columns[name] = [getattr(point, name) for _, point in rows]
    return _table("curves", columns, double=double)


def failures_table(failures: Sequence[Failure]) -> pa.Table:
    """The ``failures`` table."""
    columns = {name: [getattr(f, name) for f in failures] for name in Failure._fields}
    columns["message"] = [one_line(failure.message) for failure in failures]
    columns["row_id"] = [failure.row_id or failure.instance_id for failure in failures]
    return _table("failures", columns, double=False)


def with_metadata(table: pa.Table, metadata: Mapping[str, str]) -> pa.Table:
    """The table with entries added to its schema's metadata, which Parquet keeps."""
    return table.replace_schema_metadata({**(table.schema.metadata or {}), **metadata})


def _table(name: str, columns: Mapping[str, Sequence[Any] | pa.Array], *, double: bool) -> pa.Table:
    schema = table_schema(name, double=double)
    arrays = [_array(columns[field.name], field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _array(values: Sequence[Any] | pa.Array, kind: pa.DataType) -> pa.Array:
    if isinstance(values, pa.Array):
        return values.cast(kind)
    if pa.types.is_dictionary(kind):
        return pa.array(values, kind.value_type).cast(kind)
    if pa.types.is_list(kind) and values and isinstance(values[0], np.ndarray):
        return _list_array(values, kind)
    return pa.array(values, kind)


def _list_array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """A list array of numpy arrays, without a Python object per number."""
    if any(value is None for value in values):
        return pa.array([None if v is None else v.tolist() for v in values], kind)
    flat = pa.array(np.concatenate(values), from_pandas=False).cast(kind.value_type, safe=False)
    return pa.ListArray.from_arrays(_offsets(values), flat, type=kind)


def _with_nulls(values: Sequence[np.ndarray]) -> pa.Array:
    """A list array of numpy arrays. -1 marks "none" in arrays; tables have nulls."""
    flat = np.concatenate([np.empty(0, np.int32), *values])
    return pa.ListArray.from_arrays(_offsets(values), pa.array(flat, mask=flat < 0))


def _offsets(values: Sequence[Any]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum([len(value) for value in values])]).astype(np.int32)
