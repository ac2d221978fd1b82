"""The report's instances: texts, scores and trees, packed as the page's script reads them."""

import base64
from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from attribeam.analysis.instances.pieces import pieces
from attribeam.analysis.pictures.drawing import INK
from attribeam.analysis.plots.figures import Row
from attribeam.analysis.report.values import Array, finite, query_rows
from attribeam.analysis.report.verdict import ranked
from attribeam.schemas import UsageError
from attribeam.schemas.manifest import Manifest

NOT_A_NUMBER = -128
STEPS = 127


def pack_instances(
    connection: duckdb.DuckDBPyConnection, manifest: Manifest, limit: int
) -> dict[str, Any]:
    """Instances and their scores, as the page's script reads them.

    Tokens are numbers of a vocabulary, scores bytes (``quantise``); arrays of numbers are little
    endian, in base64.
    """
    connection.execute(
        "create or replace temp table shown as select instance_id, "
        "row_number() over (order by instance_id) - 1 as place from "
        "(select instance_id from instances order by md5(instance_id), instance_id limit ?)",
        [limit],
    )
    rows = query_rows(
        connection,
        "select i.instance_id, i.outputs, t.text, t.text_pair, tokens, word_ids, char_start,"
        " char_end, special, segment, truncated, contrast, label, prediction, rationale, subset,"
        " correct, probabilities[prediction + 1] as probability, image, mask,"
        ' "rows", "columns"'
        " from instances as i join shown as s using (instance_id)"
        # The text of several windows is stored once.
        " left join (select row_id, text, text_pair from instances where text is not null) as t"
        " using (row_id) order by s.place",
    )
    vocabulary: dict[tuple[str, int], int] = {}
    tokens = [
        vocabulary.setdefault(piece, len(vocabulary)) for row in rows for piece in pieces(row)
    ]
    wide = len(vocabulary) > np.iinfo(np.uint16).max
    lengths = np.array([len(row["tokens"]) for row in rows], np.uint32)
    special = np.array([mark for row in rows for mark in row["special"]], bool)
    subsets = sorted({row["subset"] for row in rows} - {None})
    return {
        "ids": [_named(row) for row in rows],
        "label": [row["label"] for row in rows],
        "prediction": [row["prediction"] for row in rows],
        "correct": [None if row["correct"] is None else int(row["correct"]) for row in rows],
        "probability": [_rounded(row["probability"]) for row in rows],
        "subsets": subsets,
        "subset": [None if row["subset"] is None else subsets.index(row["subset"]) for row in rows],
        "truncated": [at for at, row in enumerate(rows) if row["truncated"]],
        "contrast": _contrast(rows),
        "classes": [str(name) for name in manifest["identity"]["model"].get("labels") or []],
        "lengths": packed_numbers(lengths),
        "wide": wide,
        "tokens": packed_numbers(np.array(tokens, np.uint32 if wide else np.uint16)),
        "vocabulary": [text for text, _ in vocabulary],
        "marks": [marks for _, marks in vocabulary],
        "rationale": _rationales(rows),
        "pictures": _pictures(rows),
        "methods": list(_packed_methods(connection, manifest, lengths, special)),
        "trees": _trees(connection),
    }


def _named(row: Row) -> str:
    """An instance's id, with the label or the value that is asked for."""
    asked = f" ({', '.join(row['outputs'])})" if row["outputs"] else ""
    return f"{row['instance_id']}{asked}"


def _contrast(rows: Sequence[Row]) -> list[Any] | None:
    """The correct and the wrong word of each instance, of a masked LM."""
    words = [row["contrast"] for row in rows]
    return words if any(words) else None


def _rationales(rows: Sequence[Row]) -> str | None:
    if all(row["rationale"] is None for row in rows):
        return None
    marks = [mark == 1 for row in rows for mark in (row["rationale"] or [0] * len(row["tokens"]))]
    return packed_numbers(np.array(marks, np.uint8))


def _file(picture: Row | None) -> str | None:
    """A picture's file as text, if there is one."""
    return None if picture is None else base64.b64encode(picture["bytes"]).decode()


def _pictures(rows: Sequence[Row]) -> dict[str, Any] | None:
    """The instances' pictures and masks, how they are cut up, and the colours of maps over them."""
    if all(row["image"] is None for row in rows):
        return None
    # Their bytes are taken here: of files that lack the columns, DuckDB can't look into them.
    files = {name: [_file(row[name]) for row in rows] for name in ("image", "mask")}
    grids = [[row["rows"], row["columns"]] if row["image"] else None for row in rows]
    return {"files": files["image"], "masks": files["mask"], "grids": grids, "ink": INK._asdict()}


