"""Looking into a model while it runs, and replacing what enters its encoder.

Attention is reached through transformers' own registry: an attention function and, just as needed,
its mask function (without one, a custom attention function silently gets no padding mask). One hook
serves every architecture that routes attention through the registry.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

IMPLEMENTATION = "attribeam"


@dataclass
class Recorder:
    """What one run through the encoder left behind.

    Attributes:
        keep_attention: Compute and keep attention probabilities. Without it attention runs fused,
            which never holds them.
        readout: Position per row that alone has to come out of the last layer, [B]; None for all.
        attention: Attention probabilities per layer, each [B, H, T, T]; differentiable.
        entered: What entered the encoder (``hidden_states[0]``), [B, T, d].
    """

    keep_attention: bool = False
    readout: torch.Tensor | None = None
    attention: list[torch.Tensor] = field(default_factory=list)
    entered: torch.Tensor | None = None


_RECORDER: ContextVar[Recorder | None] = ContextVar("attribeam_recorder", default=None)


def current_recorder() -> Recorder | None:
    """The recorder of the run that is under way in this thread."""
    return _RECORDER.get()


def _attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Attention of transformers' signature: tensors [B, H, T, d/H] in, ([B, T, H, d/H], A) out."""
    recorder = _RECORDER.get()
    if recorder is None or not recorder.keep_attention:
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, scale=scaling
        )
        return mixed.transpose(1, 2), None
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = torch.matmul(query, key.transpose(2, 3)) * scale
    if attention_mask is not None:
        scores = scores + attention_mask
    probabilities = scores.softmax(dim=-1)
    recorder.attention.append(probabilities)
    return torch.matmul(probabilities, value).transpose(1, 2), probabilities


AttentionInterface.register(IMPLEMENTATION, _attention)
AttentionMaskInterface.register(IMPLEMENTATION, eager_mask)


@contextmanager
def recording(
    encoder: nn.Module,
    *,
    keep_attention: bool = False,
    readout: torch.Tensor | None = None,
    enter: torch.Tensor | None = None,
) -> Iterator[Recorder]:
    """Records one run of a model.

    Args:
        encoder: The encoder module (``Anatomy.encoder``).
        keep_attention: Whether to keep attention probabilities.
        readout: Position per row that alone has to come out of the last layer, [B].
        enter: Replaces what enters the encoder, [B, T, d]; None leaves it.

    Yields:
        The recorder, filled in as the model runs.
    """
    recorder = Recorder(keep_attention, readout)

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        recorder.entered = hidden if enter is None else enter
        if args:
            return (recorder.entered, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": recorder.entered}

    handle = encoder.register_forward_pre_hook(before, with_kwargs=True)
    token = _RECORDER.set(recorder)
    try:
        yield recorder
    finally:
        _RECORDER.reset(token)
        handle.remove()
