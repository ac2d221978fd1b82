"""Layer-wise relevance propagation through a post-LN encoder and its head, in float64."""

from typing import Literal, NamedTuple

import torch

from transforms.batch import Rows
from transforms.model import Model

Rules = Literal["cvpr21", "orig"]


class RelevanceMaps(NamedTuple):
    """Where the relevance of the explained scalar arrived, in float64.

    Attributes:
        attention: At each layer's attention probabilities, each [B, H, T, T].
        entered: At what enters the encoder, [B, T, d].
    """

    attention: list[torch.Tensor]
    entered: torch.Tensor


def walk(model: Model, rows: Rows, weights: torch.Tensor, rules: Rules) -> RelevanceMaps:
    """Walks the relevance back."""
    raise NotImplementedError
