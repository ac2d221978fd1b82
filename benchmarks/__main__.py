"""``python -m benchmarks [NAME ...] [--model DIR --corpus PATH]``: prints every figure."""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import transformers

from benchmarks import (
    attention_path,
    beam_share,
    beyond,
    bottleneck,
    bottleneck_beta,
    captum_ig,
    decompx,
    gpu,
    influence,
    memory,
    norms,
    passes,
    perturbation,
    pictures,
    plan_accuracy,
    planning,
    soak,
    sql_scale,
)
from benchmarks.material import CORPUS, Material, stand_in


def main() -> int:
    """Runs the named benchmarks, or all; the exit status says whether all reach their limits."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--model", type=Path, help="folder of a classifier (a random MiniLM)")
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="Parquet file with `text`")
    parser.add_argument("--limit", type=int, default=64, help="instances for passes and captum")
    parser.add_argument("--beam-limit", type=int, default=1000, help="instances for the pipeline")
    arguments = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or stand_in(Path(folder))
        few = Material(model, arguments.corpus, arguments.limit)
        many = Material(model, arguments.corpus, arguments.beam_limit)
        known: dict[str, Callable[[], bool]] = {
            "passes": lambda: passes.main(few),
            "captum": lambda: captum_ig.main(few),
            "perturbation": lambda: perturbation.main(few),
            "norms": norms.main,
            "beyond": beyond.main,
            "pictures": pictures.main,
            "decompx": decompx.main,
            "bottleneck": lambda: bottleneck.main(few),
            "beta": lambda: bottleneck_beta.main(few),
            "attention_path": lambda: attention_path.main(few),
            "influence": influence.main,
            "beam": lambda: beam_share.main(many),
            "gpu": lambda: gpu.main(few),
            "plan": lambda: plan_accuracy.main(Material(model, arguments.corpus, 200)),
            "memory": memory.main,
            "sql": sql_scale.main,
            "planning": planning.main,
            "soak": soak.main,
        }
        unknown = set(arguments.names) - set(known)
        if unknown:
            parser.error(f"there is no benchmark {unknown.pop()}; there are {', '.join(known)}")
        results = {}
        for name in arguments.names or known:
            print(f"# {name}", flush=True)
            results[name] = known[name]()
    missed = [name for name, good in results.items() if not good]
    print(f"missed: {', '.join(missed)}" if missed else "all within their limits")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
