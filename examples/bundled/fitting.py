"""The training loop and the two objectives."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from statistics import fmean
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    PreTrainedTokenizerBase,
)

from examples.bundled.scoring import Cloze, token_id
from examples.bundled.sentiment import LABELS, SentimentExample

_LOG = logging.getLogger(__name__)
_IGNORED = -100
_BATCHES_OF_A_POOL = 50


class Schedule(Protocol):
    """What of a recipe the training loop needs: its attributes of these names."""

    @property
    def epochs(self) -> int:
        """Passes over the training split."""

    @property
    def batch(self) -> int:
        """Examples of a step."""

    @property
    def learning_rate(self) -> float:
        """Peak of the learning rate."""

    @property
    def memory(self) -> float:
        """Decay of Adam's average of squared gradients."""


@dataclass(frozen=True)
class Recipe:
    """Sizes of a model and of its training.

    Attributes:
        texts: Size of the generated corpus, of which four fifths are for training.
        reflexives: Sentences that are generated besides, of each subtask with reflexives (see
            ``influence_corpus``); four fifths of them are for training as well.
        vocabulary: Word pieces of the tokenizer.
        layers: Transformer layers.
        heads: Attention heads of a layer.
        hidden: Width of the model.
        feed_forward: Width inside the feed-forward blocks.
        max_length: Tokens that a text may have, special tokens included.
        epochs: Passes over the training split.
        batch: Texts of a step.
        learning_rate: Peak of a linear warm-up (a tenth of the steps) and a linear decay.
        memory: Decay of Adam's average of squared gradients.
        initial_range: Standard deviation of the initial weights.
        attention_gain: Factor on the initial queries and keys.
        position_gain: Factor on the initial position embeddings.
    """

    texts: int
    vocabulary: int
    epochs: int
    layers: int = 3
    heads: int = 4
    hidden: int = 96
    feed_forward: int = 256
    max_length: int = 64
    batch: int = 32
    learning_rate: float = 1e-3
    memory: float = 0.999
    initial_range: float = 0.02
    attention_gain: float = 1.0
    position_gain: float = 1.0
    reflexives: int = 0

    def config(self, tokenizer: PreTrainedTokenizerBase, *, labels: bool) -> BertConfig:
        """Give the model's configuration; with ``labels``, those of the sentiment corpus."""
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=self.feed_forward,
            max_position_embeddings=self.max_length,
            pad_token_id=tokenizer.pad_token_id,
            initializer_range=self.initial_range,
            # Texts are plenty and seen a few times only: there is nothing to regularise.
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        if labels:
            config.id2label = dict(enumerate(LABELS))
            config.label2id = {label: number for number, label in enumerate(LABELS)}
        return config

    def adjust(self, model: nn.Module) -> None:
        """Apply the gains to the weights of a new model."""
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name.endswith("position_embeddings.weight"):
                    weight.mul_(self.position_gain)
                elif name.endswith(("query.weight", "key.weight")):
                    weight.mul_(self.attention_gain)


@dataclass(frozen=True)
class Objective:
    """What a model is trained on.

    Attributes:
        lengths: Tokens of each training example.
        loss_of: Gives the mean loss of the examples with these positions.
    """

    lengths: Tensor
    loss_of: Callable[[Tensor], Tensor]


