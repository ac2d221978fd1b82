"""BEiT and data2vec's vision models: where patches are to each other is added to scores.

They are pre-LN encoders whose branches are scaled, and read at the mean of the patches or at the
token of the class. Attention of data2vec is code of its own, which can't hide a position.
"""

from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import Any

from torch import nn
from transformers import PretrainedConfig

from attribeam.transforms.network.anatomy.base import Anatomy, two_steps
from attribeam.transforms.network.anatomy.bert import BERT_PATHS
from attribeam.transforms.network.anatomy.vit import PATHS, grid_of
from attribeam.transforms.network.parts import Affine, Attention, FeedForward, Layer, Norm

_DATA2VEC = (
    *("attention.attention.query", "attention.attention.key", "attention.attention.value"),
    *BERT_PATHS[3:],
)


def _layer(module: Any, heads: int, *, paths: tuple[str, ...], dropout: str | None = None) -> Layer:
    """A layer, whose scales are 1 where it has none.

    Args:
        module: The layer's module.
        heads: Their number.
        paths: Where query, key, value and output are; and expand, the activation and contract.
        dropout: Where that of attention is, if it isn't looked up in transformers' registry.
    """
    query, key, value, output, expand, activation, contract = (
        attrgetter(path)(module) for path in paths
    )
    scales = (
        scale if isinstance(scale, nn.Parameter) else None
        for scale in (module.lambda_1, module.lambda_2)
    )
    ends = [Affine(end, scale=scale) for end, scale in zip((output, contract), scales, strict=True)]
    attention = Attention(
        *(Affine(query), Affine(key), Affine(value), ends[0]),
        heads=heads,
        groups=heads,
        moves=True,
        dropout=None if dropout is None else attrgetter(dropout)(module),
    )
    wide = FeedForward(Affine(expand), activation, ends[1])
    before = Norm(module.layernorm_before), Norm(module.layernorm_after)
    return two_steps(module, attention, wide, before=before, tupled=dropout is not None)


def _refuse(config: PretrainedConfig, task: str) -> str | None:
    if config.use_relative_position_bias or config.use_shared_relative_position_bias:
        return None
    return "it adds nothing to scores for where patches are to each other"


def _read(name: str, row: Anatomy, config: PretrainedConfig) -> Anatomy:
    """Read from the mean of the patches, which is normalised, or at the token of the class."""
    if config.use_mean_pooling:
        heads = {"classification": (f"{name}.pooler.layernorm", "classifier")}
        return replace(row, heads=heads, pooling="mean")
    return replace(row, heads={"classification": (f"{name}.layernorm", "classifier")})


_BEIT = Anatomy(
    layers="beit.layers",
    layer=partial(_layer, paths=PATHS),
    heads={"classification": ("classifier",)},
    segments=False,
    indexed=True,
    modality="images",
    variant=partial(_read, "beit"),
    grid=grid_of,
    refuse=_refuse,
)

FAMILIES = {
    "beit": _BEIT,
    "data2vec-vision": replace(
        _BEIT,
        layers="data2vec_vision.encoder.layer",
        layer=partial(_layer, paths=_DATA2VEC, dropout="attention.attention.dropout"),
        variant=partial(_read, "data2vec_vision"),
        masks="none",
        own_attention=True,
    ),
}
