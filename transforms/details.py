"""Rows that methods give beside their scores, for tables of their own.

The fields of a row are the columns of its table after ``instance_id`` and ``method``
(``attribeam.schemas.tables``). A value is a number, a text, None, or an array for a list column.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Real = type[np.float32] | type[np.float64]
# The rows of one instance, by table.
Details = Mapping[str, Sequence[tuple[Any, ...]]]

# Tables that a method fills only where its scores by layer are asked for.
BY_LAYER = ("layers", "information")


class LayerRow(NamedTuple):
    """Scores of one layer for one instance, seen from the position that is read out.

    Attributes:
        layer: The layer, 0-based.
        local: Raw scores of the layer alone, [T].
        rollout: Scores from the layer down to the input, summing to 1, [T].
        scale: Natural logarithm of what ``rollout`` was divided by.
        mixing: Context-mixing ratio of each token, [T], where the method has one.
    """

    layer: int
    local: NDArray[np.floating[Any]]
    rollout: NDArray[np.floating[Any]]
    scale: float
    mixing: NDArray[np.floating[Any]] | None


class InformationRow(NamedTuple):
    """What a bottleneck after one layer lets through.

    Attributes:
        layer: The layer, 0-based.
        target: The class whose prediction it is to keep.
        bits: Information per token, [T].
    """

    layer: int
    target: int
    bits: NDArray[np.floating[Any]]


class HeadRow(NamedTuple):
    """What is kept of one head under self-attention attribution; see ``trees.HeadFacts`` too.

    Attributes:
        layer: The layer, 0-based.
        head: The head, 0-based.
        target: The class that is explained.
        taylor_loss: Sum over tokens of |context . d loss / d context|.
        taylor_logits: The same for the sum of the logits.
    """

    layer: int
    head: int
    target: int
    attr_max: float
    attr_sum: float
    attr_positive: float
    attr_negative: float
    attention_mean: float
    attention_max: float
    top1_from: int
    top1_to: int
    top1: float
    top2_from: int | None
    top2_to: int | None
    top2: float | None
    taylor_loss: float
    taylor_logits: float


class InteractionsRow(NamedTuple):
    """The strongest attributions of one layer's attention, summed over its heads.

    Attributes:
        layer: The layer, 0-based.
        target: The class that is explained.
        output: Its output F(A).
        without: F without this layer's attention.
        steps: Points of the integral.
        gap: Its error: |sum of all attributions - (F(A) - F(0))|.
        query: Positions of the tokens that take, strongest first, [N].
        key: Positions of the tokens that are taken from, [N].
        attr: Attribution of each pair, [N].
        prop: That over the layer's largest, [N].
        dropped: Number of pairs left out whose attribution isn't 0.
        mass_dropped: Sum of their absolute attributions.
        error: The gap, or what half of the points would change of what is taken from a token, if
            that is known and more.
    """

    layer: int
    target: int
    output: float
    without: float
    steps: int
    gap: float
    query: NDArray[np.integer[Any]]
    key: NDArray[np.integer[Any]]
    attr: NDArray[np.floating[Any]]
    prop: NDArray[np.floating[Any]]
    dropped: int
    mass_dropped: float
    error: float | None = None


class TreeEdgeRow(NamedTuple):
    """An edge of an attribution tree (``trees.TreeEdge``), in the order of growth."""

    algorithm: str
    position: int
    parent: int
    child: int
    layer: int
    attr: float
    prop: float


class TreeNodeRow(NamedTuple):
    """A token under an attribution tree (``trees.TreeNode``)."""

    algorithm: str
    token: int
    state: int
    is_root: bool
    depth: int | None
    top_score: float


class MaskRow(NamedTuple):
    """An input of which some units were left out at random.

    Attributes:
        mask: Its number, from 0.
        target: The class that its output is of.
        unit: What was left out as one.
        operation: How.
        kept: Whether each token is there, [T].
        logit: Logit of the class.
        probability: Its probability.
    """

    mask: int
    target: int
    unit: str
    operation: str
    kept: NDArray[np.bool_]
    logit: float
    probability: float


class PatternRow(NamedTuple):
    """The influence pattern of one token at one level (``patterns.Pattern``).

    Attributes:
        level: ``embedding`` or ``attention``.
        source: Position of the token.
        nodes: Positions from the source to that read out, [L + 1].
        roles: Role of each node's word, a special token's own string, or None, L + 1 of them.
        heads: Head of each layer, -1 for the skip connection, [L]; None at embedding level.
        steps: Influence after each step of the refinement.
        influence: That of the pattern, signed.
        input_influence: That of the token through all paths.
        concentration: Their ratio; None if the latter is 0.
        points: Points of the path that the pattern was found at.
        error: What half of them would add to its influence; None if that is unknown.
        sure: Whether each choice was ahead by more than half of the points change of that.
    """

    level: str
    source: int
    nodes: NDArray[np.integer[Any]]
    roles: tuple[str | None, ...]
    heads: NDArray[np.integer[Any]] | None
    steps: NDArray[np.floating[Any]]
    influence: float
    input_influence: float
    concentration: float | None
    points: int | None = None
    error: float | None = None
    sure: bool | None = None


def is_finite(details: Details, real: Real) -> bool:
    """Whether all numbers in the rows are finite, also once they are of a precision."""
    with np.errstate(over="ignore"):
        return all(
            bool(np.isfinite(np.asarray(value, real)).all())
            for rows in details.values()
            for row in rows
            for value in row
            if value is not None and not isinstance(value, str | tuple)
        )
