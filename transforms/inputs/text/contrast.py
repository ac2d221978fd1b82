"""What a masked LM is explained by: the [MASK]'s position, and a correct and a wrong word there."""

from dataclasses import replace

import numpy as np

from attribeam.transforms.inputs.batch import Instance
from attribeam.transforms.inputs.row import Row, RowError
from attribeam.transforms.inputs.text.texts import whole
from attribeam.transforms.network.model import Model


def with_contrast(model: Model, row: Row, instance: Instance) -> Instance:
    """Adds what a masked LM is explained by: the [MASK]'s position and the two words.

    Raises:
        RowError: If the text hasn't one mask, or a word is missing or no single token there.
    """
    if model.mask_id is None:
        raise RowError("the model's mask token is unknown (--mask-token-id)")
    masks = np.flatnonzero(instance.input_ids == model.mask_id)
    if len(masks) != 1:
        raise RowError(f"the text has {len(masks)} mask tokens; exactly one is needed")
    at = int(masks[0])
    if row.good is None or row.bad is None:
        raise RowError("the correct or the wrong word (good, bad) is missing")
    good, bad = (_id_of(model, instance, at, word) for word in (row.good, row.bad))
    if good == bad:
        raise RowError(f"the correct and the wrong word are the same token ({row.good!r})")
    # The mask token stands for a word, whatever the tokenizer's special-token flag says.
    special = instance.special.copy()
    special[at] = False
    return replace(
        instance,
        special=special,
        readout=at,
        label=0,
        contrast=(good, bad),
        contrast_words=(str(row.good), str(row.bad)),
    )


def _id_of(model: Model, instance: Instance, at: int, word: str | int) -> int:
    """Vocabulary id of a word that stands where the mask at a position does."""
    if isinstance(word, str):
        if model.tokenizer is None:
            raise RowError(f"good and bad must be vocabulary ids: {model.no_tokenizer}")
        own = _alone if instance.text is None else _in_place
        found = own(model, instance, at, word)
        if found is None or found == model.tokenizer.unk_token_id:
            raise RowError(f"{word!r} is not a single token where the mask stands")
        word = found
    if not 0 <= word < model.vocabulary:
        raise RowError(f"{model.named(word)} is outside the vocabulary ({model.vocabulary})")
    return word


def _in_place(model: Model, instance: Instance, at: int, word: str) -> int | None:
    """The one token that a word is when the tokenizer finds it in the mask's place.

    Byte-level tokenizers have one piece for a word after a blank, and another for one that opens
    the text or follows a bracket.
    """
    assert model.tokenizer is not None
    which = int(instance.segment[at])
    texts = [text for text in (instance.text, instance.text_pair) if text]
    start, end = int(instance.char_start[at]), int(instance.char_end[at])
    # Some mask tokens take in the blanks around them.
    covered = texts[which][start:end]
    start += len(covered) - len(covered.lstrip())
    end -= len(covered) - len(covered.rstrip())
    filled = f"{texts[which][:start]}{word}{texts[which][end:]}"
    encoding = whole(model.tokenizer, [*texts[:which], filled, *texts[which + 1 :]])
    past = start + len(word)
    there = [
        (token, first, last)
        for token, text, (first, last) in zip(
            encoding.ids, encoding.sequence_ids, encoding.offsets, strict=True
        )
        if text == which and first < past and last > start
    ]
    if len(there) != 1:
        return None
    token, first, last = there[0]
    alone = last <= past and not filled[first:start].strip()
    return int(token) if alone else None


def _alone(model: Model, instance: Instance, at: int, word: str) -> int | None:
    """The one token that a word is where there is no text: after a blank, unless it comes first."""
    assert model.tokenizer is not None
    first = at == 0 or bool(instance.special[at - 1])
    blank = "" if first else " "
    ids = model.tokenizer(blank + word, add_special_tokens=False).input_ids
    return int(ids[0]) if len(ids) == 1 else None
