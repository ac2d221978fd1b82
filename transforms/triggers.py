"""Adversarial triggers: tokens of one instance whose connection decides, put into other instances.

After Hao et al. 2021, and the code that they released: of an instance, the head of any
layer with the largest attribution gives the trigger, which is the tokens that its two strongest
entries connect, and where they stand in their texts. Put into other instances at about the same
places, they are to change what the model predicts there. Nothing here runs a model.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from attribeam.transforms.inputs.batch import Flags, Instance, Ints
from attribeam.transforms.passes.trees import HeadFacts


@dataclass(frozen=True)
class Trigger:
    """Tokens to insert, in order of their positions in the instance that they come from.

    Attributes:
        input_ids: Vocabulary ids, K of them.
        tokens: Token strings.
        segment: 0 for the first text, 1 for the second.
        position: Position in the instance.
        relative: Place in the text: 1 / n for the first of its n tokens, 1 for the last.
        score: Sum of the two attributions, whether the second connection is part of it or not.
    """

    input_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    segment: tuple[int, ...]
    position: tuple[int, ...]
    relative: tuple[float, ...]
    score: float

    def __len__(self) -> int:
        return len(self.input_ids)


def strongest_head(facts: Sequence[Sequence[HeadFacts]]) -> tuple[int, int]:
    """Layer and head of the largest attribution; of equals, the lower layer, then the lower head.

    Args:
        facts: Facts of each head of each layer.
    """
    heads = [(layer, head) for layer, row in enumerate(facts) for head in range(len(row))]
    return max(heads, key=lambda at: facts[at[0]][at[1]].attr_max)


def trigger_of(
    instance: Instance, head: HeadFacts, *, ratio: float = 0.2, both: bool = False
) -> Trigger:
    """The trigger that an instance gives; special tokens are left out, so it may be empty.

    Args:
        instance: The instance.
        head: Facts of its strongest head.
        ratio: The second connection is part of the trigger if its attribution is at least this
            share of the first's.
        both: It is, whatever its attribution.
    """
    positions = {head.top1_from, head.top1_to}
    if head.top2_from is not None and head.top2_to is not None and head.top2 is not None:
        # Without a positive attribution there is no share of it.
        share = head.top2 / head.top1 if head.top1 > 0 else -np.inf
        if both or share >= ratio:
            positions |= {head.top2_from, head.top2_to}
    chosen = sorted(position for position in positions if not instance.special[position])
    spans = text_spans(instance.segment, instance.special)
    segment = [int(instance.segment[position]) for position in chosen]
    return Trigger(
        input_ids=tuple(int(instance.input_ids[position]) for position in chosen),
        tokens=tuple(instance.tokens[position] for position in chosen),
        segment=tuple(segment),
        position=tuple(chosen),
        relative=tuple(
            (position - spans[text].start + 1) / len(spans[text])
            for position, text in zip(chosen, segment, strict=True)
        ),
        score=head.top1 + (head.top2 or 0.0),
    )


def select(
    triggers: Sequence[Trigger], *, least: float = 0.02, compat: bool = False
) -> list[Trigger]:
    """The triggers with a large enough score, the largest first.

    Args:
        triggers: The candidates, one per instance.
        least: Least score.
        compat: Lose the last of them if none is below the least score, as the authors' loop does.
    """
    ordered = sorted(triggers, key=lambda trigger: trigger.score, reverse=True)
    kept = [trigger for trigger in ordered if trigger.score >= least]
    return kept[:-1] if compat and len(kept) == len(ordered) else kept


def text_spans(segment: Ints, special: Flags) -> tuple[range, range]:
    """Positions of the two texts: from the first to the last token of each that isn't special.

    Args:
        segment: 0 for the first text, 1 for the second, [T].
        special: True for [CLS], [SEP] and the like, [T].
    """

    def span(text: int) -> range:
        inside = np.flatnonzero((segment == text) & ~special)
        return range(int(inside[0]), int(inside[-1]) + 1) if len(inside) else range(0)

    return span(0), span(1)


def inserted(
    trigger: Trigger, segment: Ints, special: Flags, *, longest: int | None = None
) -> NDArray[np.int64]:
    """Puts a trigger into an instance: what stands where afterwards.

    A token with the relative place r goes to round((n + k) r) of a text of n tokens that gets k of
    them, halves to the even number, and one further if the token before went to the same place.
    That counts from 0 whereas r counts from 1, so that it comes out one late; so the authors have
    it. A text that the instance doesn't have gets nothing.

    Args:
        trigger: The trigger.
        segment: 0 for the first text, 1 for the second, [T].
        special: True for [CLS], [SEP] and the like, [T].
        longest: Most tokens of the result. The longer text loses its last ones until they fit, the
            second one if they are equally long.

    Returns:
        Per token its position in the instance, or -1 - k for the trigger's token k.
    """
    spans = text_spans(segment, special)
    texts = [list(span) for span in spans]
    for number, text in enumerate(texts):
        if text:
            _insert(trigger, number, text)
    if longest is not None:
        room = longest - (len(segment) - sum(map(len, spans)))
        while sum(map(len, texts)) > max(room, 0):
            texts[0 if len(texts[0]) > len(texts[1]) else 1].pop()
    places: list[int] = []
    after = 0
    for span, text in zip(spans, texts, strict=True):
        if span:
            places += [*range(after, span.start), *text]
            after = span.stop
    return np.array([*places, *range(after, len(segment))], dtype=np.int64)


def _insert(trigger: Trigger, number: int, text: list[int]) -> None:
    """Puts the trigger's tokens of one text into that text of an instance."""
    tokens = [token for token, home in enumerate(trigger.segment) if home == number]
    length = len(text) + len(tokens)
    before = -1
    for token in tokens:
        place = round(length * trigger.relative[token])
        # What is past the end goes to the end.
        before = place + 1 if place == before else place
        text.insert(before, -1 - token)


