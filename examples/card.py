"""Model cards of the bundled models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from examples.fitting import Recipe

Accuracies = dict[str, tuple[float, int]]

_TEMPLATE = """\
---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: {task}
---

# {title}

{summary}

## How it was trained

`python -m examples.train {corpus} --seed {seed}` makes this folder again: the same weights on the
same machine and software, nearly the same elsewhere.

| | |
|---|---|
| training texts | {train_texts:,} of {texts:,} generated |
| model | BERT: {layers} layers, {heads} heads, width {hidden}, feed-forward {feed_forward} |
| parameters | {parameters:,} (float32) |
| vocabulary | {vocabulary:,} word pieces, lower case |
| longest input | {max_length} tokens |
| training | {epochs} epochs, {steps:,} steps of {batch} texts, AdamW |
| peak learning rate | {learning_rate:g} |
| seed | {seed} |
| threads | {threads} |
| CPU time | {seconds:.0f} s |

## Accuracy

{measure}

| structure | test accuracy | test size | sample accuracy | sample size | {baseline} |
|---|---|---|---|---|---|
{rows}

The sample is the part of the test split that is bundled as `examples/data/{corpus}.parquet`.
{baseline_note}

The settings of the training were chosen by training loss and, roughly, by test accuracy. The
validation split was used for nothing: on its {validation_size:,} texts, the accuracy is
{validation_accuracy:.4f}.

## Limits

{limits}

## Licence

Apache-2.0, model and corpus. The corpus was written by a program from its own templates and word
lists; no text of anybody else is in it.
"""


@dataclass(frozen=True)
class Wording:
    """The sentences of a card that no measurement changes.

    Attributes:
        corpus: "sentiment" or "agreement".
        task: The hub's name of the task.
        title: Heading.
        summary: What the model is.
        measure: What is counted as right.
        baseline: Name of the baseline, the head of its column.
        baseline_note: What the baseline is.
        limits: What not to expect.
    """

    corpus: str
    task: str
    title: str
    summary: str
    measure: str
    baseline: str
    baseline_note: str
    limits: str


@dataclass(frozen=True)
class Card:
    """Everything that a model card says.

    Attributes:
        wording: Its fixed sentences.
        recipe: Sizes of the model and of its training.
        seed: Of everything random.
        train_texts: Number of training texts.
        parameters: Number of weights.
        steps: Optimiser steps.
        seconds: CPU seconds of the training.
        threads: Threads it ran on.
        test: Accuracy and count of each structure on the test split, ``overall`` first.
        validation: The same on the validation split.
        sample: The same on the bundled sample.
        baseline: The same for the baseline on the test split.
    """

    wording: Wording
    recipe: Recipe
    seed: int
    train_texts: int
    parameters: int
    steps: int
    seconds: float
    threads: int
    test: Accuracies
    validation: Accuracies
    sample: Accuracies
    baseline: Accuracies

    def text(self) -> str:
        """Give the card in Markdown."""
        rows = "\n".join(self._row(structure) for structure in self.test)
        values = vars(self) | vars(self.recipe) | vars(self.wording)
        accuracy, size = self.validation["overall"]
        return _TEMPLATE.format(
            **values, rows=rows, validation_accuracy=accuracy, validation_size=size
        )

    def _row(self, structure: str) -> str:
        (test, tests), (sample, samples) = self.test[structure], self.sample[structure]
        baseline = self.baseline[structure][0]
        cells = (structure, f"{test:.4f}", tests, f"{sample:.4f}", samples, f"{baseline:.4f}")
        return "| " + " | ".join(map(str, cells)) + " |"


def write_card(card: Card, folder: Path) -> None:
    """Write the card as ``README.md`` of a model's folder."""
    (folder / "README.md").write_text(card.text(), encoding="utf-8")


def read_accuracies(folder: Path) -> dict[str, tuple[float, float]]:
    """Read back the test and sample accuracy of each structure that a card states."""
    lines = (folder / "README.md").read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| structure |")) + 2
    stated: dict[str, tuple[float, float]] = {}
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        cells: Sequence[str] = [cell.strip() for cell in line.strip("|").split("|")]
        stated[cells[0]] = (float(cells[1]), float(cells[3]))
    return stated
