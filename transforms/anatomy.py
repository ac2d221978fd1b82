"""Where the parts of each supported architecture are: one row per family, read by everything else.

Methods never name a module of a model themselves; a new family of post-LN encoders is a new row.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel

from schemas import UsageError

Activation = Callable[[torch.Tensor], torch.Tensor]
HeadStep = nn.Linear | nn.LayerNorm | Activation


class LayerParts(NamedTuple):
    """The parts of a post-LN encoder layer, in the order in which they are passed.

    With x what enters the layer and a the mixed values of all heads, the layer is
    h = attention_norm(output(a) + x), output_norm(contract(activation(expand(h))) + h).
    """

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    output: nn.Linear
    attention_norm: nn.LayerNorm
    expand: nn.Linear
    activation: Activation
    contract: nn.Linear
    output_norm: nn.LayerNorm

    def finish(self, mixed: torch.Tensor, entered: torch.Tensor) -> torch.Tensor:
        """What the layer does after attention: mixed values and its own input to its output."""
        attended = self.attention_norm(self.output(mixed) + entered)
        widened = self.contract(self.activation(self.expand(attended)))
        result: torch.Tensor = self.output_norm(widened + attended)
        return result


@dataclass(frozen=True)
class Anatomy:
    """Names of the parts of an encoder, as attribute paths from the task model.

    Attributes:
        embeddings: Module whose output for given ids is the sum of embeddings, normalised.
        projection: Module between embeddings and encoder (ELECTRA's), present if the sizes differ.
        encoder: Module whose first argument is the embedding output (``hidden_states[0]``).
        layers: List of the encoder's layers, from the encoder.
        parts: Where the parts of a layer are, from the layer, in the order of ``LayerParts``.
        heads: By task, what turns the hidden state of the position read out into logits: paths from
            the task model, or functions where the model has no module for them.
        masked_lm_head: First module of the masked-LM head, from the task model.
        positions_after_padding: Position ids count from after the padding id (RoBERTa).
        segments: Whether the model takes ``token_type_ids``.
    """

    embeddings: str
    encoder: str
    masked_lm_head: str
    layers: str = "layer"
    heads: Mapping[str, tuple[str | Activation, ...]] = field(default_factory=dict)
    parts: tuple[str, ...] = (
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "attention.output.LayerNorm",
        "intermediate.dense",
        "intermediate.intermediate_act_fn",
        "output.dense",
        "output.LayerNorm",
    )
    projection: str | None = None
    positions_after_padding: bool = False
    segments: bool = True

    def first_position(self, config: PretrainedConfig) -> int:
        """Position id of the first token."""
        return int(config.pad_token_id) + 1 if self.positions_after_padding else 0

    def parts_of(self, layer: nn.Module) -> LayerParts:
        """The parts of a layer of the encoder.

        Raises:
            TypeError: If one of them is not the kind of module it should be (a quantised one, say).
        """
        found = LayerParts(*(attrgetter(path)(layer) for path in self.parts))
        for path, part, kind in zip(self.parts, found, _KINDS, strict=True):
            if kind is not None and not isinstance(part, kind):
                raise TypeError(f"{path} is a {type(part).__name__}, not a {kind.__name__}")
        return found

    def head_of(self, network: nn.Module, task: str) -> list[HeadStep]:
        """What turns the hidden state of the position read out into logits, step by step."""
        steps = self.heads[task]
        return [attrgetter(step)(network) if isinstance(step, str) else step for step in steps]


_KINDS = (*[nn.Linear] * 4, nn.LayerNorm, nn.Linear, None, nn.Linear, nn.LayerNorm)

_ROBERTA = Anatomy(
    embeddings="roberta.embeddings",
    encoder="roberta.encoder",
    masked_lm_head="lm_head",
    heads={
        "classification": ("classifier.dense", torch.tanh, "classifier.out_proj"),
        "masked_lm": ("lm_head.dense", functional.gelu, "lm_head.layer_norm", "lm_head.decoder"),
    },
    positions_after_padding=True,
)

ANATOMIES: dict[str, Anatomy] = {
    "bert": Anatomy(
        embeddings="bert.embeddings",
        encoder="bert.encoder",
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
    "electra": Anatomy(
        embeddings="electra.embeddings",
        projection="electra.embeddings_project",
        encoder="electra.encoder",
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
        parts=(
            "attention.q_lin",
            "attention.k_lin",
            "attention.v_lin",
            "attention.out_lin",
            "sa_layer_norm",
            "ffn.lin1",
            "ffn.activation",
            "ffn.lin2",
            "output_layer_norm",
        ),
        masked_lm_head="vocab_transform",
        heads={
            "classification": ("pre_classifier", torch.relu, "classifier"),
            "masked_lm": ("vocab_transform", "activation", "vocab_layer_norm", "vocab_projector"),
        },
        segments=False,
    ),
}


_PRE_LN = (
    "its layers normalise before they attend (pre-LN), which is outside the definition of the "
    "norm-based and relevance methods"
)
_DECODER = "it is a decoder, and these methods are defined for encoders"
_OUTSIDE = {
    "modernbert": _PRE_LN,
    "roberta-prelayernorm": _PRE_LN,
    "xlm-roberta-xl": _PRE_LN,
    "vit": _PRE_LN,
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
