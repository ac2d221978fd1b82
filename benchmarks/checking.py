"""What `attribeam check` of all four kinds costs, over what its passes cost by themselves.

The floor is counted: a run of the methods for each stage, draw and seed (the first stage of both
kinds of randomised weights once), and a forward pass for each distinct copy without a subset. What
one of each takes is timed before, between and after the steps of the check, in seconds of the
processor.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import torch

from attribeam.pipeline import Options, run
from attribeam.pipeline.experiments.check import Check, CheckOptions, Step, open_check
from attribeam.pipeline.experiments.check_plan import plan_check
from attribeam.transforms.inputs.batch import pack
from attribeam.transforms.inputs.kinds import inputs_of
from attribeam.transforms.inputs.seam import Copy
from attribeam.transforms.subsets import subsets_of
from benchmarks.material import Material

LIMIT = 1.15
# What `--plan` may be off by, either way.
PLAN = 0.30
METHODS = (
    *("random", "raw_attention", "attention_rollout", "globenc", "decompx"),
    *("saliency", "grad_x_input", "integrated_gradients", "occlusion", "lime"),
)
PARAMS = {"integrated_gradients": {"steps": 10}, "lime": {"samples": 30}}
TIMES = 3


def main(material: Material) -> bool:
    """Prints what a check costs over its floor, and over what its plan says."""
    with tempfile.TemporaryDirectory() as folder:
        output = str(Path(folder) / "out")
        run(
            Options(
                str(material.model),
                str(material.corpus),
                output,
                limit=material.limit,
                methods=",".join(METHODS),
                params=PARAMS,
                evaluation=None,
                device="cpu",
            )
        )
        check = open_check(CheckOptions(output, str(material.model), device="cpu"))
        steps = check.steps()
        wall = time.perf_counter()
        planned = sum(cost.seconds for cost in plan_check(check, steps))
        wall = time.perf_counter() - wall
        floor, real, elapsed = _floor_and_real(check, steps)
    ratio, of_plan = real / floor, planned / elapsed
    print(
        f"check of {material.limit} sentences x {len(METHODS)} methods: {ratio:.3f} of the floor "
        f"({real:.1f} s over {floor:.1f} s, {len(steps)} steps; limit {LIMIT}); plan over real "
        f"{of_plan:.2f} (limit 1 +- {PLAN:.0%}; the plan took {wall:.1f} s)",
        flush=True,
    )
    return ratio <= LIMIT and abs(of_plan - 1) <= PLAN


def _floor_and_real(check: Check, steps: Sequence[Step]) -> tuple[float, float, float]:
    """Processor's seconds of the floor and of the check, and the check's on the clock."""
    _ = check.given
    sets = list(dict.fromkeys(step.methods for step in steps if step.passes))
    copies = _copies(check)
    units: dict[object, list[float]] = {methods: [] for methods in sets} | {"subsets": []}

    def measure() -> None:
        for methods in sets:
            units[methods].append(_seconds(partial(check.attributed, methods, check.given)))
        units["subsets"].append(_seconds(lambda: _run(check, copies)))

    real = elapsed = 0.0
    for number, step in enumerate(steps):
        if number % -(-len(steps) // (TIMES - 1)) == 0:
            measure()
        wall = time.perf_counter()
        real += _seconds(partial(check.run, step))
        elapsed += time.perf_counter() - wall
    measure()
    floor = sum(step.passes * median(units[step.methods]) for step in steps if step.passes)
    return floor + median(units["subsets"]), real, elapsed


def _copies(check: Check) -> list[Copy]:
    """The distinct copies of all instances without subsets of their units."""
    samples, seed = check.options.samples, check.again.settings.seed
    found = []
    for one in check.instances:
        subsets = subsets_of(one, check.unit_of(one), samples, seed)
        distinct = {subset.removed.tobytes(): subset.removed for subset in subsets}
        found += [(one, check.operation, removed) for removed in distinct.values()]
    return found


def _run(check: Check, copies: Sequence[Copy]) -> None:
    """A forward pass of each copy, in full batches of nearly equal length."""
    model = check.again.model
    kind = inputs_of(model)
    lengths = [kind.length(model, copy) for copy in copies]
    with torch.no_grad():
        for batch in pack(lengths, check.budget, model.head_size):
            model.run(kind.perturbed(model, [copies[at] for at in batch]))


def _seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start
