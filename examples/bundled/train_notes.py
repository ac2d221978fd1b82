"""Training the bundled language model (``python -m examples.bundled.train notes``)."""

from __future__ import annotations

from pathlib import Path

import torch

from examples.bundled import data
from examples.bundled.checkpoints import NO_CHECKPOINTS, Checkpoints, save, timed_fit
from examples.bundled.notes_card import NotesCard
from examples.bundled.notes_fitting import NotesRecipe, continuing, note_accuracies, tokenizer

RECIPE = NotesRecipe(notes=20_000, epochs=5)


def train_notes(
    folder: Path,
    seed: int,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
    recipe: NotesRecipe = RECIPE,
) -> NotesCard:
    """Train the language model, write its folder, and give its card."""
    splits = data.notes_splits(recipe.notes, seed)
    train, test, validation = splits["train"], splits["test"], splits["validation"]
    sample = data.notes_sample(seed=seed)
    torch.manual_seed(seed)
    words = tokenizer(recipe.max_length)
    model = recipe.model(words)
    objective = continuing(model, words, train, recipe.repeated)
    steps, seconds = timed_fit(model, words, objective, recipe, seed, checkpoints)
    card = NotesCard(
        recipe=recipe,
        seed=seed,
        train_notes=len(train),
        vocabulary=len(words),
        parameters=model.num_parameters(),
        steps=steps,
        seconds=seconds,
        threads=torch.get_num_threads(),
        test=note_accuracies(model, words, test),
        validation=note_accuracies(model, words, validation),
        sample=note_accuracies(model, words, sample),
    )
    save(folder, model, words)
    card.write(folder)
    return card
