"""Gradients along the straight path from baseline embeddings to the input."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray

from attribeam.schemas import UsageError
from attribeam.transforms.inputs.batch import Batch, row_cost
from attribeam.transforms.inputs.kinds import collate, inputs_of
from attribeam.transforms.inputs.seam import BLUR, BaselineName, Space
from attribeam.transforms.inputs.targets import Output
from attribeam.transforms.network.capture import Watch
from attribeam.transforms.network.model import Model
from attribeam.transforms.passes.base import Pass, Rule, Wish
from attribeam.transforms.passes.forward import Of
from attribeam.transforms.passes.graph import by_rank
from attribeam.transforms.passes.ladder import (
    ALONE,
    SURE,
    Taken,
    is_rough,
    ladder_for,
    last_place,
)
from attribeam.transforms.recovery import fitting

if TYPE_CHECKING:
    from attribeam.transforms.passes.captured import Captured, Share

# Which tokens move along a path from a token: what can be replaced, and of language models all that
# aren't special; those of the prompt, special ones too; or all of them.
Moves = Literal["text", "prompt", "all"]
Floats = NDArray[np.float64]


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
        taken: How the integral of each kind was taken; errors of ``input`` are those of scores, of
            ``attention`` of the mean over heads of what is above 0.
    """

    gradient: torch.Tensor | None
    attention: torch.Tensor | None
    difference: torch.Tensor
    gain: torch.Tensor | None
    taken: Mapping[Of, Taken] = field(default_factory=dict)


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
        steps: Number of points on it; with a nested rule the most that an instance may need.
        rule: Quadrature rule that weighs them.
        of: Gradients with respect to what enters the first layer (``input``), or to the last
            layer's attention from the position read out (``attention``).
        output: Gradients of the explained scalar (``logit``), or of the softmax probability of the
            explained class.
        tolerance: Largest error that a nested rule is content with (``Taken.error``).
        moves: Which tokens move, where it starts at a token; others stay as they are.
    """

    baseline: BaselineName
    steps: int
    rule: Rule
    of: Of = "input"
    output: Output = "logit"
    tolerance: float = 0.0
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
        return self.moving(captured).alike is not None

    def part(self, result: PathGradient, share: "Share") -> PathGradient:
        """The gradients of some questions, and the paths of what they are about."""
        gradient, attention, gain = (
            None if x is None else x[share.numbers]
            for x in (result.gradient, result.attention, result.gain)
        )
        taken = {of: own.of(share.numbers) for of, own in result.taken.items()}
        return PathGradient(gradient, attention, share.of_inputs(result.difference), gain, taken)

    def run(self, captured: "Captured", alike: Sequence[Wish]) -> PathGradient:
        """Walks the path of each input once, for all kinds of gradients that are asked for."""
        kinds = sorted({one.of for one in alike if isinstance(one, Path)})
        walk = _Walk.of(self, captured, kinds)
        found = _refined(walk)
        for row in found.unsure(last_place(captured.model)):
            found.put(row, _refined(walk.alone(row)))
        kind = inputs_of(captured.model)
        gradient = found.sums.get("input")
        return PathGradient(
            gradient=None if gradient is None else kind.vectors(captured.model, gradient),
            attention=found.sums.get("attention"),
            difference=walk.moved,
            gain=walk.gain,
            taken={of: Taken(found.steps[of], found.error[of]) for of in kinds},
        )

    def moving(self, captured: "Captured") -> Batch:
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


@dataclass(frozen=True, eq=False)
class _Walk:
    """A batch of B instances that walks along the paths of n inputs.

    Attributes:
        path: The pass.
        kinds: Gradients of what.
        captured: The batch.
        space: The path of each input.
        gain: The output at the input minus at the baseline, [B]; None unless scores are of it.
        size: Sum of the sizes of the two, [B].
    """

    path: Path
    kinds: Sequence[Of]
    captured: "Captured"
    space: Space
    gain: torch.Tensor | None = None
    size: torch.Tensor | None = None

    @classmethod
    def of(cls, path: Path, captured: "Captured", kinds: Sequence[Of]) -> "_Walk":
        """That of a batch, with what it gains if scores are of it."""
        walk = cls._from(path, captured, kinds)
        if "input" not in kinds:
            return walk
        with torch.no_grad():
            inputs = path.moving(captured).once
            entered = walk.space.enter(inputs.rows, walk.space.start)
            base_logits, _ = captured.run_inputs(enter=entered)
        at_input, at_start = (
            captured.output(logits, path.output) for logits in (captured.logits, base_logits)
        )
        return replace(walk, gain=at_input - at_start, size=at_input.abs() + at_start.abs())

    @classmethod
    def _from(cls, path: Path, captured: "Captured", kinds: Sequence[Of]) -> "_Walk":
        model, inputs = captured.model, path.moving(captured).once
        space = inputs_of(model).space(model, inputs, "embedded", path.baseline)
        return cls(path, kinds, captured, space)

    @property
    def moved(self) -> torch.Tensor:
        """Input minus baseline by position, of each input, [n, T, d]."""
        model = self.captured.model
        return inputs_of(model).vectors(model, self.space.end - self.space.start)

    def chosen(self, numbers: torch.Tensor) -> "_Walk":
        """Some of the instances, padded to the longest of them."""
        if len(numbers) == len(self.captured.batch):
            return self
        return self._from(self.path, _some(self.captured, numbers), self.kinds)

    def alone(self, number: int) -> "_Walk":
        """One of the instances as a batch of its own, without padding."""
        own = torch.tensor([number], device=self.captured.model.device)
        captured = _some(self.captured, own)
        captured.budget = ALONE
        with torch.no_grad():
            captured.logits, _ = captured.run_inputs()
        return self.of(self.path, captured, self.kinds)

    def values(self, of: Of, sums: torch.Tensor) -> torch.Tensor:
        """What errors are of, [B, N] in float64: scores, or feedback of attention."""
        captured, model = self.captured, self.captured.model
        if of == "input":
            vectors = inputs_of(model).vectors(model, sums)
            moved = captured.asked(self.moved)
            scores: torch.Tensor = (vectors * moved).sum(-1, dtype=torch.float64)
            return scores
        feedback, real = sums.double().clamp(min=0).mean(1), captured.mask
        if feedback.dim() > real.dim():
            feedback, real = feedback * real[:, :, None], real[:, None]
        return feedback.where(real, 0).flatten(1)

    def sums(self, points: Floats, weights: Floats) -> dict[Of, torch.Tensor]:
        """Sums of the gradients at K points, by R kinds of weights [R, K]: [R, B, ...] each."""
        captured, totals = self.captured, dict[Of, torch.Tensor]()
        if self.kinds == ["attention"]:
            for point, known in ((1, self._at_input), (0, self._at_start)):
                here = np.flatnonzero(points == point)[:1]
                shares = torch.tensor(weights[:, here], device=self.space.end.device)
                gradient = known(shares) if len(here) else None
                if gradient is not None:
                    totals = _added(totals, {"attention": gradient})
                    points, weights = (np.delete(of, here[0], -1) for of in (points, weights))
        cost = len(self.space.end) * row_cost(captured.batch.rows.length, captured.model.head_size)
        at_once, done = min(max(1, int(captured.budget / cost)), max(1, len(points))), 0

        def some(count: int) -> dict[Of, torch.Tensor]:
            part = slice(done, done + count)
            alphas = torch.tensor(points[part]).to(self.space.end)
            return self._gradients(alphas, torch.tensor(weights[:, part], device=alphas.device))

        while done < len(points):
            found, at_once = fitting(some, at_once)
            totals = _added(totals, found)
            done += at_once
        return totals

    def _at_input(self, shares: torch.Tensor) -> torch.Tensor | None:
        """Gradients of attention at the path's end, if the base pass left any, [R, B, ...]."""
        found = self.captured.of_last_attention if self.path.output == "logit" else None
        return None if found is None else _weighted(shares, found[None])

    def _at_start(self, shares: torch.Tensor) -> torch.Tensor | None:
        """Those where all paths start, if that is one place: only the last layer is run."""
        model, rows = self.captured.model, self.captured.batch.once.rows
        if not inputs_of(model).same_start(self.path.baseline):
            return None
        alone, last = rows.alone(0), model.num_layers - 1

        def enters_last() -> torch.Tensor:
            entered = [self.space.enter(alone, self.space.start[:1])]

            def leaving(_: int, state: torch.Tensor) -> torch.Tensor:
                entered.append(state)
                return state

            model.run(alone, enter=entered[0], leaving=leaving)
            return entered[last]

        what = "enters the last layer from", self.path.baseline, rows.length
        entered = model.kept(what, enters_last).expand(len(rows), -1, -1)
        return self._differentiated(entered, shares, start=last)["attention"]

    def _gradients(self, alphas: torch.Tensor, shares: torch.Tensor) -> dict[Of, torch.Tensor]:
        """Weighted sums of the gradients at K points, [R, B, ...] of each kind."""
        difference = self.space.end - self.space.start
        steps = alphas.view(-1, *[1] * difference.dim())
        points = (self.space.start + steps * difference).flatten(0, 1)
        points.requires_grad_("input" in self.kinds)
        with torch.enable_grad():
            rows = self.captured.batch.once.rows.repeated(len(alphas))
            return self._differentiated(self.space.enter(rows, points), shares, points)

    def _differentiated(
        self,
        entered: torch.Tensor,
        shares: torch.Tensor,
        points: torch.Tensor | None = None,
        start: int = 0,
    ) -> dict[Of, torch.Tensor]:
        """Weighted sums of the gradients at K points, [R, B, ...] of each kind.

        No row's gradient depends on another's, so that of the sum of all outputs is all of them.
        Questions about an input are differentiated one after the other, each with one about all
        others.

        Args:
            entered: What enters a layer at the points of n inputs, [K n, T, d].
            shares: What each point counts, [R, K].
            points: What gradients of the input are with respect to.
            start: The layer.
        """
        captured, kinds, count = self.captured, self.kinds, shares.shape[1]
        batch = captured.batch
        with torch.enable_grad():
            watch = Watch(readout_attention="attention" in kinds)
            logits, recorder = captured.run_inputs(count, watch=watch, enter=entered, start=start)
            outputs = captured.output(logits, self.path.output).view(count, -1)
        sources = {"input": points, "attention": recorder.readout_attention}
        wanted = [cast(torch.Tensor, sources[of]) for of in kinds]
        totals: dict[Of, torch.Tensor] = {}
        # Of the last layer alone, as much is held for as many ranks as there are layers.
        at_once = captured.model.num_layers if kinds == ["attention"] else 1
        for own, gradients in _in_chunks(batch.ranks, outputs, wanted, at_once):
            for of, gradient in zip(kinds, gradients, strict=True):
                by_rule = _weighted(shares, gradient.unflatten(0, (count, -1)))
                rows = torch.stack([self._of_questions(of, each, own) for each in by_rule])
                found = totals.setdefault(
                    of, rows.new_empty(len(rows), len(batch), *rows.shape[2:])
                )
                found[:, own] = rows
        return totals

    def _of_questions(self, of: Of, of_inputs: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        """Gradients of some questions, by their numbers, of those by input."""
        if of == "attention":
            return self.captured.read_of(of_inputs, own)
        row = self.captured.batch.inputs.read.row
        return of_inputs if row is None else of_inputs[row[own]]


def _some(captured: "Captured", numbers: torch.Tensor) -> "Captured":
    """A capture of some questions, which knows what they are and what the model says of them."""
    some = copy(captured)
    instances = captured.batch.instances
    some.batch = collate(captured.model, [instances[number] for number in numbers.tolist()])
    some.logits, some.question = captured.logits[numbers], captured.question.chosen(numbers)
    some.attention_gradient, some._graph, some.share = [], None, None
    return some


def _added(totals: dict[Of, torch.Tensor], more: dict[Of, torch.Tensor]) -> dict[Of, torch.Tensor]:
    """Sums of each kind, with more of it."""
    return {of: totals[of] + found if of in totals else found for of, found in more.items()}


def _weighted(shares: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """Sums over points, [R, K] and [K, n, ...] to [R, n, ...], in single precision at least."""
    precise = torch.promote_types(gradients.dtype, torch.float32)
    found: torch.Tensor = torch.tensordot(shares.to(precise), gradients.to(precise), 1)
    return found


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


# As many points as each instance needs ------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Found:
    """Integrals of B instances, by what gradients are of.

    Attributes:
        sums: The integrals, [B, ...].
        steps: Points of each, [B].
        error: Estimated errors, [B]; NaN where nothing is known.
        near: How far the errors that decided were from the tolerance at least, in what rounding
            makes of a unit in the last place, [B].
    """

    sums: dict[Of, torch.Tensor]
    steps: dict[Of, torch.Tensor]
    error: dict[Of, torch.Tensor]
    near: torch.Tensor

    def unsure(self, last_place: float) -> list[int]:
        """Instances of which rounding may have decided, unless nothing at all can be decided."""
        if SURE * last_place >= 1:  # Nothing was decided.
            return []
        unsure: list[int] = (self.near < SURE * last_place).nonzero()[:, 0].tolist()
        return unsure

    def keep(
        self, of: Of, numbers: torch.Tensor, sums: torch.Tensor, steps: int, error: torch.Tensor
    ) -> None:
        """Keeps what some of the instances have for now.

        Args:
            of: Of which kind.
            numbers: Their numbers.
            sums: Integrals of all instances, [B, ...].
            steps: Points of them.
            error: Their errors.
        """
        if of not in self.sums:
            self.sums[of] = sums.clone()
            self.steps[of] = torch.full_like(self.near, steps, dtype=torch.int64)
            self.error[of] = error.clone()
        else:
            self.sums[of][numbers], self.error[of][numbers] = sums[numbers], error
            self.steps[of][numbers] = steps

    def put(self, row: int, alone: "_Found") -> None:
        """Puts what an instance has alone, where it isn't padded, in its place."""
        for of, own in alone.sums.items():
            place = self.sums[of][row]
            place[tuple(slice(size) for size in own.shape[1:])] = own[0]
            self.steps[of][row], self.error[of][row] = alone.steps[of][0], alone.error[of][0]


def _refined(walk: _Walk) -> _Found:
    """Integrals that are taken as finely as each instance needs, each kind by itself."""
    rungs = ladder_for(walk.captured.model, walk.path.rule, walk.path.steps)
    size = len(walk.captured.batch)
    device, tolerance = walk.captured.model.device, walk.path.tolerance
    if is_rough(walk.captured.model):
        tolerance = -1.0  # All take the last rung.
    found = _Found({}, {}, {}, torch.full((size,), torch.inf, dtype=torch.float64, device=device))
    todo = dict.fromkeys(walk.kinds, torch.arange(size, device=device))
    sums: dict[Of, torch.Tensor] = {}
    for rung in range(rungs.first, len(rungs.counts)):
        numbers = torch.cat([*todo.values()]).unique()
        if not len(numbers):
            break
        own, new = walk.chosen(numbers), rungs.added(rung)
        for of, more in own.sums(rungs.points[new], rungs.weights[:, new]).items():
            if rung == rungs.first:
                sums[of] = more
            else:
                inside = (slice(size) for size in more.shape[2:])  # It may be padded less.
                sums[of][(slice(None), numbers, *inside)] += more
        for of in walk.kinds:
            if not len(todo[of]):
                continue
            error, rounding = (x[todo[of]] for x in _errors(walk, of, sums[of], rung))
            found.keep(of, todo[of], sums[of][rung], rungs.counts[rung], error)
            if rung < len(rungs.counts) - 1:
                away = (error - tolerance).abs() / rounding
                found.near[todo[of]] = torch.minimum(found.near[todo[of]], away)
                todo[of] = todo[of][error > tolerance]
    return found


def _errors(
    walk: _Walk, of: Of, sums: torch.Tensor, rung: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Estimated errors of a rung, over the largest value, and what one unit of rounding makes.

    Args:
        walk: B instances.
        of: Of which kind.
        sums: Their integrals by all rungs, [R, B, ...].
        rung: The rung.
    """
    values = walk.values(of, sums[rung])
    error, rounded = torch.full_like(values[:, 0], torch.nan), values.abs().sum(1)
    if rung:
        before = walk.values(of, sums[rung - 1])
        error = (values - before).abs().amax(1)
        rounded = rounded + before.abs().sum(1)
    if of == "input" and walk.gain is not None and walk.size is not None:
        error = torch.fmax(error, (values.sum(1) - walk.gain.double()).abs())
        rounded = rounded + walk.size.double()
    largest = values.abs().amax(1)
    # Where nothing is scored and something should be, all of it is missed.
    over = torch.where(largest > 0, largest, torch.where(error > 0, error, 1))
    return error / over, rounded / over
