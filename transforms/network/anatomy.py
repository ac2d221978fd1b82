"""Where the parts of each supported architecture are: one row per family, read by everything else.

Methods never name a module of a model themselves; a new family is a new row.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
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

# Of a module of a network, and its number of heads, the layer that it is.
MakeLayer = Callable[[nn.Module, int], Layer]


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
        causal: Whether a position attends to no later one.
    """

    embeddings: str
    encoder: str
    masked_lm_head: str
    layer: MakeLayer
    layers: str = "layer"
    heads: Mapping[str, tuple[str | Activation, ...]] = field(default_factory=dict)
    projection: str | None = None
    positions_after_padding: bool = False
    segments: bool = True
    causal: bool = False

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


# Where query, key, value and output are, from a layer; and expand, the activation and contract.
_BERT = (
    *("attention.self.query", "attention.self.key", "attention.self.value"),
    *("attention.output.dense", "intermediate.dense", "intermediate.intermediate_act_fn"),
    "output.dense",
)
_DISTILBERT = (
    *("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"),
    *("ffn.lin1", "ffn.activation", "ffn.lin2"),
)


def _layer(
    module: nn.Module,
    heads: int,
    *,
    norms: Sequence[str],
    before: bool = False,
    paths: Sequence[str] = _BERT,
) -> Layer:
    """A layer of two steps: attention, and the feed-forward part.

    Args:
        module: The layer's module.
        heads: Their number.
        norms: Where the norm of each step is, from the layer.
        before: Whether norms are before the branches (pre-LN) and not at the ends of steps.
        paths: Where all else is.
    """
    query, key, value, output, expand, activation, contract = (
        attrgetter(path)(module) for path in paths
    )
    insides: tuple[Attention | FeedForward, ...] = (
        Attention(Affine(query), Affine(key), Affine(value), Affine(output), heads, heads),
        FeedForward(Affine(expand), activation, Affine(contract)),
    )
    steps = []
    for inside, path in zip(insides, norms, strict=True):
        norm = Norm(attrgetter(path)(module))
        steps.append(Step((Branch(inside, norm),)) if before else Step((Branch(inside),), norm))
    return Layer(tuple(steps), module)


_bert_layer = partial(_layer, norms=("attention.output.LayerNorm", "output.LayerNorm"))

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
        layer=partial(_layer, norms=("attention.LayerNorm", "intermediate.LayerNorm"), before=True),
        heads=_after("roberta_prelayernorm.LayerNorm"),
    ),
    "xlm-roberta-xl": replace(
        _ROBERTA,
        layer=partial(_layer, norms=("attention.self_attn_layer_norm", "LayerNorm"), before=True),
        heads=_after("roberta.encoder.LayerNorm"),
    ),
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
        layer=partial(_layer, norms=("sa_layer_norm", "output_layer_norm"), paths=_DISTILBERT),
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
