"""Pictures: their authors' numbers, and independent derivations on plain transformers models."""

import io
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from transformers import AutoConfig

from attribeam.schemas import UsageError
from attribeam.transforms import EncodeOptions, Instance, Model, Row, attribute, choose, collect
from attribeam.transforms.attribute import Attributions
from attribeam.transforms.evaluate import Evaluation, Ranking, curves
from attribeam.transforms.inputs.encode import encode_rows
from attribeam.transforms.inputs.images.blur import blurred
from attribeam.transforms.inputs.images.kind import Images
from attribeam.transforms.inputs.images.picture import Picture
from attribeam.transforms.inputs.kinds import collate
from attribeam.transforms.localise import localise
from attribeam.transforms.network.loading import load_model
from attribeam.transforms.network.randomised import drawn, parts_of, randomised
from attribeam.transforms.registry import fit_all, methods
from tests.conftest import LoadTiny
from tests.support.authors import golden_numbers
from tests.support.models import GOLDENS, plain, relative_error

PICTURES, PATCHES, SIDE = 4, 16, 8
# transformers takes the softmax in float32 whatever the type.
TIGHT = 1e-5


@pytest.fixture(params=["float64", "float32"])
def model(golden: LoadTiny, request: pytest.FixtureRequest) -> Model:
    return golden("vit-golden", request.param)


@pytest.fixture
def double(golden: LoadTiny) -> Model:
    return golden("vit-golden", "float64")


@cache
def pictures(model: Model) -> tuple[Instance, ...]:
    rows = pq.read_table(GOLDENS / "corpus_vit.parquet").to_pylist()
    found, failures = encode_rows(
        model,
        [Row(row["id"], pixel_values=row["pixel_values"], label=1) for row in rows],
        EncodeOptions(model.max_length),
    )
    assert not failures and len(found) == PICTURES
    return tuple(found)


def scores_of(model: Model, method: str, target: str | int = "predicted", **params: Any) -> Any:
    chosen = choose(method, {method: params} if params else {})
    found = attribute(model, pictures(model), chosen, target=target)
    assert found.failures == []
    return [row.scores for row in found.rows[method] if row is not None]


