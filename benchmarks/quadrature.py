"""How near rules of integration come on paths of real texts, and at how many points.

The integrands of integrated gradients (from [PAD]), of influence (from [MASK]) and of Beyond
Intuition's feedback (from zeros) are taken at 1,000 points in float64: Gauss-Legendre with 8 points
on each of 125 pieces. Their sum is the reference, and between them they are interpolated, so that
what a rule would give at its own points is known too, without its rounding. Errors are the largest
over the tokens (of feedback over heads and tokens), as shares of the largest value.
"""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from attribeam.transforms import Instance, Model, load_model
from attribeam.transforms.inputs.kinds import collate, inputs_of
from attribeam.transforms.network.capture import Watch
from attribeam.transforms.passes.base import Rule, quadrature
from attribeam.transforms.passes.captured import Captured
from attribeam.transforms.passes.influence import influence_states, margin_weights
from attribeam.transforms.passes.ladder import ladder
from benchmarks.material import Material

Floats = NDArray[np.float64]
# Values of an integrand at some points of the path, [K] to [K, N].
Integrand = Callable[[Floats], Floats]

PIECES, EACH = 125, 8
AT_ONCE = 50
FIXED: tuple[tuple[Rule, int], ...] = (
    ("gauss_legendre", 20),
    ("gauss_legendre", 50),
    ("trapezoid", 20),
    ("trapezoid", 50),
)
# As methods have them: the rule, the most points and the tolerance.
REFINED: Mapping[str, tuple[Rule, int, float]] = {
    "integrated_gradients": ("nested", 97, 0.005),
    "influence": ("nested_early", 81, 0.005),
    "bt feedback": ("nested_early", 65, 0.05),
}


def main(material: Material) -> bool:
    """Prints a table for each integrand; returns whether nested rules are no worse than fixed."""
    model = load_model(material.model, dtype="float64")
    found: dict[str, list[_Path]] = {}
    for instance in material.instances(model):
        for name, integrand in _integrands(model, instance).items():
            found.setdefault(name, []).append(_Path(integrand))
    good = True
    for name, paths in found.items():
        print(f"  {name}, {len(paths)} texts: points; error: median, nine of ten, largest")
        worst = {f"{r}-{n}": _print(f"{r}", paths, partial(_fixed, r, n)) for r, n in FIXED}
        for count in (17, 33, 65):
            for label, rule in _OTHERS.items():
                _print(label, paths, partial(_by, rule(count)))
            for nested in ("nested", "nested_early"):
                _print(nested, paths, partial(_rung, nested, count))
        ours = _print(f"as it is ({REFINED[name][0]})", paths, partial(_refined, *REFINED[name]))
        usual = "trapezoid-50" if name == "influence" else "gauss_legendre-50"
        good = good and (name == "bt feedback" or ours <= worst[usual])
    return good


def _integrands(model: Model, instance: Instance) -> dict[str, Integrand]:
    batch = collate(model, [instance])
    captured = Captured(model, batch, "predicted", 1024, 0, frozenset())

    def gradient(start: str, of_attention: bool, points: Floats) -> Floats:
        space = inputs_of(model).space(model, batch, "embedded", start)
        moved = space.end - space.start
        entered = space.start + torch.from_numpy(points)[:, None, None] * moved
        entered.requires_grad_()
        rows = batch.rows.repeated(len(points))
        logits, seen = model.run(
            rows, watch=Watch(readout_attention=of_attention), enter=space.enter(rows, entered)
        )
        wanted = seen.readout_attention if of_attention else entered
        assert wanted is not None
        (found,) = torch.autograd.grad(captured.output(logits, "logit").sum(), wanted)
        values = found.flatten(1) if of_attention else (found * moved).sum(-1)
        return np.asarray(values.detach().numpy(), np.float64)

    def influence(points: Floats) -> Floats:
        (states,) = influence_states(
            model,
            batch.rows,
            margin_weights(captured.logits, captured.targets),
            inputs_of(model).space(model, batch, "words", "mask"),
            points=points,
            shares=points,
            budget=1e9,
        )
        return np.asarray(states.influences.numpy(), np.float64)

    return {
        "integrated_gradients": partial(gradient, "pad", False),
        "influence": influence,
        "bt feedback": partial(gradient, "zero", True),
    }


