"""Attributing instances: pack them, run the passes, let every method read from them.

An instance or a method that fails is recorded and the rest goes on. A batch that runs out of memory
is halved and tried again; a batch that fails for another reason is halved until the instance that
is to blame stands alone. Neither changes a result, since no result depends on batch mates.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import isnan
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from attribeam.schemas import Failure, UsageError, UsageTypeError
from attribeam.schemas.errors import one_line
from attribeam.transforms.details import Details, LayerRow, Real, is_finite
from attribeam.transforms.inputs.batch import TOKEN_BUDGETS, Batch, Instance, pack_questions
from attribeam.transforms.inputs.given import check_instances, check_model, kind_of
from attribeam.transforms.inputs.kinds import collate, inputs_of
from attribeam.transforms.inputs.targets import Scalar, parse_explain, parse_target
from attribeam.transforms.network.borrowed import borrowed
from attribeam.transforms.network.model import Model
from attribeam.transforms.passes.bottleneck import Statistics
from attribeam.transforms.passes.captured import Captured
from attribeam.transforms.recovery import halving
from attribeam.transforms.registry import Chosen, LayerScores, Scores, choose, fit_all


def budget_for(model: Model, given: int | None) -> int:
    """The token budget given, or that of the model's device."""
    return given or TOKEN_BUDGETS[model.device.type]


@dataclass(frozen=True)
class Prediction:
    """What the model says of an instance: raw logits and their softmax, [C] each."""

    logits: NDArray[np.floating]
    probabilities: NDArray[np.floating]
    target: int
    single: int | None = None

    @property
    def predicted(self) -> int:
        """The class with the largest logit, of the first ``single`` (``Model.num_single``)."""
        return int(self.logits[: self.single].argmax())


@dataclass(frozen=True)
class Attribution:
    """Scores of one method for one instance.

    Attributes:
        target: Class explained; None where the method is class-independent.
        scores: Raw score per token, [T].
        delta: Completeness gap, for an additive method.
        seconds: Cost of the method alone, with the passes it shares in full; a batch's cost is
            shared out by tokens.
        scale: Natural logarithm of what the scores were divided by, where they were.
        bias: What the method gives to the model's biases and not to tokens.
        unattributed: What is left of the explained scalar where it gives that to no token.
        pixels: Raw score per pixel of a picture, [H * W], where they were asked for and the method
            has them.
        steps: Points that its integral was taken at, of a method that has one.
        error: Estimated error of that integral over the largest score (``ladder.Taken``); None
            where nothing is known of it.
        details: Rows of the other tables that the method fills; those of ``details.BY_LAYER`` only
            where scores by layer were asked for.
    """

    target: int | None
    scores: NDArray[np.floating]
    delta: float | None
    seconds: float
    scale: float | None = None
    bias: float | None = None
    unattributed: float | None = None
    pixels: NDArray[np.floating] | None = None
    steps: int | None = None
    error: float | None = None
    details: Details = field(default_factory=dict)

    @property
    def layers(self) -> Sequence[LayerRow] | None:
        """Scores of each layer, first layer first, where the method has them."""
        return cast(Sequence[LayerRow] | None, self.details.get("layers"))

    @property
    def finite(self) -> bool:
        """Whether all of it are numbers."""
        return self.finite_in(np.float64)

    def finite_in(self, real: Real) -> bool:
        """Whether all of it are numbers, and stay so where they are stored with a precision."""
        numbers = (self.delta, self.scale, self.bias, self.unattributed, self.error)
        extra = {"extra": [(self.scores, *numbers, self.pixels)]}
        return is_finite({**self.details, **extra}, real)


