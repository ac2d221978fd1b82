"""Gradients along the straight path from baseline embeddings to the input."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, cast

import torch

from attribeam.schemas import UsageError
from attribeam.transforms.inputs.batch import Batch, row_cost
from attribeam.transforms.inputs.kinds import inputs_of
from attribeam.transforms.inputs.seam import BLUR, BaselineName, Space
from attribeam.transforms.inputs.targets import Output
from attribeam.transforms.network.capture import Watch
from attribeam.transforms.network.model import Model
from attribeam.transforms.passes.base import Pass, Rule, Wish, quadrature
from attribeam.transforms.passes.forward import Of
from attribeam.transforms.passes.graph import by_rank
from attribeam.transforms.recovery import fitting

if TYPE_CHECKING:
    from attribeam.transforms.passes.captured import Captured, Share

# Which tokens move along a path from a token: what can be replaced, and of language models all that
# aren't special; those of the prompt, special ones too; or all of them.
Moves = Literal["text", "prompt", "all"]


@dataclass(frozen=True)
class PathGradient:
    """What a ``Path`` pass gives.

    Attributes:
        gradient: Weighted mean of the gradients along the path, [B, T, n]; None if nobody asked.
        attention: That of the gradients of the last layer's attention, [B, H, T] of the position
            that is read, of means [B, H, T, T]; None if nobody asked. At padding it need not be
            zero.
        difference: Input minus baseline, [B, T, n].
        gain: The output at the input minus at the baseline, [B]; None without ``gradient``.
    """

    gradient: torch.Tensor | None
    attention: torch.Tensor | None
    difference: torch.Tensor
    gain: torch.Tensor | None


@dataclass(frozen=True)
class Path(Pass[PathGradient]):
    """Gradients along the straight path from baseline embeddings to the input.

    The path runs in the space of what enters the first layer (``hidden_states[0]``: word, position
    and type embeddings after their layer norm), of pictures in that of their pixels. Costs steps *
    (F + B), or little more than steps * F for gradients of attention, which need no backward pass
    below the last layer. Both kinds along one path share its forward passes, and of attention alone
    the input itself is taken from the base pass, where that has it.

    Attributes:
        baseline: Where it starts: the embeddings of the input with its removable tokens replaced
            by ``pad`` or ``mask``, or ``zero`` vectors at every position. Of pictures: the mean
            colour (``zero``), a ``black`` one, or themselves, blurred (``blur``).
        steps: Number of points on it.
        rule: Quadrature rule that weighs them.
        of: Gradients with respect to what enters the first layer (``input``), or to the last
            layer's attention from the position read out (``attention``).
        output: Gradients of the explained scalar (``logit``), or of the softmax probability of the
            explained class.
        moves: Which tokens move, where it starts at a token; others stay as they are.
    """

    baseline: BaselineName
    steps: int
    rule: Rule
    of: Of = "input"
    output: Output = "logit"
    moves: Moves = field(default="text", repr=False)

    @property
    def inside(self) -> bool:
        """Where gradients are of attention."""
        return self.of == "attention"

    def check(self, model: Model) -> None:
        """Checks that the baseline's token is known."""
        remedy = "use another baseline"
        remedy += ", such as baseline=zero" if self.baseline == "pad" else ""
        wish = f"the {self.baseline} baseline"
        inputs_of(model).check_start(model, self.baseline, wish, remedy)
        if self.moves == "all" and model.modality != "text":
            raise UsageError(f"moves={self.moves}: which tokens move is asked of texts alone")
        if self.moves == "prompt" and not model.speaks:
            raise UsageError("moves=prompt: only language models have prompts; use text or all")

    @property
    def record(self) -> str:
        """Its settings, and the width of the blur if it starts there."""
        width = f", blurred by {BLUR} of the shorter side" if self.baseline == "blur" else ""
        moves = "" if self.moves == "text" else f", along which {self.moves} moves"
        return f"{self}{width}{moves}"

    @property
    def shared(self) -> Hashable:
        """The path, whatever gradients are of."""
        return replace(self, of="input")

    def is_of_inputs(self, captured: "Captured") -> bool:
        """Where the same may be removed of an input whatever is asked, its path is the same."""
        return self._moving(captured).alike is not None

    def part(self, result: PathGradient, share: "Share") -> PathGradient:
        """The gradients of some questions, and the paths of what they are about."""
        gradient, attention, gain = (
            None if x is None else x[share.numbers]
            for x in (result.gradient, result.attention, result.gain)
        )
        return PathGradient(gradient, attention, share.of_inputs(result.difference), gain)

    def run(self, captured: "Captured", alike: Sequence[Wish]) -> PathGradient:
        """Walks the path of each input once, for all kinds of gradients that are asked for."""
        kinds = sorted({one.of for one in alike if isinstance(one, Path)})
        model, inputs = captured.model, self._moving(captured).once
        space = inputs_of(model).space(model, inputs, "embedded", self.baseline)
        totals = self._walked(captured, space, kinds)
        gain = None
        if "input" in kinds:
            with torch.no_grad():
                entered = space.enter(inputs.rows, space.start)
                base_logits, _ = captured.run_inputs(enter=entered)
            at_input, at_start = (
                captured.output(logits, self.output) for logits in (captured.logits, base_logits)
            )
            gain = at_input - at_start
        kind = inputs_of(model)
        gradient = kind.vectors(model, totals["input"]) if "input" in kinds else None
        moved = kind.vectors(model, space.end - space.start)
        return PathGradient(gradient, totals.get("attention"), moved, gain)

    def _moving(self, captured: "Captured") -> Batch:
        """The batch, with the tokens that move along its paths."""
        batch = captured.batch
        if self.moves == "text":
            return batch
        if self.moves == "all":
            return replace(batch, moving=captured.mask)
        flags = torch.zeros_like(captured.mask)
        for own, instance in zip(flags, batch.instances, strict=True):
            assert instance.continuation is not None
            own[: instance.continuation.prompt] = True
        return replace(batch, moving=flags)

    def _walked(
        self, captured: "Captured", space: Space, kinds: Sequence[Of]
    ) -> dict[Of, torch.Tensor]:
        """Weighted sums of the gradients at all points, [B, ...] of each kind."""
        points, weights = quadrature(self.rule, self.steps)
        totals: dict[Of, torch.Tensor] = {}
        if points[-1] == 1 and kinds == ["attention"] and self.output == "logit":
            # The base pass, which is the path's end, may have left its gradients.
            at_input = captured.of_last_attention
            if at_input is not None:
                totals["attention"] = float(weights[-1]) * at_input
                points, weights = points[:-1], weights[:-1]
        cost = len(space.end) * row_cost(captured.batch.rows.length, captured.model.head_size)
        at_once, done = min(max(1, int(captured.budget / cost)), self.steps), 0

        def some(count: int) -> dict[Of, torch.Tensor]:
            alphas, shares = (
                torch.tensor(of[done : done + count]).to(space.end) for of in (points, weights)
            )
            return self._gradients(captured, space, alphas, shares, kinds)

        while done < len(points):
            found, at_once = fitting(some, at_once)
            totals = {of: totals.get(of, 0) + found[of] for of in kinds}
            done += at_once
        return totals

    def _gradients(
        self,
        captured: "Captured",
        space: Space,
        alphas: torch.Tensor,
        shares: torch.Tensor,
        kinds: Sequence[Of],
    ) -> dict[Of, torch.Tensor]:
        """Weighted sum of the gradients at some points of the path, [B, ...] of each kind.

        The weights go into the scalar that is differentiated: the sum over points is then one
        contraction of the rows' gradients, and no row's gradient depends on another's. Questions
        about an input are differentiated one after the other, each with one about all others.
        """
        batch, count = captured.batch, len(alphas)
        difference = space.end - space.start
        steps = alphas.view(-1, *[1] * difference.dim())
        points = (space.start + steps * difference).flatten(0, 1)
        points.requires_grad_("input" in kinds)
        with torch.enable_grad():
            watch = Watch(readout_attention="attention" in kinds)
            entered = space.enter(batch.once.rows.repeated(count), points)
            logits, recorder = captured.run_inputs(count, watch=watch, enter=entered)
            outputs = captured.output(logits, self.output)
            weighted = outputs * shares.repeat_interleave(len(batch))
        sources = {"input": points, "attention": recorder.readout_attention}
        wanted = [cast(torch.Tensor, sources[of]) for of in kinds]
        totals: dict[Of, torch.Tensor] = {}
        # Of the last layer alone, as much is held for as many ranks as there are layers.
        at_once = captured.model.num_layers if kinds == ["attention"] else 1
        ranks, of_points = batch.ranks, weighted.view(count, -1)
        for own, gradients in _in_chunks(ranks, of_points, wanted, at_once):
            for of, gradient in zip(kinds, gradients, strict=True):
                total = gradient.unflatten(0, (count, -1)).sum(0)
                rows = self._of_questions(batch, of, total, own)
                found = totals.setdefault(of, rows.new_empty(len(batch), *rows.shape[1:]))
                found[own] = rows
        return totals

    @staticmethod
    def _of_questions(
        batch: Batch, of: Of, of_inputs: torch.Tensor, own: torch.Tensor
    ) -> torch.Tensor:
        """Gradients of some questions, by their numbers, of those by input."""
        read = batch.inputs.read
        rows = of_inputs if read.row is None else of_inputs[read.row[own]]
        if of == "input" or read.at is None or rows.dim() == 3:
            return rows
        # All of an input's attention was looked at: its questions are read at several positions.
        return rows.transpose(1, 2)[torch.arange(len(own), device=own.device), read.at[own]]


def _in_chunks(
    ranks: Sequence[torch.Tensor],
    weighted: torch.Tensor,
    wanted: Sequence[torch.Tensor],
    at_once: int,
) -> Iterator[tuple[torch.Tensor, Sequence[torch.Tensor]]]:
    """Numbers of the questions of each rank, and their gradients, so many ranks at once."""
    for start in range(0, len(ranks), at_once):
        some = ranks[start : start + at_once]
        again = start + at_once < len(ranks) or len(some) < len(ranks)
        yield from zip(some, by_rank(some, weighted, wanted, again=again), strict=True)
