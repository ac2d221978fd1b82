"""The sentences for influence patterns are what their columns say, and so are converted ones."""

from __future__ import annotations

import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoModelForMaskedLM, AutoTokenizer, PreTrainedTokenizerBase

from examples.bundled import agreement, data, influence_corpus
from examples.bundled.agreement_words import PEOPLE
from examples.bundled.influence_corpus import (
    SUBTASKS,
    VERBS,
    InfluenceExample,
    converted,
    generate,
    vocabulary,
)
from examples.bundled.scoring import token_id
from examples.bundled.splits import split_of
from examples.bundled.train import AGREEMENT_RECIPE
from examples.bundled.wordlists import listed

MODEL = Path(data.__file__).parent.parent / "models" / "agreement-bert"
LENGTHS = dict(zip(SUBTASKS, (11, 11, 10, 11, 11, 13), strict=True))
MASKS = dict(zip(SUBTASKS, (7, 7, 6, 7, 8, 10), strict=True))
COUNT = 200

# Written down once more, since the corpus shall not be checked by its own lists.
SINGULAR = {"is", "himself", "herself", "knows", "likes"}
PLURAL = {"are", "themselves", "know", "like"}
MASCULINE = set(listed("man actor policeman duke host boy brother king uncle himself"))
FEMININE = set(listed("woman actress policewoman duchess hostess girl sister queen aunt herself"))


@cache
def corpus() -> list[InfluenceExample]:
    return generate(COUNT, seed=3)


def of(subtask: str) -> list[InfluenceExample]:
    return [example for example in corpus() if example.subtask == subtask]


def number_of(word: str) -> str:
    known = {form: name for forms in PEOPLE for name, form in zip(("S", "P"), forms, strict=True)}
    known |= dict.fromkeys(SINGULAR, "S") | dict.fromkeys(PLURAL, "P")
    return known[word]


def gender_of(word: str) -> str:
    return {**dict.fromkeys(MASCULINE, "M"), **dict.fromkeys(FEMININE, "F")}[word]


def word_at(example: InfluenceExample, role: str) -> str:
    return example.text.split()[example.roles.index(role)]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(MODEL)


