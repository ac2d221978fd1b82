"""Occlusion, LIME and kernel SHAP against loops, exact values, captum and the lime package."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import permutations
from math import factorial
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from captum.attr import FeatureAblation, KernelShap, Occlusion, ShapleyValues
from numpy.typing import NDArray

from attribeam.schemas import UsageError
from attribeam.transforms import (
    Attribution,
    EncodeOptions,
    Instance,
    Model,
    Row,
    attribute,
    choose,
    encode,
)
from attribeam.transforms.inputs.encode import encode_row
from attribeam.transforms.inputs.kinds import collate
from attribeam.transforms.inputs.text.kind import Text
from attribeam.transforms.methods import perturbation
from attribeam.transforms.passes.captured import Captured
from tests.conftest import LoadTiny
from tests.support.models import (
    GOLDENS,
    MAX_LENGTH,
    TASKS,
    plain,
    random_instance,
    random_instances,
    relative_error,
)

pytestmark = pytest.mark.usefixtures("padding_at_will")

METHODS = ("occlusion", "lime", "kernel_shap")
OPERATIONS = ("pad", "mask", "delete")
TEXT = "the film is uninteresting but the actor is very, very goodly and the film not bad"


def rows(
    model: Model,
    instances: Sequence[Instance],
    method: str,
    *,
    target: str | int = "auto",
    token_budget: int = 1000,
    seed: int = 0,
    **params: Any,
) -> list[Attribution]:
    found = attribute(
        model,
        instances,
        choose(method, {method: params}),
        target=target,
        token_budget=token_budget,
        seed=seed,
    )
    assert found.failures == []
    return [cast(Attribution, row) for row in found.rows[method]]


def text_instance(model: Model, text: str = TEXT, **row: Any) -> Instance:
    return encode_row(model, Row("text", text, **row), EncodeOptions(MAX_LENGTH))


def logits_without(
    model: Model, instance: Instance, operation: str, positions: Sequence[int]
) -> torch.Tensor:
    """Logits of one perturbed input, run alone and at full length on a plain transformers model."""
    ids = torch.tensor(instance.input_ids, dtype=torch.long)
    types = torch.tensor(instance.segment, dtype=torch.long)
    mask, readout = torch.ones_like(ids), instance.readout
    gone = torch.zeros(len(instance), dtype=torch.bool)
    gone[list(positions)] = True
    if operation == "delete":
        ids, types, mask = ids[~gone], types[~gone], mask[~gone]
        readout -= int(gone[: instance.readout].sum())
    else:
        ids[gone] = cast(int, model.mask_id if operation == "mask" else model.pad_id)
        if operation == "pad":
            mask[gone] = 0
    extra = {"token_type_ids": types[None]} if model.token_types > 1 else {}
    start = 2 if model.network.config.model_type == "roberta" else 0
    extra["position_ids"] = torch.arange(start, start + len(ids))[None]
    logits = plain(model)(ids[None], attention_mask=mask[None], **extra).logits[0].detach()
    return logits if instance.contrast is None else logits[readout, list(instance.contrast)]


def value(model: Model, logits: torch.Tensor, target: int, output: str) -> float:
    if output == "probability":
        return float(logits.softmax(-1)[target])
    return float(logits[target] - (logits[1 - target] if model.task == "masked_lm" else 0))


def players(instance: Instance, unit: str) -> list[list[int]]:
    """Positions of each token or word that can be removed, by the plain definition."""
    found: dict[tuple[int, ...], list[int]] = {}
    for position in np.flatnonzero(~instance.special).tolist():
        word = (int(instance.word_ids[position]), int(instance.segment[position]))
        found.setdefault((position,) if unit == "token" else word, []).append(position)
    return [positions for positions in found.values() if instance.readout not in positions]


def game(
    model: Model, instance: Instance, target: int, operation: str, unit: str, output: str
) -> tuple[list[list[int]], Callable[[frozenset[int]], float]]:
    """The units of an instance, and what the output is with only some of them present."""
    units = players(instance, unit)

    @cache
    def with_only(present: frozenset[int]) -> float:
        absent = [p for number, unit in enumerate(units) for p in unit if number not in present]
        return value(model, logits_without(model, instance, operation, absent), target, output)

    return units, with_only


# Occlusion ------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["logit", "probability"])
@pytest.mark.parametrize("unit", ["token", "word"])
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(("family", "task"), [("bert", "masked_lm"), ("roberta", "classification")])
def test_occlusion_by_a_loop(
    tiny: LoadTiny, family: str, task: str, operation: str, unit: str, output: str
) -> None:
    model = tiny(family, task, "float64")
    more = {"good": "good", "bad": "dull"} if task == "masked_lm" else {}
    texts = ["a film-[MASK] uninteresting", TEXT + " [MASK]"] if more else ["a film", TEXT]
    instances = [text_instance(model, text, **more) for text in texts]
    found = rows(
        model, instances, "occlusion", target=1, operation=operation, unit=unit, output=output
    )
    for row, instance in zip(found, instances, strict=True):
        units, f = game(model, instance, 1, operation, unit, output)
        everybody = frozenset(range(len(units)))
        expected = np.zeros(len(instance))
        for number, positions in enumerate(units):
            expected[positions] = f(everybody) - f(everybody - {number})
        assert relative_error(row.scores, expected) < 1e-9
        assert row.delta is None
    assert (unit == "word") == any(len(u) > 1 for u in players(instances[1], unit))


class Reference:
    """One instance on a plain transformers model, as captum wants it: pads are hidden."""

    def __init__(self, model: Model, instance: Instance, operation: str) -> None:
        self.model, self.network, self.instance = model, plain(model), instance
        self.operation = operation
        self.ids = torch.tensor(instance.input_ids[None], dtype=torch.long)
        self.units = torch.tensor(Text().units_of(instance, "token")[None])
        baseline = model.pad_id if operation == "pad" else model.mask_id
        self.baseline = self.ids.masked_fill(self.units >= 0, cast(int, baseline))

    def logits(self, ids: torch.Tensor) -> torch.Tensor:
        mask = (ids != self.model.pad_id) if self.operation == "pad" else torch.ones_like(ids)
        types = torch.tensor(self.instance.segment[None], dtype=torch.long).expand_as(ids)
        return self.network(ids, attention_mask=mask.long(), token_type_ids=types).logits  # type: ignore[no-any-return]

    def features(self) -> torch.Tensor:
        """Number of each token's feature; those that don't move share one more."""
        return torch.where(self.units < 0, self.units.max() + 1, self.units)


@pytest.mark.parametrize("operation", ["pad", "mask"])
def test_occlusion_is_captums(tiny: LoadTiny, operation: str) -> None:
    model = tiny("bert", "classification", "float64")
    instances = random_instances(model, [6, 17, 9])
    for row, instance in zip(
        rows(model, instances, "occlusion", operation=operation), instances, strict=True
    ):
        reference = Reference(model, instance, operation)
        more = {"target": row.target, "perturbations_per_eval": 4}
        ablated = FeatureAblation(reference.logits).attribute(
            reference.ids, reference.baseline, feature_mask=reference.features(), **more
        )
        occluded = Occlusion(reference.logits).attribute(
            reference.ids, (1,), baselines=reference.baseline, **more
        )
        for expected in (ablated, occluded):
            assert relative_error(row.scores, expected[0].detach()) < 1e-6


# Kernel SHAP ----------------------------------------------------------------------------------


def exact_shapley(count: int, f: Callable[[frozenset[int]], float]) -> NDArray[np.float64]:
    """Mean of what a player adds, over all orders in which players may come."""
    values = np.zeros(count)
    for order in permutations(range(count)):
        for at, player in enumerate(order):
            before = frozenset(order[:at])
            values[player] += f(before | {player}) - f(before)
    return values / factorial(count)


@pytest.mark.parametrize(
    ("operation", "unit", "output"),
    [("pad", "token", "logit"), ("mask", "word", "probability"), ("delete", "word", "logit")],
)
@pytest.mark.parametrize("task", TASKS)
def test_kernel_shap_of_few_units_is_exact(
    tiny: LoadTiny, task: str, operation: str, unit: str, output: str
) -> None:
    model = tiny("bert", task, "float64")
    more = {"good": "good", "bad": "dull"} if task == "masked_lm" else {}
    mask = "[MASK] " if more else ""
    texts = [mask + "goodly films", mask + "the actor", mask + "unintesting plot is very very bad"]
    instances = [text_instance(model, text, **more) for text in texts]
    found = rows(
        model, instances, "kernel_shap", target=0, operation=operation, unit=unit, output=output
    )
    for row, instance in zip(found, instances, strict=True):
        units, f = game(model, instance, 0, operation, unit, output)
        assert 2 <= len(units) <= 6
        expected = np.zeros(len(instance))
        for positions, phi in zip(units, exact_shapley(len(units), f), strict=True):
            expected[positions] = phi / len(positions)
        assert relative_error(row.scores, expected) < 1e-9
        assert row.delta == pytest.approx(0, abs=1e-12)


def test_kernel_shap_is_captums(tiny: LoadTiny) -> None:
    model = tiny("bert", "classification", "float64")
    instance = random_instance(model, 6)
    row = rows(model, [instance], "kernel_shap")[0]
    reference = Reference(model, instance, "pad")
    more = {"feature_mask": reference.features(), "target": row.target}
    shapley = ShapleyValues(reference.logits).attribute(reference.ids, reference.baseline, **more)
    assert relative_error(row.scores, shapley[0].detach()) < 1e-6
    # Captum draws coalitions of which we take each, by its chance.
    explainer = KernelShap(reference.logits)
    explainer.interpretable_model = LeastSquares()
    torch.manual_seed(0)
    sampled = explainer.attribute(
        reference.ids, reference.baseline, n_samples=1000, perturbations_per_eval=100, **more
    )
    assert relative_error(row.scores, sampled[0].detach()) < 0.1


class LeastSquares:
    """What captum otherwise asks scikit-learn for: weighted least squares with an intercept."""

    def fit(self, data: Any) -> None:
        features, outputs, weights = (column.double() for column in next(iter(data)))
        design = torch.cat([features, torch.ones(len(features), 1)], 1)
        root = weights.sqrt()[:, None]
        self.solution = torch.linalg.lstsq(root * design, root * outputs[:, None]).solution[:, 0]

    def representation(self) -> torch.Tensor:
        return self.solution[:-1].float()


@pytest.mark.parametrize("samples", [5, 64, 65])
@pytest.mark.parametrize("unit", ["token", "word"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernel_shap_sums_to_the_difference(
    tiny: LoadTiny, samples: int, unit: str, dtype: str
) -> None:
    model = tiny("bert", "classification", dtype)
    instances = [text_instance(model), *random_instances(model, [24, 13, 5])]
    found = rows(model, instances, "kernel_shap", samples=samples, unit=unit)
    for row, instance in zip(found, instances, strict=True):
        units, f = game(model, instance, cast(int, row.target), "pad", unit, "logit")
        gain = f(frozenset(range(len(units)))) - f(frozenset())
        tolerance = {"float32": 2e-5, "float64": 1e-10}[dtype]
        assert row.scores.sum() == pytest.approx(gain, abs=tolerance)
        assert row.delta == pytest.approx(row.scores.sum() - gain, abs=tolerance)
        assert len(set(row.scores[np.array([unit[0] for unit in units])])) > 1


def noisy_game(present: NDArray[np.bool_]) -> NDArray[np.float64]:
    """A game of nine players with pairs and triples that matter, [S, 9] to [S]."""
    rng = np.random.default_rng(0)
    single, pairs, triples = (rng.normal(size=(9,) * order) for order in (1, 2, 3))
    z = present.astype(float)
    return (
        z @ single
        + np.einsum("si,sj,ij->s", z, z, pairs)
        + np.einsum("si,sj,sk,ijk->s", z, z, z, triples)
    )


def shapley_of_noisy_game(samples: int, seed: int = 0) -> NDArray[np.float64]:
    present, weights = perturbation.coalitions(9, samples, np.random.default_rng(seed))
    assert present.shape == (min(samples, 510), 9)
    gain = noisy_game(np.ones((1, 9), bool))[0]
    return perturbation.shapley_regression(present, weights, noisy_game(present), gain)


def test_more_coalitions_come_closer_to_the_exact_values() -> None:
    def f(present: frozenset[int]) -> float:
        return float(noisy_game(np.isin(np.arange(9), list(present))[None])[0])

    exact = np.zeros(9)
    for number in range(2**9):
        others = frozenset(i for i in range(9) if number >> i & 1)
        for i in range(9):
            if i not in others:
                weight = factorial(len(others)) * factorial(8 - len(others)) / factorial(9)
                exact[i] += weight * (f(others | {i}) - f(others))
    np.testing.assert_allclose(shapley_of_noisy_game(510), exact, atol=1e-10)

    def error(samples: int) -> float:
        found = [shapley_of_noisy_game(samples, seed) for seed in range(20)]
        return float(np.sqrt(np.mean((np.array(found) - exact) ** 2)))

    # The error falls as one over the root of the samples.
    assert error(500) < 0.75 * error(200) < 0.75**2 * error(80)
    assert error(500) < 0.1 * np.abs(exact).max()


def test_sampled_coalitions_are_unbiased_in_size_and_paired() -> None:
    present, weights = perturbation.coalitions(12, 4001, np.random.default_rng(0))
    assert (weights == 1).all()
    assert (present[:4000:2] == ~present[1:4000:2]).all()
    sizes = np.bincount(present.sum(1), minlength=13)[1:12] / 4001
    kernel = np.array([1 / (k * (12 - k)) for k in range(1, 12)])
    np.testing.assert_allclose(sizes, kernel / kernel.sum(), atol=0.03)
    np.testing.assert_allclose(present.mean(0), 0.5, atol=0.001)


def test_too_few_coalitions_leave_equal_shares_where_they_say_nothing() -> None:
    present = np.array([[True, False, False, False, False, False]])
    found = perturbation.shapley_regression(present, np.ones(1), np.array([4.0]), 6.0)
    np.testing.assert_allclose(found, [4.0, 0.4, 0.4, 0.4, 0.4, 0.4], atol=1e-12)


# LIME -----------------------------------------------------------------------------------------

# Those texts whose local models the goldens hold; in none of them does a word occur twice.
WITH_GOLDENS = (0, 1, 3, 4)


@cache
def lime_package() -> dict[str, NDArray[Any]]:
    with np.load(GOLDENS / "lime.npz") as arrays:
        return dict(arrays)


def golden_instance(model: Model, number: int) -> Instance:
    row = pq.read_table(GOLDENS / "corpus.parquet").to_pylist()[number]
    return encode(model, [Row("golden", input_ids=row["input_ids"])])[0]


@pytest.mark.parametrize("number", WITH_GOLDENS)
def test_limes_local_model(number: int) -> None:
    data, probabilities, distances = (
        lime_package()[f"{number}/{name}"] for name in ("data", "probs", "distances")
    )
    ours = perturbation.cosine_distances(~data)
    np.testing.assert_allclose(ours, distances, atol=1e-9)
    weights = np.sqrt(np.exp(-((ours / 25) ** 2)))
    for name, label in (("label1", 1), ("pred", probabilities[0].argmax())):
        coefficients, intercept = perturbation.weighted_ridge(
            data.astype(float), probabilities[:, label], weights, 1.0
        )
        expected = lime_package()[f"{number}/{name}/coef"]
        assert relative_error(coefficients, expected) < 1e-9
        assert intercept == pytest.approx(lime_package()[f"{number}/{name}/intercept"], abs=1e-10)


@pytest.mark.parametrize("number", WITH_GOLDENS)
def test_limes_scores_given_its_samples(
    golden: LoadTiny, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = golden("bert-golden", "float64")
    instance = golden_instance(model, number)
    data, probabilities = (lime_package()[f"{number}/{name}"] for name in ("data", "probs"))
    features = lime_package()[f"{number}/features"].tolist()
    units = Text().units_of(instance, "bag")
    assert [features[unit] for unit in units[1:-1]] == instance.input_ids[1:-1].tolist()

    batch = collate(model, [instance])
    params = {"operation": "delete", "output": "probability"}
    for label in range(3):
        captured = Captured(model, batch, label, 1000, 0, frozenset())
        found = perturbation.outputs(captured, params, [units], [~data])[0]
        assert np.abs(found - probabilities[:, label]).max() < 1e-7

    monkeypatch.setattr(perturbation, "neighbours", lambda *_: ~data[1:])
    for name, target in (("label1", 1), ("pred", "predicted")):
        row = rows(model, [instance], "lime", target=cast(Any, target))[0]
        expected = np.append(lime_package()[f"{number}/{name}/coef"], 0)[units]
        assert relative_error(row.scores, expected) < 1e-7


def test_lime_by_hand(tiny: LoadTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text with words that occur twice, and the regression as normal equations."""
    model = tiny("bert", "classification", "float64")
    instance = text_instance(model, "the actor, the goodly film is goodly!")
    kept: list[NDArray[np.bool_]] = []
    draw = perturbation.neighbours
    monkeypatch.setattr(
        perturbation, "neighbours", lambda *args: kept.append(draw(*args)) or kept[-1]
    )
    pieces = ["the", "actor", ",", "the", "good", "##ly", "film", "is", "good", "##ly", "!"]
    assert list(instance.tokens[1:-1]) == pieces
    bags = [[1, 4], [2, 3], [5, 6, 9, 10, 11], [7], [8]]
    more: dict[str, Any] = {"output": "logit", "kernel_width": 40.0, "ridge": 0.5, "samples": 30}
    row = rows(model, [instance], "lime", target=2, **more)[0]

    assert kept[0].shape == (29, 5)
    present = np.vstack([np.ones(5), ~kept[0]])
    outputs = []
    for z in present:
        absent = [p for bag, there in zip(bags, z, strict=True) if not there for p in bag]
        outputs.append(value(model, logits_without(model, instance, "delete", absent), 2, "logit"))
    norms = np.linalg.norm(present, axis=1)
    cosine = present.sum(1) / np.where(norms == 0, 1, norms) / np.sqrt(5)
    kernel = np.diag(np.sqrt(np.exp(-((100 * (1 - cosine)) ** 2) / 40**2)))
    design = np.column_stack([present, np.ones(30)])
    penalty = np.diag([0.5] * 5 + [0])
    solution = np.linalg.solve(design.T @ kernel @ design + penalty, design.T @ kernel @ outputs)
    expected = np.zeros(len(instance))
    for bag, weight in zip(bags, solution[:5], strict=True):
        expected[bag] = weight
    assert relative_error(row.scores, expected) < 1e-9


