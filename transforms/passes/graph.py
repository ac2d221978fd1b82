"""One graph of a forward pass, differentiated for all that is asked of its inputs."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

import torch

from attribeam.transforms.network.maps import Taps
from attribeam.transforms.recovery import fitting

# Ranks of questions that are differentiated at once, if the budget takes as many: products of
# matrices are wider then, and beyond that processors gain no more.
AT_ONCE = 4


@dataclass(eq=False)
class Graph:
    """What is differentiated once for each rank of questions.

    No input has a part in the scalar of another: one backward pass is of a question about each.

    Attributes:
        explained: The explained scalar of each question, [B].
        leaf: What inputs are fed, [n, ...], if gradients are with respect to that.
        attention: Attention of the layers from some on, if they are with respect to that.
        ranks: Numbers of the questions of each rank.
        at_once: How many ranks are differentiated at once.
        weighs: Whether these layers' attention is weighed with its gradient (``weighed``).
        holds: Of how many of the top ones the gradient is held.
        depth: How many layers there are.
        taps: What shows attention and gradients, where the graph holds no attention.
    """

    explained: torch.Tensor
    leaf: torch.Tensor | None
    attention: list[torch.Tensor]
    ranks: Sequence[torch.Tensor]
    at_once: int
    weighs: bool = False
    holds: int = 0
    depth: int = 0
    taps: Taps | None = None
    _held: dict[int, "Gradients"] = field(init=False, default_factory=dict)

    def gradients(self, rank: int) -> "Gradients":
        """Gradients of the questions of a rank, of what inputs have; once."""
        if rank not in self._held:
            more = min(self.at_once, len(self.ranks) - rank)
            found, self.at_once = fitting(partial(self._of_next, rank), more)
            self._held = dict(enumerate(found, rank))
        return self._held.pop(rank)

    def _of_next(self, rank: int, count: int) -> "list[Gradients]":
        """Those of so many ranks."""
        some, again = self.ranks[rank : rank + count], len(self.ranks) > 1
        if self.taps is not None and count == 1:
            return [self._tapped(some[0], self.taps, again=again)]
        if self.weighs and count == 1:
            return [self._weighed(some[0], again=again)]
        # Where there is room for several ranks, there is for gradients of all layers.
        wanted = [*self._leaves, *self.attention]
        found = by_rank(some, self.explained, wanted, again=again)
        return [self._of_all(gradients) for gradients in found]

    @property
    def _leaves(self) -> list[torch.Tensor]:
        return [] if self.leaf is None else [self.leaf]

    def _of_all(self, gradients: Sequence[torch.Tensor]) -> "Gradients":
        """What is made of the gradients of all that they are with respect to."""
        before = len(self._leaves)
        of_attention = gradients[before:]
        found = Gradients(next(iter(gradients[:before]), None))
        if self.weighs:
            pairs = zip(self.attention, of_attention, strict=True)
            found.weighed = [weighed(own.detach(), gradient) for own, gradient in pairs]
        found.held = list(of_attention[len(of_attention) - self.holds :])
        return found

    def _weighed(self, own: torch.Tensor, *, again: bool) -> "Gradients":
        """Those of a rank, of which those of attention are weighed as they come."""
        sieve = Sieve(self)
        # Gradients of what is asked for are held: of attention that is the lowest layer's alone.
        wanted, lowest = [*self._leaves, self.attention[0]], self.depth - len(self.attention)
        with ExitStack() as hooks:
            for number, attention in enumerate(self.attention[1:], lowest + 1):
                keep = partial(sieve.keep, number, attention.detach())
                hooks.callback(attention.register_hook(keep).remove)
            ((*of_leaf, first),) = by_rank([own], self.explained, wanted, again=again)
        sieve.keep(lowest, self.attention[0].detach(), first)
        return sieve.found(next(iter(of_leaf), None))

    def _tapped(self, own: torch.Tensor, taps: Taps, *, again: bool) -> "Gradients":
        """The same, where attention is shown with its gradient."""
        sieve = Sieve(self)
        taps.keep = sieve.keep
        wanted = [*self._leaves, taps.seed]
        ((*of_leaf, _),) = by_rank([own], self.explained, wanted, again=again)
        return sieve.found(next(iter(of_leaf), None))


@dataclass
class Gradients:
    """Gradients of questions, one about each of n inputs.

    Attributes:
        leaf: With respect to what these are fed, [n, ...]; None if nobody asked.
        weighed: Attention weighed with its gradient, [n, T, T] of each layer, if it is.
        held: Gradients with respect to the attention of the top layers, [n, H, T, T] each.
    """

    leaf: torch.Tensor | None
    weighed: list[torch.Tensor] = field(default_factory=list)
    held: list[torch.Tensor] = field(default_factory=list)


class Sieve:
    """Keeps what is to be kept of layers' attention and its gradient as these come by."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._weighed: dict[int, torch.Tensor] = {}
        self._held: dict[int, torch.Tensor] = {}

    def keep(self, number: int, attention: torch.Tensor, gradient: torch.Tensor) -> None:
        """Takes those of a layer, by its number."""
        if self._graph.weighs:
            self._weighed[number] = weighed(attention, gradient)
        if number >= self._graph.depth - self._graph.holds:
            self._held[number] = gradient

    def found(self, leaf: torch.Tensor | None) -> Gradients:
        """What was kept, and the gradient of what is fed."""
        by_layer = (
            [kept[number] for number in sorted(kept)] for kept in (self._weighed, self._held)
        )
        return Gradients(leaf, *by_layer)


def by_rank(
    ranks: Sequence[torch.Tensor],
    explained: torch.Tensor,
    wanted: Sequence[torch.Tensor],
    *,
    again: bool,
) -> list[Sequence[torch.Tensor]]:
    """Gradients of the sums of the questions of each rank, in one pass.

    Args:
        ranks: Numbers of the questions of each.
        explained: What is differentiated, [..., B].
        wanted: With respect to what.
        again: Whether the graph is needed once more.
    """
    if len(ranks) == 1:
        with torch.enable_grad():  # Whoever reads gradients need not have allowed any.
            total = explained.sum() if not again else explained[..., ranks[0]].sum()
        return [torch.autograd.grad(total, wanted, retain_graph=again)]
    of_each = explained.new_zeros(len(ranks), *explained.shape)
    for number, own in enumerate(ranks):
        of_each[number, ..., own] = 1
    found = torch.autograd.grad(
        explained, wanted, of_each, retain_graph=again, is_grads_batched=True
    )
    return [[gradients[number] for gradients in found] for number in range(len(ranks))]


def weighed(attention: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """E_h max(0, A * G) of a layer's attention and its gradient, [n, H, T, T] to [n, T, T]."""
    return (attention * gradient).clamp_(min=0).mean(1)
