"""CLIP's two towers, whose features are compared, and image encoders of its kind as classifiers.

All are pre-LN. The towers are networks of their own here (``network.towers``), which hold the whole
model. Classifiers have a linear head on the mean of the patches: what leaves CLIP's last layer is
read as it is, and SigLIP's after a norm; SigLIP has no token of the class.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PretrainedConfig

from attribeam.transforms.network.anatomy.base import Anatomy
from attribeam.transforms.network.anatomy.bert import encoder_layer
from attribeam.transforms.network.anatomy.vit import grid_of
from attribeam.transforms.network.parts import unit

_layer = partial(
    encoder_layer,
    norms=("layer_norm1", "layer_norm2"),
    before=True,
    paths=(
        *("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"),
        *("mlp.fc1", "mlp.activation_fn", "mlp.fc2"),
    ),
)
_FEATURES = ("whole.vision_model.post_layernorm", "whole.visual_projection", unit)
# What configurations had for the end of a text before transformers 4.32, whatever it was.
_UNTOLD_END = 2


def end_of(config: PretrainedConfig, input_ids: NDArray[np.signedinteger[Any]]) -> int | None:
    """Position of the end of a text, of ids [T]: where transformers reads it; None if it has none.

    That is the first end token, or where old configurations have another number for it, that of
    the largest id.
    """
    if config.eos_token_id == _UNTOLD_END:
        return int(input_ids.argmax())
    ends = np.flatnonzero(input_ids == config.eos_token_id)
    return int(ends[0]) if len(ends) else None


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


IMAGES = Anatomy(
    layers="whole.vision_model.encoder.layers",
    layer=_layer,
    heads={"classification": (*_FEATURES, "classifier"), "similarity": _FEATURES},
    embedding_norm="whole.vision_model.pre_layrnorm",
    patches="whole.vision_model.embeddings.patch_embedding",
    segments=False,
    modality="images",
    grid=grid_of,
    masks="scores",
)
TEXTS = Anatomy(
    layers="whole.text_model.encoder.layers",
    layer=_layer,
    heads={
        "similarity": ("whole.text_model.final_layer_norm", "whole.text_projection", unit),
    },
    segments=False,
    causal=True,
    end=end_of,
)


def _clip(row: Anatomy, config: PretrainedConfig) -> Anatomy:
    """Of both towers it is that of pictures."""
    return IMAGES if config.architectures == ["CLIPModel"] else row


def _siglip(config: PretrainedConfig, task: str) -> str | None:
    if config.architectures == ["SiglipModel"]:
        return "its pictures are read by attention with a query of its own"
    return None


FAMILIES = {
    "clip": replace(_encoder(("classifier",), spread=0, specials=("[CLS]",)), variant=_clip),
    "metaclip_2": _encoder(("classifier",), spread=0, specials=("[CLS]",)),
    "siglip": replace(
        _encoder(("vision_model.post_layernorm", "classifier"), spread=1, specials=()),
        refuse=_siglip,
    ),
}
