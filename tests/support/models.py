"""Tiny random models, tokenizers and instances; the models are saved the way real ones are."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import ArrayLike, NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from attribeam.transforms import EncodeOptions, Instance, Model, Row, Statistics, collect, methods
from attribeam.transforms.inputs.encode import encode, encode_row
from attribeam.transforms.network.anatomy import ANATOMIES

GOLDENS = Path(__file__).parents[1] / "goldens"
PRE_LN = ("roberta-prelayernorm", "xlm-roberta-xl")
DECODERS = (
    *("gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3", "phi3"),
    *("gemma", "gemma2", "gemma3_text"),
)
# Those that all methods are defined for, and each of which has been there from the first.
FAMILIES = (*("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert"),)
# Models of a family that are read otherwise: what their configurations have beside the others'.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "modernbert-mean": ("modernbert", {"classifier_pooling": "mean"}),
}
# Those that came later; some methods aren't defined for some of them.
_TEXTS = [family for family, anatomy in ANATOMIES.items() if anatomy.modality == "text"]
OTHERS = (*(family for family in _TEXTS if family not in FAMILIES), *VARIANTS)
AFTER_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet", *PRE_LN)
BYTE_LEVEL = (*AFTER_PADDING, *DECODERS)
TASKS = ("classification", "masked_lm")
# Methods that are defined for layers that normalise after their residuals, as in ``FAMILIES``.
USUAL_METHODS = tuple(name for name, row in methods().items() if "one_sum" not in row.requires)
MAX_LENGTH = 48

CLASSES = {
    "bert": "Bert",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "camembert": "Camembert",
    "roberta-prelayernorm": "RobertaPreLayerNorm",
    "xlm-roberta-xl": "XLMRobertaXL",
    "electra": "Electra",
    "distilbert": "DistilBert",
    "albert": "Albert",
    "mpnet": "MPNet",
    "deberta-v2": "DebertaV2",
    "modernbert": "ModernBert",
    "gpt2": "GPT2",
    "llama": "Llama",
    "mistral": "Mistral",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "gemma": "Gemma",
    "gemma2": "Gemma2",
    "gemma3_text": "Gemma3Text",
    "gpt_neox": "GPTNeoX",
    "phi3": "Phi3",
}
_GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
# What families have beside the sizes that all have.
_MORE: dict[str, dict[str, Any]] = {
    "electra": {"embedding_size": 16},
    "albert": {"embedding_size": 16},
    "distilbert": {"hidden_dim": 48},
    "gpt2": {"n_inner": 48},
    "llama": {"num_key_value_heads": 2},
    "mistral": {**_GROUPED, "sliding_window": 6},
    "qwen2": {"num_key_value_heads": 2},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 10},
    "gemma": _GROUPED,
    "gemma3_text": {**_GROUPED, "sliding_window": 6, "query_pre_attn_scalar": 10},
    "phi3": {"num_key_value_heads": 2, "sliding_window": 6},
    "gemma2": {**_GROUPED, "sliding_window": 6, "query_pre_attn_scalar": 10},
    "modernbert": {"local_attention": 8, "global_attn_every_n_layers": 2, "pad_token_id": 0},
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "position_buckets": 64,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "position_biased_input": False,
    },
}
_HEADS = {
    "classification": "ForSequenceClassification",
    "masked_lm": "ForMaskedLM",
    "causal_lm": "ForCausalLM",
}
# Language models that are called otherwise than their families are.
_SPEAKING = {"gpt2": "GPT2LMHeadModel", "gemma3_text": "Gemma3ForCausalLM"}
_WORDPIECES = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *["the", "a", "film", "plot", "play", "actor", "is", "was", "not", "very", "and", "but"],
    *["good", "bad", "dull", "cafe", "naive", "s", "t", "don", "##s", "##ing", "##ed", "##ly"],
    *["un", "##interest", "##good", "世", "界", "😀", "שלום", ",", ".", "!", "?", "'", "-", "("],
)
_BYTE_LEVEL_CORPUS = (
    *("the film is good", "a film was good, not bad"),
    *("the plot is dull and the actor bad", "the good film is not dull, the bad plot is"),
)


def tasks_of(family: str) -> tuple[str, ...]:
    """What models of a family predict here."""
    return TASKS[:1] if family in (*DECODERS, *VARIANTS) else TASKS


def wordpiece_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer like BERT's: lower case, no accents, CJK characters apart, [CLS] and [SEP]."""
    vocabulary = {piece: number for number, piece in enumerate(_WORDPIECES)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def byte_level_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer like RoBERTa's: byte-level BPE, <s> and </s>, two </s> between the texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=290,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_BYTE_LEVEL_CORPUS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        cls_token="<s>",
        sep_token="</s>",
        mask_token="<mask>",
    )


def tokenizer_for(family: str) -> PreTrainedTokenizerFast:
    """The kind of tokenizer that models of a family have."""
    return byte_level_tokenizer() if family in BYTE_LEVEL else wordpiece_tokenizer()


