"""Perturbed inputs and the curves read from them, against the naive way."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from attribeam.schemas import UsageError
from attribeam.transforms import EncodeOptions, Instance, Model, Row, RowError, attribute
from attribeam.transforms.evaluate import (
    FRACTIONS,
    ORDERS,
    CurvePoint,
    Evaluation,
    Order,
    Point,
    Ranking,
    curves,
    points_of,
    removal_count,
)
from attribeam.transforms.inputs.encode import encode_row, encode_windows
from attribeam.transforms.inputs.kinds import collate
from attribeam.transforms.inputs.seam import Operation
from attribeam.transforms.inputs.text.kind import Text
from attribeam.transforms.inputs.variants import NothingToRemoveError, Variants, WordScore
from tests.conftest import LoadTiny
from tests.support.conditioning import SINGLE
from tests.support.models import (
    FAMILIES,
    MAX_LENGTH,
    OTHERS,
    TASKS,
    plain,
    random_instance,
    random_instances,
    relative_error,
)

pytestmark = pytest.mark.usefixtures("padding_at_will")


NO_LIMIT = 1_000_000
OPERATIONS = Text.operations
# Texts of classifiers have no segments.
EVALUATION_PROTOCOLS = tuple(each for each in Text.protocols if each != "segment")


def points(
    instance: Instance,
    scores: Sequence[float],
    evaluation: Evaluation,
    order: Order,
    seed: int = 0,
    word_score: WordScore = "sum",
) -> dict[float, Point]:
    """The points of one curve by fraction."""
    every = points_of(instance, np.array(scores, float), evaluation, seed, word_score)
    found = {point.fraction: point for point in every if point.order == order}
    assert sum(point.order == order for point in every) == len(found)
    return found


def removed(point: Point) -> list[int]:
    return np.flatnonzero(point.tokens).tolist()


def by_tokens(**changes: Any) -> Evaluation:
    return replace(Evaluation(operations=("mask",)), **changes)


def text_instance(model: Model, text: str, **row: Any) -> Instance:
    return encode_row(model, Row("one", text, **row), EncodeOptions(MAX_LENGTH))


# Which tokens are removed ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fraction", "units", "count"),
    [
        (0.1, 10, 1),
        (0.1, 14, 1),
        (0.1, 15, 2),  # 1.5 is rounded up
        (0.5, 5, 3),  # and 2.5 as well
        (0.29, 50, 15),  # 14.5 too, although 0.29 * 50 is less than that in floats
        (0.3, 10, 3),
        (0.1, 3, 1),  # at least one
        (0.01, 1, 1),
        (0.9, 1, 1),
        (0.9, 3, 3),
        (0.2, 8, 2),
        (0.4, 0, 0),
    ],
)
def test_removal_count(fraction: float, units: int, count: int) -> None:
    assert removal_count(fraction, units) == count


def test_most_and_least_relevant_first_by_hand(tiny: LoadTiny) -> None:
    instance = random_instance(tiny("bert"), 7)
    scores = [9.0, 0.3, -2.0, 0.5, 0.1, 0.4, 8.0]
    evaluation = by_tokens(fractions=(0.2, 0.5, 0.8))
    morf = points(instance, scores, evaluation, "morf")
    assert {fraction: removed(point) for fraction, point in morf.items()} == {
        0.0: [],
        0.2: [3],
        0.5: [1, 3, 5],  # 2.5 of 5
        0.8: [1, 3, 4, 5],
        1.0: [1, 2, 3, 4, 5],
    }
    lerf = points(instance, scores, evaluation, "lerf")
    assert {fraction: removed(point) for fraction, point in lerf.items()} == {
        0.0: [],
        0.2: [2],  # all but the k(0.8) = 4 best
        0.5: [2, 4],  # all but the k(0.5) = 3 best
        0.8: [1, 2, 4, 5],
        1.0: [1, 2, 3, 4, 5],
    }
    assert [point.removed for point in lerf.values()] == [0, 1, 2, 4, 5]


@given(st.integers(1, 30), st.sampled_from(FRACTIONS), st.data())
def test_sufficiency_keeps_what_comprehensiveness_removes(
    tiny: LoadTiny, count: int, fraction: float, data: st.DataObject
) -> None:
    instance = random_instance(tiny("bert"), count + 2)
    scores = data.draw(
        st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), min_size=count + 2, max_size=count + 2)
    )
    evaluation = by_tokens(fractions=(fraction,))
    best = points(instance, scores, evaluation, "morf")[fraction]
    rest = points(instance, scores, evaluation, "lerf")[round(1 - fraction, 9)]
    assert best.removed == removal_count(fraction, count)
    assert best.removed + rest.removed == count
    assert (best.tokens ^ rest.tokens).tolist() == instance.removable.tolist()
    kept = np.array(scores)[instance.removable & ~best.tokens]
    gone = np.array(scores)[best.tokens]
    assert not len(kept) or gone.min() >= kept.max()


def test_ties_go_to_the_earlier_token(tiny: LoadTiny) -> None:
    instance = random_instance(tiny("bert"), 6)
    evaluation = by_tokens(fractions=(0.25, 0.5))
    morf = points(instance, [1.0] * 6, evaluation, "morf")
    assert [removed(morf[fraction]) for fraction in (0.25, 0.5)] == [[1], [1, 2]]
    lerf = points(instance, [1.0] * 6, evaluation, "lerf")
    assert [removed(lerf[fraction]) for fraction in (0.75, 0.5)] == [[2, 3, 4], [3, 4]]


def test_curves_begin_with_nothing_and_end_with_everything(tiny: LoadTiny) -> None:
    instance = random_instance(tiny("bert", "masked_lm"), 12)
    for order in ORDERS:
        curve = points(instance, range(12), by_tokens(), order)
        assert list(curve) == [0.0, *FRACTIONS, 1.0]
        assert removed(curve[0.0]) == []
        assert curve[1.0].tokens.tolist() == instance.removable.tolist()
        sizes = [point.removed for point in curve.values()]
        assert sizes == sorted(sizes)
        for smaller, larger in zip(
            list(curve.values())[:-1], list(curve.values())[1:], strict=True
        ):
            assert not (smaller.tokens & ~larger.tokens).any()


@pytest.mark.parametrize("order", ORDERS)
def test_unit_by_unit(tiny: LoadTiny, order: Order) -> None:
    instance = random_instance(tiny("bert"), 7)
    evaluation = by_tokens(each=True).checked(tiny("bert"))
    assert evaluation.fractions == ()
    curve = points(instance, [0, 5, 3, 4, 1, 2, 9], evaluation, order)
    assert list(curve) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    taken = [point.tokens.tolist() for point in curve.values()]
    firsts = [
        int(np.flatnonzero(np.array(after) & ~np.array(before)).item())
        for before, after in pairwise(taken)
    ]
    assert sorted(firsts) == [1, 2, 3, 4, 5]
    if order != "random":
        assert firsts == ([1, 3, 2, 5, 4] if order == "morf" else [4, 5, 2, 3, 1])


def test_the_random_order_is_the_instances_own(tiny: LoadTiny) -> None:
    instance = random_instance(tiny("bert"), 20)

    def order(scores: Sequence[float], seed: int, which: Instance = instance) -> list[list[int]]:
        return [removed(p) for p in points(which, scores, by_tokens(), "random", seed).values()]

    assert order(range(20), 0) == order([1.0] * 20, 0)
    assert order(range(20), 0) != order(range(20), 1)
    assert order(range(20), 0) == order(range(20), 0, replace(instance, instance_id="other"))


def test_a_point_per_operation(tiny: LoadTiny) -> None:
    instance = random_instance(tiny("bert"), 8)
    evaluation = Evaluation(fractions=(0.5,), orders=("lerf",), operations=OPERATIONS)
    found = points_of(instance, np.arange(8.0), evaluation, 0)
    assert [(p.operation, p.fraction) for p in found] == [
        (operation, fraction) for fraction in (0.0, 0.5, 1.0) for operation in OPERATIONS
    ]


# Words ----------------------------------------------------------------------------------------


def test_words_go_as_a_whole(tiny: LoadTiny) -> None:
    instance = text_instance(tiny("bert"), "the film isn't uninteresting.")
    # [CLS] the film [UNK] ' t un ##interest ##ing . [SEP]
    assert Text().units_of(instance, "word").tolist() == [-1, 0, 1, 2, 2, 2, 3, 3, 3, 3, -1]
    assert Text().units_of(instance, "token").tolist() == [-1, *range(9), -1]
    evaluation = by_tokens(protocol="word", fractions=(0.25, 0.5))
    scores = [99, 0, 3, 1, -5, 4, 2, 2, 2, 2, 99]
    # Words of 0, 3, 0 and 8, of which the first two that are equal come in their order.
    summed = points(instance, scores, evaluation, "morf")
    assert removed(summed[0.25]) == [6, 7, 8, 9]
    assert removed(summed[0.5]) == [2, 6, 7, 8, 9]
    # The largest of its tokens' scores speaks for a word, and its others don't count.
    largest = points(instance, scores, evaluation, "morf", word_score="max")
    assert removed(largest[0.25]) == [3, 4, 5]
    assert removed(largest[0.5]) == [2, 3, 4, 5]
    for curve in (summed, largest):
        assert [point.removed for point in curve.values()] == [0, 1, 2, 4]


def test_words_of_a_pair_are_not_mixed_up(tiny: LoadTiny) -> None:
    instance = text_instance(tiny("bert"), "the film", text_pair="a dull plot")
    units = Text().units_of(instance, "word")
    assert (units >= 0).tolist() == (~instance.special).tolist()
    assert len(set(units[units >= 0])) == 5


@pytest.mark.parametrize("protocol", ["token", "word"])
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_what_is_read_out_stays(tiny: LoadTiny, family: str, protocol: Any) -> None:
    model = tiny(family, "masked_lm")
    mask = model.tokenizer.mask_token  # type: ignore[union-attr]
    instance = text_instance(model, f"the {mask}, is good", good="film", bad="plot")
    assert instance.readout > 0
    scores = np.where(np.arange(len(instance)) == instance.readout, 100.0, 0.0)
    curve = points(instance, scores.tolist(), by_tokens(protocol=protocol), "morf")
    everything = curve[1.0].tokens
    assert not any(point.tokens[instance.readout] for point in curve.values())
    own_word = instance.word_ids == instance.word_ids[instance.readout]
    # The comma is a piece of the [MASK]'s word; as a token of its own it may go.
    assert own_word.sum() > 1
    assert everything[own_word].any() == (protocol == "token")
    assert everything[~own_word & ~instance.special].all()


PLAIN_PIECES = ("the", "goodly", "filmed", "un", "interesting,", "isn't", "bad")


@pytest.mark.parametrize(
    ("family", "task"),
    [
        ("bert", "classification"),
        ("roberta", "classification"),
        ("bert", "masked_lm"),
        ("roberta", "masked_lm"),
    ],
)
@settings(max_examples=30)
@given(data=st.data())
def test_points_are_those_of_the_plain_definition(
    tiny: LoadTiny, family: str, task: str, data: st.DataObject
) -> None:
    """Ties, words of one token and of many, pairs, a [MASK] within a word, windows."""
    model = tiny(family, task)
    words = st.lists(st.sampled_from(PLAIN_PIECES), min_size=1, max_size=6)
    text, more = " ".join(data.draw(words)), {}
    if task == "masked_lm":
        mask = model.tokenizer.mask_token  # type: ignore[union-attr]
        text += data.draw(st.sampled_from([" {}", " {},", " un-{}-ing film", " ({})"])).format(mask)
        more = {"good": 20, "bad": 21}
    pair = " ".join(data.draw(words)) if data.draw(st.booleans()) else None
    row = Row("one", text, pair, **more)
    size = data.draw(st.sampled_from([16, MAX_LENGTH]))
    try:
        windows = encode_windows(model, row, EncodeOptions(size, "stride", 2))
    except RowError:  # Of a pair whose shorter text leaves no room in so short a window.
        reject()
    instance = data.draw(st.sampled_from(windows))
    scores = data.draw(
        st.lists(
            st.sampled_from([-1.5, -0.25, 0.0, 0.5, 2.0]),
            min_size=len(instance),
            max_size=len(instance),
        )
    )
    evaluation = by_tokens(
        protocol=data.draw(st.sampled_from(["token", "word"])),
        fractions=tuple(sorted(data.draw(st.sets(st.sampled_from(FRACTIONS), max_size=4)))),
    )
    word_score: WordScore = data.draw(st.sampled_from(["sum", "max"]))
    wanted = plain_points(instance, scores, evaluation, word_score)
    if not wanted:
        with pytest.raises(NothingToRemoveError, match="nothing to remove"):
            points_of(instance, np.array(scores), evaluation, 0, word_score)
        return
    for order in ("morf", "lerf"):
        found = points(instance, scores, evaluation, order, word_score=word_score)
        assert {f: (p.removed, removed(p)) for f, p in found.items()} == wanted[order]
    by_chance = points(instance, scores, evaluation, "random", word_score=word_score)
    assert {f: p.removed for f, p in by_chance.items()} == {
        fraction: number for fraction, (number, _) in wanted["morf"].items()
    }


def plain_points(
    instance: Instance, scores: Sequence[float], evaluation: Evaluation, word_score: WordScore
) -> dict[str, dict[float, tuple[int, list[int]]]]:
    """By order and fraction the number of units removed, and their tokens; empty without units."""
    units: dict[tuple[int, ...], list[int]] = {}
    own: tuple[int, ...] | None = None
    for at in range(len(instance)):
        word = (int(instance.word_ids[at]), int(instance.segment[at]))
        key = (at,) if evaluation.protocol == "token" else word
        if instance.special[at]:
            continue
        if at == instance.readout:
            own = key
        units.setdefault(key, []).append(at)
    if own is not None:
        del units[own]
    count = len(units)
    if not count:
        return {}
    together = {"sum": sum, "max": max}[word_score]
    value = {key: together(scores[at] for at in tokens) for key, tokens in units.items()}
    best = sorted(units, key=lambda key: (-value[key], units[key][0]))
    curves: dict[str, dict[float, tuple[int, list[int]]]] = {"morf": {}, "lerf": {}}

    def add(order: str, fraction: float, keys: list[tuple[int, ...]]) -> None:
        curves[order][fraction] = len(keys), sorted(at for key in keys for at in units[key])

    for order in curves:
        add(order, 0.0, [])
        add(order, 1.0, best)
    for fraction in evaluation.fractions:
        k = max(1, int(fraction * count + 0.5 + 1e-9))
        add("morf", fraction, best[:k])
        add("lerf", round(1 - fraction, 9), best[k:])
    return curves


# As IBA's authors count -----------------------------------------------------------------------


def test_compat_by_hand(tiny: LoadTiny) -> None:
    instance = random_instance(tiny("bert"), 5)  # three between [CLS] and [SEP]
    scores = [0.5, 0.5, -1.0, 2.0, 0.0]
    evaluation = by_tokens(protocol="compat", fractions=(0.1, 0.2, 0.4, 0.7))
    morf = points(instance, scores, evaluation, "morf")
    # Half a token of five is rounded to none. Position 2 is the last, so it's never come to.
    assert {fraction: (point.removed, removed(point)) for fraction, point in morf.items()} == {
        0.0: (0, []),
        0.1: (0, []),
        0.2: (1, [3]),
        0.4: (2, [1, 3]),
        0.7: (4, [1, 3]),
        1.0: (5, [1, 3]),
    }
    lerf = points(instance, scores, evaluation, "lerf")
    # Upwards the last is position 3. Of [CLS] and position 1, the earlier is first here as well.
    assert [removed(point) for point in lerf.values()] == [[], [], [2], [1, 2], [1, 2], [1, 2]]
    assert {point.units for point in [*morf.values(), *lerf.values()]} == {5}


def test_compat_takes_all_of_the_text_if_a_special_token_is_last(tiny: LoadTiny) -> None:
    instance = random_instance(tiny("bert"), 6)
    evaluation = by_tokens(protocol="compat")
    curve = points(instance, [3, 2, 2, 2, 2, -1], evaluation, "morf")
    assert curve[1.0].tokens.tolist() == instance.removable.tolist()


def test_compat_has_a_random_order_of_its_own(tiny: LoadTiny) -> None:
    instance = random_instance(tiny("bert"), 20)
    evaluation = by_tokens(protocol="compat")
    first, again, other = (
        [removed(p) for p in points(instance, range(20), evaluation, "random", seed).values()]
        for seed in (0, 0, 1)
    )
    assert first == again != other
    for smaller, larger in pairwise(first):
        assert set(smaller) <= set(larger)


# The naive way --------------------------------------------------------------------------------


def naive_logits(
    model: Model, instance: Instance, operation: Operation, tokens: np.ndarray
) -> np.ndarray:
    """Logits of one perturbed input, as one would get them from transformers."""
    ids, segment = instance.input_ids.astype(np.int64), instance.segment.astype(np.int64)
    first = 2 if model.pad_id == 1 else 0
    positions, hidden = np.arange(first, first + len(ids)), np.zeros(len(ids), bool)
    readout = instance.readout
    if operation == "mask":
        ids[tokens] = model.mask_id
    elif operation == "pad":
        ids[tokens] = model.pad_id
        hidden = tokens
    else:
        ids, segment, hidden = ids[~tokens], segment[~tokens], hidden[~tokens]
        positions = np.arange(first, first + len(ids))
        readout -= int(tokens[: instance.readout].sum())
    inputs = {"input_ids": ids, "attention_mask": (~hidden).astype(np.int64)}
    inputs["position_ids"] = positions
    if model.token_types > 1:
        inputs["token_type_ids"] = segment
    with torch.no_grad():
        logits = plain(model)(**{k: torch.tensor(v)[None] for k, v in inputs.items()}).logits[0]
    if model.task == "masked_lm":
        logits = logits[readout, list(instance.contrast or ())]
    return logits.double().numpy()


def check_against_naive(
    model: Model, instance: Instance, evaluation: Evaluation, found: list[CurvePoint], scores: Any
) -> None:
    wanted = points_of(instance, scores, evaluation, 0)
    whole = naive_logits(model, instance, "mask", np.zeros(len(instance), bool))
    of_whole = np.exp(whole - whole.max())
    for row, point in zip(found, wanted, strict=True):
        logits = naive_logits(model, instance, point.operation, point.tokens)
        shares = np.exp(logits - logits.max())
        assert row._fields[:5] == point._fields[:5]
        assert row[:5] == point[:5]
        assert row.units == instance.removable.sum()
        assert row.logit == pytest.approx(logits[1], abs=1e-10)
        assert row.probability == pytest.approx(shares[1] / shares.sum(), abs=1e-10)
        assert row.prediction == logits.argmax()
        assert row.flipped == (logits.argmax() != whole.argmax())
        # As ERASER's code has them.
        assert row.entropy == pytest.approx(entropy(shares), abs=1e-10)
        assert row.kl == pytest.approx(entropy(shares, of_whole), abs=1e-10)
        assert point.removed or row.kl == 0


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_curves_equal_the_naive_way(
    tiny: LoadTiny, family: str, task: str, operation: Operation
) -> None:
    model = tiny(family, task, "float64")
    instances = random_instances(model, [5, 13, 9])
    evaluation = Evaluation(fractions=(0.3, 0.6), operations=(operation,))
    scores = [np.random.default_rng(len(i)).normal(size=len(i)) for i in instances]
    rankings = [Ranking(i, "any", s, target=1) for i, s in zip(instances, scores, strict=True)]
    found, failures = curves(model, rankings, evaluation, token_budget=60)
    assert failures == []
    for instance, own, rows in zip(instances, scores, found, strict=True):
        assert rows is not None
        check_against_naive(model, instance, evaluation, rows, own)


def test_nothing_removed_is_the_prediction(tiny: LoadTiny) -> None:
    model = tiny("electra", "classification", "float64")
    instances = random_instances(model, [6, 10])
    predictions = attribute(model, instances, "random").predictions
    rankings = [Ranking(i, "any", np.arange(len(i)), target=2) for i in instances]
    found, _ = curves(model, rankings, Evaluation(operations=OPERATIONS), token_budget=100)
    for rows, prediction in zip(found, predictions, strict=True):
        assert rows is not None and prediction is not None
        starts = [row for row in rows if row.fraction == 0]
        assert len(starts) == len(ORDERS) * len(OPERATIONS)
        for row in starts:
            assert row.logit == pytest.approx(prediction.logits[2], abs=1e-12)
            assert row.probability == pytest.approx(prediction.probabilities[2], abs=1e-12)
            assert (row.prediction, row.removed) == (prediction.predicted, 0)


# Sharing and independence ---------------------------------------------------------------------


@pytest.fixture
def rows_run(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Ids of every row that is put through a model, padding included."""
    seen: list[tuple[int, ...]] = []
    original = Model.run

    def counting(self: Model, rows: Any, **more: Any) -> Any:
        seen.extend(tuple(row) for row in rows.inputs["input_ids"].tolist())
        return original(self, rows, **more)

    monkeypatch.setattr(Model, "run", counting)
    return seen


