"""From corpus rows to instances: words, offsets, segments, rationales, and what is refused."""

import re
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers, processors

from attribeam.schemas import Failure
from attribeam.transforms import EncodeOptions, Instance, Model, Row, RowError, encode, load_model
from attribeam.transforms.inputs.encode import encode_row, encode_rows
from tests.conftest import LoadTiny
from tests.support.models import MAX_LENGTH, byte_level_tokenizer, save_tiny, wordpiece_tokenizer

BY_WHITESPACE = EncodeOptions(MAX_LENGTH)
BY_TOKENIZER = EncodeOptions(MAX_LENGTH, words="tokenizer")


@pytest.fixture(scope="module")
def bert(tiny: LoadTiny) -> Model:
    return tiny("bert")


@pytest.fixture(scope="module")
def roberta(tiny: LoadTiny) -> Model:
    return tiny("roberta")


@pytest.fixture(scope="module")
def bert_lm(tiny: LoadTiny) -> Model:
    return tiny("bert", "masked_lm")


@pytest.fixture(scope="module")
def roberta_lm(tiny: LoadTiny) -> Model:
    return tiny("roberta", "masked_lm")


@pytest.fixture(scope="module")
def bundled() -> Model:
    return load_model(Path(__file__).parents[3] / "examples/models/sentiment-bert")


@pytest.fixture(scope="module")
def bare(golden: LoadTiny) -> Model:
    """A model without tokenizer; its ids 2 and 3 open and close a text."""
    return golden("bert-golden")


@pytest.fixture(scope="module")
def bare_lm(golden: LoadTiny) -> Model:
    return replace(golden("bert-golden-mlm"), mask_id=4)


def one(model: Model, text: str, options: EncodeOptions = BY_WHITESPACE, **row: Any) -> Instance:
    return encode_row(model, Row("one", text, **row), options)


def refused(model: Model, row: Row, options: EncodeOptions = BY_WHITESPACE) -> str:
    """The message with which a row is refused; checks that it doesn't take others with it."""
    with pytest.raises(RowError) as caught:
        encode_row(model, row, options)
    instances, failures = encode_rows(model, [row], options)
    assert instances == []
    assert failures == [Failure(row.instance_id, "encode", None, "RowError", str(caught.value))]
    return str(caught.value)


def pieces(instance: Instance) -> list[str]:
    """What the offsets cut out of the texts, for tokens that have offsets."""
    texts = (instance.text or "", instance.text_pair or "")
    return [
        texts[segment][start:end]
        for segment, start, end, special in zip(
            instance.segment,
            instance.char_start,
            instance.char_end,
            instance.special,
            strict=True,
        )
        if not special
    ]


def bracketed(tokens: str) -> tuple[str, ...]:
    """Tokens parted by blanks, between [CLS] and [SEP]."""
    return ("[CLS]", *tokens.split(), "[SEP]")


def inner(instance: Instance, values: Any) -> list[Any]:
    """The entries at tokens that aren't special."""
    return [v for v, special in zip(values, instance.special, strict=True) if not special]


# Words and offsets ----------------------------------------------------------------------------

TEXT = "The film isn't (very) uninteresting."
TOKENS = ["the", "film", "[UNK]", "'", "t", "(", "very", "[UNK]", "un", "##interest", "##ing", "."]
# ")" and "isn" are not in the vocabulary.


def test_a_text_by_hand(bert: Model) -> None:
    instance = one(bert, TEXT, label=2, split="dev")
    assert instance.tokens == ("[CLS]", *TOKENS, "[SEP]")
    assert instance.special.tolist() == [True, *[False] * 12, True]
    assert instance.segment.tolist() == [0] * 14
    assert pieces(instance) == [
        *["The", "film", "isn", "'", "t", "(", "very", ")", "un", "interest", "ing", "."]
    ]
    assert instance.word_ids.tolist() == [-1, 0, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 4, -1]
    assert instance.char_start[[0, -1]].tolist() == instance.char_end[[0, -1]].tolist() == [-1, -1]
    assert (instance.label, instance.split, instance.instance_id) == (2, "dev", "one")
    assert instance.readout == 0
    assert instance.rationale is None
    assert not instance.truncated
    ids = wordpiece_tokenizer().convert_tokens_to_ids(list(instance.tokens))
    assert instance.input_ids.tolist() == ids


