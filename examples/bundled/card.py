"""Model cards of the bundled models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from examples.bundled.fitting import Recipe

Accuracies = dict[str, tuple[float, int]]

# In the order of the columns; a subtask has those of the number or those of the gender.
_FORMS = ("SS", "SP", "PS", "PP", "MM", "MF", "FM", "FF")

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

`python -m examples.bundled.train {corpus} --seed {seed}` makes this folder again: the same weights on the
same machine and software, nearly the same elsewhere.

| | |
|---|---|
| training texts | {trained_on} |
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
{influence}
## Limits

{limits}

## Licence

Apache-2.0, model and corpus. The corpus was written by a program from its own templates and word
lists; no text of anybody else is in it.
"""

_INFLUENCE = """
## Accuracy on the subtasks of influence patterns

The same share in sentences of `examples/bundled/influence_corpus.py`, all of the test split, overall and
by form: the number (singular, plural) or the gender (masculine, feminine) of the subject, then that
of the attractor. The training texts with reflexives are of this corpus as well; those with verbs
are of `examples/bundled/agreement.py`, which has the same structures and more words.

| subtask | test accuracy | SS, MM | SP, MF | PS, FM | PP, FF | test size | sample accuracy |
|---|---|---|---|---|---|---|---|
{rows}

The sample is bundled as `examples/data/influence.parquet`, 40 sentences of each subtask.
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
        train_texts: Number of training texts, without those with reflexives.
        parameters: Number of weights.
        steps: Optimiser steps.
        seconds: CPU seconds of the training.
        threads: Threads it ran on.
        test: Accuracy and count of each structure on the test split, ``overall`` first.
        validation: The same on the validation split.
        sample: The same on the bundled sample.
        baseline: The same for the baseline on the test split.
        reflexives: Number of training texts with reflexives.
        subtasks: For each subtask of influence patterns, accuracy and count on its test split,
            ``overall`` and by form.
        subtasks_sample: The same on the bundled sample.
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
    reflexives: int = 0
    subtasks: Mapping[str, Accuracies] = field(default_factory=dict)
    subtasks_sample: Mapping[str, Accuracies] = field(default_factory=dict)

    def text(self) -> str:
        """Give the card in Markdown."""
        rows = "\n".join(self._row(structure) for structure in self.test)
        values = vars(self) | vars(self.recipe) | vars(self.wording)
        accuracy, size = self.validation["overall"]
        trained_on = f"{self.train_texts:,} of {self.recipe.texts:,} generated"
        if self.reflexives:
            trained_on += f", and {self.reflexives:,} with reflexives"
        return _TEMPLATE.format(
            **values,
            rows=rows,
            validation_accuracy=accuracy,
            validation_size=size,
            trained_on=trained_on,
            influence=self._influence(),
        )

    def _influence(self) -> str:
        rows = "\n".join(self._subtask_row(subtask) for subtask in self.subtasks)
        return _INFLUENCE.format(rows=rows) if rows else ""

    def _subtask_row(self, subtask: str) -> str:
        (overall, size), *forms = self._by_form(subtask)
        sample = self.subtasks_sample[subtask]["overall"][0]
        shares = [f"{share:.4f}" for share in (overall, *(share for share, _ in forms))]
        return "| " + " | ".join([subtask, *shares, f"{size}", f"{sample:.4f}"]) + " |"

    def _by_form(self, subtask: str) -> list[tuple[float, int]]:
        """Give the accuracy and the size, overall first, then by form in the order of the head."""
        by_form = self.subtasks[subtask]
        order = ("overall", *(form for form in _FORMS if form in by_form))
        return [by_form[form] for form in order]

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
    rows = _rows(folder, "structure")
    return {name: (float(test), float(sample)) for name, test, _, sample, *_ in rows}


def read_subtasks(folder: Path) -> dict[str, tuple[float, float]]:
    """Read back the test and sample accuracy of each subtask of influence patterns."""
    rows = _rows(folder, "subtask")
    return {name: (float(test), float(sample)) for name, test, *_, sample in rows}


def _rows(folder: Path, head: str) -> Iterator[list[str]]:
    """Give the cells of each row of the table whose first column has this name."""
    lines = (folder / "README.md").read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {head} |")) + 2
    rows = takewhile(lambda line: line.startswith("|"), lines[start:])
    return ([cell.strip() for cell in row.strip("|").split("|")] for row in rows)
