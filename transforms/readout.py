"""The last layer for one position alone, where only that position is read out.

A classifier reads the [CLS], a masked LM the [MASK]; nothing else that the last layer computes is
looked at. With a single query the keys and values needn't be formed either: a score is
q . (K h_j) = (K^T q) . h_j (the key's bias adds the same to every j and drops out of the softmax),
and the mixed value is V (sum_j A_j h_j) + b_V. The layer then costs about as much per row as it
otherwise costs per token, which saves nearly one layer of every forward and backward pass. The
numbers are the same up to rounding.
"""

from functools import partial
from typing import Any

import torch
from torch import nn

from transforms.anatomy import Anatomy
from transforms.capture import current_recorder


def patch_last_layer(layer: nn.Module, anatomy: Anatomy, heads: int) -> None:
    """Lets a model's last layer compute the readout position only, when a recorder asks for it."""
    layer.forward = partial(_forward, layer, layer.forward, anatomy, heads)


def _forward(
    layer: nn.Module,
    whole: Any,
    anatomy: Anatomy,
    heads: int,
    hidden: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    *args: Any,
    **kwargs: Any,
) -> torch.Tensor:
    """Hidden states [B, T, d] in; all of the output, or [B, 1, d] of the readout position."""
    recorder = current_recorder()
    if recorder is None or recorder.readout is None:
        output: torch.Tensor = whole(hidden, attention_mask, *args, **kwargs)
        return output
    every = torch.arange(len(hidden), device=hidden.device)
    own = hidden[every, recorder.readout]
    context = _attend(layer, anatomy, heads, hidden, own, attention_mask)
    return anatomy.finish(layer, context[:, None], own[:, None])


def _attend(
    layer: nn.Module,
    anatomy: Anatomy,
    heads: int,
    hidden: torch.Tensor,
    own: torch.Tensor,
    attention_mask: torch.Tensor | None,
) -> torch.Tensor:
    """Mixed values of all heads for one query a row: [B, T, d] and [B, d] to [B, d]."""
    query, key, value = (_linear(layer, path) for path in anatomy.projections)
    queries = query(own).unflatten(-1, (heads, -1))
    scale = queries.shape[-1] ** -0.5
    keys = key.weight.view(heads, -1, hidden.shape[-1])
    values = value.weight.view(heads, -1, hidden.shape[-1])
    towards = torch.einsum("bhe,hed->bhd", queries * scale, keys)
    scores = towards @ hidden.transpose(1, 2)
    if attention_mask is not None:
        # The mask hides keys only, so any query's row of it will do.
        scores = scores + attention_mask[:, :, 0]
    mixed = scores.softmax(-1) @ hidden
    context = torch.einsum("bhd,hed->bhe", mixed, values).flatten(1)
    return context + value.bias


def _linear(layer: nn.Module, path: str) -> nn.Linear:
    module = layer.get_submodule(path)
    if not isinstance(module, nn.Linear):
        raise TypeError(f"{path} is a {type(module).__name__}, not a linear layer")
    return module