def rankings_of(
    instances: Sequence[Instance], methods: Sequence[str], **ties: Any
) -> list[Ranking]:
    """A ranking per method and instance, random but the same each time."""
    return [
        Ranking(i, method, np.random.default_rng([len(i), number]).normal(size=len(i)), target=0)
        for number, method in enumerate(methods)
        for i in instances
    ]


def test_identical_inputs_are_run_once(tiny: LoadTiny, rows_run: list[tuple[int, ...]]) -> None:
    model = tiny("bert")
    instances = random_instances(model, [6, 9, 6])
    rankings = rankings_of(instances, ["one", "two"])
    rankings += [replace(ranking, method="like one") for ranking in rankings[:3]]
    evaluation = Evaluation(fractions=(0.2, 0.5), operations=OPERATIONS)
    curves(model, rankings, evaluation, token_budget=NO_LIMIT)
    distinct, asked = set(), 0
    for ranking in rankings:
        for point in points_of(ranking.instance, ranking.scores, evaluation, 0):
            operation = point.operation if point.removed else "none"
            distinct.add((ranking.instance.instance_id, operation, point.tokens.tobytes()))
            asked += 1
    assert len(rows_run) == len(distinct)
    assert asked > 2 * len(distinct)


def test_hidden_tokens_are_left_out(tiny: LoadTiny, rows_run: list[tuple[int, ...]]) -> None:
    model = tiny("bert")
    rankings = rankings_of(random_instances(model, [12]), ["one"])
    evaluation = Evaluation(fractions=(0.5,), orders=("morf",), operations=("pad", "delete"))
    curves(model, rankings, evaluation, token_budget=1)
    assert sorted(map(len, rows_run)) == [2, 2, 7, 7, 12]


