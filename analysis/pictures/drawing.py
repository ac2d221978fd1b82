"""A map of patches laid over a picture, as a PNG file.

Colours are mixed by the map's strength, so that what doesn't matter is seen as it is. Maps with a
sign go from orange over nothing to blue, with zero in the middle; others from nothing to red. A
mask is a line around what it holds.
"""

import io
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Reals = NDArray[np.floating[Any]]

Colour = tuple[int, int, int]


class Ink(NamedTuple):
    """What maps are drawn with, by the report's script too.

    Attributes:
        positive: For the class.
        negative: Against it.
        unsigned: What matters, of a map without a sign.
        line: Around a mask.
        opaque: How much of the picture the strongest patch hides.
        faded: How much of its own colours a picture loses, that those of the map stand out.
    """

    positive: Colour = (0, 96, 255)
    negative: Colour = (230, 126, 0)
    unsigned: Colour = (255, 0, 40)
    line: Colour = (255, 255, 255)
    opaque: float = 0.75
    faded: float = 0.35


INK = Ink()


def decoded(content: bytes) -> Image.Image:
    """The picture of a file."""
    with Image.open(io.BytesIO(content)) as opened:
        return opened.convert("1" if opened.mode == "1" else "RGB")


def encoded(picture: Image.Image) -> bytes:
    """A picture as a PNG file."""
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return out.getvalue()


def enlarged(patches: Reals, height: int, width: int) -> NDArray[np.float64]:
    """A map of patches, [rows, columns], bilinear between their middles, [height, width].

    Beyond the outermost middles it is as there (``align_corners=False``).
    """
    found = np.asarray(patches, np.float64)
    for axis, size in ((0, height), (1, width)):
        count = found.shape[axis]
        places = ((np.arange(size) + 0.5) * count / size - 0.5).clip(0, count - 1)
        first = places.astype(int)
        low = found.take(first, axis)
        high = found.take(np.minimum(first + 1, count - 1), axis)
        share = np.expand_dims(places - first, 1 - axis)
        found = low + share * (high - low)
    return found


def strengths(patches: Reals, *, signed: bool) -> NDArray[np.float64]:
    """Scores over the largest magnitude, -1 to 1; those of a map without a sign from 0 on.

    What is not finite is 0, and so is all of a map that is 0.
    """
    values = np.nan_to_num(np.asarray(patches, np.float64), nan=0, posinf=0, neginf=0)
    if not signed:
        values = values.clip(0)
    most = np.abs(values).max(initial=0)
    return values / most if most > 0 else values


def overlay(
    picture: Image.Image, patches: Reals, mask: Image.Image | None = None, *, signed: bool
) -> Image.Image:
    """A picture with a map laid over it.

    Args:
        picture: The picture, in red, green and blue.
        patches: Scores of patches, [rows, columns].
        mask: What a line is drawn around, in the picture's size; None for nothing.
        signed: Whether scores below 0 speak against the class; else they count as 0.
    """
    strength = enlarged(strengths(patches, signed=signed), picture.height, picture.width)[..., None]
    seen = np.asarray(picture.convert("RGB"), np.float64)
    grey = seen @ (0.299, 0.587, 0.114)
    seen = seen + INK.faded * (grey[..., None] - seen)
    colour = np.where(strength < 0, INK.negative, INK.positive if signed else INK.unsigned)
    mixed = seen + INK.opaque * np.abs(strength) * (colour - seen)
    if mask is not None:
        mixed[outline(np.asarray(mask, bool))] = INK.line
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels just outside of a mask, which have one of it beside them, [height, width]."""
    wide = np.pad(mask, 1)
    beside = wide[:-2, 1:-1] | wide[2:, 1:-1] | wide[1:-1, :-2] | wide[1:-1, 2:]
    found: NDArray[np.bool_] = beside & ~mask
    return found
