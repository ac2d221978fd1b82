"""Families of classifiers of pictures: tiny random ones, beside transformers' own classes."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoConfig, PreTrainedModel

from attribeam.schemas import UsageError
from attribeam.transforms import (
    Attributions,
    EncodeOptions,
    Instance,
    Model,
    Row,
    attribute,
    choose,
    collect,
)
from attribeam.transforms.inputs.encode import encode_rows
from attribeam.transforms.network.loading import load_model
from attribeam.transforms.registry import fit_all
from tests.support.models import relative_error

# transformers takes many softmaxes in float32 whatever the type.
TIGHT = 1e-5
_SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "num_labels": 3}
# transformers stretches tables of positions to pictures that are no squares: four by four to these.
_LONG = {"image_size": [8, 32], "patch_size": [4, 4]}


class Family(NamedTuple):
    """A family as it is made here.

    Attributes:
        kind: Its class in transformers.
        model_type: Its name there.
        more: What its configuration has beside the sizes that all have.
        specials: Names of the tokens before the patches.
        rows: What each position counts where maps are read, of so many positions.
        refuses: What some methods lack that are left out.
    """

    kind: str
    model_type: str
    more: dict[str, Any]
    specials: tuple[str, ...]
    rows: Callable[[int], list[float]]
    refuses: dict[str, str]


def at_both(length: int, before: int = 1) -> list[float]:
    """The token of the class, and the mean of the patches after so many tokens."""
    patches = length - before
    return [1.0, *[0.0] * (before - 1), *[1 / patches] * patches]


def of_patches(length: int, before: int = 1) -> list[float]:
    """The mean of the patches after so many tokens."""
    patches = length - before
    return [*[0.0] * before, *[1 / patches] * patches]


def at_class(length: int) -> list[float]:
    """The token of the class alone."""
    return [1.0, *[0.0] * (length - 1)]


_WIDE = {"intermediate_size": 24}
_POOLED = {
    "lrp": "read from one position",
    "attattr": "read from one position",
    "globenc": "normalise after their residuals",
}
_BIASED = {"lrp": "products of queries and keys alone"}
FAMILIES = {
    "dinov2": Family(
        "Dinov2ForImageClassification",
        "dinov2",
        {**_LONG, "mlp_ratio": 2},
        ("[CLS]",),
        at_both,
        _POOLED,
    ),
    "dinov2-giant": Family(
        "Dinov2ForImageClassification",
        "dinov2",
        {"image_size": 16, "patch_size": 4, "mlp_ratio": 2, "use_swiglu_ffn": True},
        ("[CLS]",),
        at_both,
        {**_POOLED, "lrp": "without a gate"},
    ),
    "dinov2-registers": Family(
        "Dinov2WithRegistersForImageClassification",
        "dinov2_with_registers",
        {**_LONG, "mlp_ratio": 2, "num_register_tokens": 2},
        ("[CLS]", "[REG1]", "[REG2]"),
        partial(at_both, before=3),
        _POOLED,
    ),
    "beit": Family(
        "BeitForImageClassification",
        "beit",
        {"image_size": [8, 16], "patch_size": 4, **_WIDE, "use_relative_position_bias": True},
        ("[CLS]",),
        of_patches,
        {**_POOLED, **_BIASED},
    ),
    "beit-cls": Family(
        "BeitForImageClassification",
        "beit",
        {
            **{"image_size": 16, "patch_size": 4, **_WIDE, "layer_scale_init_value": 0.0},
            **{"use_absolute_position_embeddings": True, "use_mean_pooling": False},
            "use_shared_relative_position_bias": True,
        },
        ("[CLS]",),
        at_class,
        {**_BIASED, "globenc": "normalise after their residuals"},
    ),
    "data2vec-vision": Family(
        "Data2VecVisionForImageClassification",
        "data2vec-vision",
        {"image_size": [8, 16], "patch_size": 4, **_WIDE, "use_relative_position_bias": True},
        ("[CLS]",),
        of_patches,
        {**_POOLED, **_BIASED},
    ),
    "clip": Family(
        "CLIPForImageClassification",
        "clip",
        {"vision_config": {**_SIZES, **_WIDE, "image_size": 16, "patch_size": 4}},
        ("[CLS]",),
        of_patches,
        _POOLED,
    ),
    "metaclip_2": Family(
        "MetaClip2ForImageClassification",
        "metaclip_2",
        {
            "vision_config": {**_SIZES, **_WIDE, "image_size": 16, "patch_size": 4},
            "text_config": {"vocab_size": 8, "bos_token_id": 0, "eos_token_id": 1},
        },
        ("[CLS]",),
        of_patches,
        _POOLED,
    ),
    "siglip": Family(
        "SiglipForImageClassification",
        "siglip",
        {"vision_config": {**_SIZES, **_WIDE, "image_size": 16, "patch_size": 4}},
        (),
        partial(of_patches, before=0),
        _POOLED,
    ),
    "deit-teacher": Family(
        "DeiTForImageClassificationWithTeacher",
        "deit",
        {"image_size": [8, 16], "patch_size": [4, 8], **_WIDE},
        ("[CLS]", "[DISTILL]"),
        lambda length: [0.5, 0.5, *[0.0] * (length - 2)],
        _POOLED,
    ),
    "ijepa": Family(
        "IJepaForImageClassification",
        "ijepa",
        {"image_size": [8, 16], "patch_size": 4, **_WIDE},
        (),
        partial(of_patches, before=0),
        _POOLED,
    ),
}


class Made(NamedTuple):
    """A model, transformers' own network of it in float64, and pictures for it."""

    model: Model
    network: PreTrainedModel
    folder: Path
    instances: list[Instance]
    pixels: torch.Tensor


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """Gives a family's model, made once."""
    return cache(lambda name: made(FAMILIES[name], tmp_path_factory.mktemp(name)))


