"""Methods that read attention probabilities of one forward pass."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow

from transforms.captured import Captured
from transforms.passes import Forward, Norms, Pass
from transforms.registry import Choice, Method, Params, Scores, register
from transforms.rollout import rolled_out, with_residual

_ATTENTION: tuple[Pass, ...] = (Forward(attention=True),)


def raw_attention(captured: Captured, params: Params) -> Scores:
    """Attention of the last layer, mean over heads, from the position that is read out.

    score[j] = E_h A_{L-1}[h, r, j], with r the [CLS] (or the [MASK] of a masked LM).
    """
    return Scores(captured.at_readout(captured.attention[-1]).mean(1))


def attention_rollout(captured: Captured, params: Params) -> Scores:
    """Attention rollout (Abnar & Zuidema 2020, section 3), the row of the position read out.

    Each layer mixes 0.5 E_h A_l + 0.5 I; every row sums to 1, and so do the scores. It is the
    W_FixedRes of GlobEnc's comparison (Modarressi et al. 2022, table 1).
    """
    return rolled_out(captured, with_residual(head_means(captured)))


def w(captured: Captured, params: Params) -> Scores:
    """Attention rolled out without residual (Modarressi et al. 2022, table 1, W): prod_l E_h A_l.

    Every row sums to 1, and so do the scores.
    """
    return rolled_out(captured, head_means(captured))


def attention_flow(captured: Captured, params: Params) -> Scores:
    """Attention flow (Abnar & Zuidema 2020, section 3): most that can flow from the readout to j.

    The graph has a node per layer and token; an edge from (l, i) to (l - 1, j) carries up to
    M_l[i, j], with M_l as ``matrix`` says (norms are divided by their row sums). Capacities are
    rounded to 1e-7; the scores are divided by their sum. With depth, the flow says less and less
    about the readout: after a dozen layers it comes close to the column sums of the first layer.
    """
    layers = _flow_layers(captured, params["matrix"])
    stacked = torch.stack(layers, 1).double().cpu().numpy()
    scores = np.zeros(captured.mask.shape)
    for row, (matrices, length) in enumerate(zip(stacked, captured.batch.lengths, strict=True)):
        readout = captured.batch.instances[row].readout
        scores[row, :length] = flow_row(matrices[:, :length, :length], readout)
    return Scores(torch.from_numpy(scores).to(captured.logits))


def flow_row(matrices: NDArray[np.floating], readout: int) -> NDArray[np.float64]:
    """Maximum flow from a token of the last layer to each input token, divided by the sum.

    Args:
        matrices: Capacities in [0, 1], first layer first, [L, T, T].
        readout: The token that the flow comes from.
    """
    depth, length, _ = matrices.shape
    tops, targets, sources = np.indices(matrices.shape).reshape(3, -1)
    # Node l * T + i is token i after l layers; the input is l = 0.
    upper, lower = (tops + 1) * length + targets, tops * length + sources
    capacities = np.round(matrices.reshape(-1) * 1e7).astype(np.int32)
    nodes = (depth + 1) * length
    graph = csr_array((capacities, (upper, lower)), shape=(nodes, nodes), dtype=np.int32)
    start = depth * length + readout
    flow = [maximum_flow(graph, start, sink).flow_value for sink in range(length)]
    scores: NDArray[np.float64] = np.array(flow, np.float64) / max(1, sum(flow))
    return scores


def head_means(captured: Captured) -> list[torch.Tensor]:
    """Attention of each layer, mean over heads, each [B, T, T]."""
    return [layer.mean(1) for layer in captured.attention]


def _flow_layers(captured: Captured, matrix: str) -> list[torch.Tensor]:
    if matrix == "globenc":
        return captured.norms(Norms("output_norm")).maps
    means = head_means(captured)
    return means if matrix == "w" else with_residual(means)


def _flow_needs(params: Params) -> tuple[Pass, ...]:
    if params["matrix"] == "globenc":
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
            defaults={},
            signed=False,
            class_dependent=False,
            additive=False,
            layered="layers",
            opt_in=why,
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
        defaults={},
        signed=False,
        class_dependent=False,
        additive=False,
        layered="layers",
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
        defaults={"matrix": Choice("w_fixed_res", "w", "globenc")},
        signed=False,
        class_dependent=False,
        additive=False,
        opt_in="it degenerates with depth",
        cost="1 F + T maximum flows",
        paper="Abnar & Zuidema 2020, section 3",
        equation="maxflow(readout -> x_j) / sum",
    )
)
