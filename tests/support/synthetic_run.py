"""A small run folder with random contents that keep every rule of a real one.

``synthetic_run`` makes the rows, plain dictionaries that a test may change before ``write_run``
writes them as the pipeline would. Curves are functions of what is removed, as a model's are.
"""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from math import floor
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from attribeam.schemas import TABLES, Failure, Unit, failures_path, table_schema, unit_path
from attribeam.schemas.encoding import parquet_options
from attribeam.schemas.layout import FORMAT

Row = dict[str, Any]

METHODS = {
    "gradient": {"additive": False, "signed": False, "params": {"norm": "l2"}, "tables": []},
    "paths": {
        "additive": True,
        "signed": True,
        "word_score": "sum",
        "params": {"steps": 20},
        "tables": ["layers"],
    },
    "attention": {
        "additive": False,
        "signed": False,
        "params": {},
        "tables": ["layers", "information"],
    },
}
NUM_LAYERS = 3
# The methods by layer that have context-mixing ratios.
MIXING = ("attention",)
FRACTIONS = tuple(k / 10 for k in range(1, 10))
ORDERS = ("morf", "lerf", "random")


@dataclass
class SyntheticRun:
    """Rows per table, with the shard of each instance id, and the manifest."""

    manifest: dict[str, Any]
    instances: list[Row] = field(default_factory=list)
    attributions: list[Row] = field(default_factory=list)
    layers: list[Row] = field(default_factory=list)
    information: list[Row] = field(default_factory=list)
    heads: list[Row] = field(default_factory=list)
    curves: list[Row] = field(default_factory=list)
    failures: list[Row] = field(default_factory=list)
    shards: dict[str, int] = field(default_factory=dict)


def synthetic_run(
    seed: int = 0,
    rows: int = 9,
    *,
    shard_size: int = 5,
    classes: int = 3,
    fractions: tuple[float, ...] = FRACTIONS,
    orders: tuple[str, ...] = ORDERS,
    operations: tuple[str, ...] = ("mask",),
    evaluate: bool = True,
    failing: bool = True,
    dtype: str = "float32",
) -> SyntheticRun:
    """Makes a run; with ``failing``, one failure of each kind."""
    rng = np.random.default_rng(seed)
    num_shards = -(-rows // shard_size)
    settings = {
        "target": "predicted",
        "output": "logit",
        "dtype": dtype,
        "seed": seed,
        "max_length": 512,
        "overflow": "truncate",
        "stride": None,
        "words": "whitespace",
        "shard_size": shard_size,
        "num_shards": num_shards,
    }
    run = SyntheticRun(_manifest(settings, rows, fractions, orders, operations, evaluate))
    for number in range(rows):
        name = f"row-{number}"
        run.shards[name] = number // shard_size
        if failing and number == 1:
            failure = Failure(name, "encode", None, "ValueError", "no text", name)
            run.failures.append(failure._asdict())
            continue
        instance = _instance(rng, name, classes, with_rationale=number % 3 != 0)
        run.instances.append(instance)
        for method in METHODS:
            if failing and number == 2 and method == "paths":
                run.failures.append(
                    Failure(name, "attribute", method, "FloatingPointError", "NaN", name)._asdict()
                )
                continue
            run.attributions.append(_attribution(rng, instance, method))
            if failing and number == 5 and method == "attention":
                run.failures.append(
                    Failure(name, "attribute", method, "MemoryError", "too long", name)._asdict()
                )
            else:
                for table in METHODS[method]["tables"]:
                    make = {"layers": _layer, "information": _information}[table]
                    rows_of = getattr(run, table)
                    rows_of += [make(rng, instance, method, n) for n in range(NUM_LAYERS)]
            if evaluate and failing and number == 3 and method == "attention":
                failure = Failure(name, "perturb", method, "RuntimeError", "out of memory", name)
                run.failures.append(failure._asdict())
            elif evaluate:
                run.curves += _curves(rng, instance, method, fractions, orders, operations)
    return run


def write_run(run: SyntheticRun, folder: Path) -> Path:
    """Writes the run's files and returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(run.manifest), encoding="utf-8")
    num_shards = run.manifest["identity"]["settings"]["num_shards"]
    units = [Unit("instances")]
    for method, record in run.manifest["methods"].items():
        units += [Unit(table, method) for table in record["tables"]]
    attributed = {(row["instance_id"], row["method"]) for row in run.attributions}
    for shard in range(num_shards):
        for unit in units:
            rows = [
                row
                for row in getattr(run, unit.table)
                if run.shards[row["instance_id"]] == shard
                and (unit.method is None or row["method"] == unit.method)
            ]
            write_table(run, rows, unit.table, folder / unit_path(unit, shard, num_shards))
            failed = [
                row
                for row in run.failures
                if run.shards[row["instance_id"]] == shard
                and _unit_of(run, row, attributed) == unit
            ]
            if failed:
                path = failures_path(unit, shard, num_shards)
                write_table(run, failed, "failures", folder / path)
    return folder


def _unit_of(run: SyntheticRun, failure: Row, attributed: set[tuple[str, str]]) -> Unit:
    """The unit that met a failure: its files are beside the failure's."""
    name, stage, method = failure["instance_id"], failure["stage"], failure["method"]
    if stage == "perturb":
        return Unit("curves", method)
    if stage != "attribute":
        return Unit("instances", method)
    first, *others = run.manifest["methods"][method]["tables"]
    later = (name, method) in attributed and "layers" in others
    return Unit("layers" if later else first, method)


def write_table(run: SyntheticRun, rows: list[Row], table: str, path: Path) -> None:
    """Writes one file as the pipeline does."""
    assert table in TABLES
    double = run.manifest["identity"]["settings"]["dtype"] == "float64"
    schema = table_schema(table, double=double)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, **parquet_options(schema))


