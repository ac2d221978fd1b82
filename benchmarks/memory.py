"""Peak memory of a run, on a corpus and on one 50 times as large."""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from attribeam.pipeline import Options, run
from attribeam.transforms.evaluate import Evaluation
from benchmarks.material import MODEL, repeated

ROWS, TIMES = 400, 50
METHODS = "random,raw_attention,grad_x_input"
# All stages are run, and few points of the curves, so that 20,000 texts take minutes.
EVALUATION = Evaluation(fractions=(0.5,), orders=("morf",))
SHARD = 100
LIMIT = 1.10


def main() -> bool:
    """Prints both peaks; returns whether the larger corpus stays within the limit."""
    with tempfile.TemporaryDirectory() as folder:
        peaks = []
        for times in (1, TIMES):
            corpus = repeated(ROWS, times, Path(folder) / f"{times}.parquet")
            peaks.append(_peak(corpus, Path(folder) / f"out-{times}"))
    small, large = peaks
    print(
        f"peak memory: {small / 1024:.0f} MiB on {ROWS} instances, {large / 1024:.0f} MiB on "
        f"{TIMES} times as many: {large / small:.3f}x (limit {LIMIT}x)"
    )
    return large / small <= LIMIT


def _peak(corpus: Path, output: Path) -> int:
    """Peak resident size in KiB of a process of its own that runs the corpus."""
    command = [sys.executable, "-m", "benchmarks.memory", str(corpus), str(output)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1])


if __name__ == "__main__":
    run(
        Options(
            model=str(MODEL),
            corpus=sys.argv[1],
            output=sys.argv[2],
            methods=METHODS,
            evaluation=EVALUATION,
            shard_size=SHARD,
            device="cpu",
        )
    )
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