@dataclass
class Attributions:
    """Results of ``attribute``, aligned with the instances given.

    Attributes:
        predictions: Per instance, None where it failed.
        rows: Per method and instance, None where either failed.
        failures: What failed, and why.
        left_out: Methods of ``all`` that aren't defined for the model, and why.
    """

    predictions: list[Prediction | None]
    rows: dict[str, list[Attribution | None]]
    failures: list[Failure] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def attribute(
    model: Model,
    instances: Sequence[Instance],
    methods: str | Sequence[str | Chosen],
    *,
    target: str | int = "auto",
    explain: str = "auto",
    token_budget: int | None = None,
    seed: int = 0,
    layers: bool = False,
    pixels: bool = False,
    statistics: Statistics | None = None,
    progress: Callable[[float], None] = lambda count: None,
) -> Attributions:
    """Runs methods on instances.

    Args:
        model: The model.
        instances: Encoded instances (``encode``), in any order and of any lengths.
        methods: Names, ``all``, or chosen methods with parameters (``choose``); with none of them
            only the predictions are made.
        target: Class to explain: ``auto``, ``predicted``, ``gold``, ``runner_up``, a number or a
            name (``targets.parse_target``).
        explain: Which scalar of it: ``auto``, ``logit``, ``log_prob``, ``probability``,
            ``contrast``, ``margin`` or ``value`` (``targets.parse_explain``).
        token_budget: Largest batch, in tokens of short rows; None for the device's default.
        seed: Seed of the stochastic methods.
        layers: Give the scores by layer too, of the methods that have them.
        pixels: Give the scores by pixel too, of the methods that have them.
        statistics: Those of the corpus (``bottleneck.collect``), for the methods that need them.
        progress: Called with the number of instances done, after each method of a batch with its
            share of them, by what it costs (``costs.forward_passes``).

    Returns:
        Results aligned with ``instances``; they don't depend on their order or the budget. Under
        ``all``, of the methods that are defined for the model, and which aren't.

    Raises:
        UsageError: If a method or the target is unknown, a method is not for this model, or it
            needs statistics and there are none; ``UsageTypeError`` if the model or the instances
            are something else.
    """
    check_model(model)
    check_instances(instances)
    scalar = parse_explain(explain, model)
    chosen, left_out = fit_all(_chosen(methods), model, scalar)
    if instances:
        _check_statistics(chosen, statistics)
    if model.beside is not None:
        more: Any = {"target": target, "explain": explain, "token_budget": token_budget}
        more |= {"seed": seed, "layers": layers, "pixels": pixels, "statistics": statistics}
        more |= {"progress": progress}
        return replace(_by_tower(model, instances, chosen, more), left_out=left_out)
    if any(instance.of_all for instance in instances) and model.task == "causal_lm":
        more = {"token_budget": token_budget, "seed": seed, "layers": layers, "pixels": pixels}
        more |= {"statistics": statistics, "progress": progress}
        tokens = {"target": target, "explain": explain, **more}
        return replace(_by_span(model, instances, chosen, tokens, more), left_out=left_out)
    job = _Job(
        model=model,
        instances=instances,
        chosen=chosen,
        target=parse_target(str(target), model),
        scalar=scalar,
        budget=budget_for(model, token_budget),
        seed=seed,
        layered=layers,
        pixels=pixels,
        statistics=statistics,
        progress=progress,
        out=Attributions(
            [None] * len(instances),
            {c.name: [None] * len(instances) for c in chosen},
            left_out=left_out,
        ),
    )
    fitting = job.fitting()
    with borrowed(model.network):
        lengths = [len(instances[n]) for n in fitting]
        inputs = [instances[n].input_key for n in fitting]
        for batch in pack_questions(lengths, inputs, job.budget, model.head_size):
            told = job.told
            job.run([fitting[at] for at in batch])
            job.tell(len(batch) - (job.told - told))
    progress(len(instances) - len(fitting))
    return job.out


def _by_span(
    model: Model,
    instances: Sequence[Instance],
    chosen: Sequence[Chosen],
    of_tokens: Mapping[str, Any],
    of_all: Mapping[str, Any],
) -> Attributions:
    """As ``attribute``, of tokens that follow prompts and of all of them at once.

    Methods that aren't defined for the latter have nothing there (``registry.Chosen.not_of_all``).
    """
    out = Attributions([None] * len(instances), {c.name: [None] * len(instances) for c in chosen})
    spans = [choice for choice in chosen if choice.not_of_all(model) is None]
    for own, asked, fits, more in (
        (False, model, chosen, of_tokens),
        (True, model.of_all, spans, of_all),
    ):
        at = [number for number, one in enumerate(instances) if one.of_all == own]
        found = attribute(asked, [instances[number] for number in at], fits, **more)
        _put(out, found, at)
    return out


def _put(out: Attributions, found: Attributions, at: Sequence[int]) -> None:
    """Puts results of some instances, by their numbers, where they belong."""
    for place, number in enumerate(at):
        out.predictions[number] = found.predictions[place]
        for name, rows in found.rows.items():
            out.rows[name][number] = rows[place]
    out.failures += found.failures


def _by_tower(
    model: Model, instances: Sequence[Instance], chosen: Sequence[Chosen], more: Mapping[str, Any]
) -> Attributions:
    """As ``attribute``, of instances that several towers run: each its own."""
    out = Attributions([None] * len(instances), {c.name: [None] * len(instances) for c in chosen})
    for modality, tower in model.towers.items():
        own = [at for at, one in enumerate(instances) if one.modality == modality]
        fits = [choice.for_tower(tower) for choice in chosen]
        found = attribute(tower, [instances[at] for at in own], fits, **more)
        _put(out, found, own)
    return out


def _chosen(methods: str | Sequence[str | Chosen]) -> list[Chosen]:
    if isinstance(methods, str):
        return choose(methods)
    if not isinstance(methods, Sequence) or not all(isinstance(m, str | Chosen) for m in methods):
        raise UsageTypeError(f"the methods are {kind_of(methods)}: give names, or choose(NAMES)")
    return [m if isinstance(m, Chosen) else choose([m])[0] for m in methods]


