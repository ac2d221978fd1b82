"""Showing an estimate: as a table and its totals, or as JSON."""

import json
from textwrap import wrap
from typing import IO

from rich.console import Console

from attribeam.analysis.query.terminal import print_rows
from attribeam.pipeline.planning.estimate import Estimate

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def print_estimate(estimate: Estimate, form: str, out: IO[str]) -> None:
    """Prints an estimate.

    Args:
        estimate: What a run would take.
        form: ``table`` or ``json``.
        out: Where to.
    """
    if form == "json":
        json.dump(estimate.record(), out, indent=2)
        out.write("\n")
        return
    rows = [
        (m.method, 1000 * m.seconds_per_instance, m.seconds_per_shard) for m in estimate.methods
    ]
    each = 1000 * estimate.shards / max(1, estimate.instances)
    together = (
        ("all methods together", estimate.attribution),
        ("curves", estimate.curves),
        ("tables", estimate.tables),
        ("total", estimate.seconds_per_shard),
    )
    rows += [(name, each * seconds, seconds) for name, seconds in together]
    print_rows(("", "ms per instance", "seconds per shard"), rows, out)
    out.write("\n")
    for name, value in totals(estimate):
        out.write(f"{name + ':':<14}{value}\n")
    out.write("\n")
    width = Console(file=out).width
    for assumption in estimate.assumptions:
        lines = wrap(assumption, width, initial_indent="* ", subsequent_indent="  ")
        out.write("\n".join(lines) + "\n")


def totals(estimate: Estimate) -> list[tuple[str, str]]:
    """Names and values of the totals, for people."""
    tokens = estimate.tokens / max(1, estimate.instances)
    largest = sorted(estimate.output.items(), key=lambda item: -item[1])[:3]
    tables = ", ".join(f"{name} {size_of(size)}" for name, size in largest) or "no table"
    found = [
        (
            "corpus",
            f"{estimate.rows:,} rows, {estimate.instances:,} instances of {tokens:.1f} tokens "
            f"(longest seen {estimate.longest})",
        ),
        ("shards", f"{estimate.shards:,} of up to {estimate.shard_size:,} rows"),
        ("output", f"{size_of(estimate.output_bytes)} ({tables})"),
        ("memory", f"{size_of(estimate.memory)} a process"),
    ]
    if estimate.device_memory is not None:
        found.append(("GPU memory", size_of(estimate.device_memory)))
    found.append(("time", f"{duration(3600 * estimate.hours)} on {_devices(estimate)}"))
    if estimate.device != "cpu":
        found.append(("GPU hours", f"{estimate.device_hours:.4g}"))
    if estimate.money is not None:
        money = f"${estimate.money:,.2f}" if estimate.money >= 0.01 else "less than $0.01"
        found.append(("cost", f"{money} at ${estimate.price:.4g} an hour"))
    return found


def _devices(estimate: Estimate) -> str:
    if estimate.device == "cpu":
        return "this machine" if estimate.workers == 1 else f"{estimate.workers} processes here"
    return estimate.device if estimate.workers == 1 else f"{estimate.workers} x {estimate.device}"


def size_of(count: float) -> str:
    """A number of bytes, for people."""
    for unit in _UNITS[:-1]:
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} {_UNITS[-1]}"


def duration(seconds: float) -> str:
    """A time, for people."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
