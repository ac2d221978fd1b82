"""Layers of many families, said in one vocabulary, give what transformers' own code gives."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import transformers
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from attribeam.schemas import UsageError
from attribeam.transforms import Model, attribute, choose, load_model
from attribeam.transforms.inputs.kinds import collate
from attribeam.transforms.network import capture
from attribeam.transforms.network.check import check, random_rows
from attribeam.transforms.network.parts import (
    Affine,
    Attention,
    Branch,
    FeedForward,
    Layer,
    Norm,
    Step,
)
from tests.conftest import LoadTiny
from tests.support.models import (
    FAMILIES,
    TASKS,
    random_instances,
    relative_error,
    save_tiny,
)
from tests.support.models import OTHERS as OTHER_FAMILIES

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 50,
    "pad_token_id": 0,
}
GROUPED = {**SIZES, "num_key_value_heads": 2}
RECORDED = "recorded-in-a-test"
recorded: list[torch.Tensor] = []


def attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    times = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(times, 1) for x in (key, value))
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
    probabilities = (scores if mask is None else scores + mask).softmax(-1)
    recorded.append(probabilities)
    return (probabilities @ value).transpose(1, 2), probabilities


AttentionInterface.register(RECORDED, attention)
AttentionMaskInterface.register(RECORDED, eager_mask)


class Family(NamedTuple):
    kind: str
    config: dict[str, Any]
    layers: str
    layer: Callable[[Any], tuple[Step, ...]]


def steps(*branches: Branch) -> tuple[Step, ...]:
    return tuple(Step((branch,)) for branch in branches)


def thirds(module: nn.Module, number: int) -> Affine:
    return Affine(module, slice(32 * number, 32 * (number + 1)))


def gpt2(layer: Any) -> tuple[Step, ...]:
    own, wide = layer.attn, layer.mlp
    mixing = Attention(*(thirds(own.c_attn, n) for n in range(3)), Affine(own.c_proj), 4, 4)
    inside = FeedForward(Affine(wide.c_fc), wide.act, Affine(wide.c_proj))
    return steps(Branch(mixing, Norm(layer.ln_1)), Branch(inside, Norm(layer.ln_2)))


def grouped(layer: Any) -> Attention:
    own = layer.self_attn
    maps = (Affine(module) for module in (own.q_proj, own.k_proj, own.v_proj, own.o_proj))
    return Attention(*maps, heads=4, groups=2)


def gated(layer: Any) -> FeedForward:
    wide = layer.mlp
    contract, gate = Affine(wide.down_proj), Affine(wide.gate_proj)
    return FeedForward(Affine(wide.up_proj), wide.act_fn, contract, gate)


def llama(layer: Any) -> tuple[Step, ...]:
    first, second = Norm(layer.input_layernorm), Norm(layer.post_attention_layernorm)
    return steps(Branch(grouped(layer), first), Branch(gated(layer), second))


def gemma2(layer: Any) -> tuple[Step, ...]:
    norms = (
        *("input_layernorm", "post_attention_layernorm"),
        *("pre_feedforward_layernorm", "post_feedforward_layernorm"),
    )
    before, after, second, last = (Norm(getattr(layer, name), 1.0) for name in norms)
    return steps(Branch(grouped(layer), before, after), Branch(gated(layer), second, last))


def phi3(layer: Any) -> tuple[Step, ...]:
    own, wide = layer.self_attn, layer.mlp
    maps = (Affine(own.qkv_proj, slice(*ends)) for ends in ((0, 32), (32, 48), (48, 64)))
    inside = FeedForward(
        Affine(wide.gate_up_proj, slice(64, 128)),
        wide.activation_fn,
        Affine(wide.down_proj),
        Affine(wide.gate_up_proj, slice(0, 64)),
    )
    first, second = Norm(layer.input_layernorm), Norm(layer.post_attention_layernorm)
    mixing = Attention(*maps, Affine(own.o_proj), heads=4, groups=2)
    return steps(Branch(mixing, first), Branch(inside, second))


def gpt_neox(layer: Any) -> tuple[Step, ...]:
    """Two branches of one step; heads are interleaved with queries, keys and values."""
    own, wide = layer.attention, layer.mlp
    numbers = torch.arange(96).view(4, 3, 8)
    maps = (Affine(own.query_key_value, numbers[:, n].flatten()) for n in range(3))
    mixing = Attention(*maps, Affine(own.dense), heads=4, groups=4)
    inside = FeedForward(Affine(wide.dense_h_to_4h), wide.act, Affine(wide.dense_4h_to_h))
    first, second = Norm(layer.input_layernorm), Norm(layer.post_attention_layernorm)
    return (Step((Branch(mixing, first), Branch(inside, second))),)


def albert(layer: Any) -> tuple[Step, ...]:
    own = layer.attention
    maps = (Affine(module) for module in (own.query, own.key, own.value, own.dense))
    inside = FeedForward(Affine(layer.ffn), layer.activation, Affine(layer.ffn_output))
    return (
        Step((Branch(Attention(*maps, heads=4, groups=4)),), Norm(own.LayerNorm)),
        Step((Branch(inside),), Norm(layer.full_layer_layer_norm)),
    )


def modernbert(layer: Any) -> tuple[Step, ...]:
    own, wide = layer.attn, layer.mlp
    mixing = Attention(*(thirds(own.Wqkv, n) for n in range(3)), Affine(own.Wo), 4, 4)
    first = None if isinstance(layer.attn_norm, nn.Identity) else Norm(layer.attn_norm)
    inside = FeedForward(
        Affine(wide.Wi, slice(64, 128)), wide.act, Affine(wide.Wo), Affine(wide.Wi, slice(0, 64))
    )
    return steps(Branch(mixing, first), Branch(inside, Norm(layer.mlp_norm)))


OTHERS = {
    "gpt2": Family(
        "GPT2",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 64, "vocab_size": 50},
        "h",
        gpt2,
    ),
    "llama": Family("Llama", GROUPED, "layers", llama),
    "qwen2": Family("Qwen2", GROUPED, "layers", llama),
    "mistral": Family("Mistral", GROUPED, "layers", llama),
    "gemma2": Family("Gemma2", {**GROUPED, "head_dim": 8}, "layers", gemma2),
    "phi3": Family("Phi3", GROUPED, "layers", phi3),
    "gpt_neox": Family("GPTNeoX", SIZES, "layers", gpt_neox),
    "modernbert": Family("ModernBert", SIZES, "layers", modernbert),
    "albert": Family(
        "Albert",
        {**SIZES, "embedding_size": 16},
        "encoder.albert_layer_groups.0.albert_layers",
        albert,
    ),
}


def network_of(family: Family) -> nn.Module:
    """A small one with random weights, norms and biases among them."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{family.kind}Config")(**family.config)
    config._attn_implementation = RECORDED
    network: nn.Module = getattr(transformers, f"{family.kind}Model")._from_config(config)
    for weight in network.parameters():
        weight.requires_grad_(False).add_(0.1 * torch.randn_like(weight))
    return network.eval()