def test_words_of_the_tokenizer(bert: Model) -> None:
    instance = one(bert, TEXT, BY_TOKENIZER)
    assert instance.word_ids.tolist() == [-1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 9, -1]


@pytest.mark.parametrize(
    "text",
    [
        "  the film ",
        "the\tfilm\n\nis good",
        "the\u00a0film\u3000is\u2028good",
    ],
)
def test_any_blank_parts_words(bert: Model, text: str) -> None:
    instance = one(bert, text)
    words = inner(instance, instance.word_ids)
    for word, piece in zip(words, pieces(instance), strict=True):
        assert piece.strip() in text.split()[word]
    assert sorted(set(words)) == list(range(len(text.split())))


UNICODE = {
    "combining": ("cafe\u0301 good", ["cafe", "good"], ["cafe", "good"]),
    "composed": ("a Café film", ["a", "Café", "film"], ["a", "cafe", "film"]),
    "emoji": ("good 😀 film😀", ["good", "😀", "film😀"], ["good", "😀", "[UNK]"]),
    "joined emoji": ("a 👩\u200d👧 film", ["a", "👩\u200d👧", "film"], ["a", "[UNK]", "film"]),
    "flags": ("🇫🇷 good", ["🇫🇷", "good"], ["[UNK]", "good"]),
    "CJK": ("the世界 film", ["the", "世", "界", "film"], ["the", "世", "界", "film"]),
    "right to left": (
        *("a שלום, good", ["a", "שלום", ",", "good"]),
        ["a", "שלום", ",", "good"],
    ),
    "zero width": ("go\u200bod\ufeff film", ["go\u200bod", "film"], ["good", "film"]),
    "wide": ("😀😀 ., 😀", ["😀😀", ".", ",", "😀"], ["[UNK]", ".", ",", "😀"]),
}


@pytest.mark.parametrize(("text", "cut", "tokens"), UNICODE.values(), ids=UNICODE)
def test_offsets_count_characters(
    bert: Model, text: str, cut: list[str], tokens: list[str]
) -> None:
    instance = one(bert, text)
    assert inner(instance, instance.tokens) == tokens
    assert pieces(instance) == cut


@settings(max_examples=100)
@given(st.text(st.sampled_from("thefilmgod .,!?😀世é\u0301\u200b\u05e9ışİ'\n"), max_size=40))
def test_offsets_of_any_text(bert: Model, text: str) -> None:
    try:
        instance = one(bert, text)
    except RowError:
        assert not any(character.isalnum() or character in ".,!?😀'" for character in text)
        return
    ends = [0, *inner(instance, instance.char_end)[:-1]]
    for token, piece, start, word, end_before in zip(
        inner(instance, instance.tokens),
        pieces(instance),
        inner(instance, instance.char_start),
        inner(instance, instance.word_ids),
        ends,
        strict=True,
    ):
        assert start >= end_before
        if token != "[UNK]":
            decomposed = unicodedata.normalize("NFD", piece.lower())
            bare = [c for c in decomposed if unicodedata.category(c) not in ("Mn", "Cf")]
            assert "".join(bare) == token.removeprefix("##")
        assert piece in text.split()[word]


@given(
    st.text(st.sampled_from("the film is good,.\n😀世é\u0301\u200b\u05e9"), min_size=1, max_size=40)
)
def test_byte_level_offsets_of_any_text(roberta: Model, text: str) -> None:
    try:
        instance = one(roberta, text)
    except RowError:
        assert not text.strip()
        return
    # Tokens follow one another without gaps in the bytes of the text, so counting them off says
    # which characters each touches; blanks at the ends of a token are trimmed.
    character_at = [at for at, character in enumerate(text) for _ in character.encode()]
    alphabet = byte_alphabet()
    position = 0
    for token, start, end, word in zip(
        inner(instance, instance.tokens),
        inner(instance, instance.char_start),
        inner(instance, instance.char_end),
        inner(instance, instance.word_ids),
        strict=True,
    ):
        content = bytes(alphabet[letter] for letter in token)
        assert text.encode()[position : position + len(content)] == content
        first, last = character_at[position], character_at[position + len(content) - 1]
        assert text[start:end].strip(" ") == text[first : last + 1].strip(" ")
        if text[start:end].strip():
            assert len(text[:end].split()) - 1 == word
        position += len(content)
    assert position == len(character_at)


