"""Which folders are loaded, how, and what is said of the others."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers import BertForTokenClassification, BertModel

from schemas import UsageError
from tests.models import (
    BYTE_LEVEL,
    FAMILIES,
    MAX_LENGTH,
    TASKS,
    random_instances,
    save_tiny,
    tiny_config,
    tiny_network,
    wordpiece_tokenizer,
)
from transforms import attribute, load_model

SMALL = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "vocab_size": 20,
    "pad_token_id": 0,
}


def refusal(folder: Path, **options: Any) -> str:
    """The one sentence with which a folder is refused."""
    with pytest.raises(UsageError) as caught:
        load_model(folder, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def weights(folder: Path) -> Path:
    return folder / "model.safetensors"


# What is loaded -------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_loaded_model(tiny_folder: Callable[[str, str], Path], family: str, task: Any) -> None:
    folder = tiny_folder(family, task)
    model = load_model(folder)
    assert model.task == task
    assert not model.network.training
    assert not any(weight.requires_grad for weight in model.network.parameters())
    assert model.max_length == MAX_LENGTH
    assert (model.num_layers, model.head_size) == (3, 8)
    assert model.pad_id == (1 if family in BYTE_LEVEL else 0)
    assert model.mask_id == 4
    assert model.tokenizer is not None
    if task == "classification":
        assert (model.num_outputs, model.labels) == (3, ["LABEL_0", "LABEL_1", "LABEL_2"])
    else:
        assert (model.num_outputs, model.labels) == (2, ["correct", "wrong"])


@pytest.mark.parametrize("saved", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("wanted", ["float32", "float64", "bfloat16"])
def test_the_type_is_ours_whatever_was_saved(
    tmp_path: Path, saved: torch.dtype, wanted: str
) -> None:
    tiny_network("bert").to(saved).save_pretrained(tmp_path)
    model = load_model(tmp_path, dtype=wanted)
    assert model.dtype == getattr(torch, wanted)
    name = "bert.encoder.layer.0.output.dense.weight"
    stored = load_file(weights(tmp_path))[name]
    assert stored.dtype == saved
    assert (model.network.get_parameter(name) == stored.to(model.dtype)).all()


def test_float32_is_the_default(tmp_path: Path) -> None:
    tiny_network("bert").half().save_pretrained(tmp_path)
    assert load_model(tmp_path).dtype == torch.float32


def test_a_model_without_tokenizer(tmp_path: Path) -> None:
    save_tiny(tmp_path, "roberta", tokenizer=False)
    model = load_model(tmp_path)
    assert model.tokenizer is None
    assert model.mask_id is None
    assert load_model(tmp_path, mask_token_id=7).mask_id == 7


def test_a_model_in_shards(tmp_path: Path) -> None:
    tiny_network("bert").save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    load_model(tmp_path)
    next(tmp_path.glob("model-00002-*")).unlink()
    assert "model-00002-of" in refusal(tmp_path)


def test_a_path_may_be_a_string(tiny_folder: Callable[[str, str], Path]) -> None:
    assert load_model(str(tiny_folder("bert", "classification"))).task == "classification"


# Files that are missing or broken -------------------------------------------------------------


def test_no_folder(tmp_path: Path) -> None:
    assert "it has no config.json" in refusal(tmp_path / "nowhere")


def test_no_config(tmp_path: Path) -> None:
    save_tiny(tmp_path, "bert")
    (tmp_path / "config.json").unlink()
    message = refusal(tmp_path)
    assert str(tmp_path) in message
    assert "it has no config.json" in message


def test_no_weights(tmp_path: Path) -> None:
    save_tiny(tmp_path, "bert")
    weights(tmp_path).unlink()
    assert "no weights (model.safetensors)" in refusal(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "no-such-thing"}', "{}"])
def test_a_config_that_says_nothing(tmp_path: Path, text: str) -> None:
    save_tiny(tmp_path, "bert")
    (tmp_path / "config.json").write_text(text)
    assert str(tmp_path / "config.json") in refusal(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12345\n",
        b"",
        None,
    ],
    ids=["git-lfs pointer", "empty", "cut short"],
)
def test_weights_that_are_broken(tmp_path: Path, content: bytes | None) -> None:
    path = weights(save_tiny(tmp_path, "bert"))
    path.write_bytes(path.read_bytes()[:-1000] if content is None else content)
    assert f"the weights in {tmp_path} can't be loaded" in refusal(tmp_path)


def test_a_tokenizer_that_is_broken(tmp_path: Path) -> None:
    save_tiny(tmp_path, "bert")
    (tmp_path / "tokenizer.json").write_text("{")
    assert f"the tokenizer in {tmp_path} can't be loaded" in refusal(tmp_path)


def test_a_slow_tokenizer(tmp_path: Path) -> None:
    save_tiny(tmp_path, "roberta", tokenizer=False)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertweetTokenizer"}')
    (tmp_path / "vocab.txt").write_text("good 5\nfilm 4\n")
    (tmp_path / "bpe.codes").write_text("g o 5\n")
    assert "is not a fast one" in refusal(tmp_path)


# Pickles --------------------------------------------------------------------------------------


@pytest.fixture
def pickled(tmp_path: Path) -> Path:
    """A folder whose only weights are pickled."""
    folder = save_tiny(tmp_path / "pickled", "bert")
    torch.save(load_file(weights(folder)), folder / "pytorch_model.bin")
    weights(folder).rename(tmp_path / "model.safetensors")
    return folder


def test_pickles_are_not_opened_unasked(pickled: Path) -> None:
    message = refusal(pickled)
    assert "pytorch_model.bin" in message
    assert "--allow-pickle" in message


def test_pickles_are_opened_when_asked(pickled: Path) -> None:
    model = load_model(pickled, allow_pickle=True)
    for name, stored in load_file(pickled.parent / "model.safetensors").items():
        assert (model.network.get_parameter(name) == stored).all()


def test_other_safetensors_do_not_open_the_way_to_pickles(pickled: Path) -> None:
    weights(pickled.parent).rename(pickled / "adapter_model.safetensors")
    assert f"the weights in {pickled} can't be loaded" in refusal(pickled)


def test_safetensors_win_over_pickles(pickled: Path) -> None:
    weights(pickled.parent).rename(weights(pickled))
    (pickled / "pytorch_model.bin").write_bytes(b"no pickle at all")
    load_model(pickled)
    load_model(pickled, allow_pickle=True)


# Models that can't be explained ---------------------------------------------------------------


def test_a_head_that_was_never_trained(tmp_path: Path) -> None:
    BertModel(tiny_config("bert")).save_pretrained(tmp_path)
    change_config(tmp_path, architectures=["BertForSequenceClassification"])
    message = refusal(tmp_path)
    assert "lack 2 parameters of the model (classifier.bias, classifier.weight" in message
    assert "random numbers" in message


def test_a_head_of_another_size(tmp_path: Path) -> None:
    tiny_network("bert").save_pretrained(tmp_path)
    names = {str(number): f"class {number}" for number in range(5)}
    change_config(tmp_path, id2label=names, label2id={v: int(k) for k, v in names.items()})
    assert "lack 2 parameters of the model (classifier.bias, classifier.weight" in refusal(tmp_path)


def test_a_regression(tmp_path: Path) -> None:
    tiny_network("bert", num_labels=1).save_pretrained(tmp_path)
    assert "single output (a regression)" in refusal(tmp_path)


def test_a_multi_label_classifier(tmp_path: Path) -> None:
    tiny_network("bert", problem_type="multi_label_classification").save_pretrained(tmp_path)
    assert "multi-label classifier" in refusal(tmp_path)


@pytest.mark.parametrize("kind", [BertModel, BertForTokenClassification])
def test_another_task(tmp_path: Path, kind: Any) -> None:
    kind(tiny_config("bert")).save_pretrained(tmp_path)
    assert f"{tmp_path} is {kind.__name__}; only ...ForSequenceClassification" in refusal(tmp_path)


@pytest.mark.parametrize("architectures", [None, [], ["NoSuchForSequenceClassification"]])
def test_an_unnamed_architecture(tmp_path: Path, architectures: list[str] | None) -> None:
    tiny_network("bert").save_pretrained(tmp_path)
    change_config(tmp_path, architectures=architectures)
    assert '(see "architectures" in its config.json)' in refusal(tmp_path)


@pytest.mark.parametrize(
    ("family", "why"),
    [
        ("DebertaV2", "its attention never passes through the hook"),
        ("ModernBert", "its layers normalise before they attend (pre-LN)"),
        ("RobertaPreLayerNorm", "its layers normalise before they attend (pre-LN)"),
        ("GPT2", "it is a decoder"),
        ("MPNet", None),
    ],
)
def test_another_architecture(tmp_path: Path, family: str, why: str | None) -> None:
    config = getattr(transformers, f"{family}Config")(**SMALL)
    getattr(transformers, f"{family}ForSequenceClassification")(config).save_pretrained(tmp_path)
    message = refusal(tmp_path)
    reason = f": {why}" if why else ";"
    assert f"the architecture {config.model_type!r} is not supported{reason}" in message
    for known in FAMILIES:
        assert known in message


def test_relative_positions(tmp_path: Path) -> None:
    tiny_network("bert").save_pretrained(tmp_path)
    change_config(tmp_path, position_embedding_type="relative_key_query")
    assert "relative_key_query" in refusal(tmp_path)


def test_a_decoder(tmp_path: Path) -> None:
    tiny_network("bert").save_pretrained(tmp_path)
    change_config(tmp_path, is_decoder=True)
    assert "decoder" in refusal(tmp_path)


# Precision ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.1)])
def test_precisions_agree(
    tiny_folder: Callable[[str, str], Path], dtype: str, tolerance: float
) -> None:
    folder = tiny_folder("bert", "classification")
    exact, model = load_model(folder, dtype="float64"), load_model(folder, dtype=dtype)
    instances = random_instances(exact, [7, 13])
    found, expected = (attribute(m, instances, "attention_rollout") for m in (model, exact))
    assert found.failures == expected.failures == []
    for ours, theirs in zip(
        found.rows["attention_rollout"], expected.rows["attention_rollout"], strict=True
    ):
        assert ours is not None and theirs is not None
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=tolerance)


def test_saved_tokenizers_are_those_of_the_model(tiny_folder: Callable[[str, str], Path]) -> None:
    model = load_model(tiny_folder("electra", "classification"))
    assert model.tokenizer is not None
    assert model.tokenizer.get_vocab() == wordpiece_tokenizer().get_vocab()
