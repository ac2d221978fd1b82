"""Methods that read gradients with respect to what enters the first layer, or to pixels."""

from dataclasses import replace
from functools import partial
from typing import get_args

import torch

from attribeam.schemas import UsageError
from attribeam.transforms.inputs.seam import BaselineName
from attribeam.transforms.inputs.targets import Output
from attribeam.transforms.methods.reducing import of_segments, reduced
from attribeam.transforms.passes.base import Rule, Wish
from attribeam.transforms.passes.captured import Captured
from attribeam.transforms.passes.forward import Backward
from attribeam.transforms.passes.ladder import checked
from attribeam.transforms.passes.noisy import Noisy
from attribeam.transforms.passes.path import Moves, Path
from attribeam.transforms.passes.segments import Segments
from attribeam.transforms.registry import Choice, ChoiceByKind, Method, Params, Scores, register

_AUTO = "auto"
# What is taken with a number of points of one's own, and the most that are taken without.
_FIXED: Rule = "gauss_legendre"
_MOST = 97


def saliency(captured: Captured, params: Params) -> Scores:
    """Size of the gradient of the explained scalar (Simonyan et al. 2014, section 3).

    score[j] = norm over hidden units of d f / d x[j]; ``norm`` is l2 or l1. Of pictures, over the
    pixels of each patch.
    """
    order = {"l2": 2, "l1": 1}[params["norm"]]
    norm = partial(torch.linalg.vector_norm, ord=order, dim=-1)
    return reduced(captured, _gradient(captured), norm)


def grad_x_input(captured: Captured, params: Params) -> Scores:
    """Gradient times input (Denil et al. 2014; Shrikumar et al. 2016).

    ``reduce=sum``: score[j] = sum_k (d f / d x[j, k]) x[j, k], signed. ``reduce=norm``: the l2 norm
    of that product over hidden units, as GlobEnc compares itself with. ``sources=segments``: the
    sum over each part of a prompt, which all of its tokens have.
    """
    if params["sources"] == "segments":
        return of_segments(captured, None)
    assert captured.fed is not None
    product = _gradient(captured) * captured.fed
    if params["reduce"] == "norm":
        return reduced(captured, product, partial(torch.linalg.vector_norm, dim=-1))
    return reduced(captured, product)


def smoothgrad(captured: Captured, params: Params) -> Scores:
    """SmoothGrad (Smilkov et al. 2017, section 3): the mean gradient over noisy copies.

    With g[j] the mean of d f / d x[j] over ``samples`` copies of the input, whose numbers all have
    Gaussian noise added, of a standard deviation that is the share ``noise`` of the distance from
    the input's smallest to its largest number: score[j] = sum_k |g[j, k]| over hidden units
    (``reduce=abs``), or sum_k g[j, k], signed (``reduce=sum``). Of pictures it is over the pixels
    of each patch.
    """
    gradient = captured(_noisy(params))
    return reduced(captured, gradient.abs() if params["reduce"] == "abs" else gradient)


def integrated_gradients(captured: Captured, params: Params) -> Scores:
    """Integrated gradients (Sundararajan et al. 2017, equation 1), summed over hidden units.

    score[j] = sum_k (x - b)[j, k] * sum_i w_i d f(b + a_i (x - b)) / d x[j, k], with points a_i and
    weights w_i of ``rule``. f is the explained scalar (``output=logit``; of a masked LM, the
    contrast of its two words) or the softmax probability of the explained class. ``delta`` is the
    completeness gap sum(scores) - (f(x) - f(b)). With the pad and mask baselines special tokens
    don't move, so their scores are zero; of language models all others do (``moves=text``).

    A nested rule takes as many of the ``steps`` points as an instance needs: until the gap, and
    what twice the points changed, are at most ``tolerance`` of the largest score. Other rules take
    all of them. ``rule=auto`` is ``nested_early`` from zeros, where gradients are largest near the
    baseline, and ``nested`` from others; and ``gauss_legendre`` where another number of ``steps``
    is given, of which all are taken.

    The preset ``iba`` has the settings that Jiang et al. (2020) compare with. Their code explains
    class 0 of every text and divides by the scores' l2 norm; here the explained class is explained,
    and the raw scores are given. The presets ``inseq`` and ``captum`` are what these libraries do
    to language models: all tokens come from the unknown one, the first and what has been said
    included; or those of the prompt come from the token of the number 0, the first included. What
    they explain unless told otherwise is the probability, and its logarithm (``--explain``).
    """
    path = captured(_path(params))
    if path.gradient is None or path.gain is None:
        raise RuntimeError("the path was walked for something else")
    scores = reduced(captured, path.gradient * path.difference)
    delta = scores.values.sum(-1) - path.gain
    return replace(scores, delta=delta, taken=path.taken["input"])


