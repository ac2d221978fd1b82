"""Attention that is made again when it is read, and layers that are run again, change no score."""

from collections.abc import Iterator
from unittest.mock import patch

import numpy as np
import pytest
import torch

from attribeam.transforms import Attributions, Model, attribute, choose
from attribeam.transforms.inputs.kinds import collate
from attribeam.transforms.network import capture
from attribeam.transforms.network.maps import AttentionMaps
from attribeam.transforms.passes import captured as captured_module
from attribeam.transforms.passes.captured import Captured
from attribeam.transforms.passes.forward import Backward, Forward, Weighed
from tests.conftest import LoadTiny
from tests.transforms.methods.test_causal_forms import questions

METHODS = [
    *("attention_rollout", "attention_gradcam", "bt_head", "bt_token", "generic_attribution"),
    *("alti", "value_zeroing", "grad_x_input"),
]


def explained(model: Model) -> Attributions:
    """Two questions about a prompt, and one about another."""
    tokens = [one for one in questions(model) if not one.of_all]
    asked = [*tokens[:2], tokens[-1]]
    few = {name: {"steps": 2} for name in ("bt_head", "bt_token")}
    found = attribute(model, asked, choose(METHODS, few), token_budget=1, layers=True)
    assert not found.failures
    return found


@pytest.fixture
def remade() -> Iterator[None]:
    """Nothing is short enough to be held."""
    with patch.object(captured_module, "HELD", 0):
        yield


def test_no_score_changes(golden: LoadTiny) -> None:
    # Its heads share keys, its scores are capped, and it has masks of two kinds.
    model = golden("gemma2-golden", "float64")
    held = explained(model)
    with patch.object(captured_module, "HELD", 0):
        again = explained(model)
    for method, rows in held.rows.items():
        for one, other in zip(rows, again.rows[method], strict=True):
            assert one is not None and other is not None
            np.testing.assert_allclose(other.scores, one.scores, rtol=1e-10, atol=1e-12)
            assert len(one.layers or ()) == len(other.layers or ())


@pytest.mark.usefixtures("remade")
def test_nothing_is_held(golden: LoadTiny) -> None:
    model = golden("gpt2-golden", "float64")
    batch = collate(model, [one for one in questions(model) if not one.of_all][:1])
    needs = frozenset({Weighed(), Backward("attention", -1), Backward(), Forward(attention=True)})
    made: list[torch.Tensor] = []
    once = capture._probabilities

    def counted(*given: torch.Tensor) -> torch.Tensor:
        made.append(once(*given))
        return made[-1]

    with patch.object(capture, "_probabilities", counted):
        seen = Captured(model, batch, "each", 1, 0, needs)
        ran = len(made)
        # Each layer's once, and of all but the last once more as the backward pass came by.
        assert ran == 2 * model.num_layers - 1
        assert torch.equal(seen.attention[0], made[0]) and len(made) == ran + 1
        assert seen.attention[0] is seen.attention[0] and len(made) == ran + 1
    assert len(seen.weighed) == model.num_layers and len(seen.attention_gradient) == 1
    with patch.object(captured_module, "HELD", 1 << 27):
        plain = Captured(model, batch, "each", 1, 0, needs)
    for own, other in zip(seen.weighed, plain.weighed, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(seen.attention_gradient[0], plain.attention_gradient[0])
    assert seen.gradient is not None and plain.gradient is not None
    torch.testing.assert_close(seen.gradient, plain.gradient, rtol=1e-12, atol=1e-14)


def test_maps_are_changed_when_read() -> None:
    one = torch.ones(1, 1, 2, 2)
    maps = AttentionMaps([one, lambda: 2 * one])
    doubled = maps.mapped(lambda x: 2 * x)
    assert [float(x.sum()) for x in doubled] == [8, 16]
    assert float(doubled[1:][0].sum()) == 16 and float(maps[-1].sum()) == 8