@pytest.mark.parametrize("name", OTHERS)
def test_layers_replayed_from_their_input_and_attention(name: str) -> None:
    family = OTHERS[name]
    network = network_of(family).double()
    entered, left = [], []
    # What is computed in float32 whatever the model is in.
    limit = 1e-12 if name in ("gpt2", "gpt_neox", "albert", "modernbert") else 1e-5
    modules = list(network.get_submodule(family.layers))  # type: ignore[call-overload]
    for module in modules:
        module.register_forward_pre_hook(
            lambda _, args, given: entered.append(args[0] if args else given["hidden_states"]),
            with_kwargs=True,
        )
        module.register_forward_hook(lambda _, __, output: left.append(output))
    recorded.clear()
    network(torch.randint(1, 50, (2, 11), generator=torch.Generator().manual_seed(1)))
    assert len(entered) == len(left) == len(recorded) == 2
    for number, (hidden, probabilities, output) in enumerate(
        zip(entered, recorded, left, strict=True)
    ):
        module = modules[number % len(modules)]
        replayed = Layer(family.layer(module), module).replay(hidden, probabilities)
        assert relative_error(replayed, output[0] if isinstance(output, tuple) else output) < limit


def test_parts_of_fused_maps() -> None:
    module = nn.Linear(3, 4, dtype=torch.float64)
    x = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    some = Affine(module, torch.tensor([3, 1]))
    torch.testing.assert_close(some(x), module(x)[:, [3, 1]])
    torch.testing.assert_close(x @ some.weight.T + some.bias, module(x)[:, [3, 1]])
    with pytest.raises(TypeError, match="a linear map is a Embedding, not a Linear"):
        Affine(nn.Embedding(2, 2))
    with pytest.raises(TypeError, match="a norm is a Identity, not a LayerNorm"):
        Norm(nn.Identity())


