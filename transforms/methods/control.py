"""Controls: scores that know nothing, which every method must beat, and those that know all."""

import numpy as np
import torch

from attribeam.transforms.passes.captured import Captured
from attribeam.transforms.registry import Method, Params, Scores, register

_NO_RATIONALE = "the row has no rationale (of pictures: no mask)"


def random(captured: Captured, params: Params) -> Scores:
    """Uniform scores in [0, 1), drawn per instance from a generator of its own."""
    batch = captured.batch
    scores = np.zeros(batch.rows.attention_mask.shape)
    for row, instance in zip(scores, batch.instances, strict=True):
        row[: len(instance)] = instance.generator(captured.seed, "random").random(len(instance))
    return Scores(torch.from_numpy(scores).to(captured.logits))


def mask_itself(captured: Captured, params: Params) -> Scores:
    """The rationale as scores, 1 in it and 0 elsewhere: what no method can beat at finding it.

    Of pictures it is the patches that the mask covers by half at least. An instance without a
    rationale has no scores.
    """
    batch = captured.batch
    scores, errors = np.zeros(batch.rows.attention_mask.shape), {}
    for number, instance in enumerate(batch.instances):
        if instance.rationale is None:
            errors[number] = ValueError(_NO_RATIONALE)
        else:
            scores[number, : len(instance)] = instance.rationale
    return Scores(torch.from_numpy(scores).to(captured.logits), errors=errors)


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
register(
    Method(
        name="mask_itself",
        compute=mask_itself,
        needs=lambda params: (),
        defaults={},
        signed=False,
        class_dependent=False,
        additive=False,
        opt_in="it is the rationale that others are compared with",
        cost="0",
        paper="control",
        equation="1 in the rationale, 0 elsewhere",
    )
)
