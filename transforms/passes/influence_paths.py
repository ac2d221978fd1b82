"""Influence along the paths from words to the output, its patterns, and what these leave."""

from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from attribeam.transforms.inputs.kinds import collate, inputs_of
from attribeam.transforms.inputs.seam import Space
from attribeam.transforms.inputs.targets import Explained
from attribeam.transforms.network.model import Model
from attribeam.transforms.network.rows import Rows
from attribeam.transforms.passes.base import NESTED, Pass, Rule, Wish, quadrature
from attribeam.transforms.passes.influence import (
    InfluenceStates,
    influence_states,
    margin_weights,
)
from attribeam.transforms.passes.ladder import ALONE, Ladder, ladder_for
from attribeam.transforms.passes.pattern_ablation import AblationRow, ablations
from attribeam.transforms.passes.patterns import (
    Influence,
    Pattern,
    estimated,
    reduced,
    refine,
    with_input,
)

if TYPE_CHECKING:
    from attribeam.transforms.passes.captured import Captured

# Where the path starts, in word embeddings: every token, or all but special ones and the one read
# out, replaced by [MASK]; every token by [PAD]; or zeros. Of pictures, as paths of pixels.
Start = Literal["mask", "mask_words", "pad", "zero", "black", "blur"]
# How often the points may be doubled, from those that patterns are first sought at.
_DOUBLINGS = 2
# Influence of each instance; and what its patterns leave, if that is asked for.
_Both = tuple[list[Influence], list[list[AblationRow]]]


@dataclass(frozen=True)
class InfluencePaths(Pass[list[Influence]]):
    """Influence along the paths from words to the output (``influence``), and its patterns.

    Costs about 2 F of steps copies, and about 3 more of those that patterns of all words need.

    Attributes:
        steps: Points on the path from the baseline; with a nested rule the most that are needed.
        rule: Quadrature rule that weighs them.
        start: The baseline, in word embeddings: ``mask`` at every position, ``mask_words`` at the
            removable ones only, ``pad``, or ``zero``. Of pictures, in what patches are projected
            to: that of the mean colour (``zero``), of ``black``, or of a ``blur``.
        tolerance: Largest error of scores that a nested rule is content with.
    """

    steps: int
    rule: Rule
    start: Start
    tolerance: float = 0.0

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
        if self.rule in NESTED:
            for number in range(len(captured.batch)):
                states, influence = _Alone.of(self, captured, contrast, number).taken()
                found.append(influence)
                yield states, influence.patterns
            return
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


@dataclass(frozen=True, eq=False)
class _Alone:
    """An instance without batch mates and padding, whose path is looked at ever more closely.

    What decides how closely then has the same digits each time.

    Attributes:
        model: The model.
        rows: Its row.
        weights: Weights of its outputs, [1, C].
        space: Its path.
        rungs: The rules.
        tolerance: Largest error of scores to be content with.
    """

    model: Model
    rows: Rows
    weights: torch.Tensor
    space: Space
    rungs: Ladder
    tolerance: float

    @classmethod
    def of(
        cls, paths: InfluencePaths, captured: "Captured", contrast: torch.Tensor, number: int
    ) -> "_Alone":
        """One of a batch's instances."""
        model = captured.model
        batch = collate(model, [captured.batch.instances[number]])
        return cls(
            model,
            batch.rows,
            contrast[number : number + 1],
            inputs_of(model).space(model, batch, "words", paths.start),
            ladder_for(model, paths.rule, paths.steps),
            paths.tolerance,
        )

    def taken(self) -> tuple[InfluenceStates, Influence]:
        """What it holds at all points that were needed, and its influence and patterns.

        Scores take as many points as make their error small, and patterns as many as make their
        choices sure: those that aren't are sought again at twice the points.
        """
        last = len(self.rungs.counts) - 1
        rung = max(self.rungs.first, last - _DOUBLINGS)
        states, scored = self._at(rung), None
        patterns: dict[tuple[int, str], Pattern] = {}
        unsure: list[int] | None = None
        while True:
            if unsure != []:
                refined = refine(states, unsure)
                patterns |= {(one.source, one.level): one for one in refined}
                unsure = sorted({one.source for one in refined if one.sure is False})
            if scored is None and (rung == last or estimated(states)[0] <= self.tolerance):
                scored = states
            if rung == last or (scored is not None and not unsure):
                break
            rung += 1
            states = self._at(rung, states)
        assert scored is not None
        values = scored.influence
        own = [with_input(one, float(values[one.source])) for one in patterns.values()]
        error = estimated(scored)[0]
        return states, Influence(values, scored.gain, own, len(scored.alphas), error)

    def _at(self, rung: int, before: InfluenceStates | None = None) -> InfluenceStates:
        """What it holds at the points of a rung, given what it holds at those of the one before."""
        count = self.rungs.counts[rung]
        new = slice(0, count) if before is None else self.rungs.added(rung)
        (states,) = influence_states(
            self.model,
            self.rows,
            self.weights,
            self.space,
            points=self.rungs.points[new],
            shares=self.rungs.weights[rung, new],
            budget=ALONE,
        )
        if before is not None:
            states = before.with_more(states)
        if rung == 0:
            return states
        return states.weighted(*self.rungs.weights[[rung, rung - 1], :count])


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