def close(
    found: list[CurvePoint] | None, expected: list[CurvePoint] | None, tolerance: float = 1e-11
) -> None:
    assert found is not None and expected is not None
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.probability == pytest.approx(theirs.probability, abs=tolerance)
        assert ours.logit == pytest.approx(theirs.logit, abs=tolerance)
        assert ours.entropy == pytest.approx(theirs.entropy, abs=tolerance)
        assert ours.kl == pytest.approx(theirs.kl, abs=tolerance)
        alike = {name: getattr(ours, name) for name in ("probability", "logit", "entropy", "kl")}
        assert ours == theirs._replace(**alike)


@pytest.mark.parametrize("task", TASKS)
@given(data=st.data())
def test_company_and_budget_do_not_matter(tiny: LoadTiny, task: str, data: st.DataObject) -> None:
    model = tiny("roberta", task, "float64")
    lengths = data.draw(st.lists(st.integers(4, 14), min_size=1, max_size=4))
    rankings = rankings_of(random_instances(model, lengths), ["one", "two"])
    order = data.draw(st.permutations(range(len(rankings))))
    budget = data.draw(st.integers(1, 300))
    evaluation = Evaluation(
        fractions=(0.4,),
        operations=OPERATIONS,
        protocol=data.draw(st.sampled_from(EVALUATION_PROTOCOLS)),
    )
    shuffled = [rankings[number] for number in order]
    together, failures = curves(model, shuffled, evaluation, token_budget=budget)
    assert failures == []
    for position, number in enumerate(order):
        alone, _ = curves(model, [rankings[number]], evaluation, token_budget=NO_LIMIT)
        close(together[position], alone[0])


