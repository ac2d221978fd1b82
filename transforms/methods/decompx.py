"""DecompX: the explained scalar as a sum over tokens, with every nonlinearity frozen."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from transforms.anatomy import Activation, HeadStep, LayerParts
from transforms.capture import LayerStates
from transforms.captured import Captured
from transforms.passes import Forward
from transforms.registry import Choice, Method, Params, Scores, register


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


def _deviation(norm: nn.LayerNorm, entered: torch.Tensor) -> torch.Tensor:
    """What a layer norm divides by, [..., 1]."""
    return (entered.var(-1, correction=0, keepdim=True) + norm.eps).sqrt()


class _Head(NamedTuple):
    """What turns the hidden state of the position read out into logits.

    Attributes:
        steps: All steps but the last, each with what enters it, [B, n].
        weight: Of the last step, a linear one, [B, C, n].
        bias: Of the last step, [B, C].
    """

    steps: list[tuple[HeadStep, torch.Tensor]]
    weight: torch.Tensor
    bias: torch.Tensor


def _head(captured: Captured) -> _Head:
    """The head, restricted to the two words of the contrast for a masked LM."""
    *before, last = captured.model.head
    if not isinstance(last, nn.Linear):
        raise TypeError(f"the head ends with a {type(last).__name__}, not a Linear")
    norm = captured.model.layers[-1].output_norm
    hidden = norm(captured.at_readout(captured.layers[-1].widened))
    steps = []
    for step in before:
        steps.append((step, hidden))
        hidden = step(hidden)
    bias = last.weight.new_zeros(len(last.weight)) if last.bias is None else last.bias
    contrast = captured.batch.rows.contrast
    if contrast is not None:
        return _Head(steps, last.weight[contrast], bias[contrast])
    size = len(captured.batch)
    return _Head(steps, last.weight.expand(size, -1, -1), bias.expand(size, -1))


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

    def linear(self, linear: nn.Linear) -> None:
        """Passes x W + b."""
        self.bias(linear.bias)
        self.gradient = self.gradient @ linear.weight

    def norm(self, norm: nn.LayerNorm, entered: torch.Tensor) -> None:
        """Passes centre(x) * weight / deviation + bias."""
        self.bias(norm.bias)
        scaled = self.gradient * norm.weight / _deviation(norm, entered)
        self.gradient = scaled - scaled.mean(-1, keepdim=True)

    def activation(self, activation: Activation, entered: torch.Tensor) -> None:
        """Passes x * slope."""
        self.gradient = self.gradient * _slope(activation, entered)


def _walk_back(captured: Captured) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores [B, T], and what is left to the biases, [B]."""
    walk = _walk_head(captured)
    scores = torch.zeros_like(captured.entered[..., 0])
    last = captured.model.num_layers - 1
    for number in reversed(range(last + 1)):
        layer = captured.model.layers[number]
        if number == last:
            past = _walk_last_layer(walk, captured)
        else:
            past = _walk_layer(walk, layer, captured.layers[number], captured.attention[number])
        if number:
            walk.bias(layer.value.bias)
        elif layer.value.bias is not None:
            scores = walk.gradient @ layer.value.bias
        walk.gradient = walk.gradient @ layer.value.weight + past
    return scores + (walk.gradient * captured.entered).sum(-1), walk.given


def _walk_head(captured: Captured) -> _Walk:
    """The walk from the explained scalar to the hidden state of the position read out."""
    head, weights = _head(captured), captured.weights
    walk = _Walk(
        torch.einsum("bc,bcn->bn", weights, head.weight)[:, None], (weights * head.bias).sum(-1)
    )
    for step, entered in reversed(head.steps):
        if isinstance(step, nn.Linear):
            walk.linear(step)
        elif isinstance(step, nn.LayerNorm):
            walk.norm(step, entered[:, None])
        else:
            walk.activation(step, entered[:, None])
    return walk


def _walk_last_layer(walk: _Walk, captured: Captured) -> torch.Tensor:
    """As ``_walk_layer``, where nothing but the position read out leaves the layer."""
    states = LayerStates(*(captured.at_readout(x)[:, None] for x in captured.layers[-1]))
    attention = captured.at_readout(captured.attention[-1])[:, :, None]
    past = torch.zeros_like(captured.entered)
    every = torch.arange(len(past), device=past.device)
    alone = _walk_layer(walk, captured.model.layers[-1], states, attention)
    past[every, captured.batch.rows.readout] = alone[:, 0]
    return past


