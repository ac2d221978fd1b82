"""Words as the view ``words`` spells them: what stands between whitespace, for every tokenizer."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from attribeam.pipeline.running.tables import attributions_table, instances_table
from attribeam.schemas import table_schema
from attribeam.schemas.views import VIEWS
from attribeam.transforms import EncodeOptions, Instance, Model, Prediction, Row, encode
from attribeam.transforms.attribute import Attribution
from attribeam.transforms.inputs.encode import encode_rows
from tests.conftest import LoadTiny
from tests.support.models import MAX_LENGTH

ALPHABET = "the film go.,é\n\r\t\u00a0\u3000\u2028\u0301\u200b\ufeff😀"
# A piece for each character, since Unigram makes one token of what it doesn't know in a row.
PIECES = [
    "<s>",
    "<pad>",
    "</s>",
    "<unk>",
    "<mask>",
    "▁",
    "▁the",
    "▁film",
    *ALPHABET,
    *"dirtyowas()ca",
]
TEXTS = [
    "the food\nthe room\r\n\twas  dirty \n",
    " \n the\u00a0film\u3000(the\u2028film)",
    "cafe\u0301 go\u200b \ufeffthe film\ufe0f, \u200dfilm",
    "the " * 60 + "cafe\u0301 film",
]


def metaspace_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer like XLM-R's, without its normaliser: a blank goes with what follows it."""
    vocabulary = [(piece, -float(len(PIECES) - len(piece))) for piece in dict.fromkeys(PIECES)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **{"cls_token": "<s>", "sep_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
    )


@pytest.fixture(scope="module", params=["wordpiece", "byte level", "metaspace"])
def model(tiny: LoadTiny, request: pytest.FixtureRequest) -> Model:
    if request.param == "wordpiece":
        return tiny("bert")
    found = tiny("roberta")
    return (
        found if request.param == "byte level" else replace(found, tokenizer=metaspace_tokenizer())
    )


@pytest.fixture(scope="module")
def views() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("create table methods (method text, word_score text)")
        yield connection


def words(views: duckdb.DuckDBPyConnection, instances: list[Instance]) -> list[dict[str, Any]]:
    """The rows of the view for instances whose tokens have the scores 1, 2 and so on."""
    logits = np.zeros(2)
    prediction = Prediction(logits, logits + 0.5, 0)
    found = [
        (instance, Attribution(0, np.arange(1.0, len(instance) + 1), None, 0.0))
        for instance in instances
    ]
    tables = {
        "instances": instances_table([(i, prediction) for i in instances], double=True),
        "attributions": attributions_table(found, "one", double=True),
    }
    return select(views, tables, ["word_within", "words"], "from words order by all")


def select(
    views: duckdb.DuckDBPyConnection, tables: dict[str, pa.Table], names: list[str], query: str
) -> list[dict[str, Any]]:
    """What a query comes to, over some tables and views."""
    for name, table in tables.items():
        views.register("given", table)
        views.execute(f"create or replace table {name} as from given")
    for view in VIEWS:
        if view.name in names:
            views.execute(view.sql.replace("create ", "create or replace ", 1))
    return views.sql(query).to_arrow_table().to_pylist()


def check(views: duckdb.DuckDBPyConnection, instances: list[Instance]) -> None:
    texts = {i.row_id or i.instance_id: (i.text or "", i.text_pair or "") for i in instances}
    rows = words(views, instances)
    for row in rows:
        own = texts[row["instance_id"].split("/")[0]][row["segment"]]
        assert row["word"] == own.split()[row["word_id"]]
    total = sum((~i.special).nonzero()[0].sum() + (~i.special).sum() for i in instances)
    assert sum(row["score_sum"] for row in rows) == total


@pytest.mark.parametrize("text", TEXTS)
def test_words_stand_between_whitespace(
    model: Model, views: duckdb.DuckDBPyConnection, text: str
) -> None:
    options = EncodeOptions(MAX_LENGTH, overflow="stride")
    check(views, encode(model, [text, Row("pair", "the film", text)], options))


@settings(max_examples=60)
@given(texts=st.lists(st.text(st.sampled_from(ALPHABET), max_size=30), min_size=1, max_size=4))
def test_words_of_any_text(
    model: Model, views: duckdb.DuckDBPyConnection, texts: list[str]
) -> None:
    rows = [Row(f"row-{number}", text) for number, text in enumerate(texts)]
    instances, _ = encode_rows(model, rows, EncodeOptions(MAX_LENGTH))
    if instances:
        check(views, instances)


def test_words_of_the_tokenizer_have_no_whitespace_either(
    tiny: LoadTiny, views: duckdb.DuckDBPyConnection
) -> None:
    options = EncodeOptions(MAX_LENGTH, words="tokenizer")
    instances = encode(tiny("roberta"), ["the\nfilm,\u00a0 cafe\u0301 the\n\n"], options)
    found = [row["word"] for row in words(views, instances)]
    # Of whitespace alone, a word stays what it is; what is a word of its own is no other's.
    assert found == ["the", "\n", "film", ",", "\u00a0", "cafe", "\u0301", "the", "\n\n"]


def test_words_of_ids_have_no_text(tiny: LoadTiny, views: duckdb.DuckDBPyConnection) -> None:
    instances = encode(tiny("bert"), [Row("a", input_ids=[2, 8, 9, 3])])
    assert [row["word"] for row in words(views, instances)] == [None, None]


# Kinds of tokens ------------------------------------------------------------------------------


def kinds(views: duckdb.DuckDBPyConnection, instances: list[Instance]) -> list[str]:
    """The role of each token, by the view ``information_tokens``."""
    logits = np.zeros(2)
    prediction = Prediction(logits, logits + 0.5, 0)
    bits = [
        {"instance_id": i.instance_id, "method": "one", "layer": 0, "bits": [1.0] * len(i)}
        for i in instances
    ]
    schema = table_schema("information", double=True)
    tables = {
        "instances": instances_table([(i, prediction) for i in instances], double=True),
        "information": pa.Table.from_pylist(bits, schema),
    }
    query = "select role from information_tokens order by instance_id, position"
    return [row["role"] for row in select(views, tables, ["information_tokens"], query)]


def test_kinds_of_tokens_are_told_by_the_text(
    tiny: LoadTiny, views: duckdb.DuckDBPyConnection
) -> None:
    text = "the film , \u2014 \u201cgood\u201d \u00e9 7 😀 !"
    for model in (tiny("roberta"), tiny("bert")):
        instance = encode(model, [text])[0]
        found = kinds(views, [instance])
        assert found[0] == "readout" and found[-1] == "special"
        for role, start, end in zip(
            found[1:-1], instance.char_start[1:-1], instance.char_end[1:-1], strict=True
        ):
            piece = text[start:end]
            assert role == ("text" if any(map(str.isalnum, piece)) else "punctuation"), piece
        assert {"text", "punctuation"} <= set(found)


def test_kinds_of_tokens_of_a_pair_in_windows(
    tiny: LoadTiny, views: duckdb.DuckDBPyConnection
) -> None:
    options = EncodeOptions(12, overflow="stride")
    instances = encode(tiny("bert"), [("!", "good , " * 12)], options)
    assert len(instances) > 1
    expected = [
        {"[CLS]": "readout", "[SEP]": "special", "good": "text"}.get(token, "punctuation")
        for instance in instances
        for token in instance.tokens
    ]
    assert kinds(views, instances) == expected


def test_kinds_of_tokens_without_a_text(tiny: LoadTiny, views: duckdb.DuckDBPyConnection) -> None:
    model = tiny("roberta")
    assert model.tokenizer is not None
    ids = model.tokenizer.convert_tokens_to_ids(["<s>", "the", "Ġfilm", ",", "Ġ", "!", "</s>"])
    found = kinds(views, encode(model, [Row("a", input_ids=ids)]))
    assert found == ["readout", "text", "text", *["punctuation"] * 3, "special"]
