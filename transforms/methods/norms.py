"""GlobEnc and the norm-based methods that it is compared to, and ALTI.

Their products of layers are not normalised in between, as in the papers; the final row is divided
by its sum, whose logarithm is kept as the scale. What is followed through norms after residuals is
outside the definition of models that have none.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch

from attribeam.transforms.methods.attention import head_means
from attribeam.transforms.methods.rollout import rolled_out, row_normalised, with_residual
from attribeam.transforms.passes.base import Wish
from attribeam.transforms.passes.captured import Captured
from attribeam.transforms.passes.forward import Forward
from attribeam.transforms.passes.norms import (
    NORMED,
    Level,
    Norms,
    Sending,
    Workspace,
    readout_vectors,
    sent_by,
    up_to,
)
from attribeam.transforms.registry import (
    ChoiceByTrait,
    LastLayers,
    Method,
    Params,
    Scores,
    register,
)

_STATES = Forward(attention=True, layers=True)


def norm_n(captured: Captured, params: Params) -> Scores:
    """N (Kobayashi et al. 2020, section 2): M[i, j] = |sum_h a_h[i, j] f_h(x_j)|, rolled out.

    f_h(x) is the value of head h, bias included, through its part of the output projection.
    """
    return _rolled_out(captured, params, "values")


def norm_n_res(captured: Captured, params: Params) -> Scores:
    """N_Res (Kobayashi et al. 2021, section 3): N, a token sending itself the residual as well."""
    return _rolled_out(captured, params, "residual")


def norm_n_resln(captured: Captured, params: Params) -> Scores:
    """N_ResLN (Kobayashi et al. 2021, section 3): N_Res through the layer norm after attention.

    The norm's standard deviation is that of what really enters it.
    """
    return _rolled_out(captured, params, "attention_norm")


def globenc(captured: Captured, params: Params) -> Scores:
    """GlobEnc, N_Enc (Modarressi et al. 2022, section 3): N_ResLN through the second norm as well.

    The feed-forward part is left out but for its residual and for the standard deviation of what
    really enters the second norm.
    """
    return _rolled_out(captured, params, "output_norm")


def norm_n_fixed_res(captured: Captured, params: Params) -> Scores:
    """N_FixedRes (Modarressi et al. 2022, table 1): 0.5 N / rowsum(N) + 0.5 I, rolled out.

    The only one of the family whose rows are normalised; the scores sum to 1 of themselves.
    """
    maps = captured(Norms("values")).maps
    layers = with_residual([row_normalised(layer) for layer in maps])
    return rolled_out(captured, layers, params["start_layer"], _mixing(captured, "values"))


def w_res(captured: Captured, params: Params) -> Scores:
    """W_Res (Modarressi et al. 2022, table 1): attention, mixed as much as N_Enc says.

    The diagonal of E_h A_l is left out, the rest of a row divided by its sum and multiplied with
    the mixing ratio r_i of N_Enc; 1 - r_i stands on the diagonal. A token that attends to no other
    keeps all of itself.
    """
    ratios = captured(Norms("output_norm")).ratios
    layers = []
    for weights, ratio in zip(head_means(captured), ratios, strict=True):
        others = row_normalised(weights - torch.diag_embed(weights.diagonal(dim1=1, dim2=2)))
        shares = others * ratio[..., None]
        layers.append(shares + torch.diag_embed(1 - shares.sum(-1)))
    return rolled_out(captured, layers, params["start_layer"], _mixing(captured, "output_norm"))


def alti(captured: Captured, params: Params) -> Scores:
    """ALTI (Ferrando et al. 2022, section 3): by how much each share brings a token nearer.

    M[i, j] = max(0, |y_i|_1 - |y_i - t_ij|_1), rows divided by their sums, rolled out, with t_ij
    what j sends to i through the layer norm after attention and y_i its whole output; with
    ``level=output_norm``, through both norms. With ``level=residual`` it is what j sends to i
    without a norm after it, the residual included, and y_i the sum of all and of biases (Ferrando
    et al. 2023, section 3, for layers that normalise before attention). There is no short cut for
    l1 norms: all t_ij of a layer are formed, one source token after the other.

    The preset ``code`` takes 1e-6 off each hidden unit of the differences, as the authors' code
    does by the distance that it has from torch. So even tokens that come after i have a share of
    about that size in it, where positions attend to no later ones.
    """
    maps = alti_maps(captured, params["level"], params["epsilon"], range(captured.model.num_layers))
    return rolled_out(captured, maps, params["start_layer"])


def alti_maps(
    captured: Captured, level: Level, beside: float, numbers: Iterable[int]
) -> list[torch.Tensor]:
    """ALTI of some layers, by their numbers: shares of what comes to tokens, each [B, T, T]."""
    layers, space = [], Workspace()

    def near(whole: Captured, number: int) -> torch.Tensor:
        seen, readout = whole.inputs, whole.batch.once.rows.read.at
        layer, attention = whole.model.layers[number], seen.attention[number]
        sending = Sending(layer, attention, seen.layers[number], readout)
        return proximities(sending, level, space, beside)

    for number in numbers:
        key = ("proximities", level, beside, number)
        found = captured.of_inputs(key, partial(near, number=number))
        # Beside zero, tokens that nothing is sent by are near too: those of an instance alone.
        layers.append(row_normalised(found.masked_fill(~captured.mask[:, None], 0)))
    return layers


def proximities(
    sending: Sending, level: Level, space: Workspace, beside: float = 0
) -> torch.Tensor:
    """max(0, |y_i|_1 - |y_i - t_ij|_1) of a layer, [B, T (i), T (j)], in float64.

    Args:
        sending: The layer; where nothing but the position read out came out of it, all other rows
            are zero.
        level: The level that shares are followed up to; y is the real output there.
        space: Memory to work in.
        beside: What is taken off each hidden unit of the differences y_i - t_ij.
    """
    output, levels = sending.left(level), up_to([level])
    if sending.state.alone:
        return _readout_proximities(sending, output.double(), levels, beside)
    sigma = torch.ones_like(output[..., 0], dtype=torch.float64)
    for passed in levels:
        sigma *= sending.sigma_at(passed)
    # Everything times sigma: what is sent needn't be divided by it, vector by vector.
    output = output.double() * sigma[..., None]
    left = (output - beside * sigma[..., None]).to(sending.kind)
    far = torch.empty_like(sending.attention[:, 0], dtype=torch.float64)
    distance = torch.empty_like(left)
    for sent in sent_by(sending, space):
        for passed in levels:
            sent.follow_(passed, sending)
        for number, source in enumerate(range(sent.sources.start, sent.sources.stop)):
            torch.bmm(sent.weights[:, number].mT, sent.heads[:, number], out=distance)
            # What a token sends to itself has the residual in it.
            distance[:, source] = sent.vectors[:, number, -2]
            torch.sub(left, distance, out=distance)
            far[..., source] = _lengths(distance)
    return ((_lengths(output.to(sending.kind))[..., None] - far) / sigma[..., None]).clamp(min=0)


def _lengths(vectors: torch.Tensor) -> torch.Tensor:
    """l1 norms of vectors, [..., d], added up in float64: what is asked for is their difference."""
    found: torch.Tensor = torch.linalg.vector_norm(vectors, ord=1, dim=-1, dtype=torch.float64)
    return found


def _readout_proximities(
    sending: Sending, output: torch.Tensor, levels: Sequence[Level], beside: float
) -> torch.Tensor:
    """As ``proximities``, of the one position whose output, [B, 1, d], there is."""
    *_, (_, vectors) = readout_vectors(sending, levels)
    far = torch.linalg.vector_norm(output - vectors.double() - beside, ord=1, dim=-1)
    near = torch.zeros_like(sending.attention[:, 0], dtype=torch.float64)
    near[sending.every, sending.readout] = (output.abs().sum(-1) - far).clamp(min=0)
    return near


def _rolled_out(captured: Captured, params: Params, level: Level) -> Scores:
    maps, mixing = captured(Norms(level)).maps, _mixing(captured, level)
    return rolled_out(captured, maps, params["start_layer"], mixing)


def _mixing(captured: Captured, level: Level) -> Callable[[], torch.Tensor]:
    return lambda: captured.asked(torch.stack(captured(Norms(level)).ratios, 1))


def _register(
    name: str,
    compute: Callable[[Captured, Params], Scores],
    equation: str,
    level: Level,
    paper: str = "Modarressi et al. 2022 (GlobEnc), table 1",
) -> None:
    needs: tuple[Wish, ...] = (_STATES, Norms(level))
    register(
        Method(
            name=name,
            compute=compute,
            needs=lambda params: needs,
            defaults={"start_layer": LastLayers(1)},
            signed=False,
            class_dependent=False,
            additive=False,
            layered="layers",
            requires=("post_ln",) if level in NORMED else (),
            former={"start_layer": 0},
            by_input=True,
            cost="1 F + 0.1 F",
            paper=paper,
            equation=equation,
        )
    )


_KOBAYASHI = "Kobayashi et al. 2021, section 3"

_register("w_res", w_res, "prod_l (r A' + (1 - r) I)[readout]", "output_norm")
_register(
    "norm_n",
    norm_n,
    "prod_l |sum_h a f(x_j)|[readout]",
    "values",
    "Kobayashi et al. 2020, section 2",
)
_register("norm_n_fixed_res", norm_n_fixed_res, "prod_l (0.5 N' + 0.5 I)[readout]", "values")
_register(
    "norm_n_res",
    norm_n_res,
    "prod_l |sum_h a f(x_j) + x_i|[readout]",
    "residual",
    _KOBAYASHI,
)
_register(
    "norm_n_resln",
    norm_n_resln,
    "prod_l |LN1(sum_h a f(x_j) + x_i)|[readout]",
    "attention_norm",
    _KOBAYASHI,
)
_register(
    "globenc",
    globenc,
    "prod_l |LN2(LN1(sum_h a f(x_j) + x_i))|[readout]",
    "output_norm",
    "Modarressi et al. 2022, section 3",
)
register(
    Method(
        name="alti",
        compute=alti,
        needs=lambda params: (_STATES,),
        defaults={
            "start_layer": LastLayers(1),
            "level": ChoiceByTrait({**dict.fromkeys(NORMED, ("post_ln",)), "residual": ()}),
            "epsilon": 0.0,
        },
        presets={"code": {"epsilon": 1e-6}},
        signed=False,
        class_dependent=False,
        additive=False,
        layered="layers",
        former={"start_layer": 0, "epsilon": 0.0},
        cost="1 F + L T^2 d",
        paper="Ferrando et al. 2022, section 3",
        equation="prod_l max(0, |y_i|_1 - |y_i - t_ij|_1)[readout]",
    )
)
