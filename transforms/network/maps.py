"""Attention of a run's layers, and what is made of it as a backward pass comes by.

Of long rows it is the largest that there is: [H, T, T] for each layer. What queries and keys make
once they make again, to the last bit, so that it need not be held.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, overload

import torch

# Makes attention of a layer once more, [B, H, T, T].
Again = Callable[[], torch.Tensor]
# Takes a layer's number, its attention and its gradient, [B, H, T, T] both.
Keep = Callable[[int, torch.Tensor, torch.Tensor], None]


class AttentionMaps(Sequence[torch.Tensor]):
    """Attention of each layer, first layer first; each is held, or made again when it is read.

    What was made last is held until another is: some read a layer's piece by piece.
    """

    def __init__(self, layers: Iterable[torch.Tensor | Again] = ()) -> None:
        self._layers = list(layers)
        self._made: tuple[Again, torch.Tensor] | None = None

    def append(self, layer: torch.Tensor | Again) -> None:
        """Adds that of the next layer, or what makes it."""
        self._layers.append(layer)

    def mapped(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "AttentionMaps":
        """The same, changed: what is held at once, and the rest when it is read."""

        def changed(layer: torch.Tensor | Again) -> torch.Tensor | Again:
            return change(layer) if isinstance(layer, torch.Tensor) else lambda: change(layer())

        return AttentionMaps(map(changed, self._layers))

    def __len__(self) -> int:
        return len(self._layers)

    @overload
    def __getitem__(self, number: int) -> torch.Tensor: ...

    @overload
    def __getitem__(self, number: slice) -> "AttentionMaps": ...

    def __getitem__(self, number: int | slice) -> "torch.Tensor | AttentionMaps":
        if isinstance(number, slice):
            return AttentionMaps(self._layers[number])
        layer = self._layers[number]
        if isinstance(layer, torch.Tensor):
            return layer
        if self._made is None or self._made[0] is not layer:
            self._made = None  # Never two at once.
            self._made = layer, layer()
        return self._made[1]


class Taps:
    """Where a backward pass shows each layer's attention with its gradient, and nobody holds them.

    Attributes:
        seed: What is to be differentiated by, so that a backward pass comes by; it is no number.
        keep: What is done with what is shown; set before each backward pass.
    """

    def __init__(self, device: torch.device) -> None:
        self.seed = torch.zeros((), device=device, requires_grad=True)
        self.keep: Keep = lambda number, attention, gradient: None

    def through(self, number: int, attention: torch.Tensor) -> torch.Tensor:
        """A layer's attention as it is, [B, H, T, T]; its gradient is shown."""
        apply: Callable[..., torch.Tensor] = _Tap.apply
        return apply(attention, self.seed, self, number)


class _Tap(torch.autograd.Function):
    """The identity, whose backward pass shows what it was given and the gradient."""

    @staticmethod
    def forward(
        ctx: Any, attention: torch.Tensor, seed: torch.Tensor, taps: Taps, number: int
    ) -> torch.Tensor:
        ctx.save_for_backward(attention)
        ctx.taps, ctx.number = taps, number
        return attention.view_as(attention)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        (attention,), (gradient,) = ctx.saved_tensors, gradients
        ctx.taps.keep(ctx.number, attention.detach(), gradient)
        return gradient, torch.zeros_like(ctx.taps.seed), None, None
