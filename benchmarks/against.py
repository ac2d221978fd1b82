"""All methods of another commit, with their curves, by this one and by that one in turn.

``python -m benchmarks against --other DIR`` with a checkout of it, such as 216a678, the commit
of 21 November 2026 that the limits are of. Each turn is a process of its own, which loads the
model, runs one sentence to warm up, and then says how much CPU time all of them take. Methods that
the other commit lacks are left out.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.material import Material

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 3
# How many times cheaper than 216a678; with ``--perturb-dtype auto`` where there is bfloat16.
CHEAPER, CHEAPER_HALVED = 1.25, 1.6

# Of a checkout: package or bare modules, and whether its evaluations have a type.
_WORKER = """
import json, pathlib, sys, time
import torch
folder, corpus, limit, names, dtype = json.loads(sys.argv[1])
torch.set_num_threads(1)
if pathlib.Path("src/attribeam").is_dir():
    from attribeam import transforms as t
    from attribeam.transforms import evaluate as e
else:
    import transforms as t
    from transforms import perturb as e
import pyarrow.parquet as pq
model = t.load_model(folder)
every = sorted(c.name for c in t.choose("all"))
if not names:
    print(json.dumps(every))
    sys.exit()
texts = pq.read_table(corpus, columns=["text"])["text"].to_pylist()[: limit + 1]
instances = t.encode(model, texts)
chosen = [c.fitted(model) for c in t.choose(names)]
more = {} if dtype is None else {"dtype": dtype}
evaluation = e.Evaluation(**more).checked(model)
statistics = t.collect(model, instances, 1024)

def all_of_it(some):
    start = time.process_time()
    found = t.attribute(model, some, chosen, statistics=statistics)
    between = time.process_time()
    rankings = [
        e.Ranking(instance, choice.name, row.scores, prediction.target)
        for choice in chosen
        if getattr(choice.method, "scored", True)
        for instance, row, prediction in zip(some, found.rows[choice.name], found.predictions)
        if row is not None
    ]
    e.curves(model, rankings, evaluation, token_budget=1024)
    return between - start, time.process_time() - between

all_of_it(instances[limit:])
print(json.dumps(all_of_it(instances[:limit])))
"""


def main(checkout: Material, material: Material) -> bool:
    """Prints how many times cheaper this commit is; returns whether that is enough.

    Args:
        checkout: Its folder is that of the other commit.
        material: What both are run on.
    """
    other = checkout.model
    both = [set(map(str, _call(root, material, [], None))) for root in (other, ROOT)]
    names = sorted(set.intersection(*both))
    sides: dict[str, tuple[Path, str | None]] = {
        "other": (other, None),
        "ours": (ROOT, None),
        "bfloat16": (ROOT, "bfloat16"),
    }
    seconds: dict[str, list[list[float]]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, (root, dtype) in sides.items():
            seconds[name].append(_call(root, material, names, dtype))
            print(f"  {name}: {seconds[name][-1]}", flush=True)
    for name, rounds in seconds.items():
        attributed, evaluated = (median(column) for column in zip(*rounds, strict=True))
        print(f"  {name}: {attributed:.1f} s of methods, {evaluated:.1f} s of curves")
    ours, halved = (
        median(sum(a) / sum(b) for a, b in zip(seconds["other"], seconds[name], strict=True))
        for name in ("ours", "bfloat16")
    )
    print(
        f"{len(names)} methods with curves on {material.limit} sentences: {ours:.2f}x cheaper than "
        f"{other.name} (target {CHEAPER}x), with curves in bfloat16 {halved:.2f}x (target "
        f"{CHEAPER_HALVED}x where the processor has it)"
    )
    return ours >= CHEAPER


def _call(root: Path, material: Material, names: Sequence[str], dtype: str | None) -> list[float]:
    """What a process that imports a checkout prints."""
    given = [str(material.model), str(material.corpus), material.limit, list(names), dtype]
    paths = os.pathsep.join(map(str, (root / "src", root)))
    done = subprocess.run(
        [sys.executable, "-c", _WORKER, json.dumps(given)],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
    )
    found: list[float] = json.loads(done.stdout.splitlines()[-1])
    return found
