"""Looking into a model while it runs, and replacing what enters its encoder.

Attention is reached through transformers' own registry: an attention function and, just as needed,
its mask function (without one, a custom attention function silently gets no padding mask). One hook
serves every architecture that routes attention through the registry.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from attribeam.transforms.network.parts import Layer

IMPLEMENTATION = "attribeam"


@dataclass(frozen=True)
class Watch:
    """What to look at while a model runs.

    Attributes:
        attention: The attention probabilities of every layer. Without it attention runs fused,
            which never holds them.
        layers: What enters each layer and its layer norms, and its values; needs ``attention``.
        whole: Let every position come out of the last layer, and not that read out alone.
        outputs: What comes out of each layer; needs ``whole``.
        readout_attention: The last layer's attention of the position that is read out, alone.
    """

    attention: bool = False
    layers: bool = False
    whole: bool = False
    readout_attention: bool = False
    outputs: bool = False


class LayerStates(NamedTuple):
    """What passed through a layer, without a graph.

    Attributes:
        entered: What entered the layer, [B, T, d].
        values: Values of all groups, bias included, [B, G, T, d/H]; G is the number of heads unless
            some share them.
        sums: Of each step, what its branches and what passed them by add up to, [B, T, d]; in the
            last layer [B, 1, d] if nothing but the position read out came out of it.
    """

    entered: torch.Tensor
    values: torch.Tensor
    sums: tuple[torch.Tensor, ...]

    @property
    def alone(self) -> bool:
        """Whether nothing but the position read out came out of the layer."""
        return self.sums[0].shape != self.entered.shape


@dataclass
class Recorder:
    """What one run through the encoder left behind.

    Attributes:
        watch: What was to be looked at.
        readout: Position per row that alone has to come out of the last layer, [B]; None for all.
        dtype: Type of softmaxes, and of all that is kept.
        attention: Attention probabilities per layer, each [B, H, T, T]; differentiable.
        readout_attention: Those of the last layer and the position read out, [B, H, T];
            differentiable, even where nothing below them is.
        entered: What entered the encoder (``hidden_states[0]``), [B, T, d].
        outputs: What came out of each layer, [B, T, d], without a graph.
        hidden: What entered each layer, as ``LayerStates.entered``.
        values: Its values.
        sums: The sums of its steps.
    """

    watch: Watch = field(default_factory=Watch)
    readout: torch.Tensor | None = None
    dtype: torch.dtype = torch.float32
    attention: list[torch.Tensor] = field(default_factory=list)
    readout_attention: torch.Tensor | None = None
    entered: torch.Tensor | None = None
    outputs: list[torch.Tensor] = field(default_factory=list)
    hidden: list[torch.Tensor] = field(default_factory=list)
    values: list[torch.Tensor] = field(default_factory=list)
    sums: list[list[torch.Tensor]] = field(default_factory=list)

    @property
    def layers(self) -> list[LayerStates]:
        """What passed through the layers."""
        rows = zip(self.hidden, self.values, self.sums, strict=True)
        return [LayerStates(hidden, values, tuple(sums)) for hidden, values, sums in rows]

    def kept(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor as it is kept: of the type of softmaxes, without a graph."""
        return tensor.detach().to(self.dtype)


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
    if recorder is None or not recorder.watch.attention:
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, scale=scaling
        )
        return mixed.transpose(1, 2), None
    probabilities = record_attention(recorder, query, key, value, attention_mask, scaling)
    return torch.matmul(probabilities, value).transpose(1, 2), probabilities


def record_attention(
    recorder: Recorder,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
) -> torch.Tensor:
    """Attention probabilities [B, H, T, T] from projections [B, H, T, d/H]; they are recorded."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = torch.matmul(query, key.transpose(2, 3)) * scale
    if attention_mask is not None:
        scores = scores + attention_mask
    probabilities = scores.to(recorder.dtype).softmax(dim=-1)
    recorder.attention.append(probabilities)
    if recorder.watch.layers:
        recorder.values.append(recorder.kept(value))
    return probabilities


AttentionInterface.register(IMPLEMENTATION, _attention)
AttentionMaskInterface.register(IMPLEMENTATION, eager_mask)


@contextmanager
def recording(
    encoder: nn.Module,
    layers: Iterable[Layer],
    *,
    watch: Watch,
    dtype: torch.dtype,
    readout: torch.Tensor | None = None,
    enter: torch.Tensor | None = None,
) -> Iterator[Recorder]:
    """Records one run of a model.

    Args:
        encoder: The encoder module (``Anatomy.encoder``).
        layers: Its layers, if they are to be looked at.
        watch: What to look at.
        dtype: Type of the weights.
        readout: Position per row that alone has to come out of the last layer, [B].
        enter: Replaces what enters the encoder, [B, T, d]; None leaves it.

    Yields:
        The recorder, filled in as the model runs.
    """
    recorder = Recorder(watch, readout, dtype)

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        recorder.entered = hidden if enter is None else enter
        if args:
            return (recorder.entered, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": recorder.entered}

    with ExitStack() as hooks:
        hooks.callback(encoder.register_forward_pre_hook(before, with_kwargs=True).remove)
        for layer in layers:
            if watch.layers:
                _watch_layer(hooks, recorder, layer)
            if watch.outputs:
                _watch_output(hooks, recorder, layer)
        hooks.callback(_RECORDER.reset, _RECORDER.set(recorder))
        yield recorder


def _watch_layer(hooks: ExitStack, recorder: Recorder, layer: Layer) -> None:
    """Keeps what enters a layer, and the sums of its steps."""

    def entered(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        recorder.hidden.append(recorder.kept(args[0] if args else kwargs["hidden_states"]))
        recorder.sums.append([])

    def entering(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        recorder.sums[-1].append(recorder.kept(args[0]))

    def left(_: nn.Module, __: tuple[Any, ...], output: torch.Tensor) -> None:
        recorder.sums[-1].append(recorder.kept(output))

    hooks.callback(layer.module.register_forward_pre_hook(entered, with_kwargs=True).remove)
    for number in range(len(layer.steps)):
        norm = layer.norm_of_sum(number)
        if norm is not None:
            hooks.callback(norm.module.register_forward_pre_hook(entering).remove)
        else:
            hooks.callback(layer.module.register_forward_hook(left).remove)


def _watch_output(hooks: ExitStack, recorder: Recorder, layer: Layer) -> None:
    """Keeps what comes out of a layer."""

    def keep(_: nn.Module, __: tuple[Any, ...], output: torch.Tensor) -> None:
        recorder.outputs.append(recorder.kept(output))

    hooks.callback(layer.module.register_forward_hook(keep).remove)
