"""Fitting a model while keeping it as it is after some steps, and writing folders of models."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from torch import nn
from transformers import PreTrainedModel

from examples.bundled.fitting import Objective, Schedule, fit


class Encoder(Protocol):
    """A tokenizer, or a processor of pictures."""

    def save_pretrained(self, save_directory: Path) -> Any:
        """Write its files to a folder."""


@dataclass(frozen=True)
class Checkpoints:
    """Partly trained models to be kept.

    Attributes:
        folder: Gets a folder for each of them, such as ``step0500``.
        steps: After how many steps; none is kept beyond the last one.
    """

    folder: Path = Path()
    steps: frozenset[int] = frozenset()

    def keep(self, step: int, model: PreTrainedModel, encoder: Encoder) -> None:
        """Save the model if it is to be kept after this step."""
        if step in self.steps:
            save(self.folder / f"step{step:04d}", model, encoder)


NO_CHECKPOINTS = Checkpoints()


def timed_fit(
    model: PreTrainedModel,
    encoder: Encoder,
    objective: Objective,
    recipe: Schedule,
    seed: int,
    checkpoints: Checkpoints,
    taught: nn.Module | None = None,
) -> tuple[int, float]:
    """Train, and give the number of steps and the seconds of CPU time.

    ``taught`` is the module whose parameters are trained, where that is more than the model.
    """
    start = time.process_time()
    keep = partial(checkpoints.keep, model=model, encoder=encoder)
    steps = fit(taught or model, objective, recipe, seed, after_step=keep)
    return steps, time.process_time() - start


def save(folder: Path, model: PreTrainedModel, encoder: Encoder) -> None:
    """Write the folder of a model."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    encoder.save_pretrained(folder)
