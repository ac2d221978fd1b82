"""Gradient times input of parts of prompts: forward where these are few, else backward.

The sum of gradients times inputs over a part is the derivative along the part's own embeddings. One
run that carries such tangents gives it for all that is asked of an input, where backward passes are
one for each question.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from attribeam.schemas import UsageError
from attribeam.transforms.inputs.batch import Batch, padded, put, row_cost
from attribeam.transforms.inputs.kinds import inputs_of
from attribeam.transforms.network.capture import Watch
from attribeam.transforms.network.model import Model
from attribeam.transforms.network.rules import RuleName
from attribeam.transforms.passes.base import Pass, Wish
from attribeam.transforms.passes.ruled import Ruled
from attribeam.transforms.recovery import fitting

if TYPE_CHECKING:
    from attribeam.transforms.passes.captured import Captured, Share

# What a tangent costs beside a backward pass.
_TANGENT = 1 / 0.8
_WATCH = Watch(tangents=True)


class Carried(NamedTuple):
    """What a run gives that carries K tangents.

    Attributes:
        logits: [B, C].
        tangents: Their derivatives along each, [K, B, C].
    """

    logits: torch.Tensor
    tangents: torch.Tensor


@dataclass(frozen=True)
class Segments(Pass[torch.Tensor]):
    """Gradient times input, summed over each of K parts of a prompt, [B, K].

    Costs 1 F and about 1.3 F a part by forward mode, which is taken where parts are fewer than 0.8
    of the questions about an input; else 1 F and a backward pass a question. The two are equal to
    rounding.

    Attributes:
        rules: Rules of relevance that derivatives follow (``network.rules``); None for none.
    """

    rules: RuleName | None

    def check(self, model: Model) -> None:
        """Checks that there are prompts."""
        if not model.speaks:
            raise UsageError(
                "sources=segments: parts of prompts are asked for, and only language models have "
                "prompts (sources=tokens)"
            )

    def is_of_inputs(self, captured: "Captured") -> bool:
        """It is: a tangent is carried once for all questions about an input."""
        return True

    def part(self, result: torch.Tensor, share: "Share") -> torch.Tensor:
        """Those of some questions."""
        return result[share.numbers]

    def ahead(self, captured: "Captured") -> bool:
        """Whether forward mode is cheaper, and possible."""
        model, batch = captured.model, captured.batch
        possible = not model.mixed and "looked_up" in model.traits
        count = _count(batch)
        return possible and 0 < count * _TANGENT < len(batch.ranks)

    def run(self, captured: "Captured", alike: Sequence[Wish]) -> torch.Tensor:
        """By forward or by reverse mode."""
        if self.ahead(captured):
            return self.of_tangents(captured, self.carried(captured).tangents)
        gradient, fed = Ruled(self.rules).run(captured, ())
        sources = sources_of(captured.batch)
        by_token = (gradient * fed).sum(-1)
        found = by_token.new_zeros(len(by_token), _count(captured.batch) + 1)
        # What is of no part is added up behind the last.
        return found.scatter_add(1, sources % found.shape[1], by_token)[:, :-1]

    def of_tangents(self, captured: "Captured", tangents: torch.Tensor) -> torch.Tensor:
        """The explained scalar's derivatives, [B, K], of those of logits, [K, B, C]."""

        def along(tangent: torch.Tensor) -> torch.Tensor:
            return _carry(captured.question, captured.logits, tangent)[1]

        with torch.no_grad():
            found: torch.Tensor = torch.func.vmap(along)(tangents)
        return found.T

    def carried(self, captured: "Captured") -> Carried:
        """Runs each input once, with tangents along the embeddings of each part."""
        model, batch = captured.model, captured.batch
        kind, rows, numbers = inputs_of(model), batch.once.rows, sources_of(batch.once)
        leaf, enter = kind.leaf(model, rows)

        def logits_at(fed: torch.Tensor) -> torch.Tensor:
            entered, rules = enter(rows, fed), Ruled(self.rules).of_network
            return captured.run_inputs(watch=_WATCH, enter=entered, rules=rules)[0]

        def along(direction: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return _carry(logits_at, leaf, direction)

        def some(start: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
            parts = torch.arange(start, min(start + size, count), device=leaf.device)
            inside = numbers == parts[:, None, None]
            of_all: Any = (None, 0)  # Logits are the same whatever is carried.
            found: tuple[torch.Tensor, torch.Tensor]
            found = torch.func.vmap(along, out_dims=of_all)(leaf * inside[..., None])
            return found

        count, cost = _count(batch), len(rows) * row_cost(rows.length, model.head_size)
        at_once, done = max(1, min(count, int(captured.budget / cost))), 0
        logits, tangents = None, list[torch.Tensor]()
        with torch.no_grad():
            while done < count:
                (logits, found), at_once = fitting(partial(some, done), at_once)
                tangents.append(found)
                done += at_once
        assert logits is not None
        return Carried(logits, torch.cat(tangents))


def _carry(
    function: Callable[[torch.Tensor], torch.Tensor], at: torch.Tensor, direction: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a function gives, and its derivative along a direction."""
    found: Any = torch.func.jvp(function, (at,), (direction,))
    return found[0], found[1]


def sources_of(batch: Batch) -> torch.Tensor:
    """Number of the part of its prompt that each token is of, [B, T]; -1 for none."""
    none = [i.sources is None for i in batch.instances]
    own = [
        np.full(len(i), -1, np.int64) if gone else np.asarray(i.sources, np.int64)
        for i, gone in zip(batch.instances, none, strict=True)
    ]
    return put(padded(own, -1, np.int64), batch.rows.device)


def _count(batch: Batch) -> int:
    """Most parts of a prompt."""
    sources = [i.sources for i in batch.instances]
    return 1 + max((int(own.max(initial=-1)) for own in sources if own is not None), default=-1)
