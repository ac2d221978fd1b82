"""The real input, once: forward, and backward if a method asks for gradients.

These two are what ``Captured`` begins with; what they give is in its attributes.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field
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
            attention probabilities of layers (``attention``).
        lowest: The first of these layers; -1 is the top one. None below it has a gradient.
    """

    of: Of = "input"
    lowest: int = field(default=0, repr=False)

    @property
    def inside(self) -> bool:
        """Where gradients are of attention."""
        return self.of == "attention"

    @property
    def shared(self) -> Hashable:
        """One pass gives both."""
        return Backward


@dataclass(frozen=True)
class Weighed(Pass[None]):
    """E_h max(0, A_l * d f / d A_l) of every layer, [b, T, T] each, in the pass of ``Backward``.

    As the backward pass comes by a layer, its gradient is weighed and let go, so that of attention
    of all layers, the largest that there is of long inputs, no second copy is held.
    """

    @property
    def shared(self) -> Hashable:
        """One pass gives all gradients."""
        return Backward

    @property
    def record(self) -> str:
        """That of the gradients that are weighed."""
        return str(Backward("attention"))
