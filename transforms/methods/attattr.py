"""Self-attention attribution (AttAttr): what attention between two tokens adds to a prediction.

Hao et al. 2021 (Self-Attention Attribution: Interpreting Information Interactions Inside
Transformer). The paper gives values to entries of attention matrices, and to none of the tokens by
itself: ``attattr`` therefore fills tables of heads, interactions and trees and has no scores, and
``attattr_colsum`` is our own reduction to tokens.
"""

from typing import get_args

import torch

from attribeam.schemas import UsageError
from attribeam.transforms.details import Details, HeadRow, InteractionsRow, TreeEdgeRow, TreeNodeRow
from attribeam.transforms.inputs.targets import Output
from attribeam.transforms.passes.attention_path import AttentionSummary, TaylorImportance
from attribeam.transforms.passes.attention_paths import AttentionPaths
from attribeam.transforms.passes.base import Rule, Target, Wish
from attribeam.transforms.passes.captured import Captured
from attribeam.transforms.passes.forward import Forward
from attribeam.transforms.passes.ladder import Taken
from attribeam.transforms.passes.taylor import Taylor
from attribeam.transforms.passes.trees import ALGORITHMS, attribution_tree, interactions
from attribeam.transforms.registry import (
    Choice,
    Default,
    Method,
    Params,
    ParamValue,
    Scores,
    register,
)


def attattr(captured: Captured, params: Params) -> Scores:
    """Self-attention attribution (Hao et al. 2021), reduced to heads, interactions and trees.

    Attr_h[i, j] = A_h[i, j] * integral of dF(a A) / dA_h[i, j] over a from 0 to 1, with A the
    attention of all heads of one layer and F the softmax probability of the class
    (``output=logit``: the explained scalar). Where a layer's attributions miss F(A) - F(0) by more
    than ``tolerance``, or half of the points of a nested rule would change what is taken from a
    token by more, ``steps`` are doubled, up to ``most``.

    It has no scores of tokens: ``values`` are zeros.
    """
    summary = captured(_path(params))
    taylor = captured(Taylor(params["target"]))
    targets = captured.explained_by(params["target"]).targets
    details = [
        _details(summary, taylor, number, int(target), length, captured, params)
        for number, (target, length) in enumerate(
            zip(targets.tolist(), captured.batch.lengths, strict=True)
        )
    ]
    return Scores(torch.zeros_like(summary.summed[:, 0, 0]), details=details, targets=targets)


def attattr_colsum(captured: Captured, params: Params) -> Scores:
    """How much all tokens take from each, by self-attention attribution; a reduction of our own.

    score[j] = sum over layers, heads and queries i of Attr_h[i, j]. Each layer's attributions sum
    to what its attention adds to F; the sum over layers is no amount that anything adds up to.
    ``error`` is that of all layers together, and ``steps`` are those of the layer with most.
    """
    summary = captured(_path(params))
    values = summary.summed.sum((1, 2))
    largest, error = values.double().abs().amax(1), summary.error.double().sum(1)
    over = torch.where(largest > 0, largest, torch.where(error > 0, error, 1))
    return Scores(
        values,
        targets=captured.explained_by(params["target"]).targets,
        taken=Taken(summary.steps.amax(1), error / over),
    )


