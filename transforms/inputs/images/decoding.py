"""From a picture's file to the numbers that a model takes, by the model's own processor."""

import io
import warnings
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from attribeam.transforms.inputs.images.picture import Pixels
from attribeam.transforms.inputs.row import RowError

# More pixels than any photograph has; decoded they would take gigabytes.
MOST_PIXELS = 100_000_000


def decoded(content: bytes) -> Image.Image:
    """A picture of three colours, upright as its file says (EXIF).

    Grey, palettes and CMYK become red, green and blue; what is transparent is seen; of 16 bits the
    upper eight are kept.

    Raises:
        RowError: If it is no picture, cut off, or too large.
    """
    try:
        with warnings.catch_warnings():
            # Its size is looked at here, before anything is decoded.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(content))
            if picture.width * picture.height > MOST_PIXELS:
                raise Image.DecompressionBombError
            picture.load()
            return _of_colours(ImageOps.exif_transpose(picture))
    except Image.DecompressionBombError:
        raise RowError(
            f"the picture has more than {MOST_PIXELS // 1_000_000} million pixels"
        ) from None
    except UnidentifiedImageError:
        what = "empty" if not content else "no picture in a format that can be read"
        raise RowError(f"the picture's file is {what}") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise RowError(f"the picture can't be decoded: {error}") from error


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
