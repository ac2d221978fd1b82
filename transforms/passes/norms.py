"""Norms of the vectors that each token sends to each other one in a layer, without forming them.

A layer that mixes values hands token i the sum over j of u_ij = sum_h a_h[i, j] f_h(x_j), with
f_h(x) = v_h(x) W_O_h (value bias included, output bias in nobody's share; v_h is of what a norm
before attention lets out, where there is one). The residual adds x_i, what enters the layer, to
u_ii. A norm whose deviation is frozen at its real value is linear, so it can be taken of each
share: y -> c(y) gamma / sigma_i, where c centres over the hidden units if the norm does. Such norms
are those after the sums of steps, and one that what attention adds passes (sandwich norms), which
belongs to u_ij.

Forming all u_ij takes T x T x d numbers. The squared norm of any linear map of u_ij is however a
quadratic form in the H attention weights a[i, j]: with F_j the H x d matrix of the mapped f_h(x_j),
it is a^T G_j a with G_j = F_j F_j^T, one H x H Gram matrix per source token. Sigma depends on the
target alone and divides the result. Only what a token sends to itself, which the residual is in,
and the sum of what comes from others are formed, a vector each.

Where heads cancel, a quadratic form loses digits: of a vector that is c times as long as its parts,
single precision leaves about 1e-7 / c^2. Sources with such vectors are done again in float64, and
half precision is not used at all.
"""

from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import torch
from torch.nn import functional

from attribeam.schemas import UsageError
from attribeam.transforms.network.capture import LayerStates
from attribeam.transforms.network.model import Model
from attribeam.transforms.network.parts import Layer, Norm
from attribeam.transforms.passes.base import Pass, Wish

if TYPE_CHECKING:
    from attribeam.transforms.passes.captured import Captured, Share

# What attention adds; with the residual; after the norm that ends the first step; the second.
Level = Literal["values", "residual", "attention_norm", "output_norm"]
LEVELS: tuple[Level, ...] = get_args(Level)
# What leaves the norms that end the steps of a post-LN layer, step by step.
NORMED = LEVELS[2:]

# A squared norm below this share of its parts' is computed again in float64.
_CANCELLED = 1e-2

# Numbers that are held of what tokens send, at a time.
_AT_ONCE = 1 << 21

Piece = tuple[torch.Tensor, torch.Tensor]


class NormMaps(NamedTuple):
    """Norms and ratios of each layer, first layer first, in the type of the model.

    Attributes:
        maps: Norm of the vector from token j (column) to token i (row), each [B, T, T]; zero at
            padded keys.
        ratios: Context-mixing ratio of each token, each [B, T]: |s| / (|s| + |t_ii|), with s the
            sum of what comes from the other tokens (Kobayashi et al. 2021, section 3).
    """

    maps: list[torch.Tensor]
    ratios: list[torch.Tensor]


