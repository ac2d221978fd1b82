"""Pre-tokenised rows: padding, special tokens, the two texts of a pair, token types, length."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attribeam.pipeline.corpus.padding import padding_of, said
from attribeam.pipeline.running.manifest import read_manifest
from attribeam.transforms import (
    EncodeOptions,
    Instance,
    Model,
    Row,
    RowError,
    attribute,
    encode,
    load_model,
)
from attribeam.transforms.inputs.encode import encode_row, encode_windows
from attribeam.transforms.inputs.kinds import collate
from attribeam.transforms.inputs.text.tokenised import _longest_first
from attribeam.transforms.triggers import Trigger, attacked
from tests.conftest import LoadTiny
from tests.support.models import MAX_LENGTH, plain, save_tiny, tiny_network, wordpiece_tokenizer
from tests.support.tiny import command, table

OPTIONS = EncodeOptions(MAX_LENGTH)
TEXT = "the good film was not bad"
PAIR = ("the film was very dull", "it was not good")


@pytest.fixture(scope="module", params=["bert", "roberta", "distilbert"])
def model(tiny: LoadTiny, request: pytest.FixtureRequest) -> Model:
    return tiny(request.param, dtype="float64")


@pytest.fixture(scope="module")
def bert(tiny: LoadTiny) -> Model:
    return tiny("bert", dtype="float64")


@pytest.fixture(scope="module")
def bare(golden: LoadTiny) -> Model:
    """A model without tokenizer; its ids 2 and 3 open and close a text, and 0 is padding."""
    return golden("bert-golden", "float64")


def saved(model: Model, *texts: str, **options: Any) -> dict[str, list[int]]:
    """A row as data sets hold it after the tokenizer's own call."""
    assert model.tokenizer is not None
    return dict(model.tokenizer(*texts, padding="max_length", max_length=40, **options))


def from_row(model: Model, options: EncodeOptions = OPTIONS, **columns: Any) -> Instance:
    return encode_row(model, Row("ids", **columns), options)


def message(model: Model, **columns: Any) -> str:
    with pytest.raises(RowError) as found:
        from_row(model, **columns)
    return str(found.value)


def alike(one: Instance, other: Instance) -> bool:
    """Whether two instances are the same to a network, and in what is random."""
    names = ("input_ids", "segment", "special", "token_types")
    same = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)
    draws = [instance.generator(0, "any").random() for instance in (one, other)]
    return same and one.tokens == other.tokens and draws[0] == draws[1]


def logits(model: Model, instance: Instance) -> np.ndarray:
    with torch.no_grad():
        return model.run(collate(model, [instance]).rows)[0].numpy()[0]


# Padding --------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("texts", [(TEXT,), PAIR])
@pytest.mark.parametrize("masked", [True, False])
def test_a_padded_row_is_its_text(
    model: Model, side: str, texts: tuple[str, ...], masked: bool
) -> None:
    columns = saved(model, *texts, padding_side=side)
    if not masked:
        del columns["attention_mask"]
    instance = from_row(model, **columns)
    assert alike(instance, encode(model, [Row("text", *texts)])[0])
    assert len(instance) < 40


def test_a_padded_row_has_the_networks_logits(model: Model) -> None:
    columns = saved(model, *PAIR)
    with torch.no_grad():
        own = plain(model)(**{name: torch.tensor([row]) for name, row in columns.items()})
    found = logits(model, from_row(model, **columns))
    # The same sums in another order: batches of another width.
    np.testing.assert_allclose(found, own.logits[0].numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "mask", [[1, 1, 1, 1, 0, 0], [True] * 4 + [False] * 2, [1.0] * 4 + [0.0] * 2]
)
def test_special_tokens_under_the_mask_without_a_tokenizer(bare: Model, mask: list[Any]) -> None:
    instance = from_row(bare, input_ids=[2, 50, 60, 3, 0, 0], attention_mask=mask)
    assert instance.input_ids.tolist() == [2, 50, 60, 3]
    assert instance.special.tolist() == [True, False, False, True]
    unmasked = from_row(bare, input_ids=[2, 50, 60, 3, 0, 0])
    assert alike(instance, unmasked)


def test_padding_that_the_mask_shows_is_read(bare: Model) -> None:
    ids = [2, 50, 60, 3, 0, 0]
    instance = from_row(bare, input_ids=ids, attention_mask=[1] * 6)
    assert instance.input_ids.tolist() == ids
    assert instance.special.tolist() == [True, False, False, True, True, True]