def _check_statistics(chosen: Iterable[Chosen], statistics: Statistics | None) -> None:
    """Statistics of whatever happens to be given would make results depend on it."""
    for choice in chosen:
        if statistics is None and any(n.sample for n in choice.needs):
            raise UsageError(
                f"{choice.name} needs statistics of the corpus: give some of its instances to "
                "attribeam.collect, and the result as statistics="
            )


@dataclass
class _Job:
    """One call of ``attribute``: batches of indices go in, ``out`` fills up."""

    model: Model
    instances: Sequence[Instance]
    chosen: Sequence[Chosen]
    target: str | int
    scalar: Scalar
    budget: int
    seed: int
    layered: bool
    pixels: bool
    statistics: Statistics | None
    out: Attributions
    progress: Callable[[float], None]
    told: float = 0.0  # Instances that progress has been told of.

    def tell(self, instances: float) -> None:
        """Says that a share of the instances is done."""
        self.told += instances
        self.progress(instances)

    def _tell_of(self, choice: Chosen, instances: int) -> None:
        """Says that a method is done with some instances, of which one forward pass is all's."""
        self.tell(instances * choice.passes / self._passes)

    @cached_property
    def _passes(self) -> float:
        """About how many forward passes all methods take."""
        return 1 + sum(each.passes for each in self.chosen)

    def fitting(self) -> list[int]:
        """Indices of the instances that the model can take; the others fail.

        Encoding refuses them already, but instances can be made otherwise, or with more tokens than
        there are positions.
        """
        found = []
        for index, instance in enumerate(self.instances):
            message = inputs_of(self.model).fault(self.model, instance)
            if message is None:
                found.append(index)
            else:
                self._fail(index, "forward", None, ValueError(message))
        return found

    def run(self, indices: Sequence[int]) -> None:
        """Attributes a batch; splits it if it fails as a whole."""
        outcome = halving(lambda part: self._base(part, self.chosen), indices)
        for part, captured in outcome:
            if isinstance(captured, Exception):
                self._fail(part[0], "forward", None, captured)
                continue
            good = self._predictions(part, captured)
            by_input = [c for c in self.chosen if captured.single or c.method.by_input]
            for choice in by_input:
                self._method(choice, part, captured, good)
                self._tell_of(choice, len(part))
            others = [choice for choice in self.chosen if choice not in by_input]
            for rank in range(len(captured.batch.ranks) if others else 0):
                self._questions(others, part, captured, rank, good)

    def _questions(
        self,
        chosen: Sequence[Chosen],
        indices: Sequence[int],
        captured: Captured,
        rank: int,
        good: set[int],
    ) -> None:
        """Runs methods on the questions of a batch that are of one rank: one of each input."""
        own = [indices[number] for number in captured.batch.ranks[rank].tolist()]

        def capture(part: Sequence[int]) -> Captured:
            return captured.part(rank) if part is own else self._base(part, chosen)

        outcome = halving(capture, own)
        if isinstance(outcome[0][1], Exception) and outcome[0][0] is own:
            outcome = halving(capture, [*own])
        for part, seen in outcome:
            for choice in chosen:
                if not isinstance(seen, Exception):
                    self._method(choice, part, seen, good)
                    self._tell_of(choice, len(part))
                elif part[0] in good:
                    self._fail(part[0], "attribute", choice.name, seen)

    def _base(self, indices: Sequence[int], chosen: Iterable[Chosen]) -> Captured:
        return Captured(
            model=self.model,
            batch=self._batch(indices),
            target=self.target,
            scalar=self.scalar,
            budget=self.budget,
            seed=self.seed,
            needs=frozenset(need for choice in chosen for need in choice.needs),
            layered=self.layered,
            pixels=self.pixels,
            statistics=self.statistics,
        )

    def _batch(self, indices: Sequence[int]) -> Batch:
        chosen = [self.instances[index] for index in indices]
        return collate(self.model, chosen)

    def _predictions(self, indices: Sequence[int], captured: Captured) -> set[int]:
        """Keeps the predictions; returns the indices whose logits are numbers."""
        probabilities = self.model.probabilities(captured.logits.double()).cpu().numpy()
        logits = captured.logits.double().cpu().numpy()
        good = set()
        for index, row, share, target in zip(
            indices, logits, probabilities, captured.targets.tolist(), strict=True
        ):
            if np.isfinite(row).all():
                self.out.predictions[index] = Prediction(row, share, target, self.model.num_single)
                good.add(index)
            else:
                message = f"the model's logits are not finite: {row.tolist()}"
                self._fail(index, "forward", None, ArithmeticError(message))
        return good

    def _method(
        self, choice: Chosen, indices: Sequence[int], captured: Captured, good: set[int]
    ) -> None:
        """Runs a method on what was captured, or, if that fails, on halves of the batch."""

        def compute(part: Sequence[int]) -> tuple[Captured, Scores, float]:
            # A part of the batch has to capture again, and only what this method needs.
            seen = captured if part is indices else self._base(part, [choice])
            start = seen.clock()
            before = seen.spent
            scores = choice.method.compute(seen, choice.params)
            passes = seen.spent - before
            return seen, scores, seen.clock() - start - passes

        for part, outcome in halving(compute, indices):
            if isinstance(outcome, Exception):
                if part[0] in good:
                    self._fail(part[0], "attribute", choice.name, outcome)
                continue
            seen, scores, own = outcome
            self._keep(choice, part, scores, seen, own + seen.cost(choice.needs), good)

    def _keep(
        self,
        choice: Chosen,
        indices: Sequence[int],
        scores: Scores,
        captured: Captured,
        seconds: float,
        good: set[int],
    ) -> None:
        rows = unbatched(scores, captured.batch.lengths)
        targets = (captured.targets if scores.targets is None else scores.targets).tolist()
        total = sum(captured.batch.lengths)
        for number, (row, index, target) in enumerate(zip(rows, indices, targets, strict=True)):
            if index not in good:
                continue
            error = scores.errors.get(number) or self._not_numbers(row)
            if error is not None:
                self._fail(index, "attribute", choice.name, error)
                continue
            self.out.rows[choice.name][index] = replace(
                row,
                target=target if choice.method.class_dependent else None,
                seconds=seconds * len(self.instances[index]) / total,
            )

    def _not_numbers(self, row: Attribution) -> Exception | None:
        """What is wrong with a row that the tables can't hold: an infinite number, or none."""
        real = np.float64 if self.model.dtype == torch.float64 else np.float32
        if row.finite_in(real):
            return None
        if not row.finite:
            return ArithmeticError("the scores are not finite")
        return OverflowError("the scores are too large for float32; --dtype float64 can hold them")

    def _fail(self, index: int, stage: str, method: str | None, error: Exception) -> None:
        self.out.failures.append(failure(self.instances[index], stage, method, error))