@pytest.mark.parametrize("method", ["bt_token", "bt_head"])
def test_where_all_paths_start_is_known_while_weights_stay(
    double: Model, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[int] = []
    run = Model.run

    def counted(self: Model, rows: Any, **more: Any) -> Any:
        runs.append(len(rows) * (self.num_layers - more.get("start", 0)))
        return run(self, rows, **more)

    monkeypatch.setattr(Model, "run", counted)
    known = scores_of(double, method)
    runs.clear()
    scores_of(double, method)
    again = sum(runs)
    change = drawn(double, "init", seed=1)
    with randomised(parts_of(double)[-2:], change):
        others = scores_of(double, method)
        monkeypatch.setattr(Images, "same_start", lambda *_: False)
        expected = scores_of(double, method)
    assert relative_error(others, expected) < 1e-12
    assert relative_error(others, known) > 1e-3
    runs.clear()
    assert relative_error(known, scores_of(double, method)) < 1e-12
    assert again == sum(runs) - PICTURES * (double.num_layers - 1)


# The authors' numbers -------------------------------------------------------------------------

_STARTS = [
    (name, f"{name}_start{start}", {"start_layer": start - 1})
    for name in ("bt_head", "bt_token")
    for start in (1, 2, 4)
]
EQUAL: list[tuple[str, str, dict[str, Any]]] = [
    ("raw_attention", "raw_attention", {}),
    ("attention_rollout", "rollout_sl0", {"start_layer": 0}),
    ("attention_rollout", "rollout_sl1", {}),
    ("generic_attribution", "generic_attribution_iccv21", {}),
    *_STARTS,
]
RELEVANCE = [
    ("partial_lrp", "partial_lrp", {"rules": "orig"}),
    ("partial_lrp", "partial_lrp_chefer_rules", {"rules": "cvpr21"}),
    ("transformer_attribution", "transformer_attribution_sl0", {"start_layer": 0}),
    ("transformer_attribution", "transformer_attribution_sl1", {}),
]


def test_the_logits(model: Model) -> None:
    found = attribute(model, pictures(model), []).predictions
    limit = 1e-12 if model.dtype == torch.float64 else 1e-5
    for number in range(3):
        prediction = found[number]
        assert prediction is not None
        expected = golden_numbers("vit")[f"logits/{number}"]
        assert relative_error(prediction.logits, expected) < limit


@pytest.mark.parametrize(("method", "key", "params"), EQUAL)
def test_the_authors_scores(model: Model, method: str, key: str, params: dict[str, Any]) -> None:
    check_scores(model, method, key, params, 1e-12 if model.dtype == torch.float64 else 2e-5)


@pytest.mark.parametrize(("method", "key", "params"), RELEVANCE)
def test_the_authors_relevance(
    double: Model, method: str, key: str, params: dict[str, Any]
) -> None:
    check_scores(double, method, key, params, 1e-9)


@pytest.mark.parametrize("method", ["lrp", "partial_lrp"])
def test_relevance_has_no_rounding_of_single_precision(
    golden: LoadTiny, double: Model, method: str
) -> None:
    """Patches and positions add up to numbers near zero, and relevance divides by these sums."""
    single = golden("vit-golden", "float32")
    pairs = zip(scores_of(single, method), scores_of(double, method), strict=True)
    for found, expected in pairs:
        assert relative_error(found, expected) < 1e-9


@pytest.mark.parametrize(
    ("rules", "key"), [("orig", "full_lrp_pixels"), ("cvpr21", "full_lrp_pixels_chefer_rules")]
)
def test_the_authors_relevance_of_pixels(double: Model, rules: str, key: str) -> None:
    """By pixel, and added up by patch."""
    chosen = choose("lrp", {"lrp": {"rules": rules}})
    for target in ("predicted", 0, 3):
        found = attribute(double, pictures(double), chosen, target=target, pixels=True).rows["lrp"]
        end = "" if target == "predicted" else f"/class{target}"
        for number in range(3):
            golden = golden_numbers("vit")[f"{key}/{number}{end}"]
            row = found[number]
            assert row is not None and row.pixels is not None and row.scores[0] == 0
            assert relative_error(row.pixels.reshape(golden.shape), golden) < 1e-9
            sums = patches_of(torch.tensor(golden)[None, None]).flatten(2).sum(-1)[0].numpy()
            assert np.abs(row.scores[1:] - sums).max() < 1e-8 * np.abs(golden).max()


def test_scores_by_pixel(double: Model) -> None:
    """Of a pixel over its channels what those of a patch are over all of it."""
    pixels = pixels_of(double).requires_grad_()
    (gradient,) = torch.autograd.grad(logits_of(double, pixels)[:, 2].sum(), pixels)
    product = (gradient * pixels).detach()
    methods = "saliency,grad_x_input,integrated_gradients,smoothgrad,attention_rollout,occlusion"
    found = attribute(double, pictures(double), methods.split(","), target=2, pixels=True).rows
    expected = {"saliency": gradient.norm(dim=1), "grad_x_input": product.sum(1)}
    for method, values in expected.items():
        for row, own in zip(found[method], values.flatten(1).numpy(), strict=True):
            assert row is not None and row.pixels is not None
            assert relative_error(row.pixels, own) < TIGHT
    for method in ("integrated_gradients", "smoothgrad"):
        for row in found[method]:
            assert row is not None and row.pixels is not None
            side = int(len(row.pixels) ** 0.5)
            sums = patches_of(torch.tensor(row.pixels).view(1, 1, side, side)).flatten(2).sum(-1)
            assert relative_error(row.scores[1:], sums[0].numpy()) < 1e-9
    for method in ("attention_rollout", "occlusion"):
        assert all(row is not None and row.pixels is None for row in found[method])


def check_scores(model: Model, method: str, key: str, params: dict[str, Any], limit: float) -> None:
    """Of the predicted class, and of each where the method explains one."""
    golden, targets = golden_numbers("vit"), ["predicted", *range(5)]
    if not methods()[method].class_dependent:
        targets = targets[:1]
    for target in targets:
        end = "" if target == "predicted" else f"/class{target}"
        found = scores_of(model, method, target, **params)
        for number in range(3):
            expected = golden[f"{key}/{number}{end}"]
            assert relative_error(found[number][1:], expected) < limit, (target, number)


def test_the_authors_gradcam(model: Model) -> None:
    """Theirs is scaled to [0, 1], and not a number where all of it is clamped."""
    limit, clamped = 1e-12 if model.dtype == torch.float64 else 1e-4, 0
    for target in range(5):
        for number, scores in enumerate(scores_of(model, "attention_gradcam", target)[:3]):
            expected = golden_numbers("vit")[f"attn_gradcam/{number}/class{target}"]
            patches = scores[1:]
            spread = patches.max() - patches.min()
            if np.isnan(expected).any():
                assert spread == 0
                clamped += 1
            else:
                assert relative_error((patches - patches.min()) / spread, expected) < limit
    assert 0 < clamped < 5


@pytest.mark.parametrize(
    ("method", "key", "params"),
    [
        ("attention_rollout", "mae_rollout_sl0", {"start_layer": 0}),
        *[(m, f"mae_{k}", p) for m, k, p in _STARTS],
    ],
)
def test_the_authors_scores_of_a_mean(method: str, key: str, params: dict[str, Any]) -> None:
    """Read from the mean over patches, before the norm, as of masked autoencoders."""
    model, golden = _of_mean(), golden_numbers("vit")
    found = scores_of(model, method, **params)
    logits = attribute(model, pictures(model), []).predictions
    for number in range(3):
        assert relative_error(found[number][1:], golden[f"{key}/{number}"]) < 1e-12
        prediction = logits[number]
        assert prediction is not None
        assert relative_error(prediction.logits, golden[f"mae_logits/{number}"]) < 1e-12


@cache
def _of_mean() -> Model:
    return load_model(GOLDENS / "vit-golden", dtype="float64", pooling="mean")


def test_methods_of_a_mean_add_up() -> None:
    model = _of_mean()
    together = all_methods(model, pictures(model))
    assert together.failures == []
    lacking = {name for name, why in together.left_out.items() if "read from one position" in why}
    relevance = {"lrp", "partial_lrp", "transformer_attribution"}
    assert lacking == {"alti_logit", "attattr", "attattr_colsum", "influence", *relevance}
    for name in ("decompx", "kernel_shap"):
        for row in together.rows[name]:
            assert row is not None and row.delta is not None
            assert abs(row.delta) < 1e-9
    (first, *_), rows = pictures(model), together.rows["occlusion"]
    assert rows[0] is not None
    pixels = pixels_of(model)
    network = plain(model)

    def read(pixels: torch.Tensor) -> torch.Tensor:
        hidden = network.vit.embeddings(pixels)
        for layer in network.vit.layers:
            hidden = layer(hidden)
        logits: torch.Tensor = network.classifier(network.vit.layernorm(hidden[:, 1:].mean(1)))
        return logits

    target = rows[0].target
    lost = (read(pixels) - read(without(pixels, 5)))[0, target]
    assert rows[0].scores[6] == pytest.approx(float(lost.detach()), rel=TIGHT)
    assert first.readout is None


# Independent derivations ----------------------------------------------------------------------


def logits_of(model: Model, pixels: torch.Tensor) -> torch.Tensor:
    """What transformers' own code gives, [n, C]."""
    logits: torch.Tensor = plain(model)(pixel_values=pixels).logits
    return logits


def pixels_of(model: Model) -> torch.Tensor:
    return torch.tensor(np.stack([picture.pixels for picture in pictures(model)]))  # type: ignore[attr-defined]


def patches_of(pixels: torch.Tensor) -> torch.Tensor:
    """[n, C, H, W] to [n, P, C, p, p], by hand."""
    sides = range(0, 32, SIDE)
    return torch.stack([pixels[:, :, r : r + SIDE, c : c + SIDE] for r in sides for c in sides], 1)


def test_gradients_of_pixels_by_patch(double: Model) -> None:
    pixels = pixels_of(double).requires_grad_()
    (gradient,) = torch.autograd.grad(logits_of(double, pixels)[:, 2].sum(), pixels)
    by_patch = patches_of(gradient).flatten(2)
    product = patches_of(gradient * pixels.detach()).flatten(2).sum(-1)
    for number, (sizes, products) in enumerate(
        zip(scores_of(double, "saliency", 2), scores_of(double, "grad_x_input", 2), strict=True)
    ):
        assert sizes[0] == products[0] == 0
        assert relative_error(sizes[1:], by_patch[number].norm(dim=-1)) < TIGHT
        assert relative_error(products[1:], product[number]) < TIGHT


def test_smoothgrad_of_pixels(double: Model) -> None:
    pixels = pixels_of(double)
    spread = pixels.amax((1, 2, 3)) - pixels.amin((1, 2, 3))
    total = torch.zeros_like(pixels)
    for copy in range(2):
        noise = np.stack(
            [
                picture.generator(0, f"smoothgrad {copy}").standard_normal((3, 32, 32), "f4")
                for picture in pictures(double)
            ]
        )
        at = pixels + 0.2 * spread[:, None, None, None] * torch.tensor(noise)
        at.requires_grad_()
        total += torch.autograd.grad(logits_of(double, at)[:, 1].sum(), at)[0] / 2
    by_patch = patches_of(total).flatten(2)
    for reduce, expected in (("abs", by_patch.abs().sum(-1)), ("sum", by_patch.sum(-1))):
        found = scores_of(double, "smoothgrad", 1, samples=2, noise=0.2, reduce=reduce)
        for number, scores in enumerate(found):
            assert scores[0] == 0
            assert relative_error(scores[1:], expected[number]) < TIGHT


def test_integrated_gradients_of_pixels(double: Model) -> None:
    pixels, points = pixels_of(double), (np.arange(4) + 0.5) / 4
    total = torch.zeros_like(pixels)
    for point in points:
        at = (pixels * point).requires_grad_()
        total += torch.autograd.grad(logits_of(double, at)[:, 1].sum(), at)[0] / len(points)
    expected = patches_of(total * pixels).flatten(2).sum(-1)
    found = scores_of(double, "integrated_gradients", 1, steps=4, rule="midpoint")
    for number, scores in enumerate(found):
        assert relative_error(scores[1:], expected[number]) < TIGHT


def test_paths_from_a_blur(double: Model) -> None:
    pixels = pixels_of(double)
    # Two pixels are a sixteenth of 32.
    blur = torch.tensor(
        gaussian_filter(pixels.numpy(), (0, 0, 2, 2), mode="nearest", truncate=4, output="f8")
    )
    found = blurred(pixels.double())
    assert relative_error(found, blur) < 1e-12
    assert relative_error(blurred(torch.ones(1, 1, 32, 48)), torch.ones(1, 1, 32, 48)) < 1e-6
    chosen = choose("integrated_gradients", {"integrated_gradients": {"baseline": "blur"}})
    rows = attribute(double, pictures(double), chosen, target=1).rows["integrated_gradients"]
    gains = (logits_of(double, pixels) - logits_of(double, blur))[:, 1].detach()
    for number, row in enumerate(rows):
        assert row is not None and row.delta is not None and row.scores[0] == 0
        assert row.scores.sum() - row.delta == pytest.approx(float(gains[number]), rel=1e-4)
        assert abs(row.delta) < 0.01 * np.abs(row.scores).sum()
    assert (
        chosen[0]
        .fitted(double)
        .needs[0]
        .record.endswith("), blurred by 0.0625 of the shorter side")
    )
    ones = [replace(picture, pixels=np.full((3, 32, 32), 0.7)) for picture in pictures(double)[:1]]  # type: ignore[call-arg]
    (row,) = attribute(double, ones, chosen).rows["integrated_gradients"]
    assert row is not None and np.abs(row.scores).max() < 1e-9


def without(pixels: torch.Tensor, patch: int) -> torch.Tensor:
    """A picture with one patch of the mean colour."""
    row, column = divmod(patch, 32 // SIDE)
    found = pixels.clone()
    found[:, :, row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE] = 0
    return found


def test_occlusion_by_the_mean_colour(double: Model) -> None:
    pixels = pixels_of(double)
    whole = logits_of(double, pixels)[:, 3]
    lost = [whole - logits_of(double, without(pixels, patch))[:, 3] for patch in range(PATCHES)]
    for number, scores in enumerate(scores_of(double, "occlusion", 3)):
        assert scores[0] == 0
        assert relative_error(scores[1:], torch.stack(lost, 1)[number].detach()) < TIGHT


def test_black(double: Model) -> None:
    with pytest.raises(UsageError, match=r"operation black needs the colours .*operation mean"):
        scores_of(double, "occlusion", operation="black")
    with pytest.raises(UsageError, match="baseline needs the colours that the model's processor"):
        scores_of(double, "integrated_gradients", baseline="black")
    colours = SimpleNamespace(do_normalize=True, image_mean=[0.5, 0.4, 0.3], image_std=[0.2] * 3)
    model = replace(double, processor=colours)
    black = torch.tensor([-2.5, -2.0, -1.5], dtype=torch.float64)[:, None, None]
    pixels = pixels_of(double)
    whole = logits_of(double, pixels)[:, 3].detach()
    painted = without(pixels, 6)
    painted[:, :, 8:16, 16:24] = black
    lost = whole - logits_of(double, painted)[:, 3].detach()
    for number, scores in enumerate(scores_of(model, "occlusion", 3, operation="black")):
        assert scores[7] == pytest.approx(float(lost[number]), rel=1e-4)
    found = attribute(
        model,
        pictures(model),
        choose("integrated_gradients", {"integrated_gradients": {"baseline": "black"}}),
        target=3,
    ).rows["integrated_gradients"]
    empty = logits_of(double, black.expand_as(pixels[:1]))[0, 3].detach()
    for number, row in enumerate(found):
        assert row is not None and row.delta is not None
        total = row.scores.sum() - row.delta
        assert total == pytest.approx(float(whole[number] - empty), rel=1e-4)


def test_patches_that_are_dropped_are_as_if_they_were_not_there(double: Model) -> None:
    network = plain(double)
    entered = network.vit.embeddings(pixels_of(double))
    expected = []
    for patch in range(PATCHES):
        hidden = torch.cat([entered[:, : patch + 1], entered[:, patch + 2 :]], 1)
        for layer in network.vit.layers:
            hidden = layer(hidden)
        expected.append(network.classifier(network.vit.layernorm(hidden)[:, 0])[:, 0].detach())
    whole = logits_of(double, pixels_of(double))[:, 0].detach()
    found = scores_of(double, "occlusion", 0, operation="drop")
    for number, scores in enumerate(found):
        lost = whole[number] - torch.stack(expected, 1)[number]
        assert relative_error(scores[1:], lost) < TIGHT


def test_curves_of_patches(double: Model) -> None:
    evaluation = Evaluation(fractions=(0.5,)).checked(double)
    assert (evaluation.protocol, evaluation.operations) == ("patch", ("mean",))
    (instance, *_), scores = pictures(double), np.arange(PATCHES + 1.0)
    ranking = Ranking(instance, "any", scores, 4)
    ((points,), failures) = curves(double, [ranking], evaluation, token_budget=1000)
    assert not failures and points is not None
    half = {point.order: point for point in points if point.fraction == 0.5}
    pixels = pixels_of(double)[:1]
    for patch in range(8, PATCHES):
        pixels = without(pixels, patch)
    probability = logits_of(double, pixels).softmax(-1)[0, 4].item()
    assert half["morf"].probability == pytest.approx(probability, rel=TIGHT)
    assert (half["morf"].removed, half["morf"].units) == (8, PATCHES)


def test_tokens_are_made_of_patches_once(double: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    whole = torch.nn.Conv2d._conv_forward

    def counted(self: torch.nn.Conv2d, pixels: torch.Tensor, *more: Any) -> torch.Tensor:
        made.append(len(pixels))
        return whole(self, pixels, *more)

    monkeypatch.setattr(torch.nn.Conv2d, "_conv_forward", counted)
    scores_of(double, "saliency")
    assert made == [PICTURES]


# Batches --------------------------------------------------------------------------------------


def all_methods(model: Model, instances: Sequence[Instance], **more: Any) -> Attributions:
    alone = "position" in model.traits
    paths = {name: {"steps": 12} for name in ("bt_head", "bt_token", "integrated_gradients")}
    layers = {name: {"steps": 2, "most": 2} for name in ("attattr", "attattr_colsum") if alone}
    layers |= {"influence": {"points": 5}} if alone else {}
    drawn = {name: {"samples": 20} for name in ("lime", "kernel_shap")}
    drawn["smoothgrad"] = {"samples": 3}
    noisy = {"iba": {"steps": 2, "copies": 2}, "hta_x_input": {"probes": 2}}
    chosen, left_out = fit_all(
        choose(["all", "hta_x_input"], paths | layers | drawn | noisy), model, "logit"
    )
    statistics = collect(model, pictures(model), 1000)
    found = attribute(model, instances, chosen, statistics=statistics, layers=True, **more)
    return replace(found, left_out=left_out)


def test_batch_mates_do_not_matter(double: Model) -> None:
    instances = pictures(double)
    together = all_methods(double, instances)
    assert together.failures == [] and len(together.rows) > 20
    order = [2, 0, 3, 1]
    shuffled = all_methods(double, [instances[at] for at in order], token_budget=40)
    for name, rows in together.rows.items():
        for place, number in enumerate(order):
            ours, theirs = shuffled.rows[name][place], rows[number]
            assert ours is not None and theirs is not None
            limit = 1e-7 * max(np.abs(theirs.scores).max(initial=0), 1e-300)
            np.testing.assert_allclose(ours.scores, theirs.scores, rtol=0, atol=limit, err_msg=name)


def test_decompx_makes_up_the_logit(double: Model) -> None:
    for bias in ("token", "absdot"):
        rows = attribute(
            double, pictures(double), choose("decompx", {"decompx": {"bias": bias}})
        ).rows["decompx"]
        for row in rows:
            assert row is not None and row.delta is not None
            assert abs(row.delta) < 1e-12


# Other families -------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "kind"), [("deit", "DeiT"), ("vit_msn", "ViTMSN")])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_other_families(tmp_path: Path, family: str, kind: str, pooling: str) -> None:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family,
        **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_labels": 3},
        **{"intermediate_size": 48, "image_size": [16, 24], "patch_size": [8, 4]},
    )
    network = getattr(transformers, f"{kind}ForImageClassification")(config)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.2)
    network.save_pretrained(tmp_path)
    model = load_model(tmp_path, dtype="float64", pooling=pooling)
    pixels = np.random.default_rng(0).standard_normal((2, 3, 16, 24))
    instances, failures = encode_rows(
        model,
        [Row(f"r{n}", pixel_values=x.ravel().tolist()) for n, x in enumerate(pixels)],
        EncodeOptions(model.max_length),
    )
    before = 2 if family == "deit" else 1
    assert not failures and [len(one) for one in instances] == [before + 12] * 2
    assert instances[0].tokens[-1] == "r1c5" and instances[0].special.sum() == before
    found = attribute(model, instances, ["decompx", "saliency", "occlusion", "bt_head"])
    assert found.failures == []
    logits = network.eval().double()(pixel_values=torch.tensor(pixels)).logits.detach()
    for number, prediction in enumerate(found.predictions):
        row = found.rows["decompx"][number]
        assert prediction is not None and row is not None and row.delta is not None
        assert abs(row.delta) < 1e-10
        same = relative_error(prediction.logits, logits[number]) < TIGHT
        assert same == (pooling == "cls")


# What is no picture ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "the row has no picture"),
        ({"pixel_values": [0.0] * 7}, "7 numbers, but a picture of the model's is 3 x 32 x 32"),
        ({"pixel_values": [np.inf] * 3072}, "the picture's pixels are not all finite numbers"),
        ({"text": "a cat"}, "the row has no picture"),
        ({"pixel_values": [0.0] * 3072, "label": 5}, "label 5 is outside the model's classes"),
    ],
)
def test_rows_that_are_no_picture(double: Model, row: dict[str, Any], message: str) -> None:
    found, (failure,) = encode_rows(double, [Row("r", **row)], EncodeOptions(17))
    assert not found and failure.message.startswith(message)


