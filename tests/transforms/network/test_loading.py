"""Which folders are loaded, how, and what is said of the others."""

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import BertForNextSentencePrediction, BertForQuestionAnswering, BertModel

from attribeam.pipeline.running.fingerprint import tokenizer_identity
from attribeam.schemas import UsageError
from attribeam.transforms import EncodeOptions, Row, RowError, attribute, choose, encode, load_model
from attribeam.transforms.inputs.encode import encode_rows
from tests.conftest import LoadTiny
from tests.support.conditioning import SINGLE
from tests.support.models import (
    BYTE_LEVEL,
    CLASSES,
    FAMILIES,
    MAX_LENGTH,
    TASKS,
    byte_level_tokenizer,
    random_instances,
    save_tiny,
    tiny_config,
    tiny_network,
    wordpiece_tokenizer,
)
from tests.support.tiny import command, table, write_jsonl

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


def test_an_adapter(tmp_path: Path) -> None:
    adapter = {"base_model_name_or_path": "somebody/bert-base", "peft_type": "LORA"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(adapter))
    (tmp_path / "adapter_model.safetensors").touch()
    message = refusal(tmp_path)
    assert f"{tmp_path} holds an adapter of somebody/bert-base" in message
    assert "merge" in message


def test_a_model_in_a_sub_folder(tmp_path: Path) -> None:
    for name in ("checkpoint-500", "checkpoint-1000"):
        save_tiny(tmp_path / name, "bert")
    wordpiece_tokenizer().save_pretrained(tmp_path)
    last = tmp_path / "checkpoint-1000"
    message = refusal(tmp_path)
    assert f"checkpoint-1000 in it does (2 sub-folders do): name {last}" in message


def test_a_tokenizer_alone(tmp_path: Path) -> None:
    wordpiece_tokenizer().save_pretrained(tmp_path)
    assert "it has no config.json, only a tokenizer" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("tf_model.h5", "TensorFlow (tf_model.h5); save them anew with transformers 4"),
        ("flax_model.msgpack", "from_flax=True"),
        ("onnx/model.onnx", "ONNX (onnx/model.onnx), which is an export"),
        ("model-q8.gguf", "GGUF"),
    ],
)
def test_weights_of_others(tmp_path: Path, name: str, says: str) -> None:
    weights(save_tiny(tmp_path, "bert")).unlink()
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    message = refusal(tmp_path)
    assert "no weights (model.safetensors)" in message
    assert says in message


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


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """A model whose tokenizer exists in Python alone."""
    folder = save_tiny(tmp_path / "slow", "roberta", tokenizer=False)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertweetTokenizer"}')
    (folder / "vocab.txt").write_text("good 5\nfilm 4\n")
    (folder / "bpe.codes").write_text("g o 5\n")
    return folder


def test_a_slow_tokenizer(slow: Path) -> None:
    message = refusal(slow)
    assert "(BertweetTokenizer) is not a fast one" in message
    assert "so that it holds input_ids and attention_mask in place of texts" in message


def test_rows_of_ids_need_no_fast_tokenizer(slow: Path, tmp_path: Path) -> None:
    texts = write_jsonl(tmp_path / "texts.jsonl", [{"text": "good film"}])
    arguments = ("--model", slow, "--output", tmp_path / "out", "--methods", "saliency")
    outcome = command("run", *arguments, "--corpus", texts)
    assert outcome.status == 2
    assert "(BertweetTokenizer) is not a fast one" in outcome.err
    ids = write_jsonl(tmp_path / "ids.jsonl", [{"text": "good film", "input_ids": [0, 5, 6, 2]}])
    assert command("run", *arguments, "--corpus", ids, "--no-evaluate").status == 0
    assert table(tmp_path / "out", "instances")["tokens"].to_pylist() == [["0", "5", "6", "2"]]


