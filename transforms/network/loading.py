"""Loading a model so that it can be explained: safetensors, no remote code, nothing missing."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from attribeam.schemas import UsageError, UsageTypeError
from attribeam.transforms.network.anatomy import HEADS, POOLINGS, Anatomy, anatomy_of, clip
from attribeam.transforms.network.anatomy.closed import sized
from attribeam.transforms.network.capture import IMPLEMENTATION
from attribeam.transforms.network.check import check
from attribeam.transforms.network.folder import check_files, check_precision, loading
from attribeam.transforms.network.model import Model, Task
from attribeam.transforms.network.tokenizer import lacking, load_tokenizer, stated_limit
from attribeam.transforms.network.towers import Tower, class_features

# Types of the weights; under ``mixed`` the passes compute in bfloat16 (``Model.mixed``).
DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "mixed": torch.float32,
}

_TASKS: dict[str, Task] = {
    "ForSequenceClassification": "classification",
    "ForTokenClassification": "token_classification",
    "ForQuestionAnswering": "span",
    "ForMaskedLM": "masked_lm",
    "ForCausalLM": "causal_lm",
    "LMHeadModel": "causal_lm",
    "ForImageClassification": "classification",
    "ForImageClassificationWithTeacher": "classification",
    "CLIPModel": "similarity",
    "SiglipModel": "similarity",
}


def load_model(
    folder: str | Path,
    *,
    dtype: str = "float32",
    device: str | torch.device = "cpu",
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    mask_token_id: int | None = None,
    tokenizer: bool = True,
    pooling: str = "auto",
    prompts: Sequence[str] | None = None,
) -> Model:
    """Loads a fine-tuned model and its tokenizer from a local folder.

    Args:
        folder: Folder with ``config.json``, safetensors weights and, unless the corpus is
            pre-tokenised, a fast tokenizer.
        dtype: ``float32``, ``float64``, ``bfloat16`` or ``mixed``, whatever the weights were saved
            in.
        device: Where to put it.
        allow_pickle: Load pickled weights (which can run code) where there are no safetensors.
        trust_remote_code: Let the model bring its own code.
        mask_token_id: Vocabulary id of the mask token, for a model without tokenizer.
        tokenizer: Load the tokenizer; False for pre-tokenised rows alone.
        pooling: Where a classifier of pictures reads its prediction: ``auto``, where its class in
            transformers does. Where that is the token of the class, ``mean`` is the mean of
            patches, before the last norm, as masked autoencoders are fine-tuned.
        prompts: Texts that are the classes of pictures, of a model that compares the two (CLIP).

    Raises:
        TokenizerError: If the tokenizer can't be used here, though the model can.
        UsageError: If the folder holds no model that can be explained, and says what is missing; or
            if the network computes something else than what its anatomy says (``check``).
    """
    if not isinstance(folder, str | PathLike):
        raise UsageTypeError(
            f"load_model takes the path of a folder, not a {type(folder).__name__}: save it with "
            "save_pretrained, its tokenizer beside it"
        )
    folder = Path(folder)
    check_files(folder, allow_pickle=allow_pickle)
    with loading(folder / "config.json"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    check_precision(folder, getattr(config, "quantization_config", None))
    anatomy = anatomy_of(config)
    class_name, task = _task_of(folder, config)
    _check_variant(folder, config, anatomy, task)
    of_text = anatomy.modality == "text"
    of_pairs = task == "similarity"
    _check_pooling(folder, config, anatomy, pooling)
    _check_compared(folder, class_name, of_pairs, prompts, pooling)
    words = None
    if tokenizer and (of_text or of_pairs):
        words = load_tokenizer(folder, trust_remote_code=trust_remote_code)
    network = _network(
        folder,
        class_name,
        device,
        config=config,
        dtype=DTYPES[dtype],
        attn_implementation="eager" if anatomy.own_attention else IMPLEMENTATION,
        use_safetensors=None if allow_pickle else True,
    )
    if prompts is not None:
        with torch.inference_mode(False):
            network, task = _of_classes(folder, network, words, prompts), "classification"
    processor = None if of_text else _processor(folder, trust_remote_code=trust_remote_code)
    if anatomy.closed:
        _check_whole(config, dtype)
        anatomy = sized(anatomy, config, _picture_size(folder, processor))
    without = {} if words or not (of_text or of_pairs) else {"no_tokenizer": lacking(folder)}
    beside = None
    if task == "similarity":
        beside = _of_texts(network, words, mask_token_id, mixed=dtype == "mixed", **without)
        network = Tower(network, "image")
    model = Model(
        network=network,
        anatomy=anatomy,
        task=task,
        tokenizer=words,
        mask_id=_mask_id(config, words, mask_token_id) if of_text else None,
        pad_id=_pad_id(config, words) if of_text else None,
        max_length=_limit(network.config, anatomy, words),
        mean=pooling == "mean",
        processor=processor,
        mixed=dtype == "mixed",
        prompts=None if prompts is None else tuple(prompts),
        beside=beside,
        **without,
    )
    for tower in model.towers.values():
        check(tower)
    return model


def _network(folder: Path, class_name: str, device: str | torch.device, **more: Any) -> Any:
    """A network with the weights of a folder.

    Raises:
        UsageError: If they can't be loaded, or aren't all there.
    """
    # What is made under inference_mode lets no gradient pass, wherever it is used.
    with loading(f"the weights in {folder}"), torch.inference_mode(False), _no_bars():
        network, report = getattr(transformers, class_name).from_pretrained(
            folder,
            output_loading_info=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # They are refused below, by name.
            **more,
        )
        network = network.eval().requires_grad_(False).to(device)
    _check_weights(folder, report)
    return network


@contextmanager
def _no_bars() -> Iterator[None]:
    """Weights are loaded without a bar, whose lines stay where a notebook is shown."""
    shown = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers.utils.logging.enable_progress_bar()


def _check_whole(config: PretrainedConfig, dtype: str) -> None:
    """Refuses to keep the head whole of a network whose parts aren't known."""
    if dtype == "mixed":
        raise UsageError(
            f"--dtype mixed keeps heads whole, and the parts of {config.model_type} are not "
            "known: use float32 or bfloat16"
        )


