"""Layer-wise relevance propagation through a transformer's layers and its head, in float64.

Relevance begins at the logits. Rules that look at what passed through a part of the network hand it
back from what left the part to what entered it (Bach et al. 2015). Norms, activations and the
softmax hand it on as it is, wherever they are; biases get none. The rules are those for
transformers of Chefer et al. 2021 (CVPR, sections 3.1 and 3.2), in the two forms of their code:

* ``cvpr21``: a linear map shares relevance in proportion to the positive contributions, and an
  addition is rescaled so that its terms share what their sum had.
* ``orig``: positive inputs with positive weights share all of the relevance, and so do negative
  inputs with negative weights, which may double it; additions are not rescaled.

Of ViT the authors' code has another attention: queries, keys and values are one map
(``PassedAttention.fused``). There are no rules for gates, for scores of attention that are more
than products of queries and keys, and for sums of more than two terms: models that have such are
outside (``TRAITS``). So are heads that divide features by their lengths.

Rules divide by numbers that may be near zero, which single precision does not survive. So the whole
network is run again in float64, with weights that are cast a layer at a time.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch.nn import functional

from attribeam.transforms.inputs.kinds import inputs_of
from attribeam.transforms.network.model import Model, Trait
from attribeam.transforms.network.parts import (
    Affine,
    Attention,
    Branch,
    FeedForward,
    Layer,
    Norm,
    Step,
)
from attribeam.transforms.network.rows import Rows
from attribeam.transforms.passes.base import Pass, Wish

if TYPE_CHECKING:
    from attribeam.transforms.passes.captured import Captured

Rules = Literal["cvpr21", "orig"]
# What the rules ask of a model.
TRAITS: tuple[Trait, ...] = ("serial", "ungated", "products", "position", "lengths")

_STABILISER = 1e-9
# Pairs of tokens, of all heads and layers of a row, of which all is held that passes.
_HELD = 1 << 26


class RelevanceMaps(NamedTuple):
    """Where the relevance of the explained scalar arrived, in float64.

    Attributes:
        attention: By layer, at its attention probabilities, each [B, H, T, T]; zero at padding, and
            in the last layer in every row but that of the position read out.
        entered: At what enters the lowest layer that was walked through, [B, T, d]; zero at
            padding. Of pictures and all layers, at the pixels of each patch.
    """

    attention: dict[int, torch.Tensor]
    entered: torch.Tensor


@torch.no_grad()
def walk(
    model: Model, rows: Rows, weights: torch.Tensor, rules: Rules, lowest: int = 0
) -> RelevanceMaps:
    """Walks the relevance of weighted logits back to what enters a layer.

    The relevance of a weighted sum is the weighted sum of relevances. Under ``orig`` one walk that
    begins with the weights gives that, for relevance is linear in what it begins with. Under
    ``cvpr21`` it isn't: two words with weights 1 and -1 begin with a total of zero, and additions,
    which keep totals, would let nothing but rounding through. So each logit that has a weight has a
    walk of its own.

    Args:
        model: The model; its weights stay as they are.
        rows: B padded rows of at most T tokens.
        weights: Weights of the logits in the explained scalar, [B, C]: one-hot, or +1 and -1 for
            what is contrasted.
        rules: ``cvpr21`` or ``orig``.
        lowest: The last layer to walk through, 0 for all of them.

    Returns:
        The relevance. It has no unit; a classifier's begins as 1.

    Raises:
        ValueError: If the model is a masked LM and the rows have no words to contrast.
    """
    passed = forward(model, rows, lowest)
    entered = passed.entered
    weights = weights.double()
    # What K walks begin with, [K, B, C], and the weights of their ends, [K, B].
    starts, shares = weights[None], torch.ones_like(weights[None, :, 0])
    count = int((weights != 0).sum(-1).max())
    if rules == "cvpr21" and count > 1:
        chosen = weights.abs().topk(count).indices
        starts = functional.one_hot(chosen.T, weights.shape[-1]).to(weights)
        shares = weights.gather(1, chosen).T
    relevance = starts[:, :, None]
    for linear in reversed(passed.head):
        relevance = linear.back(relevance, rules)
    # One position was read of all, of what the norms that layers may end with let out.
    relevance = _copied(passed.head[0].entered, relevance)
    attention = {}
    while passed.layers:
        # What passed through a layer is let go of when the walk has.
        reached, relevance = passed.layers.pop()().back(relevance, rules)
        number = lowest + len(passed.layers)
        attention[number] = torch.einsum("kb,kbhqt->bhqt", shares, reached)
    if model.grid is not None and lowest == 0:
        relevance = _of_pixels(model, rows, entered, relevance, rules)
    return RelevanceMaps(attention, torch.einsum("kb,kbtd->btd", shares, relevance))


# Forward --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Linear:
    """What passed through a linear map x W^T + b, in float64.

    Attributes:
        weight: W as the model has it, [m, n], or one per row, [B, m, n].
        bias: b, [m] or [B, 1, m], or None.
        entered: x, [B, Q, n].
        left: What came out, [B, Q, m].
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    entered: torch.Tensor
    left: torch.Tensor

    @classmethod
    def through(
        cls, module: Affine, entered: torch.Tensor, chosen: torch.Tensor | None = None
    ) -> "Linear":
        """Passes x through a module, or through the rows of it chosen for each row, [B, m]."""
        weight, bias = module.weight, module.bias
        if chosen is not None:
            weight, bias = module.chosen(chosen)
            bias = bias[:, None]
        left = entered @ weight.double().mT
        return cls(weight, bias, entered, left if bias is None else left + bias)

    def back(self, relevance: torch.Tensor, rules: Rules) -> torch.Tensor:
        """Relevance of what came out, [K, B, Q, m], to that of what entered, [K, B, Q, n].

        With alpha = 1 and beta = 0: x_i gets sum_j R_j max(0, x_i W_ji) / sum_i max(0, x_i W_ji),
        where ``orig`` has one such sum over the positive x_i and another over the negative.
        """
        weight = self.weight.double()
        upper, lower = weight.clamp(min=0), weight.clamp(max=0)
        more, less = self.entered.clamp(min=0), self.entered.clamp(max=0)
        if rules == "cvpr21":
            # All contributions and all of their sizes add up to twice the positive ones; the former
            # are there already, so that one product does instead of two.
            together = self.left if self.bias is None else self.left - self.bias
            sizes = (more - less) @ (upper - lower).mT
            of_more = of_less = _divide(relevance, (together + sizes) / 2)
        else:
            of_more = _divide(relevance, more @ upper.mT)
            of_less = _divide(relevance, less @ lower.mT)
        return more * (of_more @ upper) + less * (of_less @ lower)


