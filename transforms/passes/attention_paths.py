"""Gradients along each layer's attention from nothing to what it is, once for all that ask."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attribeam.transforms.inputs.targets import Output
from attribeam.transforms.passes.attention_path import (
    AttentionStates,
    AttentionSummary,
    attention_attributions,
    summarised,
)
from attribeam.transforms.passes.base import Pass, Rule, Target, Wish

if TYPE_CHECKING:
    from attribeam.transforms.passes.captured import Captured


@dataclass(frozen=True)
class AttentionPaths(Pass[AttentionSummary]):
    """Gradients along each layer's attention from zero to what it is (``attention_path``).

    Costs steps * (F + B) of the layers above, for each layer in turn.

    Attributes:
        steps: Points of the path to begin with.
        rule: Quadrature rule that weighs them.
        tolerance: Largest error before an instance's steps in a layer are doubled.
        most: Most steps that doubling may lead to.
        output: What is followed: the softmax ``probability`` of the class, or the ``logit``.
        target: The class: the ``explained`` one, or the ``gold`` one whatever is explained.
    """

    steps: int
    rule: Rule
    tolerance: float
    most: int
    output: Output
    target: Target

    def run(self, captured: "Captured", alike: Sequence[Wish]) -> AttentionSummary:
        """Attributions of every layer's attention."""
        rows = captured.batch.rows
        states = AttentionStates(
            captured.model, rows, captured.logits, captured.attention, captured.layers
        )
        layers = attention_attributions(
            states,
            captured.explained_by(self.target),
            rule=self.rule,
            steps=self.steps,
            tolerance=self.tolerance,
            most=self.most,
            output=self.output,
            budget=captured.budget,
        )
        return summarised(states, layers, captured.batch.lengths)
