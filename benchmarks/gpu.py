"""How well a device is used: instances a second, share of its peak, memory, and time in Beam.

The same code measures a GPU and, where there is none, the processor. The peak is that of a large
product of matrices in the precision of the run, measured here. Operations are counted as passes are
run (``forward_flops``): a pass with a backward pass counts twice, since weights need no gradient.
What methods compute themselves beside their passes is not counted, and relevance, which is walked
in float64 by code of its own, has no share. The first call of a kind also pays for what torch
makes once for each shape; it is told where that is much.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow.parquet as pq
import torch

from attribeam.pipeline import Options, run
from attribeam.pipeline.planning.calibrate import peak_memory
from attribeam.pipeline.running.shard import Attributor
from attribeam.pipeline.workers.devices import check_precision
from attribeam.schemas import UsageError
from attribeam.transforms import Instance, Model, attribute, choose, load_model, recovery
from attribeam.transforms.attribute import budget_for
from attribeam.transforms.evaluate import Evaluation, Ranking, curves
from attribeam.transforms.network import borrowed
from attribeam.transforms.network.flops import forward_flops
from benchmarks.material import Material

GROUPS = {
    "attention": "raw_attention,attention_rollout",
    "norms": "norm_n,globenc",
    "one backward pass": "saliency,grad_x_input,generic_attribution,decompx",
    "paths": "integrated_gradients,bt_token",
    "relevance": "lrp,transformer_attribution",
    "perturbation": "occlusion,kernel_shap",
}
# The less work an instance is, the larger the share of all else.
METHODS = "raw_attention,attention_rollout,saliency,globenc"
DTYPES = ("float32", "mixed")
# What budgets and precisions are tried with.
TRIED = ("saliency", "integrated_gradients", "bt_token", "decompx")
BUDGETS = (8192, 32768, 131072, 524288)
# A processor takes minutes for what a GPU does in seconds.
_MOST_ON_CPU = 8
_PEAK_SECONDS = 0.5


@dataclass
class Counts:
    """What was counted as passes were run."""

    operations: float = 0.0
    halvings: int = 0


def main(material: Material) -> bool:
    """Prints the figures; there are no limits to keep."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    few = material
    if device == "cpu":
        few = replace(material, limit=min(material.limit, _MOST_ON_CPU))
    for dtype in DTYPES:
        try:
            check_precision(dtype, device)
        except UsageError as error:
            print(error)
            continue
        _of_precision(few, device, name, dtype)
    if device == "cuda":
        _budgets(material)
        _precisions(material)
    _end_to_end(material, device)
    return True


def _of_precision(material: Material, device: str, name: str, dtype: str) -> None:
    model = load_model(material.model, dtype=dtype, device=device)
    instances = material.instances(model)
    peak = matmul_peak(device, dtype)
    print(f"{name}, {dtype}: {peak / 1e9:.0f} GFLOP/s in large products")
    work: dict[str, Callable[[], object]] = {
        group: lambda names=names: attribute(model, instances, choose(names))  # type: ignore[misc]
        for group, names in GROUPS.items()
    }
    work["curves"] = lambda: _curves(model, instances)
    attribute(model, instances[:2], [], target=0)
    for group, call in work.items():
        _report(group, len(instances), call, model, peak)


def _report(group: str, count: int, call: Callable[[], object], model: Model, peak: float) -> None:
    on_gpu = model.device.type == "cuda"
    first = _seconds(call, on_gpu) if on_gpu else 0.0
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    with counting() as counts:
        seconds = _seconds(call, on_gpu)
    memory = torch.cuda.max_memory_allocated() if on_gpu else peak_memory()
    share = "   -" if group == "relevance" else f"{counts.operations / seconds / peak:4.0%}"
    slow = f", {first:.1f} s the first time, then {seconds:.1f}" if first > 2 * seconds else ""
    print(
        f"  {group:<18} {count / seconds:8.1f} instances/s, {share} of the peak, "
        f"{memory / 1e6:6.0f} MB, {counts.halvings} halvings{slow}",
        flush=True,
    )


def _seconds(call: Callable[[], object], on_gpu: bool) -> float:
    start = time.perf_counter()
    call()
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _budgets(material: Material) -> None:
    """Instances a second, and memory, by how many tokens a batch may have."""
    model = load_model(material.model, device="cuda")
    instances = material.instances(model)
    for name in TRIED:
        found = []
        for budget in BUDGETS:

            def call(name: str = name, budget: int = budget) -> object:
                return attribute(model, instances, choose(name), token_budget=budget)

            call()
            torch.cuda.reset_peak_memory_stats()
            rate = len(instances) / _seconds(call, on_gpu=True)
            found.append(f"{rate:.0f} ({torch.cuda.max_memory_allocated() / 1e6:.0f} MB)")
        print(f"  {name} by budget {', '.join(map(str, BUDGETS))}: {', '.join(found)}", flush=True)


