"""The few instrumented passes that methods read from, run when first asked for and kept.

Most methods differ only in how they combine the same few quantities. A method declares which passes
it needs; the union of what the chosen methods need is run once per batch.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Literal

import numpy as np
import torch

from schemas import UsageError
from transforms.batch import Batch, row_cost
from transforms.memory import is_out_of_memory
from transforms.model import Model
from transforms.targets import target_weights, targets_of

BaselineName = Literal["pad", "mask", "zero"]
Rule = Literal["gauss_legendre", "trapezoid", "midpoint", "left", "right"]


@dataclass(frozen=True)
class Forward:
    """One forward pass: logits, and attention probabilities if asked for. Costs 1 F."""

    attention: bool = False


@dataclass(frozen=True)
class Backward:
    """Gradient of the explained scalar with respect to what enters the encoder. 1 F + 1 B.

    It gives what ``Forward`` gives as well.
    """


@dataclass(frozen=True)
class Path:
    """Gradients along the straight path from baseline embeddings to the input. steps * (F + B).

    The path runs in the space of what enters the encoder (``hidden_states[0]``: word, position and
    type embeddings after their layer norm).

    Attributes:
        baseline: Where it starts: the embeddings of the input with its removable tokens replaced
            by ``pad`` or ``mask``, or ``zero`` vectors at every position.
        steps: Number of points on it.
        rule: Quadrature rule that weighs them.
    """

    baseline: BaselineName
    steps: int
    rule: Rule


Pass = Forward | Backward | Path


def quadrature(rule: Rule, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights on [0, 1], [steps] each; the weights sum to 1.

    ``left`` and ``right`` are the Riemann sums k / steps from k = 0 and k = 1, ``midpoint`` lies
    between them, ``trapezoid`` has both end points with half weight.
    """
    grid = np.arange(steps)
    even = np.full(steps, 1 / steps)
    if rule == "gauss_legendre":
        points, weights = np.polynomial.legendre.leggauss(steps)
        return (points + 1) / 2, weights / 2
    if rule == "trapezoid":
        if steps == 1:
            return np.array([0.5]), np.array([1.0])
        weights = np.full(steps, 1 / (steps - 1))
        weights[[0, -1]] /= 2
        return grid / (steps - 1), weights
    shift = {"left": 0.0, "midpoint": 0.5, "right": 1.0}[rule]
    return (grid + shift) / steps, even


@dataclass(frozen=True)
class PathGradient:
    """What a ``Path`` pass gives.

    Attributes:
        gradient: Weighted mean of the gradients along the path, [B, T, d].
        difference: Input minus baseline, [B, T, d].
        gain: Explained scalar at the input minus at the baseline, [B].
    """

    gradient: torch.Tensor
    difference: torch.Tensor
    gain: torch.Tensor


