"""The work of one shard: rows in, one Arrow table per missing unit out. No Beam in here."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from attribeam.pipeline.corpus.given import with_given
from attribeam.pipeline.corpus.targets import with_targets
from attribeam.pipeline.running.imputing import load_imputer
from attribeam.pipeline.running.missing import Task
from attribeam.pipeline.running.said import said_rows
from attribeam.pipeline.running.statistics import read_statistics
from attribeam.pipeline.running.tables import (
    attributions_table,
    curves_table,
    details_table,
    instances_table,
    localisation_table,
    with_metadata,
)
from attribeam.pipeline.running.weighing import OF_SCORES, weigher
from attribeam.pipeline.settings import Settings
from attribeam.pipeline.store.joined import read_unit
from attribeam.pipeline.workers.devices import check_precision
from attribeam.pipeline.workers.model_files import local_model
from attribeam.schemas import Failure, Unit
from attribeam.schemas.layout import Place
from attribeam.transforms import (
    Attribution,
    Attributions,
    Instance,
    Model,
    Row,
    Statistics,
    attribute,
    load_model,
)
from attribeam.transforms.attribute import budget_for
from attribeam.transforms.details import BY_LAYER, Real
from attribeam.transforms.evaluate import Ranking, curves
from attribeam.transforms.inputs.encode import encode_rows

Floats = NDArray[np.floating[Any]]

# Instances whose perturbed inputs are held at a time: enough to fill batches of equal length, few
# enough to take a few megabytes.
_PERTURB_AT_ONCE = 64


class Scored(NamedTuple):
    """A method's scores for an instance, and the class that they explain; None for no class.

    ``pixels`` are those of pixels, if there are any.
    """

    scores: Floats
    target: int | None
    pixels: Floats | None


class UnitResult(NamedTuple):
    """The table of a unit for one shard, and what failed on the way to it."""

    unit: Unit
    shard: int
    num_shards: int
    table: pa.Table
    failures: list[Failure]


@dataclass(frozen=True)
class Shard:
    """The rows of a shard, and what is to be done with them."""

    task: Task
    rows: Sequence[Row]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(eq=False)
class Attributor:
    """A loaded model and the settings of the run; does one shard at a time.

    Its one method is coarse, so that it can be shared between processes through a proxy.
    """

    settings: Settings
    model: Model
    statistics: Statistics | None = None
    progress: Callable[[float], None] = lambda _: None
    imputer: Model | None = None
    # A runner may call from several threads. Two shards at a time would take twice the memory.
    turn: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def load(cls, settings: Settings, progress: Callable[[float], None]) -> "Attributor":
        """Loads the model onto the worker's device."""
        check_precision(settings.dtype, settings.device)
        with local_model(settings) as folder:
            model = load_model(folder, device=settings.device, **settings.loading())
        return cls(settings, model, read_statistics(settings), progress, load_imputer(settings))

    def process(self, shard: Shard) -> list[UnitResult]:
        """Computes the missing units of a shard.

        Args:
            shard: Its rows and task.

        Returns:
            A result per unit, in the order of the task's units.
        """
        with self.turn:
            return list(ShardWork(self, shard).results())


