"""Rows of tensors, as a network is given them."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Rows:
    """Padded model input, B rows of at most T tokens.

    Attributes:
        input_ids: [B, T].
        attention_mask: 1 for tokens, 0 for padding, [B, T].
        token_types: [B, T].
        position_ids: [B, T], or None for the model's own numbering.
        readout: Position each row's prediction is read from, [B].
        outputs: Numbers of the K outputs that are asked for, of a masked LM the ids of the correct
            and the wrong word, [B, K]; -1 stands for a logit of zero. None for all outputs.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    token_types: torch.Tensor
    readout: torch.Tensor
    outputs: torch.Tensor | None
    position_ids: torch.Tensor | None = None

    def repeated(self, times: int) -> "Rows":
        """The rows ``times`` over: row b of copy k is row k * B + b."""

        def repeat(tensor: torch.Tensor | None) -> torch.Tensor | None:
            return None if tensor is None else tensor.repeat(times, *[1] * (tensor.dim() - 1))

        return self if times == 1 else Rows(**{k: repeat(v) for k, v in vars(self).items()})  # type: ignore[arg-type]

    def chosen(self, numbers: torch.Tensor) -> "Rows":
        """Some of the rows, by their numbers [b]."""
        return Rows(**{k: None if v is None else v[numbers] for k, v in vars(self).items()})  # type: ignore[arg-type]

    def alone(self, number: int) -> "Rows":
        """One of the rows as a batch of its own, without its padding."""
        row, length = slice(number, number + 1), int(self.attention_mask[number].sum())
        tokens = ("input_ids", "attention_mask", "token_types", "position_ids")
        parts = {k: None if v is None else v[row] for k, v in vars(self).items()}
        cut = {k: v if v is None or k not in tokens else v[:, :length] for k, v in parts.items()}
        return Rows(**{k: None if v is None else v.contiguous() for k, v in cut.items()})  # type: ignore[arg-type]

    def with_ids(self, input_ids: torch.Tensor) -> "Rows":
        """The same rows with other tokens."""
        return Rows(**{**vars(self), "input_ids": input_ids})
