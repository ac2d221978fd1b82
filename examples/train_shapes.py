"""Training the bundled classifier of shapes (``python -m examples.train shapes``)."""

from __future__ import annotations

from pathlib import Path

import torch

from examples import data
from examples.baselines import colour_logits
from examples.checkpoints import NO_CHECKPOINTS, Checkpoints, save, timed_fit
from examples.shapes import SIDE
from examples.shapes_card import ShapesCard
from examples.shapes_fitting import (
    PictureRecipe,
    Taught,
    processor,
    recognising,
    shape_accuracies,
    shape_logits,
)

RECIPE = PictureRecipe(pictures=30_000, epochs=8)


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
