"""Windows of a text that is longer than the model's limit, each an instance of its own."""

from dataclasses import replace
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attribeam.transforms.inputs.batch import Instance

_Positions = NDArray[np.intp]

# Of the limit: what the other text of a pair must leave at least, lest the windows of a long text
# become too short to say anything and too many to hold.
_LEAST_ROOM = 1 / 8


class NoRoomError(ValueError):
    """The tokens that every window repeats leave too little room; the message says how much."""


def default_overlap(room: int) -> int:
    """Tokens that neighbouring windows have in common: a quarter of what a window can take."""
    return room // 4


def most_overlap(room: int) -> int:
    """The largest overlap: with half of a window's room, a token is in two windows at most."""
    return room // 2


def windows(instance: Instance, limit: int, overlap: int | None) -> list[Instance]:
    """Cuts an instance that is too long into windows, as tokenizers do with their ``stride``.

    What is cut is the longer text of a pair (of equal ones the first); the other text and the
    special tokens around both are in every window. Texts are told apart by ``segment``. All windows
    are full but for the last. Offsets, words and marks stay those of the whole text.

    Args:
        instance: The whole text, of more than ``limit`` tokens.
        limit: Most tokens of a window, special tokens included.
        overlap: Tokens that neighbouring windows have in common; no more than ``most_overlap``
            of their room is used. None for ``default_overlap``.

    Returns:
        The windows in order, with the ids ``ID/0``, ``ID/1`` and so on.

    Raises:
        NoRoomError: If the text that is kept whole leaves less than an eighth of the limit.
    """
    body = _body(instance)
    room = _room(instance, body, limit)
    step = room - min(default_overlap(room) if overlap is None else overlap, most_overlap(room))
    starts = range(0, len(body) - room + step, step)
    return [
        replace(
            _part(instance, body, start, room),
            instance_id=f"{instance.instance_id}/{number}",
            row_id=instance.instance_id,
            window=number,
        )
        for number, start in enumerate(starts)
    ]


def around_readout(instance: Instance, limit: int) -> Instance:
    """The one window, of an instance that is too long, with the token read out in its middle.

    Near an end of the text the window ends there. Where the readout is in the text that is kept
    whole, it is the first window.

    Raises:
        NoRoomError: If the text that is kept whole leaves less than an eighth of the limit.
    """
    body = _body(instance)
    room = _room(instance, body, limit)
    at = np.flatnonzero(body == instance.position)
    start = min(max(0, int(at[0]) - room // 2), len(body) - room) if len(at) else 0
    return replace(_part(instance, body, start, room), truncated=True)


def _body(instance: Instance) -> _Positions:
    """Positions of the longer text, without the special tokens around it."""
    texts = [np.flatnonzero(instance.segment == s) for s in np.unique(instance.segment)]
    return max((_unframed(instance, text) for text in texts), key=len)


def _unframed(instance: Instance, positions: _Positions) -> _Positions:
    inner = np.flatnonzero(~instance.special[positions])
    return positions[inner[0] : inner[-1] + 1] if len(inner) else positions[:0]


def _room(instance: Instance, body: _Positions, limit: int) -> int:
    kept = len(instance) - len(body)
    if limit - kept < max(1, _LEAST_ROOM * limit):
        raise NoRoomError(
            f"{len(instance)} tokens, of which {kept} would be in every window, but the limit is "
            f"{limit} (--overflow truncate cuts both texts)"
        )
    return limit - kept


def _part(instance: Instance, body: _Positions, start: int, room: int) -> Instance:
    """The instance with only some of the tokens of its body."""
    return without(instance, np.concatenate([body[:start], body[start + room :]]))


def without(instance: Instance, gone: _Positions) -> Instance:
    """The instance without the tokens at some positions, none of which is read out."""
    kept = np.delete(np.arange(len(instance)), gone)
    at = instance.readout
    take: Any = itemgetter(*kept.tolist()) if len(kept) > 1 else lambda values: (values[kept[0]],)
    return replace(
        instance,
        input_ids=instance.input_ids[kept],
        segment=instance.segment[kept],
        types=None if instance.types is None else instance.types[kept],
        special=instance.special[kept],
        word_ids=instance.word_ids[kept],
        char_start=instance.char_start[kept],
        char_end=instance.char_end[kept],
        tokens=take(instance.tokens),
        readout=None if at is None else int(np.searchsorted(kept, at)),
        rationale=None if instance.rationale is None else instance.rationale[kept],
        roles=None if instance.roles is None else take(instance.roles),
        sources=None if instance.sources is None else instance.sources[kept],
    )
