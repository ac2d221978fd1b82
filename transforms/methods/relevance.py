"""Methods that read relevance walked back by the rules of layer-wise relevance propagation."""

from attribeam.transforms.methods.reducing import reduced
from attribeam.transforms.methods.rollout import start_row
from attribeam.transforms.passes.captured import Captured
from attribeam.transforms.passes.forward import Backward
from attribeam.transforms.passes.relevance import TRAITS, Relevance, Rules
from attribeam.transforms.registry import Choice, LastLayers, Method, Params, Scores, register


def partial_lrp(captured: Captured, params: Params) -> Scores:
    """Partial LRP (Voita et al. 2019; as a baseline in Chefer et al. 2021, section 4).

    score[j] = E_h max(0, R(A_{L-1}))[h, r, j], with R(A) the relevance at attention probabilities
    and r the position read out. ``rules`` are those of relevance.
    """
    last = captured(_relevance(params, lowest=-1)).attention[captured.model.num_layers - 1]
    return Scores(captured.at_readout(last).clamp(min=0).mean(dim=1))


def lrp(captured: Captured, params: Params) -> Scores:
    """LRP down to what enters the first layer (Bach et al. 2015; Chefer et al. 2021, section 4).

    score[j] = sum_k R(x)[j, k] over hidden units k. ``rules`` are those of relevance; under
    ``orig`` the scores of deep models are large numbers of both signs.
    Of pictures it is walked on to pixels, whose relevance is added up by patch.
    """
    return reduced(captured, captured(_relevance(params)).entered)


def transformer_attribution(captured: Captured, params: Params) -> Scores:
    """Transformer attribution (Chefer et al. 2021, equations 13 and 14), row of the readout.

    The product over the layers from ``start_layer`` on of I + E_h max(0, G_l * R(A_l)), with G the
    gradient of the explained scalar with respect to attention probabilities and R(A) its relevance
    there. As in the authors' code for BERT each row is divided by its sum, so that scores sum to 1;
    for ViT it isn't. Only one row of the product is needed, which is carried down from the last
    layer.
    """
    relevance = captured(_relevance(params, params["start_layer"])).attention
    row = start_row(captured).double()[:, None]
    for number in reversed(range(params["start_layer"], captured.model.num_layers)):
        gradient = captured.attention_gradient[number - captured.model.num_layers]
        mixing = (gradient * relevance[number]).clamp(min=0).mean(dim=1)
        if "tokens" in captured.model.traits:
            row = row / (1 + mixing.sum(-1))[:, None]
        row = row + row @ mixing
    return Scores(row[:, 0])


def _relevance(params: Params, lowest: int = 0) -> Relevance:
    rules: Rules = params["rules"]
    return Relevance(rules, lowest)


register(
    Method(
        name="partial_lrp",
        compute=partial_lrp,
        needs=lambda params: (_relevance(params, lowest=-1),),
        defaults={"rules": Choice("orig", "cvpr21")},
        requires=TRAITS,
        linear=True,
        signed=False,
        class_dependent=True,
        additive=False,
        cost="about 1 F in float64",
        paper="Voita et al. 2019; as a baseline in Chefer et al. 2021",
        equation="E_h max(0, R(A_L))[readout]",
    )
)
register(
    Method(
        name="lrp",
        compute=lrp,
        needs=lambda params: (_relevance(params),),
        defaults={"rules": Choice("orig", "cvpr21")},
        requires=TRAITS,
        linear=True,
        signed=True,
        class_dependent=True,
        additive=False,
        cost="about 5 F in float64",
        paper="Bach et al. 2015; as a baseline in Chefer et al. 2021",
        equation="sum_k R(x_k)",
    )
)
register(
    Method(
        name="transformer_attribution",
        compute=transformer_attribution,
        needs=lambda params: (
            _relevance(params, params["start_layer"]),
            Backward("attention", params["start_layer"]),
        ),
        defaults={
            "start_layer": LastLayers(1 / 12, of_images=lambda depth: 1),
            "rules": Choice("cvpr21", "orig"),
        },
        requires=TRAITS,
        linear=True,
        signed=False,
        class_dependent=True,
        additive=False,
        cost="1 F + 1 B + 1 to 5 F in float64",
        paper="Chefer et al. 2021 (CVPR), equations 13 and 14",
        equation="prod_l rownorm(I + E_h max(0, G_l * R(A_l)))[readout]",
    )
)
