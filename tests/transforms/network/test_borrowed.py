"""Networks from anywhere, under anything: explained alike, and left as they were."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import replace
from functools import partial
from threading import Barrier, Thread
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from attribeam.schemas import UsageError
from attribeam.transforms import (
    Attributions,
    Model,
    attribute,
    choose,
    collect,
    load_model,
    methods,
)
from attribeam.transforms.evaluate import Evaluation, Ranking, curves
from attribeam.transforms.inputs.text.kind import Text
from attribeam.transforms.network.borrowed import Held, borrowed
from tests.conftest import LoadTiny
from tests.support.models import (
    USUAL_METHODS,
    plain,
    random_instances,
    relative_error,
    statistics_of,
    tiny_network,
)

pytestmark = pytest.mark.usefixtures("padding_at_will")

Context = Callable[[], AbstractContextManager[Any]]
CHEAP: dict[str, dict[str, Any]] = {
    "attattr": {"steps": 2, "most": 2},
    "attattr_colsum": {"steps": 2, "most": 2},
    "integrated_gradients": {"steps": 2},
    "iba": {"steps": 3},
    "iba_released": {"steps": 3},
    "influence": {"points": 3},
    "pattern_ablation": {"points": 3},
    "lime": {"samples": 10},
    "kernel_shap": {"samples": 10},
    "context_cite": {"samples": 10, "unit": "token"},
}


def explained(model: Model) -> Attributions:
    """All methods on two texts, one of them padded."""
    given = {name: params for name, params in CHEAP.items() if name in methods()}
    given = {
        name: {k: v for k, v in p.items() if k in methods()[name].defaults}
        for name, p in given.items()
    }
    chosen = choose(list(USUAL_METHODS), given)
    found = attribute(
        model, random_instances(model, [5, 12]), chosen, statistics=statistics_of(model)
    )
    assert found.failures == []
    return found


def assert_equal(found: Attributions, expected: Attributions) -> None:
    for name, rows in expected.rows.items():
        for row, wanted in zip(found.rows[name], rows, strict=True):
            assert row is not None and wanted is not None
            if wanted.scores.any():
                assert relative_error(row.scores, wanted.scores) < 1e-9, name


@pytest.fixture(scope="module")
def model(tiny: LoadTiny) -> Model:
    return tiny("bert", "classification", "float64")


@pytest.fixture(scope="module")
def expected(model: Model) -> Attributions:
    return explained(model)


def own(model: Model, implementation: str, *, training: bool) -> PreTrainedModel:
    """The same weights in a network as transformers makes it."""
    network: PreTrainedModel = deepcopy(plain(model))
    network.set_attn_implementation(implementation)
    return network.train(training).requires_grad_(training)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_a_network_that_is_handed_over(
    model: Model, expected: Attributions, implementation: str, training: bool
) -> None:
    """It attends to no padding, drops nothing out, and is given back."""
    network = own(model, implementation, training=training)
    assert_equal(explained(replace(model, network=network)), expected)
    assert network.config._attn_implementation == implementation
    for module in network.modules():
        assert module.training == training
    assert all(weight.requires_grad == training for weight in network.parameters())
    assert all(weight.grad is None for weight in network.parameters())


def test_curves_of_a_network_that_is_handed_over(model: Model) -> None:
    other = replace(model, network=own(model, "sdpa", training=True))
    rankings = [
        Ranking(i, "any", np.arange(len(i)), target=1) for i in random_instances(model, [5, 12])
    ]
    found, wanted = (
        curves(of, rankings, Evaluation(operations=Text.operations), token_budget=10_000)[0]
        for of in (other, model)
    )
    for rows, expected in zip(found, wanted, strict=True):
        assert rows is not None and expected is not None
        for row, point in zip(rows, expected, strict=True):
            assert row.probability == pytest.approx(point.probability, abs=1e-12)


@pytest.mark.parametrize(
    "context",
    [torch.inference_mode, torch.no_grad, partial(torch.autocast, "cpu", torch.bfloat16)],
)
def test_whatever_the_caller_is_under(
    model: Model, expected: Attributions, context: Context
) -> None:
    with context():
        found = explained(model)
        assert torch.is_grad_enabled() == (context not in (torch.inference_mode, torch.no_grad))
    assert_equal(found, expected)


def test_a_model_that_was_loaded_under_inference_mode(model: Model, expected: Attributions) -> None:
    with torch.inference_mode():
        loaded = load_model(model.network.name_or_path, dtype="float64")
        instances = random_instances(loaded, [9, 16, 12])
        statistics = collect(loaded, instances, 1000)
    assert np.abs(statistics.mean - statistics_of(model).mean).max() < 1e-12
    assert_equal(explained(loaded), expected)


def test_weights_that_no_gradient_passes_are_refused(model: Model) -> None:
    with torch.inference_mode():
        network = tiny_network("bert")
    instances = random_instances(model, [5])
    with pytest.raises(UsageError, match="inference_mode"):
        attribute(replace(model, network=network), instances, "saliency")


# The process ----------------------------------------------------------------------------------


@pytest.fixture
def backends() -> Iterator[Any]:
    """Where torch keeps the precision of products, by backend; put back after the test."""
    yield torch.backends
    torch.set_float32_matmul_precision("highest")


def during(model: Model) -> set[str]:
    """The precision of products while a model is explained."""
    seen: set[str] = set()

    def see(*_: object) -> None:
        seen.add(torch.get_float32_matmul_precision())

    handle = model.layers[0].attention.query.module.register_forward_pre_hook(see)
    try:
        attribute(model, random_instances(model, [5]), "saliency")
    finally:
        handle.remove()
    return seen


@pytest.mark.parametrize("allowed", ["highest", "high", "medium"])
def test_the_precision_of_products_is_the_processs_own(
    model: Model, allowed: str, backends: Any
) -> None:
    torch.set_float32_matmul_precision(allowed)
    loaded = load_model(model.network.name_or_path)
    assert torch.get_float32_matmul_precision() == allowed
    assert during(loaded) == {"highest"}
    assert torch.get_float32_matmul_precision() == allowed


def test_the_precision_may_be_set_by_backend(model: Model, backends: Any) -> None:
    if not hasattr(backends.cuda.matmul, "fp32_precision"):
        pytest.skip("torch before 2.9 doesn't know it")
    backends.cuda.matmul.fp32_precision = "tf32"
    assert during(model) == {"highest"}
    assert backends.cuda.matmul.fp32_precision == "tf32"


def test_an_error_puts_everything_back(model: Model) -> None:
    network = own(model, "sdpa", training=True)
    with pytest.raises(KeyError), borrowed(network):
        assert network.config._attn_implementation == "attribeam"
        raise KeyError
    assert network.config._attn_implementation == "sdpa"
    assert network.training


def test_it_is_put_back_after_the_last_of_several_threads() -> None:
    held, steps, barrier = Held(), [], Barrier(4)

    def change() -> Callable[[], None]:
        steps.append("changed")
        return lambda: steps.append("back")

    def work() -> None:
        with held.changed(change), nullcontext():
            barrier.wait()
            steps.append("at work")
            barrier.wait()

    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert steps == ["changed", *["at work"] * 4, "back"]
    with held.changed(change), held.changed(change):
        pass
    assert steps[-2:] == ["changed", "back"]
