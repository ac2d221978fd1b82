"""Pruning a model's attention heads, the least important first, and what it then gets right.

Importance is that of a run's heads (view ``head_importance``), so it comes from other texts than
those that are predicted. In the released scripts of Hao et al. 2021 it comes from the first 200
rows of the file that is evaluated on as a whole, these rows included.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import duckdb
import numpy as np
import torch
from numpy.typing import NDArray

from attribeam.analysis.opening.runs import reading
from attribeam.pipeline.configuration import exact, listed
from attribeam.pipeline.experiments.held_out import HeldOut, HeldOutOptions, hold_out
from attribeam.schemas import UsageError
from attribeam.transforms import Instance, Prediction
from attribeam.transforms.passes.attention_path import pruned

Reals = NDArray[np.float64]
RATES = "0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1"
_MOST_SEEDS = 10_000

# Of the heads of one method, in order.
_IMPORTANCE = """
select importance, taylor_loss, taylor_logits / nullif(taylor_logits_norm, 0), attention
from head_importance
where method = ?
order by layer, head
"""
_MEASURES = ("attattr", "taylor_loss", "taylor_logits", "attention")


class Order(NamedTuple):
    """Heads in the order in which they go.

    Attributes:
        importance: What they are ordered by.
        seed: Seed, where the order is random.
        heads: Numbers of the heads (layer * H + head), the first to go first, [L * H].
    """

    importance: str
    seed: int | None
    heads: NDArray[np.int64]


class Outcome(NamedTuple):
    """What a pruned model says of the evaluation corpus."""

    correct: int
    loss: float


@dataclass(frozen=True)
class Pruning:
    """The result of ``prune``: rows of the table ``pruning``, where they lie, and of what."""

    held_out: HeldOut
    ranked_on: int
    rows: list[dict[str, Any]]
    path: str


def parse_rates(text: str) -> list[Fraction]:
    """Reads ``--rates``, such as ``0,0.1,1/3``: exactly, so that 0.29 of 100 heads are 29.

    Raises:
        UsageError: If one of them is no share.
    """
    try:
        rates = {exact(item) for item in listed(text)}
    except ValueError:
        raise UsageError(f"--rates is a list of numbers such as 0.1 or 1/9, not {text}") from None
    if not rates or min(rates) < 0 or max(rates) > 1:
        raise UsageError(f"--rates are shares of the heads, from 0 to 1, not {text or 'none'}")
    return sorted(rates)


def least_first(importance: Reals) -> NDArray[np.int64]:
    """Numbers of the heads, the least important first; of equals, the one of the higher layer.

    Args:
        importance: Of each head, [L, H].
    """
    flat = importance.ravel()
    return np.lexsort((-np.arange(flat.size), flat))


def prune_mask(heads: NDArray[np.int64], rate: Fraction, shape: tuple[int, int]) -> torch.Tensor:
    """1 for heads that stay and 0 for the first int(rate * L * H) of an order, [L, H]."""
    mask = torch.ones(shape[0] * shape[1])
    mask[heads[: int(rate * len(heads))].copy()] = 0
    return mask.view(shape)


def orders(importance: Mapping[str, Reals], seeds: int) -> Iterator[Order]:
    """An order per measure of importance, [L, H] each, and some random ones."""
    for name, values in importance.items():
        yield Order(name, None, least_first(values))
    size = next(iter(importance.values())).size
    for seed in range(seeds):
        yield Order("random", seed, np.random.default_rng(seed).permutation(size))


def importances(
    connection: duckdb.DuckDBPyConnection, method: str, shape: tuple[int, int]
) -> dict[str, Reals]:
    """What a run says of each head's importance, by measure, [L, H]."""
    rows = connection.execute(_IMPORTANCE, [method]).fetchall()
    # A layer without any gradient has no norm to divide by, and no importance.
    columns = np.nan_to_num(np.array(rows, float).T)
    return {name: own.reshape(shape) for name, own in zip(_MEASURES, columns, strict=True)}


