"""ModernBERT: a pre-LN encoder with gates and positions that queries and keys are turned by."""

from typing import Any

from transformers import PretrainedConfig

from attribeam.transforms.network.anatomy.base import Anatomy, two_steps
from attribeam.transforms.network.parts import Affine, Attention, FeedForward, Layer, Norm

_HEAD = ("model.final_norm", "head.dense", "head.act", "head.norm")


def _layer(module: Any, heads: int) -> Layer:
    """The first one has no norm before its attention."""
    fused, wide = module.attn.Wqkv, module.mlp.Wi
    query, key, value = Affine.split(fused, 3)
    gate, expand = Affine.split(wide, 2)
    attention = Attention(query, key, value, Affine(module.attn.Wo), heads, heads, moves=True)
    feed_forward = FeedForward(expand, module.mlp.act, Affine(module.mlp.Wo), gate)
    first = Norm(module.attn_norm) if hasattr(module.attn_norm, "weight") else None
    return two_steps(module, attention, feed_forward, before=(first, Norm(module.mlp_norm)))


def _pools(config: PretrainedConfig, task: str) -> bool:
    of_rows = task in ("classification", "multi_label", "regression")
    return of_rows and config.classifier_pooling == "mean"


FAMILIES = {
    "modernbert": Anatomy(
        layers="model.layers",
        layer=_layer,
        embedding_norm="model.embeddings.norm",
        heads={
            "classification": (*_HEAD, "classifier"),
            "token_classification": (*_HEAD, "classifier"),
            "span": (*_HEAD, "classifier"),
            "masked_lm": (*_HEAD, "decoder"),
        },
        segments=False,
        indexed=True,
        pools=_pools,
        spread=1,  # The final norm.
    ),
}