@pytest.mark.parametrize("unit", ["bag", "word", "token"])
def test_what_limes_features_are(tiny: LoadTiny, unit: str) -> None:
    model = tiny("bert", "classification", "float64")
    instance = text_instance(model, "the goodly film is goodly", text_pair="the film")
    scores = rows(model, [instance], "lime", unit=unit)[0].scores
    # [CLS] the good ##ly film is good ##ly [SEP] the film [SEP]
    together = {
        "bag": [(1, 9), (2, 3, 6, 7), (4, 10), (5,)],
        "word": [(1,), (2, 3), (4,), (5,), (6, 7), (9,), (10,)],
        "token": [(1,), (2,), (3,), (4,), (5,), (6,), (7,), (9,), (10,)],
    }[unit]
    assert [len(set(scores[list(tokens)])) for tokens in together] == [1] * len(together)
    assert len({scores[tokens[0]] for tokens in together}) == len(together)
    assert (scores[[0, 8, 11]] == 0).all()


def test_bags_without_a_text(tiny: LoadTiny) -> None:
    instance = text_instance(tiny("bert"), "the goodly film is goodly The", text_pair="(the film")
    # In another case it is another word; by token ids it is the same, but not with a bracket.
    bags = Text().units_of(instance, "bag")
    assert bags.tolist() == [-1, 0, 1, 1, 2, 3, 1, 1, 4, -1, 0, 0, 2, -1]
    unknown = replace(instance, text=None, text_pair=None)
    assert Text().units_of(unknown, "bag").tolist() == [-1, 0, 1, 1, 2, 3, 1, 1, 0, -1, 4, 4, 2, -1]


