"""Where the parts of each supported architecture are: one row per family, read by everything else.

Methods never name a module of a model themselves; a new family of post-LN encoders is a new row.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from schemas import UsageError


def _finish_bert(layer: Any, context: torch.Tensor, entered: torch.Tensor) -> torch.Tensor:
    output: torch.Tensor = layer.feed_forward_chunk(layer.attention.output(context, entered))
    return output


def _finish_distilbert(layer: Any, context: torch.Tensor, entered: torch.Tensor) -> torch.Tensor:
    attended = layer.sa_layer_norm(layer.attention.out_lin(context) + entered)
    output: torch.Tensor = layer.output_layer_norm(layer.ffn(attended) + attended)
    return output


@dataclass(frozen=True)
class Anatomy:
    """Names of the parts of an encoder, as attribute paths from the task model.

    Attributes:
        embeddings: Module whose output for given ids is the sum of embeddings, normalised.
        projection: Module between embeddings and encoder (ELECTRA's), present if the sizes differ.
        encoder: Module whose first argument is the embedding output (``hidden_states[0]``).
        layers: List of the encoder's layers, from the encoder.
        projections: Query, key and value projections, from a layer.
        finish: What a layer does after attention: mixed values and the layer's own input, both
            [..., d], to its output.
        masked_lm_head: First module of the masked-LM head, from the task model.
        positions_after_padding: Position ids count from after the padding id (RoBERTa).
        segments: Whether the model takes ``token_type_ids``.
    """

    embeddings: str
    encoder: str
    masked_lm_head: str
    layers: str = "layer"
    projections: tuple[str, str, str] = (
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
    )
    finish: Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor] = _finish_bert
    projection: str | None = None
    positions_after_padding: bool = False
    segments: bool = True

    def first_position(self, config: PretrainedConfig) -> int:
        """Position id of the first token."""
        return int(config.pad_token_id) + 1 if self.positions_after_padding else 0


_ROBERTA = Anatomy(
    embeddings="roberta.embeddings",
    encoder="roberta.encoder",
    masked_lm_head="lm_head",
    positions_after_padding=True,
    segments=False,
)

ANATOMIES: dict[str, Anatomy] = {
    "bert": Anatomy(
        embeddings="bert.embeddings",
        encoder="bert.encoder",
        masked_lm_head="cls",
    ),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "electra": Anatomy(
        embeddings="electra.embeddings",
        projection="electra.embeddings_project",
        encoder="electra.encoder",
        masked_lm_head="generator_predictions",
    ),
    "distilbert": Anatomy(
        embeddings="distilbert.embeddings",
        encoder="distilbert.transformer",
        projections=("attention.q_lin", "attention.k_lin", "attention.v_lin"),
        finish=_finish_distilbert,
        masked_lm_head="vocab_transform",
        segments=False,
    ),
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
        raise UsageError(
            f"the architecture {config.model_type!r} is not supported; supported are {known}"
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
