"""The perturbation stage: what becomes of the explained class as tokens or words are removed.

One stage serves all methods. The inputs that the methods ask for are collected first, those that
are identical are run once, and all of them are sorted by length and packed across instances and
methods. The unperturbed and the fully removed input are thereby shared by everybody.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from attribeam.schemas import Failure, UsageError
from attribeam.transforms.attribute import failure
from attribeam.transforms.inputs.batch import Flags, Instance
from attribeam.transforms.inputs.images.maps import pixel_map
from attribeam.transforms.inputs.images.picture import Picture
from attribeam.transforms.inputs.kinds import inputs_of
from attribeam.transforms.inputs.seam import EvaluationProtocol, Operation, Unit
from attribeam.transforms.inputs.variants import (
    NothingToRemoveError,
    Variants,
    WordScore,
    unit_scores,
)
from attribeam.transforms.network.halved import can_be_halved, halved
from attribeam.transforms.network.model import FOIL, Model

Order = Literal["morf", "lerf", "random"]

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
            ``mean``.
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
    """

    fractions: tuple[float, ...] = FRACTIONS
    orders: tuple[Order, ...] = ORDERS
    operations: tuple[Operation, ...] = ()
    protocol: EvaluationProtocol = _USUAL
    text_protocol: EvaluationProtocol | None = None
    each: bool = False
    dtype: Literal["bfloat16"] | None = None

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
        protocol = kind.protocols[0] if self.protocol == _USUAL else self.protocol
        for given, known, name in (
            (self.orders, ORDERS, "orders"),
            (operations, kind.operations, "operations"),
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
        for operation in operations:
            other = "mean" if operation == "black" else "pad"
            wish, remedy = f"--operations {operation}", f"use --operations {other}"
            kind.check_operation(model, operation, wish, remedy)
        return replace(
            self,
            protocol=protocol,
            fractions=() if self.each else tuple(sorted(set(self.fractions))),
            orders=tuple(dict.fromkeys(self.orders)),
            operations=tuple(dict.fromkeys(operations)),
        )

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


class Point(NamedTuple):
    """A point of a curve that is asked for: which tokens of an instance to remove, and why.

    ``removed`` of ``units`` are, under ``compat``, the tokens asked for and all tokens. Of pictures
    ``tokens`` are patches, or under ``pixel`` pixels, [H * W].
    """

    order: Order
    operation: Operation
    fraction: float
    removed: int
    units: int
    tokens: Flags


class CurvePoint(NamedTuple):
    """A row of ``curves``, but for its instance and method."""

    order: Order
    operation: Operation
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
    entropy: float | None
    kl: float | None


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
) -> tuple[list[list[CurvePoint] | None], list[Failure]]:
    """Runs the perturbed inputs of all rankings and reads their curves.

    Args:
        model: The model.
        rankings: Scores to test, of any instances and methods.
        evaluation: What is perturbed, and how.
        token_budget: Largest batch, in tokens of short rows.
        seed: Seed of the random orders.

    Returns:
        Curve points per ranking (None where it failed), and the failures of stage ``perturb``.
    """
    if model.beside is not None:
        return _by_tower(model, rankings, evaluation, token_budget=token_budget, seed=seed)
    if model.task == "causal_lm" and any(ranking.instance.of_all for ranking in rankings):
        return _by_span(model, rankings, evaluation, token_budget=token_budget, seed=seed)
    used = model if evaluation.dtype is None else halved(model)
    variants = Variants(used, distributions=True)
    asked = [_asked(variants, ranking, evaluation, seed) for ranking in rankings]
    variants.run(token_budget)
    results: list[list[CurvePoint] | None] = []
    failures = []
    for ranking, inputs in zip(rankings, asked, strict=True):
        curve = inputs if isinstance(inputs, Exception) else _curve(variants, ranking, inputs)
        if isinstance(curve, Exception):
            failures.append(failure(ranking.instance, "perturb", ranking.method, curve))
            results.append(None)
        else:
            results.append(curve)
    return results, failures


def _by_tower(
    model: Model, rankings: Sequence[Ranking], evaluation: Evaluation, **more: int
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
    model: Model, rankings: Sequence[Ranking], evaluation: Evaluation, **more: int
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


def _asked(
    variants: Variants, ranking: Ranking, evaluation: Evaluation, seed: int
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
        (p._replace(tokens=none), variants.add(ranking.instance, p.operation, p.tokens))
        for p in points
    ]


def _curve(
    variants: Variants, ranking: Ranking, inputs: Sequence[tuple[Point, int]]
) -> list[CurvePoint] | Exception:
    """The curve points that inputs give; or what went wrong with the first that failed."""
    errors = [variants.errors[at] for _, at in inputs if at in variants.errors]
    if errors:
        return errors[0]
    whole = next(at for point, at in inputs if not point.removed)
    shifts = variants.shifts([at for _, at in inputs], whole)
    return [
        _read(variants, point, at, whole, ranking.target)._replace(
            entropy=None if shifts is None else float(shifts[number, 0]),
            # Of what is compared with itself rounding is no difference.
            kl=None if shifts is None else float(shifts[number, 1]) if at != whole else 0.0,
        )
        for number, (point, at) in enumerate(inputs)
    ]


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
        entropy=None,
        kl=None,
    )


def _log_prob(model: Model, logits: NDArray[np.float64], output: int) -> float | None:
    """Log-probability of what follows a prompt; None of other models, and of no output."""
    if not model.speaks or output >= len(logits):
        return None
    if model.task == "continuation":  # It is that already.
        return float(logits[output])
    largest = logits.max()
    return float(logits[output] - largest - np.log(np.exp(logits - largest).sum()))