def _details(
    summary: AttentionSummary,
    taylor: TaylorImportance,
    number: int,
    target: int,
    length: int,
    captured: Captured,
    params: Params,
) -> Details:
    """The rows of an instance of the batch."""
    summed = summary.summed[number, :, :length, :length].double().cpu().numpy()
    readout = captured.batch.instances[number].position
    trees = {
        name: attribution_tree(summed, tau=params["tau"], algorithm=name, readout=readout)
        for name in ALGORITHMS
    }
    kept = interactions(summed, least=params["least"], cap=params["cap"], readout=readout)
    steps, gap, error, none = (
        of[number].tolist() for of in (summary.steps, summary.gap, summary.error, summary.none)
    )
    of_loss, of_logits = taylor.loss[number].tolist(), taylor.logits[number].tolist()
    whole = float(summary.whole[number])
    return {
        "heads": [
            HeadRow(layer, head, target, *facts, of_loss[layer][head], of_logits[layer][head])
            for layer, heads in enumerate(summary.heads[number])
            for head, facts in enumerate(heads)
        ],
        "interactions": [
            InteractionsRow(
                layer,
                target,
                whole,
                none[layer],
                steps[layer],
                gap[layer],
                own.query,
                own.key,
                own.attr,
                own.prop,
                own.dropped,
                own.mass_dropped,
                error[layer],
            )
            for layer, own in enumerate(kept)
        ],
        "tree_edges": [
            TreeEdgeRow(name, *edge) for name, tree in trees.items() for edge in tree.edges
        ],
        "tree_nodes": [
            TreeNodeRow(name, *node) for name, tree in trees.items() for node in tree.nodes
        ],
    }


def _path(params: Params) -> AttentionPaths:
    return AttentionPaths(
        steps=params["steps"],
        rule=params["rule"],
        tolerance=params["tolerance"],
        most=max(params["most"], params["steps"]),
        output=params["output"],
        target=params["target"],
    )


def _needs(params: Params) -> tuple[Wish, ...]:
    if params["tolerance"] < 0:
        raise UsageError("the tolerance of a completeness gap is at least 0")
    return Forward(attention=True, layers=True), _path(params)


def _needs_of_heads(params: Params) -> tuple[Wish, ...]:
    if not 0 <= params["tau"] < 1 or not 0 <= params["least"] < 1:
        raise UsageError("attattr.tau and attattr.least are shares, from 0 to below 1")
    return *_needs(params), Taylor(params["target"])


_RULES = ("nested", *(rule for rule in get_args(Rule) if rule != "nested"))
_OUTPUTS = ("probability", *(output for output in get_args(Output) if output != "probability"))
_DEFAULTS: dict[str, Default] = {
    "rule": Choice(*_RULES),
    "steps": 9,
    "tolerance": 0.01,
    "most": 65,
    "output": Choice(*_OUTPUTS),
    "target": Choice(*get_args(Target)),
}
# The authors' scripts, and their paper: nothing is doubled. And what once was the default.
_PRESETS: dict[str, dict[str, ParamValue]] = {
    "midpoint": {"rule": "midpoint", "steps": 10, "most": 40},
    "code": {"rule": "left", "steps": 64, "most": 64, "target": "explained"},
    "prune": {"rule": "left", "steps": 20, "most": 20, "target": "gold"},
    "paper": {"rule": "right", "steps": 20, "most": 20, "target": "explained"},
}
_COST = "L/2 steps (F + B)"
_EQUATION = "A_h int_0^1 dF(a A)/dA_h da"

register(
    Method(
        name="attattr",
        compute=attattr,
        needs=_needs_of_heads,
        defaults={**_DEFAULTS, "tau": 0.4, "least": 0.1, "cap": 64},
        presets=_PRESETS,
        earlier=_PRESETS["midpoint"],
        requires=("classes", "position"),
        signed=True,
        class_dependent=True,
        additive=False,
        cost=f"{_COST} + 2 B",
        paper="Hao et al. 2021",
        equation=_EQUATION,
        scored=False,
        tables=("heads", "interactions", "tree_edges", "tree_nodes"),
    )
)
register(
    Method(
        name="attattr_colsum",
        compute=attattr_colsum,
        needs=_needs,
        defaults=_DEFAULTS,
        presets=_PRESETS,
        earlier=_PRESETS["midpoint"],
        requires=("position",),
        signed=True,
        class_dependent=True,
        additive=False,
        cost=_COST,
        paper="ours, from Hao et al. 2021",
        equation=f"sum_l,h,i {_EQUATION}",
    )
)
