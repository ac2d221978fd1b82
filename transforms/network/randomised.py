"""A model whose weights are randomised part by part, from the output down, and then put back.

What explains a model can't stay as it is while the model becomes noise (Adebayo et al. 2018).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple
from zlib import crc32

import numpy as np
import torch
from torch import nn

from attribeam.schemas import UsageError
from attribeam.transforms.network.model import Model

Weights = Literal["init", "shuffle"]
# Of a parameter's name and what it is, what takes its place.
Change = Callable[[str, torch.Tensor], torch.Tensor]

# transformers' own, where a configuration says nothing.
_USUAL_RANGE = 0.02


class Part(NamedTuple):
    """A part of a model: ``head``, ``layer.3`` or ``embeddings``, and its parameters by name."""

    name: str
    parameters: dict[str, nn.Parameter]


def parts_of(model: Model) -> list[Part]:
    """The parts of a model from the output to the input.

    The head is what comes after the last layer, and the embeddings all that comes before the first:
    transformers registers modules in the order in which they are called. Tables that are looked up
    are embeddings wherever they stand, so that a masked LM's words aren't its head's. A module that
    is several layers is one part, named by the first of them.

    Raises:
        UsageError: If nothing is known of what is inside, or if it is run by two networks.
    """
    if model.anatomy.closed:
        family = model.network.config.model_type
        raise UsageError(
            f"nothing inside of a {family} is known, so that no part can be randomised"
        )
    if model.beside is not None:
        raise UsageError("pairs are run by two networks, whose parts can't be randomised together")
    number_of: dict[int, int] = {}
    for number, layer in enumerate(model.layers):
        for parameter in layer.module.parameters():
            number_of.setdefault(id(parameter), number)
    tables = {
        id(parameter)
        for module in model.network.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
    }
    found: dict[str, dict[str, nn.Parameter]] = {"head": {}}
    found |= {f"layer.{number}": {} for number in sorted({*number_of.values()}, reverse=True)}
    found["embeddings"] = {}
    seen_layers = False
    for name, parameter in _named(model):
        if id(parameter) in number_of:
            seen_layers = True
            found[f"layer.{number_of[id(parameter)]}"][name] = parameter
        elif id(parameter) in tables or not seen_layers:
            found["embeddings"][name] = parameter
        else:
            found["head"][name] = parameter
    return [Part(name, parameters) for name, parameters in found.items() if parameters]


def _named(model: Model) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters that a model's predictions depend on, by name; of a tower of two, its own.

    A head may be a copy of weights of the network's (of two heads as one), or of the whole's.
    """
    network = model.network
    tower = model.whole is not network
    own = dict((network.base_model if tower else network).named_parameters())
    yield from own.items()
    known = {id(parameter) for parameter in own.values()}
    steps = [getattr(step, "module", step) for step in model.head]
    for number, step in enumerate(step for step in steps if isinstance(step, nn.Module)):
        for name, parameter in step.named_parameters(prefix=f"head.{number}"):
            if id(parameter) not in known:
                yield name, parameter


def drawn(model: Model, weights: Weights, seed: int) -> Change:
    """What takes a parameter's place, whatever else is randomised.

    ``init`` draws anew as transformers initialises: matrices from a normal distribution of the
    configuration's ``initializer_range``, biases 0, norms 1 (or 0, where 1 is added to them).
    ``shuffle`` permutes a parameter's own numbers, so that their scale stays; so does ``init`` what
    is neither a matrix nor a bias nor a norm's. Each parameter has a generator of its own, of the
    seed and its name.
    """
    spread = float(getattr(model.encoder, "initializer_range", None) or _USUAL_RANGE)

    def change(name: str, old: torch.Tensor) -> torch.Tensor:
        random = np.random.Generator(np.random.Philox([seed, crc32(name.encode())]))
        if weights == "init" and old.dim() > 1:
            normal = random.normal(0, spread, old.shape)
            return torch.from_numpy(normal).to(old)
        if weights == "init" and name.endswith("bias"):
            return torch.zeros_like(old)
        if weights == "init" and name.endswith("weight"):  # Of one dimension: a norm's.
            return torch.full_like(old, 1 - model.anatomy.norm_shift)
        order = torch.from_numpy(random.permutation(old.numel())).to(old.device)
        return old.flatten()[order].view(old.shape)

    return change


@contextmanager
def randomised(parts: Sequence[Part], change: Change) -> Iterator[None]:
    """For its duration the parameters of some parts are others (``drawn``)."""
    before = [
        (parameter, parameter.detach().clone())
        for part in parts
        for parameter in part.parameters.values()
    ]
    try:
        with torch.no_grad():
            for part in parts:
                for name, parameter in part.parameters.items():
                    parameter.copy_(change(name, parameter.detach()))
        yield
    finally:
        with torch.no_grad():
            for parameter, old in before:
                parameter.copy_(old)
