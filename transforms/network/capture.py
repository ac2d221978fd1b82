"""Looking into a model while it runs.

Attention is reached through transformers' own registry: an attention function and, just as needed,
its mask function (without one, a custom attention function silently gets no padding mask). One hook
serves every architecture that routes attention through the registry.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from attribeam.transforms.network.maps import Again, AttentionMaps, Taps
from attribeam.transforms.network.parts import Attention, Layer
from attribeam.transforms.network.rows import Read, Spoken
from attribeam.transforms.network.rules import Rules, sloped

IMPLEMENTATION = "attribeam"
# Tokens of which attention is small enough to be held for a backward pass.
_FEW = 512


@dataclass(frozen=True)
class Watch:
    """What to look at while a model runs.

    Attributes:
        attention: The attention probabilities of every layer. Without it attention runs fused,
            which never holds them.
        layers: What enters each layer and its layer norms, and its values; needs ``attention``.
        projections: Queries and keys, where scores are products of them; needs ``attention``.
        whole: Let every position come out of the last layer, and not that read out alone.
        outputs: What comes out of each layer; needs ``whole``.
        readout_attention: The last layer's attention of the position that is read out, alone.
        tangents: Let nothing be fused that carries no tangents.
        graph_from: The first layer whose attention a graph begins with, where nothing that enters
            the network has one; None for no graph.
        remade: Hold no layer's attention: it is made again when it is read. Layers from
            ``graph_from`` on are run again as a backward pass comes by, so that of all that they
            compute no more is held than of one; needs attention that is looked up.
        taps: What shows gradients of attention, from ``graph_from`` on; goes with ``remade``.
    """

    attention: bool = False
    layers: bool = False
    projections: bool = False
    whole: bool = False
    readout_attention: bool = False
    outputs: bool = False
    tangents: bool = False
    graph_from: int | None = None
    remade: bool = False
    taps: Taps | None = None


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


class MixedError(Exception):
    """Ends a layer where its values are mixed: what follows is done for what is read alone.

    Attributes:
        mixed: Mixed values of all heads, side by side, [B, T, n].
    """

    def __init__(self, mixed: torch.Tensor) -> None:
        super().__init__()
        self.mixed = mixed


@dataclass
class Recorder:
    """What one run through the encoder left behind.

    Attributes:
        called: The layers that are called, one after the other.
        watch: What was to be looked at.
        read: Where predictions are read.
        dtype: Type of softmaxes, and of all that is kept.
        enter: What replaces what enters a layer, [B, T, d]; None leaves it.
        start: Number of that layer; those below it are passed by. After the last one comes the
            head.
        leaving: What is done to what leaves a layer, of its number; None leaves it.
        rules: What relevance passes the layers by, where gradients are to be relevance.
        noise: What is added to what enters the first layer unless it is replaced, [B, T, d].
        spoken: What is read, where that is several tokens that follow one another.
        number: How many layers have been called.
        ends_early: Whether the layer that is being run ends where its values are mixed.
        ended: Whether the last one has ended so.
        gathered: Whether ``left`` is of what is read alone, of several positions of a row.
        within: What a layer is to be run in, where it is run again once the run is over.
        attention: Attention probabilities per layer, each [B, H, T, T]; differentiable, unless they
            are made again.
        readout_attention: Those of the last layer and the position read out, [B, H, T], of means
            and of several that are read from a row those of all, [B, H, T, T]; differentiable, even
            where nothing below them is.
        entered: What entered the first layer (``hidden_states[0]``), [B, T, d].
        left: What left the last one: [B, 1, d] where one position of each row is all that is read;
            [Q, 1, d] of several, or [B, C, d] of what follows one another (``gathered``); else
            [B, T, d]. Differentiable.
        outputs: What came out of each layer, [B, T, d], without a graph.
        hidden: What entered each layer, as ``LayerStates.entered``.
        values: Its values.
        sums: The sums of its steps.
        queries: Its queries of all heads, [B, H, T, d/H], without a graph.
        keys: Its keys of all groups, [B, G, T, d/H].
    """

    called: Sequence[Layer]
    watch: Watch
    read: Read
    dtype: torch.dtype = torch.float32
    enter: torch.Tensor | None = None
    start: int = 0
    leaving: Callable[[int, torch.Tensor], torch.Tensor] | None = None
    rules: Rules | None = None
    noise: torch.Tensor | None = None
    spoken: Spoken | None = None
    number: int = 0
    ends_early: bool = False
    ended: bool = False
    gathered: bool = False
    within: Callable[[], AbstractContextManager[Any]] = nullcontext
    attention: AttentionMaps = field(default_factory=AttentionMaps)
    readout_attention: torch.Tensor | None = None
    entered: torch.Tensor | None = None
    left: torch.Tensor | None = None
    outputs: list[torch.Tensor] = field(default_factory=list)
    hidden: list[torch.Tensor] = field(default_factory=list)
    values: list[torch.Tensor] = field(default_factory=list)
    sums: list[list[torch.Tensor]] = field(default_factory=list)
    queries: list[torch.Tensor] = field(default_factory=list)
    keys: list[torch.Tensor] = field(default_factory=list)

    @property
    def layers(self) -> list[LayerStates]:
        """What passed through the layers."""
        rows = zip(self.hidden, self.values, self.sums, strict=True)
        return [LayerStates(hidden, values, tuple(sums)) for hidden, values, sums in rows]

    def kept(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor as it is kept: of the type of softmaxes, without a graph."""
        return tensor.detach().to(self.dtype)

    def keep_readout_attention(self, probabilities: torch.Tensor) -> None:
        """Keeps the last layer's attention of the position read out (``readout_attention``)."""
        if not probabilities.requires_grad:
            # The graph begins here: what lies below has no part in gradients of attention.
            probabilities.requires_grad_()
        self.readout_attention = probabilities

    @property
    def in_graph(self) -> bool:
        """Whether the layer that is being run is one whose attention has a gradient of its own."""
        first = self.watch.graph_from
        return first is not None and self.number > first and torch.is_grad_enabled()

    def again(self) -> "Recorder":
        """One that the layer that is being run can be run with once more; what it keeps is let go.

        A layer's number is that of the run when this is called.
        """
        watch = replace(self.watch, layers=False, outputs=False, projections=False)
        return replace(self, watch=watch, attention=AttentionMaps())

    def keep_attention(self, probabilities: torch.Tensor, again: Again | None) -> torch.Tensor:
        """Keeps a layer's attention, or what makes it, and returns what the layer goes on with."""
        if again is not None and self.watch.remade:
            self.attention.append(again)
            if self.in_graph and self.watch.taps is not None:
                return self.watch.taps.through(self.number - 1, probabilities)
            return probabilities
        if self.in_graph and not probabilities.requires_grad:
            probabilities.requires_grad_()
        self.attention.append(probabilities)
        return probabilities

    def leave(self, left: torch.Tensor) -> None:
        """Keeps what leaves the last layer, [B, T, d], or [B, 1, d] of the position read out."""
        if self.read.alone and left.shape[1] > 1:
            left = self.read.of(left)[:, None]
        self.left = left

    def apart(self, positions: torch.Tensor) -> torch.Tensor:
        """What is read of what all positions have, [B, T, n]: [Q, 1, n], or [B, C, n]."""
        if self.spoken is not None:
            return self.spoken.of(positions)
        return self.read.of(positions)[:, None]

    @property
    def looks_at_attention(self) -> bool:
        """Whether the layer that is being run has its attention looked at."""
        return self.watch.attention or self.looks_at_one_query

    @property
    def looks_at_one_query(self) -> bool:
        """Whether it is the last one, and the attention of the position read out is asked for."""
        return self.watch.readout_attention and self.number == len(self.called)


