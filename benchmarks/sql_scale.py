"""The documented views on run-like folders of 0.2 and 2 million (instance, method) rows.

The folder is what a run of ten methods leaves: attributions of 32 tokens on average for every
instance, human rationales for a tenth of the instances (20,000 of 200,000, as many as HateXplain
has), and curves of 33 points for one in 40 (5,000 of 200,000: 1.65 million rows of curves), since
curves cost many times what attributions do. Scores are random, of which nothing can be compressed
but the bytes of the exponents; three methods of ten clamp negative ones to 0, which makes ties.

Run it by itself with ``python -m benchmarks.sql_scale [--rows 200000 2000000] [--views NAME ...]``.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from analysis import open_run
from pipeline.files import write_parquet
from schemas import Unit, table_schema, unit_path
from schemas.layout import FORMAT, MANIFEST

ROWS = (200_000, 2_000_000)
SHARD = 20_000
METHODS = 10
WIDTH = 20  # Methods of the folder whose size is measured.
CURVES_EVERY = 40
RATIONALE_EVERY = 10
SHORTEST, LONGEST = 12, 52
PIECE = 4  # Characters of a token.
FRACTIONS = tuple(k / 10 for k in range(11))
ORDERS = ("morf", "lerf", "random")

THREADS, MEMORY = 2, "3GiB"
BYTES_LIMIT, GROWTH_LIMIT, LOOKUP_LIMIT = 4.0, 11.0, 0.2
# Seconds that a view may take over 2 million rows on two free cores.
SECONDS_LIMITS = {"faithfulness": 2.0, "cost": 2.0, "agreement": 60.0}

SUMMARIES = (
    "cost",
    "completeness",
    "failure_summary",
    "faithfulness",
    "degradation",
    "degradation_curves",
    "perturbation_auc",
    "cost_faithfulness",
    "degradation_intervals",
    "faithfulness_intervals",
    "agreement",
    "grad_x_input_correlation",
    "plausibility",
    "plausibility_intervals",
)
# Views with a row per instance or finer, read whole by an aggregate.
SCANS = {
    "tokens": "select count(*), avg(score) from tokens where not special",
    "words": "select count(*), avg(score_max) from words",
    "documents": "select count(*), avg(agreeing) from documents",
    "document_tokens": "select count(*), avg(score) from document_tokens",
    "faithfulness_by_instance": "select count(*), avg(auc_difference) from {view}",
    "plausibility_by_instance": "select count(*), avg(auprc) from {view}",
}
LOOKUPS = (
    "instances",
    "attributions",
    "tokens",
    "words",
    "faithfulness_by_instance",
    "agreement_by_instance",
    "plausibility_by_instance",
    "documents",
    "document_tokens",
)

Ints = NDArray[np.int64]
Columns = dict[str, Any]


def main(rows: Sequence[int] = ROWS, views: Sequence[str] = ()) -> bool:
    """Prints seconds per view at each size; returns whether all that has a limit keeps it."""
    good = _size()
    found: list[dict[str, float]] = []
    for number in rows:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            start = time.perf_counter()
            write_run(folder, number // METHODS)
            size = sum(path.stat().st_size for path in folder.rglob("*.parquet"))
            print(
                f"{number:,} rows of attributions: {size / 1e6:,.0f} MB, written in "
                f"{time.perf_counter() - start:.0f} s",
                flush=True,
            )
            found.append(_times(folder, number // METHODS, views))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of the process {peak:,.0f} MiB (DuckDB's limit {MEMORY})")
    for name, seconds in found[-1].items():
        if rows[-1] >= ROWS[-1] and seconds > SECONDS_LIMITS.get(name, np.inf):
            print(f"{name}: {seconds:.2f} s, over its limit of {SECONDS_LIMITS[name]:.0f} s")
            good = False
        if name.startswith("lookup ") and seconds > LOOKUP_LIMIT:
            print(f"{name}: {seconds:.2f} s, over the limit of {LOOKUP_LIMIT} s")
            good = False
        # What takes no time can't grow in proportion to anything.
        ratio = seconds / max(found[0][name], 0.05) * (10 * rows[0] / rows[-1])
        if len(rows) > 1:
            print(f"{name:32} grows {ratio:5.1f}x")
            good &= ratio <= GROWTH_LIMIT
    return good


def write_run(folder: Path, instances: int, methods: int = METHODS) -> None:
    """Writes the folder, a shard at a time, the same whenever it is called."""
    names = _method_names(methods)
    shards = -(-instances // SHARD)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).write_text(json.dumps(_manifest(names, instances, shards)), "utf-8")
    for shard in range(shards):
        rng = np.random.default_rng([7, shard])
        first = shard * SHARD
        count = min(SHARD, instances - first)
        lengths = rng.integers(SHORTEST, LONGEST + 1, size=count)
        ids = pa.array([f"row-{number:08d}" for number in range(first, first + count)])
        columns = _instances(rng, ids, first, lengths)
        _write(folder, Unit("instances"), shard, shards, columns)
        for number, method in enumerate(names):
            scores = rng.standard_normal(int(lengths.sum()), np.float32)
            # The first method decides the prediction, as it were: others agree with it more or
            # less, so that no metric is that of noise alone.
            columns = _attributions(rng, ids, number, method, lengths, scores)
            _write(folder, Unit("attributions", method), shard, shards, columns)
            chosen = np.flatnonzero((np.arange(first, first + count)) % CURVES_EVERY == 0)
            columns = _curves(rng, ids.take(pa.array(chosen)), method, lengths[chosen] - 2)
            _write(folder, Unit("curves", method), shard, shards, columns)


def _method_names(methods: int) -> list[str]:
    return ["grad_x_input", *(f"method_{number}" for number in range(1, methods))]


def _write(folder: Path, unit: Unit, shard: int, shards: int, columns: Columns) -> None:
    schema = table_schema(unit.table)
    rows = len(columns["instance_id"])
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
    path = str(folder / unit_path(unit, shard, shards))
    write_parquet(path, pa.Table.from_arrays(arrays, schema=schema))


def _lists(lengths: Ints, values: Any) -> pa.ListArray:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array(values))


def _instances(rng: np.random.Generator, ids: pa.Array, first: int, lengths: Ints) -> Columns:
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
    rationale = _lists(lengths, (marked[starting] & ~special).astype(np.int8))
    annotated = np.arange(first, first + len(ids)) % RATIONALE_EVERY == 0
    probabilities = rng.dirichlet([1.0, 1.0], size=len(ids)).astype(np.float32)
    prediction = probabilities.argmax(axis=1)
    label = np.where(rng.random(len(ids)) < 0.9, prediction, 1 - prediction)
    twos = np.full(len(ids), 2)
    return {
        "instance_id": ids,
        "row_id": ids,
        "split": "test",
        "text": texts,
        "tokens": _lists(lengths, tokens),
        "input_ids": _lists(lengths, np.where(special, 0, chosen + 1000)),
        "word_ids": _lists(lengths, pa.array(words, mask=special)),
        "char_start": _lists(lengths, pa.array(starts, mask=special)),
        "char_end": _lists(lengths, pa.array(starts + PIECE, mask=special)),
        "special": _lists(lengths, special),
        "segment": _lists(lengths, np.zeros(total, np.int8)),
        "truncated": np.zeros(len(ids), bool),
        "readout": np.zeros(len(ids), np.int32),
        "label": label,
        "prediction": prediction,
        "probabilities": _lists(twos, probabilities.ravel()),
        "logits": _lists(twos, np.log(probabilities).ravel()),
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
        "scores": _lists(lengths, np.maximum(scores, 0) if number % 3 == 1 else scores),
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
    }


def _manifest(methods: list[str], instances: int, shards: int) -> dict[str, Any]:
    record = {
        "params": {},
        "signed": True,
        "class_dependent": True,
        "additive": False,
        "stochastic": False,
        "tables": ["attributions", "curves"],
        "paper": "",
        "passes": ["forward"],
    }
    return {
        "format": FORMAT,
        "identity": {
            "model": {
                "source": "none",
                "architecture": "none",
                "weights_sha256": "0" * 64,
                "task": "classification",
                "labels": ["0", "1"],
                "num_layers": 12,
                "num_heads": 12,
            },
            "tokenizer": {"sha256": "0" * 64},
            "corpus": {"source": "none", "rows": instances, "limit": None, "split": None},
            "settings": {
                "dtype": "float32",
                "shard_size": SHARD,
                "num_shards": shards,
            },
        },
        "methods": dict.fromkeys(methods, record),
        "evaluation": {
            "protocol": "token",
            "fractions": FRACTIONS[1:-1],
            "orders": ORDERS,
            "operations": ["mask"],
        },
        "executions": [],
    }


def _size() -> bool:
    """Bytes per token score of the attributions of one shard and twenty methods."""
    with tempfile.TemporaryDirectory() as name:
        write_run(Path(name), SHARD, WIDTH)
        size = sum(path.stat().st_size for path in Path(name).glob("attributions/*/*"))
        with open_run(name) as connection:
            scores = _number(connection, "select sum(len(scores)) from attributions")
    each = size / scores
    print(
        f"attributions, {WIDTH} methods: {each:.2f} bytes a token score (limit {BYTES_LIMIT})",
        flush=True,
    )
    return each <= BYTES_LIMIT


def _number(connection: duckdb.DuckDBPyConnection, sql: str) -> float:
    row = connection.execute(sql).fetchone()
    assert row is not None
    return float(row[0])


def _queries(instances: int) -> Iterator[tuple[str, str]]:
    for view in SUMMARIES:
        yield view, f"from {view}"
    for view, sql in SCANS.items():
        yield f"scan {view}", sql.format(view=view)
    # One that has curves and a rationale.
    middle = instances // 2 // CURVES_EVERY * CURVES_EVERY
    for view in LOOKUPS:
        key = "row_id" if view.startswith("document") else "instance_id"
        yield f"lookup {view}", f"from {view} where {key} = 'row-{middle:08d}'"


def _times(folder: Path, instances: int, views: Sequence[str]) -> dict[str, float]:
    """Seconds of each query, the better of two; where one takes long, the first counts.

    They are those on the clock or, where other processes take the cores, CPU seconds: on free
    cores a query takes no more.
    """
    found = {}
    with (
        tempfile.TemporaryDirectory() as spill,
        open_run(folder, external_access=True) as connection,
    ):
        connection.execute(f"set threads = {THREADS}")
        connection.execute(f"set memory_limit = '{MEMORY}'")
        connection.execute(f"set temp_directory = '{spill}'")
        for name, sql in _queries(instances):
            if views and name not in views:
                continue
            best, cpu = np.inf, np.inf
            for _ in range(2):
                start, used = time.perf_counter(), time.process_time()
                rows = len(connection.execute(sql).fetchall())
                best = min(best, time.perf_counter() - start)
                cpu = min(cpu, time.process_time() - used)
                if cpu > 20:
                    break
            print(f"  {name:32} {best:7.2f} s, {cpu:7.2f} CPU s, {rows:4} rows", flush=True)
            found[name] = min(best, cpu)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sql_scale", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--views", nargs="+", default=(), metavar="NAME")
    arguments = parser.parse_args()
    raise SystemExit(0 if main(arguments.rows, arguments.views) else 1)
