"""Pictures as a kind of input: positions are patches, and pixels are what paths run in.

Scores by pixel are added up by patch, so that tables and views are those of tokens.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from attribeam.schemas import UsageError
from attribeam.transforms.inputs.batch import Batch, Instance, compared_with, numbers_asked, put
from attribeam.transforms.inputs.images.blur import blurred
from attribeam.transforms.inputs.images.decoding import decoded, mask_of, processed
from attribeam.transforms.inputs.images.maps import patch_map
from attribeam.transforms.inputs.images.picture import Picture, Pixels, picture_of
from attribeam.transforms.inputs.images.things import Mask, things_of
from attribeam.transforms.inputs.images.thumbnail import colours_of
from attribeam.transforms.inputs.row import EncodeOptions, Row, RowError
from attribeam.transforms.inputs.seam import (
    Copy,
    Enter,
    EvaluationProtocol,
    Operation,
    Space,
    SpaceName,
    Unit,
)
from attribeam.transforms.network.anatomy import Grid
from attribeam.transforms.network.model import Model
from attribeam.transforms.network.rows import Rows

NO_PROCESSOR = (
    "the model's folder has no preprocessor_config.json, so the corpus must hold pixel_values"
)


class Images:
    """Pictures of one size."""

    operations: tuple[Operation, ...] = ("mean", "black", "drop")
    units: tuple[Unit, ...] = ("patch",)
    starts: tuple[str, ...] = ("zero", "black", "blur")
    protocols: tuple[EvaluationProtocol, ...] = ("patch", "pixel")

    # From a row to an instance ---------------------------------------------------------------

    def encode(self, model: Model, row: Row, options: EncodeOptions) -> list[Instance]:
        """The instance of a picture's file, or of C * H * W numbers as the model takes them.

        Raises:
            RowError: If there is none, it can't be decoded, has not as many pixels as the model
                takes, or not all are numbers.
        """
        grid = _grid(model)
        if row.image is None and row.pixel_values is None:
            raise RowError("the row has no picture")
        if row.image is not None and model.processor is None:
            raise RowError(NO_PROCESSOR)
        pixels: Pixels = np.asarray(() if row.pixel_values is None else row.pixel_values)
        seen = (grid.width, grid.height)
        if row.image is not None:
            picture = decoded(row.image)
            seen, pixels = picture.size, processed(model.processor, picture).reshape(-1)
        size = (grid.channels, grid.height, grid.width)
        if len(pixels) != np.prod(size):
            wanted = " x ".join(map(str, size))
            raise RowError(f"{len(pixels)} numbers, but a picture of the model's is {wanted}")
        if not np.isfinite(pixels).all():
            raise RowError("the picture's pixels are not all finite numbers")
        decode = partial(_mask, model, seen=seen)
        things = things_of(row, decode, model.num_outputs)
        colours = colours_of(model.processor)
        instance = replace(picture_of(row, pixels.reshape(size), grid, things), colours=colours)
        return [replace(instance, readout=None) if model.pools else instance]

    def check(self, instance: Instance) -> None:
        """Nothing: a picture always has patches."""

    def fault(self, model: Model, instance: Instance) -> str | None:
        """A picture of another size."""
        grid, pixels = _grid(model), _pixels(instance)
        size = (grid.channels, grid.height, grid.width)
        return None if pixels.shape == size else f"a picture of {pixels.shape}, and not of {size}"

    # From instances to what the network is given ---------------------------------------------

    def rows(self, model: Model, instances: Sequence[Instance]) -> Rows:
        """Instances as rows, all of one length."""
        grid, count = _grid(model), len(instances)
        fed = np.stack([_fed(instance) for instance in instances])
        mask = put(np.ones((count, grid.positions), np.int64), model.device)
        return Rows(
            inputs={"pixel_values": put(fed, model.device).to(model.dtype)},
            attention_mask=mask,
            read=grid.read(model.pooling, mask),
            outputs=numbers_asked([i.outputs for i in instances], model.device),
            against=compared_with(instances, model),
        )

    def perturbed(self, model: Model, copies: Sequence[Copy]) -> Rows:
        """Copies with patches of the mean colour, black ones, or without them.

        What ``drop`` leaves out keeps its place in the row, hidden from all others. The mean colour
        is zero after normalising. Single pixels can be painted, and not left out.
        """
        grid = _grid(model)
        rows = self.rows(model, [replace(instance, asked=None) for instance, _, _ in copies])
        hidden = np.stack(
            [gone if how == "drop" else np.zeros(grid.positions, bool) for _, how, gone in copies]
        )
        kept = 1 - put(hidden, model.device).to(rows.attention_mask.dtype)
        painted = put(np.stack([_painted(copy, grid) for copy in copies]), model.device)[:, None]
        black = put(np.array([how == "black" for _, how, _ in copies]), model.device)
        paint = torch.zeros_like(rows.inputs["pixel_values"])
        if black.any():
            paint = torch.where(black[:, None, None, None], _black(model), paint)
        pixels = torch.where(painted, paint, rows.inputs["pixel_values"])
        mask = rows.attention_mask * kept
        read = grid.read(model.pooling, mask)
        return replace(rows, inputs={"pixel_values": pixels}, attention_mask=mask, read=read)

    def length(self, model: Model, copy: Copy) -> int:
        """Number of patches and other tokens: of all copies the same."""
        return len(copy[0])

    # What is removed, and where paths start --------------------------------------------------

    def units_of(self, instance: Instance, unit: Unit) -> NDArray[np.int64]:
        """Number of the patch that a position is, -1 for no patch, [T]."""
        return instance.word_ids.astype(np.int64)

    def usual_operation(self, model: Model) -> Operation:
        """The mean colour, which is zero after normalising."""
        return "mean"

    def check_operation(self, model: Model, operation: Operation, wish: str, remedy: str) -> None:
        """Checks that it is one for pictures, what is black is known, and patches can be hidden.

        Raises:
            UsageError: If it isn't.
        """
        if operation not in self.operations:
            known = ", ".join(self.operations)
            raise UsageError(f"{wish} is of texts, and the model is of pictures: there are {known}")
        if operation == "black":
            _check_black(model, wish, remedy)
        if operation == "drop" and model.anatomy.masks == "none":
            family = model.network.config.model_type
            raise UsageError(
                f"{wish} hides patches, which {family} of transformers has no mask for: {remedy}"
            )

    def check_start(self, model: Model, start: str, wish: str, remedy: str) -> None:
        """Checks that a path of pixels can start there.

        Raises:
            UsageError: If it is of texts, or it isn't known what is black.
        """
        if start not in self.starts:
            known = " and ".join(self.starts)
            raise UsageError(f"{wish} is of texts, and the model is of pictures: there is {known}")
        if start == "black":
            _check_black(model, wish, remedy)

    def same_start(self, start: str) -> bool:
        """True of one colour: all pictures of a model are of one size."""
        return start != "blur"

    def summed(self, model: Model, rows: Rows) -> torch.Tensor:
        """What enters the first layer, in float64: relevance divides by sums of it near zero."""
        pixels = rows.inputs["pixel_values"].double()
        return model.embed(replace(rows, inputs={"pixel_values": pixels}), exact=True)

    def space(self, model: Model, batch: Batch, name: SpaceName, start: str) -> Space:
        """The path from the mean colour (normalised zeros), black or a blur to a picture.

        In what is ``embedded`` it is one of pixels. In place of ``words`` there is what pixels add
        to each position, of which the class token has nothing: the same path, by position.
        """
        end = batch.rows.inputs["pixel_values"]
        begin = torch.zeros_like(end)
        if start == "black":
            begin = _black(model).expand_as(end).contiguous()
        elif start == "blur":
            begin = blurred(end)
        if name == "embedded":
            return Space(begin, end, self.leaf(model, batch.rows)[1])
        nothing = self._added(model, batch.rows, torch.zeros_like(end))
        first, last = (
            (self._added(model, batch.rows, pixels) - nothing).to(model.dtype)
            for pixels in (begin, end)
        )
        alone = nothing[:1].to(model.dtype)

        def enter(_: Rows, values: torch.Tensor) -> torch.Tensor:
            norm = model.embedding.norm
            return alone + values if norm is None else norm.module(alone + values)

        return Space(first, last, enter)

    def _added(self, model: Model, rows: Rows, pixels: torch.Tensor) -> torch.Tensor:
        """What is added up to enter the first layer for some pixels, in float64."""
        with torch.no_grad():
            return self.summed(model, replace(rows, inputs={"pixel_values": pixels}))

    def leaf(self, model: Model, rows: Rows) -> tuple[torch.Tensor, Enter]:
        """Pixels, [B, C, H, W]: gradients are with respect to these."""

        def enter(rows: Rows, pixels: torch.Tensor) -> torch.Tensor:
            return model.embed(replace(rows, inputs={"pixel_values": pixels}))

        return rows.inputs["pixel_values"], enter

    def there(self, model: Model, rows: Rows) -> torch.Tensor:
        """True for all pixels, [B, 1, 1, 1]."""
        fed = rows.inputs["pixel_values"]
        return torch.ones(len(fed), 1, 1, 1, dtype=torch.bool, device=fed.device)

    def vectors(self, model: Model, values: torch.Tensor) -> torch.Tensor:
        """Values of pixels, [B, C, H, W], by patch, [B, T, n]; zero for what is no patch."""
        grid = _grid(model)
        channels = values.shape[1]
        height, width = grid.patched
        patches: torch.Tensor = values[..., :height, :width].reshape(
            len(values),
            channels,
            grid.rows,
            grid.patch_height,
            grid.columns,
            grid.patch_width,
        )
        found = patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        none = found.new_zeros(len(found), grid.before, found.shape[-1])
        return torch.cat([none, found], 1)

    def finer(self, model: Model, vectors: torch.Tensor) -> torch.Tensor | None:
        """Values of pixels by patch, [B, T, n], as those of pixels, row by row, [B, H * W, C]."""
        grid = _grid(model)
        shape = (grid.rows, grid.columns, grid.channels, grid.patch_height, grid.patch_width)
        apart: torch.Tensor = vectors[:, grid.before :].reshape(len(vectors), *shape)
        pixels = apart.permute(0, 1, 4, 2, 5, 3).reshape(len(vectors), *grid.patched, -1)
        height, width = grid.patched
        left_over = (0, 0, 0, grid.width - width, 0, grid.height - height)
        return functional.pad(pixels, left_over).flatten(1, 2)


def _mask(model: Model, content: bytes, seen: tuple[int, int]) -> Mask:
    """A mask of a picture that was seen in some size."""
    if _cuts(model.processor, *seen):
        raise RowError("the model's processor cuts pictures, so that a mask can't be laid on them")
    return mask_of(content, seen, _grid(model))


def _cuts(processor: Any, width: int, height: int) -> bool:
    """Whether a processor leaves the edges of a picture of some size out.

    One that brings the shorter side to as many pixels as it keeps of both leaves a square whole.
    """
    if not getattr(processor, "do_center_crop", False):
        return False
    kept, side = processor.crop_size, processor.size
    whole = {kept["height"], kept["width"]} == {side.get("shortest_edge")}
    return not (whole and width == height and processor.do_resize)


def _check_black(model: Model, wish: str, remedy: str) -> None:
    """Checks that the processor says what a black pixel is made into."""
    if not getattr(model.processor, "do_normalize", False):
        raise UsageError(
            f"{wish} needs the colours that the model's processor normalises by "
            f"(preprocessor_config.json in its folder), which are unknown: {remedy}"
        )


def _black(model: Model) -> torch.Tensor:
    """A black pixel as the network is fed it, [C, 1, 1]."""
    mean, spread = (
        torch.tensor(x, dtype=torch.float64, device=model.device)
        for x in (model.processor.image_mean, model.processor.image_std)
    )
    return (-mean / spread).to(model.dtype)[:, None, None]


def _grid(model: Model) -> Grid:
    assert model.grid is not None
    return model.grid


def _pixels(instance: Instance) -> Pixels:
    assert isinstance(instance, Picture) and instance.pixels is not None
    return instance.pixels


def _fed(instance: Instance) -> Pixels:
    """A picture's pixels, with its noise."""
    pixels = _pixels(instance)
    return pixels if instance.noise is None else pixels + instance.noise


def _painted(copy: Copy, grid: Grid) -> NDArray[np.bool_]:
    """The pixels that a copy has another colour at, [H, W]: those of patches, or some by name."""
    _, how, removed = copy
    if how == "drop":
        return np.zeros((grid.height, grid.width), bool)
    if len(removed) == grid.height * grid.width:
        return removed.reshape(grid.height, grid.width)
    return patch_map(removed, grid)
