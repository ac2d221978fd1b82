"""The real input, once: forward, and backward if a method asks for gradients.

These two are what ``Captured`` begins with; what they give is in its attributes.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal

from attribeam.transforms.passes.base import Pass

Of = Literal["input", "attention"]


@dataclass(frozen=True)
class Forward(Pass[None]):
    """One forward pass: logits, and what is asked for besides. Costs 1 F.

    Attributes:
        attention: Attention probabilities of every layer.
        layers: What enters the layers and their norms, and their values; and attention.
        outputs: What comes out of the layers.
    """

    attention: bool = False
    layers: bool = False
    outputs: bool = False

    @property
    def inside(self) -> bool:
        """Where more than logits is asked for."""
        return self.attention or self.layers or self.outputs

    @property
    def shared(self) -> Hashable:
        """One pass gives all of it."""
        return Forward


@dataclass(frozen=True)
class Backward(Pass[None]):
    """Gradient of the explained scalar, in one pass. 1 F + 1 B.

    It gives what ``Forward`` gives as well.

    Attributes:
        of: With respect to what enters the first layer or to pixels (``input``), or to the
            attention probabilities of every layer (``attention``).
    """

    of: Of = "input"

    @property
    def inside(self) -> bool:
        """Where gradients are of attention."""
        return self.of == "attention"

    @property
    def shared(self) -> Hashable:
        """One pass gives both."""
        return Backward
