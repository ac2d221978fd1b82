"""A layer along a path of influence: its derivatives, of single tokens and of attention.

What enters a layer is h, and what queries, keys and values are projected from is x: h, or where a
norm is before attention, what that makes of it. With ctx the mixed values of a head, u =
output(ctx) + h is the sum that leaves attention's step, the skip connection being around norm and
attention. What follows in the layer acts on each token by itself (``finish``), wherever its norms
are. So the gradients dq/du and dq/dctx of one backward pass serve all changes of what enters: with
A the attention of a head, and dq, dk, dv the changes of its projections due to a change dh at
position c, which is dx behind the norm, what changes at query j is

    dctx_j = A_jc (dv + (q_j . dk) (v_c - ctx_j)) + [j = c] sum_x A_cx (dq . k_x) (v_x - ctx_c)

per head, its score dq/dctx_j . dctx_j, and, if j = c, dq/du_c . dh that of the skip connection. No
Jacobian is ever formed, and a change costs a single token. Where no attention is paid, nothing
changes: in a causal layer that is so of all j before c.
"""

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from attribeam.transforms.network.parts import (
    Activation,
    Affine,
    Attention,
    FeedForward,
    Layer,
    Norm,
)

# Derivatives of what acts on single tokens -----------------------------------------------------


@dataclass(frozen=True, eq=False)
class NormSlope:
    """Derivative of a norm where it was given x.

    Attributes:
        normed: x, less its mean if the norm takes that off, over its deviation, [..., d].
        scale: One over the deviation, [..., 1].
        weight: Of the norm, [d].
        centred: Whether the mean is taken off.
    """

    normed: torch.Tensor
    scale: torch.Tensor
    weight: torch.Tensor
    centred: bool

    @classmethod
    def at(cls, norm: Norm, x: torch.Tensor) -> "NormSlope":
        """The derivative of a norm at x, [..., d]."""
        centred = norm.centre(x)
        scale = (centred.square().mean(-1, keepdim=True) + norm.eps).rsqrt()
        return cls(centred * scale, scale, norm.weight.to(x), norm.centred)

    def of(self, tokens: torch.Tensor) -> "NormSlope":
        """Those of some tokens, [K, U, d] to [K, W, d]."""
        return NormSlope(self.normed[:, tokens], self.scale[:, tokens], self.weight, self.centred)

    def push(self, change: torch.Tensor) -> torch.Tensor:
        """Change of what comes out for a change of x."""
        return self._both_ways(change) * self.weight

    def pull(self, gradient: torch.Tensor) -> torch.Tensor:
        """Gradient at x for a gradient at what comes out."""
        return self._both_ways(gradient * self.weight)

    def _both_ways(self, x: torch.Tensor) -> torch.Tensor:
        """Before the weight the Jacobian is symmetric."""
        along = (x * self.normed).mean(-1, keepdim=True)
        across = x - x.mean(-1, keepdim=True) if self.centred else x.clone()
        return across.addcmul_(self.normed, along, value=-1) * self.scale


def _passed(norm: Norm | None, x: torch.Tensor) -> tuple[NormSlope | None, torch.Tensor]:
    """The derivative of a norm at x, and what comes out of it; where none is, None and x."""
    if norm is None:
        return None, x
    slope = NormSlope.at(norm, x)
    normed = slope.normed * slope.weight
    return slope, normed if norm.bias is None else normed + norm.bias.to(x)


def _push(norm: NormSlope | None, change: torch.Tensor) -> torch.Tensor:
    return change if norm is None else norm.push(change)


def _pull(norm: NormSlope | None, gradient: torch.Tensor) -> torch.Tensor:
    return gradient if norm is None else norm.pull(gradient)


def _of(norm: NormSlope | None, tokens: torch.Tensor) -> NormSlope | None:
    return None if norm is None else norm.of(tokens)


