"""Methods that read attention probabilities of one forward pass."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow

from attribeam.transforms.methods.rollout import rolled_out, row_normalised, with_residual
from attribeam.transforms.passes.base import Wish
from attribeam.transforms.passes.captured import Captured
from attribeam.transforms.passes.forward import Forward
from attribeam.transforms.passes.norms import Norms
from attribeam.transforms.registry import (
    Choice,
    ChoiceByTrait,
    LastLayers,
    Method,
    Params,
    Scores,
    register,
)

_ATTENTION: tuple[Wish, ...] = (Forward(attention=True),)
# Matrices of attention flow that are norms.
_NORMS = ("globenc", "globenc_raw")


def raw_attention(captured: Captured, params: Params) -> Scores:
    """Attention of the last layer, mean over heads, from the position that is read out.

    score[j] = E_h A_{L-1}[h, r, j], with r the [CLS] (or the [MASK] of a masked LM).
    """
    return Scores(captured.at_readout(captured.attention[-1]).mean(1))


def attention_rollout(captured: Captured, params: Params) -> Scores:
    """Attention rollout (Abnar & Zuidema 2020, section 3), the row of the position read out.

    Each layer mixes 0.5 E_h A_l + 0.5 I; every row sums to 1, and so do the scores. It is the
    W_FixedRes of GlobEnc's comparison (Modarressi et al. 2022, table 1). The product has the layers
    from ``start_layer`` on: all of them; of pictures all but the first (Chen et al. 2023).

    Of decoders the product drifts to the first token, which attention rests on where it has nothing
    to look for. ``first=dropped`` (ours) leaves what others pay it out, and divides rows by what is
    left; a row of nothing else keeps to itself.
    """
    means = head_means(captured)
    if params["first"] == "dropped":
        means = [_without_first(layer) for layer in means]
    return rolled_out(captured, with_residual(means), params["start_layer"])


def _without_first(layer: torch.Tensor) -> torch.Tensor:
    """Rows of attention, [B, T, T], of all but the first token, over their sums."""
    rest = layer.clone()
    rest[:, 1:, 0] = 0
    alone = rest.sum(-1) == 0
    rest = rest + torch.diag_embed(alone.to(rest))
    return row_normalised(rest)


def w(captured: Captured, params: Params) -> Scores:
    """Attention rolled out without residual (Modarressi et al. 2022, table 1, W): prod_l E_h A_l.

    Every row sums to 1, and so do the scores.
    """
    return rolled_out(captured, head_means(captured), params["start_layer"])


def attention_flow(captured: Captured, params: Params) -> Scores:
    """Attention flow (Abnar & Zuidema 2020, section 3): most that can flow from the readout to j.

    The graph has a node per layer and token; an edge from (l, i) to (l - 1, j) carries up to
    M_l[i, j], with M_l as ``matrix`` says: E_h A_l (``w``), half of it and half of the identity
    (``w_fixed_res``), or N_Enc of GlobEnc divided by its row sums (``globenc``), so that of every
    token as much flows on as of any other, as in the paper. ``globenc_raw`` are the norms as they
    are, which GlobEnc's code takes: tokens of small norms are then narrow places.

    The scores are divided by their sum. With depth, the flow says less and less about the readout:
    after a dozen layers it comes close to the column sums of the first layer.
    """
    layers = _flow_layers(captured, params["matrix"])
    stacked = torch.stack(layers, 1).double().cpu().numpy()
    scores = np.zeros(captured.mask.shape)
    for row, (matrices, length) in enumerate(zip(stacked, captured.batch.lengths, strict=True)):
        readout = captured.batch.instances[row].position
        scores[row, :length] = flow_row(matrices[:, :length, :length], readout)
    return Scores(torch.from_numpy(scores).to(captured.logits))


def flow_row(matrices: NDArray[np.floating], readout: int) -> NDArray[np.float64]:
    """Maximum flow from a token of the last layer to each input token, divided by the sum.

    Args:
        matrices: Capacities of any magnitude, 0 or more, first layer first, [L, T, T].
        readout: The token that the flow comes from.

    Returns:
        [T], summing to 1; zeros where nothing can flow. NaN where a capacity is no finite number.
    """
    depth, length, _ = matrices.shape
    if not np.isfinite(matrices).all():
        return np.full(length, np.nan)
    capacities = matrices / max(matrices.max(), np.finfo(np.float64).tiny)
    # Node l * T + i is token i after l layers; the input is l = 0. From each of the other nodes, T
    # edges go to the tokens one layer down.
    starts = np.repeat(np.arange(0, depth * length, length), length)
    lower = (starts[:, None] + np.arange(length)).reshape(-1)
    ends = np.concatenate([np.zeros(length, int), length * np.arange(depth * length + 1)])
    edges = Edges(capacities.reshape(-1), lower, ends)
    # Whatever flows leaves the readout, passes every layer and enters the sink.
    most = min([capacities[-1, readout].sum(), *capacities[:-1].sum((1, 2))])
    flows = np.zeros(length)
    for sink in range(length):
        bound = min(most, capacities[0, :, sink].sum())
        flows[sink] = max_flow(edges, depth * length + readout, sink, bound)
    scores: NDArray[np.float64] = flows / max(flows.sum(), np.finfo(np.float64).tiny)
    return scores


class Edges(NamedTuple):
    """A graph of N nodes and E edges, those that leave a node one after another.

    Attributes:
        capacities: What each edge can carry, [E].
        lower: The node that it enters, [E].
        ends: Node i's edges are those from ``ends[i]`` to before ``ends[i + 1]``, [N + 1].
    """

    capacities: NDArray[np.float64]
    lower: NDArray[np.int64]
    ends: NDArray[np.int64]


def max_flow(edges: Edges, start: int, sink: int, bound: float) -> float:
    """The most that can flow from one node to another; there is none that is more than the bound.

    Flows are found in whole numbers of 32 bits. No edge carries more than the bound, so capacities
    are cut to it and then scaled, and what is above 0 stays so. Where the flow is far below the
    bound, and would lack digits, it gives the next one.
    """
    nodes, count = len(edges.ends) - 1, len(edges.capacities)
    while bound > 0:
        scale = _UNITS / bound
        units = np.round(np.minimum(edges.capacities, bound) * scale)
        units[(units == 0) & (edges.capacities > 0)] = 1
        graph = csr_array((units.astype(np.int32), edges.lower, edges.ends), shape=(nodes, nodes))
        found = int(maximum_flow(graph, start, sink).flow_value)
        # Rounding has taken a half from an edge at most.
        next_bound = (found + count / 2) / scale
        if not found or found >= _EXACT or next_bound > bound / 2:
            return found / scale
        bound = next_bound
    return 0.0


# What the bound becomes; and a flow of that many is exact to a millionth or so.
_UNITS, _EXACT = 1 << 30, 1 << 24


def head_means(captured: Captured) -> list[torch.Tensor]:
    """Attention of each layer, mean over heads, each [B, T, T]."""
    return [layer.mean(1) for layer in captured.attention]


def _flow_layers(captured: Captured, matrix: str) -> list[torch.Tensor]:
    if matrix in _NORMS:
        maps = captured(Norms("output_norm")).maps
        return maps if matrix == "globenc_raw" else [row_normalised(of_layer) for of_layer in maps]
    means = head_means(captured)
    return means if matrix == "w" else with_residual(means)


def _flow_needs(params: Params) -> tuple[Wish, ...]:
    if params["matrix"] in _NORMS:
        return Forward(attention=True, layers=True), Norms("output_norm")
    return _ATTENTION


register(
    Method(
        name="raw_attention",
        compute=raw_attention,
        needs=lambda params: _ATTENTION,
        defaults={},
        signed=False,
        class_dependent=False,
        additive=False,
        by_input=True,
        cost="1 F",
        paper="Vaswani et al. 2017; as a baseline in Chefer et al. 2021",
        equation="E_h A_L[readout]",
    )
)
for name, why in (
    ("attention_rollout", None),
    ("w_fixed_res", "it is attention_rollout under GlobEnc's name"),
):
    register(
        Method(
            name=name,
            compute=attention_rollout,
            needs=lambda params: _ATTENTION,
            defaults={
                "start_layer": LastLayers(1, of_images=lambda depth: 1, of_pairs=lambda depth: 0),
                "first": ChoiceByTrait({"kept": (), "dropped": ("causal",)}),
            },
            signed=False,
            class_dependent=False,
            additive=False,
            layered="layers",
            opt_in=why,
            former={"start_layer": 0, "first": "kept"},
            by_input=True,
            cost="1 F",
            paper="Abnar & Zuidema 2020, section 3",
            equation="prod_l (0.5 E_h A_l + 0.5 I)[readout]",
        )
    )
register(
    Method(
        name="w",
        compute=w,
        needs=lambda params: _ATTENTION,
        defaults={"start_layer": LastLayers(1)},
        signed=False,
        class_dependent=False,
        additive=False,
        layered="layers",
        former={"start_layer": 0},
        by_input=True,
        cost="1 F",
        paper="Modarressi et al. 2022 (GlobEnc), table 1",
        equation="prod_l (E_h A_l)[readout]",
    )
)
register(
    Method(
        name="attention_flow",
        compute=attention_flow,
        needs=_flow_needs,
        defaults={"matrix": Choice("w_fixed_res", "w", *_NORMS)},
        requires=("position",),
        signed=False,
        class_dependent=False,
        additive=False,
        opt_in="it degenerates with depth",
        cost="1 F + T maximum flows",
        version=2,  # globenc: rows of norms are divided by their sums.
        paper="Abnar & Zuidema 2020, section 3",
        equation="maxflow(readout -> x_j) / sum",
    )
)
