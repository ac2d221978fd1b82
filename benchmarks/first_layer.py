"""What is saved by projecting once what enters the first layer alike (``network/alike.py``).

Copies of sentences with random halves of their tokens masked, as curves have them, are run with it
and without, in turn. The logits are compared too.
"""

from collections.abc import Callable
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from attribeam.transforms.inputs.variants import Variants
from attribeam.transforms.network import model as network
from benchmarks.material import Material
from benchmarks.timing import in_turn

INSTANCES, COPIES, ROUNDS = 4, 40, 21
BUDGET = 1024


def main(material: Material) -> bool:
    """Prints the ratio; returns whether it is a gain and logits are the same up to rounding."""
    model, instances = material.load()
    random = np.random.default_rng(0)
    masked = [
        (instance, instance.removable & (random.random(len(instance)) < 0.5))
        for instance in instances[:INSTANCES]
        for _ in range(COPIES)
    ]

    def run() -> NDArray[np.float64]:
        variants = Variants(model)
        for instance, removed in masked:
            variants.add(instance, "mask", removed)
        variants.run(BUDGET)
        return variants.logits

    def each() -> NDArray[np.float64]:
        with mock.patch.object(network, "alike", return_value=None):
            return run()

    error = float(np.abs(run() - each()).max() / np.abs(each()).max())
    work: dict[str, Callable[[], object]] = {"once": run, "each": each}
    timing = in_turn(work, ROUNDS)
    ratio = timing.ratio("each", to="once")
    print(
        f"masked copies of {INSTANCES} sentences: the first layer's projections of each position "
        f"over those of what differs {ratio:.3f}x; logits differ by {error:.1e} of the largest"
    )
    return ratio > 1 and error < 1e-5
