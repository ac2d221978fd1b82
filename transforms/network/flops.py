"""What a pass takes: floating point operations, and memory, counted from the architecture."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from attribeam.transforms.network.check import random_rows
from attribeam.transforms.network.model import Model


def forward_flops(model: Model, lengths: Iterable[int]) -> float:
    """Operations of a forward pass over rows of these lengths; a product and a sum count as two.

    Counted are the products of matrices in the layers, of the last one for the position that is
    read out alone (``readout``). Embeddings, norms, softmaxes and the head are small beside them.
    Of a network without known layers they are counted as a picture passes it.
    """
    if model.anatomy.closed:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.run(random_rows(model))
        return float(counter.get_total_flops() * sum(1 for _ in lengths))
    layers, hidden = model.num_layers, model.hidden_size
    weights = sum(linear.weight.numel() for linear in model.layers[0].linears)
    total = 0.0
    for length in lengths:
        token = 2.0 * weights + 4 * length * hidden
        total += (layers - 1) * length * token + token
    return total


def held_by_token(model: Model) -> float:
    """Bytes that a forward pass with a graph holds of a token, about.

    In a layer about 18 hidden sizes (``inputs.batch.row_cost``). Of a network without known layers
    what its modules give is counted as a picture passes it.
    """
    if not model.anatomy.closed:
        return 18.0 * model.hidden_size * model.num_layers * model.dtype.itemsize
    held = 0

    def count(_: nn.Module, __: tuple[Any, ...], given: Any) -> None:
        nonlocal held
        held += given.numel() * given.element_size() if isinstance(given, torch.Tensor) else 0

    rows = random_rows(model)
    leaves = [module for module in model.network.modules() if not [*module.children()]]
    handles = [module.register_forward_hook(count) for module in leaves]
    try:
        with torch.no_grad():
            model.run(rows)
    finally:
        for handle in handles:
            handle.remove()
    return held / rows.length
