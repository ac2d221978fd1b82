"""The methods against what the papers' authors' own code gives (see goldens/README.md)."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from attribeam.transforms import Attribution, Attributions, attribute, choose, encode
from tests.conftest import LoadTiny
from tests.support.authors import (
    ALL_AT_ONCE,
    BUDGETS,
    DTYPES,
    IN_FLOAT32,
    VARIANTS,
    WITH_GOLDENS,
    golden_numbers,
    golden_rows,
)
from tests.support.conditioning import tolerances
from tests.support.models import relative_error

pytestmark = pytest.mark.usefixtures("padding_at_will")


FLOAT32_MODELS = ("electra-golden", "roberta-golden", "distilbert-golden")


def run(
    golden: LoadTiny,
    name: str,
    dtype: str,
    budget: int,
    method: str,
    *,
    target: str | int = "auto",
    **params: str,
) -> Attributions:
    """A method's results for the eight instances of the corpus."""
    model = golden(name, dtype)
    chosen = choose(method, {method: params})
    instances = encode(model, golden_rows())
    found = attribute(model, instances, chosen, target=target, token_budget=budget)
    assert found.failures == []
    return found


def scores(found: Attributions, method: str, instance: int) -> NDArray[np.floating]:
    attribution = found.rows[method][instance]
    assert attribution is not None
    return attribution.scores


@cache
def allowed(
    golden: LoadTiny, name: str, dtype: str, method: str, **given: str | int
) -> list[float]:
    """What rounding may come to in the scores of each instance with goldens."""

    def compute() -> list[NDArray[np.floating]]:
        found = run(golden, name, dtype, ALL_AT_ONCE, method, **given)  # type: ignore[arg-type]
        return [scores(found, method, instance) for instance in WITH_GOLDENS]

    return tolerances(golden(name, dtype), compute)


@cache
def allowed_in_logits(golden: LoadTiny, name: str, dtype: str) -> list[float]:
    """What rounding may come to in the logits of each instance."""

    def compute() -> list[NDArray[np.floating]]:
        found = run(golden, name, dtype, ALL_AT_ONCE, "raw_attention")
        return [prediction.logits for prediction in found.predictions if prediction is not None]

    return tolerances(golden(name, dtype), compute)


@VARIANTS
def test_attention_rollout(golden: LoadTiny, dtype: str, budget: int) -> None:
    found = run(golden, "bert-golden", dtype, budget, "attention_rollout")
    for instance in WITH_GOLDENS:
        expected = golden_numbers("authors")[f"bert-golden/rollout/{instance}"]
        error = relative_error(scores(found, "attention_rollout", instance), expected)
        assert error < allowed(golden, "bert-golden", dtype, "attention_rollout")[instance]


@VARIANTS
def test_raw_attention(golden: LoadTiny, dtype: str, budget: int) -> None:
    found = run(golden, "bert-golden", dtype, budget, "raw_attention")
    for instance in WITH_GOLDENS:
        ours = scores(found, "raw_attention", instance)
        # The authors set [CLS] to zero; it is what the others leave of 1.
        expected = golden_numbers("authors")[f"bert-golden/raw_attention/{instance}"].copy()
        assert expected[0] == 0
        expected[0] = 1 - expected.sum()
        limit = allowed(golden, "bert-golden", dtype, "raw_attention")[instance]
        assert relative_error(ours, expected) < limit


@VARIANTS
@pytest.mark.parametrize("reduce", ["sum", "norm"])
def test_grad_x_input(golden: LoadTiny, dtype: str, budget: int, reduce: str) -> None:
    found = run(golden, "bert-golden", dtype, budget, "grad_x_input", reduce=reduce)
    for instance in WITH_GOLDENS:
        expected = golden_numbers("authors")[f"bert-golden/gxi_{reduce}/{instance}"]
        limit = allowed(golden, "bert-golden", dtype, "grad_x_input", reduce=reduce)[instance]
        error = relative_error(scores(found, "grad_x_input", instance), expected)
        assert error < limit + IN_FLOAT32


