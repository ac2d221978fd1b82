"""How a network's layers are called: which are passed by, what enters them, and what is kept.

transformers' own code runs the network, embeddings and masks included, and each layer's module is
called through here. So what enters the first layer can be replaced, or what enters a later one,
with the layers below it passed by; and of the last layer nothing but the position that is read out
need be computed. Whatever a family does before, around and after its layers stays its own.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from inspect import signature
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from attribeam.transforms.network.capture import MixedError, Recorder, current_recorder, recalled
from attribeam.transforms.network.parts import Layer, Norm, is_root_mean_square
from attribeam.transforms.network.readout import read_out
from attribeam.transforms.network.rules import normed

Forward = Callable[..., Any]


def patch_layers(layers: Sequence[Layer]) -> None:
    """Lets the modules of a network's layers be called through here, while a recorder is there."""
    for layer in layers:
        # Layers may share a module, and models a network.
        if getattr(layer.module.forward, "func", None) is not _call:
            layer.module.forward = partial(_call, layer.module.forward)


def patch_patches(convolution: nn.Module) -> None:
    """Lets what makes tokens of patches rest where something else enters in their place."""
    if getattr(convolution.forward, "func", None) is not _tokens:
        convolution.forward = partial(_tokens, convolution, convolution.forward)


def _tokens(convolution: Any, whole: Forward, pixels: torch.Tensor) -> torch.Tensor:
    """Pictures [B, C, H, W] to tokens of their patches, [B, d, rows, columns]."""
    recorder = current_recorder()
    if recorder is None or recorder.enter is None:
        tokens: torch.Tensor = whole(pixels)
        return tokens
    # Only their shape is looked at.
    sides = zip(pixels.shape[2:], convolution.stride, strict=True)
    shape = [side // stride for side, stride in sides]
    return pixels.new_zeros(()).expand(len(pixels), convolution.out_channels, *shape)


def _call(whole: Forward, *args: Any, **kwargs: Any) -> Any:
    """Hidden states [B, T, d] in and out, as the layer's own code (``whole``) gives them."""
    recorder = current_recorder()
    if recorder is None:
        return whole(*args, **kwargs)
    if args:
        hidden, *others = args
    else:
        hidden, *others = (kwargs.pop("hidden_states"),)
    number = recorder.number
    recorder.number += 1
    layer, last = recorder.called[number], recorder.number == len(recorder.called)
    entered = hidden
    if number == recorder.start and recorder.enter is not None:
        entered = recorder.enter
    elif number == 0 and recorder.noise is not None:
        hidden = entered = hidden + recorder.noise
    if number == 0 and (recorder.enter is None or recorder.start == 0):
        recorder.entered = entered
    if number < recorder.start:
        left = recorder.enter if last and recorder.enter is not None else hidden
    elif recorder.watch.remade and recorder.in_graph and not last:
        left = _run_again(recorder, layer, whole, entered, others, kwargs)
    else:
        left = _run(recorder, layer, last, whole, entered, others, kwargs)
    if last:
        # The head is ours: what the network makes of this is not looked at.
        recorder.leave(left)
        left = hidden
    return (left, None) if layer.tupled else left


def _run(
    recorder: Recorder,
    layer: Layer,
    last: bool,
    whole: Forward,
    entered: torch.Tensor,
    others: Sequence[Any],
    kwargs: dict[str, Any],
) -> torch.Tensor:
    """What leaves a layer, [B, T, d], or [B, 1, d] of the position read out; keeps what is asked.

    Args:
        recorder: That of the run.
        layer: The layer.
        last: Whether it is the last one.
        whole: Its own code.
        entered: What enters it, [B, T, d].
        others: What else it was called with, by position.
        kwargs: What else it was called with, by name.
    """
    watch = recorder.watch
    if watch.layers:
        recorder.hidden.append(recorder.kept(entered))
        recorder.sums.append([])
    alone = recorder.read.alone and not watch.whole and recorder.rules is None
    if last and alone and layer.attention.absorbs:
        mask = _mask(layer.module, others, kwargs)
        left = read_out(recorder, layer, entered, mask)
    elif last and _may_end_early(recorder, layer):
        left = _ended_early(recorder, layer, entered, lambda: whole(entered, *others, **kwargs))
    else:
        given = whole(entered, *others, **kwargs)
        left = given[0] if layer.tupled else given
    if recorder.leaving is not None:
        left = recorder.leaving(recorder.number - 1, left)
    if watch.layers and layer.norm_of_sum(-1) is None:
        recorder.sums[-1].append(recorder.kept(left))
    if watch.outputs:
        recorder.outputs.append(recorder.kept(left))
    return left


def _run_again(
    recorder: Recorder,
    layer: Layer,
    whole: Forward,
    entered: torch.Tensor,
    others: Sequence[Any],
    kwargs: dict[str, Any],
) -> torch.Tensor:
    """As ``_run``, of a layer that is run once more as a backward pass comes by.

    Of what it computes nothing is held until then but what enters it.
    """
    again = recorder.again()

    def run(entered: torch.Tensor) -> torch.Tensor:
        if current_recorder() is recorder:
            return _run(recorder, layer, False, whole, entered, others, kwargs)
        own = again.again()
        with own.within(), recalled(own):
            return _run(own, layer, False, whole, entered, others, kwargs)

    left: torch.Tensor = checkpoint(run, entered, use_reentrant=False, preserve_rng_state=False)
    return left


def _may_end_early(recorder: Recorder, layer: Layer) -> bool:
    """Whether nothing of the last layer is looked at but what is read, at its positions."""
    watch = recorder.watch
    looked_at = watch.whole or watch.layers or watch.outputs or recorder.leaving is not None
    apart = recorder.read.at is not None or recorder.spoken is not None
    return apart and not looked_at and layer.attention.dropout is None


def _ended_early(
    recorder: Recorder, layer: Layer, entered: torch.Tensor, run: Callable[[], Any]
) -> torch.Tensor:
    """What leaves the last layer at the positions that are read, [Q, 1, d] or [B, C, d].

    Attention is the network's own, whatever its scores are of. What follows it, most of the layer,
    is done for these positions alone.

    Raises:
        RuntimeError: If the layer's attention never came by.
    """
    recorder.ends_early = True
    try:
        run()
    except MixedError as ended:
        mixed, own = (recorder.apart(x) for x in (ended.mixed, entered))
    else:
        raise RuntimeError(f"attention of {type(layer.module).__name__} is not looked up")
    finally:
        recorder.ends_early = False
    recorder.ended = True
    recorder.gathered = recorder.read.row is not None or recorder.spoken is not None
    if recorder.rules is None:
        return layer.finish(mixed, own)
    return recorder.rules.finish(layer, mixed, own)


def _mask(module: nn.Module, others: Sequence[Any], kwargs: dict[str, Any]) -> torch.Tensor | None:
    """The attention mask that a layer was called with."""
    if "attention_mask" in kwargs:
        named: torch.Tensor | None = kwargs["attention_mask"]
        return named
    place = _place_of_mask(type(module).forward)
    return others[place] if place < len(others) else None


@cache
def _place_of_mask(forward: Forward) -> int:
    """Number of the mask among what a layer's method is called with beside hidden states."""
    return list(signature(forward).parameters).index("attention_mask") - 2


def patch_root_mean_squares(network: nn.Module, shift: float) -> None:
    """Lets norms by root mean squares compute in float64 where the network does, or by rules.

    transformers computes them in float32 whatever the type, and what is made of such numbers in
    float64 is right to seven digits alone.

    Args:
        network: The network.
        shift: What is added to weights (``Norm.shift``).
    """
    for module in network.modules():
        plain = getattr(module.forward, "func", None) is not _root_mean_square
        if is_root_mean_square(module) and plain:
            module.forward = partial(_root_mean_square, module, module.forward, shift)


def _root_mean_square(
    module: nn.Module, whole: Forward, shift: float, x: torch.Tensor
) -> torch.Tensor:
    """A norm by the root mean square, [..., d] in and out."""
    if (recorder := current_recorder()) is not None and recorder.rules is not None:
        return normed(Norm(module, shift), x).to(x.dtype)
    if x.dtype != torch.float64:
        plain: torch.Tensor = whole(x)
        return plain
    return Norm(module, shift).exact(x)


def patch_rotations(network: nn.Module) -> None:
    """Lets turns by position be computed in float64 where the network computes in that.

    transformers computes their sines and cosines in float32 whatever the type; the frequencies
    themselves stay as it has them.
    """
    for module in network.modules():
        turns = type(module).__name__.endswith("RotaryEmbedding")
        if turns and getattr(module.forward, "func", None) is not _rotation:
            module.forward = partial(_rotation, module, module.forward)


def _rotation(
    module: nn.Module, whole: Forward, x: torch.Tensor, position_ids: torch.Tensor, *of: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of the turns of positions, [1 or B, T, n] each; of a kind of layers."""
    theirs: tuple[torch.Tensor, torch.Tensor] = whole(x, position_ids, *of)
    prefix = "".join(f"{kind}_" for kind in of)
    frequencies = getattr(module, f"{prefix}inv_freq", None)
    if x.dtype != torch.float64 or frequencies is None:
        return theirs
    angles = position_ids[..., None].double() * frequencies.to(x.device, torch.float64)
    angles, factor = torch.cat([angles, angles], -1), getattr(module, f"{prefix}attention_scaling")
    ours = angles.cos() * factor, angles.sin() * factor
    # A family may turn in a way of its own.
    same = all(
        a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=1e-3)
        for a, b in zip(ours, theirs, strict=True)
    )
    return ours if same else theirs
