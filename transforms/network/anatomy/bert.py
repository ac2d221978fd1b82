"""BERT and the encoders that are made as it is."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from operator import attrgetter

import torch
from torch import nn
from torch.nn import functional

from attribeam.transforms.network.anatomy.base import Anatomy, two_steps
from attribeam.transforms.network.parts import (
    Activation,
    Affine,
    Attention,
    FeedForward,
    Layer,
    Norm,
)

# Where query, key, value and output are, from a layer; and expand, the activation and contract.
BERT_PATHS = (
    *("attention.self.query", "attention.self.key", "attention.self.value"),
    *("attention.output.dense", "intermediate.dense", "intermediate.intermediate_act_fn"),
    "output.dense",
)
_DISTILBERT = (
    *("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"),
    *("ffn.lin1", "ffn.activation", "ffn.lin2"),
)

# Heads that are the same in many families.
OF_TOKENS: dict[str, tuple[str | Activation, ...]] = {
    "token_classification": ("classifier",),
    "span": ("qa_outputs",),
}
BERT_WORDS = (
    "cls.predictions.transform.dense",
    "cls.predictions.transform.transform_act_fn",
    "cls.predictions.transform.LayerNorm",
    "cls.predictions.decoder",
)
ROBERTA_HEADS: dict[str, tuple[str | Activation, ...]] = {
    **OF_TOKENS,
    "classification": ("classifier.dense", torch.tanh, "classifier.out_proj"),
    "masked_lm": ("lm_head.dense", functional.gelu, "lm_head.layer_norm", "lm_head.decoder"),
}


def encoder_layer(
    module: nn.Module,
    heads: int,
    *,
    norms: Sequence[str],
    before: bool = False,
    paths: Sequence[str] = BERT_PATHS,
    dropout: str | None = None,
) -> Layer:
    """A layer of two steps whose maps are modules of their own.

    Args:
        module: The layer's module.
        heads: Their number.
        norms: Where the norm of each step is, from the layer.
        before: Whether norms are before the branches (pre-LN) and not at the ends of steps.
        paths: Where query, key, value and output are; and expand, the activation and contract.
        dropout: Where that of attention is, if it isn't looked up in transformers' registry.
    """
    query, key, value, output, expand, activation, contract = (
        attrgetter(path)(module) for path in paths
    )
    attention = Attention(
        Affine(query),
        Affine(key),
        Affine(value),
        Affine(output),
        heads,
        heads,
        moves=dropout is not None,
        dropout=None if dropout is None else attrgetter(dropout)(module),
    )
    feed_forward = FeedForward(Affine(expand), activation, Affine(contract))
    placed, none = [Norm(attrgetter(path)(module)) for path in norms], (None, None)
    return two_steps(
        module,
        attention,
        feed_forward,
        before=placed if before else none,
        joins=none if before else placed,
        tupled=dropout is not None,
    )


_bert_layer = partial(encoder_layer, norms=("attention.output.LayerNorm", "output.LayerNorm"))

_ROBERTA = Anatomy(
    layers="roberta.encoder.layer",
    embedding_norm="roberta.embeddings.LayerNorm",
    layer=_bert_layer,
    heads=ROBERTA_HEADS,
    positions_after_padding=True,
)


def _after(norm: str) -> dict[str, tuple[str | Activation, ...]]:
    """RoBERTa's heads, after the norm that pre-LN encoders end with."""
    return {task: (norm, *steps) for task, steps in ROBERTA_HEADS.items()}


FAMILIES: dict[str, Anatomy] = {
    "bert": Anatomy(
        layers="bert.encoder.layer",
        layer=_bert_layer,
        embedding_norm="bert.embeddings.LayerNorm",
        heads={
            "classification": ("bert.pooler.dense", torch.tanh, "classifier"),
            **OF_TOKENS,
            "masked_lm": BERT_WORDS,
        },
    ),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "roberta-prelayernorm": replace(
        _ROBERTA,
        layers="roberta_prelayernorm.encoder.layer",
        embedding_norm="roberta_prelayernorm.embeddings.LayerNorm",
        layer=partial(
            encoder_layer, norms=("attention.LayerNorm", "intermediate.LayerNorm"), before=True
        ),
        heads=_after("roberta_prelayernorm.LayerNorm"),
    ),
    "xlm-roberta-xl": replace(
        _ROBERTA,
        layer=partial(
            encoder_layer, norms=("attention.self_attn_layer_norm", "LayerNorm"), before=True
        ),
        heads=_after("roberta.encoder.LayerNorm"),
    ),
    "electra": Anatomy(
        layers="electra.encoder.layer",
        layer=_bert_layer,
        embedding_norm="electra.embeddings.LayerNorm",
        projection="electra.embeddings_project",
        heads={
            "classification": (
                "classifier.dense",
                "classifier.activation",
                "classifier.out_proj",
            ),
            **OF_TOKENS,
            "masked_lm": (
                "generator_predictions.dense",
                "generator_predictions.activation",
                "generator_predictions.LayerNorm",
                "generator_lm_head",
            ),
        },
    ),
    "distilbert": Anatomy(
        layers="distilbert.transformer.layer",
        embedding_norm="distilbert.embeddings.LayerNorm",
        layer=partial(
            encoder_layer, norms=("sa_layer_norm", "output_layer_norm"), paths=_DISTILBERT
        ),
        heads={
            "classification": ("pre_classifier", torch.relu, "classifier"),
            **OF_TOKENS,
            "masked_lm": ("vocab_transform", "activation", "vocab_layer_norm", "vocab_projector"),
        },
        segments=False,
    ),
}
