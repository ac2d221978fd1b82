"""What can be had without structure: a bag of words, the nearest noun, a count of colours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from examples.bundled.agreement import AgreementExample
from examples.bundled.sentiment import SentimentExample
from examples.bundled.shapes import COLOURS, SHAPES, Scene
from examples.bundled.shapes_fitting import pixels_of

_PENALTY = 1e-5


def bag_of_words_hits(
    train: Sequence[SentimentExample], test: Sequence[SentimentExample]
) -> list[bool]:
    """Fit a logistic regression on which words occur, and say which test reviews it gets right.

    Words are lower-case and without their punctuation; the fit is full-batch L-BFGS with a small
    L2 penalty, hence the same at every call.
    """
    counts = Counter(word for example in train for word in _words(example))
    columns = {word: column for column, word in enumerate(sorted(counts))}
    inputs, labels = _indicators(train, columns), torch.tensor([float(e.label) for e in train])
    weights = torch.zeros(len(columns) + 1, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = binary_cross_entropy_with_logits(inputs @ weights[:-1] + weights[-1], labels)
        loss = loss + _PENALTY * weights.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    scores = _indicators(test, columns) @ weights.detach()[:-1] + weights.detach()[-1]
    predicted: list[bool] = (scores > 0).tolist()
    return [p == bool(example.label) for p, example in zip(predicted, test, strict=True)]


def _words(example: SentimentExample) -> set[str]:
    return {word.strip(".,;").lower() for word in example.text.split()}


def _indicators(examples: Sequence[SentimentExample], columns: dict[str, int]) -> Tensor:
    matrix = torch.zeros(len(examples), len(columns))
    for row, example in enumerate(examples):
        known = [columns[word] for word in _words(example) if word in columns]
        matrix[row, known] = 1.0
    return matrix


def nearest_noun_hits(examples: Sequence[AgreementExample]) -> list[bool]:
    """Say where the noun nearest before the verb has the number of the subject."""
    hits: list[bool] = []
    for example in examples:
        attractor_is_nearer = (example.attractor_index or -1) > example.subject_index
        hits.append(not attractor_is_nearer or example.attractor_number == example.subject_number)
    return hits


def colour_logits(train: Sequence[Scene], test: Sequence[Scene]) -> Tensor:
    """Fit a logistic regression on how many pixels are of which colour; logits, [test, shapes]."""
    inputs, labels = _colour_counts(train), torch.tensor([scene.label for scene in train])
    weights = torch.zeros(inputs.shape[1], len(SHAPES), requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = cross_entropy(inputs @ weights, labels) + _PENALTY * weights.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return _colour_counts(test) @ weights.detach()


def _colour_counts(scenes: Sequence[Scene]) -> Tensor:
    """Tenths of a picture that are of each colour of things, and 1, [scenes, colours + 1]."""
    pixels = pixels_of(scenes)
    shares = [
        (pixels == torch.tensor(colour, dtype=torch.uint8)[:, None, None]).all(1).float()
        for colour in COLOURS.values()
    ]
    found = torch.stack([share.mean((1, 2)) for share in shares], 1)
    return torch.cat([10 * found, torch.ones(len(scenes), 1)], 1)
