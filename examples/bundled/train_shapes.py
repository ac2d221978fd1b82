"""Training the bundled models of shapes (``examples.bundled.train shapes`` and ``clip``)."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import ViTForImageClassification

from examples.bundled import data
from examples.bundled.baselines import colour_logits
from examples.bundled.checkpoints import NO_CHECKPOINTS, Checkpoints, save, timed_fit
from examples.bundled.clip_card import ClipCard
from examples.bundled.shapes import SIDE
from examples.bundled.shapes_card import ShapesCard
from examples.bundled.shapes_clip import (
    PROMPTS,
    Both,
    ClipRecipe,
    Paired,
    caption_accuracy,
    clip_processor,
    pairing,
    text_logits,
    tokenizer,
)
from examples.bundled.shapes_fitting import (
    PictureRecipe,
    Taught,
    processor,
    recognising,
    shape_accuracies,
    shape_logits,
)

RECIPE = PictureRecipe(pictures=30_000, epochs=8)
CLIP_RECIPE = ClipRecipe(pictures=20_000, epochs=4)


def train_shapes(
    folder: Path,
    seed: int,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
    recipe: PictureRecipe = RECIPE,
) -> ShapesCard:
    """Train the classifier, write its folder, and give its card."""
    splits = data.shapes_splits(recipe.pictures, seed)
    train, test, validation = splits["train"], splits["test"], splits["validation"]
    sample = data.shapes_sample(seed=seed)
    torch.manual_seed(seed)
    model = recipe.model()
    taught = Taught(model)
    objective = recognising(taught, train, recipe.patch)
    steps, seconds = timed_fit(model, processor(), objective, recipe, seed, checkpoints, taught)
    card = ShapesCard(
        recipe=recipe,
        seed=seed,
        side=SIDE,
        train_pictures=len(train),
        parameters=model.num_parameters(),
        steps=steps,
        seconds=seconds,
        threads=torch.get_num_threads(),
        test=shape_accuracies(shape_logits(model, test), test),
        validation=shape_accuracies(shape_logits(model, validation), validation),
        sample=shape_accuracies(shape_logits(model, sample), sample),
        baseline=shape_accuracies(colour_logits(train, test), test),
    )
    save(folder, model, processor())
    card.write(folder)
    return card


def train_clip(
    folder: Path,
    seed: int,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
    recipe: ClipRecipe = CLIP_RECIPE,
) -> ClipCard:
    """Train the CLIP from the classifier in ``shapes-vit`` beside its folder, and give its card."""
    encoder = ViTForImageClassification.from_pretrained(folder.parent / "shapes-vit")
    splits = data.shapes_splits(recipe.pictures, seed)
    train, test, sample = splits["train"], splits["test"], data.shapes_sample(seed=seed)
    torch.manual_seed(seed)
    words = tokenizer()
    model = recipe.model(encoder, words)
    paired = Paired(model)
    objective = pairing(paired, words, train)
    both = Both(words, clip_processor())
    steps, seconds = timed_fit(model, both, objective, recipe, seed, checkpoints, paired)
    captions, count = caption_accuracy(model, words, test)
    card = ClipCard(
        recipe=recipe,
        seed=seed,
        words=len(words) - len(words.all_special_ids),
        longest=words.model_max_length,
        train_pictures=len(train),
        parameters=model.num_parameters(),
        steps=steps,
        seconds=seconds,
        threads=torch.get_num_threads(),
        test=shape_accuracies(text_logits(model, words, test, PROMPTS), test),
        sample=shape_accuracies(text_logits(model, words, sample, PROMPTS), sample),
        captions=captions,
        caption_count=count,
    )
    save(folder, model, both)
    card.write(folder)
    return card
