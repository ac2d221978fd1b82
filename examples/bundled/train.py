"""Train the bundled models: ``python -m examples.bundled.train all``, or a name of ``TRAINERS``.

Each model takes minutes on one core. Its folder holds the weights (safetensors, float32), the
configuration, the tokenizer or processor, and a model card with what was measured.

``--checkpoints FOLDER --at STEP ...`` also keeps the model as it is after these steps, without a
card. The tasks are learnt all of a sudden, so most steps' models are right nearly always or as
often as by chance.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import (
    BertForMaskedLM,
    BertForSequenceClassification,
    PreTrainedTokenizerBase,
)

from examples.bundled import data, wording
from examples.bundled.agreement import MASK, AgreementExample
from examples.bundled.baselines import bag_of_words_hits, nearest_noun_hits
from examples.bundled.card import Accuracies, Card, write_card
from examples.bundled.checkpoints import NO_CHECKPOINTS, Checkpoints, save, timed_fit
from examples.bundled.clip_card import ClipCard
from examples.bundled.fitting import Recipe, classification, masking
from examples.bundled.influence_corpus import SUBTASKS, InfluenceExample, vocabulary
from examples.bundled.notes_card import NotesCard
from examples.bundled.scoring import Cloze, accuracy_by, agreement_hits, sentiment_hits, token_id
from examples.bundled.sentiment import SentimentExample
from examples.bundled.shapes_card import ShapesCard
from examples.bundled.tokenizer import train_tokenizer
from examples.bundled.train_notes import train_notes
from examples.bundled.train_shapes import train_clip, train_shapes

DEFAULT_FOLDER = Path(__file__).parent.parent / "models"

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
# Reflexives are so few that their genders are learnt late and in part: patterns can be compared
# between forms that the model masters and forms that it does not. Their numbers are learnt soon
# after those of the verbs.
AGREEMENT_RECIPE = Recipe(
    texts=40_000, vocabulary=700, epochs=8, initial_range=0.08, reflexives=500
)

# One, because the number of threads decides the order of sums, hence the last bits of the weights,
# and because threads that wait for each other on a busy machine are many times slower than one.
THREADS = 1


def train_sentiment(
    folder: Path,
    seed: int,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
    recipe: Recipe = SENTIMENT_RECIPE,
) -> Card:
    """Train the classifier, write its folder, and give its card."""
    splits = data.sentiment_splits(recipe.texts, seed)
    train, test, validation = splits["train"], splits["test"], splits["validation"]
    sample = data.sentiment_sample(seed=seed)
    tokenizer = train_tokenizer((e.text for e in train), recipe.vocabulary, recipe.max_length)
    torch.manual_seed(seed)
    model = BertForSequenceClassification(recipe.config(tokenizer, labels=True))
    recipe.adjust(model)
    objective = classification(model, tokenizer, train)
    steps, seconds = timed_fit(model, tokenizer, objective, recipe, seed, checkpoints)
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
    save(folder, model, tokenizer)
    write_card(card, folder)
    return card


def train_agreement(
    folder: Path,
    seed: int,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
    recipe: Recipe = AGREEMENT_RECIPE,
) -> Card:
    """Train the masked language model, write its folder, and give its card."""
    splits = data.agreement_splits(recipe.texts, seed)
    test, validation = splits["test"], splits["validation"]
    sample = data.agreement_sample(seed=seed)
    reflexives = data.reflexives(recipe.reflexives, seed)
    train: list[Cloze] = [*splits["train"], *reflexives]
    tokenizer = _agreement_tokenizer(train, recipe)
    torch.manual_seed(seed)
    model = BertForMaskedLM(recipe.config(tokenizer, labels=False))
    recipe.adjust(model)
    objective = masking(model, tokenizer, train)
    steps, seconds = timed_fit(model, tokenizer, objective, recipe, seed, checkpoints)
    card = Card(
        wording=wording.AGREEMENT,
        recipe=recipe,
        seed=seed,
        train_texts=len(splits["train"]),
        parameters=model.num_parameters(),
        steps=steps,
        seconds=seconds,
        threads=THREADS,
        test=_by_attractor(test, agreement_hits(model, tokenizer, test)),
        validation=_by_attractor(validation, agreement_hits(model, tokenizer, validation)),
        sample=_by_attractor(sample, agreement_hits(model, tokenizer, sample)),
        baseline=_by_attractor(test, nearest_noun_hits(test)),
        reflexives=len(reflexives),
        subtasks=_by_form(model, tokenizer, data.influence_test(seed)),
        subtasks_sample=_by_form(model, tokenizer, data.influence_sample(seed=seed)),
    )
    save(folder, model, tokenizer)
    write_card(card, folder)
    return card


def _agreement_tokenizer(train: Sequence[Cloze], recipe: Recipe) -> PreTrainedTokenizerBase:
    """Train a tokenizer that splits no word to be predicted and none of the subtasks."""
    whole = {form for example in train for form in (example.good, example.bad)}
    whole |= frozenset().union(*map(vocabulary, SUBTASKS))
    texts = (example.text.replace(MASK, example.good) for example in train)
    tokenizer = train_tokenizer(texts, recipe.vocabulary, recipe.max_length, whole=sorted(whole))
    for word in whole:
        token_id(tokenizer, word)
    return tokenizer


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


def _by_form(
    model: BertForMaskedLM, tokenizer: PreTrainedTokenizerBase, examples: Sequence[InfluenceExample]
) -> dict[str, Accuracies]:
    """Give for each subtask the accuracies by form."""
    accuracies: dict[str, Accuracies] = {}
    for subtask in SUBTASKS:
        own = [example for example in examples if example.subtask == subtask]
        hits = agreement_hits(model, tokenizer, own)
        accuracies[subtask] = accuracy_by((example.form for example in own), hits)
    return accuracies


TRAINERS: dict[
    str, tuple[str, Callable[[Path, int, Checkpoints], Card | NotesCard | ShapesCard | ClipCard]]
] = {
    "sentiment": ("sentiment-bert", train_sentiment),
    "agreement": ("agreement-bert", train_agreement),
    "notes": ("notes-llama", train_notes),
    "shapes": ("shapes-vit", train_shapes),
    # Begins with the one before.
    "clip": ("shapes-clip", train_clip),
}


def main() -> None:
    """Train from the command line, and say how good the models are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=[*TRAINERS, "all"], help="which model to train")
    parser.add_argument("--output", type=Path, default=DEFAULT_FOLDER, help="folder of the models")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoints", type=Path, metavar="FOLDER", help="with --at: where to")
    parser.add_argument("--at", type=int, nargs="+", default=(), metavar="STEP")
    options = parser.parse_args()
    if bool(options.checkpoints) != bool(options.at):
        parser.error("--checkpoints and --at go together")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    for what in TRAINERS if options.what == "all" else (options.what,):
        name, train = TRAINERS[what]
        kept = Checkpoints((options.checkpoints or Path()) / name, frozenset(options.at))
        card = train(options.output / name, options.seed, kept)
        print(f"{name}: accuracy {card.test['overall'][0]:.4f} in {card.seconds:.0f} s of CPU time")


if __name__ == "__main__":
    main()
