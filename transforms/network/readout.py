"""The last layer for one position alone, where only that position is read out.

A classifier reads the [CLS], a masked LM the [MASK]; nothing else that the last layer computes is
looked at. With a single query the keys and values needn't be formed either: a score is
q . (K h_j) = (K^T q) . h_j (the key's bias adds the same to every j and drops out of the softmax),
and the mixed value is V (sum_j A_j h_j) + b_V. The layer then costs about as much per row as it
otherwise costs per token, which saves nearly one layer of every forward and backward pass. Where
attention is looked at, it and the values are formed for all positions; what follows, three quarters
of the layer, still isn't. The numbers are the same up to rounding.
"""

from functools import partial
from typing import Any

import torch

from attribeam.transforms.network.capture import Recorder, current_recorder, record_attention
from attribeam.transforms.network.parts import Attention, Layer


def patch_last_layer(layer: Layer) -> None:
    """Lets a model's last layer compute the readout position only, when a recorder asks for it."""
    module = layer.module
    if getattr(module.forward, "func", None) is _forward:
        return  # Another model has the same network.
    module.forward = partial(_forward, layer, module.forward)


def _forward(
    layer: Layer,
    whole: Any,
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
    attended, parts = layer.attend(hidden), layer.attention
    if recorder.watch.attention:
        projected = (project(attended) for project in (parts.query, parts.key, parts.value))
        queries, keys, values = (
            x.unflatten(-1, (parts.heads, -1)).transpose(1, 2) for x in projected
        )
        probabilities = record_attention(recorder, queries, keys, values, attention_mask)
        mixed = (probabilities[every, :, recorder.readout][:, :, None] @ values).flatten(1)
    else:
        mixed = _mixed_by_one(recorder, parts, attended, layer.attend(own), attention_mask)
    return layer.finish(mixed[:, None], own[:, None])


def _mixed_by_one(
    recorder: Recorder,
    parts: Attention,
    hidden: torch.Tensor,
    own: torch.Tensor,
    attention_mask: torch.Tensor | None,
) -> torch.Tensor:
    """Mixed values of all heads for one query a row: [B, T, d] and [B, d] to [B, d]."""
    probabilities = _attention(parts, hidden, own, attention_mask)
    total: torch.Tensor | int = 1
    if recorder.watch.readout_attention:
        if not probabilities.requires_grad:
            # The graph begins here: what lies below has no part in gradients of attention.
            probabilities.requires_grad_()
        recorder.readout_attention = probabilities
        # They sum to 1, but their gradient is to know that the bias is multiplied by them too.
        total = probabilities.sum(-1)[..., None]
    values = parts.value.weight.view(parts.heads, -1, hidden.shape[-1])
    mixed = torch.einsum("bhd,hed->bhe", probabilities @ hidden, values)
    if parts.value.bias is not None:
        mixed = mixed + parts.value.bias.view(parts.heads, -1) * total
    return mixed.flatten(1)


def _attention(
    parts: Attention,
    hidden: torch.Tensor,
    own: torch.Tensor,
    attention_mask: torch.Tensor | None,
) -> torch.Tensor:
    """Attention of one query a row: [B, T, d] and [B, d] to [B, H, T]."""
    queries = parts.query(own).unflatten(-1, (parts.heads, -1))
    scale = queries.shape[-1] ** -0.5
    keys = parts.key.weight.view(parts.heads, -1, hidden.shape[-1])
    towards = torch.einsum("bhe,hed->bhd", queries * scale, keys)
    scores = towards @ hidden.transpose(1, 2)
    if attention_mask is not None:
        # The mask hides keys only, so any query's row of it will do.
        scores = scores + attention_mask[:, :, 0]
    return scores.to(hidden.dtype).softmax(-1)