def compared(rows: list[Row]) -> list[Row]:
    """The rows of the instances that every method has rows of."""
    methods = {row["method"] for row in rows}
    held: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        held[row["instance_id"]].add(row["method"])
    return [row for row in rows if held[row["instance_id"]] == methods]


def create_tables(connection: duckdb.DuckDBPyConnection, *tables: str) -> None:
    """Creates empty tables of these names, which views are to be asked of."""
    for table in tables:
        connection.register("empty", table_schema(table).empty_table())
        connection.execute(f"create table {table} as from empty")
        connection.unregister("empty")


def removed_at(order: str, fraction: float, units: int) -> int:
    """The number of units removed at a nominal fraction."""
    if fraction in {0.0, 1.0}:
        return int(fraction) * units
    if order == "lerf":
        return units - max(1, floor((1 - fraction) * units + 0.5))
    return max(1, floor(fraction * units + 0.5))


def _manifest(
    settings: Row,
    rows: int,
    fractions: tuple[float, ...],
    orders: tuple[str, ...],
    operations: tuple[str, ...],
    evaluate: bool,
) -> dict[str, Any]:
    evaluation = {
        "fractions": list(fractions),
        "orders": list(orders),
        "operations": list(operations),
        "protocol": "token",
    }
    methods = {
        name: method
        | {"class_dependent": True, "stochastic": False, "paper": "", "passes": ["forward"]}
        | {"tables": ["attributions", *["curves"] * evaluate, *method["tables"]]}
        for name, method in METHODS.items()
    }
    return {
        "format": FORMAT,
        "identity": {
            "model": {
                "source": "some/model",
                "architecture": "BertForSequenceClassification",
                "task": "classification",
                "weights_sha256": "0" * 64,
                "labels": ["negative", "neutral", "positive"],
                "num_layers": NUM_LAYERS,
                "num_heads": 2,
            },
            "tokenizer": {"sha256": "1" * 64},
            "corpus": {
                "source": "corpus.jsonl",
                "fingerprint": "2" * 64,
                "split": None,
                "limit": None,
                "rows": rows,
                "columns": {"text": "text"},
            },
            "settings": settings,
        },
        "methods": methods,
        "evaluation": evaluation if evaluate else None,
        "executions": [{"command": "attribeam run"}],
    }


