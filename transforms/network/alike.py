"""The first layer's projections of positions that enter it alike, computed once for all of them.

Perturbed copies of a text have few vectors at their first layer: each position has its own token or
what was put in its place. Queries, keys and values, a quarter of the layer's products with weights,
are computed of the vectors that differ. They are what they would be, up to rounding.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from attribeam.transforms.network.capture import current_recorder
from attribeam.transforms.network.parts import Layer

# Of all positions, the share that may differ: to put vectors in their places takes time too.
_FEW = 0.5
_KNOWN = {"input_ids", "token_type_ids"}


class Alike(NamedTuple):
    """Which of B x T positions enter the first layer alike.

    Attributes:
        shape: B and T.
        first: Number of one position of each kind, [U].
        kind: Kind of each position, [B * T].
    """

    shape: tuple[int, int]
    first: torch.Tensor
    kind: torch.Tensor


def alike(
    inputs: Mapping[str, torch.Tensor], mask: torch.Tensor, positions: torch.Tensor | None
) -> Alike | None:
    """Finds positions with the same token, type and place; None if that isn't worth it.

    On a GPU it isn't: it would be waited for.

    Args:
        inputs: What a network is fed, [B, T] each.
        mask: 1 for positions that are there, [B, T]. Some families' embeddings of others are zero.
        positions: Their places, [B, T]; None if these are the network's to find.
    """
    one = len(mask) == 1 or positions is None
    if one or mask.device.type != "cpu" or not {"input_ids"} <= set(inputs) <= _KNOWN:
        return None
    key = np.zeros(mask.numel(), np.int64)
    for values in (inputs["input_ids"], inputs.get("token_type_ids"), positions, mask):
        if values is not None:
            own = values.numpy().reshape(-1)
            key = key * (int(own.max()) + 1) + own
    _, first, kind = np.unique(key, return_index=True, return_inverse=True)
    if len(first) > _FEW * len(key):
        return None
    shape = len(mask), mask.shape[1]
    return Alike(shape, torch.from_numpy(first), torch.from_numpy(kind.reshape(-1)))


def patch_projections(layer: Layer) -> None:
    """Lets a network's first layer compute queries, keys and values once of what is alike."""
    own = layer.attention
    # One module may be several of them.
    for module in {part.module for part in (own.query, own.key, own.value)}:
        if getattr(module.forward, "func", None) is not _projected:
            module.forward = partial(_projected, module.forward)


def _projected(whole: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """A map of positions, [B, T, n] to [B, T, m], by the module's own code (``whole``)."""
    recorder = current_recorder()
    found = None if recorder is None or recorder.number != 1 else recorder.alike
    # What is mapped may be embeddings of distances, or one position of each row.
    if found is None or x.shape[:-1] != found.shape:
        return whole(x)
    few = whole(x.flatten(0, 1).index_select(0, found.first))
    every: torch.Tensor = few.index_select(0, found.kind).unflatten(0, found.shape)
    return every