@dataclass
class ShardWork:
    """One call of ``Attributor.process``.

    Attributes:
        attributor: What does it.
        shard: The shard.
        instances: Its instances, once the first result is there.
        found: What was attributed to them, likewise.
    """

    attributor: Attributor
    shard: Shard
    instances: list[Instance] = field(default_factory=list)
    found: Attributions | None = None

    @property
    def settings(self) -> Settings:
        """Settings of the run."""
        return self.attributor.settings

    @property
    def model(self) -> Model:
        """The model."""
        return self.attributor.model

    def results(self) -> Iterator[UnitResult]:
        """Computes a result per unit, in the order of the task's units."""
        units = self.shard.task.units
        rows = said_rows(self.settings, self.model, self.shard.task.shard, self.shard.rows)
        wanted = {unit.method for unit in units if unit.table not in OF_SCORES}
        rows = with_given(
            rows,
            self.settings.output,
            {name: of for name, of in self.settings.methods.items() if name in wanted},
            self.shard.task.shard,
        )
        self.instances, unread = encode_rows(self.model, rows, self.settings.encoding)
        if (digest := self.settings.given_targets) is not None:
            place = self.settings.output, digest, self.shard.task.shard
            self.instances, lacking = with_targets(self.instances, *place)
            unread += lacking
        found = attribute(
            self.model,
            self.instances,
            [choice for choice in self.settings.chosen if choice.name in wanted],
            target=self.settings.target,
            explain=self.settings.scalar,
            token_budget=self.settings.token_budget,
            seed=self.settings.seed,
            layers=any(unit.table in BY_LAYER for unit in units),
            pixels=self.settings.pixels,
            statistics=self.attributor.statistics,
            progress=self._stepper([unit for unit in units if unit.table not in OF_SCORES]),
        )
        self.found = found
        if Unit("instances") in units:
            general = [f for f in found.failures if f.method is None]
            yield self._result(Unit("instances"), self._instances(found), [*unread, *general])
        valid = self._valid(found)
        for method in self._missing("attributions"):
            yield self._attributions(method, found, valid)
        for unit in self._details_missing:
            yield self._details(unit, found, valid)
        yield from self._localisation(found, valid)
        yield from self._curves(found, valid)

    @property
    def _details_missing(self) -> list[Unit]:
        """The units of other tables that methods fill beside their scores."""
        others = ("instances", "attributions", *OF_SCORES)
        return [unit for unit in self.shard.task.units if unit.table not in others]

    def _missing(self, table: str) -> list[str]:
        """The methods whose units of a table are to be made."""
        return [str(unit.method) for unit in self.shard.task.units if unit.table == table]

    def _stepper(self, units: Sequence[Unit]) -> Callable[[float], None]:
        """Reports progress of units with some instances, in forward passes of rows."""
        weight = sum(map(weigher(self.settings), units))
        each = len(self.shard) * weight / max(1, len(self.instances))
        return lambda count: self.attributor.progress(count * each)

    def _instances(self, found: Attributions) -> pa.Table:
        pairs = [
            (instance, prediction)
            for instance, prediction in zip(self.instances, found.predictions, strict=True)
            if prediction is not None
        ]
        return instances_table(pairs, double=self.settings.double)

    def _valid(self, found: Attributions) -> set[str]:
        """Ids of the instances that have a row in ``instances``, from now or from before."""
        task = self.shard.task
        if Unit("instances") not in task.units:
            return set(self._read(Unit("instances"), ["instance_id"])["instance_id"].to_pylist())
        return {
            instance.instance_id
            for instance, prediction in zip(self.instances, found.predictions, strict=True)
            if prediction is not None
        }

    def _attributions(self, method: str, found: Attributions, valid: set[str]) -> UnitResult:
        """The rows of a method, and a failure for each valid instance that has none."""
        rows, failures = self._rows(method, found, valid)
        table = attributions_table(rows, method, double=self.settings.double)
        return self._result(Unit("attributions", method), table, failures)

    def _details(self, unit: Unit, found: Attributions, valid: set[str]) -> UnitResult:
        """A method's rows of another table, and a failure for each attributed instance without.

        What has just failed to be attributed is a failure of the attributions alone, and what fails
        for several tables is one of the first of them, so that it is counted once.
        """
        method = str(unit.method)
        scored = "attributions" in self.settings.tables_of(method)
        attributed = set(self._scores(method, found, valid)) if scored else valid
        rows, failures = self._rows(method, found, attributed)
        table = details_table(unit.table, rows, method, double=self.settings.double)
        first = next(other for other in self._details_missing if other.method == method)
        known = self._recorded(method) if unit == first else set()
        new = [f for f in failures if unit == first and f.instance_id not in known]
        return self._result(unit, table, new)

    def _recorded(self, method: str) -> set[str | None]:
        """Instances whose failure was committed with a table of the method's that is there."""
        task = self.shard.task
        units = (Unit(table, method) for table in self.settings.tables_of(method))
        there = [
            unit
            for unit in units
            if unit not in task.units and unit.table not in ("attributions", *OF_SCORES)
        ]
        read = (self._read(unit, ["instance_id"], failures=True) for unit in there)
        return {instance_id for table in read for instance_id in table["instance_id"].to_pylist()}

    def _rows(
        self, method: str, found: Attributions, wanted: set[str]
    ) -> tuple[list[tuple[Instance, Attribution]], list[Failure]]:
        """What a method gave for the instances that are wanted, and why not for the others."""
        rows = [
            (instance, row)
            for instance, row in zip(self.instances, found.rows[method], strict=True)
            if row is not None and instance.instance_id in wanted
        ]
        lacking = wanted - {instance.instance_id for instance, _ in rows}
        failures = [
            f._replace(stage="attribute", method=method)
            for f in found.failures
            if f.instance_id in lacking and f.method in (method, None)
        ]
        return rows, failures

    def _localisation(self, found: Attributions, valid: set[str]) -> Iterator[UnitResult]:
        """How well the scores of each method find what is masked."""
        for method in self._missing("localisation"):
            rankings = self._rankings(method, self._scores(method, found, valid), found)
            table = localisation_table(rankings.values(), method, double=self.settings.double)
            yield self._result(Unit("localisation", method), table, [])
            self._stepper([Unit("localisation", method)])(len(self.instances))

    def _curves(self, found: Attributions, valid: set[str]) -> Iterator[UnitResult]:
        methods = self._missing("curves")
        evaluation = self.settings.evaluation
        if not methods or evaluation is None:
            return
        scores = {method: self._scores(method, found, valid) for method in methods}
        by_method = {method: self._rankings(method, scores[method], found) for method in methods}
        results: dict[str, list[Any]] = {method: [] for method in methods}
        # Of instances that were attributed before, and now give no prediction.
        failures: dict[str, list[Failure]] = {
            method: [
                f._replace(stage="perturb", method=method)
                for f in found.failures
                if f.method is None and f.instance_id in scores[method]
            ]
            for method in methods
        }
        step = self._stepper([Unit("curves", method) for method in methods])
        for chunk in self._chunks():
            rankings = [by_method[m][i] for m in methods for i in chunk if i in by_method[m]]
            points, failed = curves(
                self.model,
                rankings,
                evaluation,
                token_budget=budget_for(self.model, self.settings.token_budget),
                seed=self.settings.seed,
                imputer=self.attributor.imputer,
            )
            for ranking, row in zip(rankings, points, strict=True):
                if row is not None:
                    results[ranking.method].append((ranking, row))
            for failure in failed:
                failures[str(failure.method)].append(failure)
            step(len(chunk))
        for method in methods:
            table = curves_table(results[method], evaluation, double=self.settings.double)
            if not self.settings.curve_targets:
                table = table.drop_columns(["target"])
            yield self._result(Unit("curves", method), table, failures[method])

    def _chunks(self) -> Iterator[list[str]]:
        """Ids of instances of similar length, some at a time."""
        ordered = [i.instance_id for i in sorted(self.instances, key=lambda i: -len(i))]
        for start in range(0, len(ordered), _PERTURB_AT_ONCE):
            yield ordered[start : start + _PERTURB_AT_ONCE]

    def _rankings(
        self, method: str, scores: dict[str, Scored], found: Attributions
    ) -> dict[str, Ranking]:
        """What is to be tested of a method, by instance.

        The class that is followed is the one that the scores explain; where they explain none, that
        of the run.
        """
        word_score = self.settings.word_score(method)
        rankings = {}
        for instance, prediction in zip(self.instances, found.predictions, strict=True):
            own = scores.get(instance.instance_id)
            if own is not None and prediction is not None:
                target = prediction.target if own.target is None else own.target
                ranking = Ranking(instance, method, own.scores, target, word_score, own.pixels)
                rankings[instance.instance_id] = ranking
        return rankings

    def _scores(self, method: str, found: Attributions, valid: set[str]) -> dict[str, Scored]:
        """Scores of a method by valid instance: those just computed, or those committed before.

        Either way they are of the tables' precision, so that a resumed run ranks the same.
        """
        real = np.float64 if self.settings.double else np.float32
        scores: dict[str, Scored]
        if Unit("attributions", method) in self.shard.task.units:
            pairs = zip(self.instances, found.rows[method], strict=True)
            scores = {
                instance.instance_id: Scored(
                    row.scores.astype(real), row.target, _of_type(row.pixels, real)
                )
                for instance, row in pairs
                if row is not None
            }
        else:
            columns = ["instance_id", "scores", "target", *["pixels"] * self.settings.pixels]
            table = self._read(Unit("attributions", method), columns)
            scores = {
                row["instance_id"]: Scored(
                    np.asarray(row["scores"], real),
                    row["target"],
                    _of_type(row.get("pixels"), real),
                )
                for row in table.to_pylist()
            }
        return {instance_id: own for instance_id, own in scores.items() if instance_id in valid}

    def _read(self, unit: Unit, columns: list[str], *, failures: bool = False) -> pa.Table:
        """What was committed of a unit of this shard before, or of its failures."""
        place = Place.of(unit, self.shard.task.shard, self.shard.task.num_shards)
        return read_unit(self.settings.output, place, columns, failures=failures)

    def _result(self, unit: Unit, table: pa.Table, failures: list[Failure]) -> UnitResult:
        task = self.shard.task
        metadata = {"attribeam.unit": str(unit), "attribeam.seed": str(self.settings.seed)}
        if unit.method is not None:
            params = self.settings.methods[unit.method]
            metadata |= {"attribeam.params": json.dumps(params, sort_keys=True)}
        metadata |= {
            "attribeam.target": str(self.settings.target_rule),
            "attribeam.dtype": self.settings.dtype,
            "attribeam.model": self.settings.model_name,
        }
        return UnitResult(
            unit, task.shard, task.num_shards, with_metadata(table, metadata), failures
        )


def _of_type(pixels: Any, real: Real) -> Floats | None:
    """Scores of pixels in a table's precision, if there are any."""
    return None if pixels is None else np.asarray(pixels, real)