SCRIPTS = {
    "mixed": "Привет мир, hello κόσμε — नमस्ते दुनिया 你好世界 こんにちは 안녕",
    "families": "a 👩\u200d👩\u200d👧\u200d👦 film, 🏳\ufe0f\u200d🌈 good 👍🏽👍🏿 1\ufe0f\u20e3",
    "flags of tags": "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f good",
    "right to left": "שָׁלוֹם עולם! مَرْحَبًا بِالعَالَم \u200fאבג\u200e abc \u202eevil\u202c",
    "zero width": "go\u200bod fi\u200clm\u200d \ufeffbad\u2060.",
    "marks on marks": "Z\u0351\u036b\u0343a\u0334l\u0335g\u0336o e\u0301e\u0301 \u0301good",
    "composed": "Café naïve Å ﬁ \u1e9b\u0323",
    "decomposed": unicodedata.normalize("NFD", "Café naïve Å \u1e9b\u0323 한국어"),
    "CJK": "中文字符。日本語テキスト、한국어 문장. 㐀 𠀀𠀁 豈",
    "astral": "𝒜𝓁𝓅𝒽𝒶 𐍈 𓀀 good 𝟘",
    "control": "go\x00od\x07 film\x1b[0m bad\x7f \x85next \x0cpage \x1c\x1d a",
    "byte order marks": "\ufeffthe film \ufeff is \ufffe good \ufffd",
    "blanks": "a\u00a0b\u2003c\u3000d\u2028e\u1680f\u180eg\u200bh \u00ad soft\u00adhyphen",
    "case": "İSTANBUL ıI ẞß ΣΑΣ ŉ Ǆ ﬃ",
    "Indic and Thai": "क्षत्रिय ज़िन्दगी தமிழ் ไทยไม่มี ខ្មែរ བོད་",
    "long": "x" * 3000 + " good " + "é" * 2000 + "e\u0301" * 2000,
    "like special tokens": "[CLS] the [SEP] [MASK] <s> </s> [UNK] [PAD] ##ing",
}


def surface(text: str) -> str:
    """A text as WordPiece normalises it: decomposed, without marks and control characters."""
    letters = [c.lower() for c in unicodedata.normalize("NFD", text)]
    return "".join(c for c in "".join(letters) if unicodedata.category(c) not in ("Mn", "Cf", "Cc"))


def check_places(instance: Instance, *, word_pieces: bool) -> None:
    """Tokens stand where their offsets say, in order, and in the word that they are counted to."""
    text = instance.text or ""
    places = [match.span() for match in re.finditer(r"\S+", text)]
    assert [text[start:end] for start, end in places] == text.split()
    before = 0
    for token, start, end, word in zip(
        inner(instance, instance.tokens),
        inner(instance, instance.char_start),
        inner(instance, instance.char_end),
        inner(instance, instance.word_ids),
        strict=True,
    ):
        assert before <= start <= end <= len(text)
        before = start
        piece = text[start:end]
        assert not piece.strip() or places[word][0] < end <= places[word][1]
        if word_pieces and token != "[UNK]" and not token.startswith("["):
            # Of a Hangul syllable, which is decomposed, a token may be a part.
            assert token.removeprefix("##") in surface(piece)


@pytest.mark.parametrize("text", SCRIPTS.values(), ids=SCRIPTS)
def test_places_in_any_script(bert: Model, roberta: Model, bundled: Model, text: str) -> None:
    for model in (bert, roberta, bundled):
        whole = encode(model, [text], EncodeOptions(100_000))[0]
        check_places(whole, word_pieces=model is not roberta)
        windows = encode(model, [text], EncodeOptions(MAX_LENGTH, overflow="stride"))
        for window in windows:
            check_places(window, word_pieces=model is not roberta)
        places = {(int(a), int(b)) for a, b in zip(whole.char_start, whole.char_end, strict=True)}
        seen = {
            (int(a), int(b))
            for window in windows
            for a, b in zip(window.char_start, window.char_end, strict=True)
        }
        assert seen == places


@settings(max_examples=100)
@given(st.text(max_size=40))
def test_places_in_any_text(bundled: Model, roberta: Model, text: str) -> None:
    for model in (bundled, roberta):
        instances, failures = encode_rows(model, [Row("a", text)], EncodeOptions(1000))
        assert len(instances) + len(failures) == 1
        for instance in instances:
            check_places(instance, word_pieces=model is bundled)


