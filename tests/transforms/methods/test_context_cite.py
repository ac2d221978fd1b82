"""ContextCite against its authors' code, and the Lasso that it rests on."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray

from attribeam.schemas import UsageError
from attribeam.transforms import EncodeOptions, Instance, Model, Row, attribute, choose, load_model
from attribeam.transforms.inputs.encode import encode_rows
from attribeam.transforms.inputs.kinds import inputs_of
from attribeam.transforms.inputs.variants import Variants
from attribeam.transforms.methods.context_cite import masks
from attribeam.transforms.methods.lasso import lasso
from tests.conftest import LoadTiny
from tests.support.authors import golden_numbers
from tests.support.models import GOLDENS, random_instances

PARAMS = {"samples": 64, "keep": 0.5}
OF_SEGMENTS = choose("context_cite", {"context_cite": {"unit": "segment"}})


@pytest.fixture(scope="module")
def llama() -> Model:
    return load_model(GOLDENS / "llama-golden", dtype="float64")


def questions(model: Model, number: int) -> list[Instance]:
    """Those about a row of the goldens, whose sources are pairs of tokens after the first."""
    (row,) = (
        one
        for one in pq.read_table(GOLDENS / "corpus_lm.parquet").to_pylist()
        if one["id"] == f"golden-{number}"
    )
    given = Row(row["id"], input_ids=row["input_ids"], continuation_ids=row["continuation_ids"])
    found, _ = encode_rows(model, [given], EncodeOptions(64))
    count = golden_numbers("decoders/contextcite_llama")[f"weight/{number}"].size
    kinds = ("sentence",) * count
    return [replace(one, sources=sources_of(len(one), count), source_kinds=kinds) for one in found]


def sources_of(length: int, count: int) -> NDArray[np.int32]:
    places = np.arange(length)
    return np.where((places > 0) & (places <= 2 * count), (places - 1) // 2, -1).astype(np.int32)


@pytest.mark.parametrize("number", [3, 4])
def test_the_authors_design_and_weights(number: int) -> None:
    """Theirs are as near the optimum as scikit-learn's tolerance brings them."""
    goldens = golden_numbers("decoders/contextcite_llama")
    expected, kept = goldens[f"weight/{number}"], goldens[f"masks/{number}"]
    assert (masks(expected.size, 0, PARAMS) == kept).all()
    count = goldens[f"logit_probs/{number}"].shape[1]
    weights, bias = lasso(kept.astype(float), goldens[f"outputs/{number}"] / count, 0.01)
    np.testing.assert_allclose(count * weights, expected, atol=1e-5)
    assert count * bias == pytest.approx(goldens[f"bias/{number}"], abs=1e-5)


@pytest.mark.parametrize("number", [3, 4])
def test_the_authors_ablations(llama: Model, number: int) -> None:
    """Their last source has the token that is read first: here that is never removed."""
    goldens = golden_numbers("decoders/contextcite_llama")
    kept = goldens[f"masks/{number}"]
    rows = np.flatnonzero(kept[:, -1])
    for instance in questions(llama, number):
        assert instance.sources is not None
        variants = Variants(llama.of_all if instance.of_all else llama)
        lost = np.pad(~kept[rows], ((0, 0), (0, 1)))[:, instance.sources]
        numbers = [variants.add(instance, "delete", of) for of in lost]
        variants.run(1000)
        assert not variants.errors
        logits = variants.logits[numbers]
        if instance.of_all:
            expected = goldens[f"outputs_log_prob/{number}"][rows]
            np.testing.assert_allclose(logits[:, 0], expected, rtol=1e-9)
            odds = logits[:, 0] - np.log(-np.expm1(logits[:, 0]))
            np.testing.assert_allclose(odds, goldens[f"outputs/{number}"][rows], rtol=1e-9)
        else:
            log_probs = logits[:, 0] - np.log(np.exp(logits).sum(1))
            odds = log_probs - np.log(-np.expm1(log_probs))
            expected = goldens[f"logit_probs/{number}"][rows, instance.question]
            np.testing.assert_allclose(odds, expected, rtol=1e-7)


