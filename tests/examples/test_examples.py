"""The bundled corpora keep their promises, and the bundled models do what their cards say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForMaskedLM,
    BertForSequenceClassification,
    PreTrainedTokenizerBase,
)

from examples.bundled import agreement, data, influence_corpus, markup, sentiment, train
from examples.bundled.agreement import AgreementExample
from examples.bundled.agreement_words import PEOPLE, THINGS
from examples.bundled.card import read_accuracies, read_subtasks
from examples.bundled.checkpoints import Checkpoints
from examples.bundled.fitting import Recipe
from examples.bundled.scoring import agreement_hits, sentiment_hits, token_id
from examples.bundled.sentiment import SentimentExample
from examples.bundled.sentiment_words import ADJECTIVES, EFFECTS, NOUNS, VERBS, VERDICT_ADVERBS
from examples.bundled.splits import SPLITS

EXAMPLES = Path(data.__file__).parent.parent
MODELS = EXAMPLES / "models"
MODEL_NAMES = ("sentiment-bert", "agreement-bert")

# The head of every negator: one of these among the gold words turns the polarity round.
NEGATORS = {
    "not",
    "never",
    "hardly",
    "scarcely",
    "no",
    "nobody",
    "nothing",
    "failed",
    "wrong",
    "from",  # far from
    "but",  # anything but
}


@pytest.fixture(scope="module")
def reviews() -> list[SentimentExample]:
    return sentiment.generate(2000, seed=3)


@pytest.fixture(scope="module")
def sentences() -> list[AgreementExample]:
    return agreement.generate(2000, seed=3)


@pytest.fixture(scope="module")
def polarity_of() -> dict[str, int]:
    """Polarity of each opinion word, from the word lists alone."""
    lexicon: dict[str, int] = {}
    for polarity in (0, 1):
        words = [*ADJECTIVES[polarity], *NOUNS[polarity]]
        words += [form for forms in (*VERBS[polarity], *EFFECTS[polarity]) for form in forms]
        words += [adverb.split()[-1] for adverb in VERDICT_ADVERBS[polarity]]
        for word in words:
            assert lexicon.setdefault(word, polarity) == polarity, f"{word} has both polarities"
    return lexicon


def clean(word: str) -> str:
    return word.strip(".,;").lower()


def gold_words(example: SentimentExample) -> list[str]:
    pairs = zip(example.text.split(), example.rationale, strict=True)
    return [clean(word) for word, gold in pairs if gold]


def said_by(gold: list[str], polarity_of: dict[str, int]) -> list[int]:
    """Read the polarity of each deciding clause off its gold words, negators first or not."""
    said: list[int] = []
    negations = 0
    for word in gold:
        if word in NEGATORS or word.endswith("n't"):
            negations += 1
        elif word in polarity_of:
            said.append(polarity_of[word] ^ (negations % 2))
            negations = 0
    assert negations == 0, f"a negator without an opinion after it: {gold}"
    return said


class TestMarkup:
    def test_reads_marks_and_capitals(self) -> None:
        assert markup.read("it is *not *dull. so we left.") == (
            "It is not dull. So we left.",
            (0, 0, 1, 1, 0, 0, 0),
        )

    def test_article_follows_the_word_not_the_mark(self) -> None:
        assert markup.with_article(markup.gold("awful mess")) == "an *awful *mess"
        assert markup.with_article("joy") == "a joy"


class TestSentiment:
    def test_rationale_has_one_entry_a_word(self, reviews: list[SentimentExample]) -> None:
        for example in reviews:
            words = example.text.split()
            assert len(example.rationale) == len(words), example.text
            assert " ".join(words) == example.text
            assert set(example.rationale) == {0, 1}, example.text
            assert sentiment.MIN_WORDS <= len(words) <= sentiment.MAX_WORDS
            assert markup.MARK not in example.text
            assert "{" not in example.text

    def test_labels_and_structures_are_balanced(self, reviews: list[SentimentExample]) -> None:
        cells = Counter((example.structure, example.label) for example in reviews)
        assert set(cells) == {(s, label) for s in sentiment.STRUCTURES for label in (0, 1)}
        assert set(cells.values()) == {200}

    def test_gold_words_alone_give_the_label(
        self, reviews: list[SentimentExample], polarity_of: dict[str, int]
    ) -> None:
        for example in reviews:
            said = said_by(gold_words(example), polarity_of)
            assert said, example.text
            assert set(said) == {example.label}, (example.text, gold_words(example))

    def test_negation_turns_its_opinion_word_round(
        self, reviews: list[SentimentExample], polarity_of: dict[str, int]
    ) -> None:
        turned = 0
        for example in reviews:
            if example.structure == "negation":
                gold = gold_words(example)
                negations = sum(word in NEGATORS or word.endswith("n't") for word in gold)
                opinions = {polarity_of[word] for word in gold if word in polarity_of}
                assert negations, example.text
                turned += opinions == {1 - example.label}
        assert turned > 300  # the others are negated twice

    def test_plain_reviews_hold_no_gold_negator(self, reviews: list[SentimentExample]) -> None:
        for example in reviews:
            if example.structure in {"plain", "intensifier"}:
                assert not NEGATORS & set(gold_words(example)), example.text

    def test_contrast_holds_an_unmarked_opinion(
        self, reviews: list[SentimentExample], polarity_of: dict[str, int]
    ) -> None:
        for example in reviews:
            if example.structure in {"contrast", "distractor"}:
                pairs = zip(example.text.split(), example.rationale, strict=True)
                assert any(clean(word) in polarity_of for word, gold in pairs if not gold)

    def test_same_seed_same_reviews(self) -> None:
        once, again = sentiment.generate(300, seed=7), sentiment.generate(300, seed=7)
        assert once == again
        assert once[:50] == sentiment.generate(50, seed=7)
        assert {e.text for e in once}.isdisjoint(e.text for e in sentiment.generate(10, seed=8))

    def test_ids_and_texts_are_unique(self, reviews: list[SentimentExample]) -> None:
        assert len({example.id for example in reviews}) == len(reviews)
        assert len({example.text for example in reviews}) == len(reviews)
        other = sentiment.generate(100, seed=4)
        assert {example.id for example in reviews}.isdisjoint(example.id for example in other)

    def test_refuses_a_negative_size(self) -> None:
        with pytest.raises(ValueError, match="negative"):
            sentiment.generate(-1, seed=0)


class TestAgreement:
    def test_one_mask_at_the_target(self, sentences: list[AgreementExample]) -> None:
        for example in sentences:
            words = example.text.split()
            assert example.text.count("[MASK]") == 1
            assert words[example.target_index] == "[MASK]"
            assert words[-1] == "."
            assert example.good != example.bad

    def test_positions_hold_nouns_of_the_stated_number(
        self, sentences: list[AgreementExample]
    ) -> None:
        number_of = {
            form: agreement.NUMBERS[number]
            for forms in PEOPLE + THINGS
            for number, form in enumerate(forms)
        }
        for example in sentences:
            words = example.text.split()
            nouns = [i for i, word in enumerate(words) if word in number_of]
            stated = [example.subject_index]
            assert number_of[words[example.subject_index]] == example.subject_number
            if example.attractor_index is None:
                assert example.attractor_number is None
                assert example.structure == "simple"
            else:
                stated.append(example.attractor_index)
                assert number_of[words[example.attractor_index]] == example.attractor_number
            assert sorted(stated) == nouns, example.text

    def test_good_form_has_the_subjects_number(self, sentences: list[AgreementExample]) -> None:
        singular = {"is", "was", "has"}
        for example in sentences:
            shows_singular = example.good in singular or example.good.endswith("s")
            assert shows_singular == (example.subject_number == "singular"), example

    def test_attractor_stands_before_the_verb(self, sentences: list[AgreementExample]) -> None:
        between = {"prepositional", "object_relative", "subject_relative"}
        for example in sentences:
            if example.attractor_index is not None:
                assert example.attractor_index < example.target_index
                inside = example.attractor_index > example.subject_index
                assert inside == (example.structure in between)

    def test_balanced(self, sentences: list[AgreementExample]) -> None:
        cells = Counter(
            (e.structure, e.subject_number, e.attractor_number)
            for e in sentences
            if e.attractor_number
        )
        assert len(cells) == 16
        assert set(cells.values()) == {100}

    def test_same_seed_same_sentences(self, sentences: list[AgreementExample]) -> None:
        assert sentences[:300] == agreement.generate(300, seed=3)
        assert sentences[:300] != agreement.generate(300, seed=4)
        assert len({example.id for example in sentences}) == len(sentences)
        assert len({example.text for example in sentences}) == len(sentences)


class TestSplits:
    def test_reviews_share_no_deciding_sentence(self) -> None:
        splits = data.sentiment_splits(3000, seed=1)
        keys = [{data.deciding_sentences(e) for e in splits[name]} for name in SPLITS]
        assert sum(map(len, splits.values())) == 3000
        assert all(keys)
        assert not (keys[0] & keys[1] or keys[0] & keys[2] or keys[1] & keys[2])

    def test_splits_of_other_seeds_are_disjoint_as_well(self) -> None:
        train = data.agreement_splits(2000, seed=1)["train"]
        test = data.agreement_splits(2000, seed=2)["test"]
        assert {e.text for e in train}.isdisjoint(e.text for e in test)

    def test_language_model_is_tested_on_sentences_it_was_not_trained_on(self) -> None:
        trained = data.agreement_splits(2000, seed=0)["train"]
        texts = {e.text for e in [*trained, *data.reflexives(3600, seed=0)]}
        tests = data.influence_test(seed=0)
        assert texts.isdisjoint(e.text for e in tests)
        assert min(Counter(e.subtask for e in tests).values()) > 300

    def test_deciding_sentence_leaves_facts_out(self) -> None:
        text, rationale = markup.read("it has two chapters. the plot is *dull. I read it in May.")
        example = SentimentExample("x", text, 0, rationale, "plain")
        assert data.deciding_sentences(example) == "The plot is dull."


class TestSamples:
    def test_bundled_samples_are_what_the_generators_give(self, tmp_path: Path) -> None:
        sizes = {"sentiment": 400, "agreement": 400, "influence": 240, "notes": 120}
        names = {path.stem for path in (EXAMPLES / "data").iterdir()}
        assert names == set(data.SAMPLES) == {*sizes, "shapes"}
        for name, size in sizes.items():
            data.write_sample(tmp_path, name, seed=0)
            bundled = pq.read_table(EXAMPLES / "data" / f"{name}.parquet")
            assert bundled.num_rows == size
            assert bundled.equals(pq.read_table(tmp_path / f"{name}.parquet"))

    def test_samples_are_balanced(self) -> None:
        labels = pq.read_table(EXAMPLES / "data" / "sentiment.parquet")["label"].to_pylist()
        assert Counter(labels) == {0: 200, 1: 200}
        sentences = pq.read_table(EXAMPLES / "data" / "influence.parquet").to_pylist()
        cells = Counter((row["subtask"], row["form"]) for row in sentences)
        assert len(cells) == 4 * len(influence_corpus.SUBTASKS)
        assert set(cells.values()) == {10}
        assert {row["split"] for row in sentences} == {"test"}


@pytest.fixture(scope="module")
def classifier() -> BertForSequenceClassification:
    return AutoModelForSequenceClassification.from_pretrained(MODELS / "sentiment-bert")


@pytest.fixture(scope="module")
def language_model() -> BertForMaskedLM:
    return AutoModelForMaskedLM.from_pretrained(MODELS / "agreement-bert")


def tokenizer_of(name: str) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(MODELS / name)


class TestModels:
    @pytest.mark.parametrize("name", MODEL_NAMES)
    def test_folder_is_small_and_safe(self, name: str) -> None:
        files = sorted(path.name for path in (MODELS / name).iterdir())
        assert files == [
            "README.md",
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
        ]
        assert all(path.stat().st_size <= 4_000_000 for path in (MODELS / name).iterdir())

    @pytest.mark.parametrize("name", MODEL_NAMES)
    def test_tokenizer_survives_its_folder(self, name: str) -> None:
        tokenizer = tokenizer_of(name)
        assert tokenizer.is_fast
        assert tokenizer.model_max_length == 64
        specials = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
        assert tokenizer.convert_tokens_to_ids(list(specials)) == [0, 1, 2, 3, 4]
        assert (tokenizer.pad_token_id, tokenizer.mask_token_id) == (0, 4)
        text = "The old [MASK], and xylophones."
        encoding = tokenizer(text, return_offsets_mapping=True)
        ids = encoding["input_ids"]
        assert (ids[0], ids[-1]) == (2, 3)
        assert ids.count(4) == 1
        assert 1 not in ids
        words = encoding.word_ids()
        assert words[0] is None
        assert Counter(words).most_common(1)[0][1] > 1, "a rare word is split"
        start, end = encoding["offset_mapping"][ids.index(4)]
        assert text[start:end] == "[MASK]"

    @pytest.mark.parametrize("name", MODEL_NAMES)
    def test_samples_fit_and_have_no_unknown_word(self, name: str) -> None:
        tokenizer = tokenizer_of(name)
        corpus = name.removesuffix("-bert")
        texts = pq.read_table(EXAMPLES / "data" / f"{corpus}.parquet")["text"].to_pylist()
        ids = tokenizer(texts)["input_ids"]
        assert max(map(len, ids)) <= tokenizer.model_max_length
        assert not any(tokenizer.unk_token_id in row for row in ids)

    def test_verbs_are_single_tokens(self, sentences: list[AgreementExample]) -> None:
        tokenizer = tokenizer_of("agreement-bert")
        for form in {form for e in sentences for form in (e.good, e.bad)}:
            assert tokenizer.convert_ids_to_tokens(token_id(tokenizer, form)) == form

    def test_labels_have_names(self, classifier: BertForSequenceClassification) -> None:
        assert classifier.config.id2label == {0: "negative", 1: "positive"}
        assert classifier.config.label2id == {"negative": 0, "positive": 1}

    def test_classifier_is_as_good_as_its_card(
        self, classifier: BertForSequenceClassification
    ) -> None:
        sample = data.sentiment_sample()
        hits = sentiment_hits(classifier, tokenizer_of("sentiment-bert"), sample)
        groups = [example.structure for example in sample]
        assert_as_stated(hits, groups, read_accuracies(MODELS / "sentiment-bert"))
        assert np.mean(hits) >= 0.95

    def test_language_model_is_as_good_as_its_card(self, language_model: BertForMaskedLM) -> None:
        sample = data.agreement_sample()
        hits = agreement_hits(language_model, tokenizer_of("agreement-bert"), sample)
        groups = [example.structure for example in sample]
        assert_as_stated(hits, groups, read_accuracies(MODELS / "agreement-bert"))
        assert np.mean(hits) >= 0.9

    def test_language_model_is_as_good_as_its_card_on_subtasks(
        self, language_model: BertForMaskedLM
    ) -> None:
        sample = data.influence_sample()
        hits = agreement_hits(language_model, tokenizer_of("agreement-bert"), sample)
        stated = read_subtasks(MODELS / "agreement-bert")
        assert tuple(stated) == influence_corpus.SUBTASKS
        for subtask, (_, accuracy) in stated.items():
            own = [hit for hit, e in zip(hits, sample, strict=True) if e.subtask == subtask]
            assert np.mean(own) >= accuracy - 0.026, subtask


class TestTraining:
    RECIPE = Recipe(texts=1000, vocabulary=700, epochs=1, layers=1, hidden=16, reflexives=80)

    def test_checkpoints_change_nothing(self, tmp_path: Path) -> None:
        kept = Checkpoints(tmp_path / "kept", frozenset({5, 10, 99}))
        with_some, without = tmp_path / "with", tmp_path / "without"
        card = train.train_agreement(with_some, 0, kept, recipe=self.RECIPE)
        train.train_agreement(without, 0, recipe=self.RECIPE)
        assert card.steps == 29
        assert sorted(path.name for path in kept.folder.iterdir()) == ["step0005", "step0010"]
        weights = {(path / "model.safetensors").read_bytes() for path in (with_some, without)}
        assert len(weights) == 1
        weights |= {(path / "model.safetensors").read_bytes() for path in kept.folder.iterdir()}
        assert len(weights) == 3

    def test_checkpoints_can_be_loaded(self, tmp_path: Path) -> None:
        kept = Checkpoints(tmp_path, frozenset({2}))
        train.train_agreement(tmp_path / "model", 0, kept, recipe=self.RECIPE)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "step0002")
        model = AutoModelForMaskedLM.from_pretrained(tmp_path / "step0002")
        hits = agreement_hits(model, tokenizer, data.influence_sample())
        assert len(hits) == data.INFLUENCE_SAMPLE_SIZE
        assert all(tokenizer.tokenize(word) == [word] for word in ("himself", "policewoman"))


def assert_as_stated(
    hits: list[bool], groups: list[str], stated: dict[str, tuple[float, float]]
) -> None:
    """Compare with the card; the tolerance is for sums in another order on another machine."""
    _, overall = stated["overall"]
    assert np.mean(hits) >= overall - 0.005
    for group in set(groups):
        own = [hit for hit, name in zip(hits, groups, strict=True) if name == group]
        assert np.mean(own) >= stated[group][1] - 0.026, group
