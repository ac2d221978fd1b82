"""Classifiers of pictures of which nothing is known inside: windows, convolutions."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoConfig, PreTrainedModel

from attribeam.schemas import UsageError
from attribeam.transforms import EncodeOptions, Instance, Model, Row, attribute, choose
from attribeam.transforms.evaluate import Evaluation, Ranking, curves
from attribeam.transforms.inputs.encode import encode_rows
from attribeam.transforms.network.anatomy.closed import patches_along
from attribeam.transforms.network.flops import forward_flops, held_by_token
from attribeam.transforms.network.loading import load_model
from attribeam.transforms.registry import fit_all
from tests.support.models import relative_error

HEIGHT, WIDTH = 8, 20
ROWS, COLUMNS = 8, 10
# Of tokens in a batch: many pictures at once.
BUDGET = 8000
ASKED = {
    *("grad_x_input", "integrated_gradients", "kernel_shap", "lime", "occlusion", "random"),
    *("saliency", "smoothgrad"),
}
_SIZES = {"depths": [1, 1], "hidden_sizes": [8, 12], "num_labels": 3}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "convnext": (
        "ConvNextForImageClassification",
        {**_SIZES, "num_stages": 2, "patch_size": 2},
    ),
    "resnet": ("ResNetForImageClassification", {**_SIZES, "embedding_size": 8}),
    "swin": (
        "SwinForImageClassification",
        {
            **{"embed_dim": 8, "depths": [1, 2], "num_heads": [2, 2], "window_size": 2},
            **{"patch_size": 2, "num_labels": 3, "image_size": [HEIGHT, WIDTH]},
        },
    ),
}


class Made(NamedTuple):
    """A model, transformers' own network of it in float64, and pictures for it."""

    model: Model
    network: PreTrainedModel
    instances: list[Instance]
    pixels: torch.Tensor


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the folder of a model, made once."""
    return cache(lambda name: saved(name, tmp_path_factory.mktemp(name)))


def saved(name: str, into: Path, **more: Any) -> Path:
    kind, sizes = KINDS[name]
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **(sizes | more))
    network = getattr(transformers, kind)(config)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.2)
    network.save_pretrained(into)
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": HEIGHT, "width": WIDTH},
    }
    (into / "preprocessor_config.json").write_text(json.dumps(processor))
    return into


@pytest.fixture(scope="module", params=KINDS)
def ours(folder: Callable[[str], Path], request: pytest.FixtureRequest) -> Made:
    where = folder(request.param)
    model = load_model(where, dtype="float64")
    pixels = np.random.default_rng(0).standard_normal((2, 3, HEIGHT, WIDTH)).astype(np.float32)
    rows = [Row(f"r{n}", pixel_values=x.ravel().tolist()) for n, x in enumerate(pixels)]
    instances, failures = encode_rows(model, rows, EncodeOptions(model.max_length))
    assert not failures
    plain = getattr(transformers, KINDS[request.param][0]).from_pretrained(where)
    plain = plain.double().eval().requires_grad_(False)
    return Made(model, plain, instances, torch.tensor(pixels, dtype=torch.float64))


def logits_of(ours: Made, pixels: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = ours.network(pixel_values=pixels).logits
    return logits


def without(pixels: torch.Tensor, patch: int) -> torch.Tensor:
    """Pictures with one patch, of 1 x 2 pixels, of the mean colour."""
    row, column = divmod(patch, COLUMNS)
    found = pixels.clone()
    found[:, :, row, 2 * column : 2 * column + 2] = 0
    return found


def test_patches_are_of_a_grid(ours: Made) -> None:
    instance = ours.instances[0]
    assert instance.tokens[:2] == ("r0c0", "r0c1") and instance.tokens[-1] == "r7c9"
    assert len(instance) == ROWS * COLUMNS and not instance.special.any()
    assert instance.readout is None and instance.removable.all()


def test_logits_are_those_of_transformers(ours: Made) -> None:
    expected = logits_of(ours, ours.pixels)
    for number, prediction in enumerate(attribute(ours.model, ours.instances, []).predictions):
        assert prediction is not None
        assert relative_error(prediction.logits, expected[number]) < 1e-5


def test_what_asks_the_network_alone_is_left(ours: Made) -> None:
    chosen, left_out = fit_all(choose("all"), ours.model, "logit")
    assert {choice.name for choice in chosen} == ASKED
    assert "raw_attention" in left_out and "iba" in left_out
    for method in ("raw_attention", "hta_x_input", "lrp", "bt_head", "decompx"):
        with pytest.raises(UsageError, match=f"{method} is defined by layers whose parts attr"):
            attribute(ours.model, ours.instances, method)
    with pytest.raises(UsageError, match="has no mask for: use the operation"):
        attribute(ours.model, ours.instances, choose("lime", {"lime": {"operation": "drop"}}))


def test_gradients_and_occlusion_by_hand(ours: Made) -> None:
    pixels = ours.pixels.clone().requires_grad_()
    logits = logits_of(ours, pixels)[:, 1]
    (gradient,) = torch.autograd.grad(logits.sum(), pixels)
    by_patch = (gradient * ours.pixels).unflatten(3, (COLUMNS, 2)).sum((1, 4)).flatten(1)
    sizes = gradient.unflatten(3, (COLUMNS, 2)).square().sum((1, 4)).sqrt().flatten(1)
    found = attribute(
        ours.model,
        ours.instances,
        ["grad_x_input", "saliency", "occlusion"],
        target=1,
        token_budget=BUDGET,
    )
    assert not found.failures
    lost = logits.detach() - logits_of(ours, without(ours.pixels, 42))[:, 1]
    for number in range(2):
        product, size, occluded = (
            found.rows[name][number] for name in ("grad_x_input", "saliency", "occlusion")
        )
        assert product is not None and size is not None and occluded is not None
        assert relative_error(product.scores, by_patch[number]) < 1e-5
        assert relative_error(size.scores, sizes[number]) < 1e-5
        whole = float(logits[number].detach().abs())
        assert abs(occluded.scores[42] - float(lost[number])) < 1e-5 * whole


def test_all_of_them_in_any_batch(ours: Made) -> None:
    drawn = {name: {"samples": 12} for name in ("lime", "kernel_shap")}
    path = {"integrated_gradients": {"steps": 4}}
    chosen, _ = fit_all(choose("all", drawn | path), ours.model, "logit")
    together = attribute(ours.model, ours.instances, chosen, token_budget=BUDGET)
    alone = attribute(ours.model, ours.instances[1:], chosen, token_budget=BUDGET)
    assert not together.failures and set(together.rows) == ASKED
    for method, rows in together.rows.items():
        (own,), row = alone.rows[method], rows[1]
        assert own is not None and row is not None
        limit = 1e-7 * np.abs(row.scores).max()
        np.testing.assert_allclose(own.scores, row.scores, rtol=0, atol=limit, err_msg=method)


def test_curves_of_patches(ours: Made) -> None:
    evaluation = Evaluation(fractions=(0.5,)).checked(ours.model)
    assert (evaluation.protocol, evaluation.operations) == ("patch", ("mean",))
    scores = np.arange(ROWS * COLUMNS, dtype=float)
    ranking = Ranking(ours.instances[0], "any", scores, 2)
    ((points,), failures) = curves(ours.model, [ranking], evaluation, token_budget=BUDGET)
    assert not failures and points is not None
    (half,) = (p for p in points if p.fraction == 0.5 and p.order == "morf")
    pixels = ours.pixels[:1].clone()
    pixels[:, :, ROWS // 2 :] = 0
    expected = logits_of(ours, pixels).softmax(-1)[0, 2]
    assert half.probability == pytest.approx(float(expected), rel=1e-5)


def test_what_a_picture_takes(ours: Made) -> None:
    once = forward_flops(ours.model, [ROWS * COLUMNS])
    assert once > 0 and forward_flops(ours.model, [1, 1]) == 2 * once
    assert held_by_token(ours.model) > 0


@pytest.mark.parametrize(
    ("side", "count"), [(224, 14), (384, 16), (256, 16), (299, 13), (380, 10), (16, 16), (35, 7)]
)
def test_patches_are_about_fourteen_a_side(side: int, count: int) -> None:
    assert patches_along(side) == count


def changed(folder: Path, into: Path, processor: dict[str, Any] | None, **config: Any) -> Path:
    """A copy of a model with something else beside its weights."""
    for name in ("config.json", "model.safetensors"):
        (into / name).write_bytes((folder / name).read_bytes())
    if config:
        own = json.loads((into / "config.json").read_text())
        (into / "config.json").write_text(json.dumps(own | config))
    if processor is not None:
        (into / "preprocessor_config.json").write_text(json.dumps(processor))
    return into


def test_the_configuration_says_the_size_where_no_processor_does(
    folder: Callable[[str], Path], tmp_path: Path
) -> None:
    model = load_model(changed(folder("swin"), tmp_path, None))
    assert model.grid is not None
    assert (model.grid.height, model.grid.width, model.grid.rows) == (HEIGHT, WIDTH, ROWS)


@pytest.mark.parametrize(
    ("processor", "message"),
    [
        (None, "nothing says how large pictures of this resnet are"),
        ({"height": 31, "width": 31}, "31 pixels can't be cut into 7 to 28 equal patches"),
        ({"shortest_edge": 16}, "makes pictures of several sizes"),
    ],
)
def test_pictures_of_no_size(
    folder: Callable[[str], Path],
    tmp_path: Path,
    processor: dict[str, int] | None,
    message: str,
) -> None:
    kind = (
        "CLIPImageProcessor" if processor and "shortest_edge" in processor else "ViTImageProcessor"
    )
    settings = {"image_processor_type": kind, "size": processor, "do_center_crop": False}
    where = changed(folder("resnet"), tmp_path, None if processor is None else settings)
    with pytest.raises(UsageError, match=message):
        load_model(where)


def test_mixed_needs_a_head_that_is_known(folder: Callable[[str], Path]) -> None:
    with pytest.raises(UsageError, match="--dtype mixed keeps heads whole"):
        load_model(folder("resnet"), dtype="mixed")


def test_labels_that_are_asked_for_one_by_one(tmp_path: Path) -> None:
    model = load_model(saved("resnet", tmp_path, problem_type="multi_label_classification"))
    pixels = np.random.default_rng(0).standard_normal((3, HEIGHT, WIDTH)).astype(np.float32)
    row = Row("r", pixel_values=pixels.ravel().tolist())
    instances, _ = encode_rows(model, [row], EncodeOptions(model.max_length))
    found = attribute(model, instances, ["grad_x_input", "occlusion"], token_budget=BUDGET)
    with torch.no_grad():
        logits = model.network(pixel_values=torch.tensor(pixels)[None]).logits[0]
    assert not found.failures and len(instances) == 3
    for prediction, expected in zip(found.predictions, logits.tolist(), strict=True):
        assert prediction is not None
        assert prediction.logits.tolist() == pytest.approx([0, expected], rel=1e-4)
    assert all(row is not None for rows in found.rows.values() for row in rows)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_where_it_is_read_is_its_own(folder: Callable[[str], Path], pooling: str) -> None:
    with pytest.raises(UsageError, match=f"--pooling {pooling}: .* resnet"):
        load_model(folder("resnet"), pooling=pooling)
