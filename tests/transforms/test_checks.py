"""What a check is made of, against captum and a separate randomisation (goldens/README.md)."""

from collections.abc import Sequence
from dataclasses import replace
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from scipy.stats import spearmanr

from attribeam.schemas import UsageError
from attribeam.transforms import Instance, Model, attribute, choose, encode, load_model
from attribeam.transforms import Row as Given
from attribeam.transforms.inputs.noise import input_scales, noised
from attribeam.transforms.inputs.targets import GIVEN
from attribeam.transforms.network.randomised import drawn, parts_of, randomised
from attribeam.transforms.registry import methods
from attribeam.transforms.subsets import Subset, subset_points, subsets_of
from tests.conftest import LoadTiny
from tests.schemas.test_metric_views import select
from tests.support.authors import golden_numbers, golden_rows
from tests.support.models import GOLDENS
from tests.support.sanity import instance as row_of
from tests.support.sanity import tables_of_checks
from tests.support.synthetic_run import Row

EXACT = 1e-10
METHODS = choose(["grad_x_input", "saliency"], {"grad_x_input": {"reduce": "sum"}})
BUDGET = 1024
WITH_GOLDENS = range(5)


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(GOLDENS / "bert-golden", dtype="float64", mask_token_id=4)


@pytest.fixture(scope="module")
def instances(model: Model) -> list[Instance]:
    return encode(model, golden_rows())


def explained(model: Model, instances: Sequence[Instance], target: str = GIVEN) -> dict[str, Row]:
    found = attribute(model, instances, METHODS, target=target)
    assert not found.failures
    return {
        "logits": [each.logits for each in found.predictions if each],
        **{m: [row.scores for row in rows if row] for m, rows in found.rows.items()},
    }


# Randomised weights ------------------------------------------------------------------------------


def test_randomised_parts(model: Model, instances: list[Instance]) -> None:
    golden = golden_numbers("randomised")
    parts = parts_of(model)
    assert [part.name for part in parts] == [str(name) for name in golden["parts"]]
    own = [replace(instances[n], own_target=int(golden[f"{n}_target"])) for n in WITH_GOLDENS]
    before = explained(model, own)
    for stage in range(len(parts)):
        for kind, changed in (("cascading", parts[: stage + 1]), ("independent", [parts[stage]])):
            with randomised(changed, lambda _, old: old.flatten().flip(0).view(old.shape)):
                after = explained(model, own)
            for n in WITH_GOLDENS:
                for name in ("logits", "grad_x_input", "saliency"):
                    expected = golden[f"{n}_{kind}_{name}"][stage]
                    np.testing.assert_allclose(after[name][n], expected, rtol=0, atol=EXACT)
                free = golden[f"{n}_free"]
                found = spearmanr(before["saliency"][n][free], after["saliency"][n][free])
                expected = golden[f"{n}_{kind}_spearman_saliency"][stage]
                assert found.statistic == pytest.approx(expected, abs=1e-9)
    # And all is as it was.
    again = explained(model, own)
    for name, values in before.items():
        for one, other in zip(values, again[name], strict=True):
            np.testing.assert_array_equal(one, other)


def test_weights_depend_on_their_name_and_seed_alone(model: Model) -> None:
    head, *_, embeddings = parts_of(model)
    for weights in ("init", "shuffle"):
        change, other = drawn(model, weights, 0), drawn(model, weights, 1)
        name = "classifier.weight"
        old = head.parameters[name].detach()
        new = change(name, old)
        torch.testing.assert_close(new, drawn(model, weights, 0)(name, old), rtol=0, atol=0)
        assert not torch.equal(new, other(name, old))
    table = embeddings.parameters["bert.embeddings.word_embeddings.weight"].detach()
    found = drawn(model, "shuffle", 0)("words", table)
    assert torch.equal(found.flatten().sort().values, table.flatten().sort().values)
    found = drawn(model, "init", 0)("words", table)
    assert found.std() == pytest.approx(model.encoder.initializer_range, rel=0.05)
    norm = torch.full((8,), 3.0)
    assert drawn(model, "init", 0)("a.LayerNorm.weight", norm).eq(1).all()
    assert drawn(model, "init", 0)("a.bias", norm).eq(0).all()


@pytest.mark.parametrize(
    ("family", "task"),
    [
        *(("albert", "classification"), ("electra", "classification"), ("bert", "masked_lm")),
        *(("gpt2", "classification"), ("modernbert", "classification")),
    ],
)
def test_each_part_of_a_family_matters(tiny: LoadTiny, family: str, task: str) -> None:
    model = tiny(family, task, "float64")
    parts = parts_of(model)
    names = [part.name for part in parts]
    assert names[0] == "head" or task == "masked_lm"
    assert names[-1] == "embeddings"
    every = [id(p) for part in parts for p in part.parameters.values()]
    assert len(every) == len(set(every))
    # A masked LM's words are looked up, and no part of its head.
    known = {id(parameter) for parameter in model.network.parameters()}
    assert known <= set(every)