@dataclass(frozen=True, eq=False)
class Sending:
    """A layer and what passed through it, of which is asked what its tokens send to each other.

    Attributes:
        layer: The layer.
        attention: Its attention probabilities, [B, H, T, T].
        state: What passed through it; S positions came out of it, all or that read out alone.
        readout: Position of each row that is read out, [B]; None where all came out of it.
    """

    layer: Layer
    attention: torch.Tensor
    state: LayerStates
    readout: torch.Tensor | None

    @property
    def kind(self) -> torch.dtype:
        """Type to compute in: Gram matrices in half precision would be noise."""
        return torch.promote_types(self.attention.dtype, torch.float32)

    @property
    def every(self) -> torch.Tensor:
        """Numbers of the rows, [B]."""
        return torch.arange(len(self.attention), device=self.attention.device)

    @cached_property
    def projected(self) -> torch.Tensor:
        """What attention gives, the bias of its output included, [B, S, d]."""
        inside, attention = self.layer.attention, self.attention
        if self.state.alone:
            attention = attention[self.every, :, self.readout][:, :, None]
        values = inside.shared(self.state.values)
        mixed = (attention.to(self.kind) @ values.to(self.kind)).transpose(1, 2).flatten(2)
        bias = None if inside.output.bias is None else inside.output.bias.to(self.kind)
        return functional.linear(mixed, inside.output.weight.to(self.kind), bias)

    def arrived(self) -> torch.Tensor:
        """The sum of what comes to each token through the heads, [B, T, d]; S is T."""
        (branch, *others), bias = self.layer.steps[0].branches, self.layer.attention.output.bias
        if others or branch.before is not None or branch.after is not None:
            given = self.projected
        else:
            # What entered has passed a norm, so that it is no longer than what is added to it.
            given = self.state.sums[0].to(self.kind) - self.state.entered
        return given if bias is None else given - bias

    def norm_at(self, level: Level) -> Norm | None:
        """The norm whose output a level is, if it is that of one."""
        if level in NORMED:
            return self.layer.steps[NORMED.index(level)].join
        return self.layer.attending.after if level == "values" else None

    def sigma_at(self, level: Level, tokens: slice = slice(None)) -> torch.Tensor:
        """What a level divides all that arrives at some tokens by, [B, S]."""
        norm = self.norm_at(level)
        if norm is None:
            return torch.ones_like(self.state.sums[0][:, tokens, 0])
        entering = self.state.sums[NORMED.index(level)] if level in NORMED else self.projected
        entering = entering[:, tokens]
        if not norm.centred:
            return norm.deviation(entering.to(self.kind))[..., 0]
        # Several times as quick as the variance.
        _, _, inverse = torch.native_layer_norm(entering, entering.shape[-1:], None, None, norm.eps)
        return 1 / inverse[..., 0]

    def left(self, level: Level) -> torch.Tensor:
        """What really leaves a level, all biases included, [B, S, d]; the residual or above."""
        if level in NORMED:
            number = NORMED.index(level)
            return self.layer.steps[number].leave(self.state.sums[number])
        if len(self.layer.steps[0].branches) == 1:
            return self.state.sums[0]
        own, after = self.state.entered, self.layer.attending.after
        own = own[self.every, self.readout][:, None] if self.state.alone else own
        return own + (self.projected if after is None else after.exact(self.projected))


class Sent(NamedTuple):
    """What some source tokens send, S of them; the receiver's to change.

    Attributes:
        sources: Which tokens they are.
        vectors: What a token sends through each head; then what it sends itself, without residual;
            then the sum of what comes to it from the others, [B, S, H + 2, d].
        weights: The attention that each token pays them, [B, S, H, T].
    """

    sources: slice
    vectors: torch.Tensor
    weights: torch.Tensor

    @property
    def heads(self) -> torch.Tensor:
        """What a token sends through each head, [B, S, H, d]."""
        return self.vectors[:, :, :-2]

    def follow_(self, level: Level, sending: Sending) -> None:
        """Takes the vectors from the level below up to a level, in place, but for sigma."""
        norm = sending.norm_at(level)
        if norm is not None:
            _through_norm_(norm, self.vectors)
        elif level == "residual":
            own = sending.state.entered[:, self.sources]
            if sending.norm_at("values") is not None:
                # What it is added to has not been divided yet.
                own = own * sending.sigma_at("values", self.sources)[..., None]
            self.vectors[:, :, -2] += own


def norm_maps(
    layers: Sequence[Layer],
    attention: Sequence[torch.Tensor],
    states: Sequence[LayerStates],
    levels: Collection[Level],
    readout: torch.Tensor | None,
) -> dict[Level, NormMaps]:
    """Norms at the levels asked for.

    Args:
        layers: The L layers.
        attention: Attention probabilities, each [B, H, T, T].
        states: What passed through the layers.
        levels: How far a vector is followed: ``values`` is Kobayashi et al. 2020, ``residual`` and
            ``attention_norm`` Kobayashi et al. 2021, ``output_norm`` GlobEnc (Modarressi et al.
            2022, section 3: the feed-forward part is left out, its residual is not, and what really
            enters the second norm sets its sigma).
        readout: Position of each row that is read out, [B]. If nothing else came out of the last
            layer, its maps and ratios have zeros everywhere else.
    """
    found: dict[Level, NormMaps] = {level: NormMaps([], []) for level in LEVELS if level in levels}
    space = Workspace()
    for layer, layer_attention, state in zip(layers, attention, states, strict=True):
        sending = Sending(layer, layer_attention, state, readout)
        pieces = _readout_pieces if state.alone else _pieces
        for level, (maps, ratios) in pieces(sending, found, space):
            found[level].maps.append(maps)
            found[level].ratios.append(ratios)
    return found


