"""Where the parts of each supported architecture are: one row per family, read by everything else.

Methods never name a module of a model themselves; a new family is a new row.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter

import torch
from torch import nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel

from attribeam.schemas import UsageError
from attribeam.transforms.network.parts import (
    Activation,
    Affine,
    Attention,
    Branch,
    FeedForward,
    HeadStep,
    Layer,
    Norm,
    Step,
)


@dataclass(frozen=True)
class Anatomy:
    """Names of the parts of an encoder, as attribute paths from the task model.

    Attributes:
        embeddings: Module whose output for given ids is the sum of embeddings, normalised.
        projection: Module between embeddings and encoder (ELECTRA's), present if the sizes differ.
        encoder: Module whose first argument is the embedding output (``hidden_states[0]``).
        layers: List of the encoder's layers, from the encoder.
        layer: What a module of that list is, of so many heads.
        heads: By task, what turns the hidden state of the position read out into logits: paths from
            the task model, or functions where the model has no module for them.
        masked_lm_head: First module of the masked-LM head, from the task model.
        positions_after_padding: Position ids count from after the padding id (RoBERTa).
        segments: Whether the model takes ``token_type_ids``.
    """

    embeddings: str
    encoder: str
    masked_lm_head: str
    layer: Callable[[nn.Module, int], Layer]
    layers: str = "layer"
    heads: Mapping[str, tuple[str | Activation, ...]] = field(default_factory=dict)
    projection: str | None = None
    positions_after_padding: bool = False
    segments: bool = True

    def first_position(self, config: PretrainedConfig) -> int:
        """Position id of the first token."""
        return int(config.pad_token_id) + 1 if self.positions_after_padding else 0

    def layers_of(self, network: nn.Module, heads: int) -> list[Layer]:
        """What the layers of a network are, each of so many heads.

        Raises:
            UsageError: If a part is no module of its usual kind (a quantised one, say), or lacking.
        """
        modules = getattr(network.get_submodule(self.encoder), self.layers)
        try:
            return [self.layer(module, heads) for module in modules]
        except (TypeError, AttributeError) as error:
            raise UsageError(
                f"the layers of {type(network).__name__} are not as attribeam knows them: {error}"
            ) from error

    def head_of(self, network: nn.Module, task: str) -> list[HeadStep]:
        """What turns the hidden state of the position read out into logits, step by step."""
        return [
            _part_of_head(attrgetter(step)(network)) if isinstance(step, str) else step
            for step in self.heads[task]
        ]


def _part_of_head(module: nn.Module) -> HeadStep:
    if isinstance(module, nn.Linear):
        return Affine(module)
    return Norm(module) if isinstance(module, nn.LayerNorm) else module


def _post_ln(
    module: nn.Module, heads: int, attention: Sequence[str], feed_forward: Sequence[str]
) -> Layer:
    """A layer of two steps that each end with a norm.

    Args:
        module: The layer.
        heads: Their number.
        attention: Where query, key, value, output and the norm are, from the layer.
        feed_forward: Where expand, the activation, contract and the norm are.
    """
    *projections, join = (attrgetter(path)(module) for path in attention)
    query, key, value, output = map(Affine, projections)
    expand, activation, contract, last = (attrgetter(path)(module) for path in feed_forward)
    inside = FeedForward(Affine(expand), activation, Affine(contract))
    return Layer(
        steps=(
            Step((Branch(Attention(query, key, value, output, heads, heads)),), Norm(join)),
            Step((Branch(inside),), Norm(last)),
        ),
        module=module,
    )


def _bert_layer(module: nn.Module, heads: int) -> Layer:
    own = [f"attention.self.{name}" for name in ("query", "key", "value")]
    attention = (*own, "attention.output.dense", "attention.output.LayerNorm")
    wide = ("intermediate.dense", "intermediate.intermediate_act_fn")
    return _post_ln(module, heads, attention, (*wide, "output.dense", "output.LayerNorm"))


def _distilbert_layer(module: nn.Module, heads: int) -> Layer:
    own = [f"attention.{name}_lin" for name in ("q", "k", "v", "out")]
    wide = ("ffn.lin1", "ffn.activation", "ffn.lin2", "output_layer_norm")
    return _post_ln(module, heads, (*own, "sa_layer_norm"), wide)


def _pre_ln(module: nn.Module, heads: int, norms: tuple[str, str]) -> Layer:
    """BERT's parts, but for its norms: one before attention and one before the rest."""
    own = [f"attention.self.{name}" for name in ("query", "key", "value")]
    query, key, value, output = (
        Affine(attrgetter(path)(module)) for path in (*own, "attention.output.dense")
    )
    expand, activation, contract = (
        attrgetter(path)(module)
        for path in ("intermediate.dense", "intermediate.intermediate_act_fn", "output.dense")
    )
    first, second = (Norm(attrgetter(path)(module)) for path in norms)
    inside = FeedForward(Affine(expand), activation, Affine(contract))
    mixing = Attention(query, key, value, output, heads, heads)
    return Layer((Step((Branch(mixing, first),)), Step((Branch(inside, second),))), module)


def _prelayernorm_layer(module: nn.Module, heads: int) -> Layer:
    return _pre_ln(module, heads, ("attention.LayerNorm", "intermediate.LayerNorm"))


def _xl_layer(module: nn.Module, heads: int) -> Layer:
    return _pre_ln(module, heads, ("attention.self_attn_layer_norm", "LayerNorm"))


_ROBERTA = Anatomy(
    embeddings="roberta.embeddings",
    encoder="roberta.encoder",
    layer=_bert_layer,
    masked_lm_head="lm_head",
    heads={
        "classification": ("classifier.dense", torch.tanh, "classifier.out_proj"),
        "masked_lm": ("lm_head.dense", functional.gelu, "lm_head.layer_norm", "lm_head.decoder"),
    },
    positions_after_padding=True,
)


def _after(norm: str) -> dict[str, tuple[str | Activation, ...]]:
    """RoBERTa's heads, after the norm that pre-LN encoders end with."""
    return {task: (norm, *steps) for task, steps in _ROBERTA.heads.items()}


ANATOMIES: dict[str, Anatomy] = {
    "bert": Anatomy(
        embeddings="bert.embeddings",
        encoder="bert.encoder",
        layer=_bert_layer,
        masked_lm_head="cls",
        heads={
            "classification": ("bert.pooler.dense", torch.tanh, "classifier"),
            "masked_lm": (
                "cls.predictions.transform.dense",
                "cls.predictions.transform.transform_act_fn",
                "cls.predictions.transform.LayerNorm",
                "cls.predictions.decoder",
            ),
        },
    ),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "roberta-prelayernorm": replace(
        _ROBERTA,
        embeddings="roberta_prelayernorm.embeddings",
        encoder="roberta_prelayernorm.encoder",
        layer=_prelayernorm_layer,
        heads=_after("roberta_prelayernorm.LayerNorm"),
    ),
    "xlm-roberta-xl": replace(_ROBERTA, layer=_xl_layer, heads=_after("roberta.encoder.LayerNorm")),
    "electra": Anatomy(
        embeddings="electra.embeddings",
        projection="electra.embeddings_project",
        encoder="electra.encoder",
        layer=_bert_layer,
        masked_lm_head="generator_predictions",
        heads={
            "classification": (
                "classifier.dense",
                "classifier.activation",
                "classifier.out_proj",
            ),
            "masked_lm": (
                "generator_predictions.dense",
                "generator_predictions.activation",
                "generator_predictions.LayerNorm",
                "generator_lm_head",
            ),
        },
    ),
    "distilbert": Anatomy(
        embeddings="distilbert.embeddings",
        encoder="distilbert.transformer",
        layer=_distilbert_layer,
        masked_lm_head="vocab_transform",
        heads={
            "classification": ("pre_classifier", torch.relu, "classifier"),
            "masked_lm": ("vocab_transform", "activation", "vocab_layer_norm", "vocab_projector"),
        },
        segments=False,
    ),
}


_DECODER = "it is a decoder, and these methods are defined for encoders"
_OUTSIDE = {
    "vit": "it is of images, and attribeam takes texts",
    "gpt2": _DECODER,
    "llama": _DECODER,
    "mistral": _DECODER,
    "qwen2": _DECODER,
    "deberta": "its attention never passes through the hook that probabilities are read from",
    "deberta-v2": "its attention never passes through the hook that probabilities are read from",
    "albert": "its layers share their weights, which no method here has been checked for",
}


def anatomy_of(config: PretrainedConfig) -> Anatomy:
    """Looks up the anatomy of a model.

    Raises:
        UsageError: If the architecture isn't one that attribeam knows the parts of.
    """
    try:
        return ANATOMIES[config.model_type]
    except KeyError:
        known = ", ".join(sorted(ANATOMIES))
        why = _OUTSIDE.get(config.model_type)
        raise UsageError(
            f"the architecture {config.model_type!r} is not supported"
            f"{f': {why}' if why else ''}; supported are {known}"
        ) from None


def part(model: PreTrainedModel, path: str) -> nn.Module:
    """The module at an attribute path such as ``bert.encoder``."""
    return model.get_submodule(path)


def optional_part(model: PreTrainedModel, path: str | None) -> nn.Module | None:
    """As ``part``, but None where the family, or this model of it, has no such module."""
    if path is None:
        return None
    try:
        return part(model, path)
    except AttributeError:
        return None
