"""What a masked LM is explained by: the [MASK]'s position, and a correct and a wrong word there."""

from dataclasses import replace
from typing import Any

import numpy as np

from transforms.batch import Instance
from transforms.model import Model
from transforms.row import Row, RowError


def with_contrast(model: Model, row: Row, instance: Instance) -> Instance:
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
        if not 0 <= word < model.vocabulary:
            raise RowError(
                f"word {model.named(word)} is outside the vocabulary ({model.vocabulary})"
            )
        return word
    if model.tokenizer is None:
        raise RowError(f"good and bad must be vocabulary ids: {model.no_tokenizer}")
    # A leading blank makes byte-level tokenizers see a word in mid-sentence; others ignore it.
    ids = model.tokenizer(" " + word, add_special_tokens=False).input_ids
    if len(ids) != 1 or ids[0] == model.tokenizer.unk_token_id:
        raise RowError(f"{word!r} is not a single token of the vocabulary")
    return _word_id(model, int(ids[0]))