def _of_texts(
    whole: Any,
    tokenizer: PreTrainedTokenizerFast | None,
    mask_token_id: int | None,
    **more: Any,
) -> Model:
    """The tower of texts of a model of pairs."""
    config = whole.config.text_config
    return Model(
        network=Tower(whole, "text"),
        anatomy=clip.TEXTS,
        task="similarity",
        tokenizer=tokenizer,
        mask_id=_mask_id(config, tokenizer, mask_token_id),
        pad_id=_pad_id(config, tokenizer),
        max_length=_limit(config, clip.TEXTS, tokenizer),
        **more,
    )


def _check_compared(
    folder: Path, class_name: str, of_pairs: bool, prompts: Sequence[str] | None, pooling: str
) -> None:
    """Refuses prompts for other models than those that compare pictures and texts."""
    if not of_pairs:
        if prompts is not None:
            raise UsageError(
                f"--prompts are classes for a model that compares pictures and texts (CLIP), and "
                f"{folder} is {class_name}"
            )
        return
    if pooling == "mean":
        raise UsageError(f"--pooling mean: {folder} compares what its class token becomes")
    if prompts is not None and len(set(prompts)) < max(2, len(prompts)):
        raise UsageError(f"--prompts are two or more different texts, and not {list(prompts)}")


def _of_classes(
    folder: Path,
    whole: Any,
    tokenizer: PreTrainedTokenizerFast | None,
    prompts: Sequence[str],
) -> Tower:
    """The tower of pictures, with texts as classes."""
    if tokenizer is None:
        raise UsageError(f"--prompts are texts, and {lacking(folder)}")
    return Tower(whole, "image", class_features(whole, tokenizer, prompts))


def _processor(folder: Path, *, trust_remote_code: bool) -> Any:
    """What makes a model's input of pictures, with Pillow; None if the folder doesn't say."""
    if not (folder / "preprocessor_config.json").is_file():
        return None
    with loading(folder / "preprocessor_config.json"):
        return AutoImageProcessor.from_pretrained(
            folder, backend="pil", local_files_only=True, trust_remote_code=trust_remote_code
        )


def _picture_size(folder: Path, processor: Any) -> tuple[int, ...] | None:
    """Channels, height and width of all pictures that a processor makes; None without one.

    Raises:
        UsageError: If pictures of other shapes come to other sizes.
    """
    if processor is None:
        return None
    with loading(folder / "preprocessor_config.json"):
        wide, tall = (
            processor(Image.new("RGB", size), return_tensors="np")["pixel_values"][0].shape
            for size in ((96, 64), (64, 96))
        )
    if wide != tall:
        raise UsageError(
            f"the processor in {folder} makes pictures of several sizes ({wide}, {tall}), and "
            "patches are of one: let it cut or stretch them"
        )
    return tuple(map(int, wide))


def _limit(
    config: PretrainedConfig, anatomy: Anatomy, tokenizer: PreTrainedTokenizerFast | None
) -> int:
    """Most tokens of an instance: as many as there are positions, or as the tokenizer states."""
    if anatomy.grid is not None:
        return anatomy.grid(anatomy.encoder(config)).positions
    capacity = int(config.max_position_embeddings) - anatomy.first_position(config)
    return min(capacity, stated_limit(tokenizer) or capacity)


