"""Measuring what a run would cost: the real work, on a few batches of the real corpus.

The batches are of different lengths, so that cost is known as a function of length. What is timed
is the very code that a worker runs on a shard; the tables go to memory.
"""

import resource
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from time import perf_counter
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch

from attribeam.pipeline.corpus.padding import padding_of
from attribeam.pipeline.corpus.staging import sample_rows
from attribeam.pipeline.options import Options
from attribeam.pipeline.running.imputing import load_imputer
from attribeam.pipeline.running.missing import Task, units_of_run
from attribeam.pipeline.running.prepare import Checked
from attribeam.pipeline.running.shard import Attributor, Shard, ShardWork
from attribeam.pipeline.settings import Settings
from attribeam.pipeline.store.files import encode_parquet
from attribeam.schemas import Unit
from attribeam.transforms import Instance, Model, Row, attribute, collect, load_model
from attribeam.transforms.attribute import budget_for
from attribeam.transforms.inputs.batch import row_cost
from attribeam.transforms.inputs.encode import encode_rows
from attribeam.transforms.inputs.generating import with_continuations
from attribeam.transforms.network.flops import forward_flops, held_by_token

Clock = Callable[[], float]

# Rows whose lengths are looked at.
_MOST_ROWS = 4096
_GROUPS = 4
# Seconds that calibrating is to take, beside what comes before; a guess, made from two instances.
_SECONDS = 30.0
_FEWEST = 4


@dataclass(frozen=True)
class Sampled:
    """What a look at the corpus gave.

    Attributes:
        count: Number of rows of the corpus.
        rows: Rows at even distances that can be encoded, the longest last.
        lengths: Tokens of the instances of each of them.
        seen: Number of rows looked at.
        seconds: What reading the corpus once took.
        padding: What of the rows looked at is padding (``padding.count_padding``).
    """

    count: int
    rows: list[Row]
    lengths: list[list[int]]
    seen: int
    seconds: float
    padding: dict[str, int] | None = None


class Group(NamedTuple):
    """What some instances of similar length took, in seconds.

    Attributes:
        lengths: Their tokens.
        encode: From rows to instances.
        attribute: All methods together, what they share once.
        curves: The curves of all of them.
        tables: Making and writing tables.
        methods: Per method what it takes alone, with the passes that it needs.
    """

    lengths: list[int]
    encode: float
    attribute: float
    curves: float
    tables: float
    methods: dict[str, float]


class Size(NamedTuple):
    """Bytes of a unit's file.

    Attributes:
        empty: Without a row.
        sampled: With the instances of the sample.
        more: What another instance adds; less than a first one, since texts and ids repeat.
        memory: Of the sample's rows in memory.
    """

    empty: int
    sampled: int
    more: float
    memory: int


class Seconds(NamedTuple):
    """What doesn't grow with the corpus (``Calibration``)."""

    loading: float
    statistics: float
    files: float


@dataclass(frozen=True)
class Calibration:
    """What was measured on this machine.

    Attributes:
        sampled: What the corpus looks like.
        device: Where.
        groups: Instances that were attributed and evaluated, by length.
        sizes: By unit.
        loading: Seconds to load the model.
        statistics: Seconds to estimate statistics of the corpus, for methods that need them.
        forward_rate: Operations a second of plain forward passes.
        double: Methods whose passes are in float64.
        memory: Peak size of this process, in bytes, once all had been done.
        files: Seconds to write a file of each unit, whatever is in it.
        device_memory: Peak of what torch had on the GPU; None on the CPU.
        full_batch: Size in bytes of what a batch that fills the token budget holds, at most: the
            activations of all layers for a backward pass, and the weights.
        each: Whether curves have the more points the longer an instance is.
    """

    sampled: Sampled
    device: str
    groups: list[Group]
    sizes: dict[Unit, Size]
    loading: float
    statistics: float
    forward_rate: float
    double: frozenset[str]
    memory: int
    files: float
    device_memory: int | None
    full_batch: int
    each: bool = False

    @property
    def instances(self) -> int:
        """Number of instances that were attributed."""
        return sum(len(group.lengths) for group in self.groups)


