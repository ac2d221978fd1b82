"""What methods cost on pictures, in forward passes of a plain transformers model.

On ViT-Ti's geometry with random weights: Beyond Intuition and what it is compared with, in one run;
its two methods against the authors' procedure, enacted again; and relevance walked to the pixels,
in forward passes in float64, which its rules need.

The authors' procedure takes pictures one at a time, and for each of the two methods one forward and
full backward pass on the picture and 20 on its path, gradients of weights included. What is made of
the gradients afterwards is left out here. Ours runs the layers below the last one for the path's
start once for all pictures of a model.

A picture may be asked about several texts (CLIP): what that costs on a tower of pictures of the
same geometry, which is what one costs, and little more than a backward pass for each.
"""

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    PreTrainedModel,
    ViTConfig,
    ViTForImageClassification,
)

from attribeam.transforms import (
    EncodeOptions,
    Instance,
    Model,
    Row,
    attribute,
    choose,
    load_model,
)
from attribeam.transforms.inputs.encode import encode_rows
from attribeam.transforms.inputs.kinds import collate
from benchmarks.timing import in_turn

SIX = "bt_head,bt_token,generic_attribution,attention_rollout,raw_attention,attention_gradcam"
BOTH = "bt_head,bt_token"
RULES = ("orig", "cvpr21")
STEPS = 20
PICTURES = 4
ROUNDS = 3
TOGETHER_LIMIT = 23.0  # Forward passes.
AUTHORS_LIMIT = 6.0  # Times as quick as their procedure.
RELEVANCE_LIMIT = 10.0  # Forward passes in float64.
# Texts asked about a picture, and at most so many forward passes for the picture and for each text.
TEXTS = (1, 2, 4, 8, 16)
PICTURE_LIMIT, TEXT_LIMIT = 20.0, 1.5


def main() -> bool:
    """Prints the ratios; returns whether they are within their limits."""
    with tempfile.TemporaryDirectory() as folder:
        _stand_in(Path(folder))
        model = load_model(folder)
        pictures = _pictures(model, PICTURES)
        timing = in_turn(_work(Path(folder), model, pictures), ROUNDS)
    together = timing.ratio("six", to="forward")
    authors = timing.ratio("authors", to="both")
    print(
        f"{SIX.replace(',', ', ')} together: {together:.1f} forward passes "
        f"(limit {TOGETHER_LIMIT:.0f}), {timing.median('six') / PICTURES:.2f} s a picture\n"
        f"the authors' procedure for bt_head and bt_token: "
        f"{timing.ratio('authors', to='forward'):.0f} forward passes, {authors:.1f}x the time of "
        f"ours (limit {AUTHORS_LIMIT:.0f}x)"
    )
    walks = {rules: timing.ratio(rules, to="forward in float64") for rules in RULES}
    for rules, cost in walks.items():
        print(
            f"lrp to pixels by the rules {rules}: {cost:.1f} forward passes in float64 "
            f"(limit {RELEVANCE_LIMIT:.0f})"
        )
    quick = together <= TOGETHER_LIMIT and authors >= AUTHORS_LIMIT
    return _texts() and quick and max(walks.values()) <= RELEVANCE_LIMIT


def _texts() -> bool:
    """Prints what several texts a picture cost; returns whether that is within the limits."""
    with tempfile.TemporaryDirectory() as folder:
        _pairs_stand_in(Path(folder))
        model = load_model(folder, tokenizer=False)
        asked = {count: _pairs(model, count) for count in TEXTS}
        tower = model.towers["images"]
        pixels = collate(tower, asked[1]).rows.inputs["pixel_values"]
        work: dict[str, Callable[[], object]] = {"forward": partial(_features, model, pixels)}
        for count, instances in asked.items():
            work[str(count)] = partial(attribute, tower, instances, choose(SIX))
        timing = in_turn(work, ROUNDS)
    good = True
    for count in TEXTS:
        cost, limit = timing.ratio(str(count), to="forward"), PICTURE_LIMIT + TEXT_LIMIT * count
        print(f"the same of pairs, {count} texts a picture: {cost:.1f} (limit {limit:.1f})")
        good &= cost <= limit
    return good