def test_scores_by_hand(llama: Model) -> None:
    """Of a row that is cut up and run by transformers, mask by mask."""
    asked = questions(llama, 4)
    (whole,) = (one for one in asked if one.of_all)
    assert whole.continuation is not None and whole.sources is not None
    ids, prompt = whole.continuation.ids, whole.continuation.prompt
    outputs = []
    for kept in masks(3, 0, PARAMS):
        gone = np.append(~kept, [False, False])[np.append(whole.sources, [-1])]
        with torch.no_grad():
            fed = torch.tensor(ids[~gone], dtype=torch.long)[None]
            logits = llama.network(fed).logits[0].log_softmax(-1)
        first = prompt - gone.sum()
        answer = torch.tensor(ids[prompt:], dtype=torch.long)
        log_probs = logits[first - 1 : -1].gather(1, answer[:, None])[:, 0]
        outputs.append([float(log_probs.sum()), *log_probs.tolist()])
    found = attribute(llama, asked, OF_SEGMENTS)
    assert found.failures == []
    order = {None: 0} | {number: number + 1 for number in range(len(ids) - prompt)}
    for instance, row in zip(asked, found.rows["context_cite"], strict=True):
        if instance.question == 0:  # Its last part is the same, and is read at its end.
            assert instance.readout == prompt - 1
        log_prob = np.array(outputs)[:, order[instance.question]]
        count = len(ids) - prompt if instance.of_all else 1
        units = inputs_of(instance).units_of(instance, "segment")
        if units.max() + 1 != 3:
            continue
        odds = log_prob - np.log(-np.expm1(log_prob))
        weights, _ = lasso(masks(3, 0, PARAMS).astype(float), odds / count, 0.01)
        expected = np.append(count * weights, 0)[units]
        assert row is not None and np.abs(expected).max() > 0.1
        # transformers casts to float32 in between.
        np.testing.assert_allclose(row.scores, expected, atol=1e-4)


def test_each_ablation_is_run_once_for_all_tokens(llama: Model, most_rows: list[int]) -> None:
    asked = [one for one in questions(llama, 3) if not one.of_all and one.question]
    asked = [one for one in asked if (inputs_of(one).units_of(one, "segment").max() == 3)]
    assert len(asked) >= 2
    del most_rows[1:]
    attribute(llama, asked, OF_SEGMENTS)
    distinct = np.unique(masks(4, 0, PARAMS), axis=0)
    assert distinct.all(1).any()
    assert sum(most_rows[1:]) == 1 + len(distinct)


def test_what_it_is_not_defined_for(tiny: LoadTiny) -> None:
    model = tiny("bert")
    (failure,) = attribute(model, random_instances(model, [9]), OF_SEGMENTS).failures
    assert "nothing to remove" in failure.message
    for wrong, said in (({"keep": 1.0}, "keep is between"), ({"samples": 1}, "at least 2")):
        with pytest.raises(UsageError, match=said):
            attribute(
                model, random_instances(model, [9]), choose("context_cite", {"context_cite": wrong})
            )


def test_the_lasso_is_the_optimum() -> None:
    """Of each coefficient the slope of the squares balances that of the penalty, or is smaller."""
    random = np.random.default_rng(0)
    features = random.random((40, 6)) < 0.5
    features[:, 5] = True
    targets = features @ np.array([3.0, -2, 0.01, 0, 0.5, 7]) + 0.1 * random.standard_normal(40)
    weights, bias = lasso(features.astype(float), targets, 0.05)
    assert weights[5] == 0 and (weights[[2, 3]] == 0).any() and weights[0] > 2
    left = targets - features @ weights - bias
    assert abs(left.mean()) < 1e-12
    deviation = features.std(0)
    for at in range(5):
        slope = ((features[:, at] - features[:, at].mean()) / deviation[at]) @ left / 40
        if weights[at]:
            assert slope == pytest.approx(0.05 * np.sign(weights[at]), abs=1e-10)
        else:
            assert abs(slope) <= 0.05 + 1e-10
    assert (lasso(features.astype(float), targets, 1e3)[0] == 0).all()


def test_the_lasso_doesnt_know_in_which_order_it_went() -> None:
    """Of nearly as many features as samples descent is slow, and stops before it is there."""
    random = np.random.default_rng(0)
    features = (random.random((20, 21)) < 0.5).astype(float)
    targets = random.standard_normal(20)
    there, back = lasso(features, targets, 0.01)[0], lasso(features[:, ::-1], targets, 0.01)[0]
    assert ((there != 0) == (back[::-1] != 0)).all()
    np.testing.assert_allclose(there, back[::-1], rtol=0, atol=1e-13 * np.abs(there).max())
