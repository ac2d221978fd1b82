"""Methods that follow what tokens send to the position that is read, layer by layer."""

import torch

from attribeam.transforms.methods.norms import alti_maps
from attribeam.transforms.network.parts import Affine, Norm, Softcap
from attribeam.transforms.passes.arriving import Arriving
from attribeam.transforms.passes.captured import Captured
from attribeam.transforms.passes.forward import Forward
from attribeam.transforms.registry import Choice, Method, Params, Scores, register

_STATES = Forward(attention=True, layers=True)


def ifr(captured: Captured, params: Params) -> Scores:
    """Information flow routes (Ferrando & Voita 2024, section 2): shares of each layer, added up.

    In a layer, y is what is there after attention, at the position that is read, t_hj what token j
    sends there through head h, and x what enters. Each edge has the weight
    max(0, |y|_1 - |y - t_hj|_1), x too; over the sum of all of them, they are shares. A token's
    score is the sum of its shares over heads and layers. What is left to the number of layers is
    the residual's. Where a mean of positions is read, y, x and t are sums over these, as FlashTrace
    has it for spans.
    """
    total = torch.zeros_like(captured.entered[..., 0])
    for number in range(captured.model.num_layers):
        arriving = Arriving.of(captured, number)
        left = arriving.entered + arriving.added
        whole = left.abs().sum(-1)
        near = torch.zeros_like(arriving.values[:, 0, :, 0])
        for sent in arriving.through_heads():
            far = torch.linalg.vector_norm(sent - left[:, None], ord=1, dim=-1)
            near = near + (whole[:, None] - far).clamp(min=0)
        own = (whole - (left - arriving.entered).abs().sum(-1)).clamp(min=0)
        every = (near.sum(-1) + own)[:, None]
        total = total + near / torch.where(every > 0, every, 1)
    return Scores(total)


def alti_logit(captured: Captured, params: Params) -> Scores:
    """ALTI-Logit (Ferrando et al. 2023, section 4): the explained logit, shared out among tokens.

    What token j sends to the position read out in layer l, biases of values included, adds
    a_l[j] to the explained sum of logits, through the last norm with its deviation held fixed. What
    is at a token in layer l is a mixture of input tokens, by the product of ALTI of the layers
    below: score = sum_l a_l C_{l-1} ... C_0, and what the embedding at the position read out adds.
    ``mixing=none`` leaves C out: a token's score is then of what is at its position, whatever that
    has come from. ``unattributed`` is what feed-forward parts and biases add; with it the scores
    sum to the explained scalar.

    The preset ``code`` takes 1e-6 off the differences that ALTI takes, as its code does (``alti``).
    """
    towards, constant = _readers(captured)
    depth, read = captured.model.num_layers, captured.batch.inputs.read
    maps = None
    if params["mixing"] == "alti":
        maps = alti_maps(captured, "residual", params["epsilon"], range(depth - 1))
    row, rest = torch.zeros_like(captured.entered[..., 0]), constant
    for number in reversed(range(depth)):
        if maps is not None and number < depth - 1:
            row = (row[:, None] @ maps[number].to(row))[:, 0]
        arriving = Arriving.of(captured, number)
        direct = torch.einsum("bd,btd->bt", towards, arriving.sent())
        above = captured.inputs.layers[number].sums[-1]
        left = above[:, 0] if above.shape[1] == 1 and read.row is None else read.of(above)
        added = ((left - arriving.entered) * towards).sum(-1)
        row, rest = row + direct, rest + added - direct.sum(-1)
    first = (read.of(captured.inputs.entered) * towards).sum(-1)
    row = row + read.spread(first, row.shape[1])
    return Scores(row, delta=row.sum(-1) + rest - captured.explained, unattributed=rest)


def _readers(captured: Captured) -> tuple[torch.Tensor, torch.Tensor]:
    """What the explained scalar is of what leaves the last layer, [B, d], and a constant, [B].

    The last norm's deviation is held fixed, and so is the slope of a cap on logits.
    """
    norm, last, *caps = captured.model.head
    assert isinstance(norm, Norm) and isinstance(last, Affine)
    state, outputs = captured.model.layers[-1], captured.batch.rows.outputs
    hidden = state.steps[-1].leave(captured.inputs.layers[-1].sums[-1])
    read = captured.batch.inputs.read
    hidden = hidden[:, 0] if hidden.shape[1] == 1 and read.row is None else read.of(hidden)
    size, weights = len(captured.batch), captured.weights
    if outputs is None:
        none = last.weight.new_zeros(len(last.weight))
        maps = last.weight.expand(size, -1, -1)
        biases = (none if last.bias is None else last.bias).expand(size, -1)
    else:
        maps, biases = last.chosen(outputs)
    logits = torch.einsum("bkd,bd->bk", maps, norm(hidden)) + biases
    for cap in caps:
        assert isinstance(cap, Softcap)
        weights, logits = weights * cap.slope(logits), cap(logits)
    towards = torch.einsum("bk,bkd->bd", weights, maps)
    constant = (weights * biases).sum(-1)
    if norm.bias is not None:
        constant = constant + towards @ norm.bias
    return norm.centre(towards * norm.weight / norm.deviation(hidden)), constant


register(
    Method(
        name="ifr",
        compute=ifr,
        needs=lambda params: (_STATES,),
        defaults={},
        signed=False,
        class_dependent=False,
        additive=False,
        cost="1 F + H T d a layer",
        paper="Ferrando & Voita 2024, section 2",
        equation="sum_l sum_h max(0, |y|_1 - |y - t_hj|_1) / (sum of all)",
    )
)
register(
    Method(
        name="alti_logit",
        compute=alti_logit,
        needs=lambda params: (_STATES,),
        defaults={"mixing": Choice("alti", "none"), "epsilon": 0.0},
        presets={"code": {"epsilon": 1e-6}},
        signed=True,
        class_dependent=True,
        additive=True,
        requires=("one_sum", "position"),
        linear=True,
        cost="1 F + L T^2 d",
        paper="Ferrando et al. 2023 (ALTI-Logit), section 4",
        equation="sum_l u t_l[readout] prod ALTI + u x_0[readout]",
    )
)
