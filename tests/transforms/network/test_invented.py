"""Families that nobody has made, each said by one row, and all methods that its traits allow.

Nothing but the row knows in which order layers pass attention, the feed-forward part and norms.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import LlamaForSequenceClassification
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm

from attribeam.schemas import UsageError
from attribeam.transforms import Attributions, Model, choose
from attribeam.transforms.inputs.kinds import collate
from attribeam.transforms.inputs.targets import Explained
from attribeam.transforms.network.anatomy import Anatomy
from attribeam.transforms.network.check import check
from attribeam.transforms.network.parts import (
    Affine,
    Attention,
    Branch,
    FeedForward,
    Layer,
    Norm,
    Step,
)
from attribeam.transforms.passes.attention_path import attention_path, observe
from tests.support.models import random_instances, relative_error, tiny_config, tokenizer_for
from tests.transforms.methods.test_methods import ALL_METHODS, attribute, cheap, fits

pytestmark = pytest.mark.usefixtures("padding_at_will")


class Norms(LlamaDecoderLayer):
    """A layer with a norm before and after each branch; one of them with a mean."""

    def __init__(self, config: Any, number: int) -> None:
        super().__init__(config, number)
        size = config.hidden_size
        self.before = nn.ModuleList([LlamaRMSNorm(size), nn.LayerNorm(size)])
        self.after = nn.ModuleList([nn.LayerNorm(size, bias=False), LlamaRMSNorm(size)])

    def attend(self, x: torch.Tensor, more: dict[str, Any]) -> torch.Tensor:
        mixed, _ = self.self_attn(hidden_states=self.before[0](x), **more)
        return self.after[0](mixed)  # type: ignore[no-any-return]

    def widen(self, x: torch.Tensor) -> torch.Tensor:
        return self.after[1](self.mlp(self.before[1](x)))  # type: ignore[no-any-return]


class Parallel(Norms):
    def forward(self, hidden_states: torch.Tensor, **more: Any) -> torch.Tensor:
        return hidden_states + self.attend(hidden_states, more) + self.widen(hidden_states)


class Sandwich(Norms):
    def forward(self, hidden_states: torch.Tensor, **more: Any) -> torch.Tensor:
        attended = hidden_states + self.attend(hidden_states, more)
        return attended + self.widen(attended)


def branches(module: Any, heads: int) -> list[Branch]:
    mixing, mlp = module.self_attn, module.mlp
    maps = [Affine(getattr(mixing, f"{name}_proj")) for name in "qkvo"]
    insides: Sequence[Attention | FeedForward] = (
        Attention(*maps, heads=heads, groups=heads // 2, moves=True),
        FeedForward(Affine(mlp.up_proj), mlp.act_fn, Affine(mlp.down_proj), Affine(mlp.gate_proj)),
    )
    return [
        Branch(inside, Norm(before), Norm(after))
        for inside, before, after in zip(insides, module.before, module.after, strict=True)
    ]


FAMILIES: dict[str, tuple[type[Norms], Callable[[Any, int], Layer]]] = {
    "parallel": (Parallel, lambda m, heads: Layer((Step(tuple(branches(m, heads))),), m)),
    "sandwich": (
        Sandwich,
        lambda m, heads: Layer(tuple(Step((each,)) for each in branches(m, heads)), m),
    ),
}


def made(kind: type[Norms], layer: Callable[[Any, int], Layer]) -> Model:
    torch.manual_seed(0)
    config = tiny_config("llama")
    network = LlamaForSequenceClassification(config)
    network.model.layers = nn.ModuleList([kind(config, number) for number in range(3)])
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.2)
    heads = {"classification": ("model.norm", "score")}
    return Model(
        network=network.double().eval().requires_grad_(False),
        anatomy=Anatomy("model.layers", layer, heads, segments=False, causal=True),
        task="classification",
        tokenizer=tokenizer_for("llama"),
        mask_id=4,
        pad_id=1,
        max_length=40,
    )


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> Model:
    return made(*FAMILIES[request.param])


def test_it_is_what_its_row_says(model: Model) -> None:
    check(model)


def test_a_row_that_is_of_another_layer(model: Model) -> None:
    kind: Any = type(model.layers[0].module)
    (other,) = (layer for of, layer in FAMILIES.values() if of is not kind)
    wrong = made(kind, other)
    with pytest.raises(UsageError, match="layer 0 is off by"):
        check(wrong)


def numbers(found: Attributions, method: str) -> list[np.ndarray]:
    assert found.failures == []
    rows = found.rows[method]
    return [np.append(row.scores, row.delta or 0) for row in rows if row is not None]


@pytest.mark.parametrize("method", ALL_METHODS)
def test_all_methods_that_it_allows(model: Model, method: str) -> None:
    instances = random_instances(model, [7, 12, 5])
    if not fits(model, method):
        with pytest.raises(UsageError, match=f"{method} is defined by"):
            attribute(model, instances[:1], cheap(method))
        return
    together = numbers(attribute(model, instances, cheap(method)), method)
    alone = [numbers(attribute(model, [one], cheap(method)), method)[0] for one in instances]
    for ours, theirs in zip(together, alone, strict=True):
        # Far above rounding, and far below what a batch mate would make.
        assert np.abs(ours - theirs).max() <= 1e-6 * max(1e-6, np.abs(theirs).max())


def test_decompx_adds_up(model: Model) -> None:
    instances = random_instances(model, [7, 12, 5])
    for bias in ("token", "absdot"):
        found = attribute(model, instances, choose("decompx", {"decompx": {"bias": bias}}))
        for row, prediction in zip(found.rows["decompx"], found.predictions, strict=True):
            assert row is not None and prediction is not None
            total = row.scores.sum() + (row.bias or 0)
            assert relative_error(total, prediction.logits[row.target]) < 1e-9


def test_attention_is_attributed_along_its_path(model: Model) -> None:
    """Without a layer's attention, and with it, the output is that of the network itself."""
    rows = collate(model, random_instances(model, [7, 12])).rows
    states = observe(model, rows)
    question = Explained("logit", states.logits.argmax(-1))
    for number, layer in enumerate(model.layers):
        along = attention_path(states, number, question, "logit").outputs(np.array([0.0, 1.0]))
        output = layer.attention.output.module
        handle = output.register_forward_pre_hook(lambda _, args: (args[0] * 0,))
        try:
            without = question(model.run(rows)[0])
        finally:
            handle.remove()
        assert relative_error(along, torch.stack([without, question(states.logits)], 1)) < 1e-9
