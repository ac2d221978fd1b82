"""A model with its weights in bfloat16, for passes that need no more than that.

Weights are cast once. Under autocast (``Model.mixed``) they are cast at every pass, which takes as
long on a processor as bfloat16 saves.
"""

from copy import deepcopy
from dataclasses import replace
from weakref import WeakKeyDictionary

import torch
from torch import nn

from attribeam.transforms.network.model import Model

_HALVED: WeakKeyDictionary[nn.Module, Model] = WeakKeyDictionary()


def can_be_halved(model: Model) -> str | None:
    """Why a model has no such copy; None if it has.

    Only of a network in float32 that is a model by itself, and no tower of one.
    """
    if model.beside is not None or model.whole is not model.network:
        return "is for models of one network, and this one has several"
    if model.speaks:
        return "is not for language models"
    if model.mixed or model.dtype != torch.float32:
        return "is for runs in float32"
    return None


def halved(model: Model) -> Model:
    """The same model with weights in bfloat16; it is made once of each network and then kept.

    Raises:
        ValueError: If there is none (``can_be_halved``).
    """
    if (why := can_be_halved(model)) is not None:
        raise ValueError(f"bfloat16 {why}")
    found = _HALVED.get(model.network)
    if found is None:
        network = deepcopy(model.network)
        network.to(dtype=torch.bfloat16)  # type: ignore[call-arg]
        found = _HALVED[model.network] = replace(model, network=network)
    return found
