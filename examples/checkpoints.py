"""Fitting a model while keeping it as it is after some steps, and writing folders of models."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from examples.fitting import Objective, Recipe, fit


@dataclass(frozen=True)
class Checkpoints:
    """Partly trained models to be kept.

    Attributes:
        folder: Gets a folder for each of them, such as ``step0500``.
        steps: After how many steps; none is kept beyond the last one.
    """

    folder: Path = Path()
    steps: frozenset[int] = frozenset()

    def keep(self, step: int, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Save the model if it is to be kept after this step."""
        if step in self.steps:
            save(self.folder / f"step{step:04d}", model, tokenizer)


NO_CHECKPOINTS = Checkpoints()


def timed_fit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    objective: Objective,
    recipe: Recipe,
    seed: int,
    checkpoints: Checkpoints,
) -> tuple[int, float]:
    """Train, and give the number of steps and the seconds of CPU time."""
    start = time.process_time()
    keep = partial(checkpoints.keep, model=model, tokenizer=tokenizer)
    steps = fit(model, objective, recipe, seed, after_step=keep)
    return steps, time.process_time() - start


def save(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write the folder of a model."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