# Failures -------------------------------------------------------------------------------------


@pytest.fixture
def sick_id(monkeypatch: pytest.MonkeyPatch) -> int:
    """A token that makes the logits of any row that holds it NaN."""
    token, original = 20, Model.run

    def run(self: Model, rows: Any, **more: Any) -> Any:
        logits, recorder = original(self, rows, **more)
        sick = (rows.inputs["input_ids"] == token).any(dim=1)
        return logits.masked_fill(sick[:, None], torch.nan), recorder

    monkeypatch.setattr(Model, "run", run)
    return token


def with_token(instance: Instance, position: int, token: int) -> Instance:
    ids = np.where(instance.input_ids == token, token + 1, instance.input_ids).astype(np.int32)
    if position:
        ids[position] = token
    return replace(instance, input_ids=ids)


def test_logits_that_are_no_numbers_are_failures(tiny: LoadTiny, sick_id: int) -> None:
    model = tiny("bert")
    first, second, third = random_instances(model, [8, 8, 11])
    instances = [with_token(first, 0, sick_id), with_token(second, 3, sick_id)]
    instances.append(with_token(third, 0, sick_id))
    rankings = rankings_of(instances, ["one", "two"])
    found, failures = curves(
        model, rankings, Evaluation(fractions=(0.5,)).checked(model), token_budget=500
    )
    assert [rows is None for rows in found] == [False, True, False] * 2
    assert [(f.instance_id, f.stage, f.method) for f in failures] == [
        (second.instance_id, "perturb", "one"),
        (second.instance_id, "perturb", "two"),
    ]
    assert all(
        (f.error, f.message) == ("ArithmeticError", "the logits are not finite") for f in failures
    )


