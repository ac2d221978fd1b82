"""Train the bundled models: ``python -m examples.train sentiment|agreement|all``.

Each model takes minutes on one core. Its folder holds the weights (safetensors, float32), the
configuration, the tokenizer and a model card with what was measured.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import (
    BertForMaskedLM,
    BertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from examples import data, wording
from examples.agreement import MASK, AgreementExample
from examples.baselines import bag_of_words_hits, nearest_noun_hits
from examples.card import Accuracies, Card, write_card
from examples.fitting import Objective, Recipe, classification, fit, masking
from examples.scoring import accuracy_by, agreement_hits, sentiment_hits, token_id
from examples.sentiment import SentimentExample
from examples.tokenizer import train_tokenizer

DEFAULT_FOLDER = Path(__file__).parent / "models"

# BERT's initial weights are for wide models: in a narrow one, queries and keys are so short that
# attention is flat, and for thousands of steps the model does no better than a bag of words. Each
# of the two tasks gets over that in minutes with its settings below, and not with the other's.
SENTIMENT_RECIPE = Recipe(
    texts=60_000,
    vocabulary=1100,
    epochs=4,
    learning_rate=6e-4,
    memory=0.95,
    attention_gain=4.0,
    position_gain=0.5,
)
AGREEMENT_RECIPE = Recipe(texts=40_000, vocabulary=600, epochs=5, initial_range=0.08)

# One, because the number of threads decides the order of sums, hence the last bits of the weights,
# and because threads that wait for each other on a busy machine are many times slower than one.
THREADS = 1


def train_sentiment(folder: Path, seed: int, recipe: Recipe = SENTIMENT_RECIPE) -> Card:
    """Train the classifier, write its folder, and give its card."""
    splits = data.sentiment_splits(recipe.texts, seed)
    train, test, validation = splits["train"], splits["test"], splits["validation"]
    sample = data.sentiment_sample(seed=seed)
    tokenizer = train_tokenizer((e.text for e in train), recipe.vocabulary, recipe.max_length)
    torch.manual_seed(seed)
    model = BertForSequenceClassification(recipe.config(tokenizer, labels=True))
    recipe.adjust(model)
    steps, seconds = _timed_fit(model, classification(model, tokenizer, train), recipe, seed)
    card = Card(
        wording=wording.SENTIMENT,
        recipe=recipe,
        seed=seed,
        train_texts=len(train),
        parameters=model.num_parameters(),
        steps=steps,
        seconds=seconds,
        threads=THREADS,
        test=_by_structure(test, sentiment_hits(model, tokenizer, test)),
        validation=_by_structure(validation, sentiment_hits(model, tokenizer, validation)),
        sample=_by_structure(sample, sentiment_hits(model, tokenizer, sample)),
        baseline=_by_structure(test, bag_of_words_hits(train, test)),
    )
    _save(folder, model, tokenizer, card)
    return card


def train_agreement(folder: Path, seed: int, recipe: Recipe = AGREEMENT_RECIPE) -> Card:
    """Train the masked language model, write its folder, and give its card."""
    splits = data.agreement_splits(recipe.texts, seed)
    train, test, validation = splits["train"], splits["test"], splits["validation"]
    sample = data.agreement_sample(seed=seed)
    tokenizer = _agreement_tokenizer(train, recipe)
    torch.manual_seed(seed)
    model = BertForMaskedLM(recipe.config(tokenizer, labels=False))
    recipe.adjust(model)
    steps, seconds = _timed_fit(model, masking(model, tokenizer, train), recipe, seed)
    card = Card(
        wording=wording.AGREEMENT,
        recipe=recipe,
        seed=seed,
        train_texts=len(train),
        parameters=model.num_parameters(),
        steps=steps,
        seconds=seconds,
        threads=THREADS,
        test=_by_attractor(test, agreement_hits(model, tokenizer, test)),
        validation=_by_attractor(validation, agreement_hits(model, tokenizer, validation)),
        sample=_by_attractor(sample, agreement_hits(model, tokenizer, sample)),
        baseline=_by_attractor(test, nearest_noun_hits(test)),
    )
    _save(folder, model, tokenizer, card)
    return card


def _agreement_tokenizer(
    train: Sequence[AgreementExample], recipe: Recipe
) -> PreTrainedTokenizerBase:
    """Train a tokenizer that has every verb to be predicted as one token, and check that."""
    verbs = sorted({form for example in train for form in (example.good, example.bad)})
    texts = (example.text.replace(MASK, example.good) for example in train)
    tokenizer = train_tokenizer(texts, recipe.vocabulary, recipe.max_length, whole=verbs)
    for verb in verbs:
        token_id(tokenizer, verb)
    return tokenizer


def _timed_fit(
    model: PreTrainedModel, objective: Objective, recipe: Recipe, seed: int
) -> tuple[int, float]:
    """Train, and give the number of steps and the seconds of CPU time."""
    start = time.process_time()
    steps = fit(model, objective, recipe, seed)
    return steps, time.process_time() - start


def _by_structure(
    examples: Sequence[SentimentExample | AgreementExample], hits: Sequence[bool]
) -> Accuracies:
    return accuracy_by((example.structure for example in examples), hits)


def _by_attractor(examples: Sequence[AgreementExample], hits: Sequence[bool]) -> Accuracies:
    """Give the accuracies by structure, and those by the number of the attractor."""
    with_one = [(e, hit) for e, hit in zip(examples, hits, strict=True) if e.attractor_number]
    groups = (
        f"attractor: {'same' if e.attractor_number == e.subject_number else 'other'}"
        for e, _ in with_one
    )
    by_number = accuracy_by(groups, (hit for _, hit in with_one))
    del by_number["overall"]
    return _by_structure(examples, hits) | by_number


def _save(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, card: Card
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_card(card, folder)


TRAINERS: dict[str, tuple[str, Callable[[Path, int], Card]]] = {
    "sentiment": ("sentiment-bert", train_sentiment),
    "agreement": ("agreement-bert", train_agreement),
}


def main() -> None:
    """Train from the command line, and say how good the models are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=[*TRAINERS, "all"], help="which model to train")
    parser.add_argument("--output", type=Path, default=DEFAULT_FOLDER, help="folder of the models")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    for what in TRAINERS if options.what == "all" else (options.what,):
        name, train = TRAINERS[what]
        card = train(options.output / name, options.seed)
        print(f"{name}: accuracy {card.test['overall'][0]:.4f} in {card.seconds:.0f} s of CPU time")


if __name__ == "__main__":
    main()
