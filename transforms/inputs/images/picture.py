"""Pictures as instances: a position is a patch, or one of the tokens that stand before them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from attribeam.transforms.inputs.batch import Instance
from attribeam.transforms.inputs.images.things import Thing, marked, rationale_of
from attribeam.transforms.inputs.images.thumbnail import Colours, silhouette, thumbnail
from attribeam.transforms.inputs.row import Row
from attribeam.transforms.network.anatomy import Grid

Pixels = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Picture(Instance):
    """A picture; tokens are called by the row and the column of their patches, as ``r0c3``.

    ``word_ids`` are numbers of patches, row by row, and -1 for other tokens; ``input_ids`` those
    of positions. Of texts there is nothing.

    Attributes:
        pixels: What the network is fed, normalised, [C, H, W].
        grid: The patches that it is cut into.
        things: What the corpus has masks of.
        colours: What its numbers were made of; None where that isn't known.
    """

    pixels: Pixels | None = None
    grid: Grid | None = None
    things: tuple[Thing, ...] = ()
    colours: Colours | None = None
    modality: ClassVar[str] = "images"

    @property
    def content(self) -> bytes:
        """Its pixels."""
        assert self.pixels is not None
        return self.pixels.tobytes()

    @property
    def own_columns(self) -> Mapping[str, Any]:
        """What the model saw, small, and how that is cut up."""
        assert self.pixels is not None and self.grid is not None
        grid = self.grid
        square = grid.patch_height == grid.patch_width
        mask = rationale_of(self.things, self.label)
        return {
            "image": {"bytes": thumbnail(self.pixels, self.colours), "path": None},
            "mask": None if mask is None else {"bytes": silhouette(mask), "path": None},
            "width": grid.width,
            "height": grid.height,
            "rows": grid.rows,
            "columns": grid.columns,
            "patch": grid.patch_height if square else None,
        }


def picture_of(row: Row, pixels: Pixels, grid: Grid, things: tuple[Thing, ...] = ()) -> Picture:
    """The instance of a picture; its rationale is the patches where its class is seen."""
    patches = grid.rows * grid.columns
    names = [f"r{row}c{column}" for row in range(grid.rows) for column in range(grid.columns)]
    mask = marked(things, row.label, grid)
    nowhere = np.full(grid.positions, -1, np.int32)
    return Picture(
        instance_id=row.instance_id,
        input_ids=np.arange(grid.positions, dtype=np.int32),
        segment=np.zeros(grid.positions, np.int8),
        special=np.arange(grid.positions) < grid.before,
        word_ids=np.concatenate([nowhere[: grid.before], np.arange(patches, dtype=np.int32)]),
        char_start=nowhere,
        char_end=nowhere,
        tokens=(*grid.specials, *names),
        split=row.split,
        label=row.label,
        roles=None if mask is None else _roles(grid, mask),
        rationale=None if mask is None else np.concatenate([0 * nowhere[: grid.before], mask]),
        subset=row.subset,
        pixels=pixels,
        grid=grid,
        things=things,
    )


def _roles(grid: Grid, mask: NDArray[np.int32]) -> tuple[str | None, ...]:
    """``inside`` and ``outside`` of the mask for patches; other tokens have no role."""
    return (*(None,) * grid.before, *("inside" if own else "outside" for own in mask.tolist()))
