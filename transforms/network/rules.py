"""Rules by which relevance passes what is not linear in a network, as gradients see it.

Layer-wise relevance propagation by these rules is the gradient times the input of a network some of
whose factors are held fixed (Achtibat et al. 2024, section 3.3). What the network computes stays
as it is: a fixed factor is a detached one, so that the rules are true of gradients and of tangents
alike. They hold for one run of one model, and nothing of the network is changed for others.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from attribeam.transforms.network.parts import (
    Affine,
    FeedForward,
    HeadStep,
    Layer,
    Norm,
    unit,
)

RuleName = Literal["attnlrp", "cp_lrp"]

# What the authors of AttnLRP's code (LXT) divide by beside an activation's input.
_EPSILON = 1e-10


@dataclass(frozen=True)
class Rules:
    """What relevance does where it isn't passed by a linear map.

    At norms the deviation is fixed, at activations and soft caps the slope act(z) / z. The softmax
    has its gradient. Sums pass it as they do gradients.

    Attributes:
        name: What they are called.
        scores: Share of the gradient that passes queries, and of that which passes keys.
        values: Share of that which passes values.
        product: Share of that which passes a feed-forward part's gated product.
        gate: Whether it passes the gate too; if not, the gate is fixed.
    """

    name: RuleName
    scores: float
    values: float
    product: float
    gate: bool

    def projected(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values of any shape, as attention is to see them."""
        return part(query, self.scores), part(key, self.scores), part(value, self.values)

    def widened(
        self, inside: FeedForward, expanded: torch.Tensor, gate: torch.Tensor | None
    ) -> torch.Tensor:
        """What a feed-forward part contracts, [..., m], of what it expanded and of its gate."""
        if gate is None:
            return sloped(expanded, inside.activation(expanded), _EPSILON)
        opened = inside.activation(gate)
        opened = sloped(gate, opened, _EPSILON) if self.gate else opened.detach()
        return part(opened * expanded, self.product)

    def finish(self, layer: Layer, mixed: torch.Tensor, entered: torch.Tensor) -> torch.Tensor:
        """As ``Layer.finish``, under them."""
        hidden = entered
        for step in layer.steps:
            added = hidden
            for branch in step.branches:
                if isinstance(branch.inside, FeedForward):
                    given = hidden if branch.before is None else normed(branch.before, hidden)
                    found = self._feed_forward(branch.inside, given)
                else:
                    found = branch.inside.output(mixed)
                left = found if branch.after is None else normed(branch.after, found)
                added = left + added
            hidden = added if step.join is None else normed(step.join, added)
        return hidden

    def _feed_forward(self, inside: FeedForward, x: torch.Tensor) -> torch.Tensor:
        gate = None if inside.gate is None else inside.gate(x)
        return inside.contract(self.widened(inside, inside.expand(x), gate))

    def step(self, step: HeadStep) -> Callable[[torch.Tensor], torch.Tensor]:
        """A step of the head under them."""
        if isinstance(step, Affine):
            return step
        if isinstance(step, Norm):
            return lambda x: normed(step, x)
        if step is unit:
            return lambda x: x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).detach()
        return lambda x: sloped(x, step(x))


# AttnLRP (Achtibat et al. 2024, table 1): half of what passes a product goes to each factor, that
# of queries and keys being half of what attention's product with values leaves to it. CP-LRP (Ali
# et al. 2022): attention and gates are fixed, and values and what is gated get all.
RULES: dict[RuleName, Rules] = {
    "attnlrp": Rules("attnlrp", scores=1 / 4, values=1 / 2, product=1 / 2, gate=True),
    "cp_lrp": Rules("cp_lrp", scores=0, values=1, product=1, gate=False),
}


def part(x: torch.Tensor, share: float) -> torch.Tensor:
    """x, of which a share is passed back, and the rest is fixed."""
    if share == 0:
        return x.detach()
    # What lies between a number and itself is that number, in one step.
    return x if share == 1 else torch.lerp(x.detach(), x, share)


def sloped(entered: torch.Tensor, left: torch.Tensor, beside: float = 0) -> torch.Tensor:
    """What left an activation, of the shape of what entered it, as a product of that and a slope.

    The slope is fixed; where nothing entered it is 1, which none asks for. What is added to what
    entered moves the slope alone: what left stays as it is, to the last bit.

    Args:
        entered: What entered it.
        left: What left it.
        beside: What is added to what entered before the slope is taken.
    """
    below = entered.detach() + beside
    # Below the smallest normal number the quotient is no slope any more.
    none = below.abs() < torch.finfo(below.dtype).tiny
    slope = (left.detach() / below.masked_fill(none, 1)).masked_fill(none, 1)
    return left.detach() + (entered - entered.detach()) * slope


def normed(norm: Norm, x: torch.Tensor) -> torch.Tensor:
    """What leaves a norm, [..., d] as x, the deviation being fixed."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    left = norm.centre(wide) * (norm.weight / norm.deviation(wide.detach())).detach()
    return left if norm.bias is None else left + norm.bias


# The parts of a network under rules -----------------------------------------------------------


@contextmanager
def following(rules: Rules, layers: Sequence[Layer], current: Callable[[], bool]) -> Iterator[None]:
    """For its duration the layer norms and the feed-forward parts of layers follow rules.

    Attention, norms by root mean squares and the head are told of them by who runs these.

    Args:
        rules: The rules.
        layers: The layers.
        current: Whether the run under way is the one that the rules are for.
    """
    with ExitStack() as hooks:
        for norm in _norms(layers):
            hooks.enter_context(_norm(norm, current))
        # Layers may share their parts.
        for inside in {id(x.contract.module): x for x in _feed_forwards(layers)}.values():
            hooks.enter_context(_feed_forward(rules, inside, current))
        yield


def _norms(layers: Sequence[Layer]) -> Iterable[Norm]:
    """All layer norms within layers, those of queries and keys among them, each once."""
    modules = {id(m): m for layer in layers for m in layer.module.modules()}
    return (Norm(m) for m in modules.values() if isinstance(m, nn.LayerNorm))


def _feed_forwards(layers: Sequence[Layer]) -> Iterable[FeedForward]:
    branches = (b for layer in layers for step in layer.steps for b in step.branches)
    return (b.inside for b in branches if isinstance(b.inside, FeedForward))


@contextmanager
def _norm(norm: Norm, current: Callable[[], bool]) -> Iterator[None]:
    def replaced(_: nn.Module, args: tuple[Any, ...], left: torch.Tensor) -> torch.Tensor:
        return normed(norm, args[0]).to(left.dtype) if current() else left

    with norm.module.register_forward_hook(replaced):
        yield


@contextmanager
def _feed_forward(rules: Rules, inside: FeedForward, current: Callable[[], bool]) -> Iterator[None]:
    """What it contracts is made anew, of what its maps gave just before."""
    kept: dict[int, torch.Tensor] = {}

    def keep(module: nn.Module, _: tuple[Any, ...], left: torch.Tensor) -> None:
        if current():
            kept[id(module)] = left

    def replaced(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not current():
            return None
        expanded, gate = (
            None if x is None else x.among(kept[id(x.module)]) for x in (inside.expand, inside.gate)
        )
        assert expanded is not None
        return (rules.widened(inside, expanded, gate).to(args[0].dtype), *args[1:])

    wide = [inside.expand] if inside.gate is None else [inside.expand, inside.gate]
    with ExitStack() as hooks:
        for module in {id(x.module): x.module for x in wide}.values():
            hooks.enter_context(module.register_forward_hook(keep))
        hooks.enter_context(inside.contract.module.register_forward_pre_hook(replaced))
        yield