def _instance(rng: np.random.Generator, name: str, classes: int, *, with_rationale: bool) -> Row:
    texts: list[str] = []
    # Token, word, first and end character, segment, rationale.
    pieces: list[tuple[str, int | None, int | None, int | None, int, int]] = []
    pieces.append(("[CLS]", None, None, None, 0, 0))
    for segment in range(int(rng.integers(1, 3))):
        text = ""
        for word in range(int(rng.integers(1, 6))):
            text += " " if text else ""
            chosen = int(rng.integers(2))
            for piece in map(str, rng.choice(["ab", "ü", "xyz"], size=rng.integers(1, 4))):
                end = len(text) + len(piece)
                pieces.append((piece, word, len(text), end, segment, chosen))
                text += piece
        texts.append(text)
        pieces.append(("[SEP]", None, None, None, segment, 0))
    tokens, word_ids, starts, ends, segments, rationale = map(list, zip(*pieces, strict=True))
    logits = rng.normal(size=classes).astype(np.float32)
    probabilities = np.exp(logits) / np.exp(logits).sum()
    label = int(rng.integers(classes))
    prediction = int(logits.argmax())
    return {
        "instance_id": name,
        "row_id": name,
        "window": None,
        "split": "test",
        "text": texts[0],
        "text_pair": texts[1] if len(texts) > 1 else None,
        "tokens": tokens,
        "input_ids": rng.integers(1000, size=len(tokens)).tolist(),
        "word_ids": word_ids,
        "char_start": starts,
        "char_end": ends,
        "special": [word is None for word in word_ids],
        "segment": segments,
        "truncated": False,
        "readout": 0,
        "label": label,
        "prediction": prediction,
        "probabilities": probabilities.tolist(),
        "logits": logits.tolist(),
        "rationale": rationale if with_rationale else None,
        "roles": [None if word is None else "noun" for word in word_ids],
        "subset": None,
        "correct": prediction == label,
    }


def _attribution(rng: np.random.Generator, instance: Row, method: str) -> Row:
    scores = rng.normal(size=len(instance["tokens"])).astype(np.float32)
    return {
        "instance_id": instance["instance_id"],
        "method": method,
        "target": instance["prediction"],
        "layer": None,
        "scores": scores.tolist(),
        "delta": float(rng.normal() / 100) if METHODS[method]["additive"] else None,
        "scale": float(rng.normal()) if method in MIXING else None,
        # Not of every instance, as if two versions of a method had met.
        "bias": float(rng.normal()) if METHODS[method]["additive"] and rng.integers(2) else None,
        "seconds": float(rng.uniform(0.01, 0.02)) * (1 + list(METHODS).index(method)),
    }


def _layer(rng: np.random.Generator, instance: Row, method: str, number: int) -> Row:
    length = len(instance["tokens"])
    return {
        "instance_id": instance["instance_id"],
        "method": method,
        "layer": number,
        "local": rng.normal(size=length).astype(np.float32).tolist(),
        "rollout": rng.dirichlet(np.ones(length)).astype(np.float32).tolist(),
        "scale": float(rng.normal()),
        "mixing": rng.uniform(size=length).astype(np.float32).tolist()
        if method in MIXING
        else None,
    }


def _information(rng: np.random.Generator, instance: Row, method: str, number: int) -> Row:
    return {
        "instance_id": instance["instance_id"],
        "method": method,
        "layer": number,
        "target": instance["prediction"],
        "bits": rng.gamma(1, size=len(instance["tokens"])).astype(np.float32).tolist(),
    }


def _curves(
    rng: np.random.Generator,
    instance: Row,
    method: str,
    fractions: tuple[float, ...],
    orders: tuple[str, ...],
    operations: tuple[str, ...],
) -> list[Row]:
    units = len(instance["tokens"]) - sum(instance["special"])
    classes = len(instance["logits"])
    whole = instance["probabilities"][instance["prediction"]]
    empty = float(rng.uniform())
    rows = []
    for operation in operations:
        for order in orders:
            values = [whole, *rng.uniform(size=units - 1).tolist(), empty]
            # Half of the curves never leave the class that they start with.
            moving = rng.integers(2) * rng.integers(classes, size=units + 1)
            predictions = (instance["prediction"] + moving) % classes
            predictions[0] = instance["prediction"]
            inner = {round(1 - f, 9) for f in fractions} if order == "lerf" else fractions
            for fraction in sorted({0.0, *inner, 1.0}):
                removed = removed_at(order, fraction, units)
                p = values[removed]
                rows.append(
                    {
                        "instance_id": instance["instance_id"],
                        "method": method,
                        "protocol": "token",
                        "order": order,
                        "operation": operation,
                        "fraction": fraction,
                        "removed": removed,
                        "units": units,
                        "probability": p,
                        "logit": float(np.log(p)),
                        "prediction": int(predictions[removed]),
                        "flipped": bool(predictions[removed] != instance["prediction"]),
                        "target": instance["prediction"],
                        # Of the class and of all others together.
                        "entropy": -float(p * np.log(p) + (1 - p) * np.log1p(-p)),
                        "kl": float(
                            p * np.log(p / whole) + (1 - p) * np.log((1 - p) / (1 - whole))
                        ),
                    }
                )
    return rows
