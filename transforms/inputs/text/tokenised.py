"""Pre-tokenised rows: instances from vocabulary ids.

What such a row doesn't say is taken from how the supported families frame their texts: special
tokens open and close them and stand between the two texts of a pair.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attribeam.transforms.inputs.batch import Flags, Instance, Ints
from attribeam.transforms.inputs.row import EncodeOptions, Row, RowError
from attribeam.transforms.inputs.text.texts import whole
from attribeam.transforms.inputs.text.windows import without
from attribeam.transforms.network.model import Model

_Numbers = NDArray[np.int64]

# Tokens around texts. A tokenizer may have other special ones, and those stand for text.
_OPENING, _CLOSING = ("cls", "bos"), ("sep", "eos")

# Special tokens between the two texts of a pair: BERT has one, RoBERTa two.
_MOST_BETWEEN = 2


@dataclass(frozen=True)
class _Given:
    """What a row gives for each token that is no padding, T of them.

    Attributes:
        ids: Vocabulary ids, [T].
        types: Token types, [T], or None.
        special: True for special tokens, [T], or None.
    """

    ids: _Numbers
    types: _Numbers | None
    special: Flags | None


def from_ids(model: Model, row: Row, options: EncodeOptions) -> Instance:
    """An instance from a pre-tokenised row: each token is a word of its own.

    Raises:
        RowError: If its columns don't fit each other or the model, or it is too long under
            ``overflow="fail"``.
    """
    given = _given(model, row)
    ids = given.ids.astype(np.int32)
    special = special_of(model, ids, given.special)
    texts = _texts(special)
    segment = _segment(given.types, texts, len(ids))
    unknown = np.full(len(ids), -1, np.int32)
    instance = Instance(
        instance_id=row.instance_id,
        input_ids=ids,
        segment=segment,
        types=_types(model, given.types, segment),
        special=special,
        word_ids=np.where(special, -1, np.cumsum(~special) - 1).astype(np.int32),
        char_start=unknown,
        char_end=unknown,
        tokens=names_of(model, ids.tolist()),
        split=row.split,
        label=row.label,
    )
    if len(ids) <= options.max_length or options.overflow == "stride":
        return instance
    if options.overflow == "fail":
        raise RowError(f"{len(ids)} tokens, but the limit is {options.max_length}")
    return _cut(instance, texts, options.max_length)


def names_of(model: Model, ids: list[int]) -> tuple[str, ...]:
    """Token strings; an id that no tokenizer has stands for itself."""
    names = (
        [None] * len(ids) if model.tokenizer is None else model.tokenizer.convert_ids_to_tokens(ids)
    )
    pairs = zip(names, ids, strict=True)
    return tuple(str(token) if name is None else name for name, token in pairs)


def unpadded(model: Model, row: Row) -> Row:
    """A pre-tokenised row without its padding; as it is where it can't be encoded."""
    if row.input_ids is None:
        return row
    try:
        given = _given(model, row)
    except RowError:
        return row
    return replace(
        row,
        input_ids=given.ids.tolist(),
        token_type_ids=None if given.types is None else given.types.tolist(),
        special_tokens_mask=None if given.special is None else given.special.tolist(),
        attention_mask=None,
    )


# What is given ----------------------------------------------------------------------------------


def _given(model: Model, row: Row) -> _Given:
    ids = numbers_of("input_ids", row.input_ids)
    if not len(ids):
        raise RowError("input_ids is empty")
    types = _column("token_type_ids", row.token_type_ids, len(ids))
    mask = _flags("attention_mask", row.attention_mask, len(ids))
    special = _flags("special_tokens_mask", row.special_tokens_mask, len(ids))
    shown = without_padding(model, ids) if mask is None else _under(mask)
    given = _Given(
        ids[shown],
        None if types is None else types[shown],
        None if special is None else special[shown],
    )
    _check_types(model, given.types)
    if message := model.lacks(given.ids, np.zeros_like(given.ids)):
        raise RowError(message)
    return given


def numbers_of(name: str, values: Any) -> _Numbers:
    """Whole numbers of a column, [n].

    Raises:
        RowError: If they are something else.
    """
    try:
        found = np.asarray(values)
        with np.errstate(invalid="ignore"):
            if found.ndim != 1 or not np.array_equal(found, found.astype(np.int64)):
                raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise RowError(f"{name} is not a list of integers") from None
    return found.astype(np.int64)


def _column(name: str, values: Any, count: int) -> _Numbers | None:
    if values is None:
        return None
    found = numbers_of(name, values)
    if len(found) != count:
        raise RowError(f"{name} has {len(found)} entries for {count} input_ids")
    return found


def _flags(name: str, values: Any, count: int) -> Flags | None:
    found = _column(name, values, count)
    if found is None:
        return None
    for number in found[(found != 0) & (found != 1)].tolist():
        raise RowError(f"{name} holds {number}; its entries are 0 or 1")
    return np.asarray(found == 1)


def _check_types(model: Model, types: _Numbers | None) -> None:
    # A model that tells no types apart may still be told which text a token is of.
    most = max(2, model.token_types)
    if types is not None and (types.min() < 0 or types.max() >= most):
        raise RowError(f"token_type_ids are outside the model's (0 to {most - 1})")


# Padding ----------------------------------------------------------------------------------------


