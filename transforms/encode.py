"""From a corpus row to an encoded instance: tokens, words, character offsets, rationale."""

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding
from transformers import PreTrainedTokenizerFast

from schemas import Failure
from transforms.batch import Instance, Ints
from transforms.model import Model
from transforms.windows import NoRoomError, around_readout, windows

Overflow = Literal["truncate", "fail", "stride"]
Words = Literal["whitespace", "tokenizer"]


@dataclass(frozen=True)
class Row:
    """A row of the corpus, before encoding.

    Either ``text`` or ``input_ids`` is given. ``good`` and ``bad`` are the correct and the wrong
    word at the [MASK], as words or as vocabulary ids. ``problem`` says what was wrong with the row
    when it was read; such a row fails with that message.
    """

    instance_id: str
    text: str | None = None
    text_pair: str | None = None
    split: str | None = None
    label: int | None = None
    rationale: Sequence[int] | None = None
    roles: Sequence[str | None] | None = None
    subset: str | None = None
    input_ids: Sequence[int] | None = None
    token_type_ids: Sequence[int] | None = None
    good: str | int | None = None
    bad: str | int | None = None
    problem: str | None = None


@dataclass(frozen=True)
class EncodeOptions:
    """How texts become tokens.

    Attributes:
        max_length: Most tokens of an instance, special tokens included.
        overflow: What happens to longer texts: ``truncate`` them (``Instance.truncated`` says so),
            let them ``fail``, or make of each several overlapping windows (``stride``). A masked LM
            predicts one token, so there a window around it is all that is made.
        stride: Tokens that neighbouring windows have in common; at most half a window. None for a
            quarter of one.
        words: What a word is: a run of non-``whitespace`` characters (as rationales count them), or
            what the ``tokenizer`` splits texts into before it looks for pieces.
        need_label: Instances without a label fail (the gold class is to be explained).
    """

    max_length: int
    overflow: Overflow = "truncate"
    stride: int | None = None
    words: Words = "whitespace"
    need_label: bool = False


class RowError(ValueError):
    """A row that can't be encoded; the message says why."""


def encode(
    model: Model, texts: Iterable[str | Row], options: EncodeOptions | None = None
) -> list[Instance]:
    """Encodes texts or rows, for use from Python.

    Returns:
        An instance per text; with ``overflow="stride"`` longer texts are several, one after the
        other (``Instance.row_id`` and ``window`` say which).

    Raises:
        RowError: If one of them can't be encoded.
    """
    options = options or EncodeOptions(model.max_length)
    rows = (t if isinstance(t, Row) else Row(f"text-{i}", t) for i, t in enumerate(texts))
    found = [instance for row in rows for instance in encode_windows(model, row, options)]
    for instance in found:
        _check_tokens(instance)
    return found


def encode_rows(
    model: Model, rows: Iterable[Row], options: EncodeOptions
) -> tuple[list[Instance], list[Failure]]:
    """Encodes rows; those that can't be encoded become failures of stage ``read`` or ``encode``."""
    instances: list[Instance] = []
    failures: list[Failure] = []
    for row in rows:
        try:
            found = encode_windows(model, row, options)
        except RowError as error:
            stage = "encode" if row.problem is None else "read"
            failures.append(Failure(row.instance_id, stage, None, "RowError", str(error)))
            continue
        for instance in found:
            try:
                _check_tokens(instance)
            except RowError as error:
                name, of = instance.instance_id, instance.row_id
                failures.append(Failure(name, "encode", None, "RowError", str(error), of))
            else:
                instances.append(instance)
    return instances, failures


def encode_row(model: Model, row: Row, options: EncodeOptions) -> Instance:
    """Encodes a row that is one instance.

    Raises:
        RowError: As ``encode_windows``; or if the row is several windows.
    """
    first, *others = encode_windows(model, row, options)
    if others:
        raise RowError(f"the text is {1 + len(others)} windows, not one instance")
    _check_tokens(first)
    return first


def encode_windows(model: Model, row: Row, options: EncodeOptions) -> list[Instance]:
    """Encodes one row: into one instance, or with ``overflow="stride"`` into its windows.

    Raises:
        RowError: If the row was unreadable, has no text, is too long (``overflow="fail"``), has a
            label the model doesn't have, or lacks what a masked LM needs.
    """
    if row.problem is not None:
        raise RowError(row.problem)
    _check_label(model, row, options)
    if row.input_ids is not None:
        instance = _from_ids(model, row, options)
    else:
        instance = _from_text(model, row, options)
    masked = model.task == "masked_lm"
    if masked:
        instance = _with_contrast(model, row, instance)
    _check_tokens(instance)
    if len(instance) <= options.max_length:
        return [instance]
    try:
        if masked:
            return [around_readout(instance, options.max_length)]
        return windows(instance, options.max_length, options.stride)
    except NoRoomError as error:
        raise RowError(str(error)) from None