def test_a_picture_of_another_size_fails_alone(double: Model) -> None:
    small = replace(pictures(double)[0], pixels=np.zeros((3, 8, 8)))  # type: ignore[call-arg]
    found = attribute(double, [small, pictures(double)[1]], "saliency")
    assert [failure.message[:24] for failure in found.failures] == ["a picture of (3, 8, 8), "]
    assert found.rows["saliency"][1] is not None


@pytest.mark.parametrize(
    ("method", "params", "says"),
    [
        (
            "occlusion",
            {"operation": "pad"},
            "is mean or black or drop for a model of images, not pad",
        ),
        ("lime", {"unit": "word"}, "is patch for a model of images, not word"),
        (
            "integrated_gradients",
            {"baseline": "pad"},
            "is zero or black or blur for a model of images, not pad",
        ),
        (
            "bt_head",
            {"baseline": "mask"},
            "is zero or black for a model of images, not mask",
        ),
        (
            "pattern_ablation",
            {},
            "pattern_ablation is defined for rows of tokens, and vit has none",
        ),
        ("globenc", {}, "globenc is defined by layers that normalise after their residuals"),
    ],
)
def test_what_is_of_texts(double: Model, method: str, params: dict[str, str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        attribute(double, pictures(double), choose(method, {method: params} if params else {}))


def test_texts_have_no_patches(golden: LoadTiny) -> None:
    with pytest.raises(UsageError, match="is delete or pad or mask for a model of text"):
        attribute(golden("bert-golden"), [], choose("lime", {"lime": {"operation": "mean"}}))
    with pytest.raises(
        UsageError, match="there is no 'patch'; there are token, word, segment, compat"
    ):
        Evaluation(protocol="patch").checked(golden("bert-golden"))


def test_patches_are_rows_of_pixels(double: Model) -> None:
    pixels = collate(double, pictures(double)).rows.inputs["pixel_values"]
    found = Images().vectors(double, pixels)
    expected: NDArray[Any] = patches_of(pixels).flatten(2).numpy()
    assert (found[:, 0] == 0).all()
    assert (found[:, 1:].numpy() == expected).all()


def test_statistics_are_of_each_position(double: Model) -> None:
    """The class token's differ from those of patches, and the top corner's from the middle's."""
    hidden = plain(double)(pixel_values=pixels_of(double), output_hidden_states=True).hidden_states
    found = collect(double, pictures(double), 40)
    assert found.count == PICTURES
    for layer, states in enumerate(hidden[1:]):
        values = states.detach().numpy()
        assert relative_error(found.mean[layer], values.mean(0)) < TIGHT
        spread = np.maximum(values.std(0), 0.01)
        assert np.abs(found.std[layer] - spread).max() < TIGHT * spread.max()
    same = collect(double, pictures(double)[:1] * 2, 1000)
    assert (same.std == 0.01).all()
    with pytest.raises(UsageError, match="need at least 2 pictures, and there are 1"):
        collect(double, pictures(double)[:1], 1000)


def test_bottlenecks_take_the_noise_of_their_position(double: Model) -> None:
    """Without a gradient to speak of, the information is that of the first mask."""
    statistics = collect(double, pictures(double), 1000)
    params = {"iba": {"layer": 1, "steps": 1, "alpha": 0.5}}
    chosen = choose("iba", params)
    rows = attribute(double, pictures(double), chosen, statistics=statistics).rows["iba"]
    hidden = plain(double)(pixel_values=pixels_of(double), output_hidden_states=True).hidden_states
    share = 1 / (1 + np.exp(-0.5))
    for row, states in zip(rows, hidden[2].detach().numpy(), strict=True):
        z = share * (states - statistics.mean[1]) / statistics.std[1]
        nats = -np.log(1 - share) + ((1 - share) ** 2 + z**2 - 1) / 2
        assert row is not None
        assert relative_error(row.scores, nats.sum(-1)) < TIGHT


def test_influence_is_that_of_a_path_of_pixels(double: Model) -> None:
    """Of the contrast with the runner-up; patterns start at patches and end at the class token."""
    shared = {"baseline": "zero", "rule": "trapezoid"}
    chosen = choose("influence", {"influence": {"points": 9, "rule": "trapezoid"}})
    found = attribute(double, pictures(double), chosen).rows["influence"]
    paths = choose("integrated_gradients", {"integrated_gradients": {"steps": 9, **shared}})
    expected = attribute(double, pictures(double), paths, explain="contrast")
    for row, other in zip(found, expected.rows["integrated_gradients"], strict=True):
        assert row is not None and other is not None
        assert relative_error(row.scores, other.scores) < 1e-9
        assert row.delta == pytest.approx(other.delta, abs=1e-9)
        patterns = row.details["patterns"]
        assert {pattern.source for pattern in patterns} == {*range(1, 1 + PATCHES)}
        assert all(pattern.nodes[-1] == 0 for pattern in patterns)
        for pattern in patterns:
            assert pattern.input_influence == pytest.approx(row.scores[pattern.source], abs=1e-9)


def test_large_pictures_are_spared_what_keeps_gigabytes(double: Model) -> None:
    params = {"points": 200_000}
    (named,) = choose("influence", {"influence": params})
    of_all = [choice for choice in choose("all") if choice.name in ("influence", "random")]
    several = [replace(choice, params={**choice.params, **params}) for choice in of_all]
    chosen, left_out = fit_all(several, double, "logit")
    assert [choice.name for choice in chosen] == ["random"]
    assert "GiB of each picture: name it" in left_out["influence"]
    assert fit_all(of_all, double, "logit")[1] == {}
    assert [choice.name for choice in fit_all([named], double, "logit")[0]] == ["influence"]


def test_sides_that_are_no_whole_patches(tmp_path: Path) -> None:
    """What is left over at the end is seen by nothing, has no score, and is painted as a pixel."""
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=[36, 34],
        patch_size=8,
        num_labels=3,
    )
    torch.manual_seed(0)
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    model = load_model(tmp_path, dtype="float64")
    pixels = np.random.default_rng(0).normal(size=(3, 36, 34))
    mask = np.zeros((36, 34), np.uint8)
    mask[:20, 30:] = 255
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    row = Row("a", pixel_values=pixels.reshape(-1).tolist(), label=1, mask=file.getvalue())
    instances, failures = encode_rows(model, [row], EncodeOptions(99))
    assert failures == []
    chosen = ["saliency", "grad_x_input", "lrp", "bt_head", "occlusion"]
    found = attribute(model, instances, chosen, target=1, pixels=True)
    assert found.failures == []
    given = torch.tensor(pixels)[None].requires_grad_()
    (gradient,) = torch.autograd.grad(plain(model)(pixel_values=given).logits[0, 1], given)
    assert (gradient[..., 32:, :] == 0).all() and (gradient[..., 32:] == 0).all()
    (product,) = found.rows["grad_x_input"]
    assert product is not None and product.pixels is not None
    expected = (gradient * given).sum(1)[0].detach().numpy()
    assert relative_error(product.pixels.reshape(36, 34), expected) < TIGHT
    assert product.scores.sum() == pytest.approx(expected.sum(), abs=TIGHT)
    for method in ("grad_x_input", "bt_head"):
        (own,) = found.rows[method]
        assert own is not None
        located = localise(cast(Picture, instances[0]), own.scores, 1, own.pixels)
        assert located is not None and located.tp + located.fn == 20 * 4
        assert located.tp + located.fp + located.fn + located.tn == 36 * 34
        ranking = Ranking(instances[0], method, own.scores, 1)
        for protocol, units in (("patch", 16), ("pixel", 36 * 34)):
            evaluation = Evaluation((0.5,), ("morf",), ("mean",), cast(Any, protocol))
            (curve,), failures = curves(model, [ranking], evaluation, token_budget=999)
            assert failures == [] and curve is not None
            assert {point.units for point in curve} == {units}