def test_a_sentencepiece_model_alone(tmp_path: Path) -> None:
    save_tiny(tmp_path, "xlm-roberta", tokenizer=False)
    (tmp_path / "sentencepiece.bpe.model").write_bytes(b"no model, but nobody reads it")
    message = refusal(tmp_path)
    assert "is a sentencepiece model (sentencepiece.bpe.model)" in message
    assert "pip install 'sentencepiece<0.2.2'" in message
    assert load_model(tmp_path, tokenizer=False).tokenizer is None
    hashes = tokenizer_identity(tmp_path, None)
    (tmp_path / "sentencepiece.bpe.model").write_bytes(b"another")
    assert tokenizer_identity(tmp_path, None) != hashes
    # What is saved beside a tokenizer.json is not read.
    byte_level_tokenizer().save_pretrained(tmp_path)
    assert load_model(tmp_path).tokenizer is not None


def test_a_tokenizer_without_its_vocabulary(tmp_path: Path) -> None:
    save_tiny(tmp_path, "bert")
    (tmp_path / "tokenizer.json").unlink()
    model = load_model(tmp_path)
    assert model.tokenizer is None
    assert "(TokenizersBackend) has no vocabulary there (tokenizer.json" in model.no_tokenizer


@pytest.mark.parametrize(
    ("family", "name", "content"),
    [
        ("bert", "spiece.model", b"x"),
        ("bert", "vocab.txt", b""),
        ("roberta", "vocab.txt", b"good\n"),
    ],
)
def test_a_tokenizer_that_reads_no_vocabulary(
    family: str, name: str, content: bytes, tmp_path: Path
) -> None:
    """Of a file of another class; then transformers makes one that knows special tokens alone."""
    save_tiny(tmp_path, family, tokenizer=False)
    (tmp_path / name).write_bytes(content)
    message = refusal(tmp_path)
    assert f"knows no tokens but special ones, whatever is in {name}: save it" in message


def test_a_vocabulary_without_an_unknown_token(tmp_path: Path) -> None:
    save_tiny(tmp_path, "bert", tokenizer=False)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    (tmp_path / "vocab.txt").write_text("good\nfilm\n")
    model = load_model(tmp_path)
    rows = [Row("a", text="good film"), Row("b", text="a film")]
    instances, failures = encode_rows(model, rows, EncodeOptions(max_length=8))
    assert [each.instance_id for each in (*instances, *failures)] == ["a", "b"]
    assert "the tokenizer can't read the text: WordPiece error" in failures[0].message


