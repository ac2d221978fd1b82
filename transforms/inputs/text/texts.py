"""Texts and pairs of texts: instances with words and character offsets."""

import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from tokenizers import Encoding
from transformers import PreTrainedTokenizerFast

from attribeam.transforms.inputs.batch import Instance, Ints
from attribeam.transforms.inputs.row import EncodeOptions, Row, RowError
from attribeam.transforms.inputs.text.words import (
    pair_rationale,
    spread_rationale,
    spread_roles,
    whitespace_words,
)
from attribeam.transforms.network.model import Model


def from_text(model: Model, row: Row, options: EncodeOptions) -> Instance:
    """The instance of a text or a pair; one that is too long is cut unless it becomes windows.

    Raises:
        RowError: If there is nothing to encode, or it is too long under ``overflow="fail"``.
    """
    if not row.text or not row.text.strip():
        raise RowError("the text is empty")
    if model.tokenizer is None:
        raise RowError(f"the text can't be encoded: {model.no_tokenizer}")
    texts = (row.text, row.text_pair) if row.text_pair else (row.text,)
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        raise RowError("the text holds a lone surrogate, which is no character") from None
    try:
        encoding = whole(model.tokenizer, texts)
    except Exception as error:
        if type(error) is not Exception:  # Of memory, say: nothing about the text.
            raise
        # What the library raises where a vocabulary has no [UNK], say.
        raise RowError(f"the tokenizer can't read the text: {error}") from error
    too_long = len(encoding.ids) > options.max_length and options.overflow != "stride"
    if too_long:
        if options.overflow == "fail":
            raise RowError(
                f"{len(encoding.ids)} tokens, but the limit is {options.max_length} "
                "(--overflow truncate cuts them)"
            )
        encoding = model.tokenizer(
            *texts, truncation="longest_first", max_length=options.max_length
        ).encodings[0]
    instance = of_encoding(row, texts, encoding, options, truncated=too_long)
    return replace(instance, types=_types(model, encoding, instance.segment))


def whole(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> Encoding:
    """A text or a pair, not cut: as the tokenizer's own call, which takes ten times as long."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = tokenizer.split_special_tokens
    return backend.encode(texts[0], texts[1] if len(texts) == 2 else None)


def of_encoding(
    row: Row, texts: Sequence[str], encoding: Encoding, options: EncodeOptions, *, truncated: bool
) -> Instance:
    """The instance that a row's tokens are.

    Raises:
        RowError: If what the row says of words is of other words.
    """
    sequence = [-1 if s is None else s for s in encoding.sequence_ids]
    special = np.array(encoding.special_tokens_mask, bool) | (np.array(sequence) < 0)
    offsets = np.array(encoding.offsets, np.int32).reshape(-1, 2)
    offsets[special] = -1
    if options.words == "whitespace":
        word_ids = whitespace_words(texts, sequence, offsets)
    else:
        word_ids = np.array([-1 if word is None else word for word in encoding.word_ids], np.int32)
    word_ids[special] = -1
    return Instance(
        instance_id=row.instance_id,
        input_ids=np.array(encoding.ids, np.int32),
        segment=np.array(_segments(sequence), np.int8),
        special=special,
        word_ids=word_ids,
        char_start=offsets[:, 0],
        char_end=offsets[:, 1],
        tokens=tuple(map(sys.intern, encoding.tokens)),  # One string a piece, not one a token.
        text=row.text,
        text_pair=row.text_pair,
        split=row.split,
        label=row.label,
        rationale=spread_rationale(row, word_ids, sequence, options),
        text_rationale=None if row.rationale is None else tuple(row.rationale),
        text_pair_rationale=pair_rationale(row),
        roles=spread_roles(row, word_ids, sequence, options),
        subset=row.subset,
        truncated=truncated,
    )


def _types(model: Model, encoding: Encoding, segment: Ints) -> Ints | None:
    """Token types as the tokenizer's own call gives them: none are zeros (``Instance.types``)."""
    if model.token_types < 2:
        return None
    given = "token_type_ids" in model.tokenizer.model_input_names if model.tokenizer else False
    types = np.array(encoding.type_ids if given else [0] * len(encoding.ids), np.int32)
    return None if (types == segment).all() else types


def _segments(sequence: Sequence[int]) -> list[int]:
    """Segment per token of a pair: a special token belongs to the text before it."""
    segments, current = [], 0
    for index in sequence:
        current = max(current, index)
        segments.append(current)
    return segments
