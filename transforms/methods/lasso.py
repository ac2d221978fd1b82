"""The Lasso: least squares with a penalty on the size of coefficients."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# Rounds over all coefficients, and how little of the largest may change in the last.
_ROUNDS, _TIGHT = 100_000, 1e-13
# How close to it the solution is, as a share of the largest, unless equations are about singular.
_CLOSE = 1e-6


def lasso(features: Floats, targets: Floats, alpha: float) -> tuple[Floats, float]:
    """The Lasso of standardised features, by coordinate descent (Friedman et al. 2010, equation 5).

    It minimises sum_s (y_s - w . x_s - b)^2 / (2 S) + alpha ||w * deviation||_1, to rounding.

    Args:
        features: x, [S, K]; a feature that never varies has a coefficient of 0.
        targets: y, [S].
        alpha: Weight of the penalty.

    Returns:
        Coefficients w of the features as they are, [K], and the intercept b.
    """
    centre, deviation = features.mean(0), features.std(0)
    varies = deviation > 0
    deviation = np.where(varies, deviation, 1)
    scaled, level = (features - centre) / deviation, targets.mean()
    products = scaled.T @ scaled / len(targets)
    towards = scaled.T @ (targets - level) / len(targets)
    found = np.zeros(len(centre))
    for _ in range(_ROUNDS):
        change = 0.0
        for at in np.flatnonzero(varies):
            # Of a standardised feature the product with itself is 1.
            alone = towards[at] - products[at] @ found + found[at]
            new = np.sign(alone) * max(abs(alone) - alpha, 0.0)
            change = max(change, abs(new - found[at]))
            found[at] = new
        if change <= _TIGHT * np.abs(found).max(initial=0):
            break
    weights = _settled(products, towards, found, alpha) / deviation
    return weights, float(level - weights @ centre)


def _settled(products: Floats, towards: Floats, found: Floats, alpha: float) -> Floats:
    """Where coordinate descent leads, so that the round that was its last leaves no trace.

    With it known which coefficients are above 0 and which are below, they solve linear equations.
    If by these one changed its sign, or they have many solutions, it is what was found.
    """
    some, signs = found != 0, np.sign(found)
    try:
        solved = np.linalg.solve(products[np.ix_(some, some)], (towards - alpha * signs)[some])
    except np.linalg.LinAlgError:
        return found
    if not np.allclose(solved, found[some], rtol=0, atol=_CLOSE * np.abs(found).max(initial=0)):
        return found
    settled = np.zeros_like(found)
    settled[some] = solved
    return settled if (np.sign(settled) == signs).all() else found
