"""WordPiece tokenizers for the bundled models, the same at every training."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from string import ascii_lowercase, digits, punctuation

from tokenizers import Tokenizer
from tokenizers.decoders import WordPiece as WordPieceDecoder
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import WordPieceTrainer
from transformers import PreTrainedTokenizerFast

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

# The trainer merges what is frequent: this often, a word becomes whole whatever its letters.
_REPEATS = 500


def train_tokenizer(
    texts: Iterable[str], vocabulary_size: int, max_length: int, whole: Iterable[str] = ()
) -> PreTrainedTokenizerFast:
    """Train a lower-casing WordPiece tokenizer with BERT's special tokens.

    Args:
        texts: The training split; nothing else may be seen.
        vocabulary_size: Number of entries, special tokens and single characters included.
        max_length: The model's limit in tokens, special tokens included.
        whole: Words that must not be split, which ought to be few.

    Returns:
        A fast tokenizer that puts [CLS] and [SEP] around its input.
    """
    repeated = (word for word in whole for _ in range(_REPEATS))
    vocabulary = _train_vocabulary(chain(texts, repeated), vocabulary_size)
    tokenizer = _assemble(WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.add_special_tokens(list(SPECIALS))
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def _assemble(model: WordPiece) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.decoder = WordPieceDecoder()
    return tokenizer


def _train_vocabulary(texts: Iterable[str], size: int) -> dict[str, int]:
    """Learn the word pieces, and number them.

    The trainer numbers continuing characters in the order of a hash map, which changes from run
    to run and decides ties between merges. Naming them as special tokens fixes their numbers;
    in the tokenizer that is built from this vocabulary they are ordinary pieces again.
    """
    letters = ascii_lowercase + digits
    trainer = WordPieceTrainer(
        vocab_size=size,
        special_tokens=[*SPECIALS, *(f"##{letter}" for letter in letters)],
        initial_alphabet=list(letters + punctuation),
        show_progress=False,
    )
    learner = _assemble(WordPiece(unk_token="[UNK]"))
    learner.train_from_iterator(texts, trainer)
    return learner.get_vocab()
