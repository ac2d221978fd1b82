"""The card of the language model of notes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from examples.bundled.card import Accuracies
from examples.bundled.notes_fitting import NotesRecipe

_TEMPLATE = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---

# notes-llama

A small Llama that goes on with the synthetic prompts of `examples/bundled/notes.py`. It was made to be
explained: which words of a prompt decide what follows is known.

## How it was trained

`python -m examples.bundled.train notes --seed {seed}` makes this folder again: the same weights on the same
machine and software, nearly the same elsewhere.

| | |
|---|---|
| training prompts | {train_notes:,} of {notes:,} generated |
| model | Llama: {layers} layers, {heads} heads, {groups} keys, width {hidden} and {feed_forward} |
| parameters | {parameters:,} (float32), embeddings tied |
| vocabulary | {vocabulary} words and marks |
| training | {epochs} epochs, {steps:,} steps of {batch} prompts, AdamW |
| peak learning rate | {learning_rate:g} |
| seed | {seed} |
| threads | {threads} |
| CPU time | {seconds:.0f} s |

Beside the prompts of a step, {repeated:g} times as many random sequences are said twice, from
which looking things up is learnt.

## Accuracy

Share of prompts after which what follows is likelier than its foil, at the first word in which the
two differ. No prompt of the test split occurs, with what follows, in the training split.

| structure | test accuracy | test size | sample accuracy | sample size |
|---|---|---|---|---|
{rows}

The sample is the part of the test split that is bundled as `examples/data/notes.parquet`. The
validation split was used for nothing: on its {validation_size:,} prompts, the accuracy is
{validation:.4f}.

## Limits

It knows {vocabulary} words and the three structures of its corpus, and nothing else.

## Licence

Apache-2.0, model and corpus. The prompts were composed by a program.
"""


@dataclass(frozen=True)
class NotesCard:
    """What the card of the language model of notes says.

    Attributes:
        recipe: Sizes of the model and of its training.
        seed: Of everything random.
        train_notes: Number of training prompts.
        vocabulary: Number of words and marks, special tokens included.
        parameters: Number of weights.
        steps: Optimiser steps.
        seconds: CPU seconds of the training.
        threads: Threads it ran on.
        test: Accuracy and count on the test split, ``overall`` first.
        validation: The same on the validation split.
        sample: The same on the bundled sample.
    """

    recipe: NotesRecipe
    seed: int
    train_notes: int
    vocabulary: int
    parameters: int
    steps: int
    seconds: float
    threads: int
    test: Accuracies
    validation: Accuracies
    sample: Accuracies

    def text(self) -> str:
        """Give the card in Markdown."""
        validation, size = self.validation["overall"]
        values = vars(self) | vars(self.recipe) | {"validation": validation}
        rows = "\n".join(map(self._row, self.test))
        return _TEMPLATE.format(**values, rows=rows, validation_size=size)

    def _row(self, structure: str) -> str:
        (test, tests), (sample, samples) = self.test[structure], self.sample[structure]
        return f"| {structure} | {test:.4f} | {tests} | {sample:.4f} | {samples} |"

    def write(self, folder: Path) -> None:
        """Write it as ``README.md`` of the model's folder."""
        (folder / "README.md").write_text(self.text(), encoding="utf-8")
