"""Classifiers of pictures whose parts attribeam doesn't know: pixels in, logits out, and no more.

Convolutions, windows that shift, levels that merge patches: no method that looks inside is defined
for these. Those that ask the network alone are, over a grid of patches that is laid on the picture.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from attribeam.schemas import UsageError
from attribeam.transforms.network.anatomy.base import Anatomy, Grid
from attribeam.transforms.network.parts import Layer

# Patches that a side is cut into: as near as can be to ViT's, of 224 pixels 14 of 16. With fewer a
# map says little, and with more a picture takes many hundred runs to perturb.
_USUAL, _FEWEST, _MOST = 14, 7, 28


def _no_layers(network: PreTrainedModel) -> list[nn.Module]:
    return []


def _no_layer(module: nn.Module, heads: int) -> Layer:
    raise TypeError("no layer is known of it")


CLOSED = Anatomy(
    layers=_no_layers,
    layer=_no_layer,
    heads={"classification": ()},
    segments=False,
    modality="images",
    pooling="mean",
    masks="none",
    own_attention=True,
    closed=True,
)


def is_closed(config: PretrainedConfig) -> bool:
    """Whether a model whose family is not in the table is a classifier of pictures."""
    (name, *_) = config.architectures or [""]
    return name.endswith(("ForImageClassification", "ForImageClassificationWithTeacher"))


def sized(row: Anatomy, config: PretrainedConfig, size: Sequence[int] | None) -> Anatomy:
    """The row for pictures of a size.

    Args:
        row: The row.
        config: The model's configuration.
        size: Channels, height and width that the processor makes; None without one, where the
            configuration's size is taken.

    Raises:
        UsageError: If nothing says the size, or it can't be cut into patches.
    """
    if size is None:
        if getattr(config, "image_size", None) is None:
            raise UsageError(
                f"nothing says how large pictures of this {config.model_type} are: neither its "
                "config.json nor a preprocessor_config.json beside it"
            )
        sides = config.image_size
        sides = [sides, sides] if isinstance(sides, int) else sides
        size = [int(getattr(config, "num_channels", 3)), *map(int, sides)]
    channels, height, width = size
    rows, columns = patches_along(height), patches_along(width)
    grid = Grid(channels, height, width, height // rows, width // columns, ())
    return replace(row, grid=partial(_same, grid))


def patches_along(side: int) -> int:
    """How many patches a side of so many pixels is cut into: its divisor that is nearest to 14.

    Of two it is the larger.

    Raises:
        UsageError: If there is none from 7 to 28.
    """
    divisors = [count for count in range(_FEWEST, _MOST + 1) if side % count == 0]
    if not divisors:
        raise UsageError(
            f"a side of {side} pixels can't be cut into {_FEWEST} to {_MOST} equal patches: let "
            "the processor (preprocessor_config.json) make pictures of another size"
        )
    return min(divisors, key=lambda count: (abs(count - _USUAL), -count))


def _same(grid: Grid, config: PretrainedConfig) -> Grid:
    return grid
