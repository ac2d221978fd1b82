"""Loading a model's tokenizer, which has to give character offsets."""

import json
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from attribeam.schemas import UsageError
from attribeam.transforms.network.folder import loading

# A tokenizer that transformers makes without another package, and one that it doesn't.
_FILES = ("tokenizer.json", "vocab.txt", "vocab.json")
_PIECES = ("sentencepiece.bpe.model", "spiece.model", "tokenizer.model", "sentencepiece.model")


_BY_HAND = (
    "tokenise the corpus with it yourself, so that it holds input_ids and attention_mask in place "
    "of texts"
)


class TokenizerError(UsageError):
    """A tokenizer that is whole but can't be used here; rows of ids need none."""


def load_tokenizer(folder: Path, *, trust_remote_code: bool) -> PreTrainedTokenizerFast | None:
    """The tokenizer in a folder; None if there is none.

    Raises:
        TokenizerError: If it gives no offsets, has no vocabulary, or takes a package that isn't
            there.
        UsageError: If it can't be loaded.
    """
    pieces = next((name for name in _PIECES if (folder / name).is_file()), None)
    if any((folder / name).is_file() for name in _FILES):
        pieces = None
    elif pieces is None:
        return None
    try:
        with loading(f"the tokenizer in {folder}"):
            tokenizer = AutoTokenizer.from_pretrained(
                folder, use_fast=True, local_files_only=True, trust_remote_code=trust_remote_code
            )
    except UsageError as error:
        if pieces is not None:  # Whatever is missing, the way out is the same.
            raise TokenizerError(_of_pieces(folder, pieces)) from error
        if isinstance(error.__cause__, ImportError):
            raise TokenizerError(f"{error}; {_BY_HAND}") from error
        raise
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise TokenizerError(
            f"the tokenizer in {folder} ({type(tokenizer).__name__}) is not a fast one, so it "
            f"gives no character offsets; {_BY_HAND}"
        )
    if len(tokenizer) <= len(tokenizer.added_tokens_decoder):
        # Made without a word when its files aren't there, or are another class's.
        raise TokenizerError(_of_nothing(folder, type(tokenizer).__name__))
    return tokenizer


def _of_nothing(folder: Path, kind: str) -> str:
    names = [name for name in (*_FILES, *_PIECES) if (folder / name).is_file()]
    return (
        f"the tokenizer in {folder} ({kind}) knows no tokens but special ones, whatever is in "
        f"{', '.join(names)}: save it beside the model as it was trained (save_pretrained), or "
        "name its class in tokenizer_config.json (tokenizer_class), or give a corpus that holds "
        "input_ids"
    )


def _of_pieces(folder: Path, pieces: str) -> str:
    return (
        f"the tokenizer in {folder} is a sentencepiece model ({pieces}), which can't be read here: "
        "install sentencepiece (pip install 'sentencepiece<0.2.2'), or save it as tokenizer.json "
        "where that is installed (AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)), "
        "or give a corpus that holds input_ids"
    )


def lacking(folder: Path) -> str:
    """Why a folder gives no tokenizer, and what to do."""
    config = folder / "tokenizer_config.json"
    if not config.is_file():
        return "the model's folder has no tokenizer, so the corpus must hold input_ids"
    with loading(config):
        kind = json.loads(config.read_text(encoding="utf-8")).get("tokenizer_class")
    return (
        f"the tokenizer in {folder} ({kind}) has no vocabulary there ({', '.join(_FILES)}): save "
        "it beside the model, or give a corpus that holds input_ids"
    )


def stated_limit(tokenizer: PreTrainedTokenizerFast | None) -> int | None:
    """Most tokens that a tokenizer says its model takes; None if it says nothing.

    Where transformers knows none it writes 1e30, which is more than any model has.
    """
    limit = None if tokenizer is None else tokenizer.model_max_length
    return int(limit) if isinstance(limit, int | float) and limit >= 1 else None
