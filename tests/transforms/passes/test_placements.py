"""What tokens send each other, in layers whose parts stand as in no family that there is.

The layers are modules that compute for themselves, and say of themselves what they are; every
vector is formed from their weights.
"""

from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from attribeam.transforms.methods.norms import proximities
from attribeam.transforms.network.capture import LayerStates
from attribeam.transforms.network.parts import (
    Affine,
    Attention,
    Branch,
    FeedForward,
    Layer,
    Norm,
    Step,
)
from attribeam.transforms.passes.norms import LEVELS, Level, Sending, Workspace, norm_maps
from tests.support.models import relative_error

WIDTH, HEADS, GROUPS, SIZE, LENGTH = 24, 6, 2, 5, 9
LENGTHS = torch.tensor([LENGTH, 6])
READOUT = LENGTHS - 1


class Passed(NamedTuple):
    """What a block computed for rows [B, T, d], as it went along.

    Attributes:
        attention: Probabilities, [B, H, T, T].
        values: Of groups, [B, G, T, n].
        given: What attention gave, [B, T, d], before any norm.
        sums: Of its steps, [B, T, d].
        left: What left it, [B, T, d].
    """

    attention: torch.Tensor
    values: torch.Tensor
    given: torch.Tensor
    sums: tuple[torch.Tensor, ...]
    left: torch.Tensor


class Block(nn.Module):
    """A layer with all norms that it may have; which of them it uses is its kind.

    Heads share keys and values, and no token attends to a later one or to padding.
    """

    def __init__(self, kind: str, norm: type[nn.Module]) -> None:
        super().__init__()
        self.kind = kind
        self.query, self.key = nn.Linear(WIDTH, HEADS * SIZE), nn.Linear(WIDTH, GROUPS * SIZE)
        self.value, self.output = nn.Linear(WIDTH, GROUPS * SIZE), nn.Linear(HEADS * SIZE, WIDTH)
        self.expand, self.contract = nn.Linear(WIDTH, 40), nn.Linear(40, WIDTH)
        self.norms = nn.ModuleDict({name: norm(WIDTH, eps=1e-3) for name in PLACES})

    def named(self, name: str) -> Norm | None:
        """A norm, if the block has it where that is."""
        return Norm(self.norms[name]) if name in USED[self.kind] else None

    def layer(self) -> Layer:
        """What it is, in the vocabulary of all families."""
        maps = (Affine(m) for m in (self.query, self.key, self.value, self.output))
        insides: tuple[Any, ...] = (
            Attention(*maps, heads=HEADS, groups=GROUPS),
            FeedForward(Affine(self.expand), torch.relu, Affine(self.contract)),
        )
        branches = [
            Branch(inside, self.named(f"before_{part}"), self.named(f"after_{part}"))
            for inside, part in zip(insides, ("attention", "wide"), strict=True)
        ]
        if self.kind.startswith("parallel"):
            return Layer((Step(tuple(branches), self.named("join_attention")),), self)
        joins = (self.named("join_attention"), self.named("join_wide"))
        return Layer(tuple(Step((b,), j) for b, j in zip(branches, joins, strict=True)), self)

    def through(self, name: str, x: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = self.norms[name](x) if name in USED[self.kind] else x
        return normed

    def wide(self, x: torch.Tensor) -> torch.Tensor:
        inner = torch.relu(self.expand(self.through("before_wide", x)))
        return self.through("after_wide", self.contract(inner))

    def forward(self, x: torch.Tensor) -> Passed:
        size = len(x)
        entered = self.through("before_attention", x)
        queries = self.query(entered).view(size, LENGTH, GROUPS, HEADS // GROUPS, SIZE)
        keys, values = (m(entered).view(size, LENGTH, GROUPS, SIZE) for m in (self.key, self.value))
        scores = torch.einsum("bigre,bjge->bgrij", queries, keys) / SIZE**0.5
        seen = torch.ones(LENGTH, LENGTH).tril().bool()
        seen = seen & (torch.arange(LENGTH) < LENGTHS[:, None])[:, None, None, None]
        attention = scores.masked_fill(~seen, -torch.inf).softmax(-1)
        mixed = torch.einsum("bgrij,bjge->bigre", attention, values).flatten(2)
        given = self.output(mixed)
        added = self.through("after_attention", given)
        if self.kind.startswith("parallel"):
            sums: tuple[torch.Tensor, ...] = (x + added + self.wide(x),)
            left = self.through("join_attention", sums[0])
        else:
            middle = self.through("join_attention", x + added)
            sums = (x + added, middle + self.wide(middle))
            left = self.through("join_wide", sums[1])
        return Passed(attention.flatten(1, 2), values.transpose(1, 2), given, sums, left)


PLACES = [
    f"{where}_{part}" for where in ("before", "after", "join") for part in ("attention", "wide")
]
USED = {
    "post": ("join_attention", "join_wide"),
    "pre": ("before_attention", "before_wide"),
    "bare": ("before_wide",),
    "parallel": ("before_attention", "before_wide"),
    "sandwich": tuple(p for p in PLACES if "join" not in p),
    "parallel sandwich": tuple(p for p in PLACES if "join" not in p),
}
KINDS = pytest.mark.parametrize("kind", USED)
NORMS = pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])


def block_of(kind: str, norm: type[nn.Module]) -> Block:
    torch.manual_seed(3)
    block = Block(kind, norm).double().requires_grad_(False)
    for weight in block.parameters():
        weight.add_(torch.randn_like(weight), alpha=0.3)
    return block


def rows(factor: float = 1.0) -> torch.Tensor:
    random = torch.Generator().manual_seed(5)
    return factor * torch.randn(2, LENGTH, WIDTH, dtype=torch.float64, generator=random)


