"""Information bottleneck attribution (IBA): how much of each token a prediction needs.

Jiang et al. 2020 (Inserting Information Bottlenecks for Attribution in Transformers), after Schulz
et al. 2020. The score of a token is the information, in nats, that an optimised bottleneck after
one layer lets through at its position.
"""

from collections.abc import Callable
from math import log
from typing import NamedTuple

import torch

from attribeam.schemas import UsageError
from attribeam.transforms.details import InformationRow
from attribeam.transforms.network.model import Model
from attribeam.transforms.passes.base import Wish
from attribeam.transforms.passes.bottleneck import Bottleneck, optimise
from attribeam.transforms.passes.captured import Captured
from attribeam.transforms.passes.forward import Forward
from attribeam.transforms.passes.statistics import CorpusStatistics
from attribeam.transforms.registry import Default, LastLayers, Method, Params, Scores, register

# The original's estimate of the variance from a single sample is this floor.
_LEAST_VARIANCE = 1e-5


def iba(captured: Captured, params: Params) -> Scores:
    """Information bottleneck attribution (Jiang et al. 2020; Schulz et al. 2020, section 3.1).

    score[token] = sum over features of KL(N(lambda z, (1 - lambda)^2) || N(0, 1)) in nats, where z
    is the output of ``layer``, made standard by the statistics of the corpus, and the shares
    lambda minimise cross entropy + beta * mean information by ``steps`` steps of Adam. The cross
    entropy is that of the explained class; of a masked LM, of its two words; of all that follows a
    prompt, the sum of that of its tokens. The first token of a language model, which attention
    rests on where it has nothing to look for, passes as it is, and has no score.

    By layer, the same after every layer in turn.
    """
    statistics = captured.statistics
    if statistics is None:
        raise RuntimeError("the statistics of the corpus were not planned")

    def noise(layer: int) -> Noise:
        mean, std = statistics.mean[layer], statistics.std[layer]
        states = captured.outputs[layer]
        return Noise(*(torch.from_numpy(of).to(_wide(states)) for of in (mean, std)))

    return _scores(captured, params, noise)


def iba_released(captured: Captured, params: Params) -> Scores:
    """IBA as its authors' code computes it, which is another method than ``iba``.

    In place of the corpus's statistics it has the instance's own input to the layer as mean, and
    sqrt(1e-5) as every deviation: t = lambda h_out + (1 - lambda) (h_in + 0.003 e). The mask then
    says how far each feature runs or skips the layer.
    """

    def noise(layer: int) -> Noise:
        mean = _wide(captured.outputs[layer - 1] if layer else captured.entered)
        return Noise(mean, mean.new_tensor(_LEAST_VARIANCE).sqrt())

    return _scores(captured, params, noise)


class Noise(NamedTuple):
    """Mean and deviation of what takes the place of a layer's output (``Bottleneck``)."""

    mean: torch.Tensor
    std: torch.Tensor


def _wide(states: torch.Tensor) -> torch.Tensor:
    """In single precision at least: in half of it no mask near 1 has any room."""
    return states.to(torch.promote_types(states.dtype, torch.float32))


def _scores(captured: Captured, params: Params, noise: Callable[[int], Noise]) -> Scores:
    """Scores of the layer that is asked for; by layer, those of all."""
    if not captured.layered:
        return Scores(_nats(captured, params, params["layer"], noise))
    layers = range(captured.model.num_layers)
    found = [_nats(captured, params, layer, noise) for layer in layers]
    bits = (torch.stack(found, 1).double() / log(2)).cpu().numpy()
    details = [
        {"information": [InformationRow(layer, target, own[layer, :length]) for layer in layers]}
        for own, length, target in zip(
            bits, captured.batch.lengths, captured.targets.tolist(), strict=True
        )
    ]
    return Scores(found[params["layer"]], details=details)


def _nats(
    captured: Captured, params: Params, layer: int, noise: Callable[[int], Noise]
) -> torch.Tensor:
    """Information per token under the optimised mask after a layer, [B, T]."""
    mean, std = noise(layer)
    bottleneck = Bottleneck(
        model=captured.model,
        batch=captured.batch,
        layer=layer,
        states=_wide(captured.outputs[layer]),
        mean=mean,
        std=std,
        targets=captured.targets,
        beta=params["beta"],
        copies=params["copies"],
        seed=captured.seed,
    )
    mask = optimise(bottleneck, params["alpha"], params["steps"], params["lr"], captured.budget)
    return bottleneck.capacity(mask).sum(-1)


def _checked(params: Params) -> None:
    if params["beta"] < 0 or params["lr"] <= 0:
        raise UsageError("the bottleneck's beta is at least 0, and its lr is more than 0")


def _needs(params: Params) -> tuple[Wish, ...]:
    _checked(params)
    return Forward(outputs=True), CorpusStatistics(params["sample"])


def _released_needs(params: Params) -> tuple[Wish, ...]:
    _checked(params)
    return (Forward(outputs=True),)


def _spared(params: Params, model: Model) -> str | None:
    """Why it isn't one of ``all``: of language models each token that follows has a mask."""
    if not model.speaks:
        return None
    return "optimises a mask for each token that follows, and one for all of them: name it"


_DEFAULTS: dict[str, Default] = {
    # The authors' layer for BERT: 8 of 0 to 11. After the last one, only the position that is read
    # out has any information to lose.
    "layer": LastLayers(4 / 12, least=2),
    "steps": 10,
    "lr": 1.0,
    "copies": 10,
    "alpha": 5.0,
}
_COST = "1 F + steps copies (F + B) above layer"
_EQUATION = "sum_d KL(N(lambda z, (1 - lambda)^2) || N(0, 1)), lambda by CE + beta KL"

register(
    Method(
        name="iba",
        compute=iba,
        needs=_needs,
        # Chosen on a fine-tuned model: see docs/methods.md and benchmarks/bottleneck_beta.py.
        defaults={**_DEFAULTS, "beta": 1.0, "sample": 1000},
        requires=("likely",),
        spared=_spared,
        signed=False,
        class_dependent=True,
        additive=False,
        stochastic=True,
        layered="information",
        cost=_COST,
        paper="Jiang et al. 2020, after Schulz et al. 2020, section 3.1",
        equation=_EQUATION,
    )
)
register(
    Method(
        name="iba_released",
        compute=iba_released,
        needs=_released_needs,
        defaults={**_DEFAULTS, "beta": 1e-5},
        requires=("likely",),
        spared=_spared,
        signed=False,
        class_dependent=True,
        additive=False,
        stochastic=True,
        layered="information",
        opt_in="it reproduces the released code; the idea is another method",
        cost=_COST,
        paper="Jiang et al. 2020, as released",
        equation=_EQUATION,
    )
)