def _precisions(material: Material) -> None:
    """What a precision costs, and how far its scores are from those of float64."""
    few = replace(material, limit=min(material.limit, 64))
    exact = _scores(few, "float64", tf32=False)[0]
    for dtype, tf32 in (("float32", False), ("float32", True), ("mixed", False)):
        found, rates = _scores(few, dtype, tf32)
        for name in TRIED:
            errors = [
                float(abs(one - other).max() / abs(one).max())
                for one, other in zip(exact[name], found[name], strict=True)
            ]
            print(
                f"  {name} in {'tf32' if tf32 else dtype}: {rates[name]:.0f} instances/s, off by "
                f"{sorted(errors)[len(errors) // 2]:.1e} of the largest score (median), "
                f"{max(errors):.1e} (worst of {len(errors)})",
                flush=True,
            )


def _scores(
    material: Material, dtype: str, tf32: bool
) -> tuple[dict[str, list[Any]], dict[str, float]]:
    """Scores of each method, and instances a second."""
    model = load_model(material.model, dtype=dtype, device="cuda")
    instances = material.instances(model)
    scores, rates = {}, {}
    allowed = mock.patch.object(borrowed, "_whole_products", lambda: lambda: None)
    with allowed if tf32 else nullcontext():
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        for name in TRIED:
            rows = attribute(model, instances, choose(name)).rows[name]
            scores[name] = [row.scores for row in rows if row is not None]
            seconds = _seconds(lambda n=name: attribute(model, instances, choose(n)), on_gpu=True)  # type: ignore[misc]
            rates[name] = len(instances) / seconds
    torch.set_float32_matmul_precision("highest")
    return scores, rates


def _curves(model: Model, instances: Sequence[Instance]) -> None:
    """The curves of a random ranking."""
    rankings = [
        Ranking(i, "random", i.generator(0, "benchmark").random(len(i)), 0) for i in instances
    ]
    curves(model, rankings, Evaluation().checked(model), token_budget=budget_for(model, None))


def _end_to_end(material: Material, device: str) -> None:
    """A whole run, and what of it is neither attribution nor start-up."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.parquet"
        taken = pq.read_table(material.corpus).slice(0, material.limit)
        pq.write_table(taken, corpus)
        # The first run of a process pays for what is done once.
        _run(material, device, corpus, Path(folder) / "warm", 1)
        first, first_inside = _run(material, device, corpus, Path(folder) / "first", 1)
        whole, inside = _run(material, device, corpus, Path(folder) / "whole", None)
    startup = first - first_inside
    beam = whole - inside - startup
    print(
        f"a run of {METHODS.replace(',', ', ')}, {taken.num_rows} instances: "
        f"{taken.num_rows / inside:.1f} instances/s; {inside:.1f} s attributing, {beam:.2f} s "
        f"({beam / (whole - startup):.1%}) in Beam and files, {startup:.1f} s of start-up"
    )


def _run(
    material: Material, device: str, corpus: Path, output: Path, limit: int | None
) -> tuple[float, float]:
    """Seconds of a run, and of these those in the worker's own code."""
    inside = 0.0
    process = Attributor.process

    def timed(attributor: Attributor, shard: Any) -> Any:
        nonlocal inside
        start = time.perf_counter()
        try:
            return process(attributor, shard)
        finally:
            inside += time.perf_counter() - start

    start = time.perf_counter()
    with mock.patch.object(Attributor, "process", timed):
        run(
            Options(
                model=str(material.model),
                corpus=str(corpus),
                output=str(output),
                methods=METHODS,
                evaluation=None,
                limit=limit,
                shard_size=128,
                device=device,
            )
        )
    return time.perf_counter() - start, inside


def matmul_peak(device: str, dtype: str) -> float:
    """Operations a second of a large product of matrices, in the precision of a run."""
    kind = {"float64": torch.float64, "float32": torch.float32}.get(dtype, torch.bfloat16)
    size = 8192 if device == "cuda" else 1024
    left, right = (torch.randn(size, size, device=device).to(kind) for _ in range(2))

    def seconds(times: int) -> float:
        start = time.perf_counter()
        for _ in range(times):
            torch.mm(left, right)
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    seconds(1)
    times = max(1, int(_PEAK_SECONDS / max(seconds(1), 1e-4)))
    return 2 * size**3 * times / min(seconds(times) for _ in range(3))


@contextmanager
def counting() -> Iterator[Counts]:
    """Counts the operations of passes, and how often memory ran out."""
    counts = Counts()
    go, is_out = Model.run, recovery.is_out_of_memory

    def counted(model: Model, rows: Any, **more: Any) -> Any:
        size, length = rows.inputs["input_ids"].shape
        passes = 2 if torch.is_grad_enabled() else 1
        counts.operations += passes * size * forward_flops(model, [length])
        return go(model, rows, **more)

    def noted(error: Exception) -> bool:
        found = is_out(error)
        counts.halvings += found
        return found

    with (
        mock.patch.object(Model, "run", counted),
        mock.patch.object(recovery, "is_out_of_memory", noted),
    ):
        yield counts
