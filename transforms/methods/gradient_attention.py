"""Methods that weigh attention with the gradient of the explained scalar."""

import torch

from attribeam.transforms.methods.rollout import accumulate, start_row
from attribeam.transforms.passes.captured import Captured
from attribeam.transforms.passes.forward import Backward, Weighed
from attribeam.transforms.registry import LastLayers, Method, Params, Scores, register


def attention_gradcam(captured: Captured, params: Params) -> Scores:
    """Grad-CAM on the last layer's attention, as Chefer et al. 2021 (CVPR) run it on BERT.

    With w_h the mean of d f / d A_{L-1}[h] over all entries, the map max(0, E_h w_h A_{L-1}[h]) is
    scaled to [0, 1] by its smallest and largest entry, and the readout's row is taken. A map of
    equal entries (the original divides 0 by 0) becomes zeros. The original averages over padding
    too, which changes its scores; here padding has no part in it.

    Of pictures, w_h is the mean of the readout's row alone, over patches, and the map is that row,
    as it is (Chen et al. 2023); and so it is of texts that are compared with them, over all tokens
    (ours: the authors cut their row into a square of patches).
    """
    if captured.model.contrastive or "tokens" not in captured.model.traits:
        return Scores(_of_row(captured))
    real = captured.mask[:, None, :] & captured.mask[:, :, None]
    gradient = captured.attention_gradient[-1].masked_fill(~real[:, None], 0)
    weights = gradient.sum((2, 3)) / real.sum((1, 2))[:, None]
    cam = (weights[..., None, None] * captured.attention[-1]).mean(1).clamp(min=0)
    lowest = cam.masked_fill(~real, torch.inf).amin((1, 2))[:, None]
    highest = cam.masked_fill(~real, -torch.inf).amax((1, 2))[:, None]
    spread = highest - lowest
    return Scores((captured.at_readout(cam) - lowest) / torch.where(spread > 0, spread, 1))


def _of_row(captured: Captured) -> torch.Tensor:
    """max(0, E_h w_h A_{L-1}[h, readout]), [B, T], with w_h the mean gradient of the row."""
    gradient = captured.at_readout(captured.attention_gradient[-1])
    of_texts = "tokens" in captured.model.traits
    there = captured.mask if of_texts else captured.batch.removable
    counted = there[:, None].to(gradient.dtype)
    weights = (gradient * counted).sum(-1) / counted.sum(-1)
    row = captured.at_readout(captured.attention[-1])
    return (weights[..., None] * row).mean(1).clamp(min=0)


def generic_attribution(captured: Captured, params: Params) -> Scores:
    """Generic attention explainability (Chefer et al. 2021, ICCV, equations 5 and 6).

    The readout's row of prod_l (I + E_h max(0, A_l * d f / d A_l)), over the layers from
    ``start_layer``: all of them in the authors' paper and code; the last alone where Beyond
    Intuition compares with it on BERT.
    """
    start = params["start_layer"]
    return Scores(accumulate(start_row(captured), captured.weighed[start:]))


register(
    Method(
        name="attention_gradcam",
        compute=attention_gradcam,
        needs=lambda params: (Backward("attention", lowest=-1),),
        defaults={},
        signed=False,
        class_dependent=True,
        additive=False,
        cost="1 F + 1 B",
        paper="Chefer et al. 2021 (CVPR), section 4; after Selvaraju et al. 2017",
        equation="minmax(max(0, E_h mean(dy/dA_L) A_L))[readout]",
    )
)
register(
    Method(
        name="generic_attribution",
        compute=generic_attribution,
        needs=lambda params: (Weighed(),),
        defaults={"start_layer": LastLayers(1)},
        signed=False,
        class_dependent=True,
        additive=False,
        cost="1 F + 1 B",
        paper="Chefer et al. 2021 (ICCV), equations 5 and 6",
        equation="prod_l (I + E_h max(0, A dy/dA))[readout]",
    )
)
