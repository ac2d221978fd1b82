"""Methods that read attention probabilities of one forward pass."""

import torch

from transforms.passes import Captured, Forward
from transforms.registry import Method, Params, Scores, register


def raw_attention(captured: Captured, params: Params) -> Scores:
    """Attention of the last layer, mean over heads, from the position that is read out.

    score[j] = E_h A_{L-1}[h, r, j], with r the [CLS] (or the [MASK] of a masked LM).
    """
    last = captured.attention[-1].mean(dim=1)
    return Scores(_readout_row(last, captured))


def attention_rollout(captured: Captured, params: Params) -> Scores:
    """Attention rollout (Abnar & Zuidema 2020, section 3), the row of the position read out.

    Each layer mixes 0.5 E_h A_l + 0.5 I; the layers are multiplied from last to first. Only one row
    of the product is needed, so it is a vector that is carried down, at L * T^2 instead of L * T^3.
    Every factor's rows sum to 1, and so do the scores.
    """
    rows = captured.batch.rows
    size, length = rows.input_ids.shape
    row = torch.zeros(size, 1, length, dtype=captured.logits.dtype, device=rows.input_ids.device)
    row[torch.arange(size), 0, rows.readout] = 1
    for layer in reversed(captured.attention):
        row = 0.5 * (row @ layer.mean(dim=1)) + 0.5 * row
    return Scores(row[:, 0])


def _readout_row(matrix: torch.Tensor, captured: Captured) -> torch.Tensor:
    """The row of each instance's readout position: [B, T, T] to [B, T]."""
    readout = captured.batch.rows.readout
    return matrix[torch.arange(len(readout), device=readout.device), readout]


register(
    Method(
        name="raw_attention",
        compute=raw_attention,
        needs=lambda params: (Forward(attention=True),),
        defaults={},
        signed=False,
        class_dependent=False,
        additive=False,
        cost="1 F",
        paper="Vaswani et al. 2017; as a baseline in Chefer et al. 2021",
        equation="E_h A_L[readout]",
    )
)
register(
    Method(
        name="attention_rollout",
        compute=attention_rollout,
        needs=lambda params: (Forward(attention=True),),
        defaults={},
        signed=False,
        class_dependent=False,
        additive=False,
        cost="1 F",
        paper="Abnar & Zuidema 2020, section 3",
        equation="prod_l (0.5 E_h A_l + 0.5 I)[readout]",
    )
)
