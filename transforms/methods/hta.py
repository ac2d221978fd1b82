"""How strongly the last hidden state of the position read out depends on each input token."""

from collections.abc import Iterator

import numpy as np
import torch

from attribeam.transforms.network.capture import Watch
from attribeam.transforms.passes.captured import Captured
from attribeam.transforms.passes.forward import Forward
from attribeam.transforms.registry import Method, Params, Scores, register

_NAME = "hta_x_input"


def hta_x_input(captured: Captured, params: Params) -> Scores:
    """Hidden token attribution times input, from the encoder's input to its output, as a norm.

    score[j] = ||(d h / d x[j]) diag(x[j])||_F, with h the last hidden state of the position read
    out (the mean of all, where that is read) and x what enters the first layer: hidden token
    attribution (Brunner et al. 2020) times the input, equation 18 of GlobEnc's paper taken over all
    layers at once, as its authors' code does (the paper's text is about single layers). h is what
    leaves the last layer: of a pre-LN model, before its last norm. It knows nothing of classes.

    Exact with ``probes=0``, at one backward pass per hidden unit of h. With ``probes=m`` it is an
    estimate from m passes: v . h is differentiated along random directions v ~ N(0, I), drawn per
    instance from its own generator, and the mean of ||(d (v . h) / d x[j]) * x[j]||^2 is unbiased
    for the square of the score.

    One graph of one forward pass serves all backward passes, so memory is that of one.
    """
    entered = captured.entered.clone().requires_grad_()
    with torch.enable_grad():
        hidden = _last_hidden(captured, entered)
    squares = torch.zeros_like(entered[..., 0], dtype=torch.float64)
    for direction in _directions(captured, hidden, params["probes"]):
        (gradient,) = torch.autograd.grad(hidden, entered, direction, retain_graph=True)
        squares += (gradient * captured.entered).double().square().sum(-1)
    return Scores(squares.sqrt())


def _last_hidden(captured: Captured, entered: torch.Tensor) -> torch.Tensor:
    """Last hidden state of the position read out, [B, 1, d], of what enters the first layer."""
    rows = captured.batch.rows
    watch = Watch(whole=not rows.read.alone)
    left = captured.model.run(rows, watch=watch, enter=entered)[1].left
    assert left is not None
    return left if rows.read.alone else rows.read.gather(left)[:, None]


def _directions(captured: Captured, hidden: torch.Tensor, probes: int) -> Iterator[torch.Tensor]:
    """What to weigh the hidden units by, [B, 1, d] a pass: one unit, or all of them at random."""
    units = hidden.shape[-1]
    if probes == 0:
        for unit in range(units):
            direction = torch.zeros_like(hidden)
            direction[..., unit] = 1
            yield direction
        return
    generators = [i.generator(captured.seed, _NAME) for i in captured.batch.instances]
    for _ in range(probes):
        drawn = np.stack([generator.standard_normal((1, units)) for generator in generators])
        yield torch.from_numpy(drawn / np.sqrt(probes)).to(hidden)


register(
    Method(
        name=_NAME,
        compute=hta_x_input,
        needs=lambda params: (Forward(),),
        requires=("layers",),
        defaults={"probes": 0},
        signed=False,
        class_dependent=False,
        additive=False,
        cost="1 F + d B; probes=m: 1 F + m B",
        paper="Modarressi et al. 2022 (GlobEnc), equation 18; Brunner et al. 2020",
        equation="||dh[readout]/dx diag(x)||_F",
        opt_in="one backward pass per hidden unit",
    )
)
