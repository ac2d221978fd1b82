"""Information bottlenecks: how much of a layer's output a prediction needs, in nats.

A bottleneck after a layer lets the share lambda of each feature of each token through and puts
noise in place of the rest. The shares are found by gradient descent, against both the prediction's
loss and the information that still passes (Schulz et al. 2020, section 3.1, for images; Jiang et
al. 2020 for transformers). Only the layers above the bottleneck are run, on what was computed below
it once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from attribeam.schemas import UsageError
from attribeam.transforms.inputs.batch import Batch, Instance, longest, pack, row_cost
from attribeam.transforms.inputs.given import check_instances, check_model
from attribeam.transforms.inputs.kinds import collate
from attribeam.transforms.network.capture import Watch
from attribeam.transforms.network.model import Model
from attribeam.transforms.network.rows import Rows
from attribeam.transforms.recovery import fitting

Floats = NDArray[np.float64]

_BETAS = (0.9, 0.999)
_EPSILON = 1e-8
# The original keeps the log-variance of the noise within -10 and 10.
_MOST_LOG_STD = 5.0


def layer_outputs(model: Model, rows: Rows) -> list[torch.Tensor]:
    """What leaves each layer, without a graph: L times [B, T, d]."""
    with torch.no_grad():
        return model.run(rows, watch=Watch(whole=True, outputs=True))[1].outputs


# The optimisation -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Bottleneck:
    """A bottleneck after one layer, for a batch of B instances.

    With x the layer's output, lambda = sigmoid(alpha) and e standard normal, what goes on is
    t = lambda x + (1 - lambda) (mean + std e). What stands at padding has no part in anything; the
    first token of a language model goes on as it is.

    Attributes:
        model: The model.
        batch: The instances.
        layer: The layer, 0-based.
        states: x, [B, T, d].
        mean: Mean of the noise, [d] or [B, T, d].
        std: Its standard deviation, likewise or of no dimension.
        targets: Class whose cross entropy is the loss, [B]; of a masked LM, of its two words; of
            all that follows a prompt it is the sum of its tokens'.
        beta: Weight of the information against the cross entropy.
        copies: Number n of noisy copies that the cross entropy is the mean of.
        seed: Seed of the run.
    """

    model: Model
    batch: Batch
    layer: int
    states: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor
    targets: torch.Tensor
    beta: float
    copies: int
    seed: int

    def capacity(self, alpha: torch.Tensor) -> torch.Tensor:
        """Information that passes each token and feature under the mask [B, T, d], in nats.

        It is KL(N(lambda z, (1 - lambda)^2) || N(0, 1)) with z = (x - mean) / std, likewise
        [B, T, d]; 0 at padding.
        """
        log_rest = functional.logsigmoid(-alpha)
        passed = alpha.sigmoid() * (self.states - self.mean) / self.std
        nats = (passed.square() + (2 * log_rest).exp() - 1) / 2 - log_rest
        return nats.masked_fill(~self._inside, 0)

    def noise(self, step: int) -> torch.Tensor:
        """Standard normal noise of a step, [n, B, T, d] on the host; 0 at padding.

        Each instance's is drawn from a generator of its own, in single precision whatever the model
        is in.
        """
        length, width = self.states.shape[1:]
        drawn = torch.zeros(self.copies, len(self.batch), length, width)
        for number, instance in enumerate(self.batch.instances):
            random = instance.generator(self.seed, f"iba {self.layer} {step}")
            own = random.standard_normal((self.copies, len(instance), width), np.float32)
            drawn[:, number, : len(instance)] = torch.from_numpy(own)
        return drawn

    def descend(
        self, alpha: torch.Tensor, noise: torch.Tensor, at_once: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss of each instance, [B], and its gradient with respect to the mask, [B, T, d].

        The loss is the mean cross entropy of the n copies plus beta times the mean capacity over
        the instance's own tokens and features.

        Args:
            alpha: Mask logits, [B, T, d].
            noise: As ``noise`` gives it.
            at_once: Copies of each instance that are run together.
        """
        alpha = alpha.detach().requires_grad_()
        with torch.enable_grad():
            count = self._inside.sum((1, 2)).clamp(min=1) * alpha.shape[-1]
            loss = self.beta * self.capacity(alpha).sum((1, 2)) / count
            (gradient,) = torch.autograd.grad(loss.sum(), alpha)
            for part in noise.split(at_once):
                errors = self.cross_entropy(alpha, part).sum(0) / self.copies
                gradient = gradient + torch.autograd.grad(errors.sum(), alpha)[0]
                loss = loss + errors
        return loss.detach(), gradient

    def cross_entropy(self, alpha: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Cross entropy of each noisy copy under the mask: noise [n, B, T, d] to [n, B]."""
        noise = noise.to(alpha)
        log_rest = functional.logsigmoid(-alpha).clamp(-_MOST_LOG_STD, _MOST_LOG_STD)
        kept = self.mean + alpha.sigmoid() * (self.states - self.mean)
        copies = torch.addcmul(kept, noise, log_rest.exp() * self.std)
        if self.model.speaks:
            copies = torch.where(self._inside, copies, self.states)
        logits, _ = self.model.run(
            self.batch.rows.repeated(len(noise)),
            enter=copies.flatten(0, 1).to(self.model.dtype),
            start=self.layer + 1,
        )
        if self.model.task == "continuation":
            return -logits.to(alpha).view(len(noise), -1)
        wanted = self.targets.repeat(len(noise))
        errors = functional.cross_entropy(logits.to(alpha), wanted, reduction="none")
        return errors.view(len(noise), -1)

    @cached_property
    def _inside(self) -> torch.Tensor:
        """True for tokens that pass the bottleneck, False for padding, [B, T, 1]."""
        return _counted(self.model, self.batch)[..., None]


def _counted(model: Model, batch: Batch) -> torch.Tensor:
    """True for tokens that are like others, [B, T]: of language models all but the first.

    Attention rests on that one where it has nothing to look for, and its state is far longer than
    those of others.
    """
    there = batch.rows.attention_mask.bool()
    if model.speaks:
        there[:, 0] = False
    return there


def optimise(
    bottleneck: Bottleneck, start: float, steps: int, lr: float, budget: int
) -> torch.Tensor:
    """The mask logits after ``steps - 1`` updates, [B, T, d].

    The updates are Adam's (Kingma & Ba 2015, algorithm 1) on the sum of the instances' losses:
    being elementwise, they are those of each instance alone. The original counts the last model
    pass, whose update it discards, among its steps; here that pass isn't run.

    Args:
        bottleneck: The bottleneck.
        start: Mask logit that every token and feature begins with.
        steps: Steps as the original counts them, at least 1.
        lr: Learning rate.
        budget: Token budget; copies beyond it are run one after the other.

    Raises:
        ArithmeticError: If a loss is not finite.
    """
    alpha = torch.full_like(bottleneck.states, start)
    slope, square = torch.zeros_like(alpha), torch.zeros_like(alpha)
    length = alpha.shape[1]
    rows = int(budget / row_cost(length, bottleneck.model.head_size))
    at_once = max(1, min(bottleneck.copies, rows // len(alpha)))
    for step in range(1, steps):
        noise = bottleneck.noise(step - 1)
        (loss, gradient), at_once = fitting(partial(bottleneck.descend, alpha, noise), at_once)
        _check(loss, bottleneck.batch)
        slope = torch.lerp(gradient, slope, _BETAS[0])
        square = torch.lerp(gradient.square(), square, _BETAS[1])
        spread = (square / (1 - _BETAS[1] ** step)).sqrt() + _EPSILON
        alpha = alpha - lr / (1 - _BETAS[0] ** step) * slope / spread
    return alpha


def _check(losses: torch.Tensor, batch: Batch) -> None:
    """Checks that the loss of each instance, [B], is finite."""
    for instance, loss in zip(batch.instances, losses.tolist(), strict=True):
        if not np.isfinite(loss):
            raise ArithmeticError(f"the loss of {instance.instance_id} is not finite: {loss}")


# Statistics -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Statistics:
    """What leaves each of L layers, over the tokens of a corpus; of pictures at each position.

    Attributes:
        mean: Mean of each feature, [L, d] float64, or at each position, [L, T, d].
        std: Its standard deviation, of the population, likewise.
        count: Number of tokens, or of pictures.
    """

    mean: Floats
    std: Floats
    count: int


# Of a position of pictures; at the edge some features hardly vary.
_LEAST_AT_POSITION = 0.01


@dataclass(frozen=True)
class Moments:
    """Sums that ``Statistics`` come from; those of parts of a corpus can be merged.

    Attributes:
        count: Number of tokens, or of pictures.
        mean: Mean of each feature of each layer's output, [L, d] float64, or at each position,
            [L, T, d].
        squares: Sum of squared deviations from it, likewise.
    """

    count: int
    mean: Floats
    squares: Floats

    @property
    def by_position(self) -> bool:
        """Whether they are of pictures, whose positions have statistics of their own."""
        return self.mean.ndim == 3

    def merged(self, other: "Moments") -> "Moments":
        """Those of two parts together (Chan et al. 1983, equation 2.1)."""
        count = self.count + other.count
        if not count:
            return self
        gap, share = other.mean - self.mean, other.count / count
        squares = self.squares + other.squares + gap**2 * self.count * share
        return Moments(count, self.mean + gap * share, squares)

    def statistics(self) -> Statistics:
        """Mean and standard deviation.

        Raises:
            UsageError: If there are fewer than two tokens, or a feature never varies (of pictures
                it may at a position: no deviation is below 0.01 there, as in Schulz et al. 2020).
        """
        what = "pictures" if self.by_position else "tokens"
        if self.count < 2:
            raise UsageError(
                f"statistics of hidden states need at least 2 {what}, and there are {self.count}"
            )
        std = np.sqrt(self.squares / self.count)
        if self.by_position:
            std = np.maximum(std, _LEAST_AT_POSITION)
        # Of a feature that never varies, rounding may leave a little.
        stuck = ~(std > 1e-12 * np.abs(self.mean))
        if stuck.any():
            layer, *_, feature = np.argwhere(stuck)[0]
            raise UsageError(
                f"feature {feature} of what leaves layer {layer} is the same for all {self.count} "
                f"{what}, or not a number: estimate the statistics from more texts"
            )
        return Statistics(self.mean, std, self.count)


def collect(model: Model, instances: Sequence[Instance], budget: int) -> Statistics:
    """Mean and deviation of each layer's outputs over all tokens, special ones included.

    Of language models the first token of a row doesn't count (``_counted``). Of pictures they are
    of each position over all pictures.

    Args:
        model: The model.
        instances: Encoded instances.
        budget: Token budget of a batch.

    Raises:
        UsageError: If there are fewer than two tokens, or a feature never varies.
    """
    check_model(model)
    check_instances(instances)
    return moments(model, instances, budget).statistics()


def _once(instances: Sequence[Instance]) -> Sequence[Instance]:
    """Instances; of questions about what follows a prompt the longest, as tokens count once."""
    if not any(instance.continuation for instance in instances):
        return instances
    keys: dict[tuple[str | None, bytes], int] = {}
    asked = [(i.row_id, b"" if i.continuation is None else i.continuation.ids) for i in instances]
    row = [keys.setdefault((of, bytes(ids)), len(keys)) for of, ids in asked]
    chosen = [instances[number] for number in longest(instances, row)]
    return [replace(i, readout=len(i) - 1, asked=None, question_kind=None) for i in chosen]


def moments(model: Model, instances: Sequence[Instance], budget: int) -> Moments:
    """The sums that the statistics of instances come from."""
    positions = () if model.grid is None else (model.grid.positions,)
    nothing = np.zeros((model.num_layers, *positions, model.hidden_size))
    instances = _once(instances)
    found = Moments(0, nothing, nothing)
    for numbers in pack([len(instance) for instance in instances], budget, model.head_size):
        batch = collate(model, [instances[number] for number in numbers])
        states = layer_outputs(model, batch.rows)
        real = _counted(model, batch)
        # A text that the model fails on fails alone, and isn't to spoil what the others have.
        real &= torch.stack([state.isfinite().all(-1) for state in states]).all(0).all(1)[:, None]
        if not real.any():
            continue
        chosen = real.all(1) if found.by_position else real
        outputs = [state[chosen].double() for state in states]
        centers = [output.mean(0) for output in outputs]
        spreads = [
            (output - center).square().sum(0)
            for output, center in zip(outputs, centers, strict=True)
        ]
        found = found.merged(
            Moments(
                int(chosen.sum()),
                torch.stack(centers).cpu().numpy(),
                torch.stack(spreads).cpu().numpy(),
            )
        )
    return found
