"""What was explained in a notebook, kept: a run that is verified, reported and ready to publish.

python examples/use_keep.py out page
"""

import sys
from pathlib import Path

import attribeam as ab

MODEL = Path(__file__).parent / "models/sentiment-bert"
ROWS = [
    {"text": "the plot is not at all dull .", "label": "positive"},
    {"text": "I did not find the sound mediocre.", "label": "positive"},
]


def main(output: str, page: str) -> None:
    """Keeps an explanation as a run, and writes what would be published of it."""
    with ab.explain(MODEL, ROWS, ["decompx", "random"], evaluate=True) as result:
        run = result.save(output)
    assert not ab.verify(output).problems
    print(run.sql("from ranking"))
    print(ab.publish(output, "user/name", dry_run=page).files, "files to publish")


if __name__ == "__main__":
    main(*sys.argv[1:])
