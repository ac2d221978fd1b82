"""Gradients at noisy copies of the input."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from attribeam.transforms.inputs.batch import row_cost
from attribeam.transforms.inputs.kinds import inputs_of
from attribeam.transforms.passes.base import Pass, Wish
from attribeam.transforms.recovery import fitting

if TYPE_CHECKING:
    from attribeam.transforms.passes.captured import Captured


@dataclass(frozen=True)
class Noisy(Pass[torch.Tensor]):
    """Mean gradient of the explained scalar over noisy copies of the input, [B, T, n].

    Noise is added to what gradients are with respect to: what enters the first layer, or pixels. It
    costs samples * (F + B).

    Attributes:
        samples: Number of copies.
        noise: Standard deviation of the noise, as a share of the distance from the smallest to the
            largest number of an instance.
    """

    samples: int
    noise: float

    @property
    def inside(self) -> bool:
        """It doesn't."""
        return False

    def run(self, captured: "Captured", alike: Sequence[Wish]) -> torch.Tensor:
        """Differentiates as many copies of the batch at once as its token budget takes."""
        model, batch = captured.model, captured.batch
        kind = inputs_of(model)
        leaf, enter = kind.leaf(model, batch.rows)
        leaf = leaf.detach()
        there = kind.there(model, batch.rows).expand_as(leaf)
        deviation = self.noise * _spread(leaf, there)
        cost = len(batch) * row_cost(batch.rows.length, model.head_size)
        at_once = min(max(1, int(captured.budget / cost)), self.samples)
        total, done = torch.zeros_like(leaf), 0

        def some(count: int) -> torch.Tensor:
            numbers = range(done, min(done + count, self.samples))
            noise = torch.stack([_drawn(captured, there, number) for number in numbers])
            points = (leaf + deviation * noise.to(leaf)).flatten(0, 1).requires_grad_()
            with torch.enable_grad():
                rows = batch.rows.repeated(len(numbers))
                logits, _ = model.run(rows, enter=enter(rows, points))
                outputs = captured.output(logits, "logit")
                (gradient,) = torch.autograd.grad(outputs.sum(), points)
            summed: torch.Tensor = gradient.unflatten(0, (len(numbers), -1)).sum(0)
            return summed

        while done < self.samples:
            found, at_once = fitting(some, at_once)
            total += found
            done += at_once
        return kind.vectors(model, total / self.samples)


def _spread(leaf: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    """From the smallest to the largest number of each instance that is no padding, [B, 1, ...]."""
    dims = tuple(range(1, leaf.dim()))
    highest = leaf.masked_fill(~there, -torch.inf).amax(dims, keepdim=True)
    return highest - leaf.masked_fill(~there, torch.inf).amin(dims, keepdim=True)


def _drawn(captured: "Captured", there: torch.Tensor, number: int) -> torch.Tensor:
    """Standard normal noise of a copy, by its number, on the host; 0 at padding.

    Each instance's is drawn from a generator of its own, in single precision whatever the model is
    in.
    """
    places = there.cpu()
    drawn = torch.zeros(places.shape)
    for own, place, instance in zip(drawn, places, captured.batch.instances, strict=True):
        random = instance.generator(captured.seed, f"smoothgrad {number}")
        own[place] = torch.from_numpy(random.standard_normal(int(place.sum()), np.float32))
    return drawn
