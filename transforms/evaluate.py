"""The perturbation stage: what becomes of the explained class as tokens or words are removed.

One stage serves all methods. The inputs that the methods ask for are collected first, those that
are identical are run once, and all of them are sorted by length and packed across instances and
methods. The unperturbed and the fully removed input are thereby shared by everybody.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from attribeam.schemas import Failure, UsageError
from attribeam.transforms.attribute import failure
from attribeam.transforms.inputs.batch import Flags, Instance
from attribeam.transforms.inputs.filling import Filling
from attribeam.transforms.inputs.images.maps import pixel_map
from attribeam.transforms.inputs.images.picture import Picture
from attribeam.transforms.inputs.kinds import inputs_of
from attribeam.transforms.inputs.seam import EvaluationProtocol, Unit
from attribeam.transforms.inputs.variants import (
    NothingToRemoveError,
    Variants,
    WordScore,
    unit_scores,
)
from attribeam.transforms.network.halved import can_be_halved, halved
from attribeam.transforms.network.model import FOIL, Model

Order = Literal["morf", "lerf", "random"]
# What curves have beside the operations of a kind of input: a masked LM fills texts.
CurveOperation = Literal["mask", "pad", "delete", "mean", "black", "drop", "impute"]
IMPUTE: Literal["impute"] = "impute"
# Fills of an input that are drawn unless it is said.
DRAWS = 5

ORDERS: tuple[Order, ...] = ("morf", "lerf", "random")
# What is removed unless it is said: tokens, or what a model has in their place.
_USUAL: EvaluationProtocol = "token"
FRACTIONS = tuple(step / 10 for step in range(1, 10))
# The bins of DeYoung et al. 2020.
ERASER = (0.01, 0.05, 0.1, 0.2, 0.5)


@dataclass(frozen=True)
class Evaluation:
    """What is perturbed, and how.

    Attributes:
        fractions: Nominal fractions to remove, each between 0 and 1; 0 and 1 are always added.
        orders: ``morf`` removes the highest scores first, ``lerf`` the lowest, ``random`` any.
        operations: ``mask`` puts the mask token in the place of a removed one, ``pad`` the padding
            token, hidden by the attention mask, ``delete`` closes the gap; of pictures ``mean``
            paints patches with the mean colour, ``black`` black, ``drop`` hides them. None of them
            stands for ``mask``, or ``pad`` where the mask token isn't known; of pictures for
            ``mean``. ``impute`` has a masked LM fill removed tokens (``filling``).
        protocol: Whether single ``token``s, whole ``word``s or ``segment``s of a prompt are
            removed; what a word's score is
            depends on the method (``Ranking.word_score``). ``compat`` is for comparison with
            published numbers: tokens are removed and counted as by the authors of IBA
            (``compat_points_of``). Of pictures a ``patch`` is removed at a time, or as by the
            authors of Beyond Intuition a ``pixel`` (``pixel_points_of``).
        text_protocol: Of pairs, what is removed of texts; ``protocol`` is of pictures then, and
            each side has the operations that there are for it.
        each: In place of fractions, units are removed one after the other: of n of them, curves
            have n + 1 points.
        dtype: The type that perturbed inputs are run in: ``bfloat16``, or None for the model's.
        draws: How many fills of each input are drawn; None where nothing is imputed.
        imputer: What the masked LM is called (``source``), and its ``weights_sha256``; likewise.
    """

    fractions: tuple[float, ...] = FRACTIONS
    orders: tuple[Order, ...] = ORDERS
    operations: tuple[CurveOperation, ...] = ()
    protocol: EvaluationProtocol = _USUAL
    text_protocol: EvaluationProtocol | None = None
    each: bool = False
    dtype: Literal["bfloat16"] | None = None
    draws: int | None = None
    imputer: Mapping[str, str] | None = None

    def checked(self, model: Model) -> "Evaluation":
        """Checks the settings against each other and the model.

        Returns:
            The same without repetitions, and with the operations filled in if there were none.

        Raises:
            UsageError: If one of them is unknown, out of range, or not for this model.
        """
        if self.dtype is not None and (why := can_be_halved(model)) is not None:
            raise UsageError(f"--perturb-dtype {self.dtype} {why}: use float32")
        if model.beside is not None:
            return self._checked_for_pairs(model)
        kind = inputs_of(model)
        operations = self.operations or (kind.usual_operation(model),)
        filled = _imputed(model, operations, self.draws)
        protocol = kind.protocols[0] if self.protocol == _USUAL else self.protocol
        for given, known, name in (
            (self.orders, ORDERS, "orders"),
            (operations, (*kind.operations, *filled), "operations"),
            ((protocol,), kind.protocols, "units"),
        ):
            wrong = [value for value in given if value not in known]
            if wrong or not given:
                what = f"there is no {wrong[0]!r}" if wrong else "none was given"
                raise UsageError(f"--{name}: {what}; there are {', '.join(known)}")
        if any(not 0 < fraction < 1 for fraction in self.fractions):
            raise UsageError("--fractions are between 0 and 1, which are themselves always added")
        # Points are told apart by their fraction, of which the least relevant first have 1 - f.
        distinct = {0.0, 1.0, *(round(1 - fraction, 9) for fraction in self.fractions)}
        if len(distinct) < len({0.0, 1.0, *self.fractions}):
            raise UsageError("--fractions are at least 1e-9 apart, and from 0 and 1")
        if self.each and self.fractions not in ((), FRACTIONS):
            raise UsageError("--fractions each removes every number of units: name no fractions")
        if self.each and protocol in ("compat", "pixel"):
            raise UsageError(
                f"--fractions each: --units {protocol} counts shares of the whole, as its authors "
                "do; name fractions, or use other units"
            )
        if protocol == "segment" and not model.speaks:
            raise UsageError("--units segment: parts of prompts, which language models have alone")
        if protocol == "pixel" and "drop" in operations:
            raise UsageError(
                "--operations drop leaves out whole patches: with --units pixel there are mean and "
                "black"
            )
        # Under impute the mask token is the masked LM's own.
        for operation in (each for each in operations if each != IMPUTE):
            other = "mean" if operation == "black" else "pad"
            wish, remedy = f"--operations {operation}", f"use --operations {other}"
            kind.check_operation(model, operation, wish, remedy)
        return replace(
            self,
            protocol=protocol,
            fractions=() if self.each else tuple(sorted(set(self.fractions))),
            orders=tuple(dict.fromkeys(self.orders)),
            operations=tuple(dict.fromkeys(operations)),
            draws=(self.draws or DRAWS) if IMPUTE in operations else None,
        )

    def without_imputing(self, model: Model) -> "Evaluation":
        """The same but for what a masked LM fills; in the usual way if that was all."""
        left = tuple(each for each in self.operations if each != IMPUTE)
        left = left or (inputs_of(model).usual_operation(model),)
        return replace(self, operations=left, draws=None, imputer=None)

    def _checked_for_pairs(self, model: Model) -> "Evaluation":
        """As ``checked``: what is for one side alone, the other does in its usual way."""
        kinds = [inputs_of(tower) for tower in model.towers.values()]
        for given, known, name in (
            (self.operations, [each for kind in kinds for each in kind.operations], "operations"),
            ((self.protocol,), [each for kind in kinds for each in kind.protocols], "units"),
        ):
            for value in given:
                if value not in known:
                    raise UsageError(
                        f"--{name}: there is no {value!r}; there are {', '.join(known)}"
                    )
        sides = [self.of(tower).checked(tower) for tower in model.towers.values()]
        return replace(
            sides[0],
            operations=tuple(each for side in sides for each in side.operations),
            text_protocol=sides[1].protocol,
        )

    def of(self, about: Model | Instance) -> "Evaluation":
        """What of it is for a tower of a model of pairs, or for an instance."""
        kind = inputs_of(about)
        protocol = self.protocol
        if about.modality == "text" and self.text_protocol is not None:
            protocol = self.text_protocol
        operations = tuple(each for each in self.operations if each in kind.operations)
        protocol = protocol if protocol in kind.protocols else _USUAL
        return replace(self, protocol=protocol, operations=operations, text_protocol=None)


def _imputed(
    model: Model, operations: Sequence[str], draws: int | None
) -> tuple[CurveOperation, ...]:
    """The operation ``impute``, where a model's inputs can be filled.

    Raises:
        UsageError: If it is asked for of texts that are read from one side, or in pairs; or draws
            are, of which there are too few or which nothing takes.
    """
    if draws is not None and IMPUTE not in operations:
        raise UsageError(f"--fills goes with --operations {IMPUTE}: add it, or leave --fills out")
    if draws is not None and draws < 2:
        raise UsageError(f"--fills is at least 2, not {draws}: how far they are apart is stored")
    if model.modality != "text":
        return ()
    if IMPUTE in operations and (model.speaks or model.contrastive):
        whose = "a language model" if model.speaks else "a model of pairs"
        raise UsageError(
            f"--operations {IMPUTE}: what is removed is filled in texts that are read from both "
            f"sides, and this is {whose}: use --operations mask, pad or delete"
        )
    return (IMPUTE,)


class Point(NamedTuple):
    """A point of a curve that is asked for: which tokens of an instance to remove, and why.

    ``removed`` of ``units`` are, under ``compat``, the tokens asked for and all tokens. Of pictures
    ``tokens`` are patches, or under ``pixel`` pixels, [H * W].
    """

    order: Order
    operation: CurveOperation
    fraction: float
    removed: int
    units: int
    tokens: Flags


class CurvePoint(NamedTuple):
    """A row of ``curves``, but for its instance and method.

    ``spread`` is the standard deviation of the probability over what a masked LM drew.
    """

    order: Order
    operation: CurveOperation
    fraction: float
    removed: int
    units: int
    probability: float
    logit: float
    prediction: int
    flipped: bool
    target: int
    log_prob: float | None
    foil_log_prob: float | None
    entropy: float | None = None
    kl: float | None = None
    spread: float | None = None


@dataclass(frozen=True)
class Ranking:
    """Scores of one method for one instance, to be put to the test.

    Attributes:
        instance: The instance.
        method: Name of the method.
        scores: Raw score per token, [T].
        target: The class whose probability is followed: the one that the scores explain.
        word_score: What a word's score is of its tokens', where words are removed
            (``Chosen.word_score``).
        pixels: Raw score per pixel of a picture, [H * W], where the method has them.
    """

    instance: Instance
    method: str
    scores: NDArray[np.floating]
    target: int
    word_score: WordScore = "sum"
    pixels: NDArray[np.floating] | None = None


def removal_count(fraction: float, units: int) -> int:
    """Units removed most-relevant-first at a nominal fraction: rounded half up, at least one."""
    return min(units, max(1, int(fraction * units + 0.5 + 1e-9)))


def points_of(
    instance: Instance,
    scores: NDArray[np.floating],
    evaluation: Evaluation,
    seed: int,
    word_score: WordScore = "sum",
    pixels: NDArray[np.floating] | None = None,
) -> list[Point]:
    """The points of an instance's curves under one method.

    With n units, ``morf`` removes the k(f) = ``removal_count(f, n)`` most relevant at each fraction
    f. ``lerf`` is run at 1 - f and removes n - k(f), so that exactly those k(f) stay:
    comprehensiveness and sufficiency then speak of the same units. Of units with equal scores the
    earlier counts as more relevant. With ``Evaluation.each``, k of 1 to n - 1 are removed at the
    fractions k / n.

    Raises:
        NothingToRemoveError: If n is 0: shares of nothing are no numbers.
    """
    if evaluation.protocol == "pixel":
        return pixel_points_of(instance, scores, evaluation, seed, pixels)
    unit: Unit = "token" if evaluation.protocol == "compat" else evaluation.protocol
    units = inputs_of(instance).units_of(instance, unit)
    count = int(units.max()) + 1
    if not count:
        raise NothingToRemoveError
    if evaluation.protocol == "compat":
        return compat_points_of(instance, scores, evaluation, seed)
    best_first = np.argsort(-unit_scores(units, scores, word_score), kind="stable")
    ranks: dict[Order, NDArray[np.intp]] = {
        "morf": best_first,
        "lerf": best_first[::-1],
        "random": instance.generator(seed, "random order").permutation(count),
    }
    inner = [(f, removal_count(f, count)) for f in evaluation.fractions]
    kept = [(round(1 - f, 9), count - removed) for f, removed in inner]
    if evaluation.each:
        inner = kept = [(removed / count, removed) for removed in range(1, count)]
    points = []
    for order in evaluation.orders:
        steps = sorted(kept if order == "lerf" else inner)
        places = np.empty(count, np.intp)
        places[ranks[order]] = np.arange(count)
        place = np.append(places, count)[units]  # What is of no unit is never removed.
        for fraction, removed in [(0.0, 0), *steps, (1.0, count)]:
            tokens = place < removed
            points += [
                Point(order, operation, fraction, removed, count, tokens)
                for operation in evaluation.operations
            ]
    return points


def compat_count(fraction: float, length: int) -> int:
    """Tokens that ``compat`` asks for at a nominal fraction of all of them, half to even."""
    return int(np.round(fraction * length))


def compat_points_of(
    instance: Instance, scores: NDArray[np.floating], evaluation: Evaluation, seed: int
) -> list[Point]:
    """The same under ``compat``, the degradation test as IBA's authors run it.

    The number k to remove at a fraction f is counted on all T tokens, special ones included:
    k = ``compat_count(f, T)``, for ``lerf`` too. All T tokens are ranked. Down the ranking, those
    that can be removed are, until there are k of them; the last of the ranking is never come to, so
    a token of the text may stay even at f = 1. Of equal scores the earlier token comes first in
    either order. ``removed`` is k and ``units`` T, whose share is the axis of the authors' curves.

    The authors run every k once and repeat the last where a short text (T < 9) gives fewer than
    their nine; here such a text has the same k, and thus the same input, at several fractions.
    """
    values, length = np.asarray(scores, np.float64), len(instance)
    ranks: dict[Order, NDArray[np.intp]] = {
        "morf": np.argsort(-values, kind="stable"),
        "lerf": np.argsort(values, kind="stable"),
        "random": instance.generator(seed, "random order").permutation(length),
    }
    points = []
    for order in evaluation.orders:
        visited = ranks[order][:-1]
        free = visited[instance.removable[visited]]
        for fraction in (0.0, *evaluation.fractions, 1.0):
            asked = compat_count(fraction, length)
            tokens = np.isin(np.arange(length), free[:asked])
            points += [
                Point(order, operation, fraction, asked, length, tokens)
                for operation in evaluation.operations
            ]
    return points


def pixel_points_of(
    instance: Instance,
    scores: NDArray[np.floating],
    evaluation: Evaluation,
    seed: int,
    pixels: NDArray[np.floating] | None = None,
) -> list[Point]:
    """The same of a picture's pixels, as the authors of Beyond Intuition remove them.

    Pixels are ranked by their own scores, or by the map that those of patches give
    (``maps.pixel_map``). Of H * W of them the
    first f * H * W are removed, rounded down, for ``lerf`` too; of equal ones the earlier comes
    first in either order (theirs is any).

    Source:
        Beyond Intuition's ``pert`` scripts, after Chefer et al. 2021.
    """
    assert isinstance(instance, Picture) and instance.grid is not None
    values = np.asarray(pixels, np.float64)
    if pixels is None:
        values = pixel_map(scores, instance.grid).reshape(-1)
    ranks: dict[Order, NDArray[np.intp]] = {}
    for order in evaluation.orders:
        if order == "random":
            ranks[order] = instance.generator(seed, "random order").permutation(len(values))
        else:
            ranks[order] = np.argsort(-values if order == "morf" else values, kind="stable")
    points = []
    for order in evaluation.orders:
        for fraction in (0.0, *evaluation.fractions, 1.0):
            removed = int(fraction * len(values) + 1e-9)
            gone = np.zeros(len(values), bool)
            gone[ranks[order][:removed]] = True
            points += [
                Point(order, operation, fraction, removed, len(values), gone)
                for operation in evaluation.operations
            ]
    return points


def curves(
    model: Model,
    rankings: Sequence[Ranking],
    evaluation: Evaluation,
    *,
    token_budget: int,
    seed: int = 0,
    imputer: Model | None = None,
) -> tuple[list[list[CurvePoint] | None], list[Failure]]:
    """Runs the perturbed inputs of all rankings and reads their curves.

    Args:
        model: The model.
        rankings: Scores to test, of any instances and methods.
        evaluation: What is perturbed, and how.
        token_budget: Largest batch, in tokens of short rows.
        seed: Seed of the random orders, and of what is imputed.
        imputer: The masked LM, where there is the operation ``impute``.

    Returns:
        Curve points per ranking (None where it failed), and the failures of stage ``perturb``.
    """
    if model.beside is not None:
        return _by_tower(model, rankings, evaluation, token_budget=token_budget, seed=seed)
    if model.task == "causal_lm" and any(ranking.instance.of_all for ranking in rankings):
        return _by_span(model, rankings, evaluation, token_budget=token_budget, seed=seed)
    used = model if evaluation.dtype is None else halved(model)
    variants = Variants(used, distributions=True)
    filling = None if imputer is None else Filling(imputer, evaluation.draws or DRAWS, seed)
    copies = _Copies(variants, filling)
    asked = [_asked(copies, ranking, evaluation, seed) for ranking in rankings]
    copies.run(token_budget)
    results: list[list[CurvePoint] | None] = []
    failures = []
    for ranking, inputs in zip(rankings, asked, strict=True):
        curve = inputs if isinstance(inputs, Exception) else _curve(copies, ranking, inputs)
        if isinstance(curve, Exception):
            failures.append(failure(ranking.instance, "perturb", ranking.method, curve))
            results.append(None)
        else:
            results.append(curve)
    return results, failures


def _by_tower(
    model: Model, rankings: Sequence[Ranking], evaluation: Evaluation, **more: Any
) -> tuple[list[list[CurvePoint] | None], list[Failure]]:
    """As ``curves``, of instances that several towers run: each its own."""
    results: list[list[CurvePoint] | None] = [None] * len(rankings)
    failures = []
    for modality, tower in model.towers.items():
        own = [at for at, one in enumerate(rankings) if one.instance.modality == modality]
        found, failed = curves(tower, [rankings[at] for at in own], evaluation.of(tower), **more)
        for at, result in zip(own, found, strict=True):
            results[at] = result
        failures += failed
    return results, failures


def _by_span(
    model: Model, rankings: Sequence[Ranking], evaluation: Evaluation, **more: Any
) -> tuple[list[list[CurvePoint] | None], list[Failure]]:
    """As ``curves``, of tokens that follow prompts and of all of them at once."""
    results: list[list[CurvePoint] | None] = [None] * len(rankings)
    failures = []
    for of_all, asked in ((False, model), (True, model.of_all)):
        own = [at for at, one in enumerate(rankings) if one.instance.of_all == of_all]
        found, failed = curves(asked, [rankings[at] for at in own], evaluation, **more)
        for at, result in zip(own, found, strict=True):
            results[at] = result
        failures += failed
    return results, failures


class _Copies:
    """What points are read from: a copy each, or several where a masked LM has filled it."""

    def __init__(self, variants: Variants, filling: Filling | None) -> None:
        self.variants = variants
        self._filling = filling
        self._of_filled: list[tuple[int, ...] | Exception] = []

    def add(self, instance: Instance, operation: CurveOperation, removed: Flags) -> int:
        """Number of what a point is read from: of copies from 0 on, of those filled below 0."""
        if not removed.any():
            operation = "mask"
        if operation != IMPUTE:
            return self.variants.add(instance, operation, removed)
        if self._filling is None:
            raise ValueError(f"the operation {IMPUTE} takes a masked LM, and none was given")
        return -1 - self._filling.add(instance, removed)

    def run(self, token_budget: int) -> None:
        """Fills what is to be filled, and runs all copies."""
        if self._filling is not None:
            self._filling.run(token_budget)
            for filled in self._filling.filled:
                self._of_filled.append(
                    filled if isinstance(filled, Exception) else tuple(map(self._whole, filled))
                )
        self.variants.run(token_budget)

    def _whole(self, instance: Instance) -> int:
        return self.variants.add(instance, "mask", np.zeros(len(instance), bool))

    def of(self, number: int) -> tuple[int, ...] | Exception:
        """The copies that a point is read from; or what went wrong."""
        found = (number,) if number >= 0 else self._of_filled[-1 - number]
        if isinstance(found, Exception):
            return found
        errors = self.variants.errors
        return next((errors[at] for at in found if at in errors), found)


def _asked(
    copies: _Copies, ranking: Ranking, evaluation: Evaluation, seed: int
) -> list[tuple[Point, int]] | Exception:
    """The points of a ranking, each with the number of its input; or why it has none."""
    if ranking.scores.shape != (len(ranking.instance),):
        count = len(ranking.scores)
        return ValueError(f"{count} scores for an instance of {len(ranking.instance)} tokens")
    if not np.isfinite(ranking.scores).all():
        return ArithmeticError("the scores are not finite")
    try:
        instance, scores = ranking.instance, ranking.scores
        points = points_of(instance, scores, evaluation, seed, ranking.word_score, ranking.pixels)
    except NothingToRemoveError as error:
        return error
    # What is removed is kept by the variants alone, packed: of pixels there are many.
    none = np.empty(0, bool)
    return [
        (p._replace(tokens=none), copies.add(ranking.instance, p.operation, p.tokens))
        for p in points
    ]


def _curve(
    copies: _Copies, ranking: Ranking, inputs: Sequence[tuple[Point, int]]
) -> list[CurvePoint] | Exception:
    """The curve points that inputs give; or what went wrong with the first that failed."""
    variants, target = copies.variants, ranking.target
    whole = next(at for point, at in inputs if not point.removed)
    points, drawn = list[CurvePoint](), list[list[int]]()
    for point, number in inputs:
        found = copies.of(number)
        if isinstance(found, Exception):
            return found
        read = _read(variants, point, found[0], whole, target)
        points.append(read if number >= 0 else _mean(variants, read, found, whole))
        drawn.append(list(found))
    return _with_shifts(variants, points, drawn, whole)


def _with_shifts(
    variants: Variants, points: Sequence[CurvePoint], drawn: Sequence[list[int]], whole: int
) -> list[CurvePoint]:
    """The points with entropies and divergences, means over the draws of each."""
    shifts = variants.shifts([at for draws in drawn for at in draws], whole)
    if shifts is None:
        return list(points)
    ends = np.cumsum([len(draws) for draws in drawn])[:-1]
    means = [own.mean(0) for own in np.split(shifts, ends)]
    return [
        # Of what is compared with itself rounding is no difference.
        point._replace(entropy=float(entropy), kl=0.0 if draws == [whole] else float(kl))
        for point, draws, (entropy, kl) in zip(points, drawn, means, strict=True)
    ]


def _mean(variants: Variants, point: CurvePoint, draws: Sequence[int], whole: int) -> CurvePoint:
    """What is read of a point of which there are several draws: means, and how far these are apart.

    The prediction is the class of the largest mean probability.
    """
    numbers = list(draws)
    probabilities = variants.probabilities[numbers]
    prediction = int(probabilities[:, : variants.single].mean(0).argmax())
    own = probabilities[:, point.target]
    return point._replace(
        probability=float(own.mean()),
        logit=float(variants.logits[numbers, point.target].mean()),
        prediction=prediction,
        flipped=prediction != int(variants.logits[whole, : variants.single].argmax()),
        spread=float(own.std(ddof=1)) if len(numbers) > 1 else None,
    )


def _read(variants: Variants, point: Point, at: int, whole: int, target: int) -> CurvePoint:
    """The curve point that an input's logits give, ``whole`` being the unperturbed one."""
    prediction = int(variants.logits[at, : variants.single].argmax())
    return CurvePoint(
        order=point.order,
        operation=point.operation,
        fraction=point.fraction,
        removed=point.removed,
        units=point.units,
        probability=float(variants.probabilities[at, target]),
        logit=float(variants.logits[at, target]),
        prediction=prediction,
        flipped=prediction != int(variants.logits[whole, : variants.single].argmax()),
        target=target,
        log_prob=_log_prob(variants.model, variants.logits[at], target),
        foil_log_prob=_log_prob(variants.model, variants.logits[at], FOIL),
    )


def _log_prob(model: Model, logits: NDArray[np.float64], output: int) -> float | None:
    """Log-probability of what follows a prompt; None of other models, and of no output."""
    if not model.speaks or output >= len(logits):
        return None
    if model.task == "continuation":  # It is that already.
        return float(logits[output])
    largest = logits.max()
    return float(logits[output] - largest - np.log(np.exp(logits - largest).sum()))
