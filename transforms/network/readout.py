"""The last layer for one position alone, where only that position is read out.

A classifier reads the [CLS], a masked LM the [MASK]; nothing else that the last layer computes is
looked at. With a single query the keys and values needn't be formed either: a score is
q . (K h_j) = (K^T q) . h_j (the key's bias adds the same to every j and drops out of the softmax),
and the mixed value is V (sum_j A_j h_j) + b_V. The layer then costs about as much per row as it
otherwise costs per token, which saves nearly one layer of every forward and backward pass. Where
attention is looked at, it and the values are formed for all positions; what follows, three quarters
of the layer, still isn't. The numbers are the same up to rounding.
"""

import torch

from attribeam.transforms.network.capture import Recorder, record_attention
from attribeam.transforms.network.parts import Attention, Layer


def read_out(
    recorder: Recorder, layer: Layer, hidden: torch.Tensor, attention_mask: torch.Tensor | None
) -> torch.Tensor:
    """What leaves a layer at the position read out, [B, 1, d], of what enters it, [B, T, d].

    Args:
        recorder: That of the run.
        layer: The layer.
        hidden: What enters it.
        attention_mask: What is added to scores, [B or 1, 1, T or 1, T].
    """
    own = recorder.read.of(hidden)
    attended, parts = layer.attend(hidden), layer.attention
    if recorder.watch.attention:
        projected = (project(attended) for project in (parts.query, parts.key, parts.value))
        queries, keys, values = (
            x.unflatten(-1, (parts.heads, -1)).transpose(1, 2) for x in projected
        )
        probabilities = record_attention(
            recorder, queries, keys, values, attention_mask, parts.scale
        )
        own_query = recorder.read.of(probabilities.transpose(1, 2))
        mixed = (own_query[:, :, None] @ values).flatten(1)
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
    probabilities = _attention(recorder, parts, hidden, own, attention_mask)
    total: torch.Tensor | int = 1
    if recorder.watch.readout_attention:
        recorder.keep_readout_attention(probabilities)
        # They sum to 1, but their gradient is to know that the bias is multiplied by them too.
        total = probabilities.sum(-1)[..., None]
    values = parts.value.weight.unflatten(0, (parts.heads, -1))
    mixed = torch.einsum("bhd,hed->bhe", probabilities @ hidden, values)
    if parts.value.bias is not None:
        mixed = mixed + parts.value.bias.view(parts.heads, -1) * total
    return mixed.flatten(1)


def _attention(
    recorder: Recorder,
    parts: Attention,
    hidden: torch.Tensor,
    own: torch.Tensor,
    attention_mask: torch.Tensor | None,
) -> torch.Tensor:
    """Attention of one query a row: [B, T, d] and [B, d] to [B, H, T]."""
    queries = parts.query(own).unflatten(-1, (parts.heads, -1))
    keys = parts.key.weight.unflatten(0, (parts.heads, -1))
    towards = torch.einsum("bhe,hed->bhd", queries * parts.scale, keys)
    scores = towards @ hidden.transpose(1, 2)
    if attention_mask is not None:
        masks = attention_mask.expand(len(hidden), -1, hidden.shape[1], -1)
        scores = scores + recorder.read.of(masks.transpose(1, 2))
    return scores.to(hidden.dtype).softmax(-1)
