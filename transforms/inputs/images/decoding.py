"""From a picture's file to the numbers that a model takes, by the model's own processor."""

import io
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from attribeam.transforms.inputs.images.picture import Pixels
from attribeam.transforms.inputs.row import RowError
from attribeam.transforms.network.anatomy import Grid

# More pixels than any photograph has; decoded they would take gigabytes.
MOST_PIXELS = 100_000_000


def decoded(content: bytes) -> Image.Image:
    """A picture of three colours, upright as its file says (EXIF).

    Grey, palettes and CMYK become red, green and blue; what is transparent is seen; of 16 bits the
    upper eight are kept.

    Raises:
        RowError: If it is no picture, cut off, or too large.
    """
    return _of_colours(_opened(content, "picture"))


def mask_of(content: bytes, size: tuple[int, int], grid: Grid) -> NDArray[np.bool_]:
    """Where a mask is light, or not zero if it has nothing but 0 and 1, [H, W] of the model's.

    The nearest pixel is taken, as the authors of Beyond Intuition do.

    Args:
        content: Its file.
        size: Width and height of the picture that it is of.
        grid: The pixels that the model sees of this.

    Raises:
        RowError: If it is no picture, or of another size.
    """
    mask = _opened(content, "mask").convert("L")
    if mask.size != size:
        of_mask, of_picture = (f"{width} x {height}" for width, height in (mask.size, size))
        raise RowError(f"the mask is of {of_mask} pixels, and its picture of {of_picture}")
    values = np.asarray(mask.resize((grid.width, grid.height), Image.Resampling.NEAREST))
    inside: NDArray[np.bool_] = values > (127 if np.asarray(mask).max() > 1 else 0)
    return inside


def _opened(content: bytes, what: str) -> Image.Image:
    """A file's picture, upright; ``what`` it is, for messages."""
    try:
        with warnings.catch_warnings():
            # Its size is looked at here, before anything is decoded.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(content))
            if picture.width * picture.height > MOST_PIXELS:
                raise Image.DecompressionBombError
            picture.load()
            return ImageOps.exif_transpose(picture)
    except Image.DecompressionBombError:
        raise RowError(
            f"the {what} has more than {MOST_PIXELS // 1_000_000} million pixels"
        ) from None
    except UnidentifiedImageError:
        why = "no picture in a format that can be read" if content else "empty"
        raise RowError(f"the {what}'s file is {why}") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise RowError(f"the {what} can't be decoded: {error}") from error


def _of_colours(picture: Image.Image) -> Image.Image:
    """The same in red, green and blue."""
    if picture.mode.startswith("I"):
        values = np.asarray(picture).astype(np.int64)
        deep = picture.mode != "I" or values.max(initial=0) > 255
        picture = Image.fromarray((values >> 8 if deep else values).clip(0, 255).astype(np.uint8))
    return picture.convert("RGB")


def processed(processor: Any, picture: Image.Image) -> Pixels:
    """What the network is fed for a picture, [C, H, W]."""
    pixels = processor(picture, return_tensors="np")["pixel_values"][0]
    found: Pixels = np.asarray(pixels, np.float32)
    return found