def calibrate(
    checked: Checked, options: Options, *, sample: int | None = None, clock: Clock = perf_counter
) -> Calibration:
    """Measures what the run of some options would cost.

    Args:
        checked: What the options come to.
        options: The options.
        sample: Instances to measure on; None for as many as take about half a minute.
        clock: Gives seconds.

    Returns:
        The measurements; nothing is written anywhere.
    """
    sampled = look(checked, clock)
    # On this machine, wherever the workers will be.
    settings = replace(checked.settings(options, sampled.count), device=checked.device)
    if settings.given_targets is not None:
        # Whichever class it is takes as long, and those that are given are staged by runs alone.
        settings = replace(settings, given_targets=None, target="predicted")
    start = clock()
    model = load_model(settings.model, device=settings.device, **settings.loading())
    loading = clock() - start
    if not sampled.rows:
        return _calibration(sampled, settings, model, [], {}, Seconds(loading, 0.0, 0.0), 1.0)
    attributor, statistics = _attributor(settings, model, sampled, clock)
    groups, tables = [], defaultdict(list)
    for rows in _grouped(attributor, sampled, options, sample, clock):
        group, found = _measure(attributor, rows, clock)
        groups.append(group)
        for unit, table in found.items():
            tables[unit].append(table)
    rate = _forward_rate(model, settings, sampled.rows[-64:], clock)
    counts = [len(group.lengths) for group in groups]
    sizes = {unit: _size(each, counts) for unit, each in tables.items()}
    start = clock()
    for found_tables in tables.values():
        encode_parquet(found_tables[0].slice(0, 0), BytesIO())
    files = clock() - start
    once = Seconds(loading, statistics, files)
    return _calibration(sampled, settings, model, groups, sizes, once, rate)


def _calibration(
    sampled: Sampled,
    settings: Settings,
    model: Model,
    groups: list[Group],
    sizes: dict[Unit, Size],
    once: Seconds,
    rate: float,
) -> Calibration:
    on_gpu = model.device.type == "cuda"
    needs = {choice.name: choice.needs for choice in settings.chosen}
    return Calibration(
        sampled=sampled,
        device=settings.device,
        groups=groups,
        sizes=sizes,
        loading=once.loading,
        statistics=once.statistics,
        files=once.files,
        forward_rate=rate,
        double=frozenset(name for name, of in needs.items() if any(need.double for need in of)),
        memory=peak_memory(),
        device_memory=torch.cuda.max_memory_allocated(model.device) if on_gpu else None,
        full_batch=_full_batch(model, settings.token_budget),
        each=settings.evaluation is not None and settings.evaluation.each,
    )


def look(checked: Checked, clock: Clock = perf_counter) -> Sampled:
    """Reads the corpus once, and encodes some of its rows to see how long they are."""
    start = clock()
    count, rows = sample_rows(checked.corpus, most=_MOST_ROWS)
    seconds = clock() - start
    if checked.model.task == "causal_lm" and rows:
        # What nothing follows is said once, by whoever works on it first.
        start = clock()
        rows = with_continuations(checked.model, rows, checked.encoding)
        seconds += (clock() - start) * count / len(rows)
    padding = padding_of(rows, checked.model) if "input_ids" in checked.corpus.columns else None
    pairs = []
    for row in rows:
        instances = encode_rows(checked.model, [row], checked.encoding)[0]
        if instances:
            pairs.append((row, [len(instance) for instance in instances]))
    pairs.sort(key=lambda pair: sum(pair[1]))
    found, lengths = [row for row, _ in pairs], [of for _, of in pairs]
    return Sampled(count, found, lengths, len(rows), seconds, padding)