def _under(mask: Flags) -> slice:
    """The tokens that a mask shows."""
    at = np.flatnonzero(mask)
    if not len(at):
        raise RowError("attention_mask hides every token")
    shown = slice(int(at[0]), int(at[-1]) + 1)
    if holes := int((~mask[shown]).sum()):
        # Without them the others would move up, to positions that they don't have in the model.
        raise RowError(
            f"attention_mask hides {holes} tokens between others (the first at "
            f"{shown.start + int(mask[shown].argmin())}); only padding at the ends can be hidden"
        )
    return shown


def without_padding(model: Model, ids: _Numbers) -> slice:
    """The tokens of a row that has no mask: all but padding at the ends.

    A token that closes (or opens) texts may be the padding token too; the first of a run then is
    no padding. A single one at the start may be an ordinary token where only the configuration says
    which id is padding, since that is often a default.

    Raises:
        RowError: If there is nothing else.
    """
    if model.pad_id is None:
        return slice(0, len(ids))
    at = np.flatnonzero(ids != model.pad_id)
    if not len(at):
        raise RowError(f"input_ids holds nothing but padding (id {model.pad_id})")
    opening, closing = (model.pad_id in _frame(model, names) for names in (_OPENING, _CLOSING))
    start, stop = int(at[0]), int(at[-1]) + 1
    if opening or (start == 1 and model.tokenizer is None):
        start = max(start - 1, 0)
    if closing:
        stop = min(stop + 1, len(ids))
    return slice(start, stop)


def _frame(model: Model, names: Sequence[str]) -> set[int]:
    """Ids of special tokens by their names, of the tokenizer or else of the configuration."""
    home = model.network.config if model.tokenizer is None else model.tokenizer
    found = (getattr(home, f"{name}_token_id", None) for name in names)
    return {int(token) for token in found if token is not None}


# Special tokens and texts -----------------------------------------------------------------------


def special_of(model: Model, ids: Ints, given: Flags | None) -> Flags:
    """Which tokens are special: never the mask and the unknown token, which stand for words.

    As the row marks them; else what the tokenizer puts around texts, and padding; else, without a
    tokenizer, what is equal to the first or the last token.
    """
    tokenizer = model.tokenizer
    if given is not None:
        words = [model.mask_id, tokenizer.unk_token_id if tokenizer else None]
        return given & ~np.isin(ids, [word for word in words if word is not None])
    if tokenizer is None:
        # Padding that the mask shows is no text's end.
        inner = ids[ids != model.pad_id] if model.pad_id is not None else ids
        frame = [*inner[[0, -1]].tolist(), model.pad_id] if len(inner) else ids.tolist()
        return np.isin(ids, [token for token in frame if token is not None])
    empty = whole(tokenizer, ("", ""))
    known = {t for t, own in zip(empty.ids, empty.special_tokens_mask, strict=True) if own}
    known |= _frame(model, (*_OPENING, *_CLOSING, "pad"))
    return np.isin(ids, sorted(known - _frame(model, ("mask", "unk"))))


def _texts(special: Flags) -> list[range]:
    """Where the texts of a row are: two, if special tokens part it as they do a pair, else one."""
    inner = np.flatnonzero(~special)
    if not len(inner):
        return []
    breaks = np.flatnonzero(np.diff(inner) > 1)
    first, last = int(inner[0]), int(inner[-1]) + 1
    if len(breaks) != 1:
        return [range(first, last)]
    end, start = int(inner[breaks[0]]) + 1, int(inner[breaks[0] + 1])
    if start - end > _MOST_BETWEEN:
        return [range(first, last)]
    return [range(first, end), range(start, last)]


def _segment(types: _Numbers | None, texts: Sequence[range], count: int) -> Ints:
    """Which text each token is of: by the token types if they tell, else by special tokens."""
    if types is not None and set(types.tolist()) == {0, 1}:
        return types.astype(np.int8)
    second = texts[1].start if len(texts) == 2 else count
    return (np.arange(count) >= second).astype(np.int8)


def _types(model: Model, given: _Numbers | None, segment: Ints) -> Ints | None:
    """Token types as given, else zeros, as transformers has it (``Instance.types``)."""
    if model.token_types < 2:
        return None
    types = np.zeros(len(segment), np.int32) if given is None else given.astype(np.int32)
    return None if (types == segment).all() else types


# Length -----------------------------------------------------------------------------------------


def _cut(instance: Instance, texts: Sequence[range], limit: int) -> Instance:
    """An instance that is too long without the ends of its texts, as tokenizers cut a pair."""
    lengths = [len(text) for text in texts]
    room = limit - (len(instance) - sum(lengths))
    if room < 1:
        raise RowError(f"{limit - room} special tokens leave no room: the limit is {limit}")
    kept = _longest_first(lengths, room)
    gone = [np.array(text[keep:], np.intp) for text, keep in zip(texts, kept, strict=True)]
    return replace(without(instance, np.concatenate(gone)), truncated=True)


def _longest_first(lengths: Sequence[int], room: int) -> list[int]:
    """How many tokens each text keeps: the longer of two is cut until it is as long as the other.

    That is ``longest_first`` of the tokenizers library.
    """
    if len(lengths) < 2:
        return [room]
    short, long = min(lengths), max(lengths)
    long = max(short, room - short)
    if short + long > room:
        short, long = room // 2, room - room // 2
    return [short, long] if lengths[0] <= lengths[1] else [long, short]