def test_neighbours_remove_one_to_all_units() -> None:
    removed = perturbation.neighbours(5, 4000, np.random.default_rng(0))
    sizes = np.bincount(removed.sum(1), minlength=6)
    assert sizes[0] == 0
    np.testing.assert_allclose(sizes[1:] / 4000, 0.2, atol=0.03)
    np.testing.assert_allclose(removed.mean(0), 0.6, atol=0.03)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"kernel_width": 0.0}, "kernel_width is more than 0"),
        ({"ridge": -1.0}, "kernel_width is more than 0"),
        ({"samples": 1}, "samples is at least 2"),
    ],
)
def test_lime_refuses_what_has_no_meaning(
    tiny: LoadTiny, params: dict[str, float], message: str
) -> None:
    model = tiny("bert")
    with pytest.raises(UsageError, match=message):
        attribute(model, random_instances(model, [5]), choose("lime", {"lime": params}))


def test_no_ridge_interpolates() -> None:
    features = np.array([[1.0, 1, 1], [0, 1, 1], [1, 0, 1], [0, 0, 1]])
    targets = features @ [2.0, -3.0, 0.0] + 5
    coefficients, intercept = perturbation.weighted_ridge(features, targets, np.ones(4), 0.0)
    np.testing.assert_allclose(coefficients, [2, -3, 0], atol=1e-12)
    assert intercept == pytest.approx(5)


