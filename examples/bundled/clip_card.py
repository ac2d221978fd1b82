"""The card of the CLIP of shapes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from examples.bundled.card import Accuracies
from examples.bundled.shapes_clip import ClipRecipe

_TEMPLATE = """\
---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: zero-shot-image-classification
---

# shapes-clip

A small CLIP of the synthetic pictures of `examples/bundled/shapes.py` and their captions ("a red ring and a
blue star on green waves"). Its image encoder began as that of `shapes-vit`.

## How it was trained

`python -m examples.bundled.train clip --seed {seed}` makes this folder again, from the `shapes-vit` beside
it: the same weights on the same machine and software, nearly the same elsewhere.

| | |
|---|---|
| training pictures | {train_pictures:,} of {pictures:,} generated |
| text encoder | {layers} layers, {heads} heads, width {hidden}, feed-forward {feed_forward} |
| parameters | {parameters:,} (float32) |
| words | {words}, each a token; texts of at most {longest} tokens |
| training | {epochs} epochs, {steps:,} steps of {batch} pictures and texts, AdamW |
| peak learning rate | {learning_rate:g} |
| seed | {seed} |
| threads | {threads} |
| CPU time | {seconds:.0f} s |

Half of the texts were whole captions, the others shorter: "a red ring", "a ring", "a photo of a
ring". A text that is true of several pictures of a step was shared among them. A second head, which
was thrown away, was trained to tell for each patch which shape is in it, or none.

## Accuracy

Share of pictures for which "a photo of a SHAPE" of what is there is the most probable of the six
such prompts: of the thing, or of one of two (`two`); `two, both`: both are the two most probable
prompts. Rows of shapes are of pictures of one thing. No picture of the test split occurs in the
training split.

| structure | test accuracy | test size | sample accuracy | sample size |
|---|---|---|---|---|
{rows}

Among 32 captions, a picture's own is the most probable one for {captions:.4f} of {caption_count:,}
test pictures. The sample is the part of the test split that is bundled as
`examples/data/shapes.parquet`.

## Limits

It knows {words} words, and the shapes, colours and grounds of its corpus; on photographs its
answers mean nothing.

## Licence

Apache-2.0, model and corpus. Pictures and captions were made by a program.
"""


@dataclass(frozen=True)
class ClipCard:
    """What the card of the CLIP of shapes says.

    Attributes:
        recipe: Sizes of the model and of its training.
        seed: Of everything random.
        words: Words of its vocabulary.
        longest: Most tokens of a text.
        train_pictures: Number of training pictures.
        parameters: Number of weights.
        steps: Optimiser steps.
        seconds: CPU seconds of the training.
        threads: Threads it ran on.
        test: Accuracy and count on the test split, ``overall`` first.
        sample: The same on the bundled sample.
        captions: Share of test pictures whose caption is told among 32.
        caption_count: Number of these pictures.
    """

    recipe: ClipRecipe
    seed: int
    words: int
    longest: int
    train_pictures: int
    parameters: int
    steps: int
    seconds: float
    threads: int
    test: Accuracies
    sample: Accuracies
    captions: float
    caption_count: int

    def text(self) -> str:
        """Give the card in Markdown."""
        rows = "\n".join(map(self._row, self.test))
        return _TEMPLATE.format(**vars(self.recipe), **vars(self), rows=rows)

    def _row(self, structure: str) -> str:
        (test, tests), (sample, samples) = self.test[structure], self.sample[structure]
        return f"| {structure} | {test:.4f} | {tests} | {sample:.4f} | {samples} |"

    def write(self, folder: Path) -> None:
        """Write it as ``README.md`` of the model's folder."""
        (folder / "README.md").write_text(self.text(), encoding="utf-8")