def fit(
    model: nn.Module,
    objective: Objective,
    recipe: Schedule,
    seed: int,
    after_step: Callable[[int], None] = lambda _: None,
) -> int:
    """Train a model in place.

    Args:
        model: Its parameters are changed; it is left in evaluation mode.
        objective: Examples and loss.
        recipe: Epochs, batch and learning rate.
        seed: Of the order of the examples.
        after_step: Called with the number of every step when it is done, the first being 1.

    Returns:
        The number of steps.
    """
    generator = torch.Generator().manual_seed(seed)
    steps = recipe.epochs * -(-len(objective.lengths) // recipe.batch)
    optimiser = torch.optim.AdamW(
        model.parameters(),
        lr=recipe.learning_rate,
        betas=(0.9, recipe.memory),
        weight_decay=0.01,
    )
    warm_up = max(1, steps // 10)

    def factor(step: int) -> float:
        return min((step + 1) / warm_up, (steps - step) / (steps - warm_up))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
    done = count(1)
    model.train()
    for epoch in range(1, recipe.epochs + 1):
        losses: list[float] = []
        for chosen in _batches(objective.lengths, recipe.batch, generator):
            optimiser.zero_grad()
            loss = objective.loss_of(chosen)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
            after_step(next(done))
        _LOG.info("epoch %d of %d: mean loss %.4f", epoch, recipe.epochs, fmean(losses))
    model.eval()
    return steps


def _batches(lengths: Tensor, size: int, generator: torch.Generator) -> list[Tensor]:
    """Shuffle, and cut into batches of similar lengths, which need less padding."""
    order = torch.randperm(len(lengths), generator=generator)
    pools = torch.split(order, size * _BATCHES_OF_A_POOL)
    sorted_pools = [pool[lengths[pool].argsort(stable=True)] for pool in pools]
    batches = torch.split(torch.cat(sorted_pools), size)
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def classification(
    model: BertForSequenceClassification,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[SentimentExample],
) -> Objective:
    """Make the objective of the classifier: cross-entropy of the labels."""
    rows = _token_rows(tokenizer, [example.text for example in examples])
    labels = torch.tensor([example.label for example in examples])

    def loss_of(chosen: Tensor) -> Tensor:
        ids, attention = _padded(rows, chosen, tokenizer)
        loss: Tensor = model(ids, attention_mask=attention, labels=labels[chosen]).loss
        return loss

    return Objective(torch.tensor([len(row) for row in rows]), loss_of)


def masking(
    model: BertForMaskedLM,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Cloze],
    verb_probability: float = 0.5,
    token_probability: float = 0.15,
) -> Objective:
    """Make the objective of the masked language model: cross-entropy of hidden tokens.

    Every ordinary token is chosen with ``token_probability`` and then hidden as in BERT (80 %
    mask, 10 % another token, 10 % left as it is); besides, the verb is masked in a sentence with
    ``verb_probability``.
    """
    rows = _token_rows(tokenizer, [example.text for example in examples])
    verbs = torch.tensor([int((row == tokenizer.mask_token_id).nonzero()[0, 0]) for row in rows])
    for row, verb, example in zip(rows, verbs, examples, strict=True):
        row[verb] = token_id(tokenizer, example.good)
    special = torch.tensor(tokenizer.all_special_ids)

    def loss_of(chosen: Tensor) -> Tensor:
        ids, attention = _padded(rows, chosen, tokenizer)
        hidden = (torch.rand(ids.shape) < token_probability) & ~torch.isin(ids, special)
        way = torch.rand(ids.shape)
        masked, random = hidden & (way < 0.8), hidden & (way >= 0.9)
        picked = (torch.rand(len(chosen)) < verb_probability).nonzero()[:, 0]
        hidden[picked, verbs[chosen][picked]] = True
        masked[picked, verbs[chosen][picked]] = True
        labels = ids.where(hidden, torch.tensor(_IGNORED))
        others = torch.randint(len(special), len(tokenizer), ids.shape)
        inputs = ids.where(~random, others).where(~masked, torch.tensor(tokenizer.mask_token_id))
        loss: Tensor = model(inputs, attention_mask=attention, labels=labels).loss
        return loss

    return Objective(torch.tensor([len(row) for row in rows]), loss_of)


def _token_rows(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[Tensor]:
    rows = [torch.tensor(ids) for ids in tokenizer(list(texts))["input_ids"]]
    longest = max(map(len, rows))
    if longest > tokenizer.model_max_length:
        raise ValueError(f"a text has {longest} tokens, over {tokenizer.model_max_length}")
    return rows


def _padded(
    rows: Sequence[Tensor], chosen: Tensor, tokenizer: PreTrainedTokenizerBase
) -> tuple[Tensor, Tensor]:
    """Give token ids and attention mask, both [chosen, longest]."""
    picked = [rows[position] for position in chosen.tolist()]
    ids = pad_sequence(picked, batch_first=True, padding_value=int(tokenizer.pad_token_id or 0))
    lengths = torch.tensor([len(row) for row in picked])
    return ids, (torch.arange(ids.shape[1]) < lengths[:, None]).long()
