"""Value zeroing: how far what leaves a layer turns where a token's value is left out of it.

What enters the layer stays as it is, so the layer without a token's value is one sum less and all
that follows attention at one position: no forward pass for each token, as the definition reads.
"""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch.nn import functional

from attribeam.transforms.methods.rollout import rolled_out, row_normalised
from attribeam.transforms.network.parts import Layer, Norm
from attribeam.transforms.passes.captured import Captured
from attribeam.transforms.passes.forward import Forward
from attribeam.transforms.registry import Choice, LastLayers, Method, Params, Scores, register


def value_zeroing(captured: Captured, params: Params) -> Scores:
    """Value zeroing (Mohebbi et al. 2023, section 3): 1 - cos(h_i, h_i without token j's value).

    h_i is what leaves a layer at position i, of the last one what leaves the norm that the head
    begins with, if it does. Distances below ``threshold`` are none, and rows are divided by their
    sums. ``aggregate=sum`` adds up the row of the position that is read over the layers from
    ``start_layer`` on, as they are; ``rollout`` multiplies whole layers, which needs all rows.
    """
    start, depth = params["start_layer"], captured.model.num_layers
    threshold: float = params["threshold"]
    whole = captured.layered or params["aggregate"] == "rollout"
    if not whole and captured.batch.rows.read.at is not None:
        rows = [_shares(_readout_row(captured, n), threshold) for n in range(start, depth)]
        return Scores(torch.stack(rows).sum(0))
    maps = [
        _shares(captured.of_inputs(("value zeroing", n), partial(_map, number=n)), threshold)
        for n in range(depth)
    ]
    found = rolled_out(captured, maps, start)
    if params["aggregate"] == "rollout":
        return found
    total = torch.stack([captured.at_readout(layer) for layer in maps[start:]]).sum(0)
    return Scores(total, layers=found.layers)


def _shares(distances: torch.Tensor, threshold: float) -> torch.Tensor:
    """Rows of distances, [..., T], without those that are none, over their sums."""
    return row_normalised(distances.masked_fill(distances < threshold, 0))


class _Positions(NamedTuple):
    """c positions of each of N rows, as they enter a layer.

    Attributes:
        entered: What enters it there, [N, c, d].
        weights: Attention paid from there, [N, H, c, T].
        values: Values of all heads, [N, H, T, d/H].
    """

    entered: torch.Tensor
    weights: torch.Tensor
    values: torch.Tensor


def _readout_row(captured: Captured, number: int) -> torch.Tensor:
    """Distances of a layer at the position that is read, [B, T]."""
    layer, read = captured.model.layers[number], captured.batch.inputs.read
    attention, state = captured.inputs.attention[number], captured.inputs.layers[number]
    every = _Positions(
        read.of(state.entered)[:, None],
        read.of(attention.transpose(1, 2))[:, :, None],
        captured.asked(layer.attention.shared(state.values)),
    )
    at_once = max(1, captured.budget // attention.shape[-1])
    parts = zip(*(x.split(at_once) for x in every), strict=True)
    norm = _final(captured, number)
    return torch.cat([_distances(layer, _Positions(*part), norm)[:, 0] for part in parts])


def _map(captured: Captured, number: int) -> torch.Tensor:
    """Distances of a layer at all positions of inputs, [n, T, T]."""
    layer, norm = captured.model.layers[number], _final(captured, number)
    attention, state = captured.inputs.attention[number], captured.inputs.layers[number]
    values = layer.attention.shared(state.values)
    at_once = max(1, captured.budget // (len(attention) * attention.shape[-1]))

    def some() -> Iterator[torch.Tensor]:
        for entered, weights in zip(
            state.entered.split(at_once, 1), attention.split(at_once, 2), strict=True
        ):
            yield _distances(layer, _Positions(entered, weights, values), norm)

    return torch.cat(list(some()), 1)


def _final(captured: Captured, number: int) -> Norm | None:
    """The norm that belongs to what leaves a layer: that of the last one's, before the head."""
    model = captured.model
    if number < model.num_layers - 1 or not isinstance(first := model.head[0], Norm):
        return None
    of_each = captured.batch.rows.read.at is not None or model.anatomy.spread > 0
    return first if of_each else None


def _distances(layer: Layer, at: _Positions, norm: Norm | None) -> torch.Tensor:
    """1 - cos of what leaves a layer and what would without each token's value, [N, c, T]."""
    output, heads = layer.attention.output, layer.attention.heads
    kind = torch.promote_types(at.entered.dtype, torch.float32)
    entered, weights, values = (x.to(kind) for x in at)
    sent: torch.Tensor | float = 0.0
    for head, weight in enumerate(output.weight.T.unflatten(0, (heads, -1)).to(kind)):
        sent = sent + weights[:, head, ..., None] * (values[:, head] @ weight)[:, None]
    assert isinstance(sent, torch.Tensor)
    whole = sent.sum(2, keepdim=True)
    if output.bias is not None:
        whole = whole + output.bias
    # After all tokens comes none: what really leaves it.
    without = whole - functional.pad(sent, (0, 0, 0, 1))
    beside = entered[:, :, None].expand_as(without)
    left = layer.conclude(layer.steps[0].add_projected(beside, without))
    units = functional.normalize(left if norm is None else norm(left), dim=-1, eps=0)
    # Half of the square of unit vectors' distance is 1 - cos, without its cancelling.
    return (units[:, :, :-1] - units[:, :, -1:]).square().sum(-1) / 2


register(
    Method(
        name="value_zeroing",
        compute=value_zeroing,
        needs=lambda params: (Forward(attention=True, layers=True),),
        defaults={
            "aggregate": Choice("sum", "rollout"),
            "start_layer": LastLayers(1),
            "threshold": 1e-5,
        },
        signed=False,
        class_dependent=False,
        additive=False,
        layered="layers",
        cost="1 F + 0.7 F; rollout, --layers: T / 3 F",
        paper="Mohebbi et al. 2023 (Value Zeroing), section 3",
        equation="sum_l 1 - cos(h_i, h_i without v_j), rows over their sums",
    )
)
