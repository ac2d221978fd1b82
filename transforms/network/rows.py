"""Rows of tensors, as a network is given them, and where its predictions are read from them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch

Change = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Read:
    """Where Q predictions are read from B rows: each at one position, or from a mean of several.

    Attributes:
        at: Position of each, [Q]; None where they are means.
        weights: What each position counts in each mean, [Q, T]; None where there is one position.
        row: Number of the row that each is read from, [Q]; None for one of each row, in order.
        first_apart: Whether heads are given what the first position has beside the mean of all
            others, and not the sum of the two.
    """

    at: torch.Tensor | None = None
    weights: torch.Tensor | None = None
    row: torch.Tensor | None = None
    first_apart: bool = False

    @property
    def position(self) -> torch.Tensor:
        """The one position of each, [Q].

        Raises:
            ValueError: If they are means.
        """
        if self.at is None:
            raise ValueError("predictions are read from means of positions, and not from one")
        return self.at

    @property
    def alone(self) -> bool:
        """Whether one position of each row is all that is read."""
        return self.at is not None and self.row is None

    def of(self, positions: torch.Tensor) -> torch.Tensor:
        """What is read of what all positions have, [B, T, ...] to [Q, ...]."""
        if self.at is not None:
            rows = self.row
            if rows is None:
                rows = torch.arange(len(self.at), device=self.at.device)
            return positions[rows, self.at]
        assert self.weights is not None
        own = positions if self.row is None else positions[self.row]
        return torch.einsum("qt,qt...->q...", self.weights.to(own), own)

    def spread(self, values: torch.Tensor, length: int) -> torch.Tensor:
        """What is read, [Q, ...], at the T positions that it is of, [Q, T, ...]: the reverse."""
        weights = self.weights
        if weights is None:
            weights = torch.nn.functional.one_hot(self.position, length)
        return torch.einsum("qt,q...->qt...", weights.to(values), values)

    def gather(self, hidden: torch.Tensor) -> torch.Tensor:
        """What the head is given, of the states of all positions, [B, T, ..., d] to [Q, ..., n].

        n is d, or 2 d where the first position's is apart.
        """
        if not self.first_apart:
            return self.of(hidden)
        return torch.cat([part.of(hidden) for part in self._parts], -1)

    def scatter(self, given: torch.Tensor, length: int) -> torch.Tensor:
        """What the head is given, [Q, n], at the positions that it is of, [Q, T, d]."""
        if not self.first_apart:
            return self.spread(given, length)
        parts = zip(self._parts, given.chunk(2, -1), strict=True)
        first, others = (part.spread(own, length) for part, own in parts)
        return first + others

    @property
    def _parts(self) -> "tuple[Read, Read]":
        """The first position alone, and all others."""
        assert self.weights is not None
        first = torch.zeros_like(self.weights)
        first[:, 0] = self.weights[:, 0]
        return Read(weights=first, row=self.row), Read(weights=self.weights - first, row=self.row)

    def each(self, change: Change) -> "Read":
        """The same of rows that are changed alike."""
        at, weights, row = (
            None if x is None else change(x) for x in (self.at, self.weights, self.row)
        )
        return Read(at, weights, row, self.first_apart)


@dataclass(frozen=True)
class Spoken:
    """Tokens that follow one another in rows, whose log-probabilities are added up.

    Attributes:
        at: Positions that they are read from, [B, C]; 0 where a row has fewer.
        ids: Their ids in the vocabulary, [B, C]; -1 where there is none.
    """

    at: torch.Tensor
    ids: torch.Tensor

    def of(self, positions: torch.Tensor) -> torch.Tensor:
        """What is read of what all positions have, [B, T, n] to [B, C, n]."""
        return positions.gather(1, self.at[..., None].expand(-1, -1, positions.shape[-1]))

    def each(self, change: Change) -> "Spoken":
        """The same of rows that are changed alike."""
        return Spoken(change(self.at), change(self.ids))


@dataclass(frozen=True)
class Beside:
    """Of language models: what the distributions over all tokens that rows give are compared with.

    Attributes:
        states: What the head reads of other rows, [U, d]; None where nothing is compared, and the
            entropy alone is asked for.
        of: Which of them each prediction is compared with, [Q].
    """

    states: torch.Tensor | None = None
    of: torch.Tensor | None = None


@dataclass(frozen=True)
class Rows:
    """Padded model input, B rows of at most T positions; nothing here knows what they are made of.

    Attributes:
        inputs: What the network is fed, by its own names, each [B, ...]: of texts ``input_ids``
            and, where it tells them apart, ``token_type_ids``, [B, T].
        attention_mask: 1 for positions that are there, 0 for padding, [B, T].
        read: Where the Q predictions are read; Q is B unless several are read from a row.
        outputs: Numbers of the K outputs that are asked for, of a masked LM the ids of the correct
            and the wrong word, [Q, K]; -1 stands for a logit of zero. None for all outputs.
        position_ids: [B, T], or None for the model's own numbering.
        against: What features are compared with, of models that compare them, [Q, n]; None where
            features are all that is asked for.
        spoken: Of language models that are asked how likely all is that follows, what that is.
        noise: What is added to what enters the first layer, [B, T, d]; None for nothing.
        beside: Of language models what their distributions are compared with, if they are.
    """

    inputs: Mapping[str, torch.Tensor]
    attention_mask: torch.Tensor
    read: Read
    outputs: torch.Tensor | None = None
    position_ids: torch.Tensor | None = None
    against: torch.Tensor | None = None
    spoken: Spoken | None = None
    noise: torch.Tensor | None = None
    beside: Beside | None = None

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

    @property
    def readout(self) -> torch.Tensor:
        """The position that each prediction is read from, [Q].

        Raises:
            ValueError: If they are read from means.
        """
        return self.read.position

    @property
    def read_apart(self) -> "Rows":
        """What is asked of the rows, where nothing is left of them but what is read.

        That is [Q, 1, n] of one position each, and [B, C, n] of what follows one another.
        """
        spoken = self.spoken
        if spoken is not None:
            order = torch.arange(spoken.at.shape[1], device=self.device)
            spoken = Spoken(order.expand_as(spoken.at), spoken.ids)
        return replace(self, inputs={}, read=Read(at=self.read.at), spoken=spoken)

    def repeated(self, times: int) -> "Rows":
        """The rows ``times`` over, with all that is read: row b of copy k is row k * B + b."""
        if times == 1:
            return self
        row = self.read.row
        if row is None:
            return self._each(partial(_repeated, times=times))
        alone = replace(self, read=replace(self.read, row=None))
        found = alone._each(partial(_repeated, times=times))
        copies = torch.arange(times, device=row.device)[:, None] * len(self)
        return replace(found, read=replace(found.read, row=(copies + row).flatten()))

    def chosen(self, numbers: torch.Tensor) -> "Rows":
        """Some of the rows, one prediction each, by their numbers [b]."""
        return self._each(lambda x: x[numbers])

    def shared(self, first: torch.Tensor, row: torch.Tensor) -> "Rows":
        """The rows that differ, each once, with all that is read from them.

        Args:
            first: Number of the first of each that is equal, [B].
            row: Which of these each of the rows is, [Q].
        """
        once = self.chosen(first)
        read = replace(self.read, row=row)
        return replace(once, read=read, outputs=self.outputs, against=self.against)

    def alone(self, number: int) -> "Rows":
        """One of the rows as a batch of its own, without its padding."""
        length = int(self.attention_mask[number].sum())
        row = self._each(lambda x: x[number : number + 1])

        def cut(x: torch.Tensor) -> torch.Tensor:
            return x[:, :length].contiguous()

        weights = row.read.weights
        return replace(
            row,
            inputs={name: cut(x) for name, x in row.inputs.items()},
            attention_mask=cut(row.attention_mask),
            read=replace(row.read, weights=None if weights is None else cut(weights)),
            position_ids=None if row.position_ids is None else cut(row.position_ids),
            noise=None if row.noise is None else cut(row.noise),
        )

    def after(self, start: int) -> "Rows":
        """The rows without the positions before some, which nothing is read at."""
        read = replace(self.read, at=self.read.position - start)
        places = self.position_ids
        return replace(
            self,
            inputs={name: x[:, start:] for name, x in self.inputs.items()},
            attention_mask=self.attention_mask[:, start:],
            position_ids=None if places is None else places[:, start:],
            read=read,
        )

    def _each(self, change: Change) -> "Rows":
        """Rows of which each tensor is changed alike."""
        if self.read.row is not None:
            raise ValueError("several predictions are read from a row")
        return Rows(
            inputs={name: change(x) for name, x in self.inputs.items()},
            attention_mask=change(self.attention_mask),
            read=self.read.each(change),
            outputs=None if self.outputs is None else change(self.outputs),
            position_ids=None if self.position_ids is None else change(self.position_ids),
            against=None if self.against is None else change(self.against),
            spoken=None if self.spoken is None else self.spoken.each(change),
            noise=None if self.noise is None else change(self.noise),
        )


def _repeated(x: torch.Tensor, times: int) -> torch.Tensor:
    return x.repeat(times, *[1] * (x.dim() - 1))
