"""Where the tokens of perturbed copies stand in their rows, for all copies of a batch at once.

A GPU is done with a copy in less time than a loop over copies would take to lay it out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attribeam.transforms.inputs.batch import Flags, Instance, Ints, padded
from attribeam.transforms.inputs.seam import Copy
from attribeam.transforms.network.model import Model


@dataclass(frozen=True)
class Layout:
    """N copies in rows that are as wide as the longest of what is left of them.

    Attributes:
        owners: Number of the distinct instance that each is a copy of, [N].
        kept: Tokens that are in the row, of those of the instance, [N, T].
        positions: The token of the instance that each place of the row holds, [N, W]; any where
            there is none.
        there: Places that hold a token, [N, W].
        removed: Of these, tokens that are removed and yet in the row, [N, W].
    """

    owners: NDArray[np.intp]
    kept: Flags
    positions: NDArray[np.intp]
    there: Flags
    removed: Flags

    def values(self, arrays: Sequence[Ints], fill: int) -> NDArray[np.int64]:
        """A number for each token of the distinct instances, laid out, [N, W]."""
        of_owners = padded(arrays, fill, np.int64)[self.owners]
        found = np.take_along_axis(of_owners, self.positions, axis=1)
        return np.where(self.there, found, fill)

    def before(self, at: NDArray[np.int64]) -> NDArray[np.intp]:
        """How many tokens of each row stand before a position of its instance, [N]."""
        earlier = np.arange(self.kept.shape[1]) < at[:, None]
        return np.asarray((self.kept & earlier).sum(1), np.intp)


def distinct(copies: Sequence[Copy]) -> tuple[list[Instance], NDArray[np.intp]]:
    """The instances that copies are of, once each, and whose each copy is, [N]."""
    found: dict[int, int] = {}
    owners = np.array([found.setdefault(id(one), len(found)) for one, _, _ in copies], np.intp)
    instances = {id(one): one for one, _, _ in copies}
    return [instances[key] for key in found], owners


def laid_out(
    model: Model, copies: Sequence[Copy], lengths: Sequence[int], owners: NDArray[np.intp]
) -> Layout:
    """Lays copies out.

    Args:
        model: The model.
        copies: N copies.
        lengths: Number of tokens of each distinct instance.
        owners: The instance that each copy is of (``distinct``).
    """
    inside = np.arange(max(lengths)) < np.array(lengths)[owners][:, None]
    gone = np.zeros_like(inside)
    for row, (_, _, tokens) in zip(gone, copies, strict=True):
        row[: len(tokens)] = tokens
    leaves = np.array([leaves_out(model, operation) for _, operation, _ in copies])
    kept = inside & ~(gone & leaves[:, None])
    width = int(kept.sum(1).max())
    positions = np.argsort(~kept, axis=1, kind="stable")[:, :width]
    return Layout(
        owners=owners,
        kept=kept,
        positions=positions,
        there=np.take_along_axis(kept, positions, axis=1),
        removed=np.take_along_axis(kept & gone, positions, axis=1),
    )


def leaves_out(model: Model, operation: str) -> bool:
    """Whether an operation leaves tokens out of the row, in which the others close up.

    Where positions are more than their ids (``Anatomy.indexed``) tokens are hidden under ``pad``.
    """
    return operation == "delete" or (operation == "pad" and not model.anatomy.indexed)
