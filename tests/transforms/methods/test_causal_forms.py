"""Methods of encoders on language models, against transformers' own code run on each prefix alone.

There is one question for each token that follows; what comes after the position that is read has no
part in it. transformers computes norms in float32 whatever the type.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForCausalLM
from transformers.masking_utils import eager_mask

from attribeam.transforms import (
    Attribution,
    Instance,
    Model,
    Row,
    attribute,
    choose,
    collect,
    encode,
)
from attribeam.transforms.inputs.kinds import collate
from attribeam.transforms.network.capture import Watch
from attribeam.transforms.passes.base import quadrature
from attribeam.transforms.passes.bottleneck import Bottleneck
from tests.conftest import LoadTiny
from tests.support.models import GOLDENS, relative_error

pytestmark = pytest.mark.usefixtures("padding_at_will")

MODELS = pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
CLOSE = 2e-5


def questions(model: Model) -> list[Instance]:
    """All that is asked about two rows, of lengths of their own."""
    rows = pq.read_table(GOLDENS / "corpus_lm.parquet").to_pylist()[1:3]
    names = ("input_ids", "continuation_ids", "foil_ids")
    return encode(model, [Row(row["id"], **{name: row[name] for name in names}) for row in rows])


def rows_of(
    model: Model, method: str, explain: str = "contrast", **params: Any
) -> list[tuple[Instance, Attribution]]:
    """A method's scores of each token that follows, all in one batch."""
    asked = [one for one in questions(model) if not one.of_all]
    chosen = choose(method, {method: params})
    found = attribute(model, asked, chosen, explain=explain, token_budget=100_000)
    assert found.failures == []
    return list(zip(asked, cast(list[Attribution], found.rows[method]), strict=True))


# transformers' own --------------------------------------------------------------------------------

# What attention of a layer is multiplied by, and what was paid in each.
_FACTORS: dict[int, float] = {}
_PAID: list[torch.Tensor] = []
_VALUES: list[torch.Tensor] = []