@pytest.mark.parametrize("protocol", EVALUATION_PROTOCOLS)
def test_nothing_to_remove_is_a_failure(tiny: LoadTiny, protocol: Any) -> None:
    model = tiny("bert", "masked_lm", "float64")
    first, second, third = random_instances(model, [8, 4, 11])
    bare = replace(second, special=np.ones(4, bool))
    if protocol == "word":
        bare = text_instance(model, "[MASK]!", good="good", bad="bad")
    rankings = rankings_of([first, bare, third], ["one", "two"])
    evaluation = Evaluation(operations=OPERATIONS, protocol=protocol)
    found, failures = curves(model, rankings, evaluation, token_budget=500)
    assert [rows is None for rows in found] == [False, True, False] * 2
    assert [(f.instance_id, f.stage, f.method, f.error) for f in failures] == [
        (bare.instance_id, "perturb", method, "NothingToRemoveError") for method in ("one", "two")
    ]
    alone, _ = curves(model, rankings[:1], evaluation, token_budget=NO_LIMIT)
    close(found[0], alone[0])


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.arange(8) * np.nan, "the scores are not finite"),
        (np.append(np.arange(7.0), -np.inf), "the scores are not finite"),
        (np.arange(7.0), "7 scores for an instance of 8 tokens"),
    ],
)
def test_scores_that_rank_nothing_are_a_failure(
    tiny: LoadTiny, scores: np.ndarray, message: str
) -> None:
    model = tiny("bert")
    first, second = random_instances(model, [8, 8])
    rankings = [Ranking(first, "one", scores, 0), *rankings_of([second], ["one"])]
    found, failures = curves(
        model, rankings, Evaluation(fractions=(0.5,)).checked(model), token_budget=500
    )
    assert [rows is None for rows in found] == [True, False]
    assert [(f.instance_id, f.stage, f.message) for f in failures] == [
        (first.instance_id, "perturb", message)
    ]


