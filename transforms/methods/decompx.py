"""DecompX: the explained scalar as a sum over tokens, with every nonlinearity frozen."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from attribeam.transforms.network.parts import (
    Activation,
    Affine,
    Attention,
    Branch,
    FeedForward,
    HeadStep,
    Norm,
    Softcap,
)
from attribeam.transforms.passes.captured import Captured
from attribeam.transforms.passes.forward import Forward
from attribeam.transforms.registry import Choice, Method, Params, Scores, register


def decompx(captured: Captured, params: Params) -> Scores:
    """DecompX (Modarressi et al. 2023, section 3): shares of the explained scalar, signed.

    Every vector is a sum of one vector per input token, and the parts go through the whole network
    and its head: attention probabilities and the deviations of layer norms are constants, and an
    activation is a product with its slope act(x) / x. What the biases add belongs to no token;
    ``bias`` says where it goes:

    * ``token``: into a bucket of its own (``Scores.bias``; the authors' bias token without a
      decomposition of it). The scores are then linear in the explained scalar, and one walk back
      through the frozen network gives them all: score[k] = d f / d x[k] . x[k]. As in the authors'
      code the first layer's value bias stays with the tokens; the later ones' are in the bucket.
    * ``absdot``: to the tokens, each bias b in proportion to |b . part| (the authors' default). It
      depends on the parts themselves, so all T x T of them go forward, instance by instance: about
      T forward passes, and two tensors of T * T * d numbers (2 x 805 MB for 512 tokens of a
      BERT-base in float32). The last bias, of the logits, has one entry per class; of a masked
      LM, one for each of the two words of the contrast.

    ``delta`` is sum(scores) + bias - f: zero but for rounding.
    """
    if params["bias"] == "absdot":
        values = torch.zeros_like(captured.entered[..., 0])
        head = _head(captured)
        for row, instance in enumerate(captured.batch.instances):
            values[row, : len(instance)] = _Parts(captured, row).scores(head)
        return Scores(values, delta=values.sum(-1) - captured.explained)
    values, bias = _walk_back(captured)
    return Scores(values, delta=values.sum(-1) + bias - captured.explained, bias=bias)


# The frozen network ---------------------------------------------------------------------------


def _slope(activation: Activation, entered: torch.Tensor) -> torch.Tensor:
    """act(x) / x of any shape, and its limit from above where x is 0."""
    tiny = torch.finfo(entered.dtype).tiny
    # Below the smallest normal number an activation may round to zero, or the quotient overflow.
    entered = entered.masked_fill(entered.abs() < tiny, tiny)
    return activation(entered) / entered


class _Head(NamedTuple):
    """What turns what leaves the last layer at S positions into logits: one, or all of a mean.

    Attributes:
        spread: Steps that are done to each position before the mean is taken, each with what enters
            it, [B, T, n].
        steps: All other steps but the last, each with what enters it, [B, 1, n].
        weight: Of the last step, a linear one, [B, C, n].
        bias: Of the last step, [B, C].
    """

    spread: list[tuple[HeadStep, torch.Tensor]]
    steps: list[tuple[HeadStep, torch.Tensor]]
    weight: torch.Tensor
    bias: torch.Tensor


def _head(captured: Captured) -> _Head:
    """The head, restricted to the outputs that are asked for."""
    against = captured.batch.rows.against
    caps: list[Softcap] = []
    *before, last = captured.model.head
    while isinstance(last, Softcap):
        caps, (*before, last) = [last, *caps], before
    if against is not None:
        before = captured.model.head
    elif not isinstance(last, Affine):
        raise TypeError(f"the head ends with a {type(last).__name__}, not a Linear")
    read, spread = captured.batch.rows.read, captured.model.anatomy.spread
    last_step, sums = captured.model.layers[-1].steps[-1], captured.layers[-1].sums[-1]
    apart: list[tuple[HeadStep, torch.Tensor]] = []
    if read.at is not None:
        steps, given = _passed(before, last_step.leave(captured.at_readout(sums)[:, None]))
    else:
        apart, hidden = _passed(before[:spread], last_step.leave(sums))
        steps, given = _passed(before[spread:], read.gather(hidden)[:, None])
    outputs = captured.batch.rows.outputs
    if against is not None:  # Of one output alone.
        return _Head(apart, steps, against[:, None], against.new_zeros(len(against), 1))
    assert isinstance(last, Affine)
    if outputs is not None:
        weight, bias = last.chosen(outputs)
    else:
        size = len(captured.batch)
        none = last.weight.new_zeros(len(last.weight))
        weight = last.weight.expand(size, -1, -1)
        bias = (none if last.bias is None else last.bias).expand(size, -1)
    for cap in caps:
        slope = cap.slope((weight @ given[:, 0, :, None])[..., 0] + bias)
        weight, bias = weight * slope[..., None], bias * slope
    return _Head(apart, steps, weight, bias)


def _passed(
    steps: Sequence[HeadStep], hidden: torch.Tensor
) -> tuple[list[tuple[HeadStep, torch.Tensor]], torch.Tensor]:
    """Steps, each with what enters it, and what leaves the last."""
    found = []
    for step in steps:
        found.append((step, hidden))
        hidden = step(hidden)
    return found, hidden


# Biases apart: one walk back ------------------------------------------------------------------


@dataclass
class _Walk:
    """The gradient of the explained scalar on its way back through the frozen network.

    Attributes:
        gradient: With respect to where the walk is, [B, S, n], at S positions.
        given: What the biases passed so far give to the scalar, [B].
    """

    gradient: torch.Tensor
    given: torch.Tensor

    def bias(self, bias: torch.Tensor | None) -> None:
        """Counts what a bias [n], added where the walk is, gives."""
        if bias is not None:
            self.given = self.given + self.gradient.sum(1) @ bias

    def linear(self, linear: Affine) -> None:
        """Passes x W + b."""
        self.bias(linear.bias)
        self.gradient = self.gradient @ linear.weight

    def norm(self, norm: Norm, entered: torch.Tensor) -> None:
        """Passes centre(x) * weight / deviation + bias."""
        self.bias(norm.bias)
        self.gradient = norm.centre(self.gradient * norm.weight / norm.deviation(entered))

    def activation(self, activation: Activation, entered: torch.Tensor) -> None:
        """Passes x * slope."""
        self.gradient = self.gradient * _slope(activation, entered)

    def steps(self, steps: Sequence[tuple[HeadStep, torch.Tensor]]) -> None:
        """Passes steps of a head, each with what entered it, the last one first."""
        for step, entered in reversed(steps):
            if isinstance(step, Affine):
                self.linear(step)
            elif isinstance(step, Norm):
                self.norm(step, entered)
            else:
                self.activation(step, entered)

    def feed_forward(self, branch: Branch, inside: FeedForward, entered: torch.Tensor) -> None:
        """Passes what is added to x, [B, S, d], of each position by itself."""
        given = branch.enter(entered)
        wide = inside.expand(given)
        if branch.after is not None:
            self.norm(branch.after, inside(given))
        self.linear(inside.contract)
        if inside.gate is None:
            self.activation(inside.activation, wide)
        else:
            self.gradient = self.gradient * inside.activation(inside.gate(given))
        self.linear(inside.expand)
        if branch.before is not None:
            self.norm(branch.before, entered)

    def attention(
        self, branch: Branch, inside: Attention, values: torch.Tensor, attention: torch.Tensor
    ) -> None:
        """Passes from what attention adds at S positions to its values at all T.

        Args:
            branch: Its branch.
            inside: Its maps.
            values: Values of all groups, [B, G, T, d/H].
            attention: Its probabilities, [B, H, S, T].
        """
        if branch.after is not None:
            mixed = (attention @ inside.shared(values)).transpose(1, 2).flatten(2)
            self.norm(branch.after, inside.output(mixed))
        self.linear(inside.output)
        heads = self.gradient.unflatten(-1, (attention.shape[1], -1)).transpose(1, 2)
        of_values = (attention.transpose(-1, -2) @ heads).unflatten(1, (inside.groups, -1)).sum(2)
        self.gradient = of_values.transpose(1, 2).flatten(2)


def _walk_back(captured: Captured) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores [B, T], and what is left to the biases, [B]."""
    walk = _walk_head(captured)
    scores = torch.zeros_like(captured.entered[..., 0])
    for number in reversed(range(captured.model.num_layers)):
        layer = captured.model.layers[number]
        before, value = layer.attending.before, layer.attention.value
        past, walk.gradient = _walk_layer(walk, captured, number)
        if number:
            walk.bias(value.bias)
        elif value.bias is not None:
            scores = walk.gradient @ value.bias
        walk.gradient = walk.gradient @ value.weight
        if before is not None:
            walk.norm(before, captured.layers[number].entered)
        walk.gradient = walk.gradient + past
    return scores + (walk.gradient * captured.entered).sum(-1), walk.given


def _walk_head(captured: Captured) -> _Walk:
    """The walk from the explained scalar to what leaves the last layer where it is read."""
    head, weights = _head(captured), captured.weights
    walk = _Walk(
        torch.einsum("bc,bcn->bn", weights, head.weight)[:, None], (weights * head.bias).sum(-1)
    )
    walk.steps(head.steps)
    rows = captured.batch.rows
    if rows.read.at is None:
        walk.gradient = rows.read.scatter(walk.gradient[:, 0], rows.length)
        walk.steps(head.spread)
    return walk


def _walk_layer(walk: _Walk, captured: Captured, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Walks through a layer, from its output at all positions, or that of the last read out alone.

    Returns:
        Gradients that go past attention to the layer's input, [B, T, d], and to its values, those
        of all groups side by side.
    """
    layer, states = captured.model.layers[number], captured.layers[number]
    attention, entered, sums = captured.attention[number], states.entered, [*states.sums]
    read = captured.batch.rows.read
    alone = number == captured.model.num_layers - 1 and read.at is not None
    if alone:
        attention = captured.at_readout(attention)[:, :, None]
        entered, *sums = (captured.at_readout(x)[:, None] for x in (entered, *sums))
    hidden = [entered, *(s.leave(x) for s, x in zip(layer.steps[:-1], sums[:-1], strict=True))]
    for step, own, total in reversed(list(zip(layer.steps, hidden, sums, strict=True))):
        if step.join is not None:
            walk.norm(step.join, total)
        past = above = walk.gradient
        for branch in step.branches:
            walk.gradient = above
            if isinstance(branch.inside, FeedForward):
                walk.feed_forward(branch, branch.inside, own)
                past = past + walk.gradient
            else:
                walk.attention(branch, branch.inside, states.values, attention)
                of_values = walk.gradient
        walk.gradient = past
    if alone:
        past = read.spread(past[:, 0], captured.batch.rows.length)
    return past, of_values


# Biases spread over tokens: all parts forward -------------------------------------------------


def _spread(parts: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Adds a bias [n] in place to a vector's parts [..., T, n], in proportion to |bias . part|.

    Equally where all of these are zero, so that the sum stays what the network computes (the
    authors' code loses the bias there).
    """
    if bias is None:
        return parts
    sizes = (parts @ bias).abs()
    total = sizes.sum(-1, keepdim=True)
    shares = torch.where(total > 0, sizes / total, 1 / sizes.shape[-1])
    return parts.addcmul_(shares[..., None], bias)


def _through_norm(norm: Norm, parts: torch.Tensor, entered: torch.Tensor) -> torch.Tensor:
    """Parts [S, T, d] of what entered a norm, [S, d], to those of what left it."""
    scale = (norm.weight / norm.deviation(entered))[:, None]
    return _spread(norm.centre(parts) * scale, norm.bias)


def _through_linear(linear: Affine, parts: torch.Tensor) -> torch.Tensor:
    """Parts [S, T, n] of what entered a linear map to those of what left it."""
    return _spread(parts @ linear.weight.T, linear.bias)


def _through_feed_forward(
    branch: Branch, inside: FeedForward, parts: torch.Tensor, real: torch.Tensor
) -> torch.Tensor:
    """Parts [S, T, d] of what passes by a feed-forward part, [S, d], to those of what it adds."""
    given = branch.enter(real)
    if branch.before is not None:
        parts = _through_norm(branch.before, parts, real)
    inner = _through_linear(inside.expand, parts)
    if inside.gate is None:
        slope = _slope(inside.activation, inside.expand(given))
    else:
        slope = inside.activation(inside.gate(given))
    parts = _through_linear(inside.contract, inner.mul_(slope[:, None]))
    return parts if branch.after is None else _through_norm(branch.after, parts, inside(given))


class _Parts:
    """One instance's hidden states as sums of one part per input token.

    Attributes:
        captured: The batch.
        row: Which of its instances.
        length: Its number of tokens T.
        read: The positions that are read: one, or all of a mean.
    """

    def __init__(self, captured: Captured, row: int) -> None:
        self.captured, self.row = captured, row
        self.length = len(captured.batch.instances[row])
        at = captured.batch.instances[row].readout
        self.read = slice(0, self.length) if at is None else slice(at, at + 1)

    def scores(self, head: _Head) -> torch.Tensor:
        """Parts of the explained scalar, [T]."""
        parts = self._through_head(head.spread, self._leaving_the_layers())
        read = self.captured.batch.rows.read
        if read.at is None:
            own = read.each(lambda x: x[self.row : self.row + 1, : len(parts)])
            parts = own.gather(parts[None])
        parts = self._through_head(head.steps, parts)
        logits = _spread(parts[0] @ head.weight[self.row].T, head.bias[self.row])
        scores: torch.Tensor = logits @ self.captured.weights[self.row]
        return scores

    def _through_head(
        self, steps: Sequence[tuple[HeadStep, torch.Tensor]], parts: torch.Tensor
    ) -> torch.Tensor:
        """Parts of what leaves steps of the head at S positions, [S, T, n]."""
        for step, entered in steps:
            own = entered[self.row, : len(parts)]
            if isinstance(step, Affine):
                parts = _through_linear(step, parts)
            elif isinstance(step, Norm):
                parts = _through_norm(step, parts, own)
            else:
                parts = parts * _slope(step, own)[:, None]
        return parts

    def _leaving_the_layers(self) -> torch.Tensor:
        """Parts of what leaves the last layer at the positions that are read, [S, T, d]."""
        entered = self.captured.entered[self.row, : self.length]
        parts = entered.new_zeros(self.length, *entered.shape)
        parts.diagonal().copy_(entered.T)
        # The feed-forward part is wider than what is kept: few positions go through it at once.
        at_once = max(1, self.captured.budget // self.length)
        last = self.captured.model.num_layers - 1
        for number in range(last + 1):
            values = self._values(number, parts)
            if number == last and self.read.stop - self.read.start == 1:
                return self._layer(last, self.read, parts[self.read], values)
            for start in range(0, self.length, at_once):
                some = slice(start, min(start + at_once, self.length))
                parts[some] = self._layer(number, some, parts[some], values)
        return parts

    def _values(self, number: int, parts: torch.Tensor) -> torch.Tensor:
        """Parts of a layer's values, [H, T, T * d/H]; the bias is in the first layer's only."""
        layer = self.captured.model.layers[number]
        linear, count = layer.attention.value, layer.attention.groups
        if layer.attending.before is not None:
            entered = self.captured.layers[number].entered[self.row, : self.length]
            parts = _through_norm(layer.attending.before, parts, entered)
        groups = linear.weight.unflatten(0, (count, -1)).transpose(1, 2)
        values = (parts.flatten(0, 1) @ groups).unflatten(1, parts.shape[:2])
        if number == 0 and linear.bias is not None:
            values.diagonal(dim1=1, dim2=2).add_(linear.bias.view(count, -1, 1))
        flat: torch.Tensor = layer.attention.shared(values.flatten(2))
        return flat

    def _layer(
        self, number: int, some: slice, residual: torch.Tensor, values: torch.Tensor
    ) -> torch.Tensor:
        """Parts of a layer's output at some positions.

        Args:
            number: The layer.
            some: The S positions.
            residual: Parts of what enters the layer there, [S, T, d].
            values: Parts of its values (``_values``).

        Returns:
            [S, T, d].
        """
        layer, states = self.captured.model.layers[number], self.captured.layers[number]
        hidden, real = residual, states.entered[self.row, some]
        for step, sums in zip(layer.steps, states.sums, strict=True):
            added = hidden
            for branch in step.branches:
                if isinstance(branch.inside, FeedForward):
                    added = _through_feed_forward(branch, branch.inside, hidden, real) + added
                else:
                    added = self._attended(number, some, added, values)
            total = self._real(sums, some)
            hidden = added if step.join is None else _through_norm(step.join, added, total)
            real = step.leave(total)
        return hidden

    def _attended(
        self, number: int, some: slice, added: torch.Tensor, values: torch.Tensor
    ) -> torch.Tensor:
        """Parts [S, T, d] of what passes by attention, and those of what attention adds."""
        layer, states = self.captured.model.layers[number], self.captured.layers[number]
        branch, output, value = layer.attending, layer.attention.output, layer.attention.value
        attention = self.captured.attention[number][self.row, :, some, : self.length]
        mixed = attention @ values
        mixed = mixed.unflatten(2, (added.shape[1], -1)).permute(1, 2, 0, 3).flatten(2)
        bias = output.bias
        if number and value.bias is not None:
            # Attention probabilities sum to 1, so the value's bias is added once.
            by_group = value.bias.unflatten(0, (layer.attention.groups, 1, -1))
            bias = output(layer.attention.shared(by_group).flatten())
        if branch.after is None:
            return _spread(mixed @ output.weight.T + added, bias)
        real = attention @ layer.attention.shared(states.values[self.row, :, : self.length])
        left = output(real.transpose(0, 1).flatten(1))
        return _through_norm(branch.after, _spread(mixed @ output.weight.T, bias), left) + added

    def _real(self, states: torch.Tensor, some: slice) -> torch.Tensor:
        """Whole vectors at some positions, [S, d], of the batch's [B, T, d].

        They are [B, 1, d] where nothing but the position read out left the last layer.
        """
        return states[self.row] if states.shape[1] == 1 else states[self.row, some]


register(
    Method(
        name="decompx",
        compute=decompx,
        needs=lambda params: (Forward(attention=True, layers=True),),
        defaults={"bias": Choice("token", "absdot")},
        signed=True,
        class_dependent=True,
        additive=True,
        linear=True,
        cost="1 F + 1 B; absdot: about T F",
        paper="Modarressi et al. 2023, section 3",
        equation="x . df/dx with attention, deviations and act(x)/x frozen",
    )
)