def test_what_could_be_a_token_is_no_padding(bare: Model) -> None:
    # 0 is the default of a configuration, and the first token of RoBERTa's rows.
    assert len(from_row(bare, input_ids=[0, 50, 60, 3])) == 4
    assert len(from_row(bare, input_ids=[0, 0, 2, 50, 60, 3])) == 4
    assert len(from_row(bare, input_ids=[2, 50, 0, 60, 3])) == 5
    unknown = replace(bare, pad_id=None)
    assert len(from_row(unknown, input_ids=[2, 50, 60, 3, 0, 0])) == 6


def test_a_padding_token_that_closes_texts(tmp_path: Path) -> None:
    tokenizer = wordpiece_tokenizer()
    tokenizer.pad_token = "[SEP]"
    tiny_network("bert").save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = load_model(tmp_path)
    text = encode(model, ["the good film"])[0]
    ids = text.input_ids.tolist()
    assert alike(from_row(model, input_ids=[*ids, 3, 3, 3]), text)
    assert alike(from_row(model, input_ids=ids), text)
    bare = load_model(tmp_path, tokenizer=False)
    bare.pad_id, bare.network.config.eos_token_id = 3, 3
    assert from_row(bare, input_ids=[*ids, 3, 3, 3]).input_ids.tolist() == ids


def test_an_id_that_no_tokenizer_has(tmp_path: Path) -> None:
    # Embeddings are often padded to a multiple of 8 or 64.
    tiny_network("bert", vocab_size=48).save_pretrained(tmp_path)
    wordpiece_tokenizer().save_pretrained(tmp_path)
    model = load_model(tmp_path)
    instance = from_row(model, input_ids=[2, 8, 45, 3])
    assert instance.tokens[2] == "45"
    assert "id 48 is outside the model's vocabulary (48)" in message(model, input_ids=[2, 48, 3])


def test_a_padding_token_of_the_tokenizer_wins(tmp_path: Path) -> None:
    save_tiny(tmp_path, "bert", tokenizer=True)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"pad_token_id": 0', '"pad_token_id": 7'))
    assert load_model(tmp_path).pad_id == 0


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ([0, 0, 0, 0], "attention_mask hides every token"),
        ([1, 1, 1], "attention_mask has 3 entries for 4 input_ids"),
        ([1, 0, 1, 1], "attention_mask hides 1 tokens between others (the first at 1)"),
        ([1, 2, 1, 1], "attention_mask holds 2"),
        ([1.0, 0.5, 1.0, 0.0], "attention_mask is not a list of integers"),
        (["a", "b", "c", "d"], "attention_mask is not a list of integers"),
        ([[1, 1, 1, 1]], "attention_mask is not a list of integers"),
        ([1, None, 1, 1], "attention_mask is not a list of integers"),
        ([1, float("nan"), 1, 1], "attention_mask is not a list of integers"),
    ],
)
def test_masks_that_are_refused(bare: Model, mask: list[Any], expected: str) -> None:
    assert expected in message(bare, input_ids=[2, 50, 60, 3], attention_mask=mask)


def test_a_row_of_padding_alone(bare: Model) -> None:
    assert "nothing but padding (id 0)" in message(bare, input_ids=[0, 0, 0])


def test_what_padding_holds_is_of_no_consequence(bare: Model) -> None:
    mask = [1, 1, 1, 0, 0]
    instance = from_row(bare, input_ids=[2, 50, 3, -100, 999], attention_mask=mask)
    assert instance.input_ids.tolist() == [2, 50, 3]
    typed = from_row(
        bare, input_ids=[2, 50, 3, 0, 0], attention_mask=mask, token_type_ids=[0, 0, 0, 9, 9]
    )
    assert alike(instance, typed)


def test_limits_count_real_tokens(model: Model) -> None:
    columns = saved(model, TEXT)
    real = sum(columns["attention_mask"])
    for overflow in ("truncate", "fail", "stride"):
        options = EncodeOptions(real, overflow=overflow)
        assert not from_row(model, options, **columns).truncated
    windows = encode_windows(model, Row("a", **columns), EncodeOptions(real - 1, overflow="stride"))
    assert len(windows) == 2


# Special tokens -------------------------------------------------------------------------------