def test_want_of_memory_is_no_fault_of_the_text(
    tiny: LoadTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    def whole(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr("attribeam.transforms.inputs.text.texts.whole", whole)
    with pytest.raises(MemoryError, match="no room"):
        encode(tiny("bert"), ["good film"])


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


def test_what_a_trainer_leaves_is_no_weights(pickled: Path) -> None:
    (pickled / "pytorch_model.bin").rename(pickled / "training_args.bin")
    (pickled / "optimizer.pt").touch()
    assert "has a config.json but no weights" in refusal(pickled)


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


@pytest.mark.parametrize(
    ("changes", "task", "labels"),
    [
        ({"num_labels": 1}, "regression", ["LABEL_0"]),
        ({"num_labels": 1, "problem_type": "regression"}, "regression", ["LABEL_0"]),
        ({"num_labels": 2, "problem_type": "regression"}, "regression", ["value"]),
        ({"problem_type": "multi_label_classification"}, "multi_label", ["no", "yes"]),
    ],
)
def test_values_and_labels(
    tmp_path: Path, changes: dict[str, Any], task: str, labels: list[str]
) -> None:
    tiny_network("bert", **changes).save_pretrained(tmp_path)
    model = load_model(tmp_path)
    assert (model.task, model.labels, model.num_outputs) == (task, labels, len(labels))


# Limits and special tokens --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stated", "expected"),
    [(16, 16), (MAX_LENGTH + 10, MAX_LENGTH), (int(1e30), MAX_LENGTH), (0, MAX_LENGTH)],
)
def test_the_smaller_limit(tmp_path: Path, stated: int, expected: int) -> None:
    save_tiny(tmp_path, "roberta", tokenizer=False)
    tokenizer = byte_level_tokenizer()
    tokenizer.model_max_length = stated
    tokenizer.save_pretrained(tmp_path)
    model = load_model(tmp_path)
    assert (model.max_length, model.capacity) == (expected, MAX_LENGTH)
    assert len(encode(model, ["the film " * 40])[0]) == expected


def test_the_limit_that_a_run_takes(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", "bert", tokenizer=False)
    tokenizer = wordpiece_tokenizer()
    tokenizer.model_max_length = 8
    tokenizer.save_pretrained(folder)
    texts = write_jsonl(tmp_path / "texts.jsonl", [{"text": "the film was not good " * 4}])
    ids = write_jsonl(tmp_path / "ids.jsonl", [{"input_ids": [2, *range(5, 20), 3]}])

    def run(name: str, *options: Any) -> tuple[str, int]:
        out = tmp_path / name
        arguments = ("--model", folder, "--output", out, "--methods", "random", "--no-evaluate")
        outcome = command("run", *arguments, *options)
        assert outcome.status == 0
        return outcome.err, len(table(out, "instances")["tokens"][0])

    said, length = run("stated", "--corpus", texts)
    assert "the limit is 8 tokens, as the tokenizer states" in said
    assert length == 8
    said, length = run("given", "--corpus", texts, "--max-length", "12")
    assert "--max-length 12 is more than the tokenizer's limit (model_max_length 8)" in said
    assert length == 12
    # Who tokenised a corpus has cut it as well.
    assert run("ids", "--corpus", ids) == ("", 17)


def test_special_tokens_outside_the_vocabulary(tmp_path: Path) -> None:
    tiny_network("bert").save_pretrained(tmp_path)
    tokenizer = wordpiece_tokenizer()
    tokenizer.add_special_tokens({"mask_token": "<blank>", "pad_token": "<padding>"})
    tokenizer.save_pretrained(tmp_path)
    model = load_model(tmp_path)
    assert model.mask_id is None
    assert model.pad_id == 0  # The configuration's.
    with pytest.raises(RowError, match=r"token '<padding>' \(id \d+\) is outside the model's"):
        encode(model, ["the <padding> film"])


def test_no_padding_token(tmp_path: Path) -> None:
    save_tiny(tmp_path, "bert", tokenizer=False)
    change_config(tmp_path, pad_token_id=None)
    model = load_model(tmp_path, mask_token_id=4)
    assert model.pad_id is None
    instances = encode(
        model, [Row("a", input_ids=[2, 8, 9, 0, 3]), Row("b", input_ids=[2, 8, 3, 0, 0])]
    )
    assert [len(instance) for instance in instances] == [5, 5]
    found = attribute(model, [*instances, encode(model, [Row("c", input_ids=[2, 8, 3])])[0]], "w")
    assert found.failures == []
    for method, name in (("integrated_gradients", "baseline"), ("influence", "baseline")):
        chosen = choose(method, {method: {name: "pad"}})
        with pytest.raises(UsageError, match="padding token, which is unknown"):
            attribute(model, instances, chosen)


def test_positions_that_count_from_an_unknown_padding_token(tmp_path: Path) -> None:
    save_tiny(tmp_path, "roberta")
    change_config(tmp_path, pad_token_id=None)
    assert '"pad_token_id" in' in refusal(tmp_path)


def test_a_mask_token_outside_the_vocabulary(tmp_path: Path) -> None:
    save_tiny(tmp_path, "bert")
    assert "--mask-token-id 43 is outside" in refusal(tmp_path, mask_token_id=43)


@pytest.mark.parametrize("kind", [BertModel, BertForNextSentencePrediction])
def test_another_task(tmp_path: Path, kind: Any) -> None:
    kind(tiny_config("bert")).save_pretrained(tmp_path)
    assert f"{tmp_path} is {kind.__name__}; only ...ForSequenceClassification" in refusal(tmp_path)


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "gpt_neox"])
def test_a_family_without_heads_for_spans(tmp_path: Path, family: str) -> None:
    kind = getattr(transformers, f"{CLASSES[family]}ForQuestionAnswering")
    kind(tiny_config(family, num_labels=2)).save_pretrained(tmp_path)
    assert "classification and token_classification, none for span" in refusal(tmp_path)


