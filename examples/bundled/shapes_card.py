"""Cards of the models of the corpus of shapes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from examples.bundled.card import Accuracies
from examples.bundled.shapes_fitting import PictureRecipe

_TEMPLATE = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: image-classification
---

# shapes-vit

A small ViT that tells the six shapes of the synthetic pictures of `examples/bundled/shapes.py`. It was
made to be explained: where the shape is, is known of each pixel, and a third of the pictures have
two things of different shapes, so that what explains one class must not be found on the other.

## How it was trained

`python -m examples.bundled.train shapes --seed {seed}` makes this folder again: the same weights on the
same machine and software, nearly the same elsewhere.

| | |
|---|---|
| training pictures | {train_pictures:,} of {pictures:,} generated |
| model | ViT: {layers} layers, {heads} heads, width {hidden}, feed-forward {feed_forward} |
| parameters | {parameters:,} (float32) |
| pictures | {side} x {side} pixels, {patches} patches of {patch} x {patch} |
| training | {epochs} epochs, {steps:,} steps of {batch} pictures, AdamW |
| peak learning rate | {learning_rate:g} |
| seed | {seed} |
| threads | {threads} |
| CPU time | {seconds:.0f} s |

Pictures of two things were trained on as half of each. A second head, which was thrown away, was
trained to tell for each patch which shape is in it, or none: from the label alone a ViT of this
size doesn't learn in minutes where to look.

## Accuracy

Share of pictures whose most probable class is the shape of what is there: of the thing, or of one
of two (`two`); `two, both`: both of them are the two most probable classes. Rows of shapes are of
pictures of one thing. No picture of the test split occurs in the training split.

| structure | test accuracy | test size | sample accuracy | sample size | count of colours, test |
|---|---|---|---|---|---|
{rows}

The sample is the part of the test split that is bundled as `examples/data/shapes.parquet`. The
count of colours is a logistic regression on how many pixels are of each colour.

The settings of the training were chosen by accuracy on pictures of other seeds. The validation
split was used for nothing: on its {validation_size:,} pictures, the accuracy is {validation:.4f}.

## Limits

It knows the shapes, colours and grounds of its corpus and nothing else; on photographs its answers
mean nothing.

## Licence

Apache-2.0, model and corpus. The pictures were drawn by a program.
"""


@dataclass(frozen=True)
class ShapesCard:
    """What the card of the classifier of shapes says.

    Attributes:
        recipe: Sizes of the model and of its training.
        seed: Of everything random.
        side: Of a picture, in pixels.
        train_pictures: Number of training pictures.
        parameters: Number of weights.
        steps: Optimiser steps.
        seconds: CPU seconds of the training.
        threads: Threads it ran on.
        test: Accuracy and count on the test split, ``overall`` first.
        validation: The same on the validation split.
        sample: The same on the bundled sample.
        baseline: The same for the count of colours on the test split.
    """

    recipe: PictureRecipe
    seed: int
    side: int
    train_pictures: int
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
        validation, size = self.validation["overall"]
        values = vars(self) | vars(self.recipe) | {"validation": validation}
        rows = "\n".join(map(self._row, self.test))
        patches = (self.side // self.recipe.patch) ** 2
        return _TEMPLATE.format(**values, rows=rows, patches=patches, validation_size=size)

    def _row(self, structure: str) -> str:
        (test, tests), (sample, samples) = self.test[structure], self.sample[structure]
        cells = (structure, f"{test:.4f}", tests, f"{sample:.4f}", samples)
        return "| " + " | ".join(map(str, (*cells, f"{self.baseline[structure][0]:.4f}"))) + " |"

    def write(self, folder: Path) -> None:
        """Write it as ``README.md`` of the model's folder."""
        (folder / "README.md").write_text(self.text(), encoding="utf-8")
