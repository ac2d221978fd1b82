"""Parts of a prompt: its messages, documents or sentences, as columns or rules give them.

A segment is a run of tokens that is ranked, or removed, as one. Tokens of no segment belong to none
of them: those of a chat template, say.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from attribeam.transforms.inputs.batch import Instance
from attribeam.transforms.inputs.row import Row, RowError, Segments


class Extent(NamedTuple):
    """Where a segment begins and ends, in characters of a text or in tokens of ids."""

    kind: str
    start: int
    end: int


# What a sentence ends with, and what follows it; and what parts documents.
_SENTENCE = re.compile(r"\S.*?(?:[.!?]+(?=\s|$)|\n|$)", re.DOTALL)
_DOCUMENT = re.compile(r"\S(?:.*?\S)??(?=\s*\n\s*\n|\s*$)", re.DOTALL)


def with_segments(
    row: Row, prompt: Instance, rule: Segments, messages: Sequence[Extent] | None
) -> Instance:
    """A prompt whose tokens know their segments.

    Args:
        row: The row.
        prompt: Its prompt, whole.
        rule: What the segments are. ``auto`` are those of the row, else its messages, else
            sentences.
        messages: Where messages are in the text, of prompts that are made of them.

    Raises:
        RowError: If the row's segments lie beyond the prompt, or in one another.
    """
    extents = _chosen(row, rule, messages)
    if extents is None:
        return prompt
    places = prompt.char_start if row.input_ids is None else np.arange(len(prompt))
    ends = prompt.char_end if row.input_ids is None else places + 1
    found = np.full(len(prompt), -1, np.int32)
    for number, (_, start, end) in enumerate(extents):
        # A token may begin with the blank before a segment.
        found[(ends > start) & (places < end) & ~prompt.special] = number
    return replace(prompt, sources=found, source_kinds=tuple(e.kind for e in extents))


def _chosen(row: Row, rule: Segments, messages: Sequence[Extent] | None) -> Sequence[Extent] | None:
    if rule == "none":
        return None
    if rule == "auto" and row.segments is not None:
        length = len(row.text or "") if row.input_ids is None else len(row.input_ids)
        return list(_given(row.segments, length))
    if rule == "auto" and messages is not None:
        return messages
    if row.text is None:
        return None
    pattern, kind = (_DOCUMENT, "document") if rule == "document" else (_SENTENCE, "sentence")
    of = [Extent("", 0, len(row.text))] if messages is None else messages
    return [
        Extent(kind, start + match.start(), start + match.end())
        for _, start, end in of
        for match in pattern.finditer(row.text[start:end])
    ]


def _given(segments: Sequence[Mapping[str, Any]], length: int) -> Iterator[Extent]:
    """Segments that a row has.

    Raises:
        RowError: If they are beyond what it has, or in one another.
    """
    before = 0
    for number, one in enumerate(segments):
        start, end = one.get("start"), one.get("end")
        if start is None or end is None or not before <= start < end <= length:
            raise RowError(
                f"segment {number} is from {start} to {end}: segments follow one another, and end "
                f"by {length} at most"
            )
        before = end
        yield Extent(str(one.get("kind") or "segment"), start, end)
