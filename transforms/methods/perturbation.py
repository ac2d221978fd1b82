"""Methods that ask what the model says of the input without some of its units.

A unit is a token, a word, or a bag (all occurrences of one word). The copies that a method asks for
are run together across the instances of a batch; everything is solved in float64 per instance, with
random numbers of the instance's own, so that no score depends on batch mates. An instance without a
unit that can be removed is a failure: zeros would say that none of its tokens matters.
"""

from collections.abc import Sequence
from math import comb

import numpy as np
import torch
from numpy.typing import NDArray

from attribeam.schemas import UsageError
from attribeam.transforms.inputs.batch import Flags
from attribeam.transforms.inputs.kinds import inputs_of
from attribeam.transforms.inputs.seam import Operation, Unit
from attribeam.transforms.inputs.variants import NothingToRemoveError
from attribeam.transforms.passes.captured import Captured
from attribeam.transforms.passes.perturb import Perturb, outcomes
from attribeam.transforms.registry import Choice, ChoiceByKind, Method, Params, Scores, register

Floats = NDArray[np.float64]
Units = NDArray[np.int64]


def occlusion(captured: Captured, params: Params) -> Scores:
    """What the output loses when one unit is removed (Zeiler & Fergus 2014; Li et al. 2016).

    score[unit] = f(x) - f(x without the unit), the same for each token of a word. f is the
    explained scalar (``output=logit``; of a masked LM, the contrast of its two words) or the
    softmax probability of the explained class.
    """
    units = _units(captured, params)
    removed = [with_whole(np.eye(_count(unit), dtype=bool)) for unit in units]
    found = outputs(captured, params, units, removed)
    scores = [of[0] - of[1:] for of in found]
    return Scores(_to_tokens(captured, units, scores), errors=_without_units(units))


def lime(captured: Captured, params: Params) -> Scores:
    """LIME for text (Ribeiro et al. 2016, sections 3.3 and 3.4, equation 2).

    score[token] = w[its unit] of the linear model that minimises
    sum_z k(z) (f(z) - w . z - b)^2 + ridge ||w||^2 over ``samples`` rows z, the unperturbed input
    among them, where z says which units are present. b is not penalised. Every other row is without
    m units, m uniform in 1..n. k(z) = sqrt(exp(-d^2 / kernel_width^2)), with d 100 times the cosine
    distance of z from the row of ones.

    These are the lime package's settings for text, with 100 samples, as Jiang et al. (2020) compare
    with; the preset ``iba`` keeps them whatever the defaults become. Their code explains class 1 of
    every text and gives tokens that are no feature of lime's the largest score; here the explained
    class is explained, and what can't be removed gets 0.
    """
    instances = captured.batch.instances
    units = _units(captured, params)
    removed = [
        with_whole(
            neighbours(_count(unit), params["samples"] - 1, i.generator(captured.seed, "lime"))
        )
        for unit, i in zip(units, instances, strict=True)
    ]
    found = outputs(captured, params, units, removed)
    weights = [
        np.exp(-0.5 * (cosine_distances(rows) / params["kernel_width"]) ** 2) for rows in removed
    ]
    scores = [
        weighted_ridge((~rows).astype(float), of, weight, params["ridge"])[0]
        for rows, of, weight in zip(removed, found, weights, strict=True)
    ]
    return Scores(_to_tokens(captured, units, scores), errors=_without_units(units))