class TestCorpus:
    def test_same_seed_same_sentences(self) -> None:
        assert corpus() == generate(COUNT, seed=3)
        texts = {example.text for example in corpus()}
        assert texts != {example.text for example in generate(COUNT, seed=4)}

    def test_a_subtask_depends_on_no_other_and_on_no_length(self) -> None:
        for subtask in SUBTASKS:
            assert generate(10, 3, [subtask]) == of(subtask)[:10]

    def test_counts(self) -> None:
        assert Counter(example.subtask for example in corpus()) == dict.fromkeys(SUBTASKS, COUNT)
        for count in (0, 1, 3, 6):
            assert len(generate(count, seed=0)) == count * len(SUBTASKS)

    @pytest.mark.parametrize("subtask", SUBTASKS)
    def test_forms_are_balanced(self, subtask: str) -> None:
        letters = "MF" if subtask == "reflexive_gender" else "SP"
        forms = Counter(example.form for example in of(subtask))
        assert forms == {a + b: COUNT // 4 for a in letters for b in letters}

    def test_both_reflexives_come_equally_often(self) -> None:
        words = Counter((e.form, e.good, e.bad) for e in of("reflexive_number"))
        assert len(words) == 8
        assert set(words.values()) == {COUNT // 8}

    def test_ids_and_texts_are_unique(self) -> None:
        everything = [*corpus(), *generate(20, seed=4)]
        assert len({example.id for example in everything}) == len(everything)
        assert len({example.text for example in corpus()}) == len(corpus())

    def test_sizes_are_checked(self) -> None:
        with pytest.raises(ValueError, match="negative"):
            generate(-1, seed=0)
        with pytest.raises(ValueError, match="there are 900 sentences of a form"):
            generate(3700, seed=0, subtasks=["reflexive_number"])

    def test_all_sentences_there_are_can_be_drawn(self) -> None:
        every = generate(3600, seed=0, subtasks=["reflexive_number"])
        assert len({example.text for example in every}) == 3600

    def test_splits_are_those_of_the_models_corpus(self) -> None:
        for example in corpus():
            assert example.split == split_of(example.text)


class TestSentences:
    def test_one_mask_and_one_role_a_word(self) -> None:
        for example in corpus():
            words = example.text.split()
            assert " ".join(words) == example.text
            assert words.count("[MASK]") == 1
            assert len(example.roles) == len(words)
            assert set(example.roles) <= set(influence_corpus.ROLES)
            assert words[example.target_index] == "[MASK]"
            for role in ("subject", "attractor", "target"):
                assert example.roles.index(role) == getattr(example, f"{role}_index")

    @pytest.mark.parametrize("subtask", SUBTASKS)
    def test_one_structure_a_subtask(self, subtask: str) -> None:
        (roles,) = {example.roles for example in of(subtask)}
        assert len(roles) + 2 == LENGTHS[subtask]
        assert roles.index("target") + 1 == MASKS[subtask]
        assert {role for role, count in Counter(roles).items() if count > 1} <= {"preposition"}

    def test_words_are_those_that_are_stated(self) -> None:
        for subtask in SUBTASKS:
            used = {word for e in of(subtask) for word in (*e.text.split(), e.good, e.bad)}
            assert used - {"[MASK]"} <= vocabulary(subtask)

    @pytest.mark.parametrize("subtask", [s for s in SUBTASKS if s != "reflexive_gender"])
    def test_target_has_the_subjects_number(self, subtask: str) -> None:
        for example in of(subtask):
            nouns = [word_at(example, role) for role in ("subject", "attractor")]
            assert example.form == "".join(map(number_of, nouns))
            stated = (example.subject_number, example.attractor_number)
            assert example.form == "".join(str(number)[0].upper() for number in stated)
            assert number_of(example.good) == example.form[0]
            assert number_of(example.bad) != example.form[0]
            assert (example.subject_gender, example.attractor_gender) == (None, None)
            assert not {*nouns} & {"man", "woman", "men", "women"} or subtask in VERBS

    def test_target_has_the_subjects_gender(self) -> None:
        for example in of("reflexive_gender"):
            nouns = [word_at(example, role) for role in ("subject", "attractor")]
            assert example.form == "".join(map(gender_of, nouns))
            stated = (example.subject_gender, example.attractor_gender)
            assert example.form == "".join(str(gender)[0].upper() for gender in stated)
            assert gender_of(example.good) == example.form[0]
            assert gender_of(example.bad) != example.form[0]
            assert (example.subject_number, example.attractor_number) == ("singular", "singular")

    def test_embedded_verbs_agree_with_their_own_subject(self) -> None:
        own = {"object_relative": 1, "subject_relative": 0, "reflexive_number": 1}
        for subtask, noun in own.items():
            for example in of(subtask):
                assert number_of(word_at(example, "verb")) == example.form[noun], example.text

    def test_nouns_differ(self) -> None:
        pairs = {form: forms for forms in PEOPLE for form in forms}
        for example in corpus():
            nouns = [word_at(example, role) for role in ("subject", "attractor")]
            assert pairs.get(nouns[0], nouns[0]) != pairs.get(nouns[1], nouns[1])


class TestTokens:
    @pytest.mark.parametrize("subtask", SUBTASKS)
    def test_bundled_tokenizer_splits_no_word(
        self, tokenizer: PreTrainedTokenizerBase, subtask: str
    ) -> None:
        for word in vocabulary(subtask):
            assert tokenizer.tokenize(word) == [word]
        for example in of(subtask):
            assert token_id(tokenizer, example.good) != token_id(tokenizer, example.bad)
            ids = tokenizer.encode(example.text)
            assert len(ids) == LENGTHS[subtask]
            assert ids.index(tokenizer.mask_token_id) == MASKS[subtask]

    def test_bundled_model_was_trained_on_the_words(self) -> None:
        seen: set[str] = set()
        reflexives = data.reflexives(AGREEMENT_RECIPE.reflexives, seed=0)
        for example in [*agreement.generate(3000, seed=0), *reflexives]:
            seen |= {*example.text.split(), example.good, example.bad}
        assert all(vocabulary(subtask) <= seen for subtask in SUBTASKS)

    def test_bundled_model_is_right(self, tokenizer: PreTrainedTokenizerBase) -> None:
        model = AutoModelForMaskedLM.from_pretrained(MODEL).eval()
        for subtask in SUBTASKS:
            examples = of(subtask)[:40]
            inputs = tokenizer([example.text for example in examples], return_tensors="pt")
            logits = model(**inputs).logits[:, MASKS[subtask]]
            good, bad = (
                [token_id(tokenizer, getattr(example, name)) for example in examples]
                for name in ("good", "bad")
            )
            rows = range(len(examples))
            accuracy = (logits[rows, good] > logits[rows, bad]).float().mean()
            assert accuracy >= (0.7 if subtask == "reflexive_gender" else 0.95), subtask


# Sentences with positions: text, good, bad, target, subject, attractor, numbers, roles.
GIVEN: list[tuple[Any, ...]] = [
    (
        *("the night porters that the cook sees [MASK] loud", "are", "is", 7, 2, 5, "plur sing"),
        "subject_determiner modifier subject relativizer attractor_determiner attractor verb "
        "target adjective punctuation",
    ),
    (
        *("the porter the cooks see [MASK] .", "sings", "sing", 5, 1, 3, "sing plur"),
        "subject_determiner subject attractor_determiner attractor verb target punctuation",
    ),
    (
        *("the porters that see the cook [MASK]", "sing", "sings", 6, 1, 5, "plur sing"),
        "subject_determiner subject relativizer verb attractor_determiner attractor target "
        "punctuation",
    ),
    (
        *("a cook heard that the porters [MASK] loud", "are", "is", 6, 5, 1, "plur sing"),
        "attractor_determiner attractor verb complementizer subject_determiner subject target "
        "adjective punctuation",
    ),
    (
        *("the cooks that the porter [MASK] sing", "sees", "see", 5, 4, 1, "sing plur"),
        "attractor_determiner attractor relativizer subject_determiner subject target other "
        "punctuation",
    ),
    (
        *("the cook to the left of the porter [MASK] loud now", "is", "are", 8, 1, 7, "sing sing"),
        "subject_determiner subject preposition preposition preposition preposition "
        "attractor_determiner attractor target other other punctuation",
    ),
    (
        *("the cooks praised [MASK]", "themselves", "himself", 3, 1, None, "plur"),
        "subject_determiner subject main_verb target punctuation",
    ),
]


def positions(
    text: str, good: str, bad: str, target: int, subject: int, attractor: int | None, numbers: str
) -> dict[str, Any]:
    """A row of a table of sentences with positions."""
    own, _, other = numbers.partition(" ")
    return {
        "id": text,
        "template": "sent_comp" if "heard" in text else "some_template",
        "text": text,
        "good": good,
        "bad": bad,
        "target_index": target,
        "subject_index": subject,
        "attractor_index": attractor,
        "subject_number": own,
        "attractor_number": other or None,
    }


class TestConversion:
    @pytest.mark.parametrize("given", GIVEN, ids=lambda given: given[0])
    def test_roles(self, given: tuple[Any, ...]) -> None:
        *row, roles = given
        (example,) = converted(pa.Table.from_pylist([positions(*row)]))
        assert example.roles == tuple(roles.split())
        assert len(example.text.split()) == len(example.roles)
        assert example.text.removesuffix(" .") == row[0].removesuffix(" .")
        assert (example.good, example.bad) == (row[1], row[2])

    def test_names(self) -> None:
        rows = [positions(*given[:-1]) for given in GIVEN]
        examples = converted(pa.Table.from_pylist(rows))
        assert [e.subtask for e in examples].count("sentential_complement") == 1
        assert [e.form for e in examples] == ["PS", "SP", "PS", "PS", "SP", "SS", "P"]
        assert examples[0].subject_number == "plural"
        assert examples[-1].attractor_number is None
        assert all(example.split is None for example in examples)
        assert influence_corpus.as_table(examples).num_rows == len(rows)

    def test_own_sentences_keep_their_roles(self) -> None:
        table = influence_corpus.as_table(corpus()).drop_columns(["roles", "form", "split"])
        for old, new in zip(corpus(), converted(table), strict=True):
            assert new.roles == old.roles
            assert (new.id, new.subtask, new.form) == (old.id, old.subtask, old.form)

    def test_bundled_sentences_can_be_converted(self) -> None:
        table = pq.read_table(data.DEFAULT_FOLDER / "agreement.parquet")
        for example in converted(table):
            assert len(example.roles) == len(example.text.split())
            assert example.roles[example.target_index] == "target"

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"target_index": 2}, "not the one word at target_index"),
            ({"text": "the cook [MASK] [MASK] loud"}, "not the one word at target_index"),
            ({"subject_index": None}, "no position"),
            ({"attractor_index": 40}, "no position"),
            ({"subject_number": "dual"}, "'dual' is no number"),
        ],
    )
    def test_wrong_rows_are_refused(self, change: dict[str, Any], message: str) -> None:
        row = positions("the cook sees [MASK]", "a", "b", 3, 1, None, "sing") | change
        with pytest.raises(ValueError, match=message):
            converted(pa.Table.from_pylist([row]))

    def test_a_table_without_positions_is_refused(self) -> None:
        with pytest.raises(ValueError, match="lacks the columns good, bad, target_index"):
            converted(pa.table({"id": ["a"], "text": ["a [MASK]"]}))


class TestCommandLine:
    def run(self, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["influence_corpus", *arguments])
        influence_corpus.main()

    def test_writes_the_same_twice(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        paths = [tmp_path / name / "corpus.parquet" for name in "ab"]
        for path in paths:
            self.run(monkeypatch, "--sentences", "8", "--seed", "3", "--output", str(path))
        assert paths[0].read_bytes() == paths[1].read_bytes()
        table = pq.read_table(paths[0])
        assert table.equals(influence_corpus.as_table(generate(8, seed=3)))

    def test_writes_some_subtasks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "some.parquet"
        self.run(monkeypatch, "--subtasks", *VERBS, "--sentences", "4", "--output", str(path))
        assert set(pq.read_table(path)["subtask"].to_pylist()) == set(VERBS)

    def test_converts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        given, path = tmp_path / "given.parquet", tmp_path / "converted.parquet"
        pq.write_table(pa.Table.from_pylist([positions(*row[:-1]) for row in GIVEN]), given)
        self.run(monkeypatch, "--convert", str(given), "--output", str(path))
        assert pq.read_table(path)["roles"].to_pylist() == [row[-1].split() for row in GIVEN]
