"""Which class is explained, and which scalar of it.

A classifier is explained by the logit of the target class. A masked LM is explained by a contrast:
the logit of the target word minus the other's (target 0 is the correct word, 1 the wrong one).
Either way the scalar is a weighted sum of the logits.
"""

from collections.abc import Sequence
from typing import Literal

import torch

from attribeam.schemas import UsageError
from attribeam.transforms.inputs.batch import Instance
from attribeam.transforms.network.model import Model

Output = Literal["logit", "probability"]


def parse_target(target: str, model: Model) -> str | int:
    """Checks ``--target``: auto, predicted, gold, or the number of a class.

    ``auto`` is the predicted class for a classifier and the correct word for a masked LM.

    Raises:
        UsageError: If it is none of these, or the model has no such class.
    """
    if target == "auto":
        return "gold" if model.task == "masked_lm" else "predicted"
    if target in ("predicted", "gold"):
        return target
    try:
        number = int(target)
    except ValueError:
        raise UsageError(
            f"--target {target} is neither auto, predicted, gold nor the number of a class"
        ) from None
    if not 0 <= number < model.num_outputs:
        raise UsageError(
            f"--target {number}: the model has classes 0 to {model.num_outputs - 1} "
            f"({', '.join(model.labels)})"
        )
    return number


def targets_of(
    target: str | int, logits: torch.Tensor, instances: Sequence[Instance]
) -> torch.Tensor:
    """Class to explain per instance, [B]: its predicted or gold class, or the one given.

    Args:
        target: As ``parse_target`` returns it.
        logits: [B, C].
        instances: B instances; with ``gold`` each has a label (encoding sees to that).
    """
    if target == "predicted":
        return logits.argmax(dim=-1)
    if target == "gold":
        return torch.tensor([instance.label for instance in instances], device=logits.device)
    return torch.full((len(instances),), int(target), device=logits.device)


def target_weights(targets: torch.Tensor, model: Model) -> torch.Tensor:
    """Weights [B, C] that turn logits into the explained scalar: one-hot, or +1 and -1."""
    chosen = torch.nn.functional.one_hot(targets, model.num_outputs).to(model.dtype)
    return 2 * chosen - 1 if model.task == "masked_lm" else chosen


def output_of(
    logits: torch.Tensor, targets: torch.Tensor, model: Model, kind: Output
) -> torch.Tensor:
    """An output of N rows for a class each: logits [N, C] and classes [N] to [N].

    Args:
        logits: [N, C].
        targets: [N].
        model: The model.
        kind: ``logit``, the explained scalar (of a masked LM the contrast of its two words), or
            the softmax ``probability`` of the class.
    """
    if kind == "logit":
        return (target_weights(targets, model) * logits).sum(-1)
    return logits.softmax(-1).gather(1, targets[:, None])[:, 0]
