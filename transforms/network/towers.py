"""CLIP's towers as networks of their own: of pictures with texts as classes, or of pairs."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from attribeam.schemas import UsageError
from attribeam.transforms.network.anatomy.clip import end_of
from attribeam.transforms.network.borrowed import borrowed
from attribeam.transforms.network.parts import unit

if TYPE_CHECKING:  # Its code takes a while to import.
    from transformers import CLIPModel

# Texts whose features are had at a time.
_AT_ONCE = 64


class Tower(PreTrainedModel):
    """A tower of CLIP, with what turns its features into logits, if they are of classes.

    Attributes:
        whole: The model that it is a tower of.
        classifier: From features of a length of 1 to logits of classes; None where they are
            compared with other features, instance by instance.
    """

    def __init__(
        self, whole: "CLIPModel", side: Literal["image", "text"], weight: torch.Tensor | None = None
    ) -> None:
        """Takes a side of the whole, and features of classes by ``classifier``, [C, n]."""
        tower: Any = whole.vision_model if side == "image" else whole.text_model
        super().__init__(tower.config)
        self.whole = whole
        self.side = side
        self._tower = tower
        self.classifier: nn.Linear | None = None
        if weight is not None:
            classes, size = weight.shape
            self.classifier = nn.Linear(size, classes, bias=False).to(weight)
            self.classifier.weight = nn.Parameter(weight, requires_grad=False)

    @property
    def base_model(self) -> nn.Module:
        """What makes hidden states."""
        found: nn.Module = self._tower
        return found

    def get_input_embeddings(self) -> nn.Module:
        """The table of words of texts."""
        found: nn.Module = self.whole.text_model.embeddings.token_embedding
        return found

    def forward(self, **inputs: Any) -> SimpleNamespace:
        """What transformers makes of inputs: logits of classes, or features of a length of 1."""
        inputs.pop("use_cache", None)
        if self.side == "image":
            found: Any = self.whole.get_image_features(**inputs)
        else:
            found = self.whole.get_text_features(**inputs)
        features = unit(found.pooler_output)
        return SimpleNamespace(
            logits=features if self.classifier is None else self.classifier(features)
        )


def scale_of(whole: "CLIPModel") -> torch.Tensor:
    """What cosines are multiplied by to make logits."""
    return whole.logit_scale.detach().exp()


def class_features(
    whole: "CLIPModel", tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str]
) -> torch.Tensor:
    """Weights of a classifier of pictures whose classes are texts, [C, n].

    They are the texts' features over their lengths, by what cosines are multiplied by. Texts of one
    number of tokens are run at a time, so that there is no padding.

    Raises:
        UsageError: If a text is none that the model takes.
    """
    config: Any = whole.text_model.config
    ids = [_ids(config, tokenizer, prompt) for prompt in prompts]
    weight = whole.text_projection.weight.new_empty(len(ids), len(whole.text_projection.weight))
    with borrowed(whole), torch.no_grad():
        for numbers in _alike(ids):
            several = torch.tensor([ids[number] for number in numbers], device=whole.device)
            features: Any = whole.get_text_features(input_ids=several)
            weight[numbers] = unit(features.pooler_output)
    return weight * scale_of(whole)


def _alike(ids: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Numbers of rows of one length, some at a time."""
    ordered = sorted(range(len(ids)), key=lambda number: len(ids[number]))
    for _, same in groupby(ordered, key=lambda number: len(ids[number])):
        numbers = list(same)
        for start in range(0, len(numbers), _AT_ONCE):
            yield numbers[start : start + _AT_ONCE]


def _ids(config: PretrainedConfig, tokenizer: PreTrainedTokenizerFast, prompt: str) -> list[int]:
    """Tokens of a prompt down to its end."""
    ids: list[int] = tokenizer(prompt)["input_ids"]
    if len(ids) > config.max_position_embeddings:
        raise UsageError(
            f"the prompt {prompt!r} has {len(ids)} tokens, and the model takes "
            f"{config.max_position_embeddings}"
        )
    end = end_of(config, np.array(ids))
    if end is None:
        raise UsageError(
            f"the tokenizer puts no end token (id {config.eos_token_id}) after the prompt "
            f"{prompt!r}, where the model reads it"
        )
    return ids[: end + 1]
