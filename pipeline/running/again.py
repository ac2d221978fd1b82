"""What a call is to do: what is missing, and what is to be made again.

Damaged files, and what failed for want of memory or a network, may be of methods that the call
wasn't told to run. These are made with the parameters that ``run.json`` has, as long as this
version of attribeam still makes the same of them; else they are left, and it is said whose they
are.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from attribeam.pipeline.parts import WHOLE, RunPart
from attribeam.pipeline.running.missing import Task, in_order, plan, units_of_run
from attribeam.pipeline.settings import Settings
from attribeam.pipeline.store.damage import Damage, Part
from attribeam.pipeline.store.files import Stamp, discard, join, stamp
from attribeam.pipeline.store.joined import each_shard, take_out
from attribeam.pipeline.store.records import forget
from attribeam.pipeline.store.there import There
from attribeam.schemas import Unit, UsageError, failures_path, unit_path
from attribeam.schemas.manifest import EvaluationRecord, Manifest
from attribeam.transforms import Model, choose
from attribeam.transforms.evaluate import Evaluation
from attribeam.transforms.recovery import is_passing

# Files that a sentence names.
_NAMED = 3


class Passing(NamedTuple):
    """What failed for want of memory, a network or a device.

    Attributes:
        parts: What is to be made again for it.
        stuck: Failures that can't be tried again, since that takes a method that can't be made.
    """

    parts: list[Part]
    stuck: int


@dataclass(frozen=True)
class Work:
    """What a call is to do.

    Attributes:
        units: The units that the call was told of.
        tasks: The missing units by shard.
        settings: Settings for them.
        retried: Units that are tried again, whose tables go first.
        renewed: All units of shards that are made again.
        again: Damaged files that are made again.
        spoiled: Those that aren't.
        left: Sentences on them, and on what can't be tried again.
    """

    units: list[Unit]
    tasks: list[Task]
    settings: Settings
    retried: list[Part]
    renewed: list[Part]
    again: list[str]
    spoiled: list[str]
    left: list[str]


NOTHING = Passing([], 0)


@dataclass(frozen=True)
class Run:
    """A run, as far as this call and its version of attribeam can add to it.

    Attributes:
        settings: Settings of the call.
        manifest: ``run.json`` with what the call adds.
        unable: Why not, of the methods that can't be made again.
    """

    settings: Settings
    manifest: Manifest
    unable: Mapping[str, str]

    @classmethod
    def of(cls, settings: Settings, manifest: Manifest, model: Model) -> "Run":
        """The run of a call, and of other methods why they can't be made again."""
        unable = {}
        for name, record in manifest["methods"].items():
            if name not in settings.methods:
                try:
                    (choice,) = choose([name], {name: record["params"]})
                    choice.fitted(model)
                except UsageError as error:
                    unable[name] = str(error)
                    continue
                version = record.get("version", 1)
                if choice.method.version != version:
                    unable[name] = f"it was made by version {version} of the method"
        return cls(settings, manifest, unable)

    @property
    def units(self) -> list[Unit]:
        """All units of the run, of whichever call."""
        return units_of_run({n: of["tables"] for n, of in self.manifest["methods"].items()})

    def work(
        self,
        whole: There,
        damage: Damage,
        passing: Passing = NOTHING,
        part: RunPart = WHOLE,
        *,
        everything: bool = False,
    ) -> Work:
        """What is missing, damaged, or to be tried again.

        Args:
            whole: The files that are there and not damaged.
            damage: What is damaged.
            passing: What is to be tried again.
            part: The part of the run that the call is for, as are the files, damage and passing.
            everything: Do what is missing of the run's other methods too.
        """
        units = units_of_run(self.settings.tables)
        if everything:
            more = [unit for unit in self.units if unit.method not in self.unable]
            units = in_order([*units, *more])
        able = {p: paths for p, paths in damage.parts.items() if p[0].method not in self.unable}
        # A file of several shards may have some of other parts of the run too.
        own = [found for found in able if part.has(found[1])]
        again = {part: self._stamp(part) for part in own} | dict.fromkeys(passing.parts)
        tasks = plan(units, whole, again, part)
        damaged = dict.fromkeys(path for paths in able.values() for path in paths)
        unable = {p: paths for p, paths in damage.parts.items() if p not in able}
        spoiled = dict.fromkeys(path for paths in unable.values() for path in paths)
        return Work(
            units=units,
            tasks=tasks,
            settings=self._settings_for(tasks),
            retried=passing.parts,
            renewed=[*again],
            again=[*damaged, *damage.corpus, *damage.samples.values()],
            spoiled=[*spoiled, *damage.strays],
            left=list(self._left(unable, damage.strays, passing.stuck)),
        )

    def _stamp(self, part: Part) -> Stamp | None:
        """That of a table that is damaged, or whose failures are."""
        unit, shard = part
        path = unit_path(unit, shard, self.settings.num_shards)
        return stamp(join(self.settings.output, path))

    def _settings_for(self, tasks: Sequence[Task]) -> Settings:
        """The settings of the call, with those of other methods that have a part in its tasks."""
        units = {unit for task in tasks for unit in task.units}
        others = {unit.method for unit in units if unit.method} - set(self.settings.methods)
        records = self.manifest["methods"]
        evaluation = self.settings.evaluation
        record = self.manifest["evaluation"]
        if any(unit.table == "curves" for unit in units) and evaluation is None and record:
            evaluation = _evaluation(record)
            self._check_imputer(evaluation)
        return replace(
            self.settings,
            methods={
                **self.settings.methods,
                **{name: dict(records[name]["params"]) for name in records if name in others},
            },
            filled={name: tuple(of["tables"]) for name, of in records.items()},
            evaluation=evaluation,
        )

    def _check_imputer(self, evaluation: Evaluation) -> None:
        """Checks that the masked LM that filled a run's inputs is there to fill them again."""
        if evaluation.imputer is None:
            return
        given, begun = self.settings.imputer, evaluation.imputer
        if given is None or given.weights != begun.get("weights_sha256"):
            raise UsageError(
                f"the run's curves have inputs that {begun.get('source')} has filled (--operations "
                "impute): name that masked LM with --imputer"
            )

    def _left(
        self, unable: Mapping[Part, list[str]], strays: Sequence[str], stuck: int
    ) -> Iterator[str]:
        """Yields sentences on what can't be made again, and whose it is."""
        for method, reason in sorted(self.unable.items()):
            own = (paths for (unit, _), paths in unable.items() if unit.method == method)
            paths = [*dict.fromkeys(path for each in own for path in each)]
            if paths:
                of = f"of {method}, which can't be made again here"
                yield f"{_left_as_is(paths)} {of}: {reason}"
        if strays:
            yield f"{_left_as_is(strays)}, of which run.json knows nothing: move it elsewhere"
        if stuck:
            method, reason = min(self.unable.items())
            yield (
                f"not tried again: {stuck} that failed for want of memory, a network or a device, "
                f"since {method} can't be made again here: {reason}"
            )


