"""Runs in which everything that can go wrong with a comparison has: for the views to be asked of.

Instances fail under some methods and not under others, in any stage; curves have nothing to remove
or a probability that is no number; scores tie, are all equal, or aren't finite; instances are of
one token, windows, or cut; labels are missing; one method failed everywhere, one has no curve that
can be used, and two have no scores. All numbers are such as the files hold.
"""

import math
from typing import Any

import numpy as np

from tests.support.synthetic_run import NUM_LAYERS, Row, SyntheticRun, synthetic_run

NOT_FINITE = (math.nan, math.inf, -math.inf)
HEADED = ("heads_a", "heads_b")  # Methods without scores.


def adversarial_run(seed: int, rows: int = 24, **options: Any) -> SyntheticRun:
    """Makes a run; the options are those of ``synthetic_run``."""
    rng = np.random.default_rng([5, seed])
    run = synthetic_run(seed, rows, failing=False, operations=("mask", "delete"), **options)
    for method in ("gradient", "void"):
        _add_method(run, "gradient", "grad_x_input" if method == "gradient" else method)
    run.manifest["methods"].pop("gradient")
    for table in (run.attributions, run.curves):
        table[:] = [row for row in table if row["method"] != "gradient"]
    for row in run.curves:
        if row["method"] == "void":
            row["units"] = row["removed"] = 0
    _break_scores(run, rng)
    _fail(run, rng)
    _break_curves(run, rng)
    _break_details(run, rng)
    _add_heads(run, rng)
    _make_parts(run, rng)
    for row in run.instances:
        row["subset"] = str(rng.choice(["a", "b"])) if rng.random() < 0.8 else None
        if rng.random() < 0.2:
            row["label"] = row["correct"] = None
    run.manifest["methods"]["hopeless"] = run.manifest["methods"]["void"] | {}
    run.failures += [_failure(row["instance_id"], "hopeless") for row in run.instances]
    return run


def _add_method(run: SyntheticRun, like: str, name: str) -> None:
    run.manifest["methods"][name] = run.manifest["methods"][like] | {}
    for table in (run.attributions, run.curves):
        table += [row | {"method": name} for row in table if row["method"] == like]


def _failure(name: str, method: str, stage: str = "attribute") -> Row:
    return {
        "instance_id": name,
        "stage": stage,
        "method": method,
        "error": "OutOfMemoryError",
        "message": "",
        "row_id": name,
    }


def _break_scores(run: SyntheticRun, rng: np.random.Generator) -> None:
    for row in run.attributions:
        row["target"] = int(rng.integers(3))
        row["scores"] = [float(np.float32(score)) for score in row["scores"]]
        match int(rng.integers(12)):
            case 0:
                row["scores"] = [0.5 for _ in row["scores"]]
            case 1 | 2 | 3:
                row["scores"] = [float(round(score)) for score in row["scores"]]
            case 4:
                at = int(rng.integers(len(row["scores"])))
                row["scores"][at] = float(rng.choice(NOT_FINITE))
        if row["delta"] is not None:
            row["delta"] = math.nan if rng.random() < 0.1 else float(np.float32(row["delta"]))
        if row["bias"] is not None:
            row["bias"] = float(np.float32(row["bias"]))
        row["seconds"] = float(np.float32(row["seconds"])) if rng.random() < 0.95 else math.nan


def _fail(run: SyntheticRun, rng: np.random.Generator) -> None:
    """Takes away rows of some instances under some methods, and says so."""
    for row in list(run.attributions):
        key = row["instance_id"], row["method"]
        stage = str(rng.choice(["none", "attribute", "perturb"], p=[0.88, 0.06, 0.06]))
        if stage == "none":
            continue
        run.failures.append(_failure(*key, stage))
        tables = [run.curves]
        if stage == "attribute":
            tables += [run.attributions, run.layers, run.information]
        for table in tables:
            table[:] = [each for each in table if (each["instance_id"], each["method"]) != key]


