"""``python -m benchmarks.fuzz [--examples N]``: corpora of any content, and damaged files.

The same as ``tests/pipeline/test_fuzz.py`` and ``tests/pipeline/corpus/test_differential.py``, with
another seed each time (or a given one) and many more examples, a quarter of them of each kind. What
came of them is printed; what breaks a rule is shown as small as hypothesis can make it, and the
exit status is 1.
"""

import argparse
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
import transformers
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from tests.support.differential import SHAPES, compare_messy, compare_shape
from tests.support.fuzzing import (
    Corpus,
    Damaged,
    Tally,
    check_damaged,
    check_run,
    corpora,
    damaged_corpora,
    damaged_runs,
    finished_run,
    write,
)
from tests.support.models import save_tiny


def main() -> None:
    """Runs the examples and prints what came of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--examples", type=int, default=500, metavar="N", help="corpora and files")
    parser.add_argument("--seed", type=int, help="to have the same examples again")
    arguments = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    seed = random.randrange(2**32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}")
    tally: Tally = Counter()
    start = time.monotonic()
    try:
        with tempfile.TemporaryDirectory() as folder:
            _fuzz(Path(folder), arguments.examples, seed, tally)
    finally:
        for what, count in sorted(tally.items()):
            print(f"{count:>8,} {what}")
        print(f"{time.monotonic() - start:>8,.0f} s")


def _fuzz(folder: Path, examples: int, seed: int, tally: Tally) -> None:
    model = save_tiny(folder / "model", "bert")
    finished = finished_run(model, folder)
    many = settings(
        max_examples=max(1, examples // 4),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )

    @seeded(seed)
    @many
    @given(corpora())
    def whole(corpus: Corpus) -> None:
        path = folder / f"corpus{corpus.suffix}"
        count = write(corpus, path)
        check_run(model, path, folder / "out", count, corpus.options, tally)

    @seeded(seed)
    @many
    @given(damaged_corpora())
    def damaged_corpus(content: tuple[str, bytes]) -> None:
        suffix, spoiled = content
        path = folder / f"damaged{suffix}"
        path.write_bytes(spoiled)
        check_run(model, path, folder / "out", None, {}, tally)

    @seeded(seed)
    @many
    @given(damaged_runs())
    def damaged_run(damage: Damaged) -> None:
        check_damaged(finished, damage, folder / "copy", tally)

    @seeded(seed)
    @many
    @given(st.sampled_from([*SHAPES, "messy"]), st.integers(0, 2**32))
    def read_by_all(shape: str, number: int) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            if shape == "messy":
                found = compare_messy(number, Path(name))
            else:
                found = compare_shape(shape, number, Path(name))
        tally["files read as others read them" if found else "files refused"] += 1

    read_by_all()
    whole()
    damaged_corpus()
    damaged_run()


if __name__ == "__main__":
    main()