def test_a_row_that_breaks_the_model_is_one_failure(
    tiny: LoadTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, original = tiny("bert"), Model.run

    def run(self: Model, rows: Any, **more: Any) -> Any:
        if (rows.attention_mask.sum(1) == 9).any():
            raise ValueError("nine is unlucky")
        return original(self, rows, **more)

    rankings = rankings_of(random_instances(model, [8, 9, 11]), ["one"])
    evaluation = Evaluation(fractions=(0.5,), operations=("mask",))
    expected, _ = curves(model, rankings, evaluation, token_budget=NO_LIMIT)
    monkeypatch.setattr(Model, "run", run)
    found, failures = curves(model, rankings, evaluation, token_budget=NO_LIMIT)
    assert found[1] is None
    for number in (0, 2):
        close(found[number], expected[number], SINGLE)
    assert [(f.instance_id, f.error, f.message) for f in failures] == [
        ("random-1", "ValueError", "nine is unlucky")
    ]


def test_out_of_memory_halves_the_batch(tiny: LoadTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    model, original = tiny("bert", "classification", "float64"), Model.run
    rankings = rankings_of(random_instances(model, [8, 9, 11]), ["one", "two"])
    evaluation = Evaluation(operations=OPERATIONS)
    expected, _ = curves(model, rankings, evaluation, token_budget=NO_LIMIT)

    def run(self: Model, rows: Any, **more: Any) -> Any:
        if len(rows) > 7:
            raise torch.OutOfMemoryError("fake")
        return original(self, rows, **more)

    monkeypatch.setattr(Model, "run", run)
    found, failures = curves(model, rankings, evaluation, token_budget=NO_LIMIT)
    assert failures == []
    for ours, theirs in zip(found, expected, strict=True):
        close(ours, theirs)


# Settings -------------------------------------------------------------------------------------


def test_default_operations(tiny: LoadTiny, golden: LoadTiny) -> None:
    assert Evaluation().checked(tiny("bert")).operations == ("mask",)
    assert Evaluation().checked(golden("bert-golden")).operations == ("pad",)
    assert Evaluation(operations=("delete",)).checked(tiny("bert")).operations == ("delete",)


def test_what_is_named_twice_is_done_once(tiny: LoadTiny) -> None:
    # A second row for the same point would count twice in every summary.
    settings = Evaluation((0.5, 0.2, 0.5), ("lerf", "morf", "lerf"), ("pad", "mask", "pad"))
    checked = settings.checked(tiny("bert"))
    assert checked == Evaluation((0.2, 0.5), ("lerf", "morf"), ("pad", "mask"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"orders": ("best",)}, "--orders: there is no 'best'; there are morf, lerf, random"),
        ({"orders": ()}, "--orders: none was given"),
        ({"operations": ("mask", "blur")}, "--operations: there is no 'blur'"),
        ({"protocol": "sentence"}, "--units: there is no 'sentence'"),
        ({"fractions": (0.5, 1.5)}, "--fractions"),
        ({"fractions": (0.0,)}, "--fractions"),
        ({"fractions": (1.0,)}, "--fractions"),
        ({"fractions": (float("nan"),)}, "--fractions"),
        ({"fractions": (0.5, 0.5 + 1e-11)}, "--fractions are at least 1e-9 apart"),
        ({"fractions": (1e-11,)}, "--fractions are at least 1e-9 apart"),
        ({"each": True, "fractions": (0.5,)}, "each removes every number of units: name no"),
        ({"each": True, "protocol": "compat"}, "--fractions each: --units compat counts shares"),
    ],
)
def test_settings_that_are_refused(tiny: LoadTiny, settings: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Evaluation(**settings).checked(tiny("bert"))


def test_masking_needs_the_mask_token(golden: LoadTiny) -> None:
    with pytest.raises(UsageError, match="--mask-token-id"):
        Evaluation(operations=("mask",)).checked(golden("bert-golden"))


@pytest.mark.parametrize("family", [*FAMILIES, *OTHERS])
def test_what_is_padded_away_is_what_a_mask_hides(tiny: LoadTiny, family: str) -> None:
    """Whether such tokens are left out of the row or hidden in it, transformers sees no others."""
    model = tiny(family, "classification", "float64")
    instances = random_instances(model, [9, 14])
    variants, masks = Variants(model), []
    for instance in instances:
        removed = np.zeros(len(instance), bool)
        removed[np.flatnonzero(instance.removable)[1::3]] = True
        variants.add(instance, "pad", removed)
        masks.append(~removed)
    variants.run(10_000)
    assert variants.errors == {}
    for instance, mask, logits in zip(instances, masks, variants.logits, strict=True):
        rows = collate(model, [instance]).rows
        hidden = replace(rows, attention_mask=torch.tensor(mask[None], dtype=torch.long))
        # Some families compute more of this in float32 than attribeam does.
        assert relative_error(logits, model.run_whole(hidden)[0]) < 1e-9
