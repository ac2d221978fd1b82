"""Beyond Intuition (Chen et al. 2023, TMLR): attention perception times reasoning feedback.

Perception P says how much of each input token the position read out has seen, a product over layers
of (I + A'_l); feedback F says how much the decision depends on the last layer's attention, a mean
of gradients along a path from nothing to the input. The score is P * F, in the readout's row.
"""

from collections.abc import Sequence
from typing import get_args

import torch

from attribeam.transforms.inputs.seam import BaselineName
from attribeam.transforms.methods.rollout import accumulate, start_row
from attribeam.transforms.passes.base import Rule, Wish
from attribeam.transforms.passes.captured import Captured
from attribeam.transforms.passes.forward import Backward, Forward
from attribeam.transforms.passes.ladder import checked
from attribeam.transforms.passes.path import Path
from attribeam.transforms.registry import (
    Choice,
    ChoiceByKind,
    Default,
    LastLayers,
    Method,
    Params,
    ParamValue,
    Scores,
    register,
)


def bt_token(captured: Captured, params: Params) -> Scores:
    """Beyond Intuition, token-wise (BT-T): A'_l[i, j] = E_h A_l[i, j] |V_l[j] W_O| / |Z_l[j]|.

    V_l[j] are the values of all heads, W_O the output projection without its bias, Z_l[j] what
    enters the layer: how much longer or shorter a token's vector becomes by being attended to.
    """
    layers = []
    for number in range(params["start_layer"], captured.model.num_layers):
        state, attention = captured.layers[number], captured.model.layers[number].attention
        values = attention.shared(state.values).transpose(1, 2).flatten(2)
        sent = values @ attention.output.weight.T
        norms = [torch.linalg.vector_norm(vectors, dim=-1) for vectors in (sent, state.entered)]
        layers.append(captured.attention[number].mean(1) * (norms[0] / norms[1])[:, None])
    return _scores(captured, layers, params)


def bt_head(captured: Captured, params: Params) -> Scores:
    """Beyond Intuition, head-wise (BT-H): A'_l = sum_h theta_h A_l[h].

    theta_h is the head's share of I_h = the mean over j, k of |A_l[h]^T G_l[h]|[j, k], with G_l the
    gradient of the explained scalar. The authors' code includes padding in that mean, where G need
    not be zero; here padding has no part in it. If all I_h are zero, so are theta_h.
    """
    real = captured.mask[:, None, None, :]
    layers = []
    for number in range(params["start_layer"], captured.model.num_layers):
        attention = captured.attention[number]
        of_layer = captured.attention_gradient[number - captured.model.num_layers]
        gradient = of_layer.masked_fill(~real, 0)
        importance = (attention.transpose(2, 3) @ gradient).abs().sum((2, 3))
        total = importance.sum(1, keepdim=True)
        theta = importance / torch.where(total > 0, total, 1)
        layers.append((theta[..., None, None] * attention).sum(1))
    return _scores(captured, layers, params)


def _scores(captured: Captured, layers: Sequence[torch.Tensor], params: Params) -> Scores:
    """P * F in the readout's row; of a mean, the mean of rows.

    F is E_h max(0, mean of d f / d A_{L-1}[h] along the path).
    """
    path = captured(_path(params))
    gradient, taken = path.attention, path.taken["attention"]
    if gradient is None:
        raise RuntimeError("the path was walked for something else")
    feedback, read = gradient.clamp(min=0).mean(1), captured.batch.rows.read
    if read.at is not None:
        return Scores(accumulate(start_row(captured), layers) * feedback, taken=taken)
    rows = torch.eye(feedback.shape[-1], dtype=feedback.dtype, device=feedback.device)
    perception = rows.expand_as(feedback)
    for layer in layers:
        perception = perception + layer.to(feedback.dtype) @ perception
    return Scores(read.of(perception * feedback), taken=taken)


def _path(params: Params) -> Path:
    baseline: BaselineName = params["baseline"]
    rule: Rule = params["rule"]
    tolerance = checked("bt_token and bt_head", rule, params["tolerance"])
    return Path(baseline, params["steps"], rule, of="attention", tolerance=tolerance)


# The authors' code's, and what takes as many points as an instance needs.
_USUAL: Rule = "endpoints"
_NESTED: Rule = "nested_early"
_PRESETS: dict[str, dict[str, ParamValue]] = {
    "code": {"steps": 20, "rule": "endpoints"},
    "paper": {"start_layer": 0, "steps": 20, "rule": "right"},
    # As many points as an instance needs; about a sixth more of them, and a third of the error.
    "nested": {"steps": 65, "rule": _NESTED},
}
_FORMER: dict[str, ParamValue] = {"tolerance": 0.05}


def _defaults(share: float, of_images: float) -> dict[str, Default]:
    return {
        "start_layer": LastLayers(
            share,
            of_images=lambda depth: round(depth * of_images),
            of_pairs=lambda depth: depth - 1,
        ),
        "baseline": ChoiceByKind("starts", ("zero", "pad", "mask", "black")),
        "steps": 20,
        "rule": Choice(_USUAL, *(rule for rule in get_args(Rule) if rule != _USUAL)),
        "tolerance": 0.05,
    }


def _token_needs(params: Params) -> tuple[Wish, ...]:
    return Forward(attention=True, layers=True), _path(params)


def _head_needs(params: Params) -> tuple[Wish, ...]:
    return Backward("attention", params["start_layer"]), _path(params)


register(
    Method(
        name="bt_token",
        compute=bt_token,
        needs=_token_needs,
        # The authors' code for BERT: the last four of twelve layers; for ViT from the seventh on;
        # in the evaluation of CLIP the last.
        defaults=_defaults(4 / 12, 6 / 12),
        signed=False,
        class_dependent=True,
        additive=False,
        presets=_PRESETS,
        former=_FORMER,
        cost="1 F + steps F",
        paper="Chen et al. 2023 (Beyond Intuition), BT-T",
        equation="prod_l (I + A |V W_O| / |Z|)[readout] * E_h max(0, int dy/dA_L)",
    )
)
register(
    Method(
        name="bt_head",
        compute=bt_head,
        needs=_head_needs,
        # The authors' code for BERT: the last of twelve layers; for ViT from the fourth on.
        defaults=_defaults(1 / 12, 3 / 12),
        signed=False,
        class_dependent=True,
        additive=False,
        presets=_PRESETS,
        former=_FORMER,
        cost="1 F + 1 B + steps F",
        paper="Chen et al. 2023 (Beyond Intuition), BT-H",
        equation="prod_l (I + sum_h theta A)[readout] * E_h max(0, int dy/dA_L)",
    )
)