def byte_alphabet() -> dict[str, int]:
    """The letters that byte-level tokenizers write bytes with (GPT-2's table)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    plain += range(ord("®"), ord("ÿ") + 1)
    letters = {chr(byte): byte for byte in plain}
    others = [byte for byte in range(256) if byte not in plain]
    letters |= {chr(256 + number): byte for number, byte in enumerate(others)}
    assert set(letters) == set(pre_tokenizers.ByteLevel.alphabet())
    return letters


def test_byte_level_by_hand(roberta: Model) -> None:
    instance = one(roberta, "the film 😀 is good!")
    assert instance.tokens[:4] == ("<s>", "the", "Ġfilm", "Ġ")
    assert instance.tokens[-4:] == ("Ġis", "Ġgood", "!", "</s>")
    assert pieces(instance) == ["the", "film", "", *["😀"] * 4, "is", "good", "!"]
    assert inner(instance, instance.word_ids) == [0, 1, *[2] * 5, 3, 4, 4]


def test_a_token_that_takes_the_blank_before_it(tmp_path: Path) -> None:
    tokenizer = byte_level_tokenizer()
    backend = tokenizer.backend_tokenizer
    backend.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=False, add_prefix_space=False
    )
    save_tiny(tmp_path, "roberta", tokenizer=False)
    tokenizer.save_pretrained(tmp_path)
    instance = one(load_model(tmp_path), "the film is good!", rationale=[0, 1, 0, 0])
    assert pieces(instance) == ["the", " film", " is", " good", "!"]
    assert inner(instance, instance.word_ids) == [0, 1, 2, 3, 3]
    assert inner(instance, instance.rationale) == [0, 1, 0, 0, 0]


# Pairs ----------------------------------------------------------------------------------------


def test_a_pair(bert: Model) -> None:
    instance = one(bert, "the good film", text_pair="it was dull.")
    assert instance.tokens == bracketed("the good film [SEP] [UNK] was dull .")
    assert instance.segment.tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert instance.word_ids.tolist() == [-1, 0, 1, 2, -1, 0, 1, 2, 2, -1]
    assert instance.special.nonzero()[0].tolist() == [0, 4, 9]
    assert pieces(instance) == ["the", "good", "film", "it", "was", "dull", "."]
    assert (instance.text, instance.text_pair) == ("the good film", "it was dull.")


def test_a_pair_with_words_of_the_tokenizer(bert: Model) -> None:
    instance = one(bert, "the film", BY_TOKENIZER, text_pair="dull.")
    assert instance.word_ids.tolist() == [-1, 0, 1, -1, 0, 1, -1]


def test_a_pair_of_a_model_without_token_types(roberta: Model) -> None:
    instance = one(roberta, "the film", text_pair="the plot")
    assert instance.special.tolist() == [True, False, False, True, True, *[False] * 2, True]
    assert instance.segment.tolist() == [0, 0, 0, 0, 0, 1, 1, 1]
    assert pieces(instance) == ["the", "film", "the", "plot"]
    assert inner(instance, instance.word_ids) == [0, 1, 0, 1]


def test_an_empty_second_text_is_none(bert: Model) -> None:
    assert one(bert, "the film", text_pair="").tokens == ("[CLS]", "the", "film", "[SEP]")


# Length ---------------------------------------------------------------------------------------


def test_long_texts_are_cut_or_refused(bert: Model) -> None:
    text = "the good film was not bad"
    cut = one(bert, text, EncodeOptions(5))
    assert cut.tokens == ("[CLS]", "the", "good", "film", "[SEP]")
    assert cut.truncated
    assert cut.text == text
    whole = one(bert, text, EncodeOptions(8))
    assert (len(whole), whole.truncated) == (8, False)
    message = refused(bert, Row("one", text), EncodeOptions(7, overflow="fail"))
    assert "8 tokens" in message
    assert "7" in message
    assert len(one(bert, text, EncodeOptions(8, overflow="fail"))) == 8


def test_the_longer_text_of_a_pair_is_cut(bert: Model) -> None:
    pair = "the good film was not bad"
    instance = one(bert, "a dull plot", EncodeOptions(9), text_pair=pair)
    assert instance.tokens == bracketed("a dull plot [SEP] the good film")
    assert instance.truncated


def test_a_rationale_of_a_text_that_is_cut(bert: Model) -> None:
    instance = one(
        bert, "the good film was not bad", EncodeOptions(5), rationale=[0, 1, 0, 0, 0, 1]
    )
    assert instance.rationale is not None
    assert instance.rationale.tolist() == [0, 0, 1, 0, 0]


def test_settings_saved_with_a_tokenizer_do_not_matter(tmp_path: Path) -> None:
    tokenizer = wordpiece_tokenizer()
    tokenizer.backend_tokenizer.enable_padding(length=16)
    tokenizer.backend_tokenizer.enable_truncation(4)
    save_tiny(tmp_path, "bert", tokenizer=False)
    tokenizer.save_pretrained(tmp_path)
    instance = one(load_model(tmp_path), "the good film was not bad")
    assert len(instance) == 8
    assert "[PAD]" not in instance.tokens


# Rationales -----------------------------------------------------------------------------------


def test_a_rationale_marks_whole_words(bert: Model) -> None:
    instance = one(bert, TEXT, rationale=[0, 0, 1, 1, 0])
    assert instance.rationale is not None
    marked = [p for p, mark in zip(pieces(instance), instance.rationale[1:-1], strict=True) if mark]
    assert marked == ["isn", "'", "t", "(", "very", ")"]
    assert instance.rationale[[0, -1]].tolist() == [0, 0]


def test_roles_go_to_every_piece_of_a_word(bert: Model) -> None:
    words = TEXT.split()
    roles = [f"role-{number}" for number in range(len(words))]
    instance = one(bert, TEXT, roles=roles, subset="easy")
    assert instance.roles is not None and instance.subset == "easy"
    assert instance.roles[0] is None and instance.roles[-1] is None
    expected = [roles[word] for word in instance.word_ids[1:-1]]
    assert list(instance.roles[1:-1]) == expected
    pair = one(bert, "good film", text_pair="dull film", roles=["a", None])
    assert pair.roles is not None
    assert [role for role in pair.roles if role is not None] == ["a"]
    with pytest.raises(RowError, match="the roles has 1 entries for 2 words"):
        one(bert, "good film", roles=["a"])


def test_a_rationale_of_a_byte_level_text(roberta: Model) -> None:
    instance = one(roberta, "the 😀! film", rationale=[0, 1, 0])
    assert instance.rationale is not None
    marks = inner(instance, instance.rationale)
    assert marks == [0, 1, 1, 1, 1, 1, 1, 0]


def test_a_rationale_is_of_the_first_text(bert: Model) -> None:
    instance = one(bert, "good film", text_pair="dull film", rationale=[1, 0])
    assert instance.rationale is not None
    assert instance.rationale.tolist() == [0, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("rationale", [[], [1], [1, 0, 0], [0] * 7])
def test_a_rationale_of_wrong_length(bert: Model, rationale: list[int]) -> None:
    message = refused(bert, Row("one", "good film", rationale=rationale))
    assert f"{len(rationale)} entries for 2 words" in message


def test_a_rationale_counts_whitespace_words(bert: Model) -> None:
    row = Row("one", "good film", rationale=[1, 0])
    assert "whitespace" in refused(bert, row, BY_TOKENIZER)


# What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [None, "", " ", "\n\t \u3000"])
def test_an_empty_text(bert: Model, text: str | None) -> None:
    assert refused(bert, Row("one", text)) == "the text is empty"


@pytest.mark.parametrize("text", ["\u200b", "\u0301", "\x00\ufeff"])
def test_a_text_without_tokens(bert: Model, text: str) -> None:
    assert "no tokens" in refused(bert, Row("one", text))


def test_a_text_that_is_no_unicode(bert: Model) -> None:
    assert "surrogate" in refused(bert, Row("one", "a \ud800 film"))
    assert "surrogate" in refused(bert, Row("one", "a film", "\udfff"))


@pytest.mark.parametrize("label", [-1, 3, 100])
def test_a_label_out_of_range(bert: Model, label: int) -> None:
    message = refused(bert, Row("one", "a film", label=label))
    assert f"label {label} is outside the model's classes 0 to 2" in message


def test_a_label_may_be_needed(bert: Model) -> None:
    options = EncodeOptions(MAX_LENGTH, need_label=True)
    assert "no label" in refused(bert, Row("one", "a film"), options)
    assert one(bert, "a film", options, label=0).label == 0


def test_a_row_that_could_not_be_read(bert: Model) -> None:
    row = Row("one", "a film", problem="the line is no JSON")
    with pytest.raises(RowError, match="the line is no JSON"):
        encode_row(bert, row, BY_WHITESPACE)
    instances, failures = encode_rows(
        bert, [Row("a", "a film"), row, Row("b", "good")], BY_WHITESPACE
    )
    assert [instance.instance_id for instance in instances] == ["a", "b"]
    assert failures == [Failure("one", "read", None, "RowError", "the line is no JSON")]


def test_encode_takes_texts_and_rows(bert: Model) -> None:
    first, second = encode(bert, ["a film", Row("mine", "good")])
    assert (first.instance_id, second.instance_id) == ("text-0", "mine")
    with pytest.raises(RowError):
        encode(bert, ["a film", ""])


def test_a_text_needs_a_tokenizer(bare: Model) -> None:
    assert "no tokenizer" in refused(bare, Row("one", "a film"))


# Pre-tokenised corpora ------------------------------------------------------------------------


def test_ids_without_tokenizer(bare: Model) -> None:
    row = Row("one", input_ids=[2, 50, 60, 3, 70, 3], token_type_ids=[0, 0, 0, 0, 1, 1], label=1)
    instance = encode_row(bare, row, BY_WHITESPACE)
    assert instance.input_ids.tolist() == [2, 50, 60, 3, 70, 3]
    assert instance.segment.tolist() == [0, 0, 0, 0, 1, 1]
    assert instance.special.tolist() == [True, False, False, True, False, True]
    assert instance.word_ids.tolist() == [-1, 0, 1, -1, 2, -1]
    assert instance.tokens == ("2", "50", "60", "3", "70", "3")
    assert set(instance.char_start) == set(instance.char_end) == {-1}
    assert (instance.text, instance.label, instance.readout) == (None, 1, 0)


def test_ids_with_tokenizer(bert: Model) -> None:
    tokens = ["[CLS]", "the", "[UNK]", "[SEP]", "[MASK]", "[SEP]", "[PAD]", "[SEP]"]
    ids = wordpiece_tokenizer().convert_tokens_to_ids(tokens)
    instance = encode_row(bert, Row("one", input_ids=ids), BY_WHITESPACE)
    assert instance.tokens == tuple(tokens)
    # The unknown token and the mask stand for words.
    assert instance.special.tolist() == [True, False, False, True, False, True, True, True]
    assert instance.segment.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert instance.token_types.tolist() == [0] * 8


def test_ids_equal_those_of_the_text(bert: Model) -> None:
    encoded = one(bert, "the good film", text_pair="was dull")
    row = Row("one", input_ids=encoded.input_ids.tolist(), token_type_ids=encoded.segment.tolist())
    instance = encode_row(bert, row, BY_WHITESPACE)
    for name in ("input_ids", "segment", "special"):
        found, expected = getattr(instance, name), getattr(encoded, name)
        assert (found == expected).all()
        assert found.dtype == expected.dtype
    assert instance.tokens == encoded.tokens
    draws = [x.generator(0, "random").random() for x in (instance, encoded)]
    assert draws[0] == draws[1]


def test_long_ids_keep_their_closing_token(bare: Model) -> None:
    row = Row("one", input_ids=[2, 50, 60, 70, 3], token_type_ids=[0, 0, 0, 1, 1])
    cut = encode_row(bare, row, EncodeOptions(4))
    assert cut.input_ids.tolist() == [2, 50, 60, 3]
    assert cut.segment.tolist() == [0, 0, 0, 1]
    assert cut.truncated
    assert "5 tokens" in refused(bare, row, EncodeOptions(4, overflow="fail"))
    assert not encode_row(bare, row, EncodeOptions(5, overflow="fail")).truncated


@pytest.mark.parametrize(
    ("ids", "types", "message"),
    [
        ([], None, "empty"),
        ([2, 300, 3], None, "vocabulary"),
        ([2, -1, 3], None, "vocabulary"),
        ([2, 2**31, 3], None, "vocabulary"),
        ([2, 50, 3], [0, 0], "2 entries for 3"),
        ([2, 50, 3], [0, 2, 0], "token_type_ids"),
        ([2, 50, 3], [0, -1, 0], "token_type_ids"),
        ([2, 50, 3], [0, 300, 0], "token_type_ids"),
        ([2, 3], None, "no tokens"),
        ([2, 2, 3, 3], None, "no tokens"),
    ],
)
def test_broken_ids(bare: Model, ids: list[int], types: list[int] | None, message: str) -> None:
    assert message in refused(bare, Row("one", input_ids=ids, token_type_ids=types))


# Masked language models -----------------------------------------------------------------------


def test_a_masked_text(bert_lm: Model) -> None:
    instance = one(bert_lm, "The film [MASK] good.", good="is", bad="was")
    assert instance.tokens == bracketed("the film [MASK] good .")
    assert instance.readout == 3
    assert instance.special.tolist() == [True, *[False] * 5, True]
    assert instance.removable.tolist() == [False, True, True, False, True, True, False]
    ids = wordpiece_tokenizer().convert_tokens_to_ids(["is", "was"])
    assert instance.contrast == tuple(ids)
    assert instance.contrast_words == ("is", "was")
    assert instance.label == 0
    assert instance.word_ids.tolist() == [-1, 0, 1, 2, 3, 3, -1]


def test_a_mask_at_either_end(bert_lm: Model) -> None:
    leading = one(bert_lm, "[MASK] film is good", good="the", bad="a")
    assert (leading.readout, leading.word_ids[1]) == (1, 0)
    trailing = one(bert_lm, "the film is [MASK]", good="good", bad="bad")
    assert (trailing.readout, trailing.word_ids[4]) == (4, 3)


def test_a_byte_level_mask(roberta_lm: Model) -> None:
    instance = one(roberta_lm, "the <mask> is good", good="film", bad="plot")
    assert instance.tokens[instance.readout] == "<mask>"
    vocabulary = roberta_lm.tokenizer.get_vocab()  # type: ignore[union-attr]
    assert instance.contrast == (vocabulary["Ġfilm"], vocabulary["Ġplot"])


@pytest.mark.parametrize(
    ("text", "good", "bad", "message"),
    [
        ("the film is good", "is", "was", "0 mask tokens"),
        ("the [MASK] is [MASK]", "film", "plot", "2 mask tokens"),
        ("the [MASK] is good", None, "plot", "missing"),
        ("the [MASK] is good", "film", None, "missing"),
        ("the [MASK] is good", "film", "film", "same token"),
        ("the [MASK] is good", "film", "Film", "same token"),
        ("the [MASK] is good", "uninteresting", "film", "'uninteresting' is not a single token"),
        ("the [MASK] is good", "film", "giraffe", "'giraffe' is not a single token"),
        ("the [MASK] is good", "good film", "film", "not a single token"),
        ("the [MASK] is good", "", "film", "not a single token"),
        ("the [MASK] is good", 43, 6, "outside the vocabulary"),
        ("the [MASK] is good", -1, 6, "outside the vocabulary"),
    ],
)
def test_masked_texts_that_are_refused(
    bert_lm: Model, text: str, good: str | int | None, bad: str | None, message: str
) -> None:
    assert message in refused(bert_lm, Row("one", text, good=good, bad=bad))


def test_a_mask_that_is_cut_off(bert_lm: Model) -> None:
    row = Row("one", "the film is very very [MASK]", good="good", bad="bad")
    assert "0 mask tokens" in refused(bert_lm, row, EncodeOptions(5))


def test_masked_ids_without_tokenizer(bare_lm: Model) -> None:
    row = Row("one", input_ids=[2, 50, 4, 60, 3], good=7, bad=8)
    instance = encode_row(bare_lm, row, BY_WHITESPACE)
    assert (instance.readout, instance.contrast) == (2, (7, 8))
    assert instance.contrast_words == ("7", "8")
    assert instance.removable.tolist() == [False, True, False, True, False]
    assert "vocabulary ids" in refused(bare_lm, replace(row, good="is"))


def test_a_mask_that_opens_a_row_of_ids(bare_lm: Model) -> None:
    # Without special tokens around it, the mask is the first token, and still stands for a word.
    row = Row("one", input_ids=[4, 50, 60, 3], good=7, bad=8)
    instance = encode_row(bare_lm, row, BY_WHITESPACE)
    assert instance.readout == 0
    assert instance.special.tolist() == [False, False, False, True]
    assert instance.removable.tolist() == [False, True, True, False]


def test_a_masked_lm_needs_to_know_its_mask(golden: LoadTiny) -> None:
    row = Row("one", input_ids=[2, 4, 3], good=7, bad=8)
    assert "--mask-token-id" in refused(golden("bert-golden-mlm"), row)