# All three ------------------------------------------------------------------------------------


def few(method: str) -> dict[str, int]:
    return {} if method == "occlusion" else {"samples": 20}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("method", METHODS)
def test_batch_mates_and_budget_do_not_matter(tiny: LoadTiny, method: str, task: str) -> None:
    model = tiny("electra", task, "float64")
    instances = random_instances(model, [5, 11, 23, 11])
    alone = [rows(model, [instance], method, **few(method))[0] for instance in instances]
    for budget in (30, 100_000):
        together = rows(model, instances[::-1], method, token_budget=budget, **few(method))[::-1]
        for row, expected in zip(together, alone, strict=True):
            assert relative_error(row.scores, expected.scores) < 1e-11
            assert (row.delta is None) == (method != "kernel_shap")


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("unit", ["token", "word"])
@pytest.mark.parametrize("method", METHODS)
def test_without_units_there_is_nothing_to_score(
    tiny: LoadTiny, method: str, unit: str, operation: str
) -> None:
    """It is no other instance's fault, and zeros would be said to be scores."""
    for task in TASKS:
        model = tiny("bert", task, "float64")
        first, second, third = random_instances(model, [9, 4, 9])
        bare = replace(second, special=np.ones(4, bool))
        if unit == "word" and task == "masked_lm":
            bare = text_instance(model, "([MASK]!", good="good", bad="dull")
            assert bare.removable.sum() == 2
        chosen = choose(method, {method: {"operation": operation, "unit": unit, **few(method)}})
        found = attribute(model, [first, bare, third], chosen)
        assert [(f.instance_id, f.stage, f.method, f.error) for f in found.failures] == [
            (bare.instance_id, "attribute", method, "NothingToRemoveError")
        ]
        assert found.failures[0].message.startswith("nothing to remove: ")
        alone = rows(model, [first], method, operation=operation, unit=unit, **few(method))[0]
        assert found.rows[method][1] is None
        for row in (found.rows[method][0], found.rows[method][2]):
            assert row is not None and row.scores.any()
        assert relative_error(cast(Attribution, found.rows[method][0]).scores, alone.scores) < 1e-11