@dataclass(frozen=True, eq=False)
class FinishSlope:
    """Derivative of what a layer does to a token between u and its output (``finish``).

    Norms are None where the layer has none.

    Attributes:
        inside: The feed-forward part.
        attended: Derivative of the norm that ends attention's step, at W tokens and K points,
            [K, W, d].
        entered: That of the norm before the feed-forward part.
        expanded: What comes out of the activation, for what is expanded, [K, W, m]: the
            activation's derivative, or with a gate what that lets through.
        gated: That for the gate; None without one.
        widened: Derivative of the norm that ends the feed-forward part's step.
    """

    inside: FeedForward
    attended: NormSlope | None
    entered: NormSlope | None
    expanded: torch.Tensor
    gated: torch.Tensor | None
    widened: NormSlope | None

    @classmethod
    def at(
        cls, layer: Layer, attended: torch.Tensor, widened: torch.Tensor | None
    ) -> "FinishSlope":
        """The derivative where u is ``attended`` and the last sum ``widened``, [K, W, d] both.

        The last sum is needed only where a norm ends the layer.
        """
        first, last = layer.steps
        (branch,) = last.branches
        inside = layer.feed_forward
        join, hidden = _passed(first.join, attended)
        before, entered = _passed(branch.before, hidden)
        expanded = _through(inside.expand, entered)
        gated = None
        if inside.gate is None:
            expanded = _slope(inside.activation, expanded)
        else:
            gate = _through(inside.gate, entered)
            expanded, gated = inside.activation(gate), _slope(inside.activation, gate) * expanded
        if last.join is None:
            return cls(inside, join, before, expanded, gated, None)
        assert widened is not None
        return cls(inside, join, before, expanded, gated, NormSlope.at(last.join, widened))

    def of(self, tokens: torch.Tensor) -> "FinishSlope":
        """Those of some tokens."""
        return FinishSlope(
            self.inside,
            _of(self.attended, tokens),
            _of(self.entered, tokens),
            self.expanded[:, tokens],
            None if self.gated is None else self.gated[:, tokens],
            _of(self.widened, tokens),
        )

    def push(self, change: torch.Tensor) -> torch.Tensor:
        """Change of the layer's output for one of u, [K, W, d] both."""
        change = _push(self.attended, change)
        entered = _push(self.entered, change)
        wide = functional.linear(entered, _weight(self.inside.expand, entered)).mul_(self.expanded)
        if self.inside.gate is not None and self.gated is not None:
            gate = functional.linear(entered, _weight(self.inside.gate, entered))
            wide.addcmul_(gate, self.gated)
        added = functional.linear(wide, _weight(self.inside.contract, wide)) + change
        return _push(self.widened, added)

    def pull(self, gradient: torch.Tensor) -> torch.Tensor:
        """Gradient at u for one at the layer's output, [K, W, d] both."""
        gradient = _pull(self.widened, gradient)
        wide = gradient @ _weight(self.inside.contract, gradient)
        gate = None if self.gated is None else wide * self.gated
        entered = wide.mul_(self.expanded) @ _weight(self.inside.expand, wide)
        if self.inside.gate is not None and gate is not None:
            entered += gate @ _weight(self.inside.gate, gate)
        return _pull(self.attended, _pull(self.entered, entered) + gradient)


# Attention -------------------------------------------------------------------------------------


class Change(NamedTuple):
    """Changes of what enters a layer, each at one position, and of what is projected from it.

    Attributes:
        entered: dh, [K, W, d].
        query: dq of all heads, scaled as queries are, [K, H, W, d/H].
        key: dk.
        value: dv.
    """

    entered: torch.Tensor
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor


