"""What a pass is: a wish that methods declare, and how it is fulfilled.

Most methods differ only in how they combine the same few quantities. A method declares which passes
it needs; what several of them need is run once per batch (``captured``). A pass is a file here.
"""

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import numpy as np

from attribeam.transforms.network.model import Model

if TYPE_CHECKING:
    from attribeam.transforms.passes.captured import Captured, Share

Result = TypeVar("Result")
Rule = Literal[
    "gauss_legendre",
    "trapezoid",
    "midpoint",
    "left",
    "right",
    "endpoints",
    "nested",
    "nested_early",
]
# Rules that take as many points as an instance needs (``ladder``): even ones, or their squares,
# which lie closer together the nearer they are to the baseline.
NESTED: tuple[Rule, ...] = ("nested", "nested_early")
Target = Literal["explained", "gold"]


class Pass(Generic[Result]):
    """A wish, as a frozen dataclass; ``Captured`` fulfils it when a method first asks.

    Attributes:
        double: Whether it is in float64 whatever the model's type.
        sample: How many texts of the corpus it needs statistics of; None if it needs none.
    """

    double = False
    sample: int | None = None

    @property
    def inside(self) -> bool:
        """Whether it looks into a network's layers, and doesn't ask the network alone."""
        return True

    def check(self, model: Model) -> None:
        """Checks that it can be run on a model.

        Raises:
            UsageError: If it isn't defined for the model, or needs a token that is unknown.
        """

    @property
    def shared(self) -> Hashable:
        """What it has in common with all that are run at once with it."""
        return self

    def run(self, captured: "Captured", alike: Sequence["Wish"]) -> Any:
        """Runs it, with all that are alike: what methods of the batch want, and this one."""
        raise NotImplementedError

    def is_of_inputs(self, captured: "Captured") -> bool:
        """Whether it is run once for all questions about an input.

        Args:
            captured: A capture of several questions about some inputs.
        """
        return False

    def part(self, result: Any, share: "Share") -> Any:
        """Of what ``run`` gave of such a capture, what some of the questions have."""
        raise NotImplementedError

    def read(self, result: Any) -> Result:
        """Its part of what ``run`` gave."""
        found: Result = result
        return found

    @property
    def record(self) -> str:
        """Its name and its settings, as ``run.json`` has them and published data keeps them."""
        return str(self)


# A pass, whatever it gives.
Wish = Pass[Any]


def quadrature(rule: Rule, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights on [0, 1], [steps] each; the weights sum to 1.

    ``left`` and ``right`` are the Riemann sums k / steps from k = 0 and k = 1, ``midpoint`` lies
    between them, ``trapezoid`` has both end points with half weight, and ``endpoints`` has them
    with the same weight as all others (as some authors' code does).
    """
    grid = np.arange(steps)
    even = np.full(steps, 1 / steps)
    if rule == "gauss_legendre":
        points, weights = np.polynomial.legendre.leggauss(steps)
        return (points + 1) / 2, weights / 2
    if rule in ("trapezoid", "endpoints"):
        if steps == 1:
            return np.array([0.5]), np.array([1.0])
        if rule == "endpoints":
            return grid / (steps - 1), even
        weights = np.full(steps, 1 / (steps - 1))
        weights[[0, -1]] /= 2
        return grid / (steps - 1), weights
    shift = {"left": 0.0, "midpoint": 0.5, "right": 1.0}[rule]
    return (grid + shift) / steps, even
