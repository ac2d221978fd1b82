"""Relevance as a gradient times the input, through a network that follows rules."""

from collections.abc import Callable
from dataclasses import replace

import torch

from attribeam.transforms.inputs.targets import LINEAR
from attribeam.transforms.methods.reducing import of_segments, reduced
from attribeam.transforms.network.model import Model
from attribeam.transforms.network.rules import RuleName
from attribeam.transforms.passes.captured import Captured
from attribeam.transforms.passes.ruled import Ruled
from attribeam.transforms.passes.segments import Segments
from attribeam.transforms.registry import Choice, Method, Params, Scores, register


def attnlrp(captured: Captured, params: Params) -> Scores:
    """AttnLRP (Achtibat et al. 2024, section 3): relevance of what is fed, summed, signed.

    score[j] = sum_k x[j, k] d f / d x[j, k], with the deviation of norms and the slope act(z) / z
    of activations fixed, the gradient of the softmax as it is, and half of what passes a product
    given to each of its factors. Relevance of biases is left out, and the softmax doesn't conserve
    it: ``unattributed`` is what scores and an explained sum of logits are apart by.
    ``sources=segments``: the sum over each part of a prompt, which all of its tokens have.
    """
    if params["sources"] == "segments":
        return of_segments(captured, "attnlrp")
    found = _relevance(captured, "attnlrp")
    if captured.question.scalar not in LINEAR:
        return found
    return replace(found, unattributed=captured.explained - found.values.sum(-1))


def cp_lrp(captured: Captured, params: Params) -> Scores:
    """CP-LRP (Ali et al. 2022, section 3): as ``attnlrp``, with attention and gates fixed.

    Values and what is gated get all that passes their products. It is ``decompx`` without its
    biases, first value bias included, in one backward pass. Where the model has no biases, and the
    explained scalar is a sum of logits, scores sum to that; ``delta`` is what they miss it by.
    Elsewhere what biases and positions have of such a scalar is ``unattributed``.
    ``sources=segments``: the sum over each part of a prompt, which all of its tokens have; what is
    of no part is ``unattributed``, too.
    """
    if params["sources"] == "segments":
        return of_segments(captured, "cp_lrp")
    found = _relevance(captured, "cp_lrp")
    if captured.question.scalar not in LINEAR:
        return found
    gap = found.values.sum(-1) - captured.explained
    return (
        replace(found, unattributed=-gap)
        if has_biases(captured.model)
        else replace(found, delta=gap)
    )


def _relevance(captured: Captured, rules: RuleName) -> Scores:
    gradient, fed = captured(Ruled(rules))
    return reduced(captured, gradient * fed)


def has_biases(model: Model) -> bool:
    """Whether something is added, in layers or head, that no token has part in.

    Biases of queries and keys are none of these where attention is fixed, but models that have
    them have others.
    """
    parts = [layer.module for layer in model.layers]
    parts += [step for step in map(_module, model.head) if step is not None]
    named = (name for part in parts for name, _ in part.named_parameters())
    return any(name.rpartition(".")[2] == "bias" for name in named)


def _module(step: object) -> torch.nn.Module | None:
    if isinstance(step, torch.nn.Module):
        return step
    module = getattr(step, "module", None)
    return module if isinstance(module, torch.nn.Module) else None


def _register(
    name: RuleName,
    compute: Callable[[Captured, Params], Scores],
    *,
    cost: str,
    paper: str,
    equation: str,
) -> None:
    register(
        Method(
            name=name,
            compute=compute,
            needs=lambda params: (
                Segments(name) if params["sources"] == "segments" else Ruled(name),
            ),
            defaults={"sources": Choice("tokens", "segments")},
            former={"sources": "tokens"},
            signed=True,
            class_dependent=True,
            additive=False,
            opt_in="authors of LRP say that a patent covers it: see docs/methods.md",
            requires=("looked_up",),
            by_input=True,
            cost=cost,
            paper=paper,
            equation=equation,
        )
    )


_register(
    "attnlrp",
    attnlrp,
    cost="1 F + 1 B",
    paper="Achtibat et al. 2024 (AttnLRP), section 3",
    equation="x . df/dx by rules: deviations and act(x)/x fixed, products halved",
)
_register(
    "cp_lrp",
    cp_lrp,
    cost="1 F + 0.5 B",
    paper="Ali et al. 2022 (CP-LRP), section 3",
    equation="x . df/dx by rules: attention, gates, deviations and act(x)/x fixed",
)