@dataclass(frozen=True, eq=False)
class LayerPath:
    """What a layer holds of one instance at K points of the path, and its gradients.

    Queries are those of Q positions: all T, or, in the last layer, the one read out alone.

    Attributes:
        parts: The layer, the branches of which are added one after the other, as they are.
        query: Queries times the scale of their products, [K, H, Q, d/H].
        key: Keys, those of a group for each of its heads, [K, H, T, d/H].
        value: Values, likewise.
        attention: [K, H, Q, T].
        context: Mixed values, [K, H, Q, d/H].
        attended: u, what attention's step adds up to, [K, Q, d].
        context_gradient: dq/dctx, [K, H, Q, d/H].
        attended_gradient: dq/du, [K, Q, d].
        entered: What enters the norm before attention, [K, T, d]; None where there is none.
        widened: What enters the norm that ends the layer, [K, Q, d]; None where there is none.
    """

    parts: Layer
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    attention: torch.Tensor
    context: torch.Tensor
    attended: torch.Tensor
    context_gradient: torch.Tensor
    attended_gradient: torch.Tensor
    entered: torch.Tensor | None = None
    widened: torch.Tensor | None = None

    @cached_property
    def before(self) -> NormSlope | None:
        """Derivative of the norm before attention, at all positions; None where there is none."""
        norm = self.parts.attending.before
        if norm is None:
            return None
        assert self.entered is not None
        return NormSlope.at(norm, self.entered)

    def with_more(self, more: "LayerPath") -> "LayerPath":
        """The same layer at more points of the path."""
        own = (field.name for field in fields(self) if field.name != "parts")
        pairs = {name: (getattr(self, name), getattr(more, name)) for name in own}
        joined: dict[str, Any] = {
            name: x if x is None else torch.cat([x, y]) for name, (x, y) in pairs.items()
        }
        return replace(self, **joined)

    def project(self, entered: torch.Tensor, at: torch.Tensor) -> Change:
        """Changes of queries, keys and values for changes of what enters at positions ``at``.

        Args:
            entered: The changes, [K, W, d].
            at: Where they are, [W].
        """
        return self._projected(entered, _push(_of(self.before, at), entered))

    def node_scores(self, change: Change, at: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """Influence of changes at given positions, [W], through each position of the output.

        All of the network above is open. Not for the last layer, whose output is one position.

        Args:
            change: The changes.
            at: Where they are.
            shares: Weights of the points, [K], or of several rules, [R, K].

        Returns:
            Scores, [W, T], in float64; of several rules [R, W, T].
        """
        gradient = self.context_gradient
        # How far ctx_j would move towards v_c, and what that is worth: [K, H, Q, W].
        worth = gradient @ self.value[:, :, at].mT
        worth = worth - (gradient * self.context).sum(-1, keepdim=True)
        worth = (self.query @ change.key.mT).mul_(worth).add_(gradient @ change.value.mT)
        by_point = worth.mul_(self.attention[..., at]).sum(1)
        scores = torch.einsum("...k,kqw->...wq", shares, by_point.double())
        own = (self._by_own_query(change, at) * gradient[:, :, at]).sum((1, 3))
        own = own + (self.attended_gradient[:, at] * change.entered).sum(-1)
        scores[..., torch.arange(len(at), device=at.device), at] += shares @ own.double()
        return scores

    def move(self, change: Change, at: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
        """Changes dctx at positions ``to`` for those at positions ``at``, [K, H, W, d/H]."""
        places = self._places(to)
        towards = self.value[:, :, at] - self.context[:, :, places]
        attended = (self.query[:, :, places] * change.key).sum(-1, keepdim=True)
        moved = self._from_to(at, places) * (change.value + attended * towards)
        stay = (at == to).nonzero()[:, 0]
        if len(stay):
            own = self._by_own_query(change._replace(query=change.query[:, :, stay]), at[stay])
            moved.index_add_(2, stay, own)
        return moved

    def attend(
        self, moved: torch.Tensor, skipped: torch.Tensor, entered: torch.Tensor
    ) -> torch.Tensor:
        """Changes du by what heads move, and by what skips attention, [K, W, d].

        Args:
            moved: Changes of contexts, zero for heads that are closed, [K, H, W, d/H].
            skipped: Whether the skip connection is open for a change, [W].
            entered: The changes, [K, W, d].
        """
        mixed = moved.transpose(1, 2).flatten(2)
        change = functional.linear(mixed, _weight(self._mixing.output, mixed))
        return change.addcmul_(entered, skipped.to(entered)[:, None])

    def pull(
        self, gradient: torch.Tensor, at: torch.Tensor, to: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradients at contexts and at what entered, for gradients at u, [K, W, d].

        Only what goes from the positions ``at`` to the positions ``to`` counts; ``at`` is what
        ``move`` would be given, of which this is the transpose.

        Returns:
            dq/dctx at ``to``, [K, H, W, d/H], and dq/dh at ``at``, [K, W, d].
        """
        places = self._places(to)
        back = gradient @ _weight(self._mixing.output, gradient)
        contexts = _apart(back, self._mixing.heads)
        towards = self.value[:, :, at] - self.context[:, :, places]
        shares = self._from_to(at, places)
        worth = shares * (contexts * towards).sum(-1, keepdim=True)
        entered = _back(contexts * shares, self._mixing.value, self._mixing.groups)
        keys = self.query[:, :, places] * worth
        entered += _back(keys, self._mixing.key, self._mixing.groups)
        stay = (at == to).nonzero()[:, 0]
        if len(stay):
            own, place = contexts[:, :, stay], places[stay]
            worth = own @ self.value.mT - (own * self.context[:, :, place]).sum(-1, keepdim=True)
            queries = (worth * self.attention[:, :, place]) @ self.key * self._mixing.scale
            entered.index_add_(1, stay, _back(queries, self._mixing.query))
        entered = _pull(_of(self.before, at), entered)
        return contexts, entered.index_add_(1, stay, gradient[:, stay])

    def move_all(self, entered: torch.Tensor) -> torch.Tensor:
        """Changes of all contexts for changes of all that enters, [K, T, d] to [K, H, T, d/H].

        Not for the last layer, which has one context.
        """
        change = self._projected(entered, _push(self.before, entered))
        scores = (self.query @ change.key.mT).add_(change.query @ self.key.mT)
        shares = scores.mul_(self.attention)
        own = shares.sum(-1, keepdim=True)
        moved = self.attention @ change.value + shares @ self.value
        return moved.addcmul_(self.context, own, value=-1)

    def pull_all(self, readout: int) -> torch.Tensor:
        """Gradient at all that enters, dq/dh, with all of the network above open, [K, T, d].

        Args:
            readout: Which position the query is of, where there is but one.
        """
        gradient, mixing = self.context_gradient, self._mixing
        worth = gradient @ self.value.mT - (gradient * self.context).sum(-1, keepdim=True)
        scores = worth.mul_(self.attention)
        entered = _back(scores.mT @ self.query, mixing.key, mixing.groups)
        entered += _back(self.attention.mT @ gradient, mixing.value, mixing.groups)
        queries = _back(scores @ self.key * mixing.scale, mixing.query)
        alone = queries.shape[1] < entered.shape[1]
        of_queries = slice(readout, readout + 1) if alone else slice(None)
        entered[:, of_queries] += queries
        entered = _pull(self.before, entered)
        entered[:, of_queries] += self.attended_gradient
        return entered

    def finish(self, to: torch.Tensor) -> FinishSlope:
        """Derivative of what follows attention, at positions [W]; each is looked at once."""
        places, tokens = torch.unique(self._places(to), return_inverse=True)
        widened = None if self.widened is None else self.widened[:, places]
        found = FinishSlope.at(self.parts, self.attended[:, places], widened)
        return found.of(tokens) if len(places) > 1 else found

    @property
    def _mixing(self) -> Attention:
        return self.parts.attention

    def _projected(self, entered: torch.Tensor, x: torch.Tensor) -> Change:
        """Changes of what is projected for changes of x, [K, W, d]; those of h come along."""
        mixing = self._mixing
        query, key, value = (
            functional.linear(x, _weight(linear, x))
            for linear in (mixing.query, mixing.key, mixing.value)
        )
        return Change(
            entered,
            _apart(query, mixing.heads) * mixing.scale,
            mixing.shared(_apart(key, mixing.groups)),
            mixing.shared(_apart(value, mixing.groups)),
        )

    def _places(self, positions: torch.Tensor) -> torch.Tensor:
        """Numbers of the queries of some positions, [W]."""
        alone = self.query.shape[2] < self.key.shape[2]
        return torch.zeros_like(positions) if alone else positions

    def _from_to(self, at: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Attention that queries pay to one position each, [K, H, W, 1]."""
        return self.attention[:, :, places, at][..., None]

    def _by_own_query(self, change: Change, at: torch.Tensor) -> torch.Tensor:
        """What the change of a position's own query adds to its dctx, [K, H, W, d/H]."""
        places = self._places(at)
        scores = (change.query @ self.key.mT).mul_(self.attention[:, :, places])
        moved = scores @ self.value
        return moved.addcmul_(self.context[:, :, places], scores.sum(-1, keepdim=True), value=-1)


def _apart(x: torch.Tensor, count: int) -> torch.Tensor:
    """Of so many heads or groups side by side, [K, W, n] to [K, H, W, n/H]."""
    apart: torch.Tensor = x.unflatten(-1, (count, -1))
    return apart.transpose(1, 2)


def _back(x: torch.Tensor, linear: Affine, count: int | None = None) -> torch.Tensor:
    """[K, H, W, n] of what is projected to [K, W, d] of what is projected from.

    Args:
        x: By head.
        linear: The projection.
        count: Of how many groups it is, if heads share what is projected; what they have is summed.
    """
    if count is not None and count < x.shape[1]:
        x = x.unflatten(1, (count, -1)).sum(2)
    return x.transpose(1, 2).flatten(2) @ _weight(linear, x)


# Maps ------------------------------------------------------------------------------------------


def _weight(linear: Affine, like: torch.Tensor) -> torch.Tensor:
    return linear.weight.to(like)


def _through(linear: Affine, x: torch.Tensor) -> torch.Tensor:
    bias = None if linear.bias is None else linear.bias.to(x)
    return functional.linear(x, _weight(linear, x), bias)


def _slope(activation: Activation, wide: torch.Tensor) -> torch.Tensor:
    """Derivative of the activation, element by element."""
    with torch.enable_grad():
        wide = wide.detach().requires_grad_()
        (slope,) = torch.autograd.grad(activation(wide).sum(), wide)
    return slope