_RECORDER: ContextVar[Recorder | None] = ContextVar("attribeam_recorder", default=None)


def current_recorder() -> Recorder | None:
    """The recorder of the run that is under way in this thread."""
    return _RECORDER.get()


@contextmanager
def recalled(recorder: Recorder) -> Iterator[None]:
    """For its duration a recorder is that of the run, in this thread."""
    token = _RECORDER.set(recorder)
    try:
        yield
    finally:
        _RECORDER.reset(token)


def _attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Attention of transformers' signature: queries [B, H, T, d/H], keys and values [B, G, T, d/H].

    Returns:
        Mixed values, [B, T, H, d/H], and the probabilities if they were formed.
    """
    recorder = _RECORDER.get()
    looked_at = recorder is not None and recorder.looks_at_attention
    rules = None if recorder is None else recorder.rules
    if rules is not None:
        query, key, value = rules.projected(query, key, value)
    # Where they are fixed, probabilities have no backward pass, which fused attention always has.
    fixed = rules is not None and not rules.scores and key.shape[2] <= _FEW
    tangents = recorder is not None and recorder.watch.tangents
    if softcap is None and not looked_at and not fixed and not tangents:
        keys, values = (_by_head(x, query) for x in (key, value))
        mixed = functional.scaled_dot_product_attention(
            query, keys, values, attn_mask=attention_mask, scale=scaling
        )
        return _mixed(recorder, mixed), None
    if recorder is None or not looked_at:
        scores = _scores(query, key, attention_mask, scaling, softcap, ruled=rules is not None)
        probabilities = scores.softmax(-1)
    else:
        probabilities = record_attention(
            recorder, query, key, value, attention_mask, scaling, softcap
        )
    mixed = torch.matmul(probabilities, _by_head(value, query))
    return _mixed(recorder, mixed), probabilities


def _mixed(recorder: Recorder | None, mixed: torch.Tensor) -> torch.Tensor:
    """Mixed values of heads, [B, H, T, n], by position, [B, T, H, n].

    Raises:
        MixedError: If the layer ends there.
    """
    by_position = mixed.transpose(1, 2)
    if recorder is not None and recorder.ends_early:
        raise MixedError(by_position.flatten(2))
    return by_position


def _by_head(of_groups: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """Keys or values of groups, [B, G, T, n], as each head of queries has them, [B, H, T, n]."""
    shared = query.shape[1] // of_groups.shape[1]
    return of_groups if shared == 1 else of_groups.repeat_interleave(shared, 1)


def _scores(
    query: torch.Tensor,
    key: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None,
    softcap: float | None,
    *,
    ruled: bool = False,
) -> torch.Tensor:
    """What the softmax is taken of, [B, H, T, T]; under rules a cap has a fixed slope."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = torch.matmul(query, _by_head(key, query).transpose(2, 3)) * scale
    if softcap is not None:
        capped = (scores / softcap).tanh() * softcap
        scores = sloped(scores, capped) if ruled else capped
    return scores if attention_mask is None else scores + attention_mask


