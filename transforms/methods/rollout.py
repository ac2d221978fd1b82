"""Rolling layers out: how much of the input arrives at the position that is read out.

Each layer is a matrix that says how much of each token flows into each other one; the layers are
multiplied from last to first. Only one row of the product is ever needed, so it is a vector that is
carried down, at L * T^2 instead of L * T^3.
"""

from collections.abc import Callable, Sequence

import torch

from attribeam.transforms.passes.captured import Captured
from attribeam.transforms.registry import LayerScores, Scores


def start_row(captured: Captured) -> torch.Tensor:
    """All of the weight on what is read out, [B, T], in float32 at least."""
    rows = captured.batch.rows
    kind = torch.promote_types(captured.logits.dtype, torch.float32)
    ones = torch.ones(len(captured.logits), dtype=kind, device=rows.device)
    return rows.read.spread(ones, rows.length)


def carry(rows: torch.Tensor, layers: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Carries rows down through the layers, last to first.

    A row is divided by its sum after every layer: products of two dozen unnormalised layers
    overflow float32, and the ranking doesn't depend on the scale.

    Args:
        rows: Non-negative weights, R rows for each of n inputs, [n, R, T].
        layers: The layers' matrices, first layer first, each [n, T, T].

    Returns:
        The rows, summing to 1, and the natural logarithms of what they were divided by, [n, R].
    """
    scale = rows.new_zeros(rows.shape[:2])
    for layer in reversed(layers):
        rows = rows @ layer.to(rows.dtype)
        total = rows.sum(-1, keepdim=True)
        # A row of zeros stays one.
        total = torch.where(total > 0, total, 1)
        rows, scale = rows / total, scale + total[..., 0].log()
    return rows, scale


def accumulate(row: torch.Tensor, layers: Sequence[torch.Tensor]) -> torch.Tensor:
    """Carries a row down through layers with a residual: prod_l (I + M_l), unnormalised, [B, T]."""
    for layer in reversed(layers):
        row = row + (row[:, None] @ layer.to(row.dtype))[:, 0]
    return row


def rolled_out(
    captured: Captured,
    layers: Sequence[torch.Tensor],
    start: int,
    mixing: Callable[[], torch.Tensor] | None = None,
) -> Scores:
    """The readout's row of the product of layers, and that of each layer if they are wanted.

    Args:
        captured: The capture that the layers come from.
        layers: The layers' matrices, first layer first, each [n, T, T]; zero at padded keys.
        start: The first layer that the product has. Those below mix nothing.
        mixing: Gives the context-mixing ratio of each token, [B, L, T].
    """
    batch = captured.batch
    read = batch.by_input(start_row(captured))

    def carried(layers: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        rows, scale = carry(read, layers)
        return batch.by_question(rows), batch.by_question(scale)

    values, scale = carried(layers[start:])
    if not captured.layered:
        return Scores(values, scale=scale)
    parts = [carried(layers[start : top + 1]) for top in range(len(layers))]
    return Scores(
        values,
        scale=scale,
        layers=LayerScores(
            local=torch.stack([captured.at_readout(layer) for layer in layers], 1),
            rollout=torch.stack([row for row, _ in parts], 1),
            scale=torch.stack([scale for _, scale in parts], 1),
            mixing=None if mixing is None else mixing(),
        ),
    )


def with_residual(layers: list[torch.Tensor]) -> list[torch.Tensor]:
    """Half of each matrix and half of the identity, each [B, T, T]."""
    identity = torch.eye(layers[0].shape[-1]).to(layers[0])
    return [0.5 * layer + 0.5 * identity for layer in layers]


def row_normalised(matrix: torch.Tensor) -> torch.Tensor:
    """A non-negative matrix divided by its row sums; a row of zeros stays one."""
    total = matrix.sum(-1, keepdim=True)
    return matrix / torch.where(total > 0, total, 1)
