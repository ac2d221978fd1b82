"""What the classifier of shapes is trained on, and how often it is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from examples.bundled.card import Accuracies
from examples.bundled.fitting import Objective
from examples.bundled.scoring import accuracy_by
from examples.bundled.shapes import SHAPES, SIDE, Scene
from examples.bundled.shapes_drawing import draw, mask_of

# Share of a patch that a thing covers where the patch is said to be of it, in training alone.
_COVERED = 0.1
_BATCH = 120


@dataclass(frozen=True)
class PictureRecipe:
    """Sizes of a ViT and of its training.

    Attributes:
        pictures: Size of the generated corpus, of which four fifths are for training.
        epochs: Passes over the training split.
        patch: Side of a patch, in pixels.
        layers: Transformer layers.
        heads: Attention heads of a layer.
        hidden: Width of the model.
        feed_forward: Width inside the feed-forward blocks.
        batch: Pictures of a step.
        learning_rate: Peak of a linear warm-up (a tenth of the steps) and a linear decay.
        memory: Decay of Adam's average of squared gradients.
        attention_gain: Factor on the initial queries and keys.
    """

    pictures: int
    epochs: int
    patch: int = 8
    layers: int = 4
    heads: int = 4
    hidden: int = 64
    feed_forward: int = 128
    batch: int = 64
    learning_rate: float = 1e-3
    memory: float = 0.98
    attention_gain: float = 2.0

    def model(self) -> ViTForImageClassification:
        """A new model."""
        config = ViTConfig(
            image_size=SIDE,
            patch_size=self.patch,
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=self.feed_forward,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            id2label=dict(enumerate(SHAPES)),
            label2id={shape: number for number, shape in enumerate(SHAPES)},
        )
        model = ViTForImageClassification(config)
        sharpen(model, self.attention_gain)
        return model


def sharpen(model: nn.Module, gain: float) -> None:
    """Multiply the initial queries and keys, since those of narrow models attend to all alike."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("query.weight", "key.weight", "q_proj.weight", "k_proj.weight")):
                weight.mul_(gain)


def processor() -> ViTImageProcessor:
    """What makes the model's numbers of a picture: -1 for black to 1 for white."""
    size = {"height": SIDE, "width": SIDE}
    return ViTImageProcessor(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3)


def pixels_of(scenes: Sequence[Scene]) -> Tensor:
    """Pictures as bytes, [scenes, 3, SIDE, SIDE]."""
    drawn = np.stack([draw(scene) for scene in scenes])
    return torch.from_numpy(drawn).permute(0, 3, 1, 2).contiguous()


def normalised(pixels: Tensor) -> Tensor:
    """What the processor makes of pictures of the model's size."""
    return pixels.float() / 127.5 - 1


class Taught(nn.Module):
    """A classifier with a second head that says of each patch which shape is there, if any.

    From the label alone a ViT of this size doesn't learn in minutes where to look. The second head
    is thrown away after training.
    """

    def __init__(self, model: ViTForImageClassification) -> None:
        super().__init__()
        self.model = model
        self.of_patches = nn.Linear(model.config.hidden_size, 1 + len(SHAPES))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of pictures, [B, shapes], and of their patches, [B, patches, 1 + shapes]."""
        states = self.model.vit(pixels).last_hidden_state
        return self.model.classifier(states[:, 0]), self.of_patches(states[:, 1:])


def recognising(taught: Taught, scenes: Sequence[Scene], patch: int) -> Objective:
    """Make the objective: cross-entropies of pictures (two shapes by halves) and of patches."""
    pixels = pixels_of(scenes)
    shares = torch.zeros(len(scenes), len(SHAPES))
    for row, scene in enumerate(scenes):
        for thing in scene.things:
            shares[row, SHAPES.index(thing.shape)] = 1 / len(scene.things)
    patches = shapes_of_patches(scenes, patch)

    def loss_of(chosen: Tensor) -> Tensor:
        of_picture, of_patches = taught(normalised(pixels[chosen]))
        of_label = cross_entropy(of_picture, shares[chosen])
        return of_label + patch_loss(of_patches, patches[chosen])

    return Objective(torch.full((len(scenes),), patches.shape[1]), loss_of)


def shapes_of_patches(scenes: Sequence[Scene], patch: int) -> Tensor:
    """For each patch 0, or 1 and the number of the shape that is seen in it, [scenes, patches]."""
    return torch.from_numpy(np.stack([_shape_of_patches(scene, patch) for scene in scenes]))


def patch_loss(logits: Tensor, shapes: Tensor) -> Tensor:
    """Cross-entropy of what patches show, [B, patches, 1 + shapes] and [B, patches]."""
    return cross_entropy(logits.flatten(0, 1), shapes.flatten())


def _shape_of_patches(scene: Scene, patch: int) -> np.ndarray:
    """For each patch 0, or 1 and the number of the shape that is seen in it, [patches]."""
    count = SIDE // patch
    shapes = np.zeros(count * count, np.int64)
    for thing in scene.things:
        covered = mask_of(thing).reshape(count, patch, count, patch).mean((1, 3)).reshape(-1)
        shapes[covered >= _COVERED] = 1 + SHAPES.index(thing.shape)
    return shapes


# How often it is right ------------------------------------------------------------------------


def shape_logits(model: ViTForImageClassification, scenes: Sequence[Scene]) -> Tensor:
    """Logits, [scenes, shapes]."""
    model.train(False)
    with torch.inference_mode():
        batches = normalised(pixels_of(scenes)).split(_BATCH)
        return torch.cat([model(batch).logits for batch in batches])


def shape_hits(logits: Tensor, scenes: Sequence[Scene]) -> list[bool]:
    """Say for each picture whether the most probable shape is there."""
    highest = logits.argmax(1).tolist()
    return [
        found in (scene.label, scene.other_label)
        for found, scene in zip(highest, scenes, strict=True)
    ]


def shape_accuracies(logits: Tensor, scenes: Sequence[Scene]) -> Accuracies:
    """Accuracy by structure, and by the shape of those with one thing.

    ``two, both`` counts those whose two shapes are the two most probable ones.
    """
    hits = shape_hits(logits, scenes)
    by_structure = accuracy_by((scene.structure for scene in scenes), hits)
    two = [at for at, scene in enumerate(scenes) if scene.other_label is not None]
    first_two = (set(logits[at].topk(2).indices.tolist()) for at in two)
    both = [
        found == {scenes[at].label, scenes[at].other_label}
        for at, found in zip(two, first_two, strict=True)
    ]
    by_structure |= {"two, both": (sum(both) / len(both), len(both))}
    one = [(scene, hit) for scene, hit in zip(scenes, hits, strict=True) if len(scene.things) == 1]
    by_shape = accuracy_by((SHAPES[scene.label] for scene, _ in one), (hit for _, hit in one))
    del by_shape["overall"]
    return by_structure | by_shape
