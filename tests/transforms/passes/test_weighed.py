"""Attention weighed as the backward pass comes by is what whole gradients weighed are."""

import pytest

from attribeam.transforms import Model, choose
from attribeam.transforms.inputs.kinds import collate
from attribeam.transforms.passes.captured import Captured
from attribeam.transforms.passes.forward import Backward, Weighed
from attribeam.transforms.passes.graph import weighed
from tests.conftest import LoadTiny
from tests.support.models import relative_error
from tests.transforms.methods.test_causal_forms import questions


def captured(model: Model, *needs: Backward | Weighed, budget: int, rank: int) -> Captured:
    """The first questions about two rows, or the next ones."""
    asked = [one for one in questions(model) if not one.of_all]
    batch = collate(model, asked)
    whole = Captured(model, batch, "each", budget, 0, frozenset(needs))
    return whole.part(rank)


@pytest.mark.parametrize("budget", [1, 100_000])
def test_weighed_as_it_comes(golden: LoadTiny, budget: int) -> None:
    model = golden("llama-golden", "float64")
    for rank in (0, 1):
        of_all = captured(model, Backward("attention"), budget=budget, rank=rank)
        pairs = zip(of_all.attention, of_all.attention_gradient, strict=True)
        expected = [weighed(*pair) for pair in pairs]
        alone = captured(model, Weighed(), budget=budget, rank=rank)
        assert not alone.attention_gradient  # None is held.
        both = captured(model, Weighed(), Backward("attention"), budget=budget, rank=rank)
        for layers in (alone.weighed, both.weighed):
            for found, one in zip(layers, expected, strict=True):
                assert one.abs().sum() > 0
                assert relative_error(found, one) < 1e-12


def test_who_weighs(golden: LoadTiny) -> None:
    (chosen,) = choose("generic_attribution")
    fitted = chosen.fitted(golden("llama-golden", "float64"))
    assert fitted.needs == (Weighed(),)
    assert [need.record for need in fitted.needs] == [str(Backward("attention"))]
