"""How often the bundled models are right, overall and per group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor
from transformers import (
    BatchEncoding,
    BertForMaskedLM,
    BertForSequenceClassification,
    PreTrainedTokenizerBase,
)

from examples.bundled.sentiment import SentimentExample

_BATCH = 100


class Written(Protocol):
    """An example of any corpus."""

    @property
    def text(self) -> str:
        """Words, separated by single spaces."""


class Cloze(Written, Protocol):
    """A sentence with one ``[MASK]``, and two words for it."""

    @property
    def good(self) -> str:
        """The word that agrees with the subject."""

    @property
    def bad(self) -> str:
        """The word that does not."""


_Example = TypeVar("_Example", bound=Written)


def sentiment_hits(
    model: BertForSequenceClassification,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[SentimentExample],
) -> list[bool]:
    """Say for each review whether the most probable label is its label."""
    model.train(False)
    hits: list[bool] = []
    for batch, inputs in _batches(tokenizer, examples):
        with torch.inference_mode():
            predicted = model(**inputs).logits.argmax(dim=-1)
        hits += [int(p) == example.label for p, example in zip(predicted, batch, strict=True)]
    return hits


def agreement_hits(
    model: BertForMaskedLM,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Cloze],
) -> list[bool]:
    """Say for each sentence whether the good form is more probable than the bad one."""
    model.train(False)
    hits: list[bool] = []
    for batch, inputs in _batches(tokenizer, examples):
        with torch.inference_mode():
            logits: Tensor = model(**inputs).logits
        at_mask = logits[inputs["input_ids"] == tokenizer.mask_token_id]
        good = torch.tensor([token_id(tokenizer, example.good) for example in batch])
        bad = torch.tensor([token_id(tokenizer, example.bad) for example in batch])
        better = at_mask.gather(1, good[:, None]) > at_mask.gather(1, bad[:, None])
        hits += better[:, 0].tolist()
    return hits


def token_id(tokenizer: PreTrainedTokenizerBase, word: str) -> int:
    """Give the number of a word that is one token.

    Raises:
        ValueError: The tokenizer splits the word, or does not know it.
    """
    ids: list[int] = tokenizer.encode(word, add_special_tokens=False)
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        raise ValueError(f"{word!r} is not one token: {tokenizer.convert_ids_to_tokens(ids)}")
    return ids[0]


def accuracy_by(groups: Iterable[str], hits: Iterable[bool]) -> dict[str, tuple[float, int]]:
    """Give accuracy (0 to 1) and count: first ``overall``, then each group by its name."""
    members: dict[str, list[bool]] = defaultdict(list)
    for group, hit in zip(groups, hits, strict=True):
        members[group].append(hit)
    everything = {"overall": [hit for group in members.values() for hit in group]}
    ordered = everything | dict(sorted(members.items()))
    return {group: (sum(own) / len(own), len(own)) for group, own in ordered.items()}


def _batches(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[_Example]
) -> Iterator[tuple[Sequence[_Example], BatchEncoding]]:
    for start in range(0, len(examples), _BATCH):
        batch = examples[start : start + _BATCH]
        texts = [example.text for example in batch]
        yield batch, tokenizer(texts, padding=True, return_tensors="pt")
