"""The few instrumented passes that methods declare to need.

Most methods differ only in how they combine the same few quantities. A method declares which passes
it needs; the union of what the chosen methods need is run once per batch (``captured``).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from attribeam.schemas import UsageError
from attribeam.transforms.inputs.targets import Output
from attribeam.transforms.inputs.variants import Operation
from attribeam.transforms.network.model import Model
from attribeam.transforms.passes.influence import Start
from attribeam.transforms.passes.norms import NORMED, Level
from attribeam.transforms.passes.relevance import Rules

BaselineName = Literal["pad", "mask", "zero"]
Rule = Literal["gauss_legendre", "trapezoid", "midpoint", "left", "right", "endpoints"]
Of = Literal["input", "attention"]
Target = Literal["explained", "gold"]


@dataclass(frozen=True)
class Forward:
    """One forward pass: logits, and what is asked for besides. Costs 1 F.

    Attributes:
        attention: Attention probabilities of every layer.
        layers: What enters the layers and their norms, and their values; and attention.
        outputs: What comes out of the layers.
    """

    attention: bool = False
    layers: bool = False
    outputs: bool = False


@dataclass(frozen=True)
class Backward:
    """Gradient of the explained scalar, in one pass. 1 F + 1 B.

    It gives what ``Forward`` gives as well.

    Attributes:
        of: With respect to what enters the encoder (``input``), or to the attention probabilities
            of every layer (``attention``).
    """

    of: Of = "input"


@dataclass(frozen=True)
class Path:
    """Gradients along the straight path from baseline embeddings to the input.

    The path runs in the space of what enters the encoder (``hidden_states[0]``: word, position and
    type embeddings after their layer norm). Costs steps * (F + B), or little more than steps * F
    for gradients of attention, which need no backward pass below the last layer. Both kinds along
    one path share its forward passes.

    Attributes:
        baseline: Where it starts: the embeddings of the input with its removable tokens replaced
            by ``pad`` or ``mask``, or ``zero`` vectors at every position.
        steps: Number of points on it.
        rule: Quadrature rule that weighs them.
        of: Gradients with respect to what enters the encoder (``input``), or to the last layer's
            attention from the position read out (``attention``).
        output: Gradients of the explained scalar (``logit``; of a masked LM, the contrast of its
            two words), or of the softmax probability of the explained class.
    """

    baseline: BaselineName
    steps: int
    rule: Rule
    of: Of = "input"
    output: Output = "logit"


@dataclass(frozen=True)
class Norms:
    """Norms of the vectors that tokens send each other in every layer. About 0.1 F each.

    Attributes:
        level: How far into a layer a vector is followed (``attribeam.transforms.passes.norms``).
    """

    level: Level


@dataclass(frozen=True)
class Relevance:
    """Relevance walked backwards through the network by LRP rules, in float64.

    All the way down it costs about 5 F in float64, and to the last layer little more than 1.

    Attributes:
        rules: ``cvpr21`` or ``orig`` (``attribeam.transforms.passes.relevance``).
        lowest: The last layer that it is walked through; -1 is the top one. Beyond layer 0 lies
            what enters the encoder.
    """

    rules: Rules
    lowest: int = 0


@dataclass(frozen=True)
class Perturb:
    """Forward passes on perturbed copies, as many as the method asks for (``outcomes``).

    Attributes:
        operation: How tokens are removed.
    """

    operation: Operation


@dataclass(frozen=True)
class AttentionPaths:
    """Gradients along each layer's attention from zero to what it is (``attention_path``).

    Costs steps * (F + B) of the layers above, for each layer in turn.

    Attributes:
        steps: Points of the path to begin with.
        rule: Quadrature rule that weighs them.
        tolerance: Largest completeness gap before an instance's steps in a layer are doubled.
        most: Most steps that doubling may lead to.
        output: What is followed: the softmax ``probability`` of the class, or the ``logit``.
        target: The class: the ``explained`` one, or the ``gold`` one whatever is explained.
    """

    steps: int
    rule: Rule
    tolerance: float
    most: int
    output: Output
    target: Target


@dataclass(frozen=True)
class Taylor:
    """First-order importance of heads. 1 F + 2 B.

    Attributes:
        target: The class whose cross entropy is the loss: the ``explained`` or the ``gold`` one.
    """

    target: Target


@dataclass(frozen=True)
class InfluencePaths:
    """Influence along the paths from words to the output (``influence``), and its patterns.

    Costs about 2 F of steps copies, and about 3 more for the patterns of all words.

    Attributes:
        steps: Points on the path from the baseline.
        rule: Quadrature rule that weighs them.
        start: The baseline, in word embeddings: ``mask`` at every position, ``mask_words`` at the
            removable ones only, ``pad``, or ``zero``.
    """

    steps: int
    rule: Rule
    start: Start


@dataclass(frozen=True)
class PatternAblation:
    """What is left of the output with the nodes of patterns alone (``pattern_ablation``).

    About 13 F beside the patterns themselves.

    Attributes:
        paths: What the patterns are found along.
    """

    paths: InfluencePaths


@dataclass(frozen=True)
class CorpusStatistics:
    """Mean and deviation of what leaves each layer over texts of the corpus, once for a whole run.

    Attributes:
        sample: How many texts they are estimated from.
    """

    sample: int


Pass = (
    Forward
    | Backward
    | Path
    | Norms
    | Relevance
    | Perturb
    | AttentionPaths
    | Taylor
    | InfluencePaths
    | PatternAblation
    | CorpusStatistics
)


def quadrature(rule: Rule, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights on [0, 1], [steps] each; the weights sum to 1.

    ``left`` and ``right`` are the Riemann sums k / steps from k = 0 and k = 1, ``midpoint`` lies
    between them, ``trapezoid`` has both end points with half weight, and ``endpoints`` has them
    with the same weight as all others (as some authors' code does).
    """
    grid = np.arange(steps)
    even = np.full(steps, 1 / steps)
    if rule == "gauss_legendre":
        points, weights = np.polynomial.legendre.leggauss(steps)
        return (points + 1) / 2, weights / 2
    if rule in ("trapezoid", "endpoints"):
        if steps == 1:
            return np.array([0.5]), np.array([1.0])
        if rule == "endpoints":
            return grid / (steps - 1), even
        weights = np.full(steps, 1 / (steps - 1))
        weights[[0, -1]] /= 2
        return grid / (steps - 1), weights
    shift = {"left": 0.0, "midpoint": 0.5, "right": 1.0}[rule]
    return (grid + shift) / steps, even


