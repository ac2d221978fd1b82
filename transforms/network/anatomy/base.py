"""What a row of the table of families says: where the parts of an architecture are."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from attribeam.schemas import UsageError
from attribeam.transforms.network.parts import (
    Activation,
    Affine,
    Attention,
    Branch,
    Embedding,
    FeedForward,
    HeadStep,
    Layer,
    Norm,
    Step,
    is_root_mean_square,
)
from attribeam.transforms.network.rows import Read

# Of a module of a network, and its number of heads, the layer that it is.
MakeLayer = Callable[[nn.Module, int], Layer]


# Where a classifier of pictures is read.
Pooling = Literal["cls", "mean", "cls+mean", "cls+distill"]
POOLINGS: Mapping[Pooling, str] = {
    "cls": "the token of the class",
    "mean": "the mean of the patches",
    "cls+mean": "the token of the class and the mean of the patches, side by side",
    "cls+distill": "the token of the class and that of a teacher's class",
}

# How a network is told which positions nobody attends to: by flags of them, of which it makes what
# is added to scores (``flags``), by that itself (``scores``), or not at all.
Masks = Literal["flags", "scores", "none"]

Whole = NDArray[np.signedinteger[Any]]

# Tasks that have another one's head.
HEADS = {"multi_label": "classification", "regression": "classification"}


@dataclass(frozen=True)
class Grid:
    """How pictures are cut into patches; rows of them follow one another.

    Attributes:
        channels: Of a picture.
        height: Of a picture, in pixels.
        width: Of a picture.
        patch_height: Of a patch.
        patch_width: Of a patch.
        specials: Names of the tokens of no patch, which stand before them: that of the class, say.
    """

    channels: int
    height: int
    width: int
    patch_height: int
    patch_width: int
    specials: tuple[str, ...] = ("[CLS]",)

    @property
    def before(self) -> int:
        """How many tokens of no patch stand before those of patches."""
        return len(self.specials)

    @property
    def rows(self) -> int:
        """Number of rows of patches."""
        return self.height // self.patch_height

    @property
    def columns(self) -> int:
        """Number of patches in a row."""
        return self.width // self.patch_width

    @property
    def patched(self) -> tuple[int, int]:
        """Height and width of what is in patches: of a picture, but for what is left over."""
        return self.rows * self.patch_height, self.columns * self.patch_width

    @property
    def positions(self) -> int:
        """Number of tokens: those of patches and those before them."""
        return self.before + self.rows * self.columns

    def read(self, pooling: Pooling, mask: torch.Tensor) -> Read:
        """Where pictures are read whose tokens are there or hidden, [B, T].

        The mean is that of the patches that are there; of a picture without any it is nothing.
        """
        if pooling == "cls":
            return Read(mask.new_zeros(len(mask)))
        weights = mask.double()
        weights[:, : self.before] = 0
        weights = weights / weights.sum(1, keepdim=True).clamp(min=1)
        if pooling == "cls+mean":
            weights[:, 0] = 1
        elif pooling == "cls+distill":
            weights = torch.zeros_like(weights)
            weights[:, :2] = 1 / 2
        return Read(weights=weights, first_apart=pooling != "mean")


@dataclass(frozen=True)
class MeanOfHeads:
    """Two linear heads whose logits are averaged, as one that is given half of what each is.

    Attributes:
        paths: Where they are, from the task model; of what they are given side by side.
    """

    paths: tuple[str, str]

    def of(self, network: nn.Module) -> Affine:
        """The one head, its weights copied."""
        heads = [Affine(attrgetter(path)(network)) for path in self.paths]
        weight = torch.cat([head.weight for head in heads], 1)
        biases = [head.bias / 2 for head in heads if head.bias is not None]
        one = nn.Linear(weight.shape[1], weight.shape[0], bias=bool(biases))
        one.weight = nn.Parameter(weight, requires_grad=False)
        if biases:
            one.bias = nn.Parameter(torch.stack(biases).sum(0), requires_grad=False)
        return Affine(one)


@dataclass(frozen=True)
class Anatomy:
    """Where the parts of a network are, as attribute paths from the task model.

    Attributes:
        layers: List of the layers, or a function from the network to them, one for each time that a
            layer is run.
        layer: What a module of that list is, of so many heads.
        heads: By task, what turns the hidden state of the position read out into logits: paths from
            the task model, or functions where the model has no module for them.
        embedding_norm: Norm of the sum of embeddings, if there is one.
        projection: What the sum is projected by after that (ELECTRA's), if the sizes differ.
        positions_after_padding: Position ids count from after the padding id (RoBERTa).
        segments: Whether the model takes ``token_type_ids``.
        causal: Whether a position attends to no later one.
        indexed: Whether what tokens see of each other depends on where they stand in the row, and
            not on their position ids alone: on what lies between two, or on windows.
        norm_shift: What is added to the weights of norms (``Norm.shift``).
        pools: Whether a row's prediction is read from the mean of all its positions, of the
            configuration and the task.
        spread: How many steps of the head are done to each position before that mean is taken.
        modality: The kind of input that it takes (``inputs.kinds``).
        within: Where the encoder's configuration is in that of the model; None if it is that.
        variant: What the row is for a configuration, if it says less than that.
        grid: How pictures are cut up, of the encoder's configuration, if it takes these.
        pooling: Where a classifier of pictures is read.
        masks: How positions are hidden, of networks that pictures are fed to.
        closed: Whether nothing is known of what is inside: there are no layers then, and a head
            without steps.
        own_attention: Whether attention is code of its own, and transformers has no other for it.
        patches: The convolution that makes tokens of patches.
        places: The table of positions that is added to them, [1, T, d].
        end: Of a text that is read at its end token, where that is, of the configuration and its
            ids [T]; None for no such token, or for families that are read elsewhere.
        refuse: Why a network of this family can't be explained, of its configuration and its task;
            None if it can.
    """

    layers: str | Callable[[PreTrainedModel], list[nn.Module]]
    layer: MakeLayer
    heads: Mapping[str, tuple[str | Activation | MeanOfHeads, ...]] = field(default_factory=dict)
    embedding_norm: str | None = None
    projection: str | None = None
    positions_after_padding: bool = False
    segments: bool = True
    causal: bool = False
    indexed: bool = False
    norm_shift: float = 0.0
    pools: Callable[[PretrainedConfig, str], bool] = lambda config, task: False
    spread: int = 0
    modality: str = "text"
    within: str | None = None
    variant: "Callable[[Anatomy, PretrainedConfig], Anatomy] | None" = None
    grid: Callable[[PretrainedConfig], Grid] | None = None
    pooling: Pooling = "cls"
    masks: Masks = "flags"
    own_attention: bool = False
    closed: bool = False
    patches: str | None = None
    places: str | None = None
    end: Callable[[PretrainedConfig, Whole], int | None] | None = None
    refuse: Callable[[PretrainedConfig, str], str | None] = lambda config, task: None

    def of(self, config: PretrainedConfig) -> "Anatomy":
        """The row as it is for a configuration."""
        return self if self.variant is None else self.variant(self, config)

    def encoder(self, config: PretrainedConfig) -> PretrainedConfig:
        """The encoder's configuration."""
        found: PretrainedConfig = config if self.within is None else getattr(config, self.within)
        return found

    def first_position(self, config: PretrainedConfig) -> int:
        """Position id of the first token."""
        return int(config.pad_token_id) + 1 if self.positions_after_padding else 0

    def layers_of(self, network: PreTrainedModel, heads: int) -> list[Layer]:
        """What the layers of a network are, each of so many heads.

        Raises:
            UsageError: If a part is no module of its usual kind (a quantised one, say), or lacking.
        """
        listed = self.layers
        try:
            modules = listed(network) if callable(listed) else attrgetter(listed)(network)
            return [self.layer(module, heads) for module in modules]
        except (TypeError, AttributeError) as error:
            raise UsageError(
                f"the layers of {type(network).__name__} are not as attribeam knows them: {error}"
            ) from error

    def embedding_of(self, network: PreTrainedModel) -> Embedding:
        """What is done to words before they enter the first layer."""
        words = None if self.grid is not None else network.get_input_embeddings()
        norm = optional_part(network, self.embedding_norm)
        projection = optional_part(network, self.projection)
        assert words is None or isinstance(words, nn.Embedding)
        return Embedding(
            words,
            None if norm is None else Norm(norm, self.norm_shift),
            Affine(projection) if isinstance(projection, nn.Linear) else None,
        )

    def head_of(self, network: nn.Module, task: str) -> list[HeadStep]:
        """What turns the hidden state of the position read out into logits, step by step.

        Raises:
            UsageError: If a part is lacking.
        """
        try:
            return [self._head_step(network, s) for s in self.heads[HEADS.get(task, task)]]
        except (AttributeError, KeyError) as error:
            raise UsageError(
                f"the head of {type(network).__name__} is not as attribeam knows it: {error}"
            ) from error

    def _head_step(self, network: nn.Module, step: str | Activation | MeanOfHeads) -> HeadStep:
        if isinstance(step, MeanOfHeads):
            return step.of(network)
        if not isinstance(step, str):
            return step
        module: nn.Module = attrgetter(step)(network)
        if isinstance(module, nn.Linear):
            return Affine(module)
        if isinstance(module, nn.LayerNorm) or is_root_mean_square(module):
            return Norm(module, self.norm_shift)
        return module


def two_steps(
    module: nn.Module,
    attention: Attention,
    feed_forward: FeedForward,
    *,
    before: Sequence[Norm | None] = (None, None),
    after: Sequence[Norm | None] = (None, None),
    joins: Sequence[Norm | None] = (None, None),
    tupled: bool = False,
) -> Layer:
    """A layer of two steps: attention, then the feed-forward part.

    Args:
        module: The layer's module.
        attention: Its attention.
        feed_forward: Its feed-forward part.
        before: Norms before the two branches.
        after: Norms after them, before they are added.
        joins: Norms of the two sums.
        tupled: Whether the module gives two things (``Layer``).
    """
    insides: tuple[Attention | FeedForward, ...] = (attention, feed_forward)
    steps = (
        Step((Branch(inside, enters, leaves),), join)
        for inside, enters, leaves, join in zip(insides, before, after, joins, strict=True)
    )
    return Layer(tuple(steps), module, tupled)


def optional_part(model: PreTrainedModel, path: str | None) -> nn.Module | None:
    """The module at an attribute path; None where the family, or this model of it, has none."""
    if path is None:
        return None
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None