@dataclass(frozen=True)
class PassedAttention:
    """What passed through attention, for Q of the T positions as queries, in float64.

    Attributes:
        parts: Its maps.
        place: One where the query of a row is, [B, T, 1], if Q is 1; None if all positions are.
        query: Of all heads, [B, Q, d] left, as ``output``.
        key: Of all groups, [B, T, ...] left.
        value: Of all groups, [B, T, ...] left.
        fused: Whether queries, keys and values are one map, whose three relevances are added up,
            and their products are neither scaled nor masked, as the authors' code has it of ViT.
        products: Queries times keys, without scale or mask, [B, H, Q, T].
        probabilities: Their softmax, [B, H, Q, T].
        output: From mixed values.
    """

    parts: Attention
    place: torch.Tensor | None
    fused: bool
    query: Linear
    key: Linear
    value: Linear
    products: torch.Tensor
    probabilities: torch.Tensor
    output: Linear

    def back(self, relevance: torch.Tensor, rules: Rules) -> tuple[torch.Tensor, torch.Tensor]:
        """Relevance of what attention gave, [K, B, Q, d], to that of what it was given.

        Returns:
            At the attention probabilities, [K, B, H, T, T], and at what entered, [K, B, T, d].
        """
        attention, inputs = self._unmixed(self.output.back(relevance, rules), rules)
        if self.place is not None:
            # From the one query to its place among all of them.
            attention = attention * self.place[:, None]
            inputs[0] = inputs[0] * self.place
        if self.fused:
            return attention, sum(inputs[1:], inputs[0])
        return attention, _copied(self.key.entered, *inputs)

    def _unmixed(
        self, mixed: torch.Tensor, rules: Rules
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Relevance of mixed values, [K, B, Q, d], to that of what they were mixed from.

        Returns:
            At the probabilities, [K, B, H, Q, T], and at what entered queries, keys and values.
        """
        heads, groups, shared = self.parts.heads, self.parts.groups, self.parts.shared
        query = _split(self.query.left, heads)
        key, value = (shared(_split(x.left, groups)) for x in (self.key, self.value))
        left = _split(self.output.entered, heads)
        attention, values = _multiplied(_split(mixed, heads), self.probabilities, value, left)
        masked = attention
        if not self.fused:
            # The mask is added to the scores; it is zero wherever relevance is not.
            scores = self.parts.scale * self.products
            masked = scores * _divide(attention, scores)
            if rules == "cvpr21":
                (masked,) = _rescaled(attention, masked)
        queries, keys = _multiplied(masked, query, key.mT, self.products)
        return attention, [
            self.query.back(_merged(queries), rules),
            self.key.back(_merged(_of_groups(keys.mT, groups)), rules),
            self.value.back(_merged(_of_groups(values, groups)), rules),
        ]


@dataclass(frozen=True)
class PassedFeedForward:
    """What passed through a feed-forward part, in float64.

    Attributes:
        passing: What it was added to, [B, Q, d].
        expand: From what it was given.
        contract: From what the activation let out.
    """

    passing: torch.Tensor
    expand: Linear
    contract: Linear

    def back(self, relevance: torch.Tensor, rules: Rules) -> torch.Tensor:
        """Relevance of what left its step to that of what entered the step, [K, B, Q, d]."""
        widened, kept = _added(relevance, self.contract.left, self.passing, rules)
        widened = self.expand.back(self.contract.back(widened, rules), rules)
        return _copied(self.passing, widened, kept)


@dataclass(frozen=True)
class PassedLayer:
    """What passed through a layer for Q of its T positions as queries, in float64.

    Attributes:
        entered: What entered it, [B, T, d].
        own: That at the queries' positions, [B, Q, d].
        attention: What passed through the attention of its first step.
        others: What passed through the feed-forward parts of all others.
    """

    entered: torch.Tensor
    own: torch.Tensor
    attention: PassedAttention
    others: list[PassedFeedForward]

    def back(self, relevance: torch.Tensor, rules: Rules) -> tuple[torch.Tensor, torch.Tensor]:
        """Relevance of what left the layer, [K, B, Q, d], to that of its attention and its input.

        Returns:
            At the attention probabilities, [K, B, H, T, T], and at what entered, [K, B, T, d].
        """
        for wide in reversed(self.others):
            relevance = wide.back(relevance, rules)
        mixed, own = _added(relevance, self.attention.output.left, self.own, rules)
        attention, inputs = self.attention.back(mixed, rules)
        if self.attention.place is not None:
            own = own * self.attention.place
        # Copied to queries, keys and values, and before that to all of these and the residual; at
        # once would be the same but for the stabiliser.
        return attention, _copied(self.entered, inputs, own)


# What passed through a layer, and what left it, [B, Q, d].
_Through = tuple[PassedLayer, torch.Tensor]


@dataclass(frozen=True)
class Passed:
    """What passed through a model, in float64.

    Attributes:
        entered: What entered the first layer, [B, T, d].
        layers: What gives that of its layers, from some on; the last one is for the position read
            out alone. Of long rows it is computed again when it is asked for.
        head: The linear maps from there to the logits, [B, 1, ...] each.
    """

    entered: torch.Tensor
    layers: list[Callable[[], PassedLayer]]
    head: list[Linear]

    @property
    def logits(self) -> torch.Tensor:
        """Logits, [B, C]; of the two contrast words for a masked LM."""
        return self.head[-1].left[:, 0]


@torch.no_grad()
def forward(model: Model, rows: Rows, lowest: int = 0) -> Passed:
    """Runs a model in float64 and keeps all that passes through it, from a layer on.

    Nothing but the position read out has relevance above the last layer, so that this layer is run
    for that position alone.

    Args:
        model: The model; its weights are cast as they are needed.
        rows: B padded rows of at most T tokens.
        lowest: The first layer of which it is kept.
    """
    model.check_asked(rows)
    hidden = entered = _embedded(model, rows)
    layers: list[Callable[[], PassedLayer]] = []
    pairs = model.num_heads * (model.num_layers - lowest) * rows.length**2
    for depth, layer in enumerate(model.layers, start=1):
        place = None
        if depth == model.num_layers:
            place = functional.one_hot(rows.readout, hidden.shape[1])[..., None].to(hidden)
        visible = _visible(model, rows, alone=place is not None)
        fused = "tokens" not in model.traits
        through = partial(_through_layer, layer, hidden, visible, place, fused=fused)
        passed, hidden = through()
        if depth > lowest:
            layers.append(partial(_of_layer, through if pairs > _HELD else passed))
        del passed
    state, head = hidden, []
    for step in model.head:
        if isinstance(step, Affine):
            words = rows.outputs if step is model.head[-1] else None
            head.append(Linear.through(step, state, words))
            state = head[-1].left
        else:
            state = _normed(step, state) if isinstance(step, Norm) else step(state)
    return Passed(entered, layers, head)


def _of_layer(kept: "PassedLayer | Callable[[], _Through]") -> PassedLayer:
    """What passed through a layer: as it was kept, or once more."""
    return kept if isinstance(kept, PassedLayer) else kept()[0]


def _visible(model: Model, rows: Rows, *, alone: bool) -> torch.Tensor:
    """Which keys a query attends to, [B, 1, Q, T], or [B, 1, 1, T] if it is the same for all.

    Args:
        model: The model.
        rows: The rows.
        alone: Whether the position read out is the only query.
    """
    tokens = rows.attention_mask.bool()[:, None, None]
    if not model.causal:
        return tokens
    length = tokens.shape[-1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril()
    return tokens & (earlier[rows.readout][:, None, None] if alone else earlier)


def _through_layer(
    layer: Layer,
    entered: torch.Tensor,
    visible: torch.Tensor,
    place: torch.Tensor | None,
    *,
    fused: bool,
) -> tuple[PassedLayer, torch.Tensor]:
    """Passes a layer: [B, T, d] to what passed through it and what left it, [B, Q, d]."""
    first, *others = layer.steps
    given = _entering(layer.attending, entered)
    attention = _through_attention(layer, given, visible, place, fused=fused)
    own = _placed(entered, place)
    hidden = _leaving(first, attention.output.left + own)
    parts = []
    for step in others:
        (branch,) = step.branches
        wide = branch.inside
        assert isinstance(wide, FeedForward)
        expand = Linear.through(wide.expand, _entering(branch, hidden))
        contract = Linear.through(wide.contract, wide.activation(expand.left))
        parts.append(PassedFeedForward(hidden, expand, contract))
        hidden = _leaving(step, contract.left + hidden)
    return PassedLayer(entered, own, attention, parts), hidden


def _through_attention(
    layer: Layer,
    given: torch.Tensor,
    visible: torch.Tensor,
    place: torch.Tensor | None,
    *,
    fused: bool,
) -> PassedAttention:
    """Passes attention, that is given [B, T, d]."""
    through, parts = Linear.through, layer.attention
    query = through(parts.query, _placed(given, place))
    key, value = through(parts.key, given), through(parts.value, given)
    keys, values = (parts.shared(_split(x.left, parts.groups)) for x in (key, value))
    products = _split(query.left, parts.heads) @ keys.mT
    scores = products * parts.scale
    probabilities = scores.masked_fill(~visible, -torch.inf).softmax(-1)
    output = through(parts.output, _merged(probabilities @ values))
    return PassedAttention(parts, place, fused, query, key, value, products, probabilities, output)


def _placed(x: torch.Tensor, place: torch.Tensor | None) -> torch.Tensor:
    """What is at the queries' positions, [B, T, d] to [B, Q, d]."""
    return x if place is None else (x * place).sum(1, keepdim=True)


def _entering(branch: Branch, x: torch.Tensor) -> torch.Tensor:
    """What the inside of a branch is given."""
    return x if branch.before is None else _normed(branch.before, x)


def _leaving(step: Step, added: torch.Tensor) -> torch.Tensor:
    """What leaves a step, of the sum of its one branch and what passed it by."""
    return added if step.join is None else _normed(step.join, added)


def _embedded(model: Model, rows: Rows) -> torch.Tensor:
    """What enters the first layer, [B, T, d] in float64; ``Model.embed`` is in the model's type.

    It is a sum, perhaps normalised and projected.
    """
    embedding, summed = model.embedding, inputs_of(model).summed(model, rows)
    if embedding.norm is not None:
        summed = _normed(embedding.norm, summed)
    if embedding.projection is None:
        return summed
    return Linear.through(embedding.projection, summed).left


def _normed(norm: Norm, x: torch.Tensor) -> torch.Tensor:
    """A norm in float64."""
    if not norm.centred:
        return norm.exact(x)
    bias = None if norm.bias is None else norm.bias.double()
    return functional.layer_norm(x, x.shape[-1:], norm.weight.double(), bias, norm.eps)


def _of_pixels(
    model: Model, rows: Rows, entered: torch.Tensor, relevance: torch.Tensor, rules: Rules
) -> torch.Tensor:
    """Relevance of what enters the first layer, [K, B, T, d], to that of pixels, [K, B, T, n].

    Tokens are the sum of what is made of patches and of what is added by position, whose share is
    dropped, and so is the class token's. To pixels goes the rule z^B, with the smallest and the
    largest pixel of the picture as its bounds (Montavon et al. 2017; Chefer et al. 2021's code).
    """
    assert model.grid is not None
    weight, places = (x.double() for x in model.patching)
    tokens, _ = _added(relevance, entered - places, places.expand_as(entered), rules)
    pixels = rows.inputs["pixel_values"].double()
    patches = inputs_of(model).vectors(model, pixels)
    low, high = (x[:, None, None] for x in (pixels.amin((1, 2, 3)), pixels.amax((1, 2, 3))))
    upper, lower = weight.clamp(min=0), weight.clamp(max=0)
    total = patches @ weight.T - low * upper.sum(1) - high * lower.sum(1) + _STABILISER
    quotient = tokens / total
    found = patches * (quotient @ weight) - low * (quotient @ upper) - high * (quotient @ lower)
    found[:, :, : model.grid.before] = 0
    return found


def _split(x: torch.Tensor, heads: int) -> torch.Tensor:
    """[..., T, d] to [..., H, T, d/H]."""
    heads_apart: torch.Tensor = x.unflatten(-1, (heads, -1))
    return heads_apart.transpose(-2, -3)


def _merged(x: torch.Tensor) -> torch.Tensor:
    """[..., H, T, d/H] to [..., T, d]."""
    return x.transpose(-2, -3).flatten(-2)


def _of_groups(x: torch.Tensor, groups: int) -> torch.Tensor:
    """The sums over the heads that share a key and a value, [..., H, T, n] to [..., G, T, n]."""
    return x if x.shape[-3] == groups else x.unflatten(-3, (groups, -1)).sum(-3)


# Rules ----------------------------------------------------------------------------------------


def _divide(shared: torch.Tensor, among: torch.Tensor) -> torch.Tensor:
    """The quotient with the authors' stabiliser, whatever the sign; 0 where the divisor is 0."""
    divisor = among + _STABILISER
    return (shared / divisor).masked_fill_((among == 0) | (divisor == 0), 0)


def _copied(x: torch.Tensor, *relevances: torch.Tensor) -> torch.Tensor:
    """Relevance of x from that of its copies."""
    quotients = [_divide(relevance, x) for relevance in relevances]
    return x * sum(quotients[1:], quotients[0])


def _multiplied(
    relevance: torch.Tensor, first: torch.Tensor, second: torch.Tensor, product: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Relevance of two matrices from that of their product, half to each."""
    quotient = _divide(relevance, product)
    return first * (quotient @ second.mT) / 2, second * (first.mT @ quotient) / 2


def _added(
    relevance: torch.Tensor, first: torch.Tensor, second: torch.Tensor, rules: Rules
) -> tuple[torch.Tensor, torch.Tensor]:
    """Relevance of two terms from that of their sum, [K, B, Q, d] all."""
    quotient = _divide(relevance, first + second)
    terms = first * quotient, second * quotient
    if rules == "orig":
        return terms
    of_first, of_second = _rescaled(relevance, *terms)
    return of_first, of_second


def _rescaled(relevance: torch.Tensor, *terms: torch.Tensor) -> list[torch.Tensor]:
    """Terms, [K, B, ...], that share the total relevance of an instance by the sizes of theirs.

    The authors add up over the whole tensor, of one instance; here an instance is a row.
    """
    total = _total(relevance)
    totals = [_total(term) for term in terms]
    sizes = torch.stack([own.abs() for own in totals]).sum(0)
    return [
        term * _divide(_divide(own.abs(), sizes) * total, own)
        for term, own in zip(terms, totals, strict=True)
    ]


def _total(relevance: torch.Tensor) -> torch.Tensor:
    """Sum over all but walks and rows, [K, B, 1, ...]."""
    return relevance.sum(dim=tuple(range(2, relevance.dim())), keepdim=True)


# The pass -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Relevance(Pass[RelevanceMaps]):
    """Relevance walked backwards through the network by LRP rules, in float64.

    All the way down it costs about 5 F in float64, and to the last layer little more than 1.

    Attributes:
        rules: ``cvpr21`` or ``orig``.
        lowest: The last layer that it is walked through; -1 is the top one. Beyond layer 0 lies
            what enters the first layer.
    """

    rules: Rules
    lowest: int = 0
    double = True

    @property
    def shared(self) -> Hashable:
        """The rules; it is walked as far as any method needs it by these."""
        return Relevance, self.rules

    def run(self, captured: "Captured", alike: Sequence[Wish]) -> RelevanceMaps:
        """The relevance of the explained scalar."""
        depth = captured.model.num_layers
        lowest = min(one.lowest % depth for one in alike if isinstance(one, Relevance))
        rows = captured.batch.rows
        return walk(captured.model, rows, captured.weights, self.rules, lowest)