def _pairs_stand_in(folder: Path) -> None:
    """Saves a CLIP with random weights, its tower of pictures of ViT-Ti's geometry."""
    torch.manual_seed(0)
    vision: Mapping[str, int] = {"hidden_size": 192, "num_hidden_layers": 12}
    vision = {**vision, "num_attention_heads": 3, "intermediate_size": 768, "patch_size": 16}
    text = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text |= {"intermediate_size": 128, "vocab_size": 300, "max_position_embeddings": 32}
    text |= {"bos_token_id": 298, "eos_token_id": 299}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=128)
    CLIPModel(config).save_pretrained(folder)


def _pairs(model: Model, texts: int) -> list[Instance]:
    """The sides of pictures of random pixels, each with so many texts of random words."""
    random = np.random.default_rng(0)
    drawn = random.standard_normal((PICTURES, 3 * 224 * 224)).tolist()
    rows = [
        Row(f"{at}-{n}", pixel_values=pixels, input_ids=[298, *random.integers(5, 290, 8), 299])
        for at, pixels in enumerate(drawn)
        for n in range(texts)
    ]
    found = encode_rows(model, rows, EncodeOptions(model.max_length))[0]
    return [instance for instance in found if instance.side == "image"]


@torch.no_grad()
def _features(model: Model, pixels: torch.Tensor) -> None:
    cast(CLIPModel, model.whole).get_image_features(pixel_values=pixels)


def _stand_in(folder: Path) -> None:
    """Saves a classifier of ViT-Ti's geometry with random weights: 197 positions, 12 layers."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=192, num_hidden_layers=12, num_attention_heads=3, intermediate_size=768
    )
    ViTForImageClassification(config).save_pretrained(folder)


def _pictures(model: Model, count: int) -> list[Instance]:
    """Pictures of random pixels, normalised."""
    drawn = np.random.default_rng(0).standard_normal((count, 3 * 224 * 224))
    rows = [Row(f"picture-{at}", pixel_values=pixels.tolist()) for at, pixels in enumerate(drawn)]
    return encode_rows(model, rows, EncodeOptions(model.max_length))[0]


def _work(folder: Path, model: Model, pictures: list[Instance]) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    pixels = collate(model, pictures).rows.inputs["pixel_values"]

    def walk(rules: str) -> Callable[[], object]:
        chosen = choose("lrp", {"lrp": {"rules": rules}})
        return lambda: attribute(model, pictures, chosen)

    return {
        "forward": _forward(_plain(folder, torch.float32), pixels),
        "six": lambda: attribute(model, pictures, choose(SIX)),
        "both": lambda: attribute(model, pictures, choose(BOTH)),
        "authors": _authors(_plain(folder, torch.float32, attention="eager"), pixels),
        "forward in float64": _forward(_plain(folder, torch.float64), pixels.double()),
        **{rules: walk(rules) for rules in RULES},
    }


def _plain(folder: Path, dtype: torch.dtype, attention: str | None = None) -> PreTrainedModel:
    """The same classifier as transformers gives it; weights may be differentiated."""
    model: PreTrainedModel = ViTForImageClassification.from_pretrained(
        folder, dtype=dtype, attn_implementation=attention
    )
    model.eval()
    return model


def _forward(network: PreTrainedModel, pixels: torch.Tensor) -> Callable[[], None]:
    def forward() -> None:
        with torch.no_grad():
            network(pixel_values=pixels)

    return forward


def _authors(network: PreTrainedModel, pixels: torch.Tensor) -> Callable[[], None]:
    """Their passes for both methods, which share none."""

    def differentiate(point: torch.Tensor, target: int | None = None) -> int:
        """The class whose logit it was: of those before, or the predicted one."""
        found = network(pixel_values=point, output_attentions=True)
        for attention in found.attentions:
            attention.retain_grad()
        target = int(found.logits.argmax()) if target is None else target
        network.zero_grad()
        found.logits[0, target].backward()
        return target

    def procedure() -> None:
        for picture in pixels.split(1):
            for _ in BOTH.split(","):
                target = differentiate(picture)
                for step in range(STEPS):
                    differentiate(picture * (step / (STEPS - 1)), target)

    return procedure
