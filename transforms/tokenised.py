"""Pre-tokenised rows: instances from vocabulary ids."""

import numpy as np
from numpy.typing import NDArray

from transforms.batch import Instance, Ints
from transforms.model import Model
from transforms.row import EncodeOptions, Row, RowError


def from_ids(model: Model, row: Row, options: EncodeOptions) -> Instance:
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
