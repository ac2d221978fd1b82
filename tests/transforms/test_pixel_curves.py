"""Pictures whose pixels are removed one by one: maps, what is removed, and what the model says."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from attribeam.schemas import UsageError
from attribeam.transforms import load_model
from attribeam.transforms.evaluate import Evaluation, Ranking, curves, points_of
from attribeam.transforms.inputs.images.maps import pixel_map
from attribeam.transforms.inputs.images.picture import Picture, picture_of
from attribeam.transforms.inputs.row import Row
from attribeam.transforms.network.anatomy import Grid
from attribeam.transforms.network.model import Model
from tests.support.models import GOLDENS

# 2 x 2 patches of 2 x 2 pixels, and a class token.
TOY = Grid(3, 4, 4, 2, 2)


def toy(grid: Grid = TOY) -> Picture:
    return picture_of(Row("toy"), np.zeros((grid.channels, grid.height, grid.width)), grid)


def test_maps_are_bilinear() -> None:
    expected = [[0, 0, 0, 0], [0, 1, 3, 4], [0, 3, 9, 12], [0, 4, 12, 16]]
    found = pixel_map(np.array([9, 0, 0, 0, 1.0]), TOY)
    np.testing.assert_array_equal(found, np.array(expected) / 16)
    wide = Grid(3, 48, 32, 8, 4, ("[CLS]", "[DISTILL]"))
    scores = np.random.default_rng(0).normal(size=wide.positions)
    patches = torch.tensor(scores[2:]).view(1, 1, 6, 8)
    other = interpolate(patches, scale_factor=(8, 4), mode="bilinear")[0, 0].numpy()
    np.testing.assert_allclose(pixel_map(scores, wide), other, rtol=0, atol=1e-14)


def test_maps_of_equal_scores_are_equal() -> None:
    """Rounding would choose among them otherwise."""
    grid = Grid(3, 56, 56, 8, 8)
    assert len(np.unique(pixel_map(np.full(grid.positions, 0.1), grid))) == 1


def test_what_is_removed() -> None:
    """By hand; of equal pixels the earlier one goes first in either order."""
    evaluation = Evaluation(
        fractions=(0.1, 0.25, 0.5), operations=("black",), protocol="pixel", orders=("morf", "lerf")
    )
    points = points_of(toy(), np.array([9, 0, 0, 0, 1.0]), evaluation, 0)
    found = {(p.order, p.fraction): np.flatnonzero(p.tokens).tolist() for p in points}
    assert found["morf", 0.1] == [15]
    assert found["morf", 0.25] == [10, 11, 14, 15]
    assert found["morf", 0.5] == [6, 7, 9, 10, 11, 13, 14, 15]
    assert found["lerf", 0.25] == [0, 1, 2, 3]
    assert found["lerf", 0.0] == [] and found["lerf", 1.0] == [*range(16)]
    assert {p.units for p in points} == {16}


def test_as_many_as_the_authors_remove() -> None:
    grid = Grid(3, 224, 224, 16, 16)
    scores = np.random.default_rng(0).normal(size=grid.positions)
    evaluation = Evaluation(orders=("random",), operations=("mean",), protocol="pixel")
    counts = [p.removed for p in points_of(toy(grid), scores, evaluation, 0)]
    inner = [5017, 10035, 15052, 20070, 25088, 30105, 35123, 40140, 45158]
    assert counts == [0, *inner, 50176]


@pytest.fixture(scope="module")
def model() -> Model:
    """The golden ViT, with the colours of a processor."""
    loaded = load_model(GOLDENS / "vit-golden", dtype="float64")
    colours = {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.25, 0.5, 1.0]}
    return replace(loaded, processor=type("Processor", (), colours)())


def test_what_the_model_says(model: Model) -> None:
    """Of pictures painted by hand, whatever else is in the batch."""
    assert model.grid is not None
    grid, rng = model.grid, np.random.default_rng(1)
    pixels = rng.normal(size=(2, grid.channels, grid.height, grid.width))
    pictures = [picture_of(Row(f"p{n}"), values, grid) for n, values in enumerate(pixels)]
    scores = rng.normal(size=(2, grid.positions))
    evaluation = Evaluation((0.3,), ("morf", "lerf"), ("mean", "black"), "pixel").checked(model)
    rankings = [Ranking(p, "m", s, 1) for p, s in zip(pictures, scores, strict=True)]
    found, failures = curves(model, rankings, evaluation, token_budget=4096)
    assert failures == []
    black = np.array([-2.0, -1.0, -0.5])[:, None, None]
    for values, own, curve in zip(pixels, scores, found, strict=True):
        ranked = pixel_map(own, grid)
        assert curve is not None and len(curve) == 12
        for point in curve:
            best = np.argsort((-ranked if point.order == "morf" else ranked).reshape(-1))
            gone = np.zeros(ranked.size, bool)
            gone[best[: int(point.fraction * ranked.size)]] = True
            colour = black if point.operation == "black" else np.zeros((3, 1, 1))
            painted = np.where(gone.reshape(ranked.shape), colour, values)
            logits = model.network(torch.tensor(painted)[None]).logits[0]
            assert point.logit == pytest.approx(float(logits[1].detach()), abs=1e-6)


def test_pixels_cannot_be_left_out(model: Model) -> None:
    with pytest.raises(UsageError, match="drop leaves out whole patches"):
        Evaluation(operations=("drop",), protocol="pixel").checked(model)
