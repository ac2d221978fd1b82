"""The perturbation stage: what becomes of the explained class as tokens or words are removed.

One stage serves all methods. The inputs that the methods ask for are collected first, those that
are identical are run once, and all of them are sorted by length and packed across instances and
methods. The unperturbed and the fully removed input are thereby shared by everybody.

Removing by ``pad`` means: the padding token in the token's place, hidden by the attention mask.
Hidden tokens have no effect on the others, so such rows are run without them, at the positions that
the others had; that is the same number at a fraction of the cost.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from schemas import Failure, UsageError
from transforms.attribute import failure, halving
from transforms.batch import Flags, Instance, Rows, pack
from transforms.model import Model

Order = Literal["morf", "lerf", "random"]
Operation = Literal["mask", "pad", "delete"]
Protocol = Literal["token", "word"]

ORDERS: tuple[Order, ...] = ("morf", "lerf", "random")
OPERATIONS: tuple[Operation, ...] = ("mask", "pad", "delete")
PROTOCOLS: tuple[Protocol, ...] = ("token", "word")
FRACTIONS = tuple(step / 10 for step in range(1, 10))


@dataclass(frozen=True)
class Evaluation:
    """What is perturbed, and how.

    Attributes:
        fractions: Nominal fractions to remove, each between 0 and 1; 0 and 1 are always added.
        orders: ``morf`` removes the highest scores first, ``lerf`` the lowest, ``random`` any.
        operations: ``mask`` puts the mask token in the place of a removed one, ``pad`` the padding
            token, hidden by the attention mask, ``delete`` closes the gap. None of them stands for
            ``mask``, or ``pad`` where the mask token isn't known.
        protocol: Whether single ``token``s or whole ``word``s are removed. A word's score is the
            largest of its tokens'.
    """

    fractions: tuple[float, ...] = FRACTIONS
    orders: tuple[Order, ...] = ORDERS
    operations: tuple[Operation, ...] = ()
    protocol: Protocol = "token"

    def checked(self, model: Model) -> "Evaluation":
        """Checks the settings against each other and the model.

        Returns:
            The same without repetitions, and with the operations filled in if there were none.

        Raises:
            UsageError: If one of them is unknown, out of range, or not for this model.
        """
        default: Operation = "pad" if model.mask_id is None else "mask"
        operations = self.operations or (default,)
        for given, known, name in (
            (self.orders, ORDERS, "orders"),
            (operations, OPERATIONS, "operations"),
            ((self.protocol,), PROTOCOLS, "units"),
        ):
            wrong = [value for value in given if value not in known]
            if wrong or not given:
                what = f"there is no {wrong[0]!r}" if wrong else "none was given"
                raise UsageError(f"--{name}: {what}; there are {', '.join(known)}")
        if any(not 0 < fraction < 1 for fraction in self.fractions):
            raise UsageError("--fractions are between 0 and 1, which are themselves always added")
        if "mask" in operations and model.mask_id is None:
            raise UsageError(
                "--operations mask needs the model's mask token, which is unknown without a "
                "tokenizer: name it with --mask-token-id, or use --operations pad"
            )
        return replace(
            self,
            fractions=tuple(sorted(set(self.fractions))),
            orders=tuple(dict.fromkeys(self.orders)),
            operations=tuple(dict.fromkeys(operations)),
        )


class Point(NamedTuple):
    """A point of a curve that is asked for: which tokens of an instance to remove, and why."""

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


@dataclass(frozen=True)
class Ranking:
    """Scores of one method for one instance, to be put to the test.

    Attributes:
        instance: The instance.
        method: Name of the method.
        scores: Raw score per token, [T].
        target: The class whose probability is followed.
    """

    instance: Instance
    method: str
    scores: NDArray[np.floating]
    target: int


def removal_count(fraction: float, units: int) -> int:
    """Units removed most-relevant-first at a nominal fraction: rounded half up, at least one."""
    return min(units, max(1, int(fraction * units + 0.5 + 1e-9)))


def units_of(instance: Instance, protocol: Protocol) -> NDArray[np.int64]:
    """Number of the removable unit each token belongs to, -1 where it belongs to none, [T].

    A unit is a token or a word. A word of which a piece is read out (a [MASK]) isn't removed.
    """
    free = instance.removable
    if protocol == "token":
        keys = np.arange(len(instance))
    else:
        keys = instance.word_ids.astype(np.int64) * 2 + instance.segment
        if not instance.special[instance.readout]:
            free = free & (keys != keys[instance.readout])
    units = np.full(len(instance), -1)
    if free.any():
        units[free] = np.unique(keys[free], return_inverse=True)[1]
    return units


def points_of(
    instance: Instance, scores: NDArray[np.floating], evaluation: Evaluation, seed: int
) -> list[Point]:
    """The points of an instance's curves under one method.

    With n units, ``morf`` removes the k(f) = ``removal_count(f, n)`` most relevant at each fraction
    f. ``lerf`` is run at 1 - f and removes n - k(f), so that exactly those k(f) stay:
    comprehensiveness and sufficiency then speak of the same units. Of units with equal scores the
    earlier counts as more relevant.
    """
    units = units_of(instance, evaluation.protocol)
    count = int(units.max()) + 1
    values = np.full(count, -np.inf)
    np.maximum.at(values, units[units >= 0], np.asarray(scores, np.float64)[units >= 0])
    best_first = np.argsort(-values, kind="stable")
    ranks: dict[Order, NDArray[np.intp]] = {
        "morf": best_first,
        "lerf": best_first[::-1],
        "random": instance.generator(seed, "random order").permutation(count),
    }
    inner = [(f, removal_count(f, count)) for f in evaluation.fractions]
    kept = [(round(1 - f, 9), count - removed) for f, removed in inner]
    points = []
    for order in evaluation.orders:
        steps = sorted(kept if order == "lerf" else inner)
        for fraction, removed in [(0.0, 0), *steps, (1.0, count)]:
            tokens = np.isin(units, ranks[order][:removed])
            points += [
                Point(order, operation, fraction, removed, count, tokens)
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
    variants = _Variants(model)
    wanted = []
    for ranking in rankings:
        points = points_of(ranking.instance, ranking.scores, evaluation, seed)
        wanted.append([(point, variants.add(ranking.instance, point)) for point in points])
    variants.run(token_budget)
    results: list[list[CurvePoint] | None] = []
    failures = []
    for ranking, inputs in zip(rankings, wanted, strict=True):
        errors = [variants.errors[at] for _, at in inputs if at in variants.errors]
        if errors:
            name = ranking.instance.instance_id
            failures.append(failure(name, "perturb", ranking.method, errors[0]))
            results.append(None)
        else:
            whole = next(at for point, at in inputs if not point.removed)
            results.append([variants.read(p, at, whole, ranking.target) for p, at in inputs])
    return results, failures


class _Variants:
    """The distinct perturbed inputs of some instances, and what the model said of each."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.inputs: list[tuple[Instance, Operation, Flags]] = []
        self.errors: dict[int, Exception] = {}
        self._numbers: dict[tuple[int, str, bytes], int] = {}
        self._logits: NDArray[np.float64] = np.empty(0)
        self._probabilities: NDArray[np.float64] = np.empty(0)

    def add(self, instance: Instance, point: Point) -> int:
        """Number of the input that a point needs; the same for identical inputs."""
        operation = point.operation if point.removed else "mask"
        key = (id(instance), operation, np.packbits(point.tokens).tobytes())
        if key not in self._numbers:
            self._numbers[key] = len(self.inputs)
            self.inputs.append((instance, operation, point.tokens))
        return self._numbers[key]

    def run(self, token_budget: int) -> None:
        """Runs all inputs, packed by length across instances and methods."""
        self._logits = np.full((len(self.inputs), self.model.num_outputs), np.nan)
        lengths = [
            len(instance) - (int(tokens.sum()) if operation != "mask" else 0)
            for instance, operation, tokens in self.inputs
        ]
        for batch in pack(lengths, token_budget, self.model.head_size):
            for part, logits in halving(self._forward, batch):
                if isinstance(logits, Exception):
                    self.errors[part[0]] = logits
                else:
                    self._logits[part] = logits
        for at in np.flatnonzero(~np.isfinite(self._logits).all(axis=1)):
            self.errors.setdefault(int(at), ArithmeticError("the logits are not finite"))
        self._probabilities = torch.from_numpy(self._logits).softmax(-1).numpy()

    def _forward(self, numbers: Sequence[int]) -> NDArray[np.float64]:
        with torch.no_grad():
            rows = perturbed_rows(self.model, [self.inputs[number] for number in numbers])
            return self.model.run(rows)[0].double().cpu().numpy()

    def read(self, point: Point, at: int, whole: int, target: int) -> CurvePoint:
        """The curve point that an input's logits give, ``whole`` being the unperturbed one."""
        prediction = int(self._logits[at].argmax())
        return CurvePoint(
            order=point.order,
            operation=point.operation,
            fraction=point.fraction,
            removed=point.removed,
            units=point.units,
            probability=float(self._probabilities[at, target]),
            logit=float(self._logits[at, target]),
            prediction=prediction,
            flipped=prediction != int(self._logits[whole].argmax()),
        )


