"""Decoders, as language models and as classifiers: a token sees all that come before it."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from transformers import PretrainedConfig

from attribeam.transforms.network.anatomy.base import Anatomy, two_steps
from attribeam.transforms.network.parts import (
    Affine,
    Attention,
    Branch,
    FeedForward,
    Layer,
    Norm,
    Softcap,
    Step,
)


def _gpt2_layer(module: Any, heads: int) -> Layer:
    query, key, value = Affine.split(module.attn.c_attn, 3)
    output, factor = Affine(module.attn.c_proj), module.attn.scaling
    attention = Attention(query, key, value, output, heads, heads, factor=factor)
    mlp = module.mlp
    feed_forward = FeedForward(Affine(mlp.c_fc), mlp.act, Affine(mlp.c_proj))
    return two_steps(module, attention, feed_forward, before=(Norm(module.ln_1), Norm(module.ln_2)))


def _gpt_neox_layer(module: Any, heads: int) -> Layer:
    """Its parts are added at once, or one after the other; heads' maps lie beside each other."""
    fused, mlp = module.attention.query_key_value, module.mlp
    size = fused.out_features // (3 * heads)
    numbers = torch.arange(fused.out_features).view(heads, 3, size)
    query, key, value = (Affine(fused, numbers[:, part].flatten()) for part in range(3))
    attention = Attention(
        query, key, value, Affine(module.attention.dense), heads, heads, moves=True
    )
    feed_forward = FeedForward(Affine(mlp.dense_h_to_4h), mlp.act, Affine(mlp.dense_4h_to_h))
    before = Norm(module.input_layernorm), Norm(module.post_attention_layernorm)
    if not module.use_parallel_residual:
        return two_steps(module, attention, feed_forward, before=before)
    branches = Branch(attention, before[0]), Branch(feed_forward, before[1])
    return Layer((Step(branches),), module)


def _phi3_layer(module: Any, heads: int) -> Layer:
    """Queries, keys and values are one map, and so are the gate and what it is of."""
    fused, mlp = module.self_attn.qkv_proj, module.mlp
    groups = module.self_attn.num_key_value_heads
    ends = torch.tensor([heads, groups, groups]).cumsum(0) * module.self_attn.head_dim
    query, key, value = (
        Affine(fused, slice(start, end)) for start, end in pairwise([0, *ends.tolist()])
    )
    output, factor = Affine(module.self_attn.o_proj), module.self_attn.scaling
    attention = Attention(query, key, value, output, heads, groups, moves=True, factor=factor)
    gate, expand = Affine.split(mlp.gate_up_proj, 2)
    feed_forward = FeedForward(expand, mlp.activation_fn, Affine(mlp.down_proj), gate)
    before = Norm(module.input_layernorm), Norm(module.post_attention_layernorm)
    return two_steps(module, attention, feed_forward, before=before)


def _llama_layer(
    module: Any,
    heads: int,
    *,
    before: Sequence[str] = ("input_layernorm", "post_attention_layernorm"),
    after: Sequence[str] = (),
    shift: float = 0.0,
) -> Layer:
    """Queries and keys are turned by their positions, and heads share keys and values.

    Args:
        module: The layer's module.
        heads: Their number.
        before: Norms before its branches.
        after: Norms after them, if it has any.
        shift: What is added to their weights.
    """
    mixing, mlp = module.self_attn, module.mlp
    query, key, value, output = (
        Affine(getattr(mixing, name)) for name in ("q_proj", "k_proj", "v_proj", "o_proj")
    )
    groups = heads // mixing.num_key_value_groups
    attention = Attention(
        query, key, value, output, heads, groups, moves=True, factor=mixing.scaling
    )
    feed_forward = FeedForward(
        Affine(mlp.up_proj), mlp.act_fn, Affine(mlp.down_proj), Affine(mlp.gate_proj)
    )
    entering, leaving = (
        tuple(Norm(getattr(module, name), shift) for name in names) for names in (before, after)
    )
    return two_steps(
        module, attention, feed_forward, before=entering, after=leaving or (None, None)
    )


def _refuse(config: PretrainedConfig, task: str) -> str | None:
    if getattr(config, "use_bidirectional_attention", None):
        return "its attention is bidirectional, and that of a decoder is expected"
    if getattr(config, "add_cross_attention", False):
        return "it attends to an encoder"
    return None


def _capped(anatomy: Anatomy, config: PretrainedConfig) -> Anatomy:
    """The row for configurations that keep the logits of words within a limit."""
    limit = getattr(config, "final_logit_softcapping", None)
    if limit is None:
        return anatomy
    words = (*anatomy.heads["causal_lm"], Softcap(float(limit)))
    return replace(anatomy, heads={**anatomy.heads, "causal_lm": words})


_LLAMA = Anatomy(
    layers="model.layers",
    layer=_llama_layer,
    heads={
        "causal_lm": ("model.norm", "lm_head"),
        "classification": ("model.norm", "score"),
        "token_classification": ("model.norm", "score"),
    },
    segments=False,
    causal=True,
    refuse=_refuse,
)

# Some of their layers may attend to the nearest positions alone.
_WINDOWED = replace(_LLAMA, indexed=True)

_GEMMA2 = replace(
    _WINDOWED,
    layer=partial(
        _llama_layer,
        before=("input_layernorm", "pre_feedforward_layernorm"),
        after=("post_attention_layernorm", "post_feedforward_layernorm"),
        shift=1.0,
    ),
    norm_shift=1.0,
    variant=_capped,
)

FAMILIES = {
    "gpt2": Anatomy(
        layers="transformer.h",
        layer=_gpt2_layer,
        heads={
            "causal_lm": ("transformer.ln_f", "lm_head"),
            "classification": ("transformer.ln_f", "score"),
            "token_classification": ("transformer.ln_f", "classifier"),
            "span": ("transformer.ln_f", "qa_outputs"),
        },
        segments=False,
        causal=True,
        refuse=_refuse,
    ),
    "llama": _LLAMA,
    "mistral": _WINDOWED,
    "qwen2": _WINDOWED,
    "qwen3": _WINDOWED,
    "gemma": replace(_LLAMA, layer=partial(_llama_layer, shift=1.0), norm_shift=1.0),
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA2,
    "phi3": replace(_WINDOWED, layer=_phi3_layer),
    "gpt_neox": replace(
        _LLAMA,
        layers="gpt_neox.layers",
        layer=_gpt_neox_layer,
        heads={
            "causal_lm": ("gpt_neox.final_layer_norm", "lm_head"),
            "classification": ("gpt_neox.final_layer_norm", "score"),
            "token_classification": ("gpt_neox.final_layer_norm", "classifier"),
        },
    ),
}
