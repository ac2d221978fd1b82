"""What methods take is read from their descriptions, so that a bar weighs them."""

import pytest

from attribeam.transforms.costs import forward_passes
from attribeam.transforms.registry import choose, methods


@pytest.mark.parametrize(
    ("cost", "params", "expected"),
    [
        ("0", {}, 0),
        ("1 F", {}, 1),
        ("1 F + 1 B", {}, 3),
        ("1 F + 0.5 B", {}, 2),
        ("samples F", {"samples": 100}, 100),
        ("samples (F + B)", {"samples": 20}, 60),
        ("L/2 steps (F + B) + 2 B", {"steps": 10}, 6 * 10 * 3 + 4),
        ("1 F + steps copies (F + B) above layer", {"steps": 10, "copies": 4, "layer": 7}, 121),
        ("about 5 F in float64", {}, 10),
        ("1 F + 1 B + 1 to 5 F in float64", {}, 13),
        ("at most steps (F + B), 34 in the mean", {"steps": 400}, 102),
        ("at most 5 points F, 140 F in the mean", {"points": 300}, 140),
        ("1 F + 1 B; absdot: about T F", {}, 3),
        ("1 F + L T^2 d", {}, 2),
    ],
)
def test_a_description_is_a_number_of_passes(
    cost: str, params: dict[str, object], expected: float
) -> None:
    assert forward_passes(cost, params) == pytest.approx(expected)


def test_every_method_is_weighed() -> None:
    passes = {choice.name: choice.passes for choice in choose(list(methods()))}
    free = {name for name, each in passes.items() if each == 0}
    assert free == {"random", "mask_itself"}
    # No word of a description is taken for a factor.
    assert max(passes.values()) < 1000, passes
    # As measured, one of each in the benchmarks.
    dearest = ("influence", "kernel_shap", "integrated_gradients", "attattr", "lime", "smoothgrad")
    assert min(passes[name] for name in dearest) > 10 * max(
        passes[name] for name in ("saliency", "raw_attention", "alti", "decompx", "globenc")
    )


def test_parameters_count() -> None:
    (few,) = choose(["lime"], {"lime": {"samples": 10}})
    (many,) = choose(["lime"], {"lime": {"samples": 1000}})
    assert many.passes == 100 * few.passes
