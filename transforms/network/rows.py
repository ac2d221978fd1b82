"""Rows of tensors, as a network is given them, and where its predictions are read from them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Rows:
    """Padded model input, B rows of at most T positions; nothing here knows what they are made of.

    Attributes:
        inputs: What the network is fed, by its own names, each [B, ...]: of texts ``input_ids``
            and, where it tells them apart, ``token_type_ids``, [B, T].
        attention_mask: 1 for positions that are there, 0 for padding, [B, T].
        readout: Position each row's prediction is read from, [B].
        outputs: Numbers of the K outputs that are asked for, of a masked LM the ids of the correct
            and the wrong word, [B, K]; -1 stands for a logit of zero. None for all outputs.
        position_ids: [B, T], or None for the model's own numbering.
    """

    inputs: Mapping[str, torch.Tensor]
    attention_mask: torch.Tensor
    readout: torch.Tensor
    outputs: torch.Tensor | None = None
    position_ids: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.attention_mask)

    @property
    def length(self) -> int:
        """Number of positions T, padding included."""
        return self.attention_mask.shape[1]

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.attention_mask.device

    def repeated(self, times: int) -> "Rows":
        """The rows ``times`` over: row b of copy k is row k * B + b."""
        if times == 1:
            return self
        return self._each(lambda x: x.repeat(times, *[1] * (x.dim() - 1)))

    def chosen(self, numbers: torch.Tensor) -> "Rows":
        """Some of the rows, by their numbers [b]."""
        return self._each(lambda x: x[numbers])

    def alone(self, number: int) -> "Rows":
        """One of the rows as a batch of its own, without its padding."""
        length = int(self.attention_mask[number].sum())
        row = self._each(lambda x: x[number : number + 1])

        def cut(x: torch.Tensor) -> torch.Tensor:
            return x[:, :length].contiguous()

        return replace(
            row,
            inputs={name: cut(x) for name, x in row.inputs.items()},
            attention_mask=cut(row.attention_mask),
            position_ids=None if row.position_ids is None else cut(row.position_ids),
        )

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Rows":
        """Rows of which each tensor is changed alike."""
        return Rows(
            inputs={name: change(x) for name, x in self.inputs.items()},
            attention_mask=change(self.attention_mask),
            readout=change(self.readout),
            outputs=None if self.outputs is None else change(self.outputs),
            position_ids=None if self.position_ids is None else change(self.position_ids),
        )
