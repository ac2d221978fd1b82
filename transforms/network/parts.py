"""What transformers are made of: one vocabulary for every order in which layers pass their parts.

A layer is a sequence of steps. A step is x -> join(x + sum of after(inside(before(x)))) over its
branches, where every norm may be lacking: post-LN layers have joins, pre-LN layers what comes
before, sandwich norms what comes before and after, and parallel layers two branches in one step.
No method is known here, and nothing that knows a method knows an order.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

Activation = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class Affine:
    """A map x W^T + b, as a view of a module.

    Attributes:
        module: What computes it, perhaps with others: a ``Linear``, or GPT-2's transposed one.
        outputs: Which of the module's outputs it is, where weights of several maps are fused; a
            slice, or their numbers. None for all.
        scale: What each output is multiplied by (LayerScale), [m]: a part of W and b. None for 1.
    """

    module: nn.Module
    outputs: slice | torch.Tensor | None = None
    scale: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.module, nn.Linear | Conv1D):
            raise TypeError(f"a linear map is a {type(self.module).__name__}, not a Linear")

    @classmethod
    def split(cls, module: nn.Module, count: int) -> "list[Affine]":
        """Several maps of as many outputs each, which one module computes."""
        size = len(cls(module).weight) // count
        return [cls(module, slice(at * size, (at + 1) * size)) for at in range(count)]

    @property
    def weight(self) -> torch.Tensor:
        """W, [m, n]."""
        weight: torch.Tensor = self.module.weight  # type: ignore[assignment]
        if isinstance(self.module, Conv1D):
            weight = weight.T
        if self.outputs is not None:
            weight = weight[self.outputs]
        return weight if self.scale is None else weight * self.scale[:, None]

    @property
    def bias(self) -> torch.Tensor | None:
        """b, [m]; None if there is none."""
        bias: torch.Tensor | None = self.module.bias  # type: ignore[assignment]
        if bias is not None and self.outputs is not None:
            bias = bias[self.outputs]
        return bias if bias is None or self.scale is None else bias * self.scale

    def chosen(self, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows of W, [B, k, n], and of b, [B, k], by their numbers, [B, k]; zeros for -1."""
        none = numbers < 0
        places = numbers.clamp(min=0)
        weight = self.weight[places].masked_fill(none[..., None], 0)
        if self.bias is None:
            return weight, weight.new_zeros(numbers.shape)
        return weight, self.bias[places].masked_fill(none, 0)

    def among(self, left: torch.Tensor) -> torch.Tensor:
        """What it gives, [..., m], among all that its module gave."""
        own = left if self.outputs is None else left[..., self.outputs]
        return own if self.scale is None else own * self.scale

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Passes x, [..., n], through it: through the module, where it is all of that."""
        if self.outputs is None:
            result: torch.Tensor = self.module(x)
            return result if self.scale is None else result * self.scale
        return functional.linear(x, self.weight, self.bias)


def is_root_mean_square(module: nn.Module) -> bool:
    """Whether a module is a norm by the root mean square, of which each family has its own."""
    return "RMSNorm" in type(module).__name__


@dataclass(frozen=True, eq=False)
class Norm:
    """A norm c(x) w / deviation(x) + b: a layer norm, where c centres, or a root mean square.

    Attributes:
        module: What computes it.
        shift: What is added to the module's weight to make w (Gemma's weights are w - 1).
    """

    module: nn.Module
    shift: float = 0.0

    def __post_init__(self) -> None:
        if not self.centred and not is_root_mean_square(self.module):
            raise TypeError(f"a norm is a {type(self.module).__name__}, not a LayerNorm")

    @property
    def centred(self) -> bool:
        """Whether the mean is taken off first."""
        return isinstance(self.module, nn.LayerNorm)

    @property
    def weight(self) -> torch.Tensor:
        """w, [d]."""
        weight: torch.Tensor = self.module.weight  # type: ignore[assignment]
        return weight + self.shift if self.shift else weight

    @property
    def bias(self) -> torch.Tensor | None:
        """b, [d]; None if there is none."""
        return getattr(self.module, "bias", None)

    @property
    def eps(self) -> float:
        """What is added to the variance."""
        module = self.module
        return float(module.eps if hasattr(module, "eps") else module.variance_epsilon)  # type: ignore[arg-type]

    def centre(self, x: torch.Tensor) -> torch.Tensor:
        """c(x)."""
        return x - x.mean(-1, keepdim=True) if self.centred else x

    def deviation(self, x: torch.Tensor) -> torch.Tensor:
        """What c(x) is divided by, [..., 1] of x [..., d]."""
        squares = x.square().mean(-1, keepdim=True)
        variance = x.var(-1, correction=0, keepdim=True) if self.centred else squares
        return (variance + self.eps).sqrt()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Passes x, [..., d].

        transformers computes root mean squares in float32, also of float64: these are ours.
        """
        if self.centred or x.dtype != torch.float64:
            result: torch.Tensor = self.module(x)
            return result
        return self.exact(x)

    def exact(self, x: torch.Tensor) -> torch.Tensor:
        """Passes x, [..., d], in its own type."""
        normed = self.centre(x) / self.deviation(x) * self.weight
        return normed if self.bias is None else normed + self.bias