def _pieces(
    sending: Sending, levels: Collection[Level], space: "Workspace"
) -> Iterator[tuple[Level, Piece]]:
    """Maps [B, T, T] and ratios [B, T] of a layer, by level."""
    pieces: dict[Level, list[Piece]] = {level: [] for level in levels}
    for sent in sent_by(sending, space):
        for level, piece in _pieces_of(sent, sending, levels, space):
            pieces[level].append(piece)
    sigma = torch.ones_like(sending.state.entered[..., 0])
    for level in up_to(levels):
        sigma = sigma * sending.sigma_at(level)
        if level in levels:
            maps, ratios = (torch.cat(column, 1) for column in zip(*pieces[level], strict=True))
            yield level, (maps.transpose(1, 2) / sigma[..., None], ratios)


def _readout_pieces(
    sending: Sending, levels: Collection[Level], _: "Workspace"
) -> Iterator[tuple[Level, Piece]]:
    """As ``_pieces``, where nothing but the position read out came out of the layer."""
    every, readout = sending.every, sending.readout
    for level, vectors in readout_vectors(sending, up_to(levels)):
        if level not in levels:
            continue
        norms = torch.linalg.vector_norm(vectors, dim=-1)
        own = vectors[every, readout]
        others = torch.linalg.vector_norm(vectors.sum(1) - own, dim=-1)
        total = others + norms[every, readout]
        maps = torch.zeros_like(sending.attention[:, 0])
        maps[every, readout] = norms
        ratios = torch.zeros_like(norms)
        ratios[every, readout] = others / torch.where(total > 0, total, 1)
        yield level, (maps, ratios)


def readout_vectors(
    sending: Sending, levels: Sequence[Level]
) -> Iterator[tuple[Level, torch.Tensor]]:
    """What each token sends to the position read out, by level, [B, T, d], over sigma.

    Each is valid until the next one only.

    Args:
        sending: A layer that nothing else came out of.
        levels: The levels to follow them through, from the lowest on.
    """
    every, readout, inside = sending.every, sending.readout, sending.layer.attention
    values = inside.shared(sending.state.values)
    weighted = sending.attention[every, :, readout][..., None] * values
    vectors = weighted.transpose(1, 2).flatten(2) @ inside.output.weight.T
    for level in levels:
        norm = sending.norm_at(level)
        if norm is not None:
            _through_norm_(norm, vectors).div_(sending.sigma_at(level)[..., None])
        elif level == "residual":
            vectors[every, readout] += sending.state.entered[every, readout]
        yield level, vectors


def _through_norm_(norm: Norm, vectors: torch.Tensor) -> torch.Tensor:
    """Takes vectors, [..., d], through a norm in place, but for sigma and its bias."""
    if norm.centred:
        vectors.sub_(vectors.mean(-1, keepdim=True))
    return vectors.mul_(norm.weight.to(vectors.dtype))


def _pieces_of(
    sent: Sent, sending: Sending, levels: Collection[Level], space: "Workspace"
) -> Iterator[tuple[Level, Piece]]:
    """By level the norms of what sources send, [B, S, T], but for sigma; and ratios, [B, S]."""
    norms: torch.Tensor | None = None
    for level in up_to(levels):
        sent.follow_(level, sending)
        if level != "residual":
            # The residual changes what a token sends to itself alone.
            norms = None
        if level in levels:
            norms = _norms(sent, space) if norms is None else norms
            own, others = torch.linalg.vector_norm(sent.vectors[:, :, -2:], dim=-1).unbind(2)
            norms[..., sent.sources].diagonal(dim1=1, dim2=2).copy_(own)
            yield level, (norms.clone(), others / torch.where(own + others > 0, own + others, 1))


def _norms(sent: Sent, space: "Workspace") -> torch.Tensor:
    """Norm of what each source sends to each target, [B, S, T]."""
    heads, weights = sent.heads.flatten(0, 1), sent.weights.flatten(0, 1)
    squares, parts = _quadratic(heads, weights, space)
    doubtful = (squares < _CANCELLED * parts).any(-1)
    if squares.dtype != torch.float64 and bool(doubtful.any()):
        few = heads[doubtful].double(), weights[doubtful].double()
        again, _ = _quadratic(*few, Workspace())
        squares[doubtful] = again.to(squares.dtype)
    norms: torch.Tensor = squares.clamp_(min=0).sqrt_()
    return norms.view(*sent.heads.shape[:2], -1)