def test_special_tokens_that_the_row_marks(bare: Model, bert: Model) -> None:
    marks = [1, 0, 0, 0, 1, 1]
    instance = from_row(
        bare,
        input_ids=[2, 50, 2, 60, 9, 0],
        special_tokens_mask=marks,
        attention_mask=[1, 1, 1, 1, 1, 0],
    )
    assert instance.special.tolist() == [True, False, False, False, True]
    # As some tokenizers mark them: the mask and the unknown token stand for words all the same.
    ids = bert.tokenizer.convert_tokens_to_ids(["[CLS]", "[UNK]", "[MASK]", "film", "[SEP]"])  # type: ignore[union-attr]
    instance = from_row(bert, input_ids=ids, special_tokens_mask=[1, 1, 1, 0, 1])
    assert instance.special.tolist() == [True, False, False, False, True]
    assert "special_tokens_mask has 1" in message(bert, input_ids=ids, special_tokens_mask=[1])


def test_a_token_added_as_special_stands_for_text(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "bert")
    model = load_model(folder)
    assert model.tokenizer is not None
    model.tokenizer.add_special_tokens({"additional_special_tokens": ["film"]})
    text = encode(model, ["the good film was bad"])[0]
    assert alike(from_row(model, input_ids=text.input_ids.tolist()), text)
    assert text.special.tolist() == [True, *[False] * 5, True]


# Pairs ----------------------------------------------------------------------------------------


def test_token_types_are_those_of_the_tokenizers_call(bert: Model) -> None:
    tokenizer = bert.tokenizer
    assert tokenizer is not None
    usual = tokenizer.model_input_names
    for names, types in ((["input_ids"], 0), (usual, 1)):
        tokenizer.model_input_names = names
        instance = encode(bert, [Row("a", *PAIR)])[0]
        assert instance.segment.max() == 1
        assert instance.token_types.max() == types
        rows = tokenizer(*PAIR, return_tensors="pt")
        with torch.no_grad():
            own = plain(bert)(**rows).logits[0].numpy()
        np.testing.assert_allclose(logits(bert, instance), own, rtol=0, atol=1e-12)
        ids = from_row(bert, **{name: row[0].tolist() for name, row in rows.items()})
        assert alike(ids, instance)


def test_a_model_with_one_token_type_runs_pairs(tmp_path: Path) -> None:
    tiny_network("bert", type_vocab_size=1).save_pretrained(tmp_path)
    wordpiece_tokenizer().save_pretrained(tmp_path)
    model = load_model(tmp_path)
    instance = encode(model, [Row("a", *PAIR)])[0]
    assert instance.segment.max() == 1
    assert attribute(model, [instance], ["saliency"]).failures == []
    ids = from_row(model, **saved(model, *PAIR))
    assert alike(ids, instance)


def test_a_token_type_that_the_model_lacks(bert: Model) -> None:
    instance = encode(bert, ["the film"])[0]
    beyond = replace(instance, types=np.full(len(instance), 2, np.int32))
    found = attribute(bert, [beyond, instance], ["saliency"])
    assert found.predictions[1] is not None
    assert [failure.message for failure in found.failures] == [
        "the token type 2 is none of the model's (0 to 1)"
    ]


def test_a_family_with_two_token_types_where_most_have_one(tmp_path: Path) -> None:
    tiny_network("roberta", type_vocab_size=2).double().save_pretrained(tmp_path)
    tokenizer = wordpiece_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    model = load_model(tmp_path, dtype="float64")
    pair = ("the film was very dull", "a good film")
    with torch.no_grad():
        own = plain(model)(**tokenizer(*pair, return_tensors="pt")).logits[0].numpy()
    instance = encode(model, [pair])[0]
    assert instance.token_types.max() == 1
    np.testing.assert_allclose(logits(model, instance), own, rtol=0, atol=1e-12)


def test_a_trigger_gets_the_token_type_of_its_place(bert: Model) -> None:
    pair = encode(bert, [PAIR])[0]
    fed = replace(pair, types=np.where(pair.segment == 0, 1, 0).astype(np.int32))
    trigger = Trigger((5, 6), ("a", "b"), (0, 1), (1, 9), (0.5, 0.5), 1.0)
    found = attacked(fed, trigger)
    assert len(found) == len(pair) + 2
    assert (found.token_types == 1 - found.segment).all()


