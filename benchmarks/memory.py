"""Peak memory of a run, on a corpus and on one 20 times as large."""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.material import CORPUS, MODEL, repeated
from pipeline import Options, run

TIMES = 20
METHODS = "random,raw_attention,grad_x_input"
LIMIT = 1.10


def main() -> bool:
    """Prints both peaks; returns whether the larger corpus stays within the limit."""
    with tempfile.TemporaryDirectory() as folder:
        small = _peak(CORPUS, Path(folder) / "small")
        corpus = repeated(CORPUS, TIMES, Path(folder) / "large.parquet")
        large = _peak(corpus, Path(folder) / "large")
    print(
        f"peak memory: {small / 1024:.0f} MiB on the bundled corpus, {large / 1024:.0f} MiB on "
        f"{TIMES} times as much: {large / small:.3f}x (limit {LIMIT}x)"
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
            shard_size=100,
            device="cpu",
        )
    )
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
