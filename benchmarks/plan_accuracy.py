"""What `attribeam plan` says, against what the run then takes: time, size of the tables, memory.

Plan and run are processes of their own, in turn; seconds are of the CPU, so that other work on the
machine doesn't count.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from attribeam.pipeline import Options, run
from attribeam.pipeline.planning.calibrate import peak_memory
from attribeam.pipeline.planning.estimate import estimate_run
from attribeam.transforms.evaluate import Evaluation
from benchmarks.material import Material

ROUNDS = 2
LIMIT = 0.30
SETS: dict[str, dict[str, Any]] = {
    "cheap methods": {
        "methods": "random,raw_attention,attention_rollout,saliency,grad_x_input,globenc",
        "evaluation": None,
    },
    "path methods and curves": {
        "methods": "integrated_gradients,bt_token,lrp,saliency",
        "params": {"integrated_gradients": {"steps": 10}, "bt_token": {"steps": 5}},
        "evaluation": Evaluation(fractions=(0.1, 0.2, 0.5)),
    },
}


def main(material: Material) -> bool:
    """Prints predicted over real; returns whether all are within the limit."""
    good = True
    for name in SETS:
        rounds = [_round(material, name) for _ in range(ROUNDS)]
        ratios = {what: median(r[what] for r in rounds) for what in rounds[0]}
        good &= all(abs(ratio - 1) <= LIMIT for ratio in ratios.values())
        found = ", ".join(f"{what} {ratio:.2f}x" for what, ratio in ratios.items())
        spread = ", ".join(f"{each['seconds']:.2f}" for each in rounds)
        print(
            f"plan over run, {name}, {material.limit} rows: {found} "
            f"(limit 1 +- {LIMIT:.0%}; seconds of each round: {spread})",
            flush=True,
        )
    return good


def _round(material: Material, name: str) -> dict[str, float]:
    """Predicted over real."""
    with tempfile.TemporaryDirectory() as folder:
        given = [str(material.model), str(material.corpus), str(material.limit), folder, name]
        planned, real = (_process(what, given) for what in ("plan", "run"))
    return {what: planned[what] / real[what] for what in planned}


def _process(what: str, given: list[str]) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.plan_accuracy", what, *given]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _options(model: str, corpus: str, limit: str, folder: str, name: str) -> Options:
    output = str(Path(folder) / "out")
    return Options(model, corpus, output, limit=int(limit), shard_size=128, **SETS[name])


def _plan(options: Options) -> dict[str, float]:
    found = estimate_run(options, "cpu", clock=time.process_time)
    seconds = 3600 * found.hours
    return {"seconds": seconds, "bytes": found.output_bytes, "memory": found.memory}


def _run(options: Options) -> dict[str, float]:
    start = time.process_time()
    run(options)
    seconds = time.process_time() - start
    root = Path(options.output)
    files = [path for path in root.rglob("*.parquet") if path.parts[len(root.parts)] != "corpus"]
    size = sum(path.stat().st_size for path in files)
    return {"seconds": seconds, "bytes": size, "memory": peak_memory()}


if __name__ == "__main__":
    work = {"plan": _plan, "run": _run}[sys.argv[1]]
    print(json.dumps(work(_options(*sys.argv[2:]))))