@pytest.mark.parametrize("target", [0, 1, 2])
def test_grad_x_input_of_a_given_class(golden: LoadTiny, target: int) -> None:
    found = run(golden, "bert-golden", "float64", ALL_AT_ONCE, "grad_x_input", target=target)
    for instance in WITH_GOLDENS:
        expected = golden_numbers("authors")[f"bert-golden/gxi_sum_class{target}/{instance}"]
        assert relative_error(scores(found, "grad_x_input", instance), expected) < IN_FLOAT32


@VARIANTS
def test_integrated_gradients_as_iba_compares_with(
    golden: LoadTiny, dtype: str, budget: int
) -> None:
    numbers = golden_numbers("integrated_gradients")
    model = golden("bert-golden", dtype)
    # The authors give the first [SEP] of a pair to its second text.
    rows = [
        replace(row, token_type_ids=numbers[f"{at}/token_type_ids_used"].tolist())
        for at, row in enumerate(golden_rows()[: len(WITH_GOLDENS)])
    ]
    name = "integrated_gradients"
    chosen = choose(name, {name: {"preset": "iba"}})

    def compute(budget: int = ALL_AT_ONCE) -> list[Attribution]:
        found = attribute(model, encode(model, rows), chosen, token_budget=budget)
        return [row for row in found.rows[name] if row is not None]

    limits = tolerances(model, lambda: [row.scores for row in compute()])
    for instance, (row, limit) in enumerate(zip(compute(budget), limits, strict=True)):
        assert row.delta is not None
        key = f"f{dtype[-2:]}/{instance}"
        assert relative_error(row.scores, numbers[f"{key}/sum"]) < limit
        normal = row.scores / np.linalg.norm(row.scores)
        assert relative_error(normal, numbers[f"{key}/score"]) < limit
        # A sum of the scores less a change of the probability.
        scale = np.abs(row.scores).sum() + 1
        assert row.delta == pytest.approx(numbers[f"{key}/delta"].item(), abs=limit * scale)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rollout_sums_to_one_as_stored(golden: LoadTiny, dtype: str) -> None:
    found = run(golden, "bert-golden", dtype, ALL_AT_ONCE, "attention_rollout")
    for instance in range(8):
        stored = scores(found, "attention_rollout", instance).astype(np.float32)
        # Each of up to 24 shares is rounded when it is stored, and so is each matrix in float32.
        assert stored.sum() == pytest.approx(1, abs=1e-5)
        assert (stored > 0).all()


@VARIANTS
def test_logits(golden: LoadTiny, dtype: str, budget: int) -> None:
    found = run(golden, "bert-golden", dtype, budget, "attention_rollout")
    logits = [prediction.logits for prediction in found.predictions if prediction is not None]
    limits = allowed_in_logits(golden, "bert-golden", dtype)
    fixture = golden_numbers("authors")["bert-golden/fixture_logits"]
    assert relative_error(logits, fixture) < max(limits) + IN_FLOAT32
    for instance in WITH_GOLDENS:
        expected = golden_numbers("authors")[f"bert-golden/logits/{instance}"]
        assert relative_error(logits[instance], expected) < limits[instance]


@BUDGETS
@pytest.mark.parametrize("name", FLOAT32_MODELS)
def test_other_families(golden: LoadTiny, name: str, budget: int) -> None:
    found = run(golden, name, "float32", budget, "raw_attention")
    for instance in WITH_GOLDENS:
        prediction = found.predictions[instance]
        assert prediction is not None
        expected = golden_numbers("authors")[f"{name}/logits/{instance}"]
        limit = allowed_in_logits(golden, name, "float32")[instance]
        assert relative_error(prediction.logits, expected) < limit + IN_FLOAT32
        attention = golden_numbers("authors")[f"{name}/last_layer_cls/{instance}"].mean(axis=0)
        limit = allowed(golden, name, "float32", "raw_attention")[instance]
        error = relative_error(scores(found, "raw_attention", instance), attention)
        assert error < limit + IN_FLOAT32