def _attributor(
    settings: Settings, model: Model, sampled: Sampled, clock: Clock
) -> tuple[Attributor, float]:
    """What attributes a shard, and the seconds that statistics of the whole corpus will take."""
    samples = [n.sample for c in settings.chosen for n in c.needs if n.sample is not None]
    if not samples:
        return Attributor(settings, model, imputer=load_imputer(settings)), 0.0
    few = sampled.rows[:: max(1, len(sampled.rows) // 64)]
    instances, _ = encode_rows(model, few, settings.encoding)
    start = clock()
    statistics = collect(model, instances, budget_for(model, settings.token_budget))
    taken = clock() - start
    share = min(max(samples), sampled.count) / len(few)
    attributor = Attributor(settings, model, statistics, imputer=load_imputer(settings))
    return attributor, taken * share


def _grouped(
    attributor: Attributor,
    sampled: Sampled,
    options: Options,
    sample: int | None,
    clock: Clock,
) -> list[list[Row]]:
    """Rows to measure on: some of similar length, of each quarter of the corpus's tokens.

    The quarters are of tokens, not of rows, since that is where the time goes. No row is in two
    groups: tables would seem smaller than they are.
    """
    tokens = np.cumsum([sum(lengths) for lengths in sampled.lengths])
    edges = np.searchsorted(tokens, np.arange(1, _GROUPS) / _GROUPS * tokens[-1])
    quarters = [each.tolist() for each in np.split(np.arange(len(tokens)), edges) if len(each)]
    # The first instances of a process pay for much that is done once.
    warm = sampled.rows[quarters[-1][0] :][:2]
    _measure(attributor, warm, clock)
    start = clock()
    _measure(attributor, warm, clock)
    each = (clock() - start) / len(warm)
    budget = budget_for(attributor.model, options.token_budget)
    found = []
    for quarter in quarters:
        longest = max(sampled.lengths[quarter[len(quarter) // 2]])
        if sample is None:
            full = 2 * budget / row_cost(longest, attributor.model.head_size)
            size = max(_FEWEST, int(min(_SECONDS / _GROUPS / max(each, 1e-6), full)))
        else:
            size = max(1, round(sample / _GROUPS))
        size = min(size, options.shard_size or size, len(quarter))
        first = quarter[(len(quarter) - size) // 2]
        found.append(sampled.rows[first : first + size])
    return found


def _measure(
    attributor: Attributor, rows: Sequence[Row], clock: Clock
) -> tuple[Group, dict[Unit, pa.Table]]:
    """Attributes and evaluates rows as a worker would, and times it."""
    settings = attributor.settings
    start = clock()
    encode_rows(attributor.model, rows, settings.encoding)
    encode = clock() - start
    units = tuple(units_of_run(settings.tables))
    work = ShardWork(attributor, Shard(Task(0, 1, units), rows))
    spent: dict[str, float] = defaultdict(float)
    tables: dict[Unit, pa.Table] = {}
    curves_begun = False
    wall = perf_counter()
    start = last = clock()
    walls = 0.0
    for result in work.results():
        now = clock()
        if not tables:
            kind, walls = "attribute", perf_counter() - wall
        elif result.unit.table == "curves" and not curves_begun:
            kind, curves_begun = "curves", True
        else:
            kind = "tables"
        spent[kind] += now - last
        tables[result.unit] = result.table
        encode_parquet(result.table, BytesIO())
        last = clock()
        spent["tables"] += last - now
    spent["attribute"] = max(0.0, spent["attribute"] - encode)
    # Methods' seconds are of the wall.
    scale = spent["attribute"] / walls if walls else 1.0
    group = Group(
        lengths=[len(instance) for instance in work.instances],
        encode=encode,
        attribute=spent["attribute"],
        curves=spent["curves"],
        tables=spent["tables"],
        methods={name: scale * seconds for name, seconds in _by_method(work).items()},
    )
    return group, tables


def _by_method(work: ShardWork) -> dict[str, float]:
    if work.found is None:
        return {}
    return {
        name: sum(row.seconds for row in rows if row is not None)
        for name, rows in work.found.rows.items()
    }


def _forward_rate(model: Model, settings: Settings, rows: Sequence[Row], clock: Clock) -> float:
    """Operations a second of plain forward passes, as ``forward_flops`` counts them."""
    instances = _fill(model, encode_rows(model, rows, settings.encoding)[0], settings)
    start = clock()
    attribute(model, instances, [], target=0, token_budget=settings.token_budget)
    return forward_flops(model, map(len, instances)) / max(clock() - start, 1e-9)


def _fill(model: Model, instances: Sequence[Instance], settings: Settings) -> list[Instance]:
    """Instances over again until they fill a batch."""
    budget = budget_for(model, settings.token_budget)
    cost = sum(row_cost(len(instance), model.head_size) for instance in instances)
    return [replace(i) for _ in range(max(1, round(budget / cost))) for i in instances]


def _size(tables: Sequence[pa.Table], counts: Sequence[int]) -> Size:
    """The size of a unit's file, of the tables of each group and its number of instances."""

    def size(table: pa.Table) -> int:
        handle = BytesIO()
        encode_parquet(table, handle)
        return handle.tell()

    whole = pa.concat_tables(tables)
    everything = size(whole)
    # The outer and the inner groups have about the same mean length.
    halves = [tables[0], *tables[3:]], tables[1:3] or tables[:1]
    half = sum(size(pa.concat_tables(each)) for each in halves) / 2
    more = (everything - half) / (sum(counts) / 2) if len(tables) > 1 else 0.0
    empty = size(whole.slice(0, 0))
    return Size(empty, everything, more or (everything - empty) / sum(counts), whole.nbytes)


def _full_batch(model: Model, budget: int | None) -> int:
    weights = sum(p.numel() * p.element_size() for p in model.network.parameters())
    return weights + round(held_by_token(model) * budget_for(model, budget))


def peak_memory() -> int:
    """The most memory that this process has had, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