@pytest.mark.parametrize("limit", range(8, 20))
@pytest.mark.parametrize("long", [0, 1])
def test_a_pair_is_cut_as_its_texts_are(model: Model, limit: int, long: int) -> None:
    texts = ["good film", "a very bad plot and it was dull"]
    row = Row("a", texts[long], texts[1 - long])
    whole = saved(model, texts[long], texts[1 - long])
    options = EncodeOptions(limit)
    assert alike(from_row(model, options, **whole), encode(model, [row], options)[0])


@pytest.mark.parametrize("long", [0, 1])
def test_a_pair_makes_the_windows_of_its_texts(model: Model, long: int) -> None:
    texts = ["good", "a very bad plot and the film was not good but dull and bad"]
    row = Row("a", texts[long], texts[1 - long])
    whole = dict(model.tokenizer(*(texts[long], texts[1 - long])))  # type: ignore[misc]
    options = EncodeOptions(14, overflow="stride")
    of_text = encode(model, [row], options)
    of_ids = encode(model, [Row("a", **whole)], options)
    assert len(of_text) == len(of_ids) > 1
    assert all(alike(one, other) for one, other in zip(of_ids, of_text, strict=True))


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 23))
def test_longest_first_is_the_tokenizers(bert: Model, first: int, second: int, room: int) -> None:
    if room >= first + second:
        return
    tokenizer = bert.tokenizer
    assert tokenizer is not None
    cut = tokenizer(
        "good " * first, "bad " * second, truncation="longest_first", max_length=room + 3
    )
    ids = cut["input_ids"]
    good, bad = (ids.count(tokenizer.convert_tokens_to_ids(word)) for word in ("good", "bad"))
    assert _longest_first([first, second], room) == [good, bad]


def test_no_room_for_special_tokens(bare: Model) -> None:
    with pytest.raises(RowError, match="2 special tokens leave no room"):
        from_row(bare, EncodeOptions(2), input_ids=[2, 50, 60, 3])


# Runs -----------------------------------------------------------------------------------------


def test_padding_of_a_part_of_the_corpus(bare: Model) -> None:
    rows = [Row("a", input_ids=[0, 2, 8, 3], attention_mask=[0, 1, 1, 1]), Row("b", text="good")]
    counts = padding_of(rows, bare)
    assert counts == {"left": 1, "right": 0, "without_mask": 0}
    (sentence,) = said(counts, bare, looked_at=2)
    assert sentence.startswith("rows that are padded on the left: 1 of 2 looked at;")
    bare_ends = padding_of([Row("a", input_ids=[2, 8, 3, 0])], bare)
    (sentence,) = said(bare_ends, bare, looked_at=3)
    assert "without an attention_mask: 1 of 3 looked at;" in sentence


def test_a_run_says_what_is_padding(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", "bert", tokenizer=False)
    rows = {
        "id": ["left", "right", "none", "bare", "hidden"],
        "input_ids": [
            [0, 0, 2, 8, 3],
            [2, 8, 3, 0, 0],
            [2, 8, 9, 10, 3],
            [2, 8, 3, 0, 0],
            [2, 8, 3, 0, 0],
        ],
        "attention_mask": [[0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [1] * 5, None, [0] * 5],
    }
    pq.write_table(pa.table(rows), tmp_path / "corpus.parquet")
    arguments = ("--model", folder, "--corpus", tmp_path / "corpus.parquet")
    out = tmp_path / "out"
    options = ("--methods", "saliency", "--no-evaluate", "--output", out)
    planned = command("plan", *arguments, "--methods", "saliency", "--no-evaluate", "--sample", 4)
    outcome = command("run", *arguments, *options)
    assert (planned.status, outcome.status) == (0, 1)
    for printed in (planned.out, outcome.out):
        assert "padded on the left: 2;" in printed
        assert "without an attention_mask: 1;" in printed
    instances = {row["instance_id"]: row for row in table(out, "instances").to_pylist()}
    assert {name: len(row["tokens"]) for name, row in instances.items()} == {
        **{"left": 3, "right": 3, "none": 5, "bare": 3}
    }
    assert instances["left"]["logits"] == instances["right"]["logits"]
    assert table(out, "failures")["message"].to_pylist() == ["attention_mask hides every token"]
    identity = read_manifest(str(out))["identity"]  # type: ignore[index]
    assert identity["corpus"]["padding"] == {"left": 2, "right": 3, "without_mask": 1}
    assert identity["settings"]["token_types"] == "zeros"
    assert command("run", *arguments, *options).out.startswith("nothing left to do")
