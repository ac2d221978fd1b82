"""What a row of the table of families says: where the parts of an architecture are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from attribeam.schemas import UsageError
from attribeam.transforms.network.parts import Activation, Affine, HeadStep, Layer, Norm

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
