"""Which method is to be trusted, and what does it cost? A corpus, four methods and a control.

python examples/use_compare.py out
"""

import sys
from pathlib import Path

import attribeam as ab

HERE = Path(__file__).parent
METHODS = "decompx,integrated_gradients,occlusion,saliency,random"


def main(output: str, limit: int = 50) -> None:
    """Runs methods on reviews and prints them, the most faithful first."""
    ab.run(
        ab.Options(
            model=str(HERE / "models/sentiment-bert"),
            corpus=str(HERE / "data/sentiment.parquet"),
            output=output,
            methods=METHODS,
            limit=limit,
        )
    )
    print(ab.open_run(output).sql("select rank, method, auc_difference, ms from ranking"))


if __name__ == "__main__":
    main(sys.argv[1])
