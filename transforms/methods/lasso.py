"""The Lasso: least squares with a penalty on the size of coefficients."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# Rounds over all coefficients, and how little of the largest may change in the last.
_ROUNDS, _TIGHT = 100_000, 1e-13


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
    weights = found / deviation
    return weights, float(level - weights @ centre)