def _check_tokens(instance: Instance) -> None:
    """Checks that there is something to explain."""
    if not instance.removable.any():
        what = "text" if instance.window is None else "window"
        raise RowError(f"the {what} has no tokens (only whitespace or invisible characters)")


def _check_label(model: Model, row: Row, options: EncodeOptions) -> None:
    if model.task == "masked_lm":
        return  # The correct word is the label.
    if row.label is None:
        if options.need_label:
            raise RowError("no label, but the gold class is to be explained (--target gold)")
    elif not 0 <= row.label < model.num_outputs:
        raise RowError(
            f"label {row.label} is outside the model's classes 0 to {model.num_outputs - 1} "
            "(--label-column none ignores labels)"
        )


def _from_text(model: Model, row: Row, options: EncodeOptions) -> Instance:
    if not row.text or not row.text.strip():
        raise RowError("the text is empty")
    if model.tokenizer is None:
        raise RowError("the model has no tokenizer, so texts can't be encoded")
    texts = (row.text, row.text_pair) if row.text_pair else (row.text,)
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        raise RowError("the text holds a lone surrogate, which is no character") from None
    encoding = _whole(model.tokenizer, texts)
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
    return _from_encoding(row, texts, encoding, options, truncated=too_long)


def _whole(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> Encoding:
    """As the tokenizer's own call, which takes ten times as long for a short text."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = tokenizer.split_special_tokens
    return backend.encode(texts[0], texts[1] if len(texts) == 2 else None)


def _from_encoding(
    row: Row, texts: Sequence[str], encoding: Encoding, options: EncodeOptions, *, truncated: bool
) -> Instance:
    sequence = [-1 if s is None else s for s in encoding.sequence_ids]
    special = np.array(encoding.special_tokens_mask, bool) | (np.array(sequence) < 0)
    offsets = np.array(encoding.offsets, np.int32).reshape(-1, 2)
    offsets[special] = -1
    if options.words == "whitespace":
        word_ids = _whitespace_words(texts, sequence, offsets)
    else:
        word_ids = np.array([-1 if word is None else word for word in encoding.word_ids], np.int32)
    word_ids[special] = -1
    return Instance(
        instance_id=row.instance_id,
        input_ids=np.array(encoding.ids, np.int32),
        segment=np.array(encoding.type_ids if max(sequence) == 0 else _segments(sequence), np.int8),
        special=special,
        word_ids=word_ids,
        char_start=offsets[:, 0],
        char_end=offsets[:, 1],
        tokens=tuple(map(sys.intern, encoding.tokens)),  # One string a piece, not one a token.
        text=row.text,
        text_pair=row.text_pair,
        split=row.split,
        label=row.label,
        rationale=_rationale(row, word_ids, sequence, options),
        roles=_roles(row, word_ids, sequence, options),
        subset=row.subset,
        truncated=truncated,
    )


def _segments(sequence: Sequence[int]) -> list[int]:
    """Segment per token of a pair: a special token belongs to the text before it."""
    segments, current = [], 0
    for index in sequence:
        current = max(current, index)
        segments.append(current)
    return segments


def _whitespace_words(
    texts: Sequence[str], sequence: Sequence[int], offsets: NDArray[np.int32]
) -> Ints:
    """Index of the whitespace-separated word, within its text, that each token starts in."""
    ends = [np.array([m.end() for m in re.finditer(r"\S+", text)] or [0]) for text in texts]
    words = np.full(len(sequence), -1, np.int32)
    for index, text in enumerate(texts):
        mine = np.array(sequence) == index
        # A byte-level tokenizer counts the blank before a word into it, so the last character, not
        # the first, says which word it is.
        last = np.maximum(offsets[mine, 1] - 1, offsets[mine, 0])
        found = np.searchsorted(ends[index], last, side="right")
        words[mine] = np.minimum(found, len(text.split()) - 1)
    return words


def _rationale(
    row: Row, word_ids: Ints, sequence: Sequence[int], options: EncodeOptions
) -> Ints | None:
    """Spreads a rationale given per whitespace word of the first text over the tokens."""
    if row.rationale is None:
        return None
    _check_words(row, "rationale", row.rationale, options)
    marks = np.zeros(len(word_ids), np.int8)
    first = (np.array(sequence) == 0) & (word_ids >= 0)
    marks[first] = np.array(row.rationale, np.int8)[word_ids[first]]
    return marks  # type: ignore[return-value]


def _roles(
    row: Row, word_ids: Ints, sequence: Sequence[int], options: EncodeOptions
) -> tuple[str | None, ...] | None:
    """Spreads roles given per whitespace word of the first text over the tokens."""
    if row.roles is None:
        return None
    _check_words(row, "roles", row.roles, options)
    pairs = zip(word_ids.tolist(), sequence, strict=True)
    return tuple(row.roles[word] if text == 0 and word >= 0 else None for word, text in pairs)


def _check_words(row: Row, name: str, given: Sequence[object], options: EncodeOptions) -> None:
    count = len((row.text or "").split())
    if len(given) != count:
        raise RowError(f"the {name} has {len(given)} entries for {count} words")
    if options.words != "whitespace":
        raise RowError(f"entries of the {name} are of whitespace words (--words whitespace)")


def _from_ids(model: Model, row: Row, options: EncodeOptions) -> Instance:
    """An instance from a pre-tokenised row: each token is a word of its own."""
    given = np.array(row.input_ids, np.int64)
    kinds = np.array(row.token_type_ids or np.zeros(len(given)), np.int64)
    vocabulary = int(model.network.config.vocab_size)
    types = int(model.network.config.type_vocab_size) if model.anatomy.segments else 2
    if not len(given):
        raise RowError("input_ids is empty")
    if len(kinds) != len(given):
        raise RowError(f"token_type_ids has {len(kinds)} entries for {len(given)} input_ids")
    if given.min() < 0 or given.max() >= vocabulary:
        raise RowError(f"input_ids are outside the model's vocabulary (0 to {vocabulary - 1})")
    if kinds.min() < 0 or kinds.max() >= types:
        raise RowError(f"token_type_ids are outside the model's (0 to {types - 1})")
    ids, segment = given.astype(np.int32), kinds.astype(np.int8)
    too_long = len(ids) > options.max_length and options.overflow != "stride"
    if too_long and options.overflow == "fail":
        raise RowError(f"{len(ids)} tokens, but the limit is {options.max_length}")
    if too_long:
        # The last token is the closing special token; it stays.
        keep = [*range(options.max_length - 1), len(ids) - 1]
        ids, segment = ids[keep], segment[keep]
    special = _special_ids(model, ids)
    words = np.where(special, -1, np.cumsum(~special) - 1).astype(np.int32)
    unknown = np.full(len(ids), -1, np.int32)
    if model.tokenizer is None:
        tokens = tuple(str(token) for token in ids)
    else:
        tokens = tuple(model.tokenizer.convert_ids_to_tokens(ids.tolist()))
    return Instance(
        instance_id=row.instance_id,
        input_ids=ids,
        segment=segment,  # type: ignore[arg-type]
        special=special,
        word_ids=words,
        char_start=unknown,
        char_end=unknown,
        tokens=tokens,
        split=row.split,
        label=row.label,
        truncated=too_long,
    )


def _special_ids(model: Model, ids: Ints) -> NDArray[np.bool_]:
    """Which tokens of a pre-tokenised row are special.

    With a tokenizer: its special tokens, but for the mask and the unknown token, which stand for
    words. Without one: those equal to the first or the last id of the row, since every supported
    family frames its texts so.
    """
    if model.tokenizer is None:
        return np.isin(ids, (ids[0], ids[-1]))
    known = set(model.tokenizer.all_special_ids)
    known -= {model.tokenizer.mask_token_id, model.tokenizer.unk_token_id}
    return np.isin(ids, sorted(known))


def _with_contrast(model: Model, row: Row, instance: Instance) -> Instance:
    """Adds what a masked LM is explained by: the [MASK]'s position and the two words."""
    if model.mask_id is None:
        raise RowError("the model's mask token is unknown (--mask-token-id)")
    at = np.flatnonzero(instance.input_ids == model.mask_id)
    if len(at) != 1:
        raise RowError(f"the text has {len(at)} mask tokens; exactly one is needed")
    if row.good is None or row.bad is None:
        raise RowError("the correct or the wrong word (good, bad) is missing")
    good, bad = _word_id(model, row.good), _word_id(model, row.bad)
    if good == bad:
        raise RowError(f"the correct and the wrong word are the same token ({row.good!r})")
    # The mask token stands for a word, whatever the tokenizer's special-token flag says.
    special = instance.special.copy()
    special[at[0]] = False
    return replace(
        instance,
        special=special,
        readout=int(at[0]),
        label=0,
        contrast=(good, bad),
        contrast_words=(str(row.good), str(row.bad)),
    )


def _word_id(model: Model, word: Any) -> int:
    if isinstance(word, int):
        if not 0 <= word < int(model.network.config.vocab_size):
            raise RowError(f"word id {word} is outside the vocabulary")
        return word
    if model.tokenizer is None:
        raise RowError("the model has no tokenizer, so good and bad must be vocabulary ids")
    # A leading blank makes byte-level tokenizers see a word in mid-sentence; others ignore it.
    ids = model.tokenizer(" " + word, add_special_tokens=False).input_ids
    if len(ids) != 1 or ids[0] == model.tokenizer.unk_token_id:
        raise RowError(f"{word!r} is not a single token of the vocabulary")
    return int(ids[0])