def _mask_id(
    config: PretrainedConfig, tokenizer: PreTrainedTokenizerFast | None, given: int | None
) -> int | None:
    """The mask token: the one that is named, else the tokenizer's if it has an embedding."""
    size = int(config.vocab_size)
    if given is not None:
        if not 0 <= given < size:
            raise UsageError(
                f"--mask-token-id {given} is outside the model's vocabulary (0 to {size - 1})"
            )
        return given
    own = None if tokenizer is None else tokenizer.mask_token_id
    return None if own is None or own >= size else int(own)


def _pad_id(config: PretrainedConfig, tokenizer: PreTrainedTokenizerFast | None) -> int | None:
    """The padding token: the tokenizer's, since a configuration often has nothing but a default."""
    own = None if tokenizer is None else tokenizer.pad_token_id
    for token in (own, config.pad_token_id):
        if token is not None and 0 <= token < int(config.vocab_size):
            return int(token)
    return None


def _task_of(folder: Path, config: PretrainedConfig) -> tuple[str, Task]:
    names = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures")
    name = str(names[0]) if names and isinstance(names, list) else ""
    for ending, task in _TASKS.items():
        kind = getattr(transformers, name, None) if name.endswith(ending) else None
        if isinstance(kind, type) and issubclass(kind, PreTrainedModel):
            return name, _kind_of(config) if task == "classification" else task
    if not name:
        raise UsageError(
            f'{folder} doesn\'t say what it is (see "architectures" in its config.json): name its '
            'class there, such as "architectures": ["BertForSequenceClassification"]'
        )
    raise UsageError(
        f"{folder} is {name}; only ...{' and ...'.join(_TASKS)} can be explained "
        '(see "architectures" in its config.json)'
    )


def _kind_of(config: PretrainedConfig) -> Task:
    """What the logits of a model for sequences are: of classes, of labels, or values."""
    if config.problem_type == "multi_label_classification":
        return "multi_label"
    one = int(config.num_labels or 0) < 2
    return "regression" if one or config.problem_type == "regression" else "classification"


def _check_variant(folder: Path, config: PretrainedConfig, anatomy: Anatomy, task: Task) -> None:
    """Refuses variants of a family that would be computed as if they were the usual kind."""
    if (why := anatomy.refuse(config, HEADS.get(task, task))) is not None:
        raise UsageError(f"{folder} is a {config.model_type} that can't be explained: {why}")
    if HEADS.get(task, task) not in anatomy.heads:
        raise UsageError(
            f"{folder} is a {config.model_type} that can't be explained: of this family there are "
            f"models for {' and '.join(anatomy.heads)}, none for {task}"
        )
    if task == "span" and config.num_labels != 2:
        raise UsageError(
            f"{folder} gives {config.num_labels} logits per token, but where an answer starts and "
            'ends are two (see "id2label" in its config.json)'
        )
    if anatomy.positions_after_padding and config.pad_token_id is None:
        raise UsageError(
            f'"pad_token_id" in {folder}/config.json is null, but {config.model_type} counts '
            "positions from it: write the id of the padding token there (mostly 1)"
        )
    if getattr(config, "position_embedding_type", None) not in (None, "absolute"):
        raise UsageError(
            f"{folder} has relative position embeddings ({config.position_embedding_type}), which "
            "transformers no longer computes"
        )
    if getattr(config, "is_decoder", False):
        raise UsageError(f"{folder} is a decoder; only encoders can be explained")


def _check_pooling(folder: Path, config: PretrainedConfig, anatomy: Anatomy, pooling: str) -> None:
    """Refuses to read a classifier where its head can't be meant to."""
    if pooling == "auto":
        return
    if anatomy.modality == "text":
        raise UsageError(f"--pooling {pooling} is of pictures, and {folder} is a model of texts")
    if anatomy.closed:
        raise UsageError(
            f"--pooling {pooling}: what a {config.model_type} reads is its own, so leave it out"
        )
    if anatomy.pooling != pooling and (anatomy.pooling, pooling) != ("cls", "mean"):
        made_for = POOLINGS[anatomy.pooling]
        raise UsageError(
            f"--pooling {pooling}: the head of {folder} is made for {made_for}, so leave it out"
        )


def _check_weights(folder: Path, report: dict[str, Any]) -> None:
    lacking = [*report["missing_keys"], *(str(key[0]) for key in report["mismatched_keys"])]
    if lacking:
        some = ", ".join(sorted(lacking)[:3])
        raise UsageError(
            f"the weights in {folder} lack {len(lacking)} parameters of the model ({some}, ...): "
            "transformers would fill them with random numbers; was it fine-tuned for this task?"
        )