def perturbed_rows(model: Model, inputs: Sequence[tuple[Instance, Operation, Flags]]) -> Rows:
    """Padded rows for perturbed inputs.

    Args:
        model: The model.
        inputs: Per row the instance, the operation, and the tokens to remove, [T].

    Returns:
        One row per input; where tokens are left out, those that stay keep their positions under
        ``pad`` and close up under ``delete``.
    """
    kept = [_kept(instance, operation, tokens) for instance, operation, tokens in inputs]
    shape = (len(inputs), max(map(len, kept)))
    ids = np.full(shape, model.pad_id, np.int64)
    first = model.anatomy.first_position(model.network.config)
    positions = np.full(shape, first, np.int64)
    mask, segment = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    readout = np.zeros(len(inputs), np.int64)
    for row, ((instance, operation, tokens), keep) in enumerate(zip(inputs, kept, strict=True)):
        width = len(keep)
        ids[row, :width] = instance.input_ids[keep]
        if operation == "mask" and model.mask_id is not None:
            ids[row, :width][tokens] = model.mask_id
        mask[row, :width] = 1
        segment[row, :width] = instance.segment[keep]
        positions[row, :width] = first + (np.arange(width) if operation == "delete" else keep)
        readout[row] = np.searchsorted(keep, instance.readout)
    contrasts = [instance.contrast for instance, _, _ in inputs]

    def put(array: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(array).to(model.device)

    return Rows(
        input_ids=put(ids),
        attention_mask=put(mask),
        segment=put(segment),
        readout=put(readout),
        contrast=None if contrasts[0] is None else put(np.array(contrasts, np.int64)),
        position_ids=put(positions),
    )


def _kept(instance: Instance, operation: Operation, tokens: Flags) -> NDArray[np.int64]:
    """Positions that stay in the row: all of them under ``mask``, else those not removed."""
    if operation == "mask":
        return np.arange(len(instance))
    return np.flatnonzero(~tokens)
