"""CLIP's and SigLIP's image encoders as classifiers: a linear head on the mean of the patches.

They are pre-LN. What leaves CLIP's last layer is read as it is, and SigLIP's after a norm; SigLIP
has no token of the class.
"""

from functools import partial

from attribeam.transforms.network.anatomy.base import Anatomy
from attribeam.transforms.network.anatomy.bert import encoder_layer
from attribeam.transforms.network.anatomy.vit import grid_of

_layer = partial(
    encoder_layer,
    norms=("layer_norm1", "layer_norm2"),
    before=True,
    paths=(
        *("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"),
        *("mlp.fc1", "mlp.activation_fn", "mlp.fc2"),
    ),
)


def _encoder(head: tuple[str, ...], *, spread: int, specials: tuple[str, ...]) -> Anatomy:
    return Anatomy(
        layers="vision_model.encoder.layers",
        layer=_layer,
        heads={"classification": head},
        segments=False,
        spread=spread,
        modality="images",
        within="vision_config",
        grid=partial(grid_of, specials=specials),
        pooling="mean",
        masks="scores",
    )


FAMILIES = {
    "clip": _encoder(("classifier",), spread=0, specials=("[CLS]",)),
    "siglip": _encoder(("vision_model.post_layernorm", "classifier"), spread=1, specials=()),
}