def _packed_methods(
    connection: duckdb.DuckDBPyConnection,
    manifest: Manifest,
    lengths: Array,
    special: Array,
) -> Iterator[dict[str, Any]]:
    """The scores of each method that has scores of tokens."""
    places = {row["method"]: place for place, row in enumerate(ranked(connection))}
    methods = manifest["methods"]
    # The most faithful first; those without curves after them.
    for name in sorted(methods, key=lambda name: (places.get(name, len(places)), name)):
        method = methods[name]
        if "attributions" not in method["tables"]:
            continue
        table = connection.sql(
            "select s.place, a.scores from attributions as a join shown as s using (instance_id)"
            " where a.method = ? and a.layer is null order by s.place",
            params=[name],
        ).to_arrow_table()
        scores, given = _aligned(table, lengths, name)
        values, scales = quantise(scores, lengths, special)
        yield {
            "name": name,
            "signed": bool(method.get("signed")),
            "scores": packed_numbers(values),
            "scales": packed_numbers(scales),
            "given": packed_numbers(given),
        }


def _aligned(table: pa.Table, lengths: Array, method: str) -> tuple[Array, Array]:
    """All instances' scores, one after the other, and which of them have any."""
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    places = table.column("place").to_numpy().astype(np.int64)
    lists = table.column("scores").combine_chunks()
    found = lists.value_lengths().to_numpy(zero_copy_only=False)
    if len(np.unique(places)) < len(places) or not np.array_equal(found, lengths[places]):
        raise UsageError(
            f"The scores of {method} do not fit the instances' tokens: "
            "`attribeam verify` says more."
        )
    scores = np.full(offsets[-1], np.nan)
    where = np.repeat(offsets[places], found)
    within = np.arange(found.sum()) - np.repeat(np.cumsum(found) - found, found)
    scores[where + within] = lists.flatten().to_numpy(zero_copy_only=False)
    given = np.zeros(len(lengths), np.uint8)
    given[places] = 1
    return scores, given


def quantise(scores: Array, lengths: Array, special: Array) -> tuple[Array, Array]:
    """Scores as bytes, and their scales.

    An instance has two scales, the largest magnitudes of its tokens and of its special tokens: the
    latter are often so large that the others would be lost. A score is ``byte / 127 * scale``, and
    at most half a step, ``scale / 254``, from what it was. What is not finite is -128.

    Args:
        scores: Those of all instances, one after the other.
        lengths: Number of tokens of each instance.
        special: Whether a token is special.

    Returns:
        The bytes, and the scales: of the tokens and of the special tokens of each instance in turn.
    """
    group = 2 * np.repeat(np.arange(len(lengths)), lengths) + special
    finite = np.isfinite(scores)
    scales = np.zeros(2 * len(lengths))
    np.maximum.at(scales, group[finite], np.abs(scores[finite]))
    steps = scales[group]
    shares = np.divide(scores, steps, out=np.zeros_like(steps), where=finite & (steps > 0))
    values = np.rint(shares * STEPS).astype(np.int8)
    values[~finite] = NOT_A_NUMBER
    return values, scales.astype(np.float32)


def _trees(connection: duckdb.DuckDBPyConnection) -> dict[str, list[Any]]:
    """The attribution trees by place of the instance; an edge names its parent by its row."""
    found = connection.execute(
        "select s.place, method, algorithm, token, path[1:-2], path, layer, attr"
        " from attribution_tree as t join shown as s using (instance_id)"
        " order by s.place, method, algorithm, path"
    ).fetchall()
    trees: dict[str, list[Any]] = {}
    rows_by_path: dict[tuple[int, ...], int] = {}
    for place, method, algorithm, token, above, path, layer, attribution in found:
        own = trees.setdefault(str(place), [])
        if not own or own[-1][:2] != [method, algorithm]:
            own.append([method, algorithm, []])
            rows_by_path = {}
        rows = own[-1][2]
        rows_by_path[tuple(path)] = len(rows)
        parent = rows_by_path[tuple(above)] if len(path) > 1 else None
        rows.append([token, parent, layer, _rounded(attribution)])
    return trees


def _rounded(value: float | None) -> float | None:
    """A number of four digits: more would not be seen."""
    return float(f"{value:.4g}") if finite(value) is not None else None


def packed_numbers(array: Array) -> str:
    """An array's bytes, little endian, in base64."""
    return base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode()
