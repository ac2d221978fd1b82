"""First-order importance of heads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attribeam.transforms.passes.attention_path import TaylorImportance, taylor_importance
from attribeam.transforms.passes.base import Pass, Target, Wish

if TYPE_CHECKING:
    from attribeam.transforms.passes.captured import Captured


@dataclass(frozen=True)
class Taylor(Pass[TaylorImportance]):
    """First-order importance of heads. 1 F + 2 B.

    Attributes:
        target: The class whose cross entropy is the loss: the ``explained`` or the ``gold`` one.
    """

    target: Target

    def run(self, captured: "Captured", alike: Sequence[Wish]) -> TaylorImportance:
        """Importance of heads."""
        targets = captured.explained_by(self.target).targets
        return taylor_importance(captured.model, captured.batch.rows, targets)
