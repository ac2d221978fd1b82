"""Noise on what instances are made of, where gradients are taken: embeddings, or pixels.

Texts have no continuous input, so that noise is added where the encoder begins. All that is run of
an instance has the same noise, perturbed copies too; what is removed of these has none.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attribeam.transforms.inputs.batch import Instance, pack
from attribeam.transforms.inputs.images.picture import Picture
from attribeam.transforms.inputs.kinds import collate, inputs_of
from attribeam.transforms.network.borrowed import borrowed
from attribeam.transforms.network.model import Model


def input_scales(
    model: Model, instances: Sequence[Instance], token_budget: int
) -> NDArray[np.float64]:
    """Root mean square of the numbers that noise is added to, of each instance, [N].

    They are hidden units that enter the first layer, or normalised pixels.
    """
    found = np.full(len(instances), np.nan)
    for modality, tower in model.towers.items():
        own = [at for at, instance in enumerate(instances) if instance.modality == modality]
        lengths = [len(instances[at]) for at in own]
        with borrowed(tower.network), torch.no_grad():
            for batch in pack(lengths, token_budget, tower.head_size):
                numbers = [own[at] for at in batch]
                found[numbers] = _scales(tower, [instances[at] for at in numbers])
    return found


def _scales(model: Model, instances: Sequence[Instance]) -> NDArray[np.float64]:
    kind, rows = inputs_of(model), collate(model, instances).rows
    leaf, _ = kind.leaf(model, rows)
    there = kind.there(model, rows).expand_as(leaf)
    dims = tuple(range(1, leaf.dim()))
    squares = leaf.double().square().masked_fill(~there, 0).sum(dims)
    scales: NDArray[np.float64] = (squares / there.sum(dims)).sqrt().cpu().numpy()
    return scales


def noised(model: Model, instance: Instance, radius: float, draw: int, seed: int) -> Instance:
    """An instance with noise: each number is uniform between -radius and radius.

    Args:
        model: The model.
        instance: The instance.
        radius: In the unit of what it is added to.
        draw: Number of the draw; each has a generator of the instance's own.
        seed: Seed of the run.
    """
    if isinstance(instance, Picture):
        assert instance.pixels is not None
        size = instance.pixels.shape
    else:
        size = (len(instance), model.towers[instance.modality].hidden_size)
    random = instance.generator(seed, f"noise {draw}")
    noise: NDArray[np.floating[Any]] = radius * random.uniform(-1, 1, size)
    return replace(instance, noise=noise)
