"""From what was measured on a few batches to what a whole run would take, here or elsewhere."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch

from attribeam.pipeline.corpus.padding import said
from attribeam.pipeline.corpus.staging import shard_size_for
from attribeam.pipeline.options import Options
from attribeam.pipeline.planning.accelerators import (
    ACCELERATORS,
    PRICES_OF,
    UTILISATION,
    Accelerator,
)
from attribeam.pipeline.planning.calibrate import Calibration, Clock, Group, calibrate
from attribeam.pipeline.running.prepare import check
from attribeam.pipeline.workers.devices import processors
from attribeam.pipeline.workers.engines import connect
from attribeam.schemas import UsageError

# Starting Beam, and processes for it (they take 5 s alone to shut down); see docs/running.md.
_BEAM_SECONDS = 0.5
_WORKER_SECONDS = 8.0
# Of a shard; what is in hand is lost in a crash.
_MOST_SECONDS = 600.0


class Cost(NamedTuple):
    """Seconds of an instance of T tokens: ``token`` T + ``pair`` T^2."""

    token: float
    pair: float

    def of(self, lengths: Sequence[int]) -> float:
        """Seconds of instances of these lengths together."""
        of = np.asarray(lengths, np.float64)
        return float(self.token * of.sum() + self.pair * (of**2).sum())


def fit_cost(groups: Sequence[tuple[Sequence[int], float]]) -> Cost:
    """The cost that fits groups of instances best, relative errors counting the same.

    Args:
        groups: Lengths of the instances of a group, and the seconds that they took together.
    """
    measured = [(lengths, seconds) for lengths, seconds in groups if lengths and seconds > 0]
    if not measured:
        return Cost(0.0, 0.0)
    seconds = np.array([of for _, of in measured])
    sums = np.array([[sum(of), sum(n * n for n in of)] for of, _ in measured], np.float64)
    relative = sums / seconds[:, None]
    # Columns of about the same size, so that nothing is lost to rounding.
    scale = relative.max(0)
    token, pair = np.linalg.lstsq(relative / scale, np.ones(len(measured)), rcond=None)[0] / scale
    if token >= 0 and pair >= 0 and len(measured) > 1:
        return Cost(float(token), float(pair))
    # Neither can be negative: the better of the two alone.
    single = relative.sum(0) / (relative**2).sum(0)
    errors = ((relative * single - 1) ** 2).sum(0)
    if pair < 0 or len(measured) == 1 or errors[0] <= errors[1]:
        return Cost(float(single[0]), 0.0)
    return Cost(0.0, float(single[1]))


@dataclass(frozen=True)
class MethodEstimate:
    """What a method takes alone, with the passes that it needs, those that it shares in full."""

    method: str
    seconds_per_instance: float
    seconds_per_shard: float


@dataclass(frozen=True)
class Estimate:
    """What a run would take.

    Attributes:
        rows: Rows of the corpus.
        instances: Instances that come of them.
        tokens: Their tokens.
        longest: Tokens of the longest that was seen.
        shards: Number of shards.
        shard_size: Rows a shard.
        methods: Each method alone.
        attribution: Seconds per shard of all methods together, shared passes once.
        curves: Seconds per shard of all curves together.
        tables: Seconds per shard of encoding, and making and writing tables.
        startup: Seconds before the first shard and after the last.
        hours: From start to end.
        workers: Processes at work at the same time.
        device_hours: ``hours`` of all devices.
        output: Bytes of all tables, by name; with ``corpus``, the staged copy.
        memory: Bytes of a process at its peak.
        device_memory: Bytes on the GPU; None on the CPU.
        device: Where.
        price: Dollars an hour and device; None if unknown.
        measured: Instances that were measured on.
        assumptions: What all this rests on.
    """

    rows: int
    instances: int
    tokens: int
    longest: int
    shards: int
    shard_size: int
    methods: list[MethodEstimate]
    attribution: float
    curves: float
    tables: float
    startup: float
    hours: float
    workers: int
    device_hours: float
    output: dict[str, int]
    memory: int
    device_memory: int | None
    device: str
    price: float | None
    measured: int
    assumptions: list[str]

    @property
    def seconds_per_shard(self) -> float:
        """Seconds of a whole shard."""
        return self.attribution + self.curves + self.tables

    @property
    def money(self) -> float | None:
        """Dollars."""
        return None if self.price is None else self.price * self.device_hours

    @property
    def output_bytes(self) -> int:
        """Bytes of all tables."""
        return sum(self.output.values())

    def record(self) -> dict[str, Any]:
        """All of it as JSON holds it."""
        sums = ("seconds_per_shard", "money", "output_bytes")
        return {**asdict(self), **{name: getattr(self, name) for name in sums}}


def estimate_run(
    options: Options,
    device: str = "auto",
    *,
    sample: int | None = None,
    price: float | None = None,
    clock: Clock = perf_counter,
    tell: Callable[[str], None] = lambda _: None,
) -> Estimate:
    """Checks options as a run does, measures on a few batches, and says what the run would take.

    Args:
        options: Those of the run; nothing is written to the output.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N``, or the name of an accelerator.
        sample: Instances to measure on; None for as many as take about half a minute.
        price: Dollars an hour and device; None for the accelerator's.
        clock: Gives seconds.
        tell: Is given sentences on what was guessed of the corpus.

    Raises:
        UsageError: If anything about the options is wrong.
    """
    for name, value in (("sample", sample), ("price-per-hour", price)):
        if value is not None and value <= 0:
            raise UsageError(f"--{name} is more than 0, not {value}")
    accelerator = ACCELERATORS.get(device)
    if accelerator is None and device.split(":", maxsplit=1)[0] not in ("auto", "cpu", "cuda"):
        raise UsageError(
            f"--device is auto, cpu, cuda, cuda:N, {', '.join(ACCELERATORS)}, not {device}"
        )
    if accelerator is not None:
        accelerator.rate(options.dtype)  # Refuses what it can't compute in.
    options = replace(options, device="auto" if accelerator else device)
    checked = check(options, connect(options))
    for note in checked.notes:
        tell(note)
    if options.part is not None:
        tell(f"the estimate is of the whole run, and not of --part {options.part}")
    parallel = _parallel(checked.device)
    threads = torch.get_num_threads()
    try:
        if options.workers > 1:
            torch.set_num_threads(max(1, processors() // options.workers))
        calibration = calibrate(checked, options, sample=sample, clock=clock)
    finally:
        torch.set_num_threads(threads)
    sampled = calibration.sampled
    looked_at = None if sampled.seen == sampled.count else sampled.seen
    for sentence in said(sampled.padding, checked.model, looked_at):
        tell(sentence)
    return estimate(
        calibration,
        shard_size=options.shard_size or shard_size_for(sampled.count),
        dtype=options.dtype,
        workers=options.workers,
        parallel=parallel,
        accelerator=accelerator,
        price=price,
    )


def _parallel(device: str) -> int:
    """How many processes have a device, or processors, of their own."""
    if device == "cuda":
        return torch.cuda.device_count()
    return 1 if device.startswith("cuda") else processors()


def estimate(
    calibration: Calibration,
    *,
    shard_size: int,
    dtype: str,
    workers: int = 1,
    parallel: int = 1,
    accelerator: Accelerator | None = None,
    price: float | None = None,
) -> Estimate:
    """What the whole run would take.

    Args:
        calibration: What was measured here.
        shard_size: Rows a shard.
        dtype: Precision of the run.
        workers: Worker processes.
        parallel: How many of them have a device, or processors, of their own here.
        accelerator: The GPU to extrapolate to, one for each worker; None for this machine.
        price: Dollars an hour and device; None for the accelerator's.
    """
    sampled = calibration.sampled
    every = [length for lengths in sampled.lengths for length in lengths]
    share = sampled.count / max(1, sampled.seen)
    shards = ceil(sampled.count / shard_size)
    of_shard = min(shard_size, sampled.count) / max(1, sampled.seen)
    speed = _speeds(calibration, dtype, accelerator)
    work = _work(calibration, of_shard, every, speed)
    startup = _BEAM_SECONDS + 2 * calibration.loading + 3 * sampled.seconds + calibration.statistics
    startup += _WORKER_SECONDS * (workers > 1)
    at_once = workers if accelerator else min(workers, parallel)
    seconds = work.attribution + work.curves + work.tables
    whole = seconds * sampled.count / min(shard_size, max(1, sampled.count))
    # Who has the most shards is the last to end.
    hours = (startup + min(whole, seconds * ceil(shards / at_once))) / 3600
    if price is None and accelerator is not None:
        price = accelerator.price
    return Estimate(
        rows=sampled.count,
        instances=round(len(every) * share),
        tokens=round(sum(every) * share),
        longest=max(every, default=0),
        shards=shards,
        shard_size=shard_size,
        **work._asdict(),
        startup=startup,
        hours=hours,
        workers=at_once,
        device_hours=hours * at_once,
        output=_output(calibration, shards, share),
        memory=_memory(calibration, of_shard),
        device_memory=calibration.full_batch if accelerator else calibration.device_memory,
        device=accelerator.label if accelerator else calibration.device,
        price=price,
        measured=calibration.instances,
        assumptions=[
            *_assumptions(calibration, dtype, accelerator, price),
            *_too_large(seconds, min(shard_size, sampled.count)),
        ],
    )


def _too_large(seconds: float, rows: int) -> list[str]:
    """A sentence on shards that take so long that a crash costs much."""
    if seconds <= _MOST_SECONDS or rows < 2:
        return []
    fitting = max(1, int(rows * _MOST_SECONDS / seconds))
    return [
        f"a shard takes {seconds / 60:.0f} minutes, which is what a crash costs: --shard-size "
        f"{fitting} makes that {_MOST_SECONDS / 60:.0f}"
    ]


class _Work(NamedTuple):
    """What a shard takes (``Estimate``)."""

    methods: list[MethodEstimate]
    attribution: float
    curves: float
    tables: float


def _work(
    calibration: Calibration, of_shard: float, every: Sequence[int], speed: Mapping[str, float]
) -> _Work:
    """What a shard takes.

    Args:
        calibration: What was measured.
        of_shard: A shard as a multiple of the rows that were looked at.
        every: Lengths of the instances of these.
        speed: How much faster the device is (``_speeds``).
    """

    def per_shard(part: str) -> float:
        # Each group has written its files.
        once = calibration.files if part == "tables" else 0.0
        measured = [(group.lengths, getattr(group, part) - once) for group in calibration.groups]
        return of_shard * fit_cost(measured).of(every)

    alone = _alone(calibration.groups, every)
    kinds = {name: "double" if name in calibration.double else "passes" for name in alone}
    double = max((of_shard * alone[n] for n, kind in kinds.items() if kind == "double"), default=0)
    together = per_shard("attribute")
    double = min(double, together)
    return _Work(
        methods=[
            MethodEstimate(
                name,
                seconds / max(1, len(every)) / speed[kinds[name]],
                of_shard * seconds / speed[kinds[name]],
            )
            for name, seconds in alone.items()
        ],
        attribution=(together - double) / speed["passes"] + double / speed["double"],
        curves=per_shard("curves") / speed["passes"],
        tables=per_shard("encode") + per_shard("tables") + calibration.files,
    )


def _speeds(
    calibration: Calibration, dtype: str, accelerator: Accelerator | None
) -> Mapping[str, float]:
    """How much faster the device is than what was measured on, in the run's precision and double.

    Here double precision is taken to run at half the rate.
    """
    if accelerator is None:
        return {"passes": 1.0, "double": 1.0}
    here = calibration.forward_rate
    half = here if dtype == "float64" else here / 2
    return {
        "passes": accelerator.rate(dtype) / here,
        "double": accelerator.rate("float64") / half,
    }


def _alone(groups: Sequence[Group], every: Sequence[int]) -> dict[str, float]:
    """Seconds of each method alone for instances of some lengths."""
    names = groups[0].methods if groups else {}
    return {
        name: fit_cost([(group.lengths, group.methods[name]) for group in groups]).of(every)
        for name in names
    }


def _output(calibration: Calibration, shards: int, share: float) -> dict[str, int]:
    """Bytes of all files of each table: every file has a base, and grows with its instances."""
    lengths = [length for group in calibration.groups for length in group.lengths]
    every = [length for of in calibration.sampled.lengths for length in of]
    each = len(every) * share / max(1, shards)
    # The sample has longer instances than the corpus; tables grow with tokens.
    longer = (sum(lengths) / max(1, len(lengths))) / (sum(every) / max(1, len(every)) or 1)
    found: dict[str, float] = {}
    for unit, size in calibration.sizes.items():
        body = file_size(size.sampled - size.empty, size.more, calibration.instances, each)
        by_token = 1.0 if unit.table == "curves" and not calibration.each else longer
        found[unit.table] = found.get(unit.table, 0.0) + shards * (size.empty + body / by_token)
    return {table: round(total) for table, total in found.items()}


def file_size(body: float, more: float, sampled: int, instances: float) -> float:
    """Bytes of a file's rows for a number of instances, from those of a sample.

    Args:
        body: Bytes of the sample's rows.
        more: What another instance adds.
        sampled: Number of instances in the sample.
        instances: Number of instances in the file.
    """
    if instances <= sampled:
        return body * instances / max(1, sampled)
    return body + more * (instances - sampled)


def _memory(calibration: Calibration, of_shard: float) -> int:
    """The process as it is, and the tables of a whole shard, which it holds at once.

    A table and the columns of Python objects that it is made of take about three times its size.
    """
    every = sum(len(lengths) for lengths in calibration.sampled.lengths)
    instances = of_shard * every
    tables = sum(size.memory for size in calibration.sizes.values())
    return round(calibration.memory + 3 * tables * instances / max(1, calibration.instances))


def _assumptions(
    calibration: Calibration, dtype: str, accelerator: Accelerator | None, price: float | None
) -> list[str]:
    if not calibration.groups:
        return [f"none of the {calibration.sampled.seen} rows looked at can be encoded"]
    found = [
        f"measured on {calibration.instances} instances on this machine ({calibration.device}); "
        f"lengths from {calibration.sampled.seen} rows",
        "a method's seconds are what it takes alone; all together share passes",
    ]
    if accelerator is None:
        return found
    found.append(
        f"extrapolated, not measured: passes reach {UTILISATION:.0%} of the peak "
        f"({accelerator.label}: {accelerator.rate(dtype) / UTILISATION / 1e12:.3g} TFLOP/s in "
        f"{dtype}), against {calibration.forward_rate / 1e9:.3g} GFLOP/s here; tables are made as "
        "fast as here"
    )
    if calibration.full_batch > accelerator.memory:
        found.append(
            "a full batch may not fit the GPU's memory, and would be halved: see --token-budget"
        )
    if price == accelerator.price:
        found.append(f"price of {accelerator.machine} ({PRICES_OF})")
    return found