def outcome_of(instances: Sequence[Instance], predictions: Sequence[Prediction]) -> Outcome:
    """How many predictions are right, and the mean cross entropy of the gold class in nats."""
    labels = torch.tensor([instance.label for instance in instances])
    logits = torch.from_numpy(np.stack([prediction.logits for prediction in predictions]))
    loss = torch.nn.functional.cross_entropy(logits, labels)
    right = sum(
        prediction.predicted == instance.label
        for instance, prediction in zip(instances, predictions, strict=True)
    )
    return Outcome(right, float(loss))


def prune(
    options: HeldOutOptions,
    *,
    rates: str = RATES,
    seeds: int = 5,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Pruning:
    """Prunes the run's model by several measures of importance, into the table ``pruning``.

    Args:
        options: The run, its model and the evaluation corpus.
        rates: Shares of all heads to prune, as text.
        seeds: Number of random orders to compare with.
        progress: Called with the number of masks done and of all.

    Raises:
        UsageError: If anything is wrong; the model has not been pruned then.
    """
    shares = parse_rates(rates)
    if not 0 <= seeds <= _MOST_SEEDS:
        raise UsageError(f"--seeds is between 0 and {_MOST_SEEDS}, not {seeds}")
    held_out = hold_out(options)
    model = held_out.model
    shape = (model.num_layers, model.num_heads)
    with reading(options.folder) as connection:
        importance = importances(connection, options.method, shape)
        query = "select max(n) from head_importance where method = ?"
        (ranked_on,) = connection.execute(query, [options.method]).fetchone() or (0,)
    plan = [(order, rate) for order in orders(importance, seeds) for rate in shares]
    masks = [prune_mask(order.heads, rate, shape) for order, rate in plan]
    found = outcomes(held_out, masks, progress)
    rows = [
        _row(order, rate, outcome, len(held_out.instances))
        for (order, rate), outcome in zip(plan, found, strict=True)
    ]
    settings = {"rates": [str(rate) for rate in shares], "seeds": seeds}
    return Pruning(held_out, int(ranked_on), rows, held_out.write("pruning", settings, rows))


def outcomes(
    held_out: HeldOut,
    masks: Sequence[torch.Tensor],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Outcome]:
    """What the model says under each mask, [L, H]; equal masks are run once."""
    whole = torch.ones_like(masks[0]).numpy().tobytes()
    known = {whole: outcome_of(held_out.instances, held_out.predictions)}
    different = {mask.numpy().tobytes(): mask for mask in masks}
    for number, (key, mask) in enumerate(different.items(), 1):
        if key not in known:
            with pruned(held_out.model, mask):
                predictions = held_out.predict(held_out.instances)
            known[key] = outcome_of(held_out.instances, predictions)
        progress(number, len(different))
    return [known[mask.numpy().tobytes()] for mask in masks]


def _row(order: Order, rate: Fraction, outcome: Outcome, count: int) -> dict[str, Any]:
    return {
        "importance": order.importance,
        "seed": order.seed,
        "rate": float(rate),
        "pruned": int(rate * len(order.heads)),
        "heads": len(order.heads),
        "n": count,
        "correct": outcome.correct,
        "accuracy": outcome.correct / count,
        "loss": outcome.loss,
    }


def by_rate(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Accuracy as a table with a line per rate: its header and its lines.

    Of random orders it has the mean, the lowest and the highest.
    """
    names = [name for name in _MEASURES if any(row["importance"] == name for row in rows)]
    random = any(row["importance"] == "random" for row in rows)
    lines = []
    for rate in sorted({row["rate"] for row in rows}):
        own = [row for row in rows if row["rate"] == rate]
        line = [rate, own[0]["pruned"]]
        line += [row["accuracy"] for name in names for row in own if row["importance"] == name]
        if random:
            by_chance = [row["accuracy"] for row in own if row["importance"] == "random"]
            line += [sum(by_chance) / len(by_chance), min(by_chance), max(by_chance)]
        lines.append(line)
    extra = ["random", "random_min", "random_max"] if random else []
    return ["rate", "pruned", *names, *extra], lines
