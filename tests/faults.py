"""Runs in parts on hosts that are killed and cut off, many times.

    make faults

With ``FAULTS=200`` so many in all, twenty to a run. Ends with status 1 if anything was lost,
doubled, altered, or made twice.
"""

import sys
import tempfile
from pathlib import Path

from tests.support.faults import simulate, summary
from tests.support.models import save_tiny

EACH = 20


def main(faults: int) -> int:
    """Simulates until there have been so many faults, and says what came of it."""
    problems = 0
    for seed in range(-(-faults // EACH)):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            model = save_tiny(folder / "model", "bert")
            (folder / "run").mkdir()
            found = simulate(folder / "run", model, faults=EACH, shards=16, seed=seed)
        print(f"{seed}: {summary(found)}", *found.problems, sep="\n    ", flush=True)
        problems += len(found.problems)
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 200))
