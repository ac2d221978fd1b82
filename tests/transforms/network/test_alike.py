"""Queries, keys and values of what enters the first layer alike are those of each by itself."""

from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from attribeam.transforms import Model
from attribeam.transforms.inputs.variants import Variants
from attribeam.transforms.network import alike, model
from tests.conftest import LoadTiny
from tests.support.models import FAMILIES, OTHERS, random_instances


def logits_of_copies(model: Model) -> NDArray[np.float64]:
    """Logits of 20 copies of each of two texts, with masked tokens and with tokens left out."""
    variants, random = Variants(model), np.random.default_rng(0)
    mask = "pad" if model.mask_id is None else "mask"
    for instance in random_instances(model, [9, 7]):
        for operation in (mask, "pad"):
            for _ in range(10):
                removed = instance.removable & (random.random(len(instance)) < 0.4)
                variants.add(instance, operation, removed)
    variants.run(512)
    assert not variants.errors
    return variants.logits


@pytest.mark.parametrize("family", [*FAMILIES, *OTHERS])
def test_logits_are_the_same(tiny: LoadTiny, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny(family, "classification", "float64")
    found: list[alike.Alike | None] = []

    def look(
        inputs: Mapping[str, torch.Tensor], mask: torch.Tensor, places: torch.Tensor | None
    ) -> alike.Alike | None:
        found.append(alike.alike(inputs, mask, places))
        return found[-1]

    monkeypatch.setattr(model, "alike", look)
    once = logits_of_copies(network)
    assert any(found)
    monkeypatch.setattr(model, "alike", lambda *_: None)
    each = logits_of_copies(network)
    np.testing.assert_allclose(once, each, rtol=0, atol=1e-10 * float(np.abs(each).max()))


def test_no_more_is_mapped_than_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = torch.tensor([[1, 5, 6], [1, 9, 6], [1, 5, 9], [1, 5, 6]])
    places = torch.arange(3).expand(4, 3)
    there = torch.ones_like(ids)
    found = alike.alike({"input_ids": ids}, there, places)
    assert found is not None and len(found.first) == 5
    mapped: list[int] = []

    def double(x: torch.Tensor) -> torch.Tensor:
        mapped.append(len(x))
        return 2 * x

    recorder = SimpleNamespace(number=1, alike=found)
    monkeypatch.setattr(alike, "current_recorder", lambda: recorder)
    entered = (10 * places + ids)[..., None]
    assert alike._projected(double, entered).equal(2 * entered)
    # Of a later layer, and of something else than all positions, each is mapped.
    alike._projected(double, entered.flatten(0, 1)[None])
    recorder.number = 2
    alike._projected(double, entered)
    assert mapped == [5, 1, 4]
    # Of equal tokens one is apart that is padding, or of another type.
    same, other = torch.tensor([[1, 5, 6]]).expand(4, 3), torch.zeros_like(ids)
    other[3, 2] = 1
    inputs = {"input_ids": same, "token_type_ids": torch.zeros_like(ids)}
    for fed, mask, kinds in (
        (inputs, there, 3),
        (inputs, 1 - other, 4),
        ({**inputs, "token_type_ids": other}, there, 4),
    ):
        of = alike.alike(fed, mask, places)
        assert of is not None and len(of.first) == kinds
    # Nor is it looked for where nearly all differ, or where places are the network's to find.
    assert alike.alike({"input_ids": torch.arange(12).view(4, 3)}, there, places) is None
    assert alike.alike({"input_ids": ids}, there, None) is None
