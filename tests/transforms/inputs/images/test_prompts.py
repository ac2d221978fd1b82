"""Pictures with prompts as classes (CLIP): its authors' numbers, and transformers' own."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, CLIPModel

from attribeam.schemas import UsageError
from attribeam.transforms import Instance, Model, Row, attribute, choose, collect, encode
from attribeam.transforms.evaluate import Evaluation, Ranking, curves
from attribeam.transforms.network.anatomy.clip import end_of
from attribeam.transforms.network.loading import load_model
from attribeam.transforms.registry import fit_all
from tests.support.authors import golden_numbers
from tests.support.clip import TEXTS, clip_folder, pictures
from tests.support.models import GOLDENS, relative_error, save_tiny

WITH_GOLDENS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip_folder(tmp_path_factory.mktemp("clip") / "model")


@pytest.fixture(scope="module")
def double(folder: Path) -> Model:
    return load_model(folder, dtype="float64", prompts=TEXTS)


@pytest.fixture(scope="module", params=["float64", "float32"])
def model(folder: Path, double: Model, request: pytest.FixtureRequest) -> Model:
    if request.param == "float64":
        return double
    return load_model(folder, dtype=request.param, prompts=TEXTS)


def instances_of(model: Model) -> list[Instance]:
    return encode(model, [Row(f"c{n}", pixel_values=x) for n, x in enumerate(pictures())])


def test_the_logits(model: Model) -> None:
    limit = 1e-12 if model.dtype == torch.float64 else 1e-5
    expected = golden_numbers("clip")["logits_per_image"]
    for prediction, row in zip(
        attribute(model, instances_of(model), []).predictions, expected, strict=True
    ):
        assert prediction is not None
        assert relative_error(prediction.logits, row) < limit


@pytest.mark.parametrize(
    ("method", "key", "params"),
    [
        ("raw_attention", "raw_attention", {}),
        ("attention_rollout", "rollout", {}),
        ("bt_head", "bt_head_nl2", {}),
        ("bt_token", "bt_token_nl2", {}),
        *[
            (name, f"{name}_nl{start - 1}", {"start_layer": start})
            for name in ("bt_head", "bt_token", "generic_attribution")
            for start in (0, 1, 3)
        ],
    ],
)
def test_the_authors_scores(model: Model, method: str, key: str, params: dict[str, Any]) -> None:
    """By their ``num_layers`` the layers after it; the last one alone where nothing is said."""
    limit = 1e-12 if model.dtype == torch.float64 else 1e-5
    for target in range(len(TEXTS)):
        chosen = choose(method, {method: params} if params else {})
        found = attribute(model, instances_of(model), chosen, target=target)
        for number in range(WITH_GOLDENS):
            row = found.rows[method][number]
            expected = golden_numbers("clip")[f"image/{key}"][number, target]
            assert row is not None
            assert relative_error(row.scores[1:], expected) < limit


def test_the_authors_gradcam(model: Model) -> None:
    """Theirs is scaled to [0, 1]."""
    limit = 1e-12 if model.dtype == torch.float64 else 5e-5
    for target in range(len(TEXTS)):
        found = attribute(model, instances_of(model), ["attention_gradcam"], target=target)
        for number in range(WITH_GOLDENS):
            row = found.rows["attention_gradcam"][number]
            assert row is not None
            expected = golden_numbers("clip")["image/attention_gradcam"][number, target]
            patches = row.scores[1:] - row.scores[1:].min()
            assert relative_error(patches / patches.max(), expected) < limit


def test_gradients_and_curves_as_by_transformers(folder: Path, double: Model) -> None:
    network = CLIPModel.from_pretrained(folder, dtype=torch.float64)
    assert double.tokenizer is not None
    ids = double.tokenizer(list(TEXTS), padding=True, return_tensors="pt")
    texts = {name: ids[name] for name in ("input_ids", "attention_mask")}
    instances = instances_of(double)
    pixels = torch.tensor(pictures(), dtype=torch.float64).view(-1, 3, 32, 32).requires_grad_()

    def logits_of(pixels: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = network(pixel_values=pixels, **texts).logits_per_image
        return found

    (gradient,) = torch.autograd.grad(logits_of(pixels)[:, 1].sum(), pixels)
    by_patch = (gradient * pixels.detach()).unfold(2, 8, 8).unfold(3, 8, 8).sum((1, 4, 5))
    rows = attribute(double, instances, ["grad_x_input"], target=1).rows["grad_x_input"]
    for row, expected in zip(rows, by_patch.flatten(1), strict=True):
        assert row is not None
        assert relative_error(row.scores[1:], expected.detach()) < 1e-5
    ranking = Ranking(instances[0], "any", np.arange(17.0), 1)
    evaluation = Evaluation(fractions=(0.5,), orders=("morf",)).checked(double)
    ((points,), _) = curves(double, [ranking], evaluation, token_budget=1000)
    upper = pixels.detach()[:1].clone()
    upper[:, :, 16:] = 0
    expected = logits_of(upper).softmax(-1)[0, 1].detach()
    assert points is not None
    assert points[1].probability == pytest.approx(float(expected), rel=1e-5)


def test_patches_that_are_dropped_are_as_if_they_were_not_there(double: Model) -> None:
    vision: Any = double.whole.vision_model
    pixels = torch.tensor(pictures()[0], dtype=torch.float64).view(1, 3, 32, 32)
    hidden = vision.pre_layrnorm(vision.embeddings(pixels))[:, torch.arange(17) != 6]
    hidden = vision.encoder(inputs_embeds=hidden).last_hidden_state
    features: Any = double.whole.visual_projection(vision.post_layernorm(hidden[:, 0]))
    weight: Any = double.network.classifier.weight
    left = (features / features.norm() @ weight.T)[0, 2].detach()
    first = instances_of(double)[:1]
    chosen = choose("occlusion", {"occlusion": {"operation": "drop"}})
    found = attribute(double, first, chosen, target=2)
    prediction, row = found.predictions[0], found.rows["occlusion"][0]
    assert prediction is not None and row is not None
    assert row.scores[6] == pytest.approx(prediction.logits[2] - float(left), rel=1e-5)


def test_all_methods_add_up_whatever_their_batches(double: Model) -> None:
    drawn = {name: {"samples": 20} for name in ("lime", "kernel_shap")}
    steps = {name: {"steps": 12} for name in ("bt_head", "bt_token", "integrated_gradients")}
    few = {name: {"steps": 2, "most": 2} for name in ("attattr", "attattr_colsum")}
    given = drawn | steps | few | {"iba": {"steps": 2, "copies": 2}}
    chosen, left_out = fit_all(choose("all", given), double, "logit")
    lengths = {name for name, why in left_out.items() if "by their lengths" in why}
    assert lengths == {"lrp", "partial_lrp", "transformer_attribution"}
    assert set(left_out) - lengths == {"alti_logit", "globenc", "norm_n_resln", "w_res"}
    instances = instances_of(double)
    statistics = collect(double, instances, 1000)
    together = attribute(double, instances, chosen, statistics=statistics)
    alone = attribute(double, instances[::-1], chosen, statistics=statistics, token_budget=1)
    assert together.failures == alone.failures == []
    for name, rows in together.rows.items():
        for row, other in zip(rows, alone.rows[name][::-1], strict=True):
            assert row is not None and other is not None
            limit = 1e-7 * max(np.abs(row.scores).max(), 1e-300)
            np.testing.assert_allclose(other.scores, row.scores, rtol=0, atol=limit, err_msg=name)
    for name in ("decompx", "kernel_shap"):
        for row in together.rows[name]:
            assert row is not None and row.delta is not None and abs(row.delta) < 1e-9


def test_where_texts_end() -> None:
    config = AutoConfig.from_pretrained(GOLDENS / "clip-golden").text_config
    assert end_of(config, np.array([98, 5, 99, 99])) == 2
    assert end_of(config, np.array([98, 5, 7])) is None
    config.eos_token_id = 2  # As configurations of before have it, whatever the tokenizer says.
    assert end_of(config, np.array([7, 2, 9, 3])) == 2


# What is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompts", "says"),
    [
        (("t05",), "--prompts are two or more different texts"),
        (("t05", "t06", "t05"), "--prompts are two or more different texts"),
        (("t05", " ".join(["t06"] * 11)), "has 13 tokens, and the model takes 12"),
    ],
)
def test_prompts_that_are_none(folder: Path, prompts: tuple[str, ...], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        load_model(folder, prompts=prompts)


def test_models_that_have_no_prompts(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--pooling mean: .* compares what its class token"):
        load_model(folder, prompts=TEXTS, pooling="mean")
    with pytest.raises(UsageError, match=r"--prompts are classes .*ViTForImageClassification"):
        load_model(GOLDENS / "vit-golden", prompts=TEXTS)
    with pytest.raises(UsageError, match=r"--prompts are texts, and .* has no tokenizer"):
        load_model(GOLDENS / "clip-golden", prompts=TEXTS)
    endless = tmp_path / "endless"
    shutil.copytree(folder, endless)
    words = json.loads((endless / "tokenizer.json").read_text())
    (endless / "tokenizer.json").write_text(json.dumps({**words, "post_processor": None}))
    with pytest.raises(UsageError, match=r"puts no end token \(id 99\) after the prompt 't66"):
        load_model(endless, prompts=TEXTS)
    siglip = save_tiny(tmp_path / "siglip", "bert")
    saved = json.loads((siglip / "config.json").read_text())
    changed = {"model_type": "siglip", "architectures": ["SiglipModel"]}
    (siglip / "config.json").write_text(json.dumps({**saved, **changed}))
    with pytest.raises(
        UsageError, match=r"is a siglip that .* its pictures are read by attention w"
    ):
        load_model(siglip, prompts=TEXTS)
