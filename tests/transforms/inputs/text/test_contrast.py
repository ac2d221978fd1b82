"""The correct and the wrong word of a masked LM: the pieces that stand where the mask does."""

from dataclasses import replace
from typing import Any

import pytest
from tokenizers import AddedToken

from attribeam.transforms import EncodeOptions, Instance, Model, Row, RowError
from attribeam.transforms.inputs.encode import encode_row
from tests.conftest import LoadTiny
from tests.schemas.test_words import metaspace_tokenizer
from tests.support.models import MAX_LENGTH, byte_level_tokenizer

OPTIONS = EncodeOptions(MAX_LENGTH)


@pytest.fixture(scope="module")
def bert(tiny: LoadTiny) -> Model:
    return tiny("bert", "masked_lm")


@pytest.fixture(scope="module", params=["usual", "takes in blanks"])
def roberta(tiny: LoadTiny, request: pytest.FixtureRequest) -> Model:
    """A byte-level model whose mask token leaves the blank before it, or takes it in."""
    tokenizer = byte_level_tokenizer()
    if request.param == "takes in blanks":
        tokenizer.add_special_tokens({"mask_token": AddedToken("<mask>", lstrip=True)})
    return replace(tiny("roberta", "masked_lm"), tokenizer=tokenizer)


def contrast(model: Model, text: str | None, good: Any, bad: Any, **more: Any) -> list[str]:
    instance: Instance = encode_row(model, Row("a", text, good=good, bad=bad, **more), OPTIONS)
    assert model.tokenizer is not None and instance.contrast is not None
    assert instance.input_ids[instance.readout] == model.mask_id
    return model.tokenizer.convert_ids_to_tokens(list(instance.contrast))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<mask> is good", ["the", "a"]),
        ("the film, <mask> is good", ["Ġthe", "Ġa"]),
        ("(<mask> is good)", ["the", "a"]),
        ("is “<mask>” good", ["the", "a"]),
        ("is <mask>", ["Ġthe", "Ġa"]),
        ("is <mask>, good", ["Ġthe", "Ġa"]),
        ("is\n<mask> good", ["the", "a"]),
        ("is  <mask>  good", ["Ġthe", "Ġa"]),
    ],
)
def test_the_piece_that_stands_there(roberta: Model, text: str, expected: list[str]) -> None:
    assert contrast(roberta, text, "the", "a") == expected
    # What the tokenizer itself makes of the texts with the words in them.
    assert roberta.tokenizer is not None
    for word, piece in zip(("the", "a"), expected, strict=True):
        assert piece in roberta.tokenizer.tokenize(text.replace("<mask>", word))


def test_a_mask_in_the_second_text(roberta: Model) -> None:
    pair = {"text_pair": "<mask> film"}
    assert contrast(roberta, "the film", "the", "a", **pair) == ["the", "a"]
    pair = {"text_pair": "is <mask> film"}
    assert contrast(roberta, "<pad>", "the", "a", **pair) == ["Ġthe", "Ġa"]


def test_a_mask_beyond_the_limit(roberta: Model) -> None:
    row = Row("a", "the film " * 30 + "<mask> is good", good="the", bad="a")
    options = EncodeOptions(MAX_LENGTH, overflow="stride")
    instance = encode_row(roberta, row, options)
    assert roberta.tokenizer is not None and instance.contrast is not None
    assert roberta.tokenizer.convert_ids_to_tokens(list(instance.contrast)) == ["Ġthe", "Ġa"]


def test_rows_of_ids(roberta: Model) -> None:
    tokenizer = roberta.tokenizer
    assert tokenizer is not None
    for tokens, expected in (
        (["<s>", "<mask>", "Ġis", "</s>"], ["the", "a"]),
        (["<s>", "Ġis", "<mask>", "</s>"], ["Ġthe", "Ġa"]),
        (["<mask>", "Ġis", "</s>"], ["the", "a"]),
    ):
        ids = tokenizer.convert_tokens_to_ids(tokens)
        assert contrast(roberta, None, "the", "a", input_ids=ids) == expected


@pytest.mark.parametrize("text", ["<mask> film", "the <mask> film", "the film, <mask>"])
def test_a_tokenizer_that_always_writes_a_blank(tiny: LoadTiny, text: str) -> None:
    tokenizer = metaspace_tokenizer()
    tokenizer.add_special_tokens({"mask_token": AddedToken("<mask>", lstrip=True)})
    model = replace(tiny("roberta", "masked_lm"), tokenizer=tokenizer)
    assert contrast(model, text, "the", "film") == ["▁the", "▁film"]


def test_the_pieces_of_wordpiece(bert: Model) -> None:
    assert contrast(bert, "the [MASK].", "Film", "PLOT") == ["film", "plot"]
    for written in ("caf\u00e9", "cafe\u0301"):
        assert contrast(bert, "[MASK] film", written, "good") == ["cafe", "good"]
    # Within a word, the piece that goes on with it.
    assert contrast(bert, "un[MASK] film", "interest", "good") == ["##interest", "##good"]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("the [MASK] film", "good bad"),
        ("the [MASK] film", "uninteresting"),
        ("the [MASK] film", "giraffe"),
        ("the [MASK] film", ""),
        ("the [MASK]ly", "dul"),
        ("good[MASK]", "x"),
    ],
)
def test_what_is_no_single_token_there(bert: Model, text: str, word: str) -> None:
    with pytest.raises(RowError, match="is not a single token where the mask stands"):
        contrast(bert, text, word, "film")