def kernel_shap(captured: Captured, params: Params) -> Scores:
    """Shapley values by regression on sampled coalitions (Lundberg & Lee 2017, theorem 2).

    With z saying which of n units are present, phi minimises
    sum_z k(z) (f(z) - f(nothing) - phi . z)^2 subject to sum(phi) = f(x) - f(nothing); k(z) is the
    Shapley kernel. Beside the whole and the empty input there are ``samples`` coalitions: all
    2^n - 2 with their exact weights if these are no more, so that phi is exact; else drawn with
    probabilities that take the kernel's place, each followed by its complement (Covert & Lee 2021).
    Where they don't determine phi it is, of all solutions, the one nearest to equal shares (least
    norm).

    The tokens of a word share its phi equally, so that scores sum to f(x) - f(nothing) whatever the
    unit; ``delta`` is what rounding leaves of sum(scores) - (f(x) - f(nothing)).
    """
    instances = captured.batch.instances
    units = _units(captured, params)
    drawn = [
        coalitions(_count(unit), params["samples"], i.generator(captured.seed, "kernel_shap"))
        for unit, i in zip(units, instances, strict=True)
    ]
    removed = [
        with_whole(np.vstack([np.ones((1, present.shape[1]), dtype=bool), ~present]))
        for present, _ in drawn
    ]
    found = outputs(captured, params, units, removed)
    scores = [
        shapley_regression(present, weights, of[2:] - of[1], of[0] - of[1]) / _sizes(unit)
        for unit, (present, weights), of in zip(units, drawn, found, strict=True)
    ]
    values = _to_tokens(captured, units, scores)
    gains = torch.tensor([of[0] - of[1] for of in found], dtype=torch.float64)
    delta = values.double().sum(-1) - gains.to(values.device)
    return Scores(values, delta=delta.to(values.dtype), errors=_without_units(units))


# Units ----------------------------------------------------------------------------------------


def _units(captured: Captured, params: Params) -> list[Units]:
    """The units of each instance, by the method's parameter."""
    unit: Unit = params["unit"]
    return [inputs_of(one).units_of(one, unit) for one in captured.batch.instances]


def _count(units: Units) -> int:
    return int(units.max()) + 1


def _without_units(units: Sequence[Units]) -> dict[int, Exception]:
    """The errors of the instances that have no unit to remove, by number in the batch."""
    return {number: NothingToRemoveError() for number, of in enumerate(units) if not _count(of)}


def _sizes(units: Units) -> NDArray[np.int64]:
    """Number of tokens of each unit, [n]."""
    return np.bincount(units[units >= 0], minlength=_count(units))


def _to_tokens(
    captured: Captured, units: Sequence[Units], scores: Sequence[Floats]
) -> torch.Tensor:
    """Scores of units, [n] per instance, as scores of their tokens, [B, T]; 0 without a unit."""
    tokens = np.zeros(captured.batch.rows.attention_mask.shape)
    for row, unit, score in zip(tokens, units, scores, strict=True):
        row[: len(unit)] = np.append(score, 0)[unit]
    return torch.from_numpy(tokens).to(captured.logits)


# What is removed ------------------------------------------------------------------------------


def with_whole(removed: Flags) -> Flags:
    """Rows of removed units, [S, n], after a first one that removes none, [S + 1, n]."""
    return np.vstack([np.zeros((1, removed.shape[1]), dtype=bool), removed])


def neighbours(count: int, samples: int, random: np.random.Generator) -> Flags:
    """Which of n units to remove in each of S samples: 1 to n of them, any with equal chance."""
    sizes = random.integers(1, max(count, 1), samples, endpoint=True)
    return _subsets(sizes, count, random)


