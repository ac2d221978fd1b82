"""Forward passes on perturbed copies, as many as a method asks for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from attribeam.transforms.inputs.batch import Flags
from attribeam.transforms.inputs.kinds import inputs_of
from attribeam.transforms.inputs.seam import Operation
from attribeam.transforms.inputs.variants import Variants
from attribeam.transforms.network.model import Model
from attribeam.transforms.passes.base import Pass

if TYPE_CHECKING:
    from attribeam.transforms.passes.captured import Captured


# What to use where one can't be used, if that isn't ``pad``.
_OTHER = {"black": "mean"}


@dataclass(frozen=True)
class Perturb(Pass[None]):
    """Forward passes on perturbed copies, as many as the method asks for (``outcomes``).

    Attributes:
        operation: How tokens are removed.
    """

    operation: Operation

    @property
    def inside(self) -> bool:
        """It doesn't."""
        return False

    def check(self, model: Model) -> None:
        """Checks that the operation's token is known."""
        wish = f"the operation {self.operation}"
        remedy = f"use the operation {_OTHER.get(self.operation, 'pad')}"
        inputs_of(model).check_operation(model, self.operation, wish, remedy)


def outcomes(
    captured: "Captured", wanted: Sequence[tuple[int, Operation, Flags]]
) -> NDArray[np.float64]:
    """What the model says of perturbed copies of the batch's instances.

    Args:
        captured: The batch.
        wanted: Per copy the number of its instance in the batch, the operation, and the tokens to
            remove, [T]. Equal copies are run once, all of them packed together.

    Returns:
        Logits, [N, C].

    Raises:
        Exception: What the model raised for the first copy that failed.
    """
    variants = Variants(captured.model)
    numbers = [variants.add(captured.batch.instances[i], how, out) for i, how, out in wanted]
    variants.run(captured.budget)
    if variants.errors:
        raise variants.errors[min(variants.errors)]
    return variants.logits[numbers]