def _attention(
    module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float, **more: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention as in a textbook, which can be scaled as a whole; heads may share keys."""
    shared = query.shape[1] // key.shape[1]
    keys, values = (x.repeat_interleave(shared, 1) for x in (key, value))
    scores = query @ keys.mT * scaling
    if (cap := more.get("softcap")) is not None:
        scores = cap * (scores / cap).tanh()
    paid = (scores + mask).softmax(-1)
    if not paid.requires_grad:
        paid.requires_grad_()
    paid = paid * _FACTORS.get(module.layer_idx, 1.0)
    _PAID.append(paid)
    _VALUES.append(values)
    return (paid @ values).transpose(1, 2), paid


@cache
def plain(name: str) -> Any:
    AttentionInterface.register("textbook", _attention)
    AttentionMaskInterface.register("textbook", eager_mask)
    network = AutoModelForCausalLM.from_pretrained(
        GOLDENS / f"{name}-golden", attn_implementation="textbook", dtype=torch.float64
    )
    return network.eval().requires_grad_(False)


class Run:
    """One run on a prefix.

    Attributes:
        logits: Of the token asked for and of its foil, [2], and all of them, [V].
        paid: Attention of each layer, [H, T, T].
        values: Of each layer and of all heads, [H, T, n].
        entered: What enters each layer, [T, d].
    """

    def __init__(
        self, network: Any, instance: Instance, embeddings: torch.Tensor | None = None
    ) -> None:
        _PAID.clear()
        _VALUES.clear()
        if embeddings is None:
            embeddings = words(network, instance)
        given = network(inputs_embeds=embeddings, output_hidden_states=True, use_cache=False)
        self.every = given.logits[0, -1]
        assert instance.asked is not None
        self.logits = self.every[list(instance.asked)]
        self.batched = list(_PAID)
        self.paid = [x[0] for x in _PAID]
        self.values = [x[0] for x in _VALUES]
        self.entered = [x[0] for x in given.hidden_states[:-1]]

    @property
    def contrast(self) -> torch.Tensor:
        return self.logits[0] - self.logits[1]

    def gradients(self) -> list[torch.Tensor]:
        """Of the contrast, with respect to each layer's attention, [H, T, T]."""
        return [g[0] for g in torch.autograd.grad(self.contrast, self.batched)]


def words(network: Any, instance: Instance) -> torch.Tensor:
    """What is looked up for tokens, [1, T, d]."""
    found: torch.Tensor = network.get_input_embeddings()(
        torch.tensor(instance.input_ids[None]).long()
    )
    return found


def output_weights(network: Any, layer: int) -> torch.Tensor:
    """What mixed values of all heads are multiplied by from the right, [H n, d]."""
    if hasattr(network, "transformer"):
        return cast(torch.Tensor, network.transformer.h[layer].attn.c_proj.weight)
    return cast(torch.Tensor, network.model.layers[layer].self_attn.o_proj.weight.T)


def last_row(layers: list[torch.Tensor]) -> torch.Tensor:
    """The last row of the product of I + M, last layer first."""
    product = torch.eye(len(layers[0]), dtype=torch.float64)
    for layer in layers:
        product = (torch.eye(len(layer), dtype=torch.float64) + layer) @ product
    return product[-1]


# Attention, and gradients of it ---------------------------------------------------------------


@MODELS
def test_rollout_of_all_and_without_the_first(golden: LoadTiny, name: str) -> None:
    model = golden(f"{name}-golden", "float64")
    network, half = plain(name), 0.5
    for first in ("kept", "dropped"):
        for instance, row in rows_of(model, "attention_rollout", first=first):
            product = torch.eye(len(instance), dtype=torch.float64)
            for paid in Run(network, instance).paid:
                mean = paid.mean(0)
                if first == "dropped":
                    mean = mean.clone()
                    mean[1:, 0] = 0
                    mean = mean / mean.sum(-1, keepdim=True)
                product = half * (product + mean @ product)
            assert relative_error(row.scores, product[-1].detach()) < CLOSE
            assert row.scores.sum() == pytest.approx(1)
            if first == "dropped" and len(instance) > 1:
                assert row.scores[0] == 0


@MODELS
def test_generic_attribution(golden: LoadTiny, name: str) -> None:
    for instance, row in rows_of(golden(f"{name}-golden", "float64"), "generic_attribution"):
        run = Run(plain(name), instance)
        layers = [
            (paid * gradient).clamp(min=0).mean(0)
            for paid, gradient in zip(run.paid, run.gradients(), strict=True)
        ]
        assert relative_error(row.scores, last_row(layers).detach()) < CLOSE


@MODELS
def test_attention_gradcam(golden: LoadTiny, name: str) -> None:
    for instance, row in rows_of(golden(f"{name}-golden", "float64"), "attention_gradcam"):
        run = Run(plain(name), instance)
        weights = run.gradients()[-1].mean((1, 2))
        cam = (weights[:, None, None] * run.paid[-1]).mean(0).clamp(min=0)
        spread = cam.max() - cam.min()
        expected = (cam - cam.min()) / spread if spread > 0 else cam
        if len(instance) > 1:
            assert np.abs(row.scores - expected[-1].detach().numpy()).max() < CLOSE


def feedback(network: Any, instance: Instance) -> torch.Tensor:
    """E_h max(0, mean of gradients of the last attention's last row), [T].

    Along the path from no words to these; embeddings of positions stay.
    """
    end, total = words(network, instance), 0.0
    for share in np.linspace(0, 1, 5):
        run = Run(network, instance, float(share) * end)
        total = total + run.gradients()[-1][:, -1] / 5
    return cast(torch.Tensor, total).clamp(min=0).mean(0)


@MODELS
def test_beyond_intuition(golden: LoadTiny, name: str) -> None:
    model, network = golden(f"{name}-golden", "float64"), plain(name)
    by_token, by_head = (
        rows_of(model, method, steps=5, rule="endpoints", start_layer=1)
        for method in ("bt_token", "bt_head")
    )
    for (instance, token), (_, head) in zip(by_token, by_head, strict=True):
        run, looked_for = Run(network, instance), feedback(network, instance)
        tokens, heads = [], []
        gradients = Run(network, instance).gradients()
        for layer in range(1, 4):
            values = run.values[layer].transpose(0, 1).flatten(1)
            sent = (values @ output_weights(network, layer)).norm(dim=-1)
            grown = sent / run.entered[layer].norm(dim=-1)
            tokens.append(run.paid[layer].mean(0) * grown)
            importance = (run.paid[layer].mT @ gradients[layer]).abs().mean((1, 2))
            theta = importance / importance.sum() if importance.sum() > 0 else importance
            heads.append((theta[:, None, None] * run.paid[layer]).sum(0))
        for row, layers in ((token, tokens), (head, heads)):
            expected = (last_row(layers) * looked_for).detach()
            assert relative_error(row.scores, expected) < CLOSE


@contextmanager
def scaled(layer: int, factor: float) -> Iterator[None]:
    """For its duration attention of a layer is multiplied by a number."""
    _FACTORS[layer] = factor
    try:
        yield
    finally:
        _FACTORS.clear()


def test_self_attention_attribution(golden: LoadTiny) -> None:
    """Of the probability of what follows, among all tokens that there are."""
    model, network = golden("gemma2-golden", "float64"), plain("gemma2")
    params = {"rule": "midpoint", "steps": 3, "most": 3}
    for instance, row in rows_of(model, "attattr_colsum", **params):
        expected = torch.zeros(len(instance), dtype=torch.float64)
        for layer in range(4):
            real, total = Run(network, instance).paid[layer].detach(), 0.0
            for factor in (1 / 6, 1 / 2, 5 / 6):
                with scaled(layer, factor):
                    run = Run(network, instance)
                    assert instance.asked is not None
                    probability = run.every.softmax(-1)[instance.asked[0]]
                    (gradient,) = torch.autograd.grad(probability, [run.batched[layer]])
                total = total + gradient[0] / 3
            expected += (real * total).sum((0, 1))
        assert relative_error(row.scores, expected) < CLOSE


# Norms ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_norms(golden: LoadTiny, name: str) -> None:
    model, network = golden(f"{name}-golden", "float64"), plain(name)
    plainly, whole = rows_of(model, "norm_n"), rows_of(model, "norm_n_res")
    for (instance, row), (_, with_residual) in zip(plainly, whole, strict=True):
        run = Run(network, instance)
        products = [torch.eye(len(instance), dtype=torch.float64) for _ in range(2)]
        for layer in range(4):
            weight = output_weights(network, layer).unflatten(0, (len(run.paid[layer]), -1))
            vectors = torch.einsum("hij,hjn,hnd->ijd", run.paid[layer], run.values[layer], weight)
            both = vectors + torch.diag_embed(run.entered[layer].T).permute(1, 2, 0)
            products = [
                of.norm(dim=-1) @ product
                for of, product in zip((vectors, both), products, strict=True)
            ]
        for found, product in zip((row, with_residual), products, strict=True):
            expected = (product[-1] / product[-1].sum()).detach()
            assert relative_error(found.scores, expected) < CLOSE


# Influence ------------------------------------------------------------------------------------


def test_influence_is_of_the_contrast_that_is_asked_for(golden: LoadTiny) -> None:
    model, network = golden("gpt2-golden", "float64"), plain("gpt2")
    shares, weights = quadrature("trapezoid", 6)
    for instance, row in rows_of(model, "influence", points=6, rule="trapezoid", baseline="zero"):
        end, total = words(network, instance), 0.0
        for share, weight in zip(shares, weights, strict=True):
            point = (float(share) * end).requires_grad_()
            (gradient,) = torch.autograd.grad(Run(network, instance, point).contrast, point)
            total = total + float(weight) * gradient
        assert relative_error(row.scores, (total * end).sum(-1)[0].detach()) < CLOSE
        for pattern in row.details["patterns"]:
            # No path goes back.
            assert (np.diff(cast(Any, pattern).nodes) >= 0).all()


# Information bottlenecks ----------------------------------------------------------------------


def test_the_first_token_has_no_part_in_statistics(golden: LoadTiny) -> None:
    model, network = golden("llama-golden", "float64"), plain("llama")
    asked = questions(model)
    statistics = collect(model, asked, 1000)
    states: list[list[torch.Tensor]] = [[] for _ in range(4)]
    for instance in asked:
        if instance.of_all:
            assert instance.continuation is not None
            ids = torch.tensor(instance.continuation.fed[None]).long()
            given = network.model(ids, output_hidden_states=True, use_cache=False).hidden_states
            for layer in range(3):  # What leaves the last passes a norm on its way out.
                states[layer].append(given[layer + 1][0, 1:])
    for layer in range(3):
        every = torch.cat(states[layer]).detach()
        assert statistics.count == len(every)
        assert relative_error(statistics.mean[layer], every.mean(0)) < CLOSE
        assert relative_error(statistics.std[layer], every.std(0, correction=0)) < CLOSE


@pytest.mark.parametrize("method", ["iba", "iba_released"])
def test_bottlenecks_let_the_first_token_pass(golden: LoadTiny, method: str) -> None:
    model = golden("llama-golden", "float64")
    asked = questions(model)
    chosen = choose(method, {method: {"steps": 4, "copies": 2, "layer": 1}})
    found = attribute(model, asked, chosen, statistics=collect(model, asked, 1000))
    assert found.failures == []
    for row in cast(list[Attribution], found.rows[method]):
        assert row.scores[0] == 0 and (row.scores[1:] > 0).any()


def test_a_bottleneck_of_all_that_follows_has_its_log_probability(golden: LoadTiny) -> None:
    """Wide open, the cross entropy is what the model says; shut, what is put in has a say."""
    model = golden("llama-golden", "float64")
    asked = [one for one in questions(model) if one.of_all]
    batch = collate(model.of_all, asked)
    with torch.no_grad():
        states = model.of_all.run(batch.rows, watch=Watch(whole=True, outputs=True))[1].outputs[1]
    bottleneck = Bottleneck(
        model=model.of_all,
        batch=batch,
        layer=1,
        states=states,
        mean=states.new_zeros(states.shape[-1]),
        std=states.new_ones(states.shape[-1]),
        targets=torch.zeros(len(asked), dtype=torch.long),
        beta=1.0,
        copies=1,
        seed=0,
    )
    noise = bottleneck.noise(0)
    with torch.no_grad():
        opened = bottleneck.cross_entropy(torch.full_like(states, 40.0), 0 * noise)[0]
        shut = bottleneck.cross_entropy(torch.full_like(states, -40.0), 0 * noise)[0]
        kept = states.clone()
        kept[:, 1:] = 0
        expected, _ = model.of_all.run(batch.rows, enter=kept, start=2)
    for instance, entropy in zip(asked, opened.tolist(), strict=True):
        assert entropy == pytest.approx(-cast(float, instance.log_prob), rel=1e-9)
    torch.testing.assert_close(shut, -expected[:, 0], rtol=1e-9, atol=0)