def unbatched(scores: Scores, lengths: Sequence[int]) -> list[Attribution]:
    """The scores of each instance of a batch, without padding, target and cost."""

    def numbers(column: torch.Tensor | None) -> list[float | None]:
        return [None] * len(lengths) if column is None else column.double().tolist()

    values = scores.values.double().cpu().numpy()
    pixels = None if scores.pixels is None else scores.pixels.double().cpu().numpy()
    details = scores.details or [{}] * len(lengths)
    if scores.layers is not None:
        layers = _unbatched_layers(scores.layers, lengths)
        details = [{**of, "layers": own} for of, own in zip(details, layers, strict=True)]
    columns = scores.delta, scores.scale, scores.bias, scores.unattributed
    extra = zip(*map(numbers, columns), strict=True)
    steps, errors = _taken(scores, len(lengths))
    return [
        Attribution(
            target=None,
            scores=values[row, :length],
            delta=delta,
            seconds=0.0,
            scale=scale,
            bias=bias,
            unattributed=unattributed,
            pixels=None if pixels is None else pixels[row],
            steps=steps[row],
            error=errors[row],
            details=details[row],
        )
        for row, (length, (delta, scale, bias, unattributed)) in enumerate(
            zip(lengths, extra, strict=True)
        )
    ]


def _taken(scores: Scores, count: int) -> tuple[list[int | None], list[float | None]]:
    """Steps and errors of each instance's integral; None where there is none."""
    if scores.taken is None:
        return [None] * count, [None] * count
    errors = scores.taken.error.tolist()
    return scores.taken.steps.tolist(), [None if isnan(error) else error for error in errors]


def _unbatched_layers(layers: LayerScores, lengths: Sequence[int]) -> list[list[LayerRow]]:
    local, rollout = layers.local.double().cpu().numpy(), layers.rollout.double().cpu().numpy()
    scale = layers.scale.double().tolist()
    mixing = None if layers.mixing is None else layers.mixing.double().cpu().numpy()
    return [
        [
            LayerRow(
                layer,
                local[row, layer, :length],
                rollout[row, layer, :length],
                scale[row][layer],
                None if mixing is None else mixing[row, layer, :length],
            )
            for layer in range(local.shape[1])
        ]
        for row, length in enumerate(lengths)
    ]


def failure(instance: Instance, stage: str, method: str | None, error: Exception) -> Failure:
    """A failures row for an error, its message cut to a sensible length."""
    message = one_line(str(error)) or one_line(repr(error))
    name, row, at = instance.instance_id, instance.row_id, instance.corpus_row
    return Failure(name, stage, method, type(error).__name__, message, row, at)