def linear_part(norm: nn.Module, x: torch.Tensor, entering: torch.Tensor) -> torch.Tensor:
    """Vectors [B, T, T, d] through a norm whose deviation is that of what enters it, [B, T, d]."""
    if isinstance(norm, nn.LayerNorm):
        x = x - x.mean(-1, keepdim=True)
        entering = entering - entering.mean(-1, keepdim=True)
    deviation = (entering.square().mean(-1) + 1e-3).sqrt()
    return x / deviation[:, :, None, None] * norm.weight


def vectors(block: Block, x: torch.Tensor) -> dict[Level, torch.Tensor]:
    """What token j sends to token i, [B, T (i), T (j), d], at all levels that the block has."""
    passed = block(x)
    weight = block.output.weight.T.view(HEADS, SIZE, WIDTH)
    values = torch.stack([passed.values[:, h // (HEADS // GROUPS)] for h in range(HEADS)], 1)
    sent = torch.einsum("bhij,bhje,hed->bijd", passed.attention, values, weight)
    if "after_attention" in USED[block.kind]:
        sent = linear_part(block.norms["after_attention"], sent, passed.given)
    found: dict[Level, torch.Tensor] = {"values": sent, "residual": sent.clone()}
    for token in range(LENGTH):
        found["residual"][:, token, token] += x[:, token]
    if block.kind == "post":
        below: Level = "residual"
        for level, name, entering in zip(LEVELS[2:], USED["post"], passed.sums, strict=True):
            found[level] = linear_part(block.norms[name], found[below], entering)
            below = level
    return found


def outputs(block: Block, x: torch.Tensor) -> dict[Level, torch.Tensor]:
    """What really is at each token at the levels from the residual on, [B, T, d]."""
    passed = block(x)
    found: dict[Level, torch.Tensor] = {
        "residual": x + block.through("after_attention", passed.given)
    }
    if block.kind == "post":
        found["attention_norm"] = block.norms["join_attention"](passed.sums[0])
        found["output_norm"] = passed.left
    return found


def states(passed: Passed, x: torch.Tensor, *, alone: bool) -> LayerStates:
    sums = passed.sums
    if alone:
        sums = tuple(total[[0, 1], READOUT][:, None] for total in sums)
    return LayerStates(x, passed.values, sums)


def of_readout(matrix: torch.Tensor, *, alone: bool) -> torch.Tensor:
    """What is compared of rows by token, [B, T, ...]."""
    return matrix[[0, 1], READOUT] if alone else matrix


@KINDS
@NORMS
def test_blocks_are_what_they_say(kind: str, norm: type[nn.Module]) -> None:
    block = block_of(kind, norm)
    passed = block(rows())
    replayed = block.layer().replay(rows(), passed.attention)
    assert relative_error(replayed, passed.left) < 1e-13


@pytest.mark.parametrize("alone", [False, True])
@KINDS
@NORMS
def test_norms(kind: str, norm: type[nn.Module], alone: bool) -> None:
    block, x = block_of(kind, norm), rows()
    passed, formed = block(x), vectors(block, x)
    state = states(passed, x, alone=alone)
    found = norm_maps([block.layer()], [passed.attention], [state], [*formed], READOUT)
    for level, expected in formed.items():
        maps, ratios = found[level].maps[0], found[level].ratios[0]
        norms = torch.linalg.vector_norm(expected, dim=-1)
        own = norms.diagonal(dim1=1, dim2=2)
        kept = expected.diagonal(dim1=1, dim2=2).transpose(1, 2)
        others = torch.linalg.vector_norm(expected.sum(2) - kept, dim=-1)
        for pair in ((maps, norms), (ratios, others / (others + own))):
            assert relative_error(*(of_readout(x, alone=alone) for x in pair)) < 1e-12
        assert (maps.triu(1) == 0).all()
        assert (maps[1, : LENGTHS[1], LENGTHS[1] :] == 0).all()
        if alone:
            assert maps.count_nonzero() == LENGTHS.sum()


@pytest.mark.parametrize("alone", [False, True])
@KINDS
@NORMS
def test_alti(kind: str, norm: type[nn.Module], alone: bool) -> None:
    block, x = block_of(kind, norm), rows()
    passed, formed = block(x), vectors(block, x)
    state = states(passed, x, alone=alone)
    sending = Sending(block.layer(), passed.attention, state, READOUT)
    for level, output in outputs(block, x).items():
        far = (output[:, :, None] - formed[level]).abs().sum(-1)
        expected = (output.abs().sum(-1)[..., None] - far).clamp(min=0)
        near = proximities(sending, level, Workspace())
        assert expected.count_nonzero() > LENGTH
        pair = (of_readout(matrix, alone=alone) for matrix in (near, expected))
        assert relative_error(*pair) < 1e-12
        if alone:
            assert (near.sum((1, 2)) == near[[0, 1], READOUT].sum(-1)).all()


@pytest.mark.parametrize("kind", ["pre", "parallel", "sandwich"])
def test_a_long_residual_takes_no_digits_off_what_comes_from_others(kind: str) -> None:
    """Before a norm nothing bounds what passes layers by; in float32 it may be 1e6 times longer."""
    block, x = block_of(kind, nn.LayerNorm), rows(1e6).float().double()
    ratios = []
    for dtype in (torch.float64, torch.float32):
        block, x = block.to(dtype), x.to(dtype)
        passed = block(x)
        state = states(passed, x, alone=False)
        maps = norm_maps([block.layer()], [passed.attention], [state], ["values"], READOUT)
        ratios.append(maps["values"].ratios[0][:, 1:])
    assert relative_error(ratios[1], ratios[0]) < 1e-5