@dataclass(frozen=True, eq=False)
class Attention:
    """Attention over all positions, but for the probabilities, which are recorded.

    Attributes:
        query: Of all heads, side by side.
        key: Of all groups.
        value: Of all groups.
        output: From the mixed values of all heads.
        heads: Their number.
        groups: Number of keys and values, each shared by as many heads; that of the heads where
            every head has its own.
        moves: Whether scores are of something else than the products of projected queries and keys:
            these are turned by their positions, say, or what lies between them is added.
        factor: What the products are multiplied by; None for 1 over the root of a head's size.
        dropout: What probabilities pass through on their way, of families whose attention is not
            looked up in transformers' registry; None where it is.
    """

    query: Affine
    key: Affine
    value: Affine
    output: Affine
    heads: int
    groups: int
    moves: bool = False
    factor: float | None = None
    dropout: nn.Module | None = None

    @property
    def scale(self) -> float:
        """What products of queries and keys are multiplied by."""
        if self.factor is not None:
            return self.factor
        size: int = len(self.query.weight) // self.heads
        return float(size**-0.5)

    @property
    def absorbs(self) -> bool:
        """Whether the scores of one query can be had without forming keys (``readout``)."""
        return not self.moves and self.groups == self.heads

    def mix(self, entered: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
        """Mixed values of all heads, side by side: [B, T, d] and [B, H, S, T] to [B, S, d]."""
        values = self.value(entered).unflatten(-1, (self.groups, -1)).transpose(1, 2)
        return (probabilities @ self.shared(values)).transpose(1, 2).flatten(2)

    def shared(self, of_groups: torch.Tensor) -> torch.Tensor:
        """What groups have, [..., G, T, n], by head, [..., H, T, n]."""
        if self.heads == self.groups:
            return of_groups
        return of_groups.repeat_interleave(self.heads // self.groups, -3)


@dataclass(frozen=True, eq=False)
class FeedForward:
    """What a layer does to each position by itself: contract(activation(expand(x))).

    Attributes:
        expand: To more units.
        activation: Of each unit.
        contract: And back.
        gate: With one, that is what the activation is of, and what is expanded is multiplied by it.
    """

    expand: Affine
    activation: Activation
    contract: Affine
    gate: Affine | None = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Passes x, [..., d]."""
        wide = self.expand(x)
        if self.gate is None:
            return self.contract(self.activation(wide))
        return self.contract(self.activation(self.gate(x)) * wide)


@dataclass(frozen=True, eq=False)
class Branch:
    """What is added to what passes it by: after(inside(before(x)))."""

    inside: Attention | FeedForward
    before: Norm | None = None
    after: Norm | None = None

    def enter(self, x: torch.Tensor) -> torch.Tensor:
        """What its inside is given."""
        return x if self.before is None else self.before(x)

    def leave(self, inside: torch.Tensor) -> torch.Tensor:
        """What is added, of what its inside gives."""
        return inside if self.after is None else self.after(inside)


@dataclass(frozen=True, eq=False)
class Step:
    """Branches that are added to the same x, and the norm after that."""

    branches: tuple[Branch, ...]
    join: Norm | None = None

    def add(self, x: torch.Tensor, mixed: torch.Tensor | None = None) -> torch.Tensor:
        """The sum that enters the join: x and what its branches add.

        Args:
            x: What passes by, [B, S, d].
            mixed: Mixed values of all heads at the same positions, if there is attention among
                the branches.
        """
        if mixed is None:
            return self.add_projected(x)
        (output,) = (b.inside.output for b in self.branches if isinstance(b.inside, Attention))
        return self.add_projected(x, output(mixed))

    def add_projected(self, x: torch.Tensor, projected: torch.Tensor | None = None) -> torch.Tensor:
        """As ``add``, of what attention's mixed values are projected to, [B, S, d]."""
        added = x
        for branch in self.branches:
            if isinstance(branch.inside, FeedForward):
                found = branch.inside(branch.enter(x))
            elif projected is not None:
                found = projected
            else:
                raise ValueError("attention has a part in this step, and no mixed values are given")
            added = branch.leave(found) + added
        return added

    def leave(self, added: torch.Tensor) -> torch.Tensor:
        """What leaves it, of the sum."""
        return added if self.join is None else self.join(added)


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer: attention has a part in its first step.

    Attributes:
        steps: What it does, one after the other.
        module: What computes it.
        tupled: Whether the module gives two things, what leaves the layer and its attention.
    """

    steps: tuple[Step, ...]
    module: nn.Module
    tupled: bool = False

    @cached_property
    def attending(self) -> Branch:
        """The branch that attention is in."""
        (branch,) = (b for b in self.steps[0].branches if isinstance(b.inside, Attention))
        return branch

    @cached_property
    def attention(self) -> Attention:
        """Its attention."""
        inside = self.attending.inside
        assert isinstance(inside, Attention)
        return inside

    @property
    def gated(self) -> bool:
        """Whether a feed-forward part of it has a gate."""
        parts = (branch.inside for step in self.steps for branch in step.branches)
        return any(isinstance(part, FeedForward) and part.gate is not None for part in parts)

    @cached_property
    def feed_forward(self) -> FeedForward:
        """Its feed-forward part."""
        (found,) = (
            branch.inside
            for step in self.steps
            for branch in step.branches
            if isinstance(branch.inside, FeedForward)
        )
        return found

    @property
    def post_ln(self) -> bool:
        """Whether all its sums are normalised, those of attention and of the feed-forward part."""
        return all(step.join and len(step.branches) == 1 for step in self.steps)

    @property
    def serial(self) -> bool:
        """Whether its branches are added one after the other, each as it is."""
        return all(len(s.branches) == 1 and s.branches[0].after is None for s in self.steps)

    @property
    def linears(self) -> list[Affine]:
        """All its maps."""
        mixing, wide = self.attention, self.feed_forward
        maps = [mixing.query, mixing.key, mixing.value, mixing.output, wide.expand, wide.contract]
        return maps if wide.gate is None else [*maps, wide.gate]

    def norm_of_sum(self, number: int) -> Norm | None:
        """The norm whose module is given the sum of a step; None if that leaves the layer as it is.

        That is its join, or one that is before a branch of the next step.
        """
        number %= len(self.steps)
        if (join := self.steps[number].join) is not None or number == len(self.steps) - 1:
            return join
        return next(branch.before for branch in self.steps[number + 1].branches if branch.before)

    def attend(self, entered: torch.Tensor) -> torch.Tensor:
        """What queries, keys and values are projected from, of what enters the layer."""
        return self.attending.enter(entered)

    def finish(self, mixed: torch.Tensor, entered: torch.Tensor) -> torch.Tensor:
        """What leaves it, of the mixed values of all heads and of what enters, [B, S, d] both."""
        return self.conclude(self.steps[0].add(entered, mixed))

    def conclude(self, added: torch.Tensor) -> torch.Tensor:
        """What leaves it, of the sum of its first step, [..., d]."""
        first, *others = self.steps
        hidden = first.leave(added)
        for step in others:
            hidden = step.leave(step.add(hidden))
        return hidden

    def replay(self, entered: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
        """What leaves it, [B, T, d], of what enters and its attention alone, [B, H, T, T]."""
        return self.finish(self.attention.mix(self.attend(entered), probabilities), entered)


@dataclass(frozen=True, eq=False)
class Embedding:
    """What is done to words before they enter the first layer.

    Word embeddings, those of positions and token types are added up; the sum may be normalised, and
    projected after that.

    Attributes:
        words: The table of words; None if there are none. What it gives may be more than its rows:
            Gemma's multiplies them.
        norm: Of the sum.
        projection: After that.
    """

    words: nn.Embedding | None
    norm: Norm | None = None
    projection: Affine | None = None


def unit(x: torch.Tensor) -> torch.Tensor:
    """Vectors [..., n] over their lengths: a step of heads that compare directions (CLIP)."""
    found: torch.Tensor = x / torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return found


@dataclass(frozen=True)
class Softcap:
    """A step of heads whose logits stay within a limit: limit * tanh(x / limit) (Gemma-2).

    Attributes:
        limit: The limit.
    """

    limit: float

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Caps logits [..., V]."""
        return (x / self.limit).tanh() * self.limit

    def slope(self, x: torch.Tensor) -> torch.Tensor:
        """What is left of logits [..., V], as a share of them; 1 of those that are 0."""
        none = x == 0
        return (self(x) / x.masked_fill(none, 1)).masked_fill(none, 1)


HeadStep = Affine | Norm | Activation
