"""What Beam, Parquet and the rest of the pipeline add to the same work in a bare loop.

The cheap methods are run and no curves, which is the hard case: the less work an instance is, the
larger the share of everything else. Start-up (imports, staging, an empty graph) is reported apart,
as a run of a single instance.
"""

import tempfile
from pathlib import Path
from statistics import median

import pyarrow.parquet as pq

from attribeam.pipeline import Options, run
from attribeam.transforms import attribute, choose, load_model
from benchmarks.material import Material
from benchmarks.timing import in_turn

METHODS = "random,raw_attention,attention_rollout,saliency,grad_x_input"
LIMIT = 0.10


def main(material: Material) -> bool:
    """Prints the share; returns whether it is within the limit."""
    with tempfile.TemporaryDirectory() as folder:
        return _measure(material, Path(folder))


def _measure(material: Material, folder: Path) -> bool:
    corpus = folder / "corpus.parquet"
    texts = pq.read_table(material.corpus, columns=["text"]).slice(0, material.limit)
    pq.write_table(texts, corpus)
    number = iter(range(1_000_000))

    def beam(limit: int | None) -> None:
        run(
            Options(
                model=str(material.model),
                corpus=str(corpus),
                output=str(folder / f"out-{next(number)}"),
                methods=METHODS,
                limit=limit,
                device="cpu",
                evaluation=None,
            )
        )

    def bare() -> None:
        model = load_model(material.model)
        attribute(model, material.instances(model), choose(METHODS))

    def bare_one() -> None:
        model = load_model(material.model)
        attribute(model, material.instances(model)[:1], choose(METHODS))

    timing = in_turn(
        {
            "run": lambda: beam(None),
            "run of one": lambda: beam(1),
            "bare": bare,
            "bare of one": bare_one,
        }
    )
    rounds = zip(*(timing.seconds[name] for name in timing.seconds), strict=True)
    shares = [((all_ - one) - (loop - loop_one)) / all_ for all_, one, loop, loop_one in rounds]
    startup = timing.median("run of one") - timing.median("bare of one")
    share = median(shares)
    print(
        f"pipeline around {len(texts)} instances: {timing.median('run'):.1f} s of CPU against "
        f"{timing.median('bare'):.1f} s bare; start-up {startup:.1f} s; beyond it the pipeline's "
        f"share is {share:.1%} (limit {LIMIT:.0%})"
    )
    return bool(share <= LIMIT)
