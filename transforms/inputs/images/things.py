"""What masks show: the things in a picture, and which of them a class is seen at."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attribeam.transforms.inputs.row import Row, RowError
from attribeam.transforms.network.anatomy import Grid

Mask = NDArray[np.bool_]
# How much of a patch is to be covered for it to be one of the rationale.
_HALF = 0.5


@dataclass(frozen=True)
class Thing:
    """A thing in a picture.

    Attributes:
        mask: Where it is seen, in pixels of what the model is fed, [H, W].
        label: Its class, None if unknown.
        meant: Whether it is (of) what the picture's label says, and not another thing beside it.
    """

    mask: Mask
    label: int | None
    meant: bool


def things_of(row: Row, mask_of: Callable[[bytes], Mask], classes: int) -> tuple[Thing, ...]:
    """The things that a row has masks of.

    A mask is of the row's class unless ``mask_label`` says otherwise; of others nothing is known
    without ``other_label``.

    Args:
        row: The row.
        mask_of: Decodes a mask's file.
        classes: How many the model has.

    Raises:
        RowError: If there are not as many labels as masks, one is none of the model's classes, or a
            mask can't be decoded.
    """
    meant, others = _listed(row.mask), _listed(row.other_mask)
    if not meant and others:
        raise RowError("the row has a mask of another thing, and none of what its label says")
    usual = [row.label] * len(meant)
    for label in (*(row.mask_label or ()), *(row.other_label or ())):
        if label is not None and not 0 <= label < classes:
            raise RowError(
                f"the label {label} of a mask is outside the model's classes 0 to {classes - 1}"
            )
    return (
        *_things(meant, usual if row.mask_label is None else row.mask_label, "mask", mask_of),
        *_things(others, row.other_label or [None] * len(others), "other mask", mask_of),
    )


def _listed(masks: bytes | Sequence[bytes] | None) -> list[bytes]:
    if masks is None:
        return []
    return [masks] if isinstance(masks, bytes) else list(masks)


def _things(
    masks: Sequence[bytes],
    labels: Sequence[int | None],
    what: str,
    mask_of: Callable[[bytes], Mask],
) -> list[Thing]:
    if len(masks) != len(labels):
        raise RowError(f"there are {len(masks)} of {what}, and {len(labels)} labels of them")
    meant = what == "mask"
    return [Thing(mask_of(mask), label, meant) for mask, label in zip(masks, labels, strict=True)]


def seen_at(things: Sequence[Thing], label: int | None) -> Mask | None:
    """Where a class is seen, [H, W]; None if no thing is known to be of it."""
    own = [thing.mask for thing in things if label is not None and thing.label == label]
    return np.logical_or.reduce(own) if own else None


def meant_at(things: Sequence[Thing]) -> Mask:
    """Where all is seen that is what the label says, [H, W]."""
    found: Mask = np.logical_or.reduce([thing.mask for thing in things if thing.meant])
    return found


def coverage(mask: Mask, grid: Grid) -> NDArray[np.float64]:
    """Share of each patch that a mask covers, row by row, [rows * columns]."""
    shape = (grid.rows, grid.patch_height, grid.columns, grid.patch_width)
    height, width = grid.patched
    found: NDArray[np.float64] = mask[:height, :width].reshape(shape).mean((1, 3)).reshape(-1)
    return found


def rationale_of(things: Sequence[Thing], label: int | None) -> Mask | None:
    """Where what is of the picture's class is seen, [H, W]; None without masks.

    If nothing is known to be of it, where all is that is meant.
    """
    if not things:
        return None
    found = seen_at(things, label)
    return meant_at(things) if found is None else found


def marked(things: Sequence[Thing], label: int | None, grid: Grid) -> NDArray[np.int32] | None:
    """1 for the patches that the rationale covers by half at least; None without masks."""
    mask = rationale_of(things, label)
    return None if mask is None else (coverage(mask, grid) >= _HALF).astype(np.int32)
