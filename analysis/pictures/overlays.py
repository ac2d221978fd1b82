"""The overlays of a run: of each picture one for each method that has scores of patches."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from attribeam.analysis.pictures.drawing import decoded, encoded, overlay

# A row for each picture and method: what ``drawn`` takes, and what they are.
OVERLAID = """
    select
        i.instance_id,
        i.label,
        i.prediction,
        i.image.bytes as image,
        i.mask.bytes as mask,
        i."rows",
        i."columns",
        i.word_ids,
        a.method,
        m.signed,
        a.scores
    from instances as i
    join (from attributions where layer is null) as a using (instance_id)
    join methods as m using (method)
    where i.image is not null
"""


def drawn(row: Mapping[str, Any]) -> bytes:
    """The PNG file of a picture with a method's map over it, of a row of ``OVERLAID``."""
    patches = np.zeros(row["rows"] * row["columns"])
    for number, score in zip(row["word_ids"], row["scores"], strict=True):
        if number is not None:  # Else it is the class token, or another of no patch.
            patches[number] = score
    mask = None if row["mask"] is None else decoded(row["mask"])
    shaped = patches.reshape(row["rows"], row["columns"])
    return encoded(overlay(decoded(row["image"]), shaped, mask, signed=bool(row["signed"])))
