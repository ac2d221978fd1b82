"""Mixed precision: products of matrices in bfloat16, all else as in float32."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from attribeam.pipeline import Options, run
from attribeam.transforms import Model, Row, attribute, collect, encode, load_model
from attribeam.transforms.inputs.kinds import collate
from attribeam.transforms.network.capture import Watch
from attribeam.transforms.registry import choose
from tests.support.tiny import contrasts, rows, table, texts, write_jsonl

FAMILIES = [
    *[(family, "classification") for family in ("bert", "electra", "roberta", "distilbert")],
    *[(family, "classification") for family in ("albert", "mpnet", "llama")],
    *[("bert", "masked_lm"), ("electra", "masked_lm")],
]


@pytest.fixture(params=FAMILIES, ids="-".join)
def pair(
    request: pytest.FixtureRequest, tiny: Callable[..., Model], tiny_folder: Callable[..., Path]
) -> tuple[Model, Model]:
    """The same weights in float32 and in mixed precision."""
    return tiny(*request.param), load_model(tiny_folder(*request.param), dtype="mixed")


def test_products_are_in_bfloat16_and_what_is_kept_is_not(pair: tuple[Model, Model]) -> None:
    plain, mixed = pair
    assert (mixed.mixed, plain.mixed, mixed.dtype) == (True, False, torch.float32)
    lines = contrasts(4) if mixed.task == "masked_lm" else rows(4)
    given = [Row(n.pop("id"), n.pop("text"), **{**n, "label": None}) for n in lines]
    batch = collate(mixed, encode(mixed, given)).rows
    kinds: set[torch.dtype] = set()
    hook = mixed.layers[0].feed_forward.expand.module.register_forward_hook(
        lambda _, __, out: kinds.add(out.dtype)
    )
    watch = Watch(attention=True, layers=True, whole=True, outputs=True)
    logits, seen = mixed.run(batch, watch=watch)
    hook.remove()
    assert kinds == {torch.bfloat16}
    kept = [logits, *seen.attention, *seen.outputs]
    for layer in seen.layers:
        kept += [layer.entered, layer.values, *layer.sums]
    assert {tensor.dtype for tensor in kept} == {torch.float32}
    # Softmaxes are in float32: in bfloat16 their sums would be off by a hundredth.
    for attention in seen.attention:
        torch.testing.assert_close(attention.sum(-1), torch.ones_like(attention[..., 0]))
    expected, _ = plain.run(batch)
    assert not torch.equal(logits, expected)
    torch.testing.assert_close(logits, expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("family", ["mpnet", "deberta-v2"])
def test_attention_of_another_kind_is_recorded(
    tiny_folder: Callable[..., Path], family: str
) -> None:
    model = load_model(tiny_folder(family), dtype="mixed")
    found = attribute(model, encode(model, texts(4)[1:]), "attattr_colsum,decompx,alti,saliency")
    assert found.failures == []


def test_all_methods_give_nearly_the_same(
    tiny: Callable[..., Model], tiny_folder: Callable[..., Path]
) -> None:
    plain, mixed = tiny("bert"), load_model(tiny_folder("bert"), dtype="mixed")
    instances = encode(plain, texts(8)[3:])
    chosen = choose("all,attention_flow", {"integrated_gradients": {"steps": 5}})
    first, second = (
        attribute(model, instances, chosen, target=1, statistics=collect(plain, instances, 1024))
        for model in (plain, mixed)
    )
    assert not second.failures
    for method, expected in first.rows.items():
        for theirs, ours in zip(expected, second.rows[method], strict=True):
            assert theirs is not None and ours is not None
            largest = np.abs(theirs.scores).max(initial=1e-12)
            assert np.abs(ours.scores - theirs.scores).max() <= 0.2 * largest, method


def test_a_run_says_that_it_was_mixed(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    corpus = write_jsonl(tmp_path / "corpus.jsonl", rows(3))
    options = Options(
        *(str(tiny_folder("bert")), str(corpus), str(tmp_path / "out")),
        methods="saliency",
        evaluation=None,
        device="cpu",
        dtype="mixed",
    )
    run(options)
    manifest = json.loads((tmp_path / "out" / "run.json").read_text())
    assert manifest["identity"]["settings"]["dtype"] == "mixed"
    found = table(tmp_path / "out", "attributions", "saliency")
    assert str(found.schema.field("scores").type) == "list<element: float>"
