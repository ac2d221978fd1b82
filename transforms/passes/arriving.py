"""What comes to the position that is read, from each token through attention, and what it makes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from attribeam.transforms.network.parts import Layer

if TYPE_CHECKING:
    from attribeam.transforms.passes.captured import Captured


@dataclass(frozen=True, eq=False)
class Arriving:
    """A layer, seen from what is read of it: one position of each of B instances, or their mean.

    All is in float32 at least.

    Attributes:
        layer: The layer.
        entered: What enters it where it is read, [B, d].
        weights: Attention paid from there, [B, H, T], over the deviation of a norm of what
            attention adds, if there is one.
        values: Values of all heads, biases included, [B, H, T, d/H].
        added: What attention adds there in all, [B, d].
    """

    layer: Layer
    entered: torch.Tensor
    weights: torch.Tensor
    values: torch.Tensor
    added: torch.Tensor

    @classmethod
    def of(cls, captured: "Captured", number: int) -> "Arriving":
        """That of a layer of a capture with attention and what passed its layers."""
        layer, seen = captured.model.layers[number], captured.inputs
        state, read = seen.layers[number], captured.batch.inputs.read
        kind = torch.promote_types(state.entered.dtype, torch.float32)
        attention, after = seen.attention[number].to(kind), layer.attending.after
        shared = layer.attention.shared(state.values.to(kind))
        rows = attention
        if after is None:
            own = read.of(attention.transpose(1, 2))
            mixed = torch.einsum("bht,bhte->bhe", own, captured.asked(shared)).flatten(1)
            added = layer.attention.output(mixed)
        else:
            projected = layer.attention.output((rows @ shared).transpose(1, 2).flatten(2))
            own = read.of((rows / after.deviation(projected)[:, None]).transpose(1, 2))
            added = read.of(after.exact(projected))
        return cls(layer, read.of(state.entered).to(kind), own, captured.asked(shared), added)

    def through_heads(self) -> Iterator[torch.Tensor]:
        """What each token sends through each head in turn, [B, T, d], biases of values included."""
        attention, after = self.layer.attention, self.layer.attending.after
        outputs = attention.output.weight.T.unflatten(0, (attention.heads, -1)).to(self.entered)
        for head, output in enumerate(outputs):
            sent = self.weights[:, head, :, None] * (self.values[:, head] @ output)
            yield sent if after is None else after.centre(sent) * after.weight

    def sent(self) -> torch.Tensor:
        """What each token sends through all heads, [B, T, d]."""
        total = torch.zeros_like(self.entered[:, None])
        for head in self.through_heads():
            total = total + head
        return total