def attacked(instance: Instance, trigger: Trigger, *, longest: int | None = None) -> Instance:
    """The instance with a trigger in it, without the text that it no longer is.

    The trigger's tokens belong to no word and no rationale.

    Args:
        instance: The instance; its special tokens stay.
        trigger: The trigger.
        longest: Most tokens of the result (see ``inserted``).

    Raises:
        ValueError: If the position that is read out would be cut off.
    """
    places = inserted(trigger, instance.segment, instance.special, longest=longest)
    readout = np.flatnonzero(places == instance.readout)
    if not len(readout):
        raise ValueError(f"with the trigger, the readout is beyond {longest} tokens")
    own = places >= 0
    names = (*instance.tokens, *trigger.tokens[::-1])
    nowhere = np.full(len(places), -1, np.int32)

    def take(old: Ints, new: Sequence[int]) -> Ints:
        # -1 - k is the trigger's token k counted from the end, once they are appended in reverse.
        return np.append(old, np.array(new[::-1], old.dtype))[places]

    none = (0,) * len(trigger)
    rationale, types = instance.rationale, instance.types
    # What goes into a text gets that text's type; a text that isn't there gets nothing.
    spans = text_spans(instance.segment, instance.special)
    home = [0 if types is None or not spans[t] else int(types[spans[t].start]) for t in (0, 1)]
    return replace(
        instance,
        input_ids=take(instance.input_ids, trigger.input_ids),
        segment=take(instance.segment, trigger.segment),
        types=None if types is None else take(types, [home[text] for text in trigger.segment]),
        special=own & np.append(instance.special, np.zeros(len(trigger), bool))[places],
        word_ids=take(instance.word_ids, (-1,) * len(trigger)),
        char_start=nowhere,
        char_end=nowhere,
        tokens=tuple(names[place] for place in places.tolist()),
        readout=int(readout[0]),
        text=None,
        text_pair=None,
        rationale=None if rationale is None else take(rationale, none),
        roles=None,
        truncated=instance.truncated or int(own.sum()) < len(instance),
    )