def test_what_knows_no_class_stays_as_it_is_under_another_head(
    model: Model, instances: list[Instance]
) -> None:
    """To the last bit, of every method; and what looks at no weights whatever becomes of these."""
    known = {name: choose([name])[0] for name in methods()}
    agnostic = [
        choice
        for choice in known.values()
        if choice.method.scored
        and choice.method.opt_in is None
        and not choice.method.class_dependent
        and choice.unfit(model) is None
        and not any(need.sample for need in choice.needs)
    ]
    assert {choice.name for choice in agnostic} > {"random", "globenc", "attention_rollout"}
    parts, own = parts_of(model), instances[:1]
    before = attribute(model, own, agnostic)
    for changed, names in ((parts[:1], [c.name for c in agnostic]), (parts, ["random"])):
        with randomised(changed, drawn(model, "init", 0)):
            after = attribute(model, own, [known[name] for name in names])
        for name in names:
            one, other = before.rows[name][0], after.rows[name][0]
            assert one is not None and other is not None, name
            np.testing.assert_array_equal(one.scores, other.scores, err_msg=name)


# Noise -------------------------------------------------------------------------------------------


def test_noise_as_captum_has_it(model: Model, instances: list[Instance]) -> None:
    golden = golden_numbers("max_sensitivity")
    tables: dict[str, list[Row]] = {"instances": [], "attributions": [], "noised": []}
    for n in (0, 2):
        own = replace(instances[n], own_target=int(golden[f"{n}_target"]))
        copies = [replace(own, noise=noise) for noise in golden[f"{n}_noise"]]
        plain, found = explained(model, [own]), explained(model, copies)
        name = own.instance_id
        tables["instances"].append(row_of(name, len(own) - 2))
        tables["instances"][-1]["special"] = own.special.tolist()
        for method in ("grad_x_input", "saliency"):
            np.testing.assert_allclose(
                plain[method][0], golden[f"{n}_scores_{method}"], rtol=0, atol=EXACT
            )
            noisy = golden[f"{n}_scores_noised_{method}"]
            np.testing.assert_allclose(found[method], noisy, rtol=0, atol=EXACT)
            same = {"instance_id": name, "method": method}
            tables["attributions"].append({**same, "scores": plain[method][0]})
            tables["noised"] += [
                {**same, "sample": k, "scores": scores, "noise_norm": 1.0, "prediction": 0}
                for k, scores in enumerate(found[method])
            ]
    sql = "from sensitivity_by_instance_over(all_tokens := true)"
    rows = select(tables_of_checks(tables), sql)
    assert len(rows) == 4
    for row in rows:
        key = f"{row['instance_id'].removeprefix('golden-')}_max_sensitivity_{row['method']}"
        assert row["largest"] == pytest.approx(float(golden[key]), abs=EXACT)


@pytest.mark.usefixtures("padding_at_will")
def test_noise_of_no_radius_changes_nothing_and_of_some_all(
    model: Model, instances: list[Instance]
) -> None:
    names = ["saliency", "occlusion", "integrated_gradients", "globenc", "lime", "random"]
    methods = choose(names, {"lime": {"samples": 10}, "integrated_gradients": {"steps": 3}})
    before = attribute(model, instances, methods)
    for radius in (0.0, 0.3):
        noisy = [noised(model, one, radius, 0, 0) for one in instances]
        after = attribute(model, noisy, methods)
        alone = attribute(model, noisy[:1], methods)
        assert not after.failures
        for name in names:
            pairs = zip(before.rows[name], after.rows[name], strict=True)
            gaps = [
                np.abs(one.scores - other.scores).max() for one, other in pairs if one and other
            ]
            moved = radius > 0 and name != "random"
            assert (min(gaps) > 1e-6) if moved else (max(gaps) < 1e-12), name
            # Whoever is beside it.
            first, own = after.rows[name][0], alone.rows[name][0]
            assert first is not None and own is not None
            np.testing.assert_allclose(first.scores, own.scores, rtol=0, atol=1e-9)


def test_noise_is_an_instances_own(model: Model, instances: list[Instance]) -> None:
    one, other = (noised(model, instances[0], 0.5, draw, 0).noise for draw in range(2))
    again = noised(model, replace(instances[0], instance_id="x"), 0.5, 0, 0).noise
    assert one is not None and other is not None and again is not None
    assert not np.array_equal(one, other)
    np.testing.assert_array_equal(one, again)
    assert 0.4 < np.abs(one).max() <= 0.5
    scales = input_scales(model, instances, BUDGET)
    np.testing.assert_allclose(scales[:1], input_scales(model, instances[:1], BUDGET))


