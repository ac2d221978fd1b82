"""Influence along the paths from words to the output, its patterns, and what these leave."""

from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from attribeam.transforms.inputs.kinds import inputs_of
from attribeam.transforms.inputs.targets import Explained
from attribeam.transforms.network.model import Model
from attribeam.transforms.passes.base import Pass, Rule, Wish, quadrature
from attribeam.transforms.passes.influence import (
    InfluenceStates,
    influence_states,
    margin_weights,
)
from attribeam.transforms.passes.pattern_ablation import AblationRow, ablations
from attribeam.transforms.passes.patterns import Influence, Pattern, reduced

if TYPE_CHECKING:
    from attribeam.transforms.passes.captured import Captured

# Where the path starts, in word embeddings: every token, or all but special ones and the one read
# out, replaced by [MASK]; every token by [PAD]; or zeros. Of pictures, as paths of pixels.
Start = Literal["mask", "mask_words", "pad", "zero", "black", "blur"]
# Influence of each instance; and what its patterns leave, if that is asked for.
_Both = tuple[list[Influence], list[list[AblationRow]]]


@dataclass(frozen=True)
class InfluencePaths(Pass[list[Influence]]):
    """Influence along the paths from words to the output (``influence``), and its patterns.

    Costs about 2 F of steps copies, and about 3 more for the patterns of all words.

    Attributes:
        steps: Points on the path from the baseline.
        rule: Quadrature rule that weighs them.
        start: The baseline, in word embeddings: ``mask`` at every position, ``mask_words`` at the
            removable ones only, ``pad``, or ``zero``. Of pictures, in what patches are projected
            to: that of the mean colour (``zero``), of ``black``, or of a ``blur``.
    """

    steps: int
    rule: Rule
    start: Start

    def check(self, model: Model) -> None:
        """Checks that the baseline's token is known."""
        kind = inputs_of(model)
        if self.start == "pad":
            remedy = "use another baseline, such as baseline=zero"
            kind.check_start(model, "pad", "the pad baseline", remedy)
        elif self.start in ("mask", "mask_words"):
            kind.check_start(model, "mask", "the mask baseline", "use baseline=pad or zero")
        elif self.start != "zero":
            kind.check_start(model, self.start, f"the {self.start} baseline", "use baseline=zero")

    def run(self, captured: "Captured", alike: Sequence[Wish]) -> _Both:
        """Influence and patterns of each instance; and what these leave, if it is asked for.

        Ablations are run as patterns are found: what these are found in is large, and let go of
        instance by instance.
        """
        found: list[Influence] = []
        contrast = self._contrast(captured)
        pairs = self._along(captured, contrast, found)
        if not any(isinstance(one, PatternAblation) for one in alike):
            deque(pairs, maxlen=0)
            return found, []
        rows = ablations(
            captured.model,
            captured.batch,
            pairs,
            contrast,
            seed=captured.seed,
            budget=captured.budget,
        )
        return found, rows

    def _contrast(self, captured: "Captured") -> torch.Tensor:
        """What is explained, as weights of logits, [B, C]: of a language model what it is asked."""
        if not captured.model.speaks:
            return margin_weights(captured.logits, captured.targets)
        asked = captured.batch.instances
        return Explained.of("contrast", captured.target, captured.logits, asked).weights(
            captured.logits
        )

    def _along(
        self, captured: "Captured", contrast: torch.Tensor, found: list[Influence]
    ) -> Iterator[tuple[InfluenceStates, list[Pattern]]]:
        """Yields what each instance holds along its path, and its patterns; keeps the latter."""
        points, shares = quadrature(self.rule, self.steps)
        for states in influence_states(
            captured.model,
            captured.batch.rows,
            contrast,
            inputs_of(captured.model).space(captured.model, captured.batch, "words", self.start),
            points=points,
            shares=shares,
            budget=captured.budget,
        ):
            found.append(reduced(states))
            yield states, found[-1].patterns

    def read(self, result: _Both) -> list[Influence]:
        """Influence of each instance."""
        return result[0]


@dataclass(frozen=True)
class PatternAblation(Pass[list[list[AblationRow]]]):
    """What is left of the output with the nodes of patterns alone (``pattern_ablation``).

    About 13 F beside the patterns themselves.

    Attributes:
        paths: What the patterns are found along.
    """

    paths: InfluencePaths

    @property
    def shared(self) -> Hashable:
        """Patterns are ablated as they are found."""
        return self.paths.shared

    def check(self, model: Model) -> None:
        """Checks what patterns need."""
        self.paths.check(model)

    def run(self, captured: "Captured", alike: Sequence[Wish]) -> _Both:
        """Influence, patterns and what these leave."""
        return self.paths.run(captured, alike)

    def read(self, result: _Both) -> list[list[AblationRow]]:
        """The ablations of each instance."""
        return result[1]