def record_attention(
    recorder: Recorder,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
) -> torch.Tensor:
    """Attention probabilities [B, H, T, T] from projections [B, H, T, d/H]; they are recorded."""
    if recorder.watch.projections:
        recorder.queries.append(recorder.kept(query))
        recorder.keys.append(recorder.kept(key))
    ruled = recorder.rules is not None
    given = attention_mask, scaling, softcap, ruled, recorder.dtype
    again = partial(_again, query.detach(), key.detach(), *given)
    return _recorded(recorder, _probabilities(query, key, *given), value, again)


def _probabilities(
    query: torch.Tensor,
    key: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None,
    softcap: float | None,
    ruled: bool,
    dtype: torch.dtype,
) -> torch.Tensor:
    """Attention probabilities, [B, H, T, T], in the type of softmaxes."""
    scores = _scores(query, key, attention_mask, scaling, softcap, ruled=ruled)
    return scores.to(dtype).softmax(dim=-1)


@torch.no_grad()
def _again(*given: Any) -> torch.Tensor:
    """As ``_probabilities``, once more."""
    return _probabilities(*given)


def _recorded(
    recorder: Recorder,
    probabilities: torch.Tensor,
    value: torch.Tensor | None,
    again: Again | None = None,
) -> torch.Tensor:
    """Keeps what is asked for of a layer's attention, and returns what it goes on with.

    Args:
        recorder: That of the run.
        probabilities: [B, H, T, T].
        value: Values of all groups, [B, G, T, d/H]; None if they are kept elsewhere.
        again: Makes the probabilities once more, where that can be done.
    """
    if recorder.watch.attention:
        probabilities = recorder.keep_attention(probabilities, again)
    if recorder.watch.layers and value is not None:
        recorder.values.append(recorder.kept(value))
    if not recorder.looks_at_one_query:
        return probabilities
    if recorder.read.at is None or recorder.read.row is not None:
        recorder.keep_readout_attention(probabilities)
        return probabilities
    every = torch.arange(len(probabilities), device=probabilities.device)
    readout = recorder.read.position
    of_readout = probabilities[every, :, readout]
    recorder.keep_readout_attention(of_readout)
    others = probabilities.clone()
    others[every, :, readout] = of_readout
    return others