def check_pass(kind: Pass, model: Model) -> None:
    """Checks that a pass can be run on a model.

    Raises:
        UsageError: If it isn't defined for the model, or needs the mask or the padding token,
            which is unknown.
    """
    normed = isinstance(kind, Norms) and kind.level in NORMED
    if normed and "post_ln" not in model.traits:
        raise UsageError(
            "norms of what leaves a layer norm are defined by layers that normalise after their "
            f"residuals, and {model.network.config.model_type} has none"
        )
    baseline = {Path: "baseline", InfluencePaths: "start"}.get(type(kind))
    if model.pad_id is None and baseline and getattr(kind, baseline) == "pad":
        raise UsageError(
            "the pad baseline needs the model's padding token, which is unknown (pad_token_id in "
            "its config.json, or its tokenizer's): use another baseline, such as baseline=zero"
        )
    if model.mask_id is not None:
        return
    unknown = "the model's mask token, which is unknown without a tokenizer: name it with "
    if isinstance(kind, Path) and kind.baseline == "mask":
        raise UsageError(
            f"the mask baseline needs {unknown}--mask-token-id, or use another baseline"
        )
    if isinstance(kind, InfluencePaths) and kind.start in ("mask", "mask_words"):
        raise UsageError(
            f"the mask baseline needs {unknown}--mask-token-id, or use baseline=pad or zero"
        )
    if isinstance(kind, Perturb) and kind.operation == "mask":
        raise UsageError(
            f"the operation mask needs {unknown}--mask-token-id, or use the operation pad"
        )
