"""How many floating point operations a pass takes, counted from the architecture."""

from collections.abc import Iterable

from attribeam.transforms.network.model import Model


def forward_flops(model: Model, lengths: Iterable[int]) -> float:
    """Operations of a forward pass over rows of these lengths; a product and a sum count as two.

    Counted are the products of matrices in the layers, of the last one for the position that is
    read out alone (``readout``). Embeddings, norms, softmaxes and the head are small beside them.
    """
    layers, hidden = model.num_layers, model.hidden_size
    weights = sum(linear.weight.numel() for linear in model.layers[0].linears)
    total = 0.0
    for length in lengths:
        token = 2.0 * weights + 4 * length * hidden
        total += (layers - 1) * length * token + token
    return total
