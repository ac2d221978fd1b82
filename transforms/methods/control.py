"""Controls: scores that know nothing, which every method must beat."""

import numpy as np
import torch

from attribeam.transforms.passes.captured import Captured
from attribeam.transforms.registry import Method, Params, Scores, register


def random(captured: Captured, params: Params) -> Scores:
    """Uniform scores in [0, 1), drawn per instance from a generator of its own."""
    batch = captured.batch
    scores = np.zeros(batch.rows.attention_mask.shape)
    for row, instance in zip(scores, batch.instances, strict=True):
        row[: len(instance)] = instance.generator(captured.seed, "random").random(len(instance))
    return Scores(torch.from_numpy(scores).to(captured.logits))


register(
    Method(
        name="random",
        compute=random,
        needs=lambda params: (),
        defaults={},
        signed=False,
        class_dependent=False,
        additive=False,
        stochastic=True,
        cost="0",
        paper="control",
        equation="U(0, 1)",
    )
)