def _break_curves(run: SyntheticRun, rng: np.random.Generator) -> None:
    for row in run.curves:
        # As a model's: with equally much removed it is the same.
        row["probability"] = float(np.float32(row["probability"]))
        if row["removed"] % 5 == 2:
            row["probability"] = 0.0
        chance = rng.random()
        if chance < 0.001:
            row["probability"] = float(rng.choice(NOT_FINITE))
        elif chance < 0.002:
            row["units"] = row["removed"] = 0


def _break_details(run: SyntheticRun, rng: np.random.Generator) -> None:
    for table, column in (("layers", "mixing"), ("information", "bits")):
        rows = [row for row in getattr(run, table) if row[column] is not None]
        _twin(run, table, rows, rng)
        for row in getattr(run, table):
            if row[column] is not None:
                row[column] = [float(np.float32(value)) for value in row[column]]
                if rng.random() < 0.03:
                    row[column][0] = math.nan


def _twin(run: SyntheticRun, table: str, rows: list[Row], rng: np.random.Generator) -> None:
    """Gives the method "paths" the same kind of rows for some of the instances."""
    own = [row for row in getattr(run, table) if row["method"] != "paths"]
    some = {row["instance_id"] for row in rows if rng.random() < 0.5}
    twins = [row | {"method": "paths"} for row in rows if row["instance_id"] in some]
    setattr(run, table, own + twins)
    tables = run.manifest["methods"]["paths"]["tables"]
    tables += [table] if table not in tables else []


def _add_heads(run: SyntheticRun, rng: np.random.Generator) -> None:
    for method in HEADED:
        run.manifest["methods"][method] = run.manifest["methods"]["void"] | {"tables": ["heads"]}
        for instance in run.instances:
            name = instance["instance_id"]
            if rng.random() < 0.15:
                run.failures.append(_failure(name, method))
                continue
            for layer, head in np.ndindex(NUM_LAYERS, 2):
                numbers = rng.normal(size=4).astype(np.float32).tolist()
                if rng.random() < 0.02:
                    numbers[int(rng.integers(4))] = float(rng.choice(NOT_FINITE))
                columns = ("attr_max", "attention_mean", "taylor_loss", "taylor_logits")
                run.heads.append(
                    {"instance_id": name, "method": method, "layer": layer, "head": head}
                    | dict(zip(columns, numbers, strict=True))
                    | {"top1": numbers[0]}
                )


def _make_parts(run: SyntheticRun, rng: np.random.Generator) -> None:
    """Makes windows of pairs of instances, the second one a word into the first, and cuts some."""
    for number in range(0, len(run.instances) - 1, 2):
        one, other = run.instances[number : number + 2]
        chance = rng.random()
        if chance < 0.3 and (one["rationale"] is None) == (other["rationale"] is None):
            words = max(_first_words(one))
            _move(other, [len(one["text"]) + 1, len(one["text_pair"] or "")])
            one |= {"row_id": f"row {number}", "window": 0}
            one |= {"text": one["text"] + " " + "ü" * 200 + " ü" * 20}
            one |= {"text_pair": (one["text_pair"] or "") + "ü" * 200}
            other |= {"row_id": f"row {number}", "window": 1, "text": None, "text_pair": None}
            other["word_ids"] = [
                word + words if word is not None and segment == 0 else word
                for word, segment in zip(other["word_ids"], other["segment"], strict=True)
            ]
        elif chance < 0.6:
            one |= {"truncated": True, "text": f"{one['text']}\u2003and\u00a0more"}


def _move(instance: Row, by: list[int]) -> None:
    """Moves an instance's characters further on in either text."""
    for name in ("char_start", "char_end"):
        pairs = zip(instance[name], instance["segment"], strict=True)
        instance[name] = [at if at is None else at + by[segment] for at, segment in pairs]


def _first_words(instance: Row) -> list[int]:
    pairs = zip(instance["word_ids"], instance["segment"], strict=True)
    return [word for word, segment in pairs if word is not None and segment == 0]
