"""Whether explanations can be believed: what becomes of them as model, input and chance change.

Asked of a finished run's instances, into tables beside it: scores under randomised weights
(``randomised``; Adebayo et al. 2018), on noised inputs (``noised``; Yeh et al. 2019), under other
seeds (``repeats``), and what the model says without subsets of an input (``subsets``).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, cast, get_args

import numpy as np
from numpy.typing import NDArray

from attribeam.pipeline.experiments.check_tables import (
    Portion,
    add_smoothed,
    score_rows,
    subset_rows,
)
from attribeam.pipeline.experiments.reopened import Again, ask_again, own_options
from attribeam.pipeline.running.statistics import read_statistics, sample_of, samples
from attribeam.schemas import UsageError
from attribeam.schemas.errors import INT64
from attribeam.transforms import (
    Attributions,
    Chosen,
    Instance,
    Model,
    Prediction,
    Statistics,
    collect,
)
from attribeam.transforms.attribute import attribute, budget_for
from attribeam.transforms.inputs.kinds import inputs_of
from attribeam.transforms.inputs.noise import input_scales, noised
from attribeam.transforms.inputs.seam import Operation, Unit
from attribeam.transforms.inputs.targets import GIVEN, SEVERAL, runner_up_of
from attribeam.transforms.network.randomised import Part, Weights, drawn, parts_of, randomised
from attribeam.transforms.subsets import subset_points

CHECKS = ("randomise", "noise", "subsets", "repeats")
_TABLES = dict(zip(CHECKS, ("randomised", "noised", "subsets", "repeats"), strict=True))
_KINDS = ("cascading", "independent")
# Instances whose copies are held at a time.
_AT_ONCE = 50
_MOST = 10_000


@dataclass(frozen=True)
class CheckOptions:
    """What a check is told.

    Attributes:
        folder: The run's folder.
        model: Folder or hub id of the run's model; None for the one that the run names.
        checks: Which of ``CHECKS``, separated by commas.
        methods: Methods of the run, separated by commas; None for all that have scores.
        limit: Most instances: those that are first by a hash of their ids.
        stages: Parts down to which weights are randomised, separated by commas; None for all.
        weights: What randomised parts hold: ``init``, ``shuffle`` or both.
        seeds: Number of seeds of these weights.
        smooth: Noised inputs over which scores are averaged at each stage; 0 for none.
        draws: Number of noised inputs.
        radius: Of the noise, in root mean squares of the input.
        samples: Number of random subsets.
        repeats: Number of other seeds.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        token_budget: Largest batch in tokens of short rows; None for the device's default.
        allow_pickle: Load pickled weights.
        trust_remote_code: Let the model bring its own code.
    """

    folder: str
    model: str | None = None
    checks: str = ",".join(CHECKS)
    methods: str | None = None
    limit: int = 200
    stages: str | None = None
    weights: str = "init"
    seeds: int = 1
    smooth: int = 0
    draws: int = 10
    radius: float = 0.05
    samples: int = 100
    repeats: int = 4
    device: str = "auto"
    token_budget: int | None = None
    allow_pickle: bool = False
    trust_remote_code: bool = False

    def listed(self, name: str, known: Sequence[str]) -> list[str]:
        """An option that is a list of names that are known, in the order in which these are.

        Raises:
            UsageError: If one of them isn't known, or there is none.
        """
        given = [each.strip() for each in str(getattr(self, name)).split(",") if each.strip()]
        wrong = [each for each in given if each not in known]
        if wrong or not given:
            what = f"there is no {wrong[0]!r}" if wrong else "none was given"
            raise UsageError(f"--{name}: {what}; there are {', '.join(known)}")
        return [each for each in known if each in given]

    def check(self) -> None:
        """Checks the numbers.

        Raises:
            UsageError: If one of them is out of range.
        """
        least = {"limit": 1, "seeds": 1, "smooth": 0, "draws": 2, "samples": 1, "repeats": 1}
        for name, bound in least.items():
            value = getattr(self, name)
            if not bound <= value <= (INT64.stop if name == "limit" else _MOST):
                raise UsageError(f"--{name} is between {bound} and {_MOST}, not {value}")
        if not 0 < self.radius <= 1:
            raise UsageError(f"--radius is above 0 and at most 1, not {self.radius}")


class Step(NamedTuple):
    """A part of a check that is to be done, and how it is.

    Attributes:
        portion: Which part.
        methods: The methods that it lacks; an empty name where there are none.
        passes: How many times each of them is run on each instance.
        rows: Makes its rows, of these methods.
        twin: Equal for steps that ask the same model the same; None for those that no other is.
    """

    portion: Portion
    methods: tuple[str, ...]
    passes: float
    rows: Callable[[Sequence[str]], list[dict[str, Any]]]
    twin: tuple[object, ...] | None = None


@dataclass(frozen=True, eq=False)
class Check:
    """A check of a run, its options checked and its model loaded.

    Attributes:
        options: The options.
        again: The run.
        names: The checks.
        parts: Parts of the model, from the output to the input; none if weights stay.
        stages: Numbers of those down to which weights are randomised, from 1.
        weights: What randomised parts hold.
        operation: How units are removed from subsets.
        unit: What is removed at a time.
    """

    options: CheckOptions
    again: Again
    names: list[str]
    parts: list[Part]
    stages: list[int]
    weights: list[Weights]
    operation: Operation
    unit: Unit
    _samples: dict[int, Sequence[Instance]] = field(default_factory=dict)
    # Rows of the first stage, which is the same in every kind, until the other kind has them too.
    _first: dict[tuple[object, ...], list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def instances(self) -> list[Instance]:
        """The instances."""
        return self.again.instances

    @property
    def methods(self) -> list[str]:
        """Names of the methods."""
        return [choice.name for choice in self.again.chosen]

    @cached_property
    def budget(self) -> int:
        """Token budget of a batch."""
        return budget_for(self.again.model, self.options.token_budget)

    # What is to be done --------------------------------------------------------------------------

    def steps(self) -> list[Step]:
        """What isn't done yet, in the order in which it is done."""
        makers = {
            "randomise": self._randomise,
            "noise": self._noise,
            "subsets": self._subsets,
            "repeats": self._repeats,
        }
        root = self.again.settings.output
        found: list[Step] = []
        for name in self.names:
            for step in makers[name]():
                done = step.portion.done(root)
                lacking = tuple(method for method in step.methods if method not in done)
                if not lacking:
                    continue
                twins = [s.methods for s in found if s.twin is not None and s.twin == step.twin]
                # What is the same model is asked once.
                passes = 0.0 if lacking in twins else step.passes
                found.append(step._replace(methods=lacking, passes=passes))
        return found

    def run(self, step: Step) -> int:
        """Does a step and commits it; returns the number of rows that failed."""
        rows = step.rows(step.methods)
        double = self.again.settings.double
        step.portion.commit(self.again.settings.output, rows, step.methods, double=double)
        return sum(row.get("failure") is not None for row in rows)

    def _portion(self, check: str, name: str, *key: object) -> Portion:
        evaluation = "-".join([check, self.again.key, *map(str, key)])
        return Portion(_TABLES[check], evaluation, name)

    def _randomise(self) -> Iterator[Step]:
        smooth = self.options.smooth
        key = (f"smooth{smooth}", self.options.radius) if smooth else ()
        every, times = tuple(self.methods), 1 + smooth
        whole = {"kind": "whole", "weights": None, "seed": None, "stage": 0, "part": None}
        yield Step(
            self._portion("randomise", "whole", *key),
            every,
            times,
            lambda methods: self._stage(methods, whole, ()),
        )
        if dependent := tuple(self._of_class()):
            other = {**whole, "kind": "class"}
            yield Step(
                self._portion("randomise", "class", *key),
                dependent,
                times,
                lambda methods: self._stage(methods, other, (), self._others()),
            )
        for weights in self.weights:
            for seed in range(self.options.seeds):
                for kind in _KINDS:
                    for stage in self.stages:
                        yield Step(
                            self._portion("randomise", f"{kind}-{weights}-{seed}-{stage}", *key),
                            every,
                            times,
                            self._randomised(kind, weights, seed, stage),
                            # The first part alone, whether others are to follow it or not.
                            (weights, seed) if stage == 1 else None,
                        )

    def _randomised(
        self, kind: str, weights: Weights, seed: int, stage: int
    ) -> Callable[[Sequence[str]], list[dict[str, Any]]]:
        """What makes the rows of a stage."""
        parts = self.parts[:stage] if kind == "cascading" else [self.parts[stage - 1]]
        names = ("kind", "weights", "seed", "stage", "part")
        values = (kind, weights, seed, stage, self.parts[stage - 1].name)
        columns = dict(zip(names, values, strict=True))

        def rows(methods: Sequence[str]) -> list[dict[str, Any]]:
            twin = weights, seed, tuple(methods)
            if stage == 1 and twin in self._first:
                return [{**row, **columns} for row in self._first.pop(twin)]
            with randomised(parts, drawn(self.again.model, weights, seed)):
                found = self._stage(methods, columns, parts)
            if stage == 1:
                self._first[twin] = found
            return found

        return rows

    def _noise(self) -> Iterator[Step]:
        for draw in range(self.options.draws):

            def rows(methods: Sequence[str], draw: int = draw) -> list[dict[str, Any]]:
                noisy = self._noised(self.given, draw)
                norms = [float(np.linalg.norm(cast(Any, one.noise))) for one in noisy]
                found = self.attributed(methods, noisy)
                radii = self.radii.tolist()
                more = {"radius": radii, "sample": draw, "noise_norm": norms}
                return score_rows(noisy, found, methods, **more)

            portion = self._portion("noise", f"draw-{draw:05d}", self.options.radius)
            yield Step(portion, tuple(self.methods), 1, rows)

    def _repeats(self) -> Iterator[Step]:
        own = self.again.settings.seed
        every = [choice.name for choice in self.again.chosen if choice.method.stochastic]
        for number in range(1, self.options.repeats + 1):

            def rows(methods: Sequence[str], seed: int = own + number) -> list[dict[str, Any]]:
                found = self.attributed(methods, self.given, seed=seed)
                return score_rows(self.given, found, methods, seed=seed)

            portion = self._portion("repeats", f"seed-{own + number:05d}")
            yield Step(portion, tuple(every), 1, rows)

    def _subsets(self) -> Iterator[Step]:
        key = (self.operation, self.unit, self.options.samples)
        for start in range(0, len(self.instances), _AT_ONCE):
            own = slice(start, start + _AT_ONCE)

            def rows(_: Sequence[str], own: slice = own) -> list[dict[str, Any]]:
                return self.of_subsets(own)

            yield Step(self._portion("subsets", f"part-{start:07d}", *key), ("",), 0, rows)

    # How it is done ------------------------------------------------------------------------------

    @cached_property
    def predictions(self) -> list[Prediction | None]:
        """What the model says of each instance, and the class that the run explains."""
        settings = self.again.settings
        found = attribute(
            self.again.model,
            self.instances,
            [],
            target=settings.target,
            explain=settings.scalar,
            token_budget=self.budget,
        )
        return found.predictions

    @cached_property
    def given(self) -> list[Instance]:
        """The instances with that class: whatever is changed, it is the one that is explained."""
        pairs = zip(self.instances, self.predictions, strict=True)
        return [i if p is None else replace(i, own_target=p.target) for i, p in pairs]

    @cached_property
    def radii(self) -> NDArray[np.float64]:
        """Radius of the noise of each instance."""
        return self.options.radius * input_scales(self.again.model, self.instances, self.budget)

    def _noised(self, instances: Sequence[Instance], draw: int) -> list[Instance]:
        model, seed = self.again.model, self.again.settings.seed
        pairs = zip(instances, self.radii.tolist(), strict=True)
        return [noised(model, one, radius, draw, seed) for one, radius in pairs]

    def _of_class(self) -> list[str]:
        """The methods whose scores depend on the class of the run, if there is another."""
        if self.again.model.task in SEVERAL:
            return []  # Each output is a question of its own.
        chosen = self.again.chosen
        return [c.name for c in chosen if c.method.class_dependent and c.target is None]

    def _others(self) -> list[Instance]:
        """The instances, with the class that comes next to the one that is explained."""
        pairs = zip(self.given, self.predictions, strict=True)
        return [
            one if p is None else replace(one, own_target=runner_up_of(p.logits, p.target))
            for one, p in pairs
        ]

    def _stage(
        self,
        methods: Sequence[str],
        columns: dict[str, Any],
        parts: Sequence[Part],
        instances: Sequence[Instance] | None = None,
    ) -> list[dict[str, Any]]:
        """The rows of a stage, the model being as it is to be."""
        of = self.given if instances is None else instances
        statistics = self._statistics(methods, changed=bool(parts))

        def scored(inputs: Sequence[Instance]) -> list[dict[str, Any]]:
            found = self.attributed(methods, inputs, statistics)
            return score_rows(inputs, found, methods, **columns)

        rows = scored(of)
        if self.options.smooth:
            several = [scored(self._noised(of, draw)) for draw in range(self.options.smooth)]
            add_smoothed(rows, several)
        return rows

    def attributed(
        self,
        methods: Sequence[str],
        instances: Sequence[Instance],
        statistics: Statistics | None = None,
        *,
        seed: int | None = None,
    ) -> Attributions:
        """Scores of the class that is given, with the run's statistics unless others are."""
        settings = self.again.settings
        if statistics is None:
            statistics = self._statistics(methods)
        return attribute(
            self.again.model,
            instances,
            self._chosen(methods),
            target=GIVEN,
            explain=settings.scalar,
            token_budget=self.budget,
            seed=settings.seed if seed is None else seed,
            statistics=statistics,
        )

    def _statistics(self, methods: Sequence[str], *, changed: bool = False) -> Statistics | None:
        """Statistics of the corpus: those of the run, or of the model as it is now."""
        chosen = {c.name: dict(c.params) for c in self._chosen(methods)}
        settings = replace(self.again.settings, methods=chosen)
        if not changed:
            return read_statistics(settings)
        for sample in samples(settings):
            if sample not in self._samples:
                self._samples[sample] = sample_of(settings, self.again.model, sample)
            return collect(self.again.model, self._samples[sample], self.budget)
        return None

    def _chosen(self, methods: Sequence[str]) -> list[Chosen]:
        return [choice for choice in self.again.chosen if choice.name in methods]

    def unit_of(self, about: Model | Instance) -> Unit:
        """What is removed of an instance, or of a tower's, at a time."""
        kind = inputs_of(about)
        return self.unit if self.unit in kind.units else kind.units[0]

    @property
    def subset_steps(self) -> int:
        """Number of steps that subsets are made in."""
        return -(-len(self.instances) // _AT_ONCE)

    def of_subsets(self, own: slice) -> list[dict[str, Any]]:
        """Rows of subsets of some instances."""
        rows: list[dict[str, Any]] = []
        for modality, tower in self.again.model.towers.items():
            pairs = [
                (instance, prediction)
                for instance, prediction in zip(
                    self.instances[own], self.predictions[own], strict=True
                )
                if instance.modality == modality and prediction is not None
            ]
            rows += self._subsets_of(tower, pairs)
        return rows

    def _subsets_of(
        self, tower: Model, pairs: Sequence[tuple[Instance, Prediction]]
    ) -> list[dict[str, Any]]:
        """The same of instances that one tower runs."""
        kind, unit, settings = inputs_of(tower), self.unit_of(tower), self.again.settings
        operation = self.operation
        if operation not in kind.operations:
            operation = kind.usual_operation(tower)
        instances = [instance for instance, _ in pairs]
        points, failures = subset_points(
            tower,
            instances,
            [prediction for _, prediction in pairs],
            scalar=settings.scalar,
            operation=operation,
            unit=unit,
            samples=self.options.samples,
            token_budget=self.budget,
            seed=settings.seed,
        )
        return subset_rows(instances, points, failures, operation, unit)


def open_check(options: CheckOptions) -> Check:
    """Checks the options against the run, and loads its model.

    Raises:
        UsageError: If anything is wrong; nothing has been computed or written then.
    """
    options.check()
    names = options.listed("checks", CHECKS)
    weights = cast("list[Weights]", options.listed("weights", get_args(Weights)))
    own = own_options(
        options.folder,
        options.model,
        device=options.device,
        token_budget=options.token_budget,
        allow_pickle=options.allow_pickle,
        trust_remote_code=options.trust_remote_code,
    )
    again = ask_again(own, options.methods, options.limit)
    parts = parts_of(again.model) if "randomise" in names else []
    stages = list(range(1, len(parts) + 1))
    if options.stages is not None and parts:
        chosen = options.listed("stages", [part.name for part in parts])
        stages = [number for number, part in enumerate(parts, 1) if part.name in chosen]
    operation, unit = _removal(again)
    return Check(options, again, names, parts, stages, weights, operation, unit)


def _removal(again: Again) -> tuple[Operation, Unit]:
    """How what is removed, as in the run's curves; where it has none, in the usual way."""
    kind = inputs_of(again.model)
    record: Mapping[str, Any] = again.manifest["evaluation"] or {}
    operations = [o for o in record.get("operations", []) if o in kind.operations]
    unit = record.get("protocol")
    operation = operations[0] if operations else kind.usual_operation(again.model)
    return cast(Operation, operation), unit if unit in kind.units else kind.units[0]