def _walk_layer(
    walk: _Walk, layer: LayerParts, states: LayerStates, attention: torch.Tensor
) -> torch.Tensor:
    """Walks from a layer's output at S positions to its values at all T.

    Args:
        walk: At the layer's output, [B, S, d]; left at its values, heads side by side, [B, T, d].
        layer: The layer's modules.
        states: What passed through the layer at the S positions.
        attention: Its attention probabilities, [B, H, S, T].

    Returns:
        Gradient that goes past attention to the layer's input, [B, S, d].
    """
    walk.norm(layer.output_norm, states.widened)
    past = walk.gradient
    walk.linear(layer.contract)
    walk.activation(layer.activation, layer.expand(layer.attention_norm(states.attended)))
    walk.linear(layer.expand)
    walk.gradient = walk.gradient + past
    walk.norm(layer.attention_norm, states.attended)
    past = walk.gradient
    walk.linear(layer.output)
    heads = walk.gradient.unflatten(-1, (attention.shape[1], -1)).transpose(1, 2)
    walk.gradient = (attention.transpose(-1, -2) @ heads).transpose(1, 2).flatten(2)
    return past


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


def _through_norm(norm: nn.LayerNorm, parts: torch.Tensor, entered: torch.Tensor) -> torch.Tensor:
    """Parts [S, T, d] of what entered a layer norm, [S, d], to those of what left it."""
    centred = parts - parts.mean(-1, keepdim=True)
    return _spread(centred * (norm.weight / _deviation(norm, entered))[:, None], norm.bias)


def _through_linear(linear: nn.Linear, parts: torch.Tensor) -> torch.Tensor:
    """Parts [S, T, n] of what entered a linear map to those of what left it."""
    return _spread(parts @ linear.weight.T, linear.bias)


class _Parts:
    """One instance's hidden states as sums of one part per input token.

    Attributes:
        captured: The batch.
        row: Which of its instances.
        length: Its number of tokens T.
        readout: The position read out.
    """

    def __init__(self, captured: Captured, row: int) -> None:
        self.captured, self.row = captured, row
        self.length = len(captured.batch.instances[row])
        self.readout = int(captured.batch.rows.readout[row])

    def scores(self, head: _Head) -> torch.Tensor:
        """Parts of the explained scalar, [T]."""
        parts = self._leaving_the_encoder()
        for step, entered in head.steps:
            if isinstance(step, nn.Linear):
                parts = _through_linear(step, parts)
            elif isinstance(step, nn.LayerNorm):
                parts = _through_norm(step, parts, entered[self.row, None])
            else:
                parts = parts * _slope(step, entered[self.row])
        logits = _spread(parts[0] @ head.weight[self.row].T, head.bias[self.row])
        scores: torch.Tensor = logits @ self.captured.weights[self.row]
        return scores

    def _leaving_the_encoder(self) -> torch.Tensor:
        """Parts of the last hidden state of the position read out, [1, T, d]."""
        entered = self.captured.entered[self.row, : self.length]
        parts = entered.new_zeros(self.length, *entered.shape)
        parts.diagonal().copy_(entered.T)
        # The feed-forward part is wider than what is kept: few positions go through it at once.
        at_once = max(1, self.captured.budget // self.length)
        last = self.captured.model.num_layers - 1
        for number in range(last):
            values = self._values(number, parts)
            for start in range(0, self.length, at_once):
                some = slice(start, min(start + at_once, self.length))
                parts[some] = self._layer(number, some, parts[some], values)
        alone = slice(self.readout, self.readout + 1)
        return self._layer(last, alone, parts[alone], self._values(last, parts))

    def _values(self, number: int, parts: torch.Tensor) -> torch.Tensor:
        """Parts of a layer's values, [H, T, T * d/H]; the bias is in the first layer's only."""
        linear = self.captured.model.layers[number].value
        count = self.captured.attention[number].shape[1]
        heads = linear.weight.unflatten(0, (count, -1)).transpose(1, 2)
        values = (parts.flatten(0, 1) @ heads).unflatten(1, parts.shape[:2])
        if number == 0 and linear.bias is not None:
            values.diagonal(dim1=1, dim2=2).add_(linear.bias.view(len(values), -1, 1))
        flat: torch.Tensor = values.flatten(2)
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
        attended, widened = self._real(states.attended, some), self._real(states.widened, some)
        mixed = self.captured.attention[number][self.row, :, some, : self.length] @ values
        mixed = mixed.unflatten(2, (residual.shape[1], -1)).permute(1, 2, 0, 3).flatten(2)
        bias = layer.output.bias
        if number and layer.value.bias is not None:
            # Attention probabilities sum to 1, so the value's bias is added once.
            bias = layer.output(layer.value.bias)
        hidden = _spread(mixed @ layer.output.weight.T + residual, bias)
        hidden = _through_norm(layer.attention_norm, hidden, attended)
        inner = _through_linear(layer.expand, hidden)
        slope = _slope(layer.activation, layer.expand(layer.attention_norm(attended)))
        hidden = _through_linear(layer.contract, inner.mul_(slope[:, None])) + hidden
        return _through_norm(layer.output_norm, hidden, widened)

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
        cost="1 F + 1 B; absdot: about T F",
        paper="Modarressi et al. 2023, section 3",
        equation="x . df/dx with attention, deviations and act(x)/x frozen",
    )
)