@dataclass
class Captured:
    """A batch, and what the passes over it captured; the passes are run when first read.

    Attributes:
        model: The model.
        batch: The batch, B instances of at most T tokens.
        target: Rule for the class to explain (``targets.parse_target``).
        budget: Token budget for the extra rows of path passes.
        seed: Seed of the run.
        attention_wanted: Whether the base pass keeps attention.
        gradient_wanted: Whether the base pass runs backward.
        seconds: Wall time per pass that was run.
    """

    model: Model
    batch: Batch
    target: str | int
    budget: int
    seed: int
    attention_wanted: bool
    gradient_wanted: bool
    seconds: dict[Pass, float] = field(default_factory=dict)
    logits: torch.Tensor = field(init=False)
    targets: torch.Tensor = field(init=False)
    entered: torch.Tensor = field(init=False)
    attention: list[torch.Tensor] = field(init=False)
    gradient: torch.Tensor | None = field(init=False, default=None)
    _paths: dict[Path, PathGradient] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._run_base()

    @property
    def weights(self) -> torch.Tensor:
        """Weights [B, C] that turn logits into the explained scalar."""
        return target_weights(self.targets, self.model)

    @property
    def explained(self) -> torch.Tensor:
        """The explained scalar per instance, [B]."""
        return (self.weights * self.logits).sum(-1)

    def _run_base(self) -> None:
        """The real input, once: forward, and backward if a method asked for gradients."""
        start = self.clock()
        with torch.no_grad():
            entered = self.model.embed(self.batch.rows)
        with torch.set_grad_enabled(self.gradient_wanted):
            entered.requires_grad_(self.gradient_wanted)
            logits, recorder = self.model.run(
                self.batch.rows, keep_attention=self.attention_wanted, enter=entered
            )
            self.logits = logits.detach()
            self.seconds[Forward(self.attention_wanted)] = self.clock() - start
            self.targets = targets_of(self.target, self.logits, self.batch.instances)
            if self.gradient_wanted:
                (self.gradient,) = torch.autograd.grad((self.weights * logits).sum(), entered)
                self.seconds[Backward()] = self.clock() - start
        self.entered = entered.detach()
        self.attention = [layer.detach() for layer in recorder.attention]

    def path(self, wanted: Path) -> PathGradient:
        """The gradients along a path; run at the first call, then kept."""
        if wanted not in self._paths:
            start = self.clock()
            self._paths[wanted] = self._run_path(wanted)
            self.seconds[wanted] = self.clock() - start
        return self._paths[wanted]

    def baseline(self, name: BaselineName) -> torch.Tensor:
        """Baseline embeddings, [B, T, d]."""
        if name == "zero":
            return torch.zeros_like(self.entered)
        token = self.model.pad_id if name == "pad" else self.model.mask_id
        if token is None:
            raise ValueError("the model's mask token is unknown")
        ids = self.batch.rows.input_ids.masked_fill(self.batch.removable, token)
        with torch.no_grad():
            return self.model.embed(self.batch.rows.with_ids(ids))

    def _run_path(self, wanted: Path) -> PathGradient:
        start = self.baseline(wanted.baseline)
        difference = self.entered - start
        points, weights = quadrature(wanted.rule, wanted.steps)
        size, length = self.batch.rows.input_ids.shape
        at_once = max(1, int(self.budget / (size * row_cost(length, self.model.head_size))))
        at_once = min(at_once, wanted.steps)
        gradient = torch.zeros_like(difference)
        done = 0
        while done < wanted.steps:
            alphas = torch.tensor(points[done : done + at_once]).to(difference)
            shares = torch.tensor(weights[done : done + at_once]).to(difference)
            try:
                gradient += self._path_gradients(start, difference, alphas, shares)
                done += at_once
            except Exception as error:
                # Fewer instances would not help: the budget would be filled with more steps.
                if at_once == 1 or not is_out_of_memory(error):
                    raise
                at_once //= 2
        with torch.no_grad():
            base_logits, _ = self.model.run(self.batch.rows, enter=start)
        gain = self.explained - (self.weights * base_logits).sum(-1)
        return PathGradient(gradient, difference, gain)

    def _path_gradients(
        self,
        start: torch.Tensor,
        difference: torch.Tensor,
        alphas: torch.Tensor,
        shares: torch.Tensor,
    ) -> torch.Tensor:
        """Weighted sum of the gradients at some points of the path, [B, T, d].

        The weights go into the scalar that is differentiated: the sum over points is then one
        contraction of the rows' gradients, and no row's gradient depends on another's.
        """
        count = len(alphas)
        points = (start + alphas[:, None, None, None] * difference).flatten(0, 1)
        points.requires_grad_()
        with torch.enable_grad():
            logits, _ = self.model.run(self.batch.rows.repeated(count), enter=points)
            scalar = (self.weights.repeat(count, 1) * logits).sum(-1)
            weighted = (scalar * shares.repeat_interleave(len(self.batch))).sum()
            (gradients,) = torch.autograd.grad(weighted, points)
        total: torch.Tensor = gradients.unflatten(0, (count, len(self.batch))).sum(0)
        return total

    def clock(self) -> float:
        """Seconds, once the device has done what it was given."""
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)
        return perf_counter()

    def cost(self, needs: Iterable[Pass]) -> float:
        """Seconds of the passes that a method needs, those it shares with others in full."""
        return sum(self._pass_seconds(kind) for kind in needs)

    def _pass_seconds(self, kind: Pass) -> float:
        # The forward pass ran once, with attention if anybody wanted it.
        kind = Forward(self.attention_wanted) if isinstance(kind, Forward) else kind
        return self.seconds.get(kind, 0.0)


def check_pass(kind: Pass, model: Model) -> None:
    """Checks that a pass can be run on a model.

    Raises:
        UsageError: If it needs the mask token and the model has none.
    """
    if isinstance(kind, Path) and kind.baseline == "mask" and model.mask_id is None:
        raise UsageError(
            "the mask baseline needs the model's mask token, which is unknown without a tokenizer: "
            "name it with --mask-token-id, or use another baseline"
        )
