"""Influence patterns: how much of the output each token moves, and along which path.

Lu et al. 2021 (Influence Patterns for Explaining Information Flow in BERT). The scores are the
input influence; the patterns, which come with it, fill a table of their own.
"""

from typing import get_args

import numpy as np
import torch

from attribeam.transforms.details import Details, PatternRow
from attribeam.transforms.inputs.batch import Instance
from attribeam.transforms.network.model import Model
from attribeam.transforms.passes.base import Rule, Wish
from attribeam.transforms.passes.captured import Captured
from attribeam.transforms.passes.forward import Forward
from attribeam.transforms.passes.influence_paths import InfluencePaths, PatternAblation, Start
from attribeam.transforms.passes.ladder import Taken, checked
from attribeam.transforms.passes.patterns import Influence
from attribeam.transforms.registry import (
    Choice,
    ChoiceByKind,
    Default,
    Method,
    Params,
    ParamValue,
    Scores,
    register,
)


def influence(captured: Captured, params: Params) -> Scores:
    """Input influence (Lu et al. 2021, after Leino et al. 2018), with the patterns of every token.

    score[j] = E_a[d q(b + a (x - b)) / d x_j] . (x_j - b_j), with x the word embeddings as they are
    looked up and b those of the baseline; q is the logit of the explained class minus the
    runner-up's, or of a masked LM the contrast of its two words. Position and type embeddings are
    no part of the path. ``delta`` is sum(scores) - (q(x) - q(b)).
    """
    found = captured(_paths(params))
    values = torch.zeros(captured.mask.shape, dtype=torch.float64)
    for row, own in zip(values, found, strict=True):
        row[: len(own.values)] = own.values.cpu()
    gain = torch.stack([own.gain.cpu() for own in found])
    taken = Taken(
        torch.tensor([own.steps for own in found]),
        torch.tensor([own.error for own in found], dtype=torch.float64),
    )
    pairs = zip(captured.batch.instances, found, strict=True)
    details = [_details(*pair) for pair in pairs]
    return Scores(values, values.sum(1) - gain, details=details, taken=taken)


def pattern_ablation(captured: Captured, params: Params) -> Scores:
    """What is left of the output when only the nodes of some paths are kept (Lu et al. 2021).

    The rows are those of ``attribeam.transforms.passes.pattern_ablation``: for patterns at both
    levels, random patterns, paths of attention, and the nodes of largest influence in each layer.

    It has no scores of tokens: ``values`` are zeros.
    """
    found = captured(PatternAblation(_paths(params)))
    return Scores(
        torch.zeros(captured.mask.shape),
        details=[{"pattern_ablation": rows} for rows in found],
    )


def _details(instance: Instance, found: Influence) -> Details:
    names = roles_of(instance)
    rows = [
        PatternRow(
            level=pattern.level,
            source=pattern.source,
            nodes=np.array(pattern.nodes, np.int32),
            roles=tuple(names[node] for node in pattern.nodes),
            heads=None if pattern.heads is None else np.array(pattern.heads, np.int32),
            steps=np.array(pattern.steps),
            influence=pattern.influence,
            input_influence=pattern.input_influence,
            concentration=pattern.concentration if pattern.input_influence else None,
            points=pattern.points,
            error=pattern.error,
            sure=pattern.sure,
        )
        for pattern in found.patterns
    ]
    return {"patterns": rows}


def roles_of(instance: Instance) -> list[str | None]:
    """Role of each token's word, a special token's own string, or None, T of them."""
    roles = instance.roles or (None,) * len(instance)
    return [
        token if special else role
        for token, special, role in zip(instance.tokens, instance.special, roles, strict=True)
    ]


def _paths(params: Params) -> InfluencePaths:
    rule: Rule = params["rule"]
    tolerance = checked("influence and pattern_ablation", rule, params["tolerance"])
    return InfluencePaths(params["points"], rule, params["baseline"], tolerance)


def _needs(params: Params) -> tuple[Wish, ...]:
    return Forward(), _paths(params)


def _needs_of_ablation(params: Params) -> tuple[Wish, ...]:
    return *_needs(params), PatternAblation(_paths(params))


# Bytes that one picture may take under ``all``.
_MOST = 2**30


def _spared(params: Params, model: Model) -> str | None:
    """Why it isn't one of ``all``: of large pictures it keeps gigabytes."""
    if model.grid is None:
        return None
    tokens = model.grid.positions
    each = 11 * model.hidden_size + model.num_heads * tokens
    size = 4 * params["points"] * model.num_layers * tokens * each
    if size <= _MOST:
        return None
    return f"keeps {size / 2**30:.1f} GiB of each picture: name it, and perhaps influence.points=20"


_DEFAULTS: dict[str, Default] = {
    "points": 81,
    # All have the ends of the path, which the gap is taken from.
    "rule": Choice("nested_early", "nested", "trapezoid", "endpoints"),
    "tolerance": 0.005,
    "baseline": ChoiceByKind("starts", get_args(Start)),
}
_PRESETS: dict[str, dict[str, ParamValue]] = {
    "code": {"points": 50, "rule": "endpoints", "baseline": "mask"},
    "trapezoid": {"points": 50, "rule": "trapezoid"},
}
_FORMER: dict[str, ParamValue] = {"tolerance": 0.005}


register(
    Method(
        name="influence",
        compute=influence,
        needs=_needs,
        defaults=_DEFAULTS,
        presets=_PRESETS,
        requires=("serial", "products", "position"),
        signed=True,
        class_dependent=True,
        additive=True,
        former=_FORMER,
        earlier=_PRESETS["trapezoid"],
        cost="at most 5 points F, 140 F in the mean",
        paper="Lu et al. 2021",
        equation="E_a[dq(b + a (x - b))/dx] (x - b)",
        tables=("patterns",),
        spared=_spared,
    )
)
register(
    Method(
        name="pattern_ablation",
        compute=pattern_ablation,
        needs=_needs_of_ablation,
        defaults=_DEFAULTS,
        presets=_PRESETS,
        requires=("serial", "products", "position", "tokens"),
        signed=True,
        class_dependent=True,
        additive=False,
        stochastic=True,
        opt_in="it puts influence patterns to the test, and attributes nothing",
        former=_FORMER,
        earlier=_PRESETS["trapezoid"],
        cost="at most 5 points F + 13 F",
        paper="Lu et al. 2021",
        equation="q with all nodes but those of patterns at 0",
        scored=False,
        tables=("pattern_ablation",),
    )
)