def coalitions(count: int, samples: int, random: np.random.Generator) -> tuple[Flags, Floats]:
    """Coalitions of n units, neither empty nor whole, and their weights in the regression.

    Returns:
        Which units are present, [S, n], and weights, [S]. All S = 2^n - 2 and their Shapley kernel
        (Lundberg & Lee 2017, theorem 2) if that is no more than ``samples``. Else S = ``samples``
        drawn from the kernel, in pairs of complements (of an odd number the last is without its
        complement), with equal weights.
    """
    if 2**count - 2 <= samples:
        numbers = np.arange(1, 2**count - 1)
        present = (numbers[:, None] >> np.arange(count)) & 1 == 1
        kernel = [(count - 1) / (comb(count, k) * k * (count - k)) for k in range(1, count)]
        return present, np.array(kernel, float)[present.sum(1) - 1]
    sizes = np.arange(1, count)
    # All coalitions of a size together: the binomial coefficient cancels the kernel's.
    chances = 1 / (sizes * (count - sizes))
    drawn = random.choice(sizes, -(-samples // 2), p=chances / chances.sum())
    half = _subsets(drawn, count, random)
    return np.stack([half, ~half], axis=1).reshape(-1, count)[:samples], np.ones(samples)


def _subsets(sizes: NDArray[np.int64], count: int, random: np.random.Generator) -> Flags:
    """Random subsets of n units of given sizes, [S, n]."""
    ranks = random.random((len(sizes), count)).argsort(axis=1).argsort(axis=1)
    return ranks < sizes[:, None]


def outputs(
    captured: Captured, params: Params, units: Sequence[Units], removed: Sequence[Flags]
) -> list[Floats]:
    """The output f of each instance's perturbed copies.

    Args:
        captured: The batch.
        params: ``operation``, and ``output`` for what f is: ``logit`` or ``probability``.
        units: Per instance the unit of each token, [T].
        removed: Per instance the units to remove in each of its copies, [S, n].

    Returns:
        Per instance f of its copies, [S]. A copy without anything removed isn't run again.
    """
    tokens = [
        np.pad(rows, ((0, 0), (0, 1)))[:, unit] for rows, unit in zip(removed, units, strict=True)
    ]
    operation: Operation = params["operation"]
    wanted = [
        (number, operation, row) for number, rows in enumerate(tokens) for row in rows if row.any()
    ]
    whole = _explained(captured, params, captured.logits.double().cpu(), range(len(tokens)))
    owners = [number for number, _, _ in wanted]
    perturbed = _explained(captured, params, torch.from_numpy(outcomes(captured, wanted)), owners)
    found, start = [], 0
    for rows, output in zip(tokens, whole, strict=True):
        run = rows.any(axis=1)
        values = np.full(len(rows), output)
        values[run] = perturbed[start : start + run.sum()]
        start += run.sum()
        found.append(values)
    return found


def _explained(
    captured: Captured, params: Params, logits: torch.Tensor, owners: Sequence[int]
) -> Floats:
    """The output f from logits [N, C] of copies of the batch's instances ``owners``, [N]."""
    own = torch.tensor(list(owners), dtype=torch.long, device=captured.targets.device)
    question = captured.question.chosen(own)
    return question.output(logits.to(own.device), params["output"]).cpu().numpy()


# Local models ---------------------------------------------------------------------------------


def cosine_distances(removed: Flags) -> Floats:
    """100 times the cosine distance of each row from the whole input, [S, n] to [S].

    The row without any unit has distance 100.
    """
    present = (~removed).mean(axis=1) if removed.shape[1] else np.ones(len(removed))
    return 100 * (1 - np.sqrt(present))


def weighted_ridge(
    features: Floats, targets: Floats, weights: Floats, ridge: float
) -> tuple[Floats, float]:
    """Weighted ridge regression with an intercept that isn't penalised, in closed form.

    Args:
        features: [S, n].
        targets: [S].
        weights: Weight of each row, [S].
        ridge: What multiplies the squared norm of the coefficients; with 0, of all solutions the
            one of least norm.

    Returns:
        Coefficients, [n], and intercept.
    """
    # At the optimum the intercept makes the weighted residuals sum to 0: centring removes it.
    center, level = np.average(features, 0, weights), np.average(targets, weights=weights)
    root = np.sqrt(weights)
    stacked = np.vstack(
        [root[:, None] * (features - center), np.sqrt(ridge) * np.eye(features.shape[1])]
    )
    wanted = np.append(root * (targets - level), np.zeros(features.shape[1]))
    coefficients = _least_norm(stacked, wanted)
    return coefficients, float(level - (center * coefficients).sum())


def shapley_regression(present: Flags, weights: Floats, values: Floats, gain: float) -> Floats:
    """Weighted least squares under the constraint that the coefficients sum to the gain.

    Args:
        present: Units present in each coalition, [S, n].
        weights: Weight of each coalition, [S].
        values: f of each coalition minus f of the empty one, [S].
        gain: f of the whole input minus f of the empty one.

    Returns:
        Shapley values, [n]; of all solutions the one nearest to equal shares.
    """
    count = present.shape[1]
    if count == 0:
        return np.zeros(0)
    # With phi = gain / n + rest, rest sums to 0, so a constant per row may be taken from its
    # features; rows that sum to 0 then make the solution of least norm sum to 0 by itself.
    share = present.mean(axis=1)
    root = np.sqrt(weights)
    rest = _least_norm(root[:, None] * (present - share[:, None]), root * (values - gain * share))
    return np.asarray(gain / count + rest - rest.mean(), np.float64)


def _least_norm(features: Floats, targets: Floats) -> Floats:
    """The least-squares solution, of several the one of least norm."""
    # Far above the rounding of a singular value that is 0, far below any other.
    return np.asarray(np.linalg.lstsq(features, targets, rcond=1e-10)[0], np.float64)


def _lime_needs(params: Params) -> tuple[Perturb, ...]:
    if params["samples"] < 2:
        raise UsageError("lime.samples is at least 2: the first is the text as it is")
    if params["kernel_width"] <= 0 or params["ridge"] < 0:
        raise UsageError("lime.kernel_width is more than 0, and lime.ridge is at least 0")
    return (Perturb(params["operation"]),)


_OUTPUTS = ("logit", "probability")

_OPERATIONS = ChoiceByKind("operations", ("pad", "mask", "delete", "mean", "black", "drop"))

register(
    Method(
        name="occlusion",
        compute=occlusion,
        needs=lambda params: (Perturb(params["operation"]),),
        defaults={
            "operation": _OPERATIONS,
            "unit": ChoiceByKind("units", ("token", "word", "patch")),
            "output": Choice(*_OUTPUTS),
        },
        signed=True,
        class_dependent=True,
        additive=False,
        by_input=True,
        cost="units F",
        paper="Zeiler & Fergus 2014; Li et al. 2016",
        equation="f(x) - f(x without j)",
    )
)
register(
    Method(
        name="lime",
        compute=lime,
        needs=_lime_needs,
        defaults={
            "samples": 100,
            "operation": ChoiceByKind(
                "operations", ("delete", "pad", "mask", "mean", "black", "drop")
            ),
            "unit": ChoiceByKind("units", ("bag", "word", "token", "patch")),
            "kernel_width": 25.0,
            "ridge": 1.0,
            "output": Choice("probability", "logit"),
        },
        presets={
            "iba": {
                "samples": 100,
                "operation": "delete",
                "unit": "bag",
                "kernel_width": 25.0,
                "ridge": 1.0,
                "output": "probability",
            }
        },
        signed=True,
        class_dependent=True,
        additive=False,
        stochastic=True,
        by_input=True,
        cost="samples F",
        paper="Ribeiro et al. 2016, sections 3.3 and 3.4",
        equation="argmin_w sum_z k(z) (f(z) - w z - b)^2 + ridge ||w||^2",
        version=2,  # Words of a pair are drawn in the order in which they stand.
    )
)
register(
    Method(
        name="kernel_shap",
        compute=kernel_shap,
        needs=lambda params: (Perturb(params["operation"]),),
        defaults={
            "samples": 256,
            "operation": _OPERATIONS,
            "unit": ChoiceByKind("units", ("token", "word", "patch")),
            "output": Choice(*_OUTPUTS),
        },
        signed=True,
        class_dependent=True,
        additive=True,
        stochastic=True,
        by_input=True,
        cost="samples F",
        paper="Lundberg & Lee 2017, theorem 2",
        equation="argmin_phi sum_z k(z) (f(z) - phi z)^2, sum phi = f(x) - f(nothing)",
        version=2,  # Words of a pair are drawn in the order in which they stand.
    )
)
