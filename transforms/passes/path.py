"""Gradients along the straight path from baseline embeddings to the input."""

from collections.abc import Hashable, Sequence
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
from attribeam.transforms.recovery import fitting

if TYPE_CHECKING:
    from attribeam.transforms.passes.captured import Captured

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

    def run(self, captured: "Captured", alike: Sequence[Wish]) -> PathGradient:
        """Walks the path once for all kinds of gradients that are asked for."""
        kinds = sorted({one.of for one in alike if isinstance(one, Path)})
        model, batch = captured.model, self._moving(captured)
        shared = kinds == ["attention"] and model.num_layers > 1 and batch.alike is not None
        walked = batch.once if shared else batch
        space = inputs_of(model).space(model, walked, "embedded", self.baseline)
        totals = self._walked(captured, space, kinds)
        gain = None
        if "input" in kinds:
            with torch.no_grad():
                entered = space.enter(batch.rows, space.start)
                base_logits, _ = model.run(batch.rows, enter=entered)
            at_input, at_start = (
                captured.output(logits, self.output) for logits in (captured.logits, base_logits)
            )
            gain = at_input - at_start
        kind = inputs_of(model)
        gradient = kind.vectors(model, totals["input"]) if "input" in kinds else None
        moved = kind.vectors(model, space.end - space.start)
        return PathGradient(gradient, totals.get("attention"), moved, gain)

    def _moving(self, captured: "Captured") -> Batch:
        """The batch, with the tokens that move as those that may be replaced."""
        model, batch = captured.model, captured.batch
        if self.moves == "all":
            return replace(batch, removable=captured.mask)
        if not model.speaks:
            return batch
        flags = torch.zeros_like(captured.mask)
        for own, instance in zip(flags, batch.instances, strict=True):
            assert instance.continuation is not None
            if self.moves == "prompt":
                own[: instance.continuation.prompt] = True
            else:
                own[: len(instance)] = torch.from_numpy(~instance.special).to(own.device)
        return replace(batch, removable=flags)

    def _walked(
        self, captured: "Captured", space: Space, kinds: Sequence[Of]
    ) -> dict[Of, torch.Tensor]:
        """Weighted sums of the gradients at all points, [B, ...] of each kind."""
        points, weights = quadrature(self.rule, self.steps)
        totals: dict[Of, torch.Tensor] = {}
        if points[-1] == 1 and kinds == ["attention"] and self._is_had(captured):
            totals["attention"] = float(weights[-1]) * self._at_input(captured)
            points, weights = points[:-1], weights[:-1]
        cost = len(captured.batch) * row_cost(captured.batch.rows.length, captured.model.head_size)
        at_once, done = min(max(1, int(captured.budget / cost)), self.steps), 0

        def some(count: int) -> dict[Of, torch.Tensor]:
            alphas, shares = (
                torch.tensor(of[done : done + count]).to(space.end) for of in (points, weights)
            )
            if len(space.end) < len(captured.batch):
                return {"attention": self._of_questions(captured, space, alphas, shares)}
            return self._gradients(captured, space, alphas, shares, kinds)

        while done < len(points):
            found, at_once = fitting(some, at_once)
            totals = {of: totals.get(of, 0) + found[of] for of in kinds}
            done += at_once
        return totals

    def _is_had(self, captured: "Captured") -> bool:
        """Whether the base pass, which is the path's end, left gradients of attention."""
        return self.output == "logit" and bool(captured.attention_gradient)

    def _at_input(self, captured: "Captured") -> torch.Tensor:
        """Those of the last layer, as ``PathGradient.attention``."""
        gradient = captured.attention_gradient[-1]
        alone = captured.batch.rows.read.at is not None
        return captured.at_readout(gradient) if alone else gradient

    def _of_questions(
        self, captured: "Captured", space: Space, alphas: torch.Tensor, shares: torch.Tensor
    ) -> torch.Tensor:
        """The same of attention, of several questions about an input: its path is walked once.

        Down to what leaves the last layer all is the same for them; the first questions about all
        inputs are differentiated at once, then the second ones, and so on.
        """
        model, batch, count = captured.model, captured.batch, len(alphas)
        row, inputs = batch.alike, batch.once.rows.repeated(count)
        assert row is not None
        steps = alphas.view(-1, *[1] * space.end.dim())
        points = (space.start + steps * (space.end - space.start)).flatten(0, 1)
        with torch.enable_grad(), model.autocast():
            watch = Watch(readout_attention=True)
            _, recorder = model.run(inputs, watch=watch, enter=space.enter(inputs, points))
            left, attention = recorder.left, recorder.readout_attention
            assert left is not None and attention is not None
            copies = torch.arange(count, device=row.device)[:, None] * len(space.end)
            logits = model.logits_of(left[(copies + row).flatten()], batch.rows.repeated(count))
            outputs = captured.output(logits.to(model.dtype), self.output)
            weighted = (outputs * shares.repeat_interleave(len(batch))).unflatten(0, (count, -1))
        found = attention.new_empty(len(batch), *attention.shape[1:])
        for own in batch.ranks:
            (gradient,) = torch.autograd.grad(weighted[:, own].sum(), attention, retain_graph=True)
            found[own] = gradient.unflatten(0, (count, -1)).sum(0)[row[own]]
        return found

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
        contraction of the rows' gradients, and no row's gradient depends on another's.
        """
        count, size = len(alphas), len(captured.batch)
        difference = space.end - space.start
        steps = alphas.view(-1, *[1] * difference.dim())
        points = (space.start + steps * difference).flatten(0, 1)
        points.requires_grad_("input" in kinds)
        with torch.enable_grad():
            rows = captured.batch.rows.repeated(count)
            watch = Watch(readout_attention="attention" in kinds)
            entered = space.enter(rows, points)
            logits, recorder = captured.model.run(rows, watch=watch, enter=entered)
            outputs = captured.output(logits, self.output)
            weighted = (outputs * shares.repeat_interleave(size)).sum()
            sources = {"input": points, "attention": recorder.readout_attention}
            found = torch.autograd.grad(weighted, [cast(torch.Tensor, sources[of]) for of in kinds])
        return {
            of: gradients.unflatten(0, (count, size)).sum(0)
            for of, gradients in zip(kinds, found, strict=True)
        }