AttentionInterface.register(IMPLEMENTATION, _attention)
AttentionMaskInterface.register(IMPLEMENTATION, eager_mask)


@contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """For its duration a recorder is filled in as the model of its layers runs."""
    watch = recorder.watch
    with ExitStack() as hooks:
        if watch.layers:
            for norm in _norms_of_sums(recorder.called):
                hooks.callback(norm.register_forward_pre_hook(_keep_sum).remove)
        if watch.attention or watch.readout_attention:
            for attention in _unregistered(recorder.called):
                hooks.callback(_watch_dropout(attention).remove)
                if watch.layers:
                    hooks.callback(_watch_values(attention).remove)
        hooks.callback(_RECORDER.reset, _RECORDER.set(recorder))
        yield


def _norms_of_sums(layers: Sequence[Layer]) -> Iterable[nn.Module]:
    """The norms that sums of steps enter, each once: layers may share them."""
    norms = (layer.norm_of_sum(number) for layer in layers for number in range(len(layer.steps)))
    return {id(norm.module): norm.module for norm in norms if norm is not None}.values()


def _keep_sum(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
    if (recorder := _RECORDER.get()) is not None:
        recorder.sums[-1].append(recorder.kept(args[0]))


def _unregistered(layers: Sequence[Layer]) -> Iterable[Attention]:
    """Attention that isn't looked up in transformers' registry, each once."""
    found = (layer.attention for layer in layers)
    return {id(one.dropout): one for one in found if one.dropout is not None}.values()


def _watch_dropout(attention: Attention) -> RemovableHandle:
    """Records the probabilities that pass through a dropout, which drops nothing here."""
    assert attention.dropout is not None

    def keep(_: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        recorder = _RECORDER.get()
        if recorder is None or not recorder.looks_at_attention:
            return None
        kept = _recorded(recorder, args[0].to(recorder.dtype), None)
        return (kept.to(args[0].dtype), *args[1:])

    return attention.dropout.register_forward_pre_hook(keep)


def _watch_values(attention: Attention) -> RemovableHandle:
    """Records the values of such attention."""

    def keep(_: nn.Module, __: tuple[Any, ...], projected: torch.Tensor) -> None:
        if (recorder := _RECORDER.get()) is not None:
            values = projected.unflatten(-1, (attention.groups, -1)).transpose(1, 2)
            recorder.values.append(recorder.kept(values))

    return attention.value.module.register_forward_hook(keep)
