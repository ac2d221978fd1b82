"""Gradients of the input through a network that follows rules of relevance."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from attribeam.transforms.inputs.kinds import inputs_of
from attribeam.transforms.network.rules import RULES, RuleName, Rules
from attribeam.transforms.passes.base import Pass, Wish

if TYPE_CHECKING:
    from attribeam.transforms.passes.captured import Captured, Share


class RuledGradient(NamedTuple):
    """What a ``Ruled`` pass gives.

    Attributes:
        gradient: Of the explained scalar, [B, T, n].
        fed: What it is with respect to, [B, T, n].
    """

    gradient: torch.Tensor
    fed: torch.Tensor


class Left(NamedTuple):
    """What a forward pass by rules leaves to be differentiated.

    Attributes:
        rules: Which rules; None for none.
        explained: The explained scalar of each question, [B].
        leaf: What it is a function of, [n, T, d].
    """

    rules: RuleName | None
    explained: torch.Tensor
    leaf: torch.Tensor


@dataclass(frozen=True)
class Ruled(Pass[RuledGradient]):
    """Gradients by rules of relevance, with respect to what is fed. 1 F, and a backward pass each.

    The forward pass is shared by all questions about an input.

    Attributes:
        rules: Which rules (``network.rules``); None for gradients as they are.
    """

    rules: RuleName | None

    @property
    def of_network(self) -> Rules | None:
        """What gradients pass the network by."""
        return None if self.rules is None else RULES[self.rules]

    def is_of_inputs(self, captured: "Captured") -> bool:
        """It is: the forward pass is run once for all questions about an input."""
        return True

    def part(self, result: RuledGradient, share: "Share") -> RuledGradient:
        """Those of some questions."""
        return RuledGradient(*(x[share.numbers] for x in result))

    def run(self, captured: "Captured", alike: Sequence[Wish]) -> RuledGradient:
        """One forward pass of each input, and one backward pass for the first questions of all.

        The forward pass is that of the base, where nothing else was asked of that.
        """
        model, kind = captured.model, inputs_of(captured.model)
        _, explained, leaf = self._base(captured) or self._forward(captured)
        (gradient,) = captured.gradients(explained, [leaf])
        fed = captured.asked(kind.vectors(model, leaf.detach()))
        return RuledGradient(kind.vectors(model, gradient), fed)

    def _base(self, captured: "Captured") -> Left | None:
        """What the base pass left to be differentiated, if it was by these rules; but once."""
        found, captured.of_rules = captured.of_rules, None
        return found if found is not None and found.rules == self.rules else None

    def _forward(self, captured: "Captured") -> Left:
        """A forward pass of each input by the rules."""
        model, rows, kind = captured.model, captured.batch.once.rows, inputs_of(captured.model)
        with torch.enable_grad():
            leaf, enter = kind.leaf(model, rows)
            leaf = leaf.detach().requires_grad_()
            entered = enter(rows, leaf)
            logits, _ = captured.run_inputs(enter=entered, rules=self.of_network)
            return Left(self.rules, captured.question(logits), leaf)