def _gradient(captured: Captured) -> torch.Tensor:
    if captured.gradient is None:
        raise RuntimeError("the backward pass was not planned")
    return captured.gradient


def _of_products(params: Params) -> tuple[Wish, ...]:
    if params["sources"] == "tokens":
        return (Backward(),)
    if params["reduce"] != "sum":
        raise UsageError(
            f"grad_x_input.reduce={params['reduce']} is of tokens alone: what parts of prompts "
            "have is a sum (reduce=sum, or sources=tokens)"
        )
    return (Segments(None),)


def _noisy(params: Params) -> Noisy:
    if params["noise"] <= 0:
        raise UsageError(f"smoothgrad.noise is more than 0, not {params['noise']}")
    return Noisy(params["samples"], params["noise"])


def _path(params: Params) -> Path:
    baseline: BaselineName = params["baseline"]
    rule: Rule = params["rule"]
    moves: Moves = params["moves"]
    if params["rule"] == _AUTO:
        early = baseline == "zero"
        rule = _FIXED if params["steps"] != _MOST else "nested_early" if early else "nested"
    tolerance = checked("integrated_gradients", rule, params["tolerance"])
    return Path(
        baseline,
        params["steps"],
        rule,
        output=params["output"],
        tolerance=tolerance,
        moves=moves,
    )


register(
    Method(
        name="saliency",
        compute=saliency,
        needs=lambda params: (Backward(),),
        defaults={"norm": Choice("l2", "l1")},
        signed=False,
        class_dependent=True,
        additive=False,
        cost="1 F + 1 B",
        paper="Simonyan et al. 2014, section 3",
        equation="||df/dx||",
    )
)
register(
    Method(
        name="grad_x_input",
        compute=grad_x_input,
        needs=_of_products,
        defaults={"reduce": Choice("sum", "norm"), "sources": Choice("tokens", "segments")},
        former={"sources": "tokens"},
        signed=True,
        has_sign=lambda params: params["reduce"] == "sum",
        class_dependent=True,
        additive=False,
        cost="1 F + 1 B",
        paper="Shrikumar et al. 2016; Denil et al. 2014",
        equation="sum_k x_k df/dx_k",
    )
)
register(
    Method(
        name="smoothgrad",
        compute=smoothgrad,
        needs=lambda params: (_noisy(params),),
        defaults={"reduce": Choice("abs", "sum"), "samples": 20, "noise": 0.15},
        signed=False,
        has_sign=lambda params: params["reduce"] == "sum",
        class_dependent=True,
        additive=False,
        stochastic=True,
        cost="samples (F + B)",
        paper="Smilkov et al. 2017, section 3",
        equation="sum_k |mean of df/dx_k at x + N(0, sd^2)|",
    )
)
register(
    Method(
        name="integrated_gradients",
        compute=integrated_gradients,
        needs=lambda params: (_path(params),),
        defaults={
            "baseline": ChoiceByKind(
                "starts", ("pad", "mask", "zero", "black", "blur", "unk", "id0")
            ),
            "steps": _MOST,
            "rule": Choice(_AUTO, *get_args(Rule)),
            "tolerance": 0.005,
            "output": Choice(*get_args(Output)),
            "moves": Choice(*get_args(Moves)),
        },
        presets={
            "fixed": {"steps": 50, "rule": "gauss_legendre"},
            "iba": {
                "baseline": "pad",
                "steps": 10,
                "rule": "gauss_legendre",
                "output": "probability",
            },
            "inseq": {
                "baseline": "unk",
                "steps": 50,
                "rule": "gauss_legendre",
                "output": "logit",
                "moves": "all",
            },
            "captum": {
                "baseline": "id0",
                "steps": 50,
                "rule": "gauss_legendre",
                "output": "logit",
                "moves": "prompt",
            },
        },
        signed=True,
        class_dependent=True,
        additive=True,
        former={"moves": "text", "tolerance": 0.005},
        earlier={"steps": 50, "rule": "gauss_legendre"},
        cost="at most steps (F + B), 34 in the mean",
        paper="Sundararajan et al. 2017, equation 1",
        equation="(x - b) int_0^1 df(b + a (x - b))/dx da",
    )
)