def _quadratic(
    heads: torch.Tensor, weights: torch.Tensor, space: "Workspace"
) -> tuple[torch.Tensor, torch.Tensor]:
    """a^T G a for N sources and T targets, [N, T], and what its diagonal terms sum to."""
    grams = heads @ heads.transpose(1, 2)
    products = space.empty("products", weights, *weights.shape)
    torch.bmm(grams, weights, out=products)
    squares: torch.Tensor = products.mul_(weights).sum(1)
    lengths = grams.diagonal(dim1=1, dim2=2)[:, None].contiguous()
    parts = (lengths @ torch.mul(weights, weights, out=products))[:, 0]
    return squares, parts


class Workspace:
    """Memory for what tokens send, used again for every layer.

    Touching fresh memory would cost as much as what is computed in it.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[object, ...], torch.Tensor] = {}

    def empty(self, name: str, like: torch.Tensor, *shape: int) -> torch.Tensor:
        """A tensor whose content is whatever the last user left."""
        key = (name, like.dtype, like.device, shape)
        if key not in self._kept:
            self._kept[key] = like.new_empty(shape)
        return self._kept[key]


def sent_by(sending: Sending, space: Workspace) -> Iterator[Sent]:
    """What the tokens send in a layer, some source tokens at a time.

    Each is valid until the next one only.
    """
    attention, output = sending.attention, sending.layer.attention.output
    size, heads, length, _ = attention.shape
    values = sending.layer.attention.shared(sending.state.values).transpose(0, 1).to(sending.kind)
    weight = output.weight.T.unflatten(0, (heads, -1)).to(sending.kind)
    head_size, width = weight.shape[1:]
    arrived = sending.arrived()
    at_once = max(1, _AT_ONCE // (size * heads * width))
    for start in range(0, length, at_once):
        sources = slice(start, min(start + at_once, length))
        count = sources.stop - start
        vectors = space.empty("vectors", values, size, count, heads + 2, width)
        rows = vectors.flatten(0, 1)
        for head in range(heads):
            own = values[head, :, sources].reshape(-1, head_size)
            torch.mm(own, weight[head], out=rows[:, head])
        weights = space.empty("weights", values, size, count, heads, length)
        weights.copy_(attention[..., sources].permute(0, 3, 1, 2))
        to_itself = weights[..., sources].diagonal(dim1=1, dim2=3).transpose(1, 2).contiguous()
        vectors[:, :, -2] = (to_itself[:, :, None] @ vectors[:, :, :heads])[:, :, 0]
        vectors[:, :, -1] = arrived[:, sources] - vectors[:, :, -2]
        yield Sent(sources, vectors, weights)


def up_to(levels: Collection[Level]) -> tuple[Level, ...]:
    """All levels that a vector passes on its way to the highest of some."""
    return LEVELS[: 1 + max(map(LEVELS.index, levels))]


# The pass -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Norms(Pass[NormMaps]):
    """Norms of the vectors that tokens send each other in every layer. About 0.1 F each.

    Attributes:
        level: How far into a layer a vector is followed.
    """

    level: Level

    def check(self, model: Model) -> None:
        """Checks that the model has the level."""
        if self.level in NORMED and "post_ln" not in model.traits:
            raise UsageError(
                "norms of what leaves a layer norm are defined by layers that normalise after "
                f"their residuals, and {model.network.config.model_type} has none"
            )

    @property
    def shared(self) -> Hashable:
        """Vectors are followed through all levels that are asked for."""
        return Norms

    def run(self, captured: "Captured", alike: Sequence[Wish]) -> dict[Level, NormMaps]:
        """Norms by level, of inputs."""
        levels = {one.level for one in alike if isinstance(one, Norms)}
        seen, readout = captured.inputs, captured.batch.once.rows.read.at
        return norm_maps(captured.model.layers, seen.attention, seen.layers, levels, readout)

    def is_of_inputs(self, captured: "Captured") -> bool:
        """It is: nobody's question has a part in them."""
        return True

    def part(self, result: dict[Level, NormMaps], share: "Share") -> dict[Level, NormMaps]:
        """Those of some inputs."""
        return {
            level: NormMaps(*(list(map(share.of_inputs, x)) for x in (own.maps, own.ratios)))
            for level, own in result.items()
        }

    def read(self, result: dict[Level, NormMaps]) -> NormMaps:
        """Those of its level."""
        return result[self.level]
