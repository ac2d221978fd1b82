"""Adversarial triggers: the authors' inputs, and insertion by hand."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attribeam.transforms import Instance
from attribeam.transforms.passes.trees import HeadFacts, head_facts
from attribeam.transforms.triggers import (
    Trigger,
    attacked,
    inserted,
    select,
    strongest_head,
    text_spans,
    trigger_of,
)
from tests.support.authors import WITH_GOLDENS, golden_numbers, golden_rows

CLS, SEP = 2, 3
# Patterns by number of the instance that they come from, the best first.
ORDER = [2, 1, 0, 5, 4]
MODES = {"thr": False, "all": True}


def instance_of(input_ids: list[int], segment: list[int] | None = None) -> Instance:
    ids = np.array(input_ids, np.int32)
    nowhere = np.full(len(ids), -1, np.int32)
    return Instance(
        "x",
        input_ids=ids,
        segment=np.array(segment or [0] * len(ids), np.int32),
        special=np.isin(ids, (CLS, SEP)),
        word_ids=np.arange(len(ids), dtype=np.int32),
        char_start=nowhere,
        char_end=nowhere,
        tokens=tuple(f"t{number}" for number in input_ids),
        text="some text",
    )


def golden_instances() -> list[Instance]:
    return [
        instance_of(list(row.input_ids or ()), list(row.token_type_ids or ()))
        for row in golden_rows()
    ]


def golden_facts(instance: int) -> HeadFacts:
    numbers = golden_numbers("attattr")
    layers = zip(numbers[f"attr64/{instance}"], numbers[f"att/{instance}"], strict=True)
    facts = [head_facts(*layer) for layer in layers]
    layer, head = strongest_head(facts)
    return facts[layer][head]


def facts(first: tuple[int, int, float], second: tuple[int, int, float] | None = None) -> HeadFacts:
    return HeadFacts(first[2], 0, 0, 0, 0, 0, *first, *(second or (None, None, None)))


def golden_trigger(number: int, *, both: bool) -> Trigger:
    instance = golden_instances()[number]
    if number in WITH_GOLDENS:
        return trigger_of(instance, golden_facts(number), both=both)
    # There are no attributions to instance 5, but the tokens that the authors inserted occur once.
    inputs = golden_numbers("attattr")[f"adv_eval_thr_ids/{ORDER.index(number)}"][0].tolist()
    one, six = (instance.input_ids.tolist().index(token) for token in (inputs[2], inputs[5]))
    assert (one, six) == (1, 6)
    return trigger_of(instance, facts((6, 1, 0.05), (9, 9, 0.045)), both=both)


@pytest.mark.parametrize("number", range(len(ORDER)))
@pytest.mark.parametrize("mode", MODES)
def test_the_authors_inputs(mode: str, number: int) -> None:
    numbers = golden_numbers("attattr")
    trigger = golden_trigger(ORDER[number], both=MODES[mode])
    names = ("ids", "tt", "am")
    authors = [numbers[f"adv_eval_{mode}_{name}/{number}"] for name in names]
    for row, instance in enumerate(golden_instances()):
        found = attacked(instance, trigger, longest=40)
        ones = np.ones(len(found), np.int32)
        for expected, ours in zip(authors, (found.input_ids, found.segment, ones), strict=True):
            # The authors pad to 40 with zeros.
            assert expected[row].tolist() == ours.tolist() + [0] * (40 - len(found))
        assert found.special.tolist() == np.isin(found.input_ids, (CLS, SEP)).tolist()
        assert list(found.tokens) == [f"t{token}" for token in found.input_ids]


def test_the_authors_order() -> None:
    triggers = {number: golden_trigger(number, both=False) for number in WITH_GOLDENS}
    for number, trigger in triggers.items():
        assert trigger.score == golden_numbers("attattr")[f"adv_score/{number}"].sum()
    authors = [number for number in golden_numbers("attattr")["adv_order"] if number in triggers]
    assert select(list(triggers.values())) == [triggers[number] for number in authors]


def test_the_last_is_lost_only_if_none_is_too_small() -> None:
    # The authors have eight candidates, none below 0.02, and seven patterns.
    assert golden_numbers("attattr")["adv_eval_thr_npatterns"] == 7
    some = [Trigger((), (), (), (), (), 0.01 * number) for number in (3, 1, 5, 2)]
    assert [trigger.score for trigger in select(some)] == [0.05, 0.03, 0.02]
    assert select(some, compat=True) == select(some)
    assert [trigger.score for trigger in select(some, least=0, compat=True)] == [0.05, 0.03, 0.02]
    assert select([], compat=True) == select([]) == []


def test_the_strongest_head() -> None:
    low, high = facts((0, 0, 1.0)), facts((0, 0, 2.0))
    assert strongest_head([[low, low], [low, high]]) == (1, 1)
    # Of equals the lower layer, then the lower head.
    assert strongest_head([[low, high], [high, high]]) == (0, 1)
    assert strongest_head([[low, low], [low, low]]) == (0, 0)


PAIR = instance_of([CLS, 10, 11, 12, SEP, 20, 21, SEP], [0, 0, 0, 0, 0, 1, 1, 1])
SINGLE = instance_of([CLS, 30, 31, 32, 33, SEP])


def test_a_trigger_by_hand() -> None:
    trigger = trigger_of(PAIR, facts((2, 6, 0.5), (0, 3, 0.1)))
    assert trigger == Trigger(
        input_ids=(11, 12, 21),
        tokens=("t11", "t12", "t21"),
        segment=(0, 0, 1),
        position=(2, 3, 6),
        relative=(2 / 3, 1, 1),
        score=0.6,
    )


@pytest.mark.parametrize(
    ("first", "second", "both", "expected"),
    [
        # A fifth of the first is enough, less isn't.
        ((1, 2, 0.5), (3, 3, 0.1), False, (10, 11, 12)),
        ((1, 2, 0.5), (3, 3, 0.09), False, (10, 11)),
        ((1, 2, 0.5), (3, 3, 0.09), True, (10, 11, 12)),
        # Special tokens are left out, also if nothing stays.
        ((0, 2, 0.5), (4, 7, 0.4), False, (11,)),
        ((0, 4, 0.5), (7, 7, 0.4), False, ()),
        # Both connections may have a token.
        ((2, 2, 0.5), (2, 1, 0.4), False, (10, 11)),
        # There may be one entry, and there may be no positive one.
        ((1, 1, 0.5), None, True, (10,)),
        ((1, 1, 0.0), (2, 2, 0.0), False, (10,)),
        ((1, 1, -0.1), (2, 2, -0.2), False, (10,)),
    ],
)
def test_which_tokens_are_the_trigger(
    first: tuple[int, int, float],
    second: tuple[int, int, float] | None,
    both: bool,
    expected: tuple[int, ...],
) -> None:
    trigger = trigger_of(PAIR, facts(first, second), both=both)
    assert trigger.input_ids == expected
    assert trigger.score == pytest.approx(first[2] + (second[2] if second else 0))


def put(instance: Instance, *tokens: tuple[int, int, float], longest: int | None = None) -> str:
    """The ids after insertion of tokens (id, text, relative place)."""
    ids, segment, relative = zip(*tokens, strict=True) if tokens else ((), (), ())
    names = tuple(f"t{number}" for number in ids)
    trigger = Trigger(ids, names, segment, (0,) * len(tokens), relative, 1.0)
    return " ".join(map(str, attacked(instance, trigger, longest=longest).input_ids))


def test_insertion_by_hand() -> None:
    assert put(SINGLE) == "2 30 31 32 33 3"
    # round(5 / 5) = 1, not 0.
    assert put(SINGLE, (7, 0, 1 / 5)) == "2 30 7 31 32 33 3"
    assert put(SINGLE, (7, 0, 1.0)) == "2 30 31 32 33 7 3"
    # 2.5 is rounded to 2, 1.5 too.
    assert put(SINGLE, (7, 0, 0.5)) == "2 30 31 7 32 33 3"
    assert put(SINGLE, (7, 0, 0.3)) == "2 30 31 7 32 33 3"
    # With two of them it is round(6 / 2) = 3; the second goes one further.
    assert put(SINGLE, (7, 0, 0.5), (8, 0, 0.5)) == "2 30 31 32 7 8 33 3"
    # Past the end is the end.
    assert put(SINGLE, (7, 0, 1.0), (8, 0, 1.0)) == "2 30 31 32 33 7 8 3"
    # There is no second text.
    assert put(SINGLE, (7, 0, 0.1), (8, 1, 0.5)) == "2 7 30 31 32 33 3"
    # Each text has its own count: round(4 / 3) = 1 and round(3 / 2) = 2.
    assert put(PAIR, (7, 0, 1 / 3), (8, 1, 1 / 2)) == "2 10 7 11 12 3 20 21 8 3"


def test_what_is_too_long_loses_the_end_of_the_longer_text() -> None:
    assert put(SINGLE, (7, 0, 0.0), longest=6) == "2 7 30 31 32 3"
    assert put(SINGLE, (7, 0, 1.0), longest=6) == "2 30 31 32 33 3"
    assert put(PAIR, (7, 0, 0.0), longest=8) == "2 7 10 11 3 20 21 3"
    # Of texts as long as each other, the second.
    assert put(PAIR, (8, 1, 0.0), longest=8) == "2 10 11 12 3 8 20 3"


def test_separators_of_any_kind_stay() -> None:
    # As RoBERTa has them, which has one token type only.
    double = instance_of([CLS, 10, SEP, SEP, 20, 21, SEP], [0, 0, 0, 1, 1, 1, 1])
    assert text_spans(double.segment, double.special) == (range(1, 2), range(4, 6))
    assert put(double, (7, 0, 0.0), (8, 1, 0.0)) == "2 7 10 3 3 8 20 21 3"
    empty = instance_of([CLS, SEP])
    assert put(empty, (7, 0, 0.5)) == "2 3"


def test_the_rest_of_the_instance() -> None:
    rationale = np.array([0, 1, 0, 0, 0, 0, 1, 0], np.int32)
    instance = replace(PAIR, readout=2, rationale=rationale)
    trigger = Trigger((7, 8), ("t7", "t8"), (0, 1), (1, 2), (0.0, 0.1), 1.0)
    found = attacked(instance, trigger)
    assert found.input_ids.tolist() == [2, 7, 10, 11, 12, 3, 8, 20, 21, 3]
    assert found.readout == 3
    assert found.word_ids.tolist() == [0, -1, 1, 2, 3, 4, -1, 5, 6, 7]
    assert found.rationale is not None
    assert found.rationale.tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 1, 0]
    assert (found.text, found.text_pair, found.truncated) == (None, None, False)
    assert {len(array) for array in vars(found).values() if isinstance(array, np.ndarray)} == {10}
    assert attacked(instance, trigger, longest=9).truncated
    with pytest.raises(ValueError, match="readout is beyond 7 tokens"):
        attacked(instance, trigger, longest=7)


@given(seed=st.integers(0, 2**32 - 1))
def test_every_token_stays_in_order(seed: int) -> None:
    random = np.random.default_rng(seed)
    first, second, count = (int(random.integers(*ends)) for ends in ((1, 9), (0, 9), (0, 5)))
    segment = np.repeat([0, 1], [first + 2, second + 1 if second else 0]).astype(np.int32)
    special = np.zeros(len(segment), bool)
    special[[0, first + 1, len(special) - 1]] = True
    home = np.sort(random.integers(0, 2, count)).tolist()
    trigger = Trigger((1,) * count, ("",) * count, tuple(home), (), tuple(random.random(count)), 1)
    places = inserted(trigger, segment, special)
    assert places[places >= 0].tolist() == list(range(len(segment)))
    new = [-1 - place for place in places.tolist() if place < 0]
    assert sorted(new) == [token for token in range(count) if second or home[token] == 0]
