"""HTA x Input against its authors' numbers and against whole Jacobians."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from attribeam.schemas import UsageError
from attribeam.transforms import Instance, Model, attribute, choose, encode, load_model
from tests.conftest import LoadTiny
from tests.support.authors import (
    ALL_AT_ONCE,
    IN_FLOAT32,
    ONE_BY_ONE,
    VARIANTS,
    golden_numbers,
    golden_rows,
)
from tests.support.conditioning import tolerances
from tests.support.models import (
    FAMILIES,
    TASKS,
    plain,
    random_instance,
    random_instances,
    relative_error,
    tiny_network,
    tokenizer_for,
)

pytestmark = pytest.mark.usefixtures("padding_at_will")


def hta(
    model: Model, instances: list[Instance], *, probes: int = 0, **more: Any
) -> list[NDArray[np.floating]]:
    chosen = choose("hta_x_input", {"hta_x_input": {"probes": probes}})
    found = attribute(model, instances, chosen, **more)
    assert found.failures == []
    return [cast(Any, row).scores for row in found.rows["hta_x_input"]]


@cache
def allowed(model: Model) -> list[float]:
    """What rounding may come to for each of the golden texts."""
    instances = encode(model, golden_rows())
    return tolerances(model, lambda: hta(model, instances))


@VARIANTS
def test_the_authors_numbers(golden: LoadTiny, dtype: str, budget: int) -> None:
    model = golden("bert-golden", dtype)
    instances = encode(model, golden_rows())
    scores = hta(model, instances, token_budget=budget)
    limits = allowed(model)
    for instance in range(5):
        expected = golden_numbers("hta")[f"bert-golden/hta_cls/{instance}"]
        assert relative_error(scores[instance], expected) < limits[instance] + IN_FLOAT32


def by_jacobian(model: Model, instance: Instance) -> NDArray[np.floating]:
    """The norm of the Jacobian of the plain model, one hidden unit at a time."""
    ids = torch.tensor(instance.input_ids[None], dtype=torch.long)
    types = torch.tensor(instance.segment[None], dtype=torch.long)
    extra = {"token_type_ids": types} if model.token_types > 1 else {}
    states = plain(model)(ids, output_hidden_states=True, **extra).hidden_states
    products = [
        torch.autograd.grad(unit, states[0], retain_graph=True)[0][0] * states[0][0]
        for unit in states[-1][0, instance.readout]
    ]
    norms: NDArray[np.floating] = torch.stack(products).norm(dim=(0, 2)).detach().numpy()
    return norms


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_norms_of_the_jacobian(tiny: LoadTiny, family: str, task: str) -> None:
    model = tiny(family, task, "float64")
    instances = random_instances(model, [6, 17, 9])
    expected = [by_jacobian(model, instance) for instance in instances]
    for budget in (ONE_BY_ONE, ALL_AT_ONCE):
        for ours, whole in zip(hta(model, instances, token_budget=budget), expected, strict=True):
            assert relative_error(ours, whole) < 1e-10


def test_probes_are_right_on_average(golden: LoadTiny) -> None:
    model = golden("bert-golden", "float64")
    instances = encode(model, golden_rows())[:4]
    exact = hta(model, instances)
    for few, many, true in zip(
        hta(model, instances, probes=4), hta(model, instances, probes=400), exact, strict=True
    ):
        # The mean of m squares of a token deviates by less than sqrt(2 / m) of itself.
        assert np.abs(few**2 / true**2 - 1).max() > 1e-3
        assert np.abs(many**2 / true**2 - 1).max() < 4 * np.sqrt(2 / 400)


def test_probes_know_the_content_and_the_seed_alone(tiny: LoadTiny) -> None:
    model = tiny("bert", "classification", "float64")
    instances = random_instances(model, [12, 9, 20])
    first = hta(model, instances, probes=3)
    again = hta(model, instances[::-1], probes=3, token_budget=30)[::-1]
    other_seed = hta(model, instances, probes=3, seed=1)
    for one, same, different in zip(first, again, other_seed, strict=True):
        assert relative_error(same, one) < 1e-12
        assert relative_error(different, one) > 1e-3


def test_probes_are_not_negative() -> None:
    with pytest.raises(UsageError, match="probes is at least 0"):
        choose("hta_x_input", {"hta_x_input": {"probes": -1}})


def cut(instance: Instance, length: int) -> Instance:
    """The first tokens of an instance; encoding refuses texts as short as the shortest here."""
    arrays = {k: v[:length] for k, v in vars(instance).items() if isinstance(v, np.ndarray | tuple)}
    return replace(instance, **arrays)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("probes", [0, 2])
def test_short_texts_and_shallow_models(tmp_path: Path, layers: int, probes: int) -> None:
    tiny_network("bert", num_hidden_layers=layers).save_pretrained(tmp_path)
    tokenizer_for("bert").save_pretrained(tmp_path)
    model = load_model(tmp_path)
    long = random_instance(model, 4)
    instances = [cut(long, length) for length in (1, 2, 3)]
    for number, scores in enumerate(hta(model, instances, probes=probes)):
        assert scores.shape == (number + 1,)
        assert np.isfinite(scores).all() and (scores > 0).all()


def test_it_runs_only_when_named() -> None:
    assert "hta_x_input" not in {choice.name for choice in choose("all")}
