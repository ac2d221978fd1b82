"""One graph of a forward pass, differentiated for all that is asked of its inputs."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

import torch

from attribeam.transforms.recovery import fitting

# Of a layer's attention and its gradient, [n, H, T, T] each, what is kept.
Weigh = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
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
        attention: Each layer's attention, if they are with respect to that.
        ranks: Numbers of the questions of each rank.
        at_once: How many ranks are differentiated at once.
        weigh: What is made of each layer's attention and its gradient, if that is not to be held.
    """

    explained: torch.Tensor
    leaf: torch.Tensor | None
    attention: list[torch.Tensor]
    ranks: Sequence[torch.Tensor]
    at_once: int
    weigh: Weigh | None = None
    _held: dict[int, Sequence[torch.Tensor]] = field(init=False, default_factory=dict)

    def gradients(self, rank: int) -> Sequence[torch.Tensor]:
        """Gradients of the questions of a rank, of what inputs have, each [n, ...]; once."""
        if rank not in self._held:
            more = min(self.at_once, len(self.ranks) - rank)
            found, self.at_once = fitting(partial(self._of_next, rank), more)
            self._held = dict(enumerate(found, rank))
        return self._held.pop(rank)

    def _of_next(self, rank: int, count: int) -> list[Sequence[torch.Tensor]]:
        """Those of so many ranks."""
        wanted = [*([] if self.leaf is None else [self.leaf]), *self.attention]
        some, again = self.ranks[rank : rank + count], len(self.ranks) > 1
        if self.weigh is not None and count == 1:
            return [self._weighed(some[0], self.weigh, again=again)]
        found = by_rank(some, self.explained, wanted, again=again)
        if self.weigh is None:
            return found
        # Where there is room for several ranks, there is for gradients of all layers.
        before = len(wanted) - len(self.attention)
        weigh = self.weigh
        return [
            [*of[:before], *map(weigh, map(torch.Tensor.detach, self.attention), of[before:])]
            for of in found
        ]

    def _weighed(self, own: torch.Tensor, weigh: Weigh, *, again: bool) -> Sequence[torch.Tensor]:
        """The same of a rank, of whose gradients of attention none is held but to be weighed."""
        found: dict[int, torch.Tensor] = {}

        def keep(number: int, gradient: torch.Tensor) -> None:
            found[number] = weigh(self.attention[number].detach(), gradient)

        # Gradients of what is asked for are held: of attention that is the first layer's alone.
        wanted = [*([] if self.leaf is None else [self.leaf]), self.attention[0]]
        with ExitStack() as hooks:
            for number, attention in enumerate(self.attention[1:], 1):
                hooks.callback(attention.register_hook(partial(keep, number)).remove)
            ((*of_leaf, first),) = by_rank([own], self.explained, wanted, again=again)
        keep(0, first)
        return [*of_leaf, *(found[number] for number in range(len(self.attention)))]


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
