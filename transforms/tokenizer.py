"""Loading a model's tokenizer, which has to give character offsets."""

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from schemas import UsageError
from transforms.folder import loading


def load_tokenizer(folder: Path, *, trust_remote_code: bool) -> PreTrainedTokenizerFast | None:
    """The tokenizer in a folder; None if there is none.

    Raises:
        UsageError: If it cannot be loaded, or gives no offsets.
    """
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt", "vocab.json")):
        return None
    with loading(f"the tokenizer in {folder}"):
        tokenizer = AutoTokenizer.from_pretrained(
            folder, use_fast=True, local_files_only=True, trust_remote_code=trust_remote_code
        )
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UsageError(
            f"the tokenizer in {folder} is not a fast one, so it gives no character offsets; "
            "save it again as tokenizer.json"
        )
    return tokenizer
