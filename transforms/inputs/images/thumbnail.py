"""What a model saw, as a small picture for people."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.floating[Any]]

SIDE = 96  # Pixels, at most.


@dataclass(frozen=True)
class Colours:
    """What a processor makes of a colour ``c``, 0 to 255: ``(c * factor - mean) / spread``.

    Mean and spread are by channel, or one for all.
    """

    factor: float
    mean: tuple[float, ...]
    spread: tuple[float, ...]


def colours_of(processor: Any) -> Colours | None:
    """What a processor makes of colours; None if there is none."""
    if processor is None:
        return None
    factor = processor.rescale_factor if getattr(processor, "do_rescale", False) else 1.0
    if not getattr(processor, "do_normalize", False):
        return Colours(factor, (0.0,), (1.0,))
    mean, spread = np.atleast_1d(processor.image_mean), np.atleast_1d(processor.image_std)
    return Colours(factor, tuple(mean.tolist()), tuple(spread.tolist()))


def thumbnail(pixels: Pixels, colours: Colours | None) -> bytes:
    """The PNG file of a model's input, at most 96 pixels a side.

    Args:
        pixels: What the network is fed, [C, H, W]. Of other than one or three channels the mean is
            shown, in grey.
        colours: What they were made of; None if that isn't known: then the least number is black,
            and the largest white.
    """
    values = np.asarray(pixels, np.float64)
    if colours is None:
        low, high = values.min(), values.max()
        values = (values - low) / (high - low if high > low else 1) * 255
    else:
        mean, spread = (np.array(x)[:, None, None] for x in (colours.mean, colours.spread))
        values = (values * spread + mean) / colours.factor
    shown = np.moveaxis(values, 0, -1) if len(values) == 3 else values.mean(0)
    picture = Image.fromarray(np.rint(shown).clip(0, 255).astype(np.uint8))
    picture.thumbnail((SIDE, SIDE))
    return _file(picture)


def silhouette(mask: NDArray[np.bool_]) -> bytes:
    """The PNG file, of a bit a pixel, of a mask in the thumbnail's size, white where it holds.

    Args:
        mask: Of a model's input, [H, W].
    """
    small = Image.new("L", mask.shape[::-1])
    small.thumbnail((SIDE, SIDE))
    return _file(Image.fromarray(mask).resize(small.size, Image.Resampling.NEAREST))


def _file(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return out.getvalue()
