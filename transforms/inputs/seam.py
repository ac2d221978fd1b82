"""What is asked of a kind of input: the one seam between what rows are made of and all else.

Batches, passes, methods and evaluations know positions, and what is removed or replaced by its
name. What a position is, how a row of the corpus becomes some, how a network is given them and what
they look like when a part is gone is known to a kind alone (``text`` has the first).
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from attribeam.transforms.inputs.batch import Batch, Flags, Instance
from attribeam.transforms.inputs.row import EncodeOptions, Row
from attribeam.transforms.network.model import Model
from attribeam.transforms.network.rows import Rows

# How units are removed, and what is removed as one. Methods have ``bag`` besides (all occurrences
# of a word) and ``segment`` (a part of a prompt), and evaluations a way of their own (``compat``).
Operation = Literal["mask", "pad", "delete", "mean", "black", "drop"]
Unit = Literal["token", "word", "bag", "segment", "patch"]
# What an evaluation removes at a time.
EvaluationProtocol = Literal["token", "word", "segment", "compat", "patch", "pixel"]
# Where paths start: what stands in the place of all that can be replaced (the token of that name,
# or that of the number 0), zeros, or a blur.
BaselineName = Literal["pad", "mask", "zero", "black", "blur", "unk", "id0"]
# Standard deviation of the blur, as a share of a picture's shorter side.
BLUR = 1 / 16
# What paths run in: what enters the first layer, or what is looked up for words before that.
SpaceName = Literal["embedded", "words"]

# Of N rows and points of their paths, [N, ...], what enters the first layer, [N, T, d].
Enter = Callable[[Rows, torch.Tensor], torch.Tensor]
# An instance, the operation, and the positions to remove, [T]; or of a picture the pixels, [H * W].
Copy = tuple[Instance, Operation, Flags]


class Space(NamedTuple):
    """A straight path from a baseline to the input.

    Attributes:
        start: Where it starts, [B, ...].
        end: What the input is there, [B, ...].
        enter: How its points enter.
    """

    start: torch.Tensor
    end: torch.Tensor
    enter: Enter


class Inputs(Protocol):
    """A kind of input.

    Attributes:
        operations: How units can be removed, the usual one first.
        units: What can be removed as one.
        starts: Where paths can start.
        protocols: What an evaluation removes at a time, the usual one first.
    """

    operations: tuple[Operation, ...]
    units: tuple[Unit, ...]
    starts: tuple[str, ...]
    protocols: tuple[EvaluationProtocol, ...]

    def encode(self, model: Model, row: Row, options: EncodeOptions) -> list[Instance]:
        """The instances of a row, or of its windows, each with the position that is read.

        Raises:
            RowError: If it can't be encoded; the message says why.
        """

    def check(self, instance: Instance) -> None:
        """Checks that there is something to explain.

        Raises:
            RowError: If there isn't.
        """

    def fault(self, model: Model, instance: Instance) -> str | None:
        """What of an instance the network can't take; None if it can take it."""

    def rows(self, model: Model, instances: Sequence[Instance]) -> Rows:
        """Instances as padded rows on the model's device."""

    def perturbed(self, model: Model, copies: Sequence[Copy]) -> Rows:
        """Perturbed copies as padded rows, which ask for all outputs but where these are words."""

    def length(self, model: Model, copy: Copy) -> int:
        """Number of positions that a copy is run with."""

    def units_of(self, instance: Instance, unit: Unit) -> NDArray[np.int64]:
        """Number of the removable unit each position belongs to, -1 for none, [T].

        They are numbered in the order in which they stand.
        """

    def usual_operation(self, model: Model) -> Operation:
        """How units are removed unless another way is asked for."""

    def check_operation(self, model: Model, operation: Operation, wish: str, remedy: str) -> None:
        """Checks that a model has what an operation puts in a unit's place.

        Args:
            model: The model.
            operation: The operation.
            wish: What needs it, as "the operation mask".
            remedy: What else could be done, as "use the operation pad".

        Raises:
            UsageError: If it hasn't.
        """

    def check_start(self, model: Model, start: str, wish: str, remedy: str) -> None:
        """Checks that a model has what stands at the start of a path; else as ``check_operation``.

        Raises:
            UsageError: If it hasn't.
        """

    def same_start(self, start: str) -> bool:
        """Whether paths of all inputs of a model start at the same place there."""

    def summed(self, model: Model, rows: Rows) -> torch.Tensor:
        """What is added up to enter the first layer, or the norm before it, [B, T, n] in float64.

        ``Model.embed`` is in the model's type.
        """

    def leaf(self, model: Model, rows: Rows) -> tuple[torch.Tensor, Enter]:
        """What gradients are with respect to, [B, ...], and how it enters the first layer."""

    def there(self, model: Model, rows: Rows) -> torch.Tensor:
        """True for the numbers of ``leaf`` that are no padding; to be expanded to it."""

    def vectors(self, model: Model, values: torch.Tensor) -> torch.Tensor:
        """Values of what gradients are with respect to, [B, ...], by position, [B, T, n]."""

    def finer(self, model: Model, vectors: torch.Tensor) -> torch.Tensor | None:
        """Values of ``vectors`` by what is finer than a position, [B, N, m]; None without any."""

    def space(self, model: Model, batch: Batch, name: SpaceName, start: str) -> Space:
        """The path of a batch in one of the spaces, from one of its starts.

        Raises:
            ValueError: If what stands at its start is unknown.
        """