def test_bags_of_nothing_are_a_failure(tiny: LoadTiny) -> None:
    model = tiny("bert", "masked_lm")
    bare = text_instance(model, "[MASK]!", good="good", bad="dull")
    found = attribute(model, [bare], "lime")
    assert [failure.error for failure in found.failures] == ["NothingToRemoveError"]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("method", METHODS)
def test_a_single_unit_is_the_whole_difference(tiny: LoadTiny, method: str, operation: str) -> None:
    model = tiny("bert", "classification", "float64")
    instance = random_instance(model, 3)
    row = rows(model, [instance], method, operation=operation, output="logit")[0]
    target = cast(int, row.target)
    gain = sum(
        sign * value(model, logits_without(model, instance, operation, gone), target, "logit")
        for sign, gone in ((1, []), (-1, [1]))
    )
    # LIME fits a line through two points, of which one weighs exp(-8) for each of 99, and shrinks.
    weight = 99 * np.exp(-8)
    weight = weight / (1 + weight)
    expected = gain * (weight / (weight + 1) if method == "lime" else 1)
    assert row.scores[1] == pytest.approx(expected, rel=1e-9)
    assert row.scores[[0, 2]].tolist() == [0, 0]


@pytest.mark.parametrize("method", METHODS)
def test_content_and_seed_decide(tiny: LoadTiny, method: str) -> None:
    model = tiny("bert", "classification", "float64")
    instances = random_instances(model, [15, 14])
    first = rows(model, instances, method, seed=3, **few(method))
    renamed = [replace(instance, instance_id="other", label=None) for instance in instances]
    again = rows(model, renamed, method, seed=3, **few(method))
    other = rows(model, instances, method, seed=4, **few(method))
    for one, same, different in zip(first, again, other, strict=True):
        assert (one.scores == same.scores).all()
        assert (one.scores == different.scores).all() == (method == "occlusion")


@pytest.mark.parametrize("method", METHODS)
def test_the_mask_token_has_to_be_known(golden: LoadTiny, method: str) -> None:
    model = golden("bert-golden")
    instance = golden_instance(model, 0)
    with pytest.raises(UsageError, match="mask"):
        rows(model, [instance], method, operation="mask")
    assert rows(model, [instance], method, operation="pad", **few(method))[0].scores.any()
