"""``python -m benchmarks [NAME ...] [--model DIR --corpus PATH]``: prints every figure."""

import argparse
import sys
import tempfile
from importlib import import_module
from pathlib import Path

import torch
import transformers

from benchmarks.material import CORPUS, Material, stand_in


def _run(module: str, material: tuple[Material, ...]) -> bool:
    """Runs a benchmark, whose libraries only those who ask for it need."""
    good: bool = import_module(f"benchmarks.{module}").main(*material)
    return good


def main() -> int:
    """Runs the named benchmarks, or all; the exit status says whether all reach their limits."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--model", type=Path, help="folder of a classifier (a random MiniLM)")
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="Parquet file with `text`")
    parser.add_argument("--limit", type=int, default=64, help="instances for passes and captum")
    parser.add_argument("--other", type=Path, help="checkout of another commit, for against")
    parser.add_argument("--beam-limit", type=int, default=1000, help="instances for the pipeline")
    arguments = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or stand_in(Path(folder))
        few = Material(model, arguments.corpus, arguments.limit)
        many = Material(model, arguments.corpus, arguments.beam_limit)
        known: dict[str, tuple[str, tuple[Material, ...]]] = {
            "passes": ("passes", (few,)),
            "captum": ("captum_ig", (few,)),
            "perturbation": ("perturbation", (few,)),
            "norms": ("norms", ()),
            "beyond": ("beyond", ()),
            "pictures": ("pictures", ()),
            "decoders": ("decoders", ()),
            "long_prompts": ("long_prompts", ()),
            "decompx": ("decompx", ()),
            "bottleneck": ("bottleneck", (few,)),
            "beta": ("bottleneck_beta", (few,)),
            "attention_path": ("attention_path", (few,)),
            "influence": ("influence", ()),
            "beam": ("beam_share", (many,)),
            "devices": ("devices", ()),
            "gpu": ("gpu", (few,)),
            "plan": ("plan_accuracy", (Material(model, arguments.corpus, 200),)),
            "memory": ("memory", ()),
            "sql": ("sql_scale", ()),
            "planning": ("planning", ()),
            "checking": ("checking", (Material(model, arguments.corpus, 12),)),
            "quadrature": ("quadrature", (Material(model, arguments.corpus, 12),)),
            "many_files": ("many_files", ()),
            "publishing": ("publishing", ()),
            "soak": ("soak", ()),
        }
        if arguments.other is not None:
            known["against"] = (
                "against",
                (Material(arguments.other.resolve(), few.corpus, 0), few),
            )
        unknown = set(arguments.names) - set(known)
        if unknown:
            parser.error(f"there is no benchmark {unknown.pop()}; there are {', '.join(known)}")
        results = {}
        for name in arguments.names or known:
            print(f"# {name}", flush=True)
            results[name] = _run(*known[name])
    missed = [name for name, good in results.items() if not good]
    print(f"missed: {', '.join(missed)}" if missed else "all within their limits")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
