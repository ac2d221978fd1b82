"""Runs that are killed again and again, at random moments and at every step of writing a file.

Each run is taken up until it ends, and must then be the one that nobody disturbed, row by row. A
short form of this is ``tests/pipeline/running/test_kill.py``; both have their parts from
``tests/support/killing.py``.

Run it by itself with ``python -m benchmarks.soak [--kills 200] [--seed 0]``; a kill takes about
three seconds.
"""

import argparse
import tempfile
import time
from collections import Counter
from dataclasses import fields
from pathlib import Path
from random import Random

from tests.support.killing import Job, Losses, losses, random_blow, struck, torn
from tests.support.models import save_tiny

KILLS, SEED = 20, 0
_KINDS = tuple(each.name for each in fields(Losses))


def main(kills: int = KILLS, seed: int = SEED) -> bool:
    """Prints where the kills struck and what they cost; True if nothing was lost."""
    start = time.monotonic()
    random = Random(seed)
    stages: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        job = _job(Path(folder))
        cost = _cost(job, job.folder / "again")
        seconds = job.attempt(job.folder / "once more").seconds
        runs = 0
        while stages.total() < kills and not any(cost.values()):
            runs += 1
            out = job.folder / f"run-{runs}"
            while stages.total() < kills:
                found = job.attempt(out, random_blow(random, seconds))
                if not found.killed:
                    break
                stages[struck(found.where)] += 1
                cost["torn"] += len(torn(out, job.undisturbed))
            cost.update(_cost(job, out))
    print(f"{stages.total()} kills of {runs} runs in {time.monotonic() - start:.0f} s")
    for stage, count in stages.most_common():
        print(f"{count:5} {stage}")
    print(", ".join(f"{name} {cost[name]}" for name in (*_KINDS, "errors")))
    return not any(cost.values())


def _job(folder: Path) -> Job:
    (folder / "model").mkdir()
    return Job.made(folder, save_tiny(folder / "model", "bert", "classification"))


def _cost(job: Job, out: Path) -> Counter[str]:
    """Runs a job to its end; what it differs from the undisturbed one in."""
    last = job.attempt(out)
    found = losses(out, job.undisturbed)
    if last.error or found != Losses():
        print(f"{out.name}: {last.error} {found}")
    cost = Counter({name: len(getattr(found, name)) for name in _KINDS})
    cost["errors"] = int(bool(last.error))
    return cost


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    raise SystemExit(0 if main(arguments.kills, arguments.seed) else 1)