def _evaluation(record: EvaluationRecord) -> Evaluation:
    """The evaluation that a run was begun with.

    Raises:
        UsageError: If a later version of attribeam has asked for more than this one can do.
    """
    unknown = set(record) - {field.name for field in fields(Evaluation)}
    if unknown:
        raise UsageError(
            f"the run's curves were made with {', '.join(sorted(unknown))}, which this version "
            "doesn't know: go on with the version that run.json names last"
        )
    values: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in record.items()}
    return Evaluation(**values)


def _left_as_is(paths: Sequence[str]) -> str:
    names = ", ".join(paths[:_NAMED]) + ", ..." * (len(paths) > _NAMED)
    number = "1 file" if len(paths) == 1 else f"{len(paths)} files"
    return f"damaged, and left as it is: {number} ({names})"


# What failed for no fault of its own --------------------------------------------------------------


def passing_parts(root: str, run: Run, whole: There, part: RunPart = WHOLE) -> Passing:
    """The units that lack rows for want of memory, a network or a device.

    An instance that couldn't be predicted is missing from all tables of its shard.

    Args:
        root: The run's folder.
        run: The run.
        whole: The files that are there and not damaged.
        part: The part of the run whose shards are looked at.
    """
    found: dict[Part, None] = {}
    stuck = 0
    for path, place in whole.files_of_failures():
        columns = ["stage", "method", "error", "message"]
        for shard, rows in each_shard(root, path, place, columns):
            for row in rows.to_pylist() if part.has(shard) else ():
                if not is_passing(row["error"], row["message"]):
                    continue
                parts = [unit for unit in run.units if _follows(unit, row["stage"], row["method"])]
                if any(unit.method in run.unable for unit in parts):
                    stuck += 1
                else:
                    found |= {(unit, shard): None for unit in parts}
    return Passing(list(found), stuck)


def _follows(unit: Unit, stage: str, method: str | None) -> bool:
    """Whether a unit lacks a row because of a failure."""
    if method is None:
        return True
    return unit.method == method and (stage != "perturb" or unit.table == "curves")


def make_room(root: str, work: Work, num_shards: int) -> None:
    """Deletes tables so that they are made again, those first that are made of others.

    Their failures stay until then: who is killed in between does it again. Shards that are made
    again and are in files with others are taken out of these.
    """
    own = {
        path(unit, shard, num_shards)
        for unit, shard in work.renewed
        for path in (unit_path, failures_path)
    }
    forget(root, own)
    take_out(root, _last_first(work.renewed), num_shards, {*work.again})
    for unit, shard in _last_first(work.retried):
        discard(join(root, unit_path(unit, shard, num_shards)))


def _last_first(parts: Sequence[Part]) -> list[Part]:
    """Units of shards, those first that are made of others."""
    order = {unit: number for number, unit in enumerate(in_order(unit for unit, _ in parts))}
    return sorted(parts, key=lambda part: -order[part[0]])
