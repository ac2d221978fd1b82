"""Rows of a language model: a prompt and what follows it, as ids that are never tokenised again.

A prompt opens as the tokenizer opens texts; what it would close them with is left out, since
something follows. A continuation that is a text is what the tokenizer makes of it after the prompt,
or by itself where a token would be of both.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attribeam.transforms.inputs.batch import Instance
from attribeam.transforms.inputs.continuation import Continuation
from attribeam.transforms.inputs.row import EncodeOptions, Row, RowError
from attribeam.transforms.inputs.text.messages import encoding_of, rendered
from attribeam.transforms.inputs.text.segments import Extent, with_segments
from attribeam.transforms.inputs.text.texts import from_text, of_encoding
from attribeam.transforms.inputs.text.tokenised import from_ids, names_of, numbers_of, special_of
from attribeam.transforms.inputs.text.windows import without
from attribeam.transforms.network.model import Model

_Ids = NDArray[np.int64]


def continued(model: Model, row: Row, options: EncodeOptions) -> Instance:
    """A row's prompt and all of its continuation but the last token, which nothing follows.

    Raises:
        RowError: If either is empty, there is no continuation, a foil is of another length, the
            model hasn't got a token, or together they are too long.
    """
    prompt, row = prompt_of(model, row, options)
    if lacks_continuation(row) and len(prompt) > options.max_length:
        raise RowError(
            f"nothing can follow a prompt of {len(prompt)} tokens, since the limit is "
            f"{options.max_length}: make it shorter, or give what follows (continuation)"
        )
    ids, offsets = _continuation(model, row, prompt)
    _check(model, ids)
    foils = _foils(model, row, prompt, ids)
    instance = _joined(model, row, prompt, ids, offsets)
    every = np.concatenate([prompt.input_ids, ids.astype(np.int32)])
    instance = _fitting(instance, len(prompt), options)
    gone = len(every) - 1 - len(instance)
    opening = _opening(instance)
    kept = np.concatenate([every[:opening], every[opening + gone :]]) if gone else every
    given = not row.generated
    return replace(
        instance,
        readout=len(instance) - 1,
        continuation=Continuation(kept, len(prompt) - gone, foils, given),
    )


def lacks_continuation(row: Row) -> bool:
    """Whether nothing follows the prompt of a row that could be read."""
    said = row.messages is not None and row.messages and row.messages[-1].get("role") == "assistant"
    given = row.continuation_ids is not None or row.continuation is not None
    return row.problem is None and not given and not said


def prompt_of(model: Model, row: Row, options: EncodeOptions) -> tuple[Instance, Row]:
    """The prompt of a row, however long, and the row with its messages put together.

    It doesn't end as texts do.

    Raises:
        RowError: If it is empty, or can't be encoded.
    """
    if row.text_pair:
        raise RowError("a prompt is one text, and there is a second one")
    row, messages = rendered(model, row)
    if messages is None:
        found = _plain(model, row, options)
    else:
        found = _templated(model, row, options, messages)
    if found.special.all():
        raise RowError("the prompt is empty: it has no tokens but special ones")
    # Where ids are given, special tokens in it may look as if they parted it.
    found = replace(found, segment=np.zeros_like(found.segment))
    return with_segments(row, found, options.segments, messages), row


def _templated(
    model: Model, row: Row, options: EncodeOptions, messages: Sequence[Extent]
) -> Instance:
    """A prompt that a chat template has made: its own tokens are special."""
    assert row.text is not None
    encoding = encoding_of(model, row.text, templated=True)
    found = of_encoding(row, [row.text], encoding, options, truncated=False)
    inside = np.zeros(len(found), bool)
    for _, start, end in messages:
        inside |= (found.char_end > start) & (found.char_start < end)
    return replace(
        found,
        special=~inside,
        word_ids=np.where(inside, found.word_ids, -1).astype(np.int32),
        char_start=np.where(inside, found.char_start, -1).astype(np.int32),
        char_end=np.where(inside, found.char_end, -1).astype(np.int32),
    )


def _plain(model: Model, row: Row, options: EncodeOptions) -> Instance:
    """A prompt that is a text or ids."""
    made = from_text if row.input_ids is None else from_ids
    found = made(model, row, replace(options, overflow="stride"))
    if row.input_ids is None and not found.special.all():
        closing = np.arange(np.flatnonzero(~found.special)[-1] + 1, len(found))
        found = without(found, closing) if len(closing) else found
    return found


# What follows ----------------------------------------------------------------------------------


def _continuation(model: Model, row: Row, prompt: Instance) -> tuple[_Ids, NDArray[np.int32]]:
    """Ids of what follows, [C], and where each token begins and ends in its text, [C, 2]."""
    if row.continuation_ids is not None:
        ids = numbers_of("continuation_ids", row.continuation_ids)
        return ids, np.full((len(ids), 2), -1, np.int32)
    if row.continuation is None:
        raise RowError(
            "there is no continuation to explain: give one in a column (continuation, or "
            "continuation_ids)"
        )
    return _following(model, row, prompt, row.continuation, "continuation")


def _following(
    model: Model, row: Row, prompt: Instance, text: str, name: str
) -> tuple[_Ids, NDArray[np.int32]]:
    """Ids of a text that follows a prompt, and where each token begins and ends in it."""
    if model.tokenizer is None:
        raise RowError(f"the {name} can't be encoded: {model.no_tokenizer}")
    if not text:
        raise RowError(f"the {name} is empty")
    if row.text is not None:
        together = encoding_of(model, row.text + text, templated=row.messages is not None)
        start, end = len(prompt), len(together.ids)
        while end > start and together.sequence_ids[end - 1] is None:
            end -= 1
        if together.ids[:start] == prompt.input_ids.tolist():
            offsets = np.array(together.offsets[start:end], np.int32).reshape(-1, 2)
            # A token may begin with a blank that ends the prompt.
            offsets = np.maximum(offsets - len(row.text), 0)
            return np.array(together.ids[start:end], np.int64), offsets
    backend = model.tokenizer.backend_tokenizer
    alone = backend.encode(text, add_special_tokens=False)
    return np.array(alone.ids, np.int64), np.array(alone.offsets, np.int32).reshape(-1, 2)


def _check(model: Model, ids: _Ids) -> None:
    """Checks that tokens can follow a prompt.

    Raises:
        RowError: If there are none, the model hasn't got one, or they go on after the end.
    """
    if not len(ids):
        raise RowError("the continuation is empty")
    if message := model.lacks(ids, np.zeros_like(ids)):
        raise RowError(f"the continuation can't be read: {message}")
    ends = np.flatnonzero(np.isin(ids, model.end_ids))
    if len(ends) and ends[0] < len(ids) - 1:
        raise RowError(
            f"the continuation goes on after its end token ({model.named(int(ids[ends[0]]))}, "
            f"token {ends[0]} of {len(ids)}): cut it there"
        )
    if model.pad_id is not None and model.pad_id not in model.end_ids and ids[-1] == model.pad_id:
        raise RowError(
            f"the continuation ends in padding ({model.named(model.pad_id)}): leave that out"
        )


def _foils(model: Model, row: Row, prompt: Instance, ids: _Ids) -> tuple[int | None, ...]:
    """What each token that follows is compared with; None for the runner-up.

    That is so too where the foil is the token itself: texts may have words in common.
    """
    if row.foil_ids is not None:
        none = [at for at, foil in enumerate(row.foil_ids) if foil is None]
        foils = numbers_of("foil_ids", [0 if foil is None else foil for foil in row.foil_ids])
    elif row.foil is not None:
        none, foils = [], _following(model, row, prompt, row.foil, "foil")[0]
    else:
        return (None,) * len(ids)
    if len(foils) != len(ids):
        raise RowError(
            f"the foil has {len(foils)} tokens, and the continuation {len(ids)}: they are compared "
            "token by token (null in foil_ids for those without a foil)"
        )
    if message := model.lacks(foils, np.zeros_like(foils)):
        raise RowError(f"the foil can't be read: {message}")
    pairs = enumerate(zip(foils.tolist(), ids.tolist(), strict=True))
    return tuple(None if at in none or foil == own else foil for at, (foil, own) in pairs)


# All of it -------------------------------------------------------------------------------------


def _joined(
    model: Model, row: Row, prompt: Instance, ids: _Ids, offsets: NDArray[np.int32]
) -> Instance:
    """A prompt and all that follows it but the last token."""
    more, spans = ids[:-1].astype(np.int32), offsets[:-1]
    special = special_of(model, more, None) if len(more) else np.zeros(0, bool)
    spans = np.where(special[:, None], -1, spans)
    words = _words(row.continuation, spans, special)
    added: Any = {
        "input_ids": more,
        "segment": np.ones(len(more), np.int8),
        "special": special,
        "word_ids": words,
        "char_start": spans[:, 0],
        "char_end": spans[:, 1],
    }
    joined: Any = {
        name: np.concatenate([getattr(prompt, name), values]).astype(getattr(prompt, name).dtype)
        for name, values in added.items()
    }
    if prompt.sources is not None:
        joined["sources"] = np.concatenate([prompt.sources, np.full(len(more), -1, np.int32)])
    if prompt.rationale is not None:
        joined["rationale"] = np.concatenate([prompt.rationale, np.zeros(len(more), np.int8)])
    if prompt.roles is not None:
        joined["roles"] = (*prompt.roles, *[None] * len(more))
    names = tuple(map(sys.intern, names_of(model, more.tolist())))
    text = row.continuation if row.continuation_ids is None else None
    return replace(prompt, tokens=(*prompt.tokens, *names), text_pair=text, **joined)


def _words(
    text: str | None, spans: NDArray[np.int32], special: NDArray[np.bool_]
) -> NDArray[np.int32]:
    """The word that each token is of: of ids alone each is one."""
    if text is None or (spans < 0).all():
        words = np.cumsum(~special) - 1
    else:
        before = [0, *np.cumsum([c.isspace() for c in text]).tolist()]
        # The last character says which word it is of: blanks before it may be its own.
        words = np.array([before[max(int(end) - 1, 0)] for _, end in spans])
    found: NDArray[np.int32] = np.where(special, -1, words).astype(np.int32)
    return found


def _opening(instance: Instance) -> int:
    """How many special tokens a prompt opens with."""
    return int(np.flatnonzero(~instance.special)[0])


def _fitting(instance: Instance, prompt: int, options: EncodeOptions) -> Instance:
    """The instance if it isn't too long; else without the tokens that its prompt begins with.

    What is near to what follows stays, and so do the special tokens that open the prompt.

    Raises:
        RowError: If it isn't to be cut, or that would leave nothing of the prompt.
    """
    length, limit = len(instance), options.max_length
    if length <= limit:
        return instance
    told = f"{length} tokens of a prompt and what follows, but the limit is {limit}"
    if options.overflow == "stride":
        raise RowError(f"{told}, and windows of it would be other prompts (--overflow truncate)")
    opening = _opening(instance)
    gone: Sequence[int] = range(opening, opening + length - limit)
    if gone[-1] >= prompt - 1:
        raise RowError(f"{told}, which leaves nothing of the prompt: give less that follows")
    if options.overflow == "fail":
        raise RowError(f"{told} (--overflow truncate cuts the start of the prompt)")
    return replace(without(instance, np.array(gone, np.intp)), truncated=True)