class _Path:
    """What an integrand is along a path, by its values at the points of the reference."""

    def __init__(self, integrand: Integrand) -> None:
        nodes, weights = quadrature("gauss_legendre", EACH)
        points = ((np.arange(PIECES)[:, None] + nodes) / PIECES).ravel()
        parts = np.array_split(points, len(points) // AT_ONCE)
        self.values = np.concatenate([integrand(part) for part in parts])
        self.exact = np.tile(weights / PIECES, PIECES) @ self.values
        self.nodes = nodes
        apart = np.subtract.outer(nodes, nodes) + np.eye(EACH)
        self.barycentric = 1 / apart.prod(1)

    def at(self, points: Floats) -> Floats:
        """Values at other points, [K, N]: in each piece by the polynomial through its own."""
        piece = np.minimum((points * PIECES).astype(int), PIECES - 1)
        gaps = (points * PIECES - piece)[:, None] - self.nodes
        shares = self.barycentric / np.where(gaps == 0, 1e-300, gaps)
        shares /= shares.sum(1, keepdims=True)
        own = self.values.reshape(PIECES, EACH, -1)[piece]
        return np.asarray(np.einsum("ke,ken->kn", shares, own))

    def error(self, integral: Floats) -> float:
        """Largest error of an integral, over the largest value."""
        return float(np.abs(integral - self.exact).max() / np.abs(self.exact).max())


# A rule's points, and error, on a path.
Judged = tuple[int, float]


def _by(rule: tuple[Floats, Floats], path: _Path) -> Judged:
    points, weights = rule
    return len(points), path.error(weights @ path.at(points))


def _fixed(rule: Rule, count: int, path: _Path) -> Judged:
    return _by(quadrature(rule, count), path)


def _rung(rule: Rule, count: int, path: _Path) -> Judged:
    rungs = ladder(rule, count)
    return _by((rungs.points, rungs.weights[-1]), path)


def _refined(rule: Rule, most: int, tolerance: float, path: _Path) -> Judged:
    """As methods do: until gap and change are small enough."""
    rungs = ladder(rule, most)
    values = path.at(rungs.points)
    integrals = rungs.weights @ values
    for rung in range(rungs.first, len(rungs.counts)):
        now, before = integrals[rung], integrals[rung - 1]
        missed = max(np.abs(now - before).max(), abs(now.sum() - path.exact.sum()))
        if missed <= tolerance * np.abs(now).max():
            break
    return rungs.counts[rung], path.error(integrals[rung])


def _clenshaw_curtis(count: int) -> tuple[Floats, Floats]:
    """Points that crowd at the ends, of Chebyshev polynomials, and weights that suit them."""
    degrees = np.arange(count)
    points = np.cos(np.pi * degrees / (count - 1))
    moments = [0 if degree % 2 else 2 / (1 - degree**2) for degree in degrees.tolist()]
    weights = np.linalg.solve(np.polynomial.chebyshev.chebvander(points, count - 1).T, moments)
    return (points + 1) / 2, weights / 2


_OTHERS: dict[str, Callable[[int], tuple[Floats, Floats]]] = {
    "clenshaw_curtis": _clenshaw_curtis,
    "gauss_legendre": partial(quadrature, "gauss_legendre"),
    "trapezoid": partial(quadrature, "trapezoid"),
}


def _print(label: str, paths: list[_Path], judge: Callable[[_Path], Judged]) -> float:
    """Prints a row of the table; returns the largest error."""
    found = [judge(path) for path in paths]
    points, errors = (np.array(column) for column in zip(*found, strict=True))
    quantiles = (np.median(errors), np.quantile(errors, 0.9), errors.max())
    row = "  ".join(f"{value:.1e}" for value in quantiles)
    print(f"    {label:28} {points.mean():5.1f}   {row}", flush=True)
    return float(errors.max())