def test_noise_on_pictures(golden: LoadTiny) -> None:
    model = golden("vit-golden", "float64")
    assert [part.name for part in parts_of(model)][:2] == ["head", "layer.3"]
    rows = pq.read_table(GOLDENS / "corpus_vit.parquet").to_pylist()[:2]
    pictures = encode(model, [Given(r["id"], pixel_values=r["pixel_values"]) for r in rows])
    before = attribute(model, pictures, ["saliency"])
    noisy = [noised(model, one, 0.1, 0, 0) for one in pictures]
    after = attribute(model, noisy, ["saliency"])
    baked = [replace(one, pixels=one.pixels + one.noise, noise=None) for one in noisy]  # type: ignore[attr-defined, call-arg]
    expected = attribute(model, baked, ["saliency"])
    for old, found, own in zip(
        *(x.rows["saliency"] for x in (before, after, expected)), strict=True
    ):
        assert old and found and own
        np.testing.assert_allclose(found.scores, own.scores, rtol=0, atol=1e-12)
        assert np.abs(old.scores - found.scores).max() > 1e-6


# Subsets -----------------------------------------------------------------------------------------


def test_infidelity_as_captum_has_it(model: Model, instances: list[Instance]) -> None:
    golden = golden_numbers("infidelity")
    tables: dict[str, list[Row]] = {"instances": [], "attributions": [], "subsets": []}
    for n in WITH_GOLDENS:
        own, free = instances[n], golden[f"{n}_free"]
        wanted = [Subset("whole", 0, np.zeros(len(own), bool), 0, len(free))]
        for sample, bits in enumerate(golden[f"{n}_removed"]):
            removed = np.zeros(len(own), bool)
            removed[free] = bits
            wanted.append(Subset("random", sample, removed, int(bits.sum()), len(free)))
        (prediction,) = attribute(model, [own], [], target=int(golden[f"{n}_target"])).predictions
        assert prediction is not None
        with mock.patch("attribeam.transforms.subsets.subsets_of", lambda *_: wanted):  # noqa: B023
            (points,), failures = subset_points(
                model,
                [own],
                [prediction],
                scalar="logit",
                operation="mask",
                unit="token",
                samples=60,
                token_budget=BUDGET,
                seed=0,
            )
        assert points is not None and not failures
        drops = [points[0].explained - point.explained for point in points[1:]]
        np.testing.assert_allclose(drops, golden[f"{n}_drop"], rtol=0, atol=EXACT)
        name = own.instance_id
        tables["instances"].append({**row_of(name, 1), "special": own.special.tolist()})
        tables["subsets"] += [{"instance_id": name, **point._asdict()} for point in points]
        for method in ("occlusion", "grad_x_input"):
            scores = np.full(len(own), 99.0)
            scores[free] = golden[f"{n}_{method}"]
            row = {"instance_id": name, "method": method, "scores": scores}
            tables["attributions"].append(row)
    rows = select(tables_of_checks(tables), "from infidelity_by_instance")
    assert len(rows) == 2 * len(WITH_GOLDENS)
    names = {
        "infidelity": "infidelity_{}",
        "infidelity_scaled": "infidelity_{}_normalised",
        "beta": "beta_{}",
        "faithfulness_correlation": "faithfulness_correlation_{}",
    }
    for row in rows:
        for name, key in names.items():
            number = row["instance_id"].removeprefix("golden-")
            expected = float(golden[f"{number}_{key.format(row['method'])}"])
            assert row[name] == pytest.approx(expected, abs=EXACT), name


def test_subsets(model: Model, instances: list[Instance]) -> None:
    one = instances[3]
    found = subsets_of(one, "token", 200, 0)
    count = int(one.removable.sum())
    assert [s.kind for s in found[: count + 1]] == ["whole", *["one"] * count]
    assert not any(s.removed[one.special].any() for s in found)
    assert all(s.removed.sum() == s.size for s in found)
    sizes = [s.size for s in found if s.kind == "random"]
    assert set(sizes) == set(range(1, count + 1))
    again = subsets_of(replace(one, instance_id="other"), "token", 200, 0)
    assert all(np.array_equal(a.removed, b.removed) for a, b in zip(found, again, strict=True))
    other = subsets_of(one, "token", 200, 1)
    assert any(not np.array_equal(a.removed, b.removed) for a, b in zip(found, other, strict=True))


def test_nothing_to_remove_is_a_failure(model: Model, instances: list[Instance]) -> None:
    empty = replace(instances[0], special=np.ones(len(instances[0]), bool))
    predictions = [p for p in attribute(model, [empty, instances[1]], []).predictions if p]
    points, failures = subset_points(
        model,
        [empty, instances[1]],
        predictions,
        scalar="logit",
        operation="mask",
        unit="token",
        samples=2,
        token_budget=BUDGET,
        seed=0,
    )
    assert points[0] is None and points[1] is not None
    assert [failure.stage for failure in failures] == ["perturb"]


def test_closed_networks_have_no_parts(model: Model) -> None:
    closed = replace(model, anatomy=replace(model.anatomy, closed=True))
    with pytest.raises(UsageError, match="no part can be randomised"):
        parts_of(closed)