def tiny_config(family: str, **changes: Any) -> PretrainedConfig:
    """A configuration of three layers of four heads of eight units."""
    config = AutoConfig.for_model(
        family,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        vocab_size=len(tokenizer_for(family)),
        max_position_embeddings=MAX_LENGTH + (2 if family in AFTER_PADDING else 0),
        num_labels=3,
        **({} if family in ("distilbert", "gpt2") else {"intermediate_size": 48}),
        **({"type_vocab_size": 1} if family in BYTE_LEVEL else {}),
        **({"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2} if family in DECODERS else {}),
        **_MORE.get(family, {}),
    )
    config.update(changes)
    return config


def tiny_network(
    family: str, task: str = "classification", *, seed: int = 0, **changes: Any
) -> PreTrainedModel:
    """A network with weights so large that logits, attention and scores are far from uniform."""
    torch.manual_seed(seed)
    family, more = VARIANTS.get(family, (family, {}))
    config = tiny_config(family, **more, **changes)
    name = CLASSES[family] + _HEADS[task]
    name = _SPEAKING.get(family, name) if task == "causal_lm" else name
    network = getattr(transformers, name)(config)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.2)
    return network.eval()  # type: ignore[no-any-return]


def save_tiny(
    folder: Path,
    family: str,
    task: str = "classification",
    *,
    tokenizer: bool = True,
    seed: int = 0,
) -> Path:
    """Saves a tiny model, with its tokenizer or without."""
    tiny_network(family, task, seed=seed).save_pretrained(folder)
    if tokenizer:
        tokenizer_for(family).save_pretrained(folder)
    return folder


@cache
def _plain(folder: str, kind: type[PreTrainedModel], dtype: torch.dtype) -> PreTrainedModel:
    return kind.from_pretrained(folder, attn_implementation="eager", dtype=dtype)


def plain(model: Model) -> Any:
    """The weights of a loaded model in a transformers model that nobody looks into."""
    return _plain(model.network.name_or_path, type(model.network), model.dtype)


def random_ids(model: Model, length: int, rng: np.random.Generator) -> list[int]:
    """Ids of a row: opening and closing special token, ordinary tokens between them."""
    tokenizer = model.tokenizer
    assert tokenizer is not None
    ordinary = np.setdiff1d(np.arange(len(tokenizer)), tokenizer.all_special_ids)
    middle = rng.choice(ordinary, length - 2).tolist()
    return [tokenizer.cls_token_id, *middle, tokenizer.sep_token_id]


def random_instance(model: Model, length: int, seed: int = 0, name: str = "") -> Instance:
    """An instance of random tokens; of a masked LM, with a [MASK] and two words to contrast.

    Some of the tokens that are not special are its rationale, the second one always.
    """
    rng = np.random.default_rng([seed, length])
    ids = random_ids(model, length, rng)
    good = bad = None
    if model.task == "masked_lm":
        assert model.mask_id is not None
        ids[int(rng.integers(1, length - 1))] = model.mask_id
        good, bad = (int(word) for word in rng.choice(np.arange(5, 40), 2, replace=False))
    segments = None
    if model.token_types > 1:
        segments = (np.arange(length) > length // 2).astype(int).tolist()
    row = Row(
        name or f"random-{length}-{seed}",
        input_ids=ids,
        token_type_ids=segments,
        good=good,
        bad=bad,
        label=seed % model.num_outputs,
    )
    instance = encode_row(model, row, EncodeOptions(MAX_LENGTH))
    marks = rng.integers(0, 2, length)
    marks[1] = 1
    return replace(instance, rationale=np.where(instance.special, 0, marks).astype(np.int32))


def random_instances(model: Model, lengths: Sequence[int], seed: int = 0) -> list[Instance]:
    """Instances of given lengths, no two of them alike."""
    return [
        random_instance(model, length, seed + 100 * position, f"random-{position}")
        for position, length in enumerate(lengths)
    ]


def relative_error(found: ArrayLike, expected: ArrayLike) -> float:
    """Largest difference, relative to the largest value expected."""
    wanted: NDArray[np.float64] = np.asarray(expected, np.float64)
    got: NDArray[np.float64] = np.asarray(found, np.float64)
    assert got.shape == wanted.shape, f"{got.shape} is not {wanted.shape}"
    assert np.isfinite(got).all()
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


def random_questions(model: Model, sizes: Sequence[tuple[int, int]]) -> list[Instance]:
    """Questions to a language model about rows of prompts and continuations of given lengths.

    Each second token is its rationale.
    """
    rows = []
    for number, (prompt, length) in enumerate(sizes):
        rng = np.random.default_rng([number, prompt, length])
        ids = random_ids(model, prompt + length + 1, rng)[:-1]
        of = {"input_ids": ids[:prompt], "continuation_ids": ids[prompt:]}
        rows.append(Row(f"random-{number}", **of))
    found = encode(model, rows, EncodeOptions(MAX_LENGTH))
    return [replace(i, rationale=np.arange(len(i), dtype=np.int32) % 2) for i in found]


@cache
def statistics_of(model: Model) -> Statistics:
    """Statistics of some texts, for the methods that need them."""
    if model.task == "causal_lm":
        return collect(model, random_questions(model, [(7, 3), (11, 6), (9, 4)]), 1000)
    return collect(model, random_instances(model, [9, 16, 12]), 1000)