def test_spans_of_three_logits(tmp_path: Path) -> None:
    BertForQuestionAnswering(tiny_config("bert", num_labels=3)).save_pretrained(tmp_path)
    assert "gives 3 logits per token, but where an answer starts and ends" in refusal(tmp_path)


@pytest.mark.parametrize("architectures", [None, [], ["NoSuchForSequenceClassification"]])
def test_an_unnamed_architecture(tmp_path: Path, architectures: list[str] | None) -> None:
    tiny_network("bert").save_pretrained(tmp_path)
    change_config(tmp_path, architectures=architectures)
    assert '(see "architectures" in its config.json)' in refusal(tmp_path)


@pytest.mark.parametrize(
    ("family", "why"),
    [
        ("Deberta", "its projections are of another form than those of deberta-v2"),
        ("ConvBert", None),
        ("GPTJ", None),
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


@pytest.mark.parametrize(
    ("family", "changes", "why"),
    [
        ("deberta-v2", {"conv_kernel_size": 3}, "it has a convolution beside its first layer"),
        ("deberta-v2", {"embedding_size": 16}, "its embeddings are projected before"),
        ("deberta-v2", {"pooler_hidden_act": "tanh"}, "its pooler's activation is tanh"),
        ("gemma2", {"use_bidirectional_attention": True}, "its attention is bidirectional"),
        ("gpt2", {"add_cross_attention": True}, "it attends to an encoder"),
    ],
)
def test_variants_of_families(
    tmp_path: Path, family: str, changes: dict[str, Any], why: str
) -> None:
    tiny_network(family).save_pretrained(tmp_path)
    change_config(tmp_path, **changes)
    assert f"is a {family} that can't be explained: {why}" in refusal(tmp_path)


def test_relative_positions(tmp_path: Path) -> None:
    tiny_network("bert").save_pretrained(tmp_path)
    change_config(tmp_path, position_embedding_type="relative_key_query")
    assert "relative_key_query" in refusal(tmp_path)


def test_a_decoder(tmp_path: Path) -> None:
    tiny_network("bert").save_pretrained(tmp_path)
    change_config(tmp_path, is_decoder=True)
    assert "decoder" in refusal(tmp_path)


# Precision ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", SINGLE), ("bfloat16", 0.1)])
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


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"load_in_8bit": True, "quant_method": "bitsandbytes"}, "bitsandbytes, 8 bits"),
        ({"load_in_4bit": True}, "bitsandbytes, 4 bits"),
        ({"quant_method": "gptq", "bits": 4}, "gptq, 4 bits"),
        ({"quant_method": "fp8"}, "fp8"),
    ],
)
def test_quantised_weights_are_refused_by_configuration(
    tiny_folder: Callable[[str, str], Path], tmp_path: Path, config: dict[str, Any], says: str
) -> None:
    folder = tmp_path / "model"
    copytree(tiny_folder("gpt2", "classification"), folder)
    change_config(folder, quantization_config=config)
    with pytest.raises(UsageError, match=rf"quantised \({says}\).*dequantize"):
        load_model(folder)


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_quantised_weights_are_refused_whatever_is_said(
    tiny_folder: Callable[[str, str], Path], tmp_path: Path, kind: torch.dtype
) -> None:
    folder = tmp_path / "model"
    copytree(tiny_folder("gpt2", "classification"), folder)
    held = load_file(weights(folder))
    name = next(name for name in held if name.endswith("c_attn.weight"))
    # Numbers of positions, which older checkpoints hold, are whole ones all the same.
    held["transformer.position_ids"] = torch.arange(4)
    save_file(held, weights(folder), metadata={"format": "pt"})
    load_model(folder)
    held[name] = held[name].to(kind)
    save_file(held, weights(folder), metadata={"format": "pt"})
    with pytest.raises(UsageError, match=rf"quantised \({name} is of [IUF]8"):
        load_model(folder)