@pytest.fixture(params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def family(name: str) -> Family:
    return FAMILIES[name]


@pytest.fixture
def ours(name: str, folders: Callable[[str], Made]) -> Made:
    return folders(name)


def made(family: Family, folder: Path) -> Made:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family.model_type, **(_SIZES | family.more))
    network = getattr(transformers, family.kind)(config)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.2)
    network.save_pretrained(folder)
    model = load_model(folder, dtype="float64")
    grid = model.grid
    assert grid is not None
    size = (3, grid.channels, grid.height, grid.width)
    pixels = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    rows = [Row(f"r{n}", pixel_values=x.ravel().tolist()) for n, x in enumerate(pixels)]
    instances, failures = encode_rows(model, rows, EncodeOptions(model.max_length))
    assert not failures
    plain = getattr(transformers, family.kind).from_pretrained(folder, attn_implementation="eager")
    plain = plain.double().eval().requires_grad_(False)
    return Made(model, plain, folder, instances, torch.tensor(pixels, dtype=torch.float64))


def logits_of(ours: Made, pixels: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = ours.network(pixel_values=pixels).logits
    return logits


def all_methods(ours: Made, instances: list[Instance], **more: Any) -> Attributions:
    paths = {name: {"steps": 4} for name in ("bt_head", "bt_token", "integrated_gradients")}
    drawn = {name: {"samples": 12} for name in ("lime", "kernel_shap")}
    noisy = {"iba": {"steps": 2, "copies": 2}}
    chosen, _ = fit_all(choose("all", paths | drawn | noisy), ours.model, "logit")
    statistics = collect(ours.model, ours.instances, 1000)
    return attribute(ours.model, instances, chosen, statistics=statistics, **more)


def test_tokens(ours: Made, family: Family) -> None:
    instance, grid = ours.instances[0], ours.model.grid
    assert grid is not None
    assert instance.tokens[: grid.before + 1] == (*family.specials, "r0c0")
    assert instance.special.sum() == len(family.specials) == grid.before
    assert len(instance) == grid.before + grid.rows * grid.columns


def test_logits_are_those_of_transformers(ours: Made) -> None:
    expected = logits_of(ours, ours.pixels)
    single = load_model(ours.folder)
    for model, limit in ((ours.model, TIGHT), (single, 1e-4)):
        for number, prediction in enumerate(attribute(model, ours.instances, []).predictions):
            assert prediction is not None
            assert relative_error(prediction.logits, expected[number]) < limit


def test_attention_is_read_where_the_prediction_is(ours: Made, family: Family) -> None:
    maps = ours.network(pixel_values=ours.pixels, output_attentions=True).attentions
    rows = torch.tensor(family.rows(maps[0].shape[-1]), dtype=torch.float64)
    product = rows.expand(len(ours.pixels), -1)
    for layer in reversed(maps):
        half = layer.double().mean(1) / 2
        product = torch.einsum("bq,bqt->bt", product, half) + product / 2
    chosen = choose("raw_attention,attention_rollout", {"attention_rollout": {"start_layer": 0}})
    found = attribute(ours.model, ours.instances, chosen).rows
    for number, (raw, rolled) in enumerate(
        zip(found["raw_attention"], found["attention_rollout"], strict=True)
    ):
        assert raw is not None and rolled is not None
        last = maps[-1][number].double().mean(0)
        assert relative_error(raw.scores, rows @ last) < TIGHT
        assert relative_error(rolled.scores, product[number] / rows.sum()) < TIGHT


def test_generic_attribution(ours: Made, family: Family) -> None:
    pixels = ours.pixels.clone().requires_grad_()
    given = ours.network(pixel_values=pixels, output_attentions=True)
    gradients = torch.autograd.grad(given.logits[:, 1].sum(), given.attentions)
    rows = torch.tensor(family.rows(gradients[0].shape[-1]), dtype=torch.float64)
    product = rows.expand(len(pixels), -1)
    for layer, gradient in reversed(list(zip(given.attentions, gradients, strict=True))):
        weighed = (layer * gradient).clamp(min=0).mean(1).double().detach()
        product = product + torch.einsum("bq,bqt->bt", product, weighed)
    found = attribute(ours.model, ours.instances, "generic_attribution", target=1)
    for number, row in enumerate(found.rows["generic_attribution"]):
        assert row is not None
        assert relative_error(row.scores, product[number]) < TIGHT


def test_gradients_of_pixels(ours: Made) -> None:
    pixels, grid = ours.pixels.clone().requires_grad_(), ours.model.grid
    assert grid is not None
    (gradient,) = torch.autograd.grad(logits_of(ours, pixels)[:, 2].sum(), pixels)
    product = (gradient * ours.pixels).unflatten(2, (grid.rows, -1))
    expected = product.unflatten(4, (grid.columns, -1)).sum((1, 3, 5)).flatten(1)
    found = attribute(ours.model, ours.instances, "grad_x_input", target=2).rows["grad_x_input"]
    for number, row in enumerate(found):
        assert row is not None and not row.scores[: grid.before].any()
        assert relative_error(row.scores[grid.before :], expected[number]) < TIGHT


@pytest.mark.parametrize("bias", ["token", "absdot"])
def test_decompx_makes_up_the_logit(ours: Made, bias: str) -> None:
    chosen = choose("decompx", {"decompx": {"bias": bias}})
    expected = logits_of(ours, ours.pixels)
    for number, row in enumerate(attribute(ours.model, ours.instances, chosen).rows["decompx"]):
        assert row is not None
        total = row.scores.sum() + (row.bias or 0)
        assert total == pytest.approx(float(expected[number, row.target]), rel=1e-4)
        assert row.delta is not None and abs(row.delta) < 1e-9


def test_batch_mates_do_not_matter(ours: Made, family: Family) -> None:
    together = all_methods(ours, ours.instances)
    assert together.failures == []
    assert not set(together.rows) & set(family.refuses)
    alone = all_methods(ours, [ours.instances[2]])
    for method, rows in together.rows.items():
        (found,), row = alone.rows[method], rows[2]
        assert row is not None and found is not None
        limit = 1e-7 * max(np.abs(row.scores).max(initial=0), 1e-300)
        np.testing.assert_allclose(found.scores, row.scores, rtol=0, atol=limit, err_msg=method)


def hidden_patch(ours: Made) -> list[Any]:
    chosen = choose("occlusion", {"occlusion": {"operation": "drop"}})
    return attribute(ours.model, ours.instances, chosen, target=0).rows["occlusion"]


def test_patches_that_are_hidden(ours: Made) -> None:
    """What a patch that nobody sees would have said is of no consequence."""
    grid, model = ours.model.grid, ours.model
    assert grid is not None
    if model.anatomy.masks == "none":
        with pytest.raises(UsageError, match=r"hides patches, .* no mask for: use the operation"):
            hidden_patch(ours)
        return
    changed = ours.pixels.float().numpy().copy()
    changed[..., : grid.patch_height, : grid.patch_width] = 3
    others = [replace(i, pixels=x) for i, x in zip(ours.instances, changed, strict=True)]  # type: ignore[call-arg]
    wholes = [attribute(model, some, [], target=0) for some in (ours.instances, others)]
    pairs = zip(hidden_patch(ours), hidden_patch(ours._replace(instances=others)), strict=True)
    for number, (own, other) in enumerate(pairs):
        logits = [whole.predictions[number].logits[0] for whole in wholes]  # type: ignore[union-attr]
        left = [x - row.scores[grid.before] for x, row in zip(logits, (own, other), strict=True)]
        assert abs(logits[0] - logits[1]) > 1e-3
        assert left[0] == pytest.approx(left[1], rel=1e-9)


def test_what_is_left_out_says_why(ours: Made, family: Family) -> None:
    _, left_out = fit_all(choose("all"), ours.model)
    for method, why in family.refuses.items():
        assert why in left_out[method]
        with pytest.raises(UsageError, match=why):
            attribute(ours.model, ours.instances, method)


@pytest.mark.parametrize(
    ("name", "pooling", "says"),
    [
        ("dinov2", "cls", "the token of the class and the mean of the patches, side by side"),
        ("dinov2", "mean", "the token of the class and the mean of the patches, side by side"),
        ("beit", "cls", "the mean of the patches"),
        ("deit-teacher", "cls", "the token of the class and that of a teacher's class"),
    ],
)
def test_a_head_is_read_where_it_is_meant_to(
    folders: Callable[[str], Made], name: str, pooling: str, says: str
) -> None:
    with pytest.raises(UsageError, match=f"--pooling {pooling}: .* made for {says}, so leave"):
        load_model(folders(name).folder, pooling=pooling)