def test_norms_are_their_formula() -> None:
    x = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for centred in (True, False):
        kind: Any = nn.LayerNorm if centred else LlamaRMSNorm
        norm = Norm(kind(5).double().requires_grad_(False))
        norm.module.weight.data.uniform_(0.5, 2)
        formula = norm.centre(x) / norm.deviation(x) * norm.weight
        assert relative_error(norm(x), formula) < 1e-14
        norm.module.float()
        assert relative_error(norm(x.float()), formula) < 1e-6


# At load ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "mixed", "bfloat16"])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_network_is_what_its_anatomy_says(
    tiny_folder: Callable[[str, str], Any], family: str, task: str, dtype: str
) -> None:
    load_model(tiny_folder(family, task), dtype=dtype)  # Which looks.


def without_activation(layer: Layer) -> Layer:
    inside = replace(layer.feed_forward, activation=torch.relu)
    first, second = layer.steps
    return replace(layer, steps=(first, replace(second, branches=(Branch(inside),))))


def without_residual_norm(layer: Layer) -> Layer:
    first, second = layer.steps
    return replace(layer, steps=(replace(first, join=second.join), second))


@pytest.mark.parametrize("wrong", [without_activation, without_residual_norm])
@pytest.mark.parametrize("dtype", ["float32", "float64", "mixed"])
def test_another_network_than_the_anatomy_says_is_refused(
    tiny_folder: Callable[[str, str], Any],
    wrong: Callable[[Layer], Layer],
    dtype: str,
) -> None:
    model = load_model(tiny_folder("bert", "classification"), dtype=dtype)
    model.layers[1] = wrong(model.layers[1])
    with pytest.raises(UsageError, match=r"Bert.* something else .*: layer 1 is off by"):
        check(model)


def test_a_head_that_does_more_is_refused(tiny_folder: Callable[[str, str], Any]) -> None:
    model = load_model(tiny_folder("roberta", "classification"))
    model.head.insert(1, torch.sigmoid)
    with pytest.raises(UsageError, match="the head is off by"):
        check(model)


@pytest.mark.parametrize("dtype", ["float64", "mixed", "bfloat16"])
def test_logits_that_are_small_by_chance_are_no_fault(
    tiny_folder: Callable[[str, str], Any], dtype: str
) -> None:
    """Differences of numbers that are larger than they, which rounding may move by all they are."""
    model = load_model(tiny_folder("bert", "classification"), dtype=dtype)
    rows = random_rows(model)
    model.network.classifier.bias.data -= model.run(rows)[0][0].to(model.dtype)
    assert model.run(rows)[0].abs().max() < 0.1
    check(model)
    model.head.insert(1, torch.sigmoid)
    with pytest.raises(UsageError, match="the head is off by"):
        check(model)


def test_a_network_without_its_layers_is_refused(tiny: LoadTiny) -> None:
    model = tiny("bert")
    elsewhere = replace(model.anatomy, layers="bert.encoder.blocks")
    with pytest.raises(UsageError, match="the layers of BertForSequenceClassification are not"):
        elsewhere.layers_of(model.network, 4)


def test_a_layer_that_has_other_parts_is_refused(tiny_folder: Callable[[str, str], Any]) -> None:
    model = load_model(tiny_folder("bert", "classification"))
    model.network.bert.encoder.layer[2].intermediate.dense = nn.Identity()
    with pytest.raises(UsageError, match="a linear map is a Identity, not a Linear"):
        replace(model)


