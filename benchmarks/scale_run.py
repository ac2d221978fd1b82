"""Run-like folders with random contents, of as many instances and methods as are asked for.

A folder is what a run leaves: attributions of 32 tokens on average for every instance and method,
human rationales for a tenth of the instances (20,000 of 200,000, as many as HateXplain has), and
curves of 33 points for one in 40 (5,000 of 200,000: 1.65 million rows of curves), since curves cost
many times what attributions do, with a row of what was found of a mask. The same instances have
what ``benchmarks.scale_details`` makes, of methods that cost as much or more. Scores are random, of
which nothing can be compressed but the bytes of the exponents; three methods of ten clamp negative
ones to 0, which makes ties.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from attribeam.pipeline.store.files import write_parquet
from attribeam.schemas import Unit, table_schema, unit_path
from attribeam.schemas.layout import FORMAT, MANIFEST, evaluation_path
from attribeam.schemas.manifest import Manifest, MethodRecord, encode
from benchmarks.scale_details import (
    DETAILS,
    HEADS,
    LAYERS,
    Columns,
    Ints,
    annotations,
    attacks,
    details,
    lists,
    texts_of,
)

SHARD = 20_000
METHODS = 10
CURVES_EVERY = 40  # And the same instances have details.
RATIONALE_EVERY = 10
SHORTEST, LONGEST = 12, 52
PIECE = 4  # Characters of a token.
FRACTIONS = tuple(k / 10 for k in range(11))
ORDERS = ("morf", "lerf", "random")
# Methods with scores; any others have a number for their name.
NAMES = ("grad_x_input", "globenc", "influence", "iba", "attention_rollout")


def write_run(folder: Path, instances: int, methods: int = METHODS) -> None:
    """Writes the folder, a shard at a time, the same whenever it is called."""
    names = [*NAMES[:methods], *(f"method_{number}" for number in range(len(NAMES), methods))]
    shards = -(-instances // SHARD)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).write_bytes(encode(_manifest(names, instances, shards)))
    for shard in range(shards):
        numbers = np.arange(shard * SHARD, min((shard + 1) * SHARD, instances))
        for unit, columns in _units(shard, numbers, names):
            _write(folder / unit_path(unit, shard, shards), unit.table, columns)
    columns = attacks(np.random.default_rng(9))
    _write(folder / evaluation_path("attacks", "attattr"), "attacks", columns)


def _units(shard: int, numbers: Ints, names: list[str]) -> Iterator[tuple[Unit, Columns]]:
    """Yields the rows of each table and method of a shard, whose instances have those numbers."""
    rng = np.random.default_rng([7, shard])
    lengths = rng.integers(SHORTEST, LONGEST + 1, size=len(numbers))
    ids = pa.array([f"row-{number:08d}" for number in numbers])
    chosen = numbers % CURVES_EVERY == 0
    places = pa.array(np.flatnonzero(chosen))
    some = ids.take(places)
    columns = _instances(rng, ids, numbers, lengths)
    texts = texts_of(some, columns["word_ids"].take(places), numbers[chosen] // CURVES_EVERY)
    yield Unit("instances"), columns | annotations(texts, chosen)
    for number, method in enumerate(names):
        scores = rng.standard_normal(int(lengths.sum()), np.float32)
        # The first method decides the prediction, as it were: others agree with it more or
        # less, so that no metric is that of noise alone.
        columns = _attributions(rng, ids, number, method, lengths, scores)
        yield Unit("attributions", method), columns
        yield Unit("curves", method), _curves(rng, some, method, lengths[chosen] - 2)
        of_pictures = np.random.default_rng([9, shard, number])
        yield Unit("localisation", method), _localisation(of_pictures, some, method)
    yield from details(np.random.default_rng([8, shard]), texts)


def _write(path: Path, table: str, columns: Columns) -> None:
    schema = table_schema(table)
    rows = len(next(v for v in columns.values() if isinstance(v, pa.Array | np.ndarray)))
    arrays = []
    for field in schema:
        values = columns.get(field.name)
        if values is None:
            values = pa.nulls(rows, field.type)
        elif isinstance(values, str):
            values = pa.array([values] * rows)
        elif not isinstance(values, pa.Array):
            values = pa.array(values)
        arrays.append(values.cast(field.type))
    write_parquet(str(path), pa.Table.from_arrays(arrays, schema=schema))


def _instances(rng: np.random.Generator, ids: pa.Array, numbers: Ints, lengths: Ints) -> Columns:
    """Tokens of four characters, of which one or more make a word, between [CLS] and [SEP]."""
    total = int(lengths.sum())
    ends = np.cumsum(lengths)
    at = np.arange(total) - np.repeat(ends - lengths, lengths)
    special = (at == 0) | (at == np.repeat(lengths, lengths) - 1)
    begins = (at == 1) | (~special & (rng.random(total) < 0.8))
    words = np.cumsum(begins)
    words -= np.repeat(words[ends - lengths], lengths) + 1
    vocabulary = [f"{number:04d}" for number in range(5000)]
    chosen = rng.integers(len(vocabulary), size=total)
    tokens = pa.array(["[CLS]", "[SEP]", *vocabulary]).take(
        pa.array(np.where(special, (at > 0).astype(np.int64), chosen + 2))
    )
    starts = PIECE * (at - 1) + words
    texts = []
    for end, length in zip(ends, lengths, strict=True):
        inner = slice(end - length + 1, end - 1)
        texts.append(
            "".join(
                (" " if new else "") + vocabulary[token]
                for new, token in zip(begins[inner], chosen[inner], strict=True)
            )[1:]
        )
    marked = rng.random(total) < 0.2
    # A word is marked if its first token is.
    starting = np.maximum.accumulate(np.where(begins, np.arange(total), 0))
    rationale = lists(lengths, (marked[starting] & ~special).astype(np.int8))
    annotated = numbers % RATIONALE_EVERY == 0
    probabilities = rng.dirichlet([1.0, 1.0], size=len(ids)).astype(np.float32)
    prediction = probabilities.argmax(axis=1)
    label = np.where(rng.random(len(ids)) < 0.9, prediction, 1 - prediction)
    twos = np.full(len(ids), 2)
    return {
        "instance_id": ids,
        "row_id": ids,
        "split": "test",
        "text": texts,
        "tokens": lists(lengths, tokens),
        "input_ids": lists(lengths, np.where(special, 0, chosen + 1000)),
        "word_ids": lists(lengths, pa.array(words, mask=special)),
        "char_start": lists(lengths, pa.array(starts, mask=special)),
        "char_end": lists(lengths, pa.array(starts + PIECE, mask=special)),
        "special": lists(lengths, special),
        "segment": lists(lengths, np.zeros(total, np.int8)),
        "truncated": np.zeros(len(ids), bool),
        "readout": np.zeros(len(ids), np.int32),
        "label": label,
        "prediction": prediction,
        "probabilities": lists(twos, probabilities.ravel()),
        "logits": lists(twos, np.log(probabilities).ravel()),
        "rationale": pa.array(
            [
                row if has else None
                for row, has in zip(rationale.to_pylist(), annotated, strict=True)
            ],
            pa.list_(pa.int8()),
        ),
        "correct": label == prediction,
    }


def _attributions(
    rng: np.random.Generator,
    ids: pa.Array,
    number: int,
    method: str,
    lengths: Ints,
    scores: NDArray[np.float32],
) -> Columns:
    additive = number % 5 == 2
    return {
        "instance_id": ids,
        "method": method,
        "target": np.zeros(len(ids), np.int32),
        "scores": lists(lengths, np.maximum(scores, 0) if number % 3 == 1 else scores),
        "delta": rng.standard_normal(len(ids), np.float32) if additive else None,
        "seconds": np.float32(0.01 * (number + 1)) * rng.random(len(ids), np.float32),
    }


def _curves(rng: np.random.Generator, ids: pa.Array, method: str, units: Ints) -> Columns:
    """Per instance and order, points from 0 to 1; their number removed is that of the pipeline."""
    shape = (len(ids), len(ORDERS), len(FRACTIONS))
    fraction = np.broadcast_to(FRACTIONS, shape)
    n = np.broadcast_to(units[:, None, None], shape)
    removed = np.where(fraction > 0, np.maximum(1, np.floor(fraction * n + 0.5)), 0)
    removed = np.minimum(removed, n).astype(np.int32)
    order = np.broadcast_to(np.arange(len(ORDERS))[None, :, None], shape)
    rate = np.array([3.0, 0.5, 1.5])[order] * rng.uniform(0.5, 1.5, size=(len(ids), 1, 1))
    probability = (0.9 * np.exp(-rate * fraction) + 0.05).astype(np.float32)
    size = probability.size
    repeated = np.repeat(np.arange(len(ids)), len(ORDERS) * len(FRACTIONS))
    return {
        "instance_id": ids.take(pa.array(repeated)),
        "method": method,
        "protocol": "token",
        "order": pa.array(ORDERS).take(pa.array(order.ravel())),
        "operation": "mask",
        "fraction": fraction.ravel(),
        "removed": removed.ravel(),
        "units": n.ravel().astype(np.int32),
        "probability": probability.ravel(),
        "logit": np.log(probability).ravel(),
        "prediction": (probability < 0.5).ravel().astype(np.int32),
        "flipped": (probability < 0.5).ravel() & (np.arange(size) % len(FRACTIONS) > 0),
        "target": np.zeros(size, np.int32),
    }


def _localisation(rng: np.random.Generator, ids: pa.Array, method: str) -> Columns:
    """What maps of 224 x 224 pixels find of masks; every other picture has two things."""
    count, pixels = len(ids), 224 * 224
    inside = rng.integers(1, pixels, count)
    tp = (inside * rng.random(count)).astype(np.int64)
    fp = ((pixels - inside) * rng.random(count)).astype(np.int64)
    share, alone = rng.random((7, count)), np.arange(count) % 2 == 0
    names = ("average_precision", "f1", "f1_rows", "mass_inside", "rank_accuracy")
    return {
        "instance_id": ids,
        "method": method,
        "target": rng.integers(2, size=count),
        "region": "object",
        "threshold": "mean",
        "tp": tp,
        "fp": fp,
        "fn": inside - tp,
        "tn": pixels - inside - fp,
        **dict(zip(names, share, strict=False)),
        "hit": share[5] < 0.5,
        "hit_other": pa.array(share[5] > 0.8, mask=alone),
        "mass_other": pa.array(share[6] * (1 - share[3]), mask=alone),
        "empty_mask": np.zeros(count, bool),
    }


def _manifest(methods: list[str], instances: int, shards: int) -> Manifest:
    record: MethodRecord = {
        "params": {},
        "tables": [],
        "signed": True,
        "class_dependent": True,
        "additive": False,
        "stochastic": False,
        "paper": "",
        "passes": ["forward"],
    }
    tables: dict[str, list[str]] = {
        name: ["attributions", "localisation", "curves"] for name in methods
    }
    for method, filled in DETAILS.items():
        tables[method] = [*tables.get(method, ()), *filled]
    return {
        "format": FORMAT,
        "identity": {
            "model": {
                "source": "none",
                "architecture": "none",
                "weights_sha256": "0" * 64,
                "task": "classification",
                "labels": ["0", "1"],
                "num_layers": LAYERS,
                "num_heads": HEADS,
            },
            "tokenizer": {"sha256": "0" * 64},
            "corpus": {"source": "none", "rows": instances, "limit": None, "split": None},
            "settings": {
                "dtype": "float32",
                "shard_size": SHARD,
                "num_shards": shards,
            },
        },
        # Two of a family.
        "methods": {
            name: {**record, "family": f"family {number // 2}", "tables": filled}
            for number, (name, filled) in enumerate(tables.items())
        },
        "evaluation": {
            "protocol": "token",
            "fractions": list(FRACTIONS[1:-1]),
            "orders": list(ORDERS),
            "operations": ["mask"],
        },
        "executions": [],
    }