# Pre-LN -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pre_ln(tiny_folder: Callable[[str, str], Any]) -> Model:
    model = load_model(tiny_folder("roberta-prelayernorm", "classification"), dtype="float64")
    # That bias belongs to tokens, all others to none (which is the authors' rule).
    bias = model.layers[0].attention.value.bias
    assert bias is not None
    bias.data.zero_()
    return model


@pytest.mark.parametrize("bias", ["token", "absdot"])
def test_decompx_of_a_pre_ln_model_adds_up(pre_ln: Model, bias: str) -> None:
    instances = random_instances(pre_ln, [9, 5, 12])
    found = attribute(pre_ln, instances, choose("decompx", {"decompx": {"bias": bias}}))
    assert not found.failures
    for row, prediction in zip(found.rows["decompx"], found.predictions, strict=True):
        assert row is not None and prediction is not None
        total = row.scores.sum() + (row.bias or 0)
        assert total == pytest.approx(prediction.logits[row.target], rel=1e-10)
        assert row.delta == pytest.approx(0, abs=1e-10)


# The independent walk: transformers' own modules, frozen by hooks and differentiated ------------


def frozen(hooks: ExitStack, network: nn.Module, gated: bool) -> None:
    """Makes deviations and slopes constants, and gates; in transformers' own modules."""

    def norm(module: Any, args: Any, _: torch.Tensor) -> torch.Tensor:
        (x,) = args
        if isinstance(module, nn.LayerNorm):
            deviation = (x.var(-1, correction=0, keepdim=True) + module.eps).sqrt().detach()
            left = (x - x.mean(-1, keepdim=True)) / deviation * module.weight
            return left if module.bias is None else left + module.bias
        more = 1 if "Gemma" in type(module).__name__ else 0
        eps = module.eps if more else module.variance_epsilon
        return (
            x / (x.square().mean(-1, keepdim=True) + eps).sqrt().detach() * (module.weight + more)
        )

    def slope(_: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        return args[0] * (output / args[0]).detach()

    def gate(_: nn.Module, __: Any, output: torch.Tensor) -> torch.Tensor:
        return output.detach()

    for name, module in network.named_modules():
        kind = type(module).__name__
        if isinstance(module, nn.LayerNorm) or "RMSNorm" in kind:
            hooks.callback(module.register_forward_hook(norm).remove)
        elif "GELU" in kind or "SiLU" in kind or kind == "Tanh":
            bent = gate if gated and "mlp" in name else slope
            hooks.callback(module.register_forward_hook(bent).remove)


def sloped(step: Any) -> Any:
    """A function of the head as a product with its slope."""
    return lambda x: x * (step(x) / x).detach()


@pytest.mark.parametrize("family", [*FAMILIES, *OTHER_FAMILIES])
def test_decompx_is_the_gradient_of_the_frozen_network(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(save_tiny(tmp_path, family), dtype="float64")
    # What it adds in the first layer would stay with the tokens.
    value = model.layers[0].attention.value
    if value.bias is not None:
        value.module.bias.data[slice(None) if value.outputs is None else value.outputs] = 0
    (instance,) = instances = random_instances(model, [9])
    (row,) = attribute(model, instances, choose("decompx")).rows["decompx"]
    assert row is not None
    rows = collate(model, [instance]).rows
    recorded_by = capture._recorded
    monkeypatch.setattr(capture, "_recorded", lambda *args: recorded_by(*args).detach())
    head = [
        step.module
        if isinstance(step, Norm)
        else step
        if isinstance(step, Affine | nn.Module)
        else sloped(step)
        for step in model.head
    ]
    monkeypatch.setitem(model.__dict__, "head", head)
    entered = model.embed(rows).requires_grad_()
    with ExitStack() as hooks:
        frozen(hooks, model.network, "ungated" not in model.traits)
        watch = capture.Watch(attention=True, whole=True)
        logits, _ = model.run(rows, watch=watch, enter=entered)
        (gradient,) = torch.autograd.grad(logits[0, row.target], entered)
    assert relative_error(row.scores, (gradient * entered.detach()).sum(-1)[0]) < 1e-10
