"""Instances, packing and padding."""

from dataclasses import replace
from itertools import pairwise
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attribeam.transforms.inputs.batch import Instance, pack, pack_questions, row_cost
from attribeam.transforms.inputs.kinds import collate
from tests.conftest import LoadTiny
from tests.support.models import random_instance, random_instances

LENGTHS = st.lists(st.integers(1, 600), max_size=30)
BUDGETS = st.integers(1, 5000)
HEAD_SIZES = st.sampled_from([1, 8, 64])


def instance_of(ids: list[int], special: list[bool] | None = None, readout: int = 0) -> Instance:
    """An instance with given ids, of which the first and the last are special."""
    length = len(ids)
    flags = [at in (0, length - 1) for at in range(length)] if special is None else special
    unknown = np.full(length, -1, np.int32)
    return Instance(
        instance_id="one",
        input_ids=np.array(ids, np.int32),
        segment=np.zeros(length, np.int8),
        special=np.array(flags),
        word_ids=unknown,
        char_start=unknown,
        char_end=unknown,
        tokens=tuple(map(str, ids)),
        readout=readout,
    )


# Packing --------------------------------------------------------------------------------------


@given(LENGTHS, BUDGETS, HEAD_SIZES)
def test_every_row_is_packed_once(lengths: list[int], budget: int, head_size: int) -> None:
    batches = list(pack(lengths, budget, head_size))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert all(batches)


@given(LENGTHS, BUDGETS, HEAD_SIZES)
def test_batches_are_within_the_budget(lengths: list[int], budget: int, head_size: int) -> None:
    for batch in pack(lengths, budget, head_size):
        padded = len(batch) * row_cost(max(lengths[index] for index in batch), head_size)
        assert padded <= budget or len(batch) == 1


@given(LENGTHS, BUDGETS, HEAD_SIZES)
def test_batches_are_as_full_as_can_be(lengths: list[int], budget: int, head_size: int) -> None:
    batches = list(pack(lengths, budget, head_size))
    for batch, following in pairwise(batches):
        rows = [lengths[index] for index in (*batch, following[0])]
        full = len(rows) * row_cost(max(rows), head_size) > budget
        assert full or len(rows) * max(rows) > 1.1 * sum(rows)


@given(LENGTHS, BUDGETS, HEAD_SIZES)
def test_padding_is_at_most_a_tenth(lengths: list[int], budget: int, head_size: int) -> None:
    for batch in pack(lengths, budget, head_size):
        rows = [lengths[index] for index in batch]
        assert len(rows) * max(rows) <= 1.1 * sum(rows) + 1e-9


@given(LENGTHS, BUDGETS, HEAD_SIZES)
def test_longer_rows_come_first(lengths: list[int], budget: int, head_size: int) -> None:
    packed = [lengths[index] for batch in pack(lengths, budget, head_size) for index in batch]
    assert packed == sorted(lengths, reverse=True)


@given(LENGTHS, BUDGETS, HEAD_SIZES)
def test_packing_is_a_pure_function(lengths: list[int], budget: int, head_size: int) -> None:
    before = list(lengths)
    first = list(pack(lengths, budget, head_size))
    assert first == list(pack(tuple(lengths), budget, head_size))
    assert lengths == before


def test_packing_by_hand() -> None:
    # A row of 6 tokens costs 6 * (1 + 6 / (6 * 1)) = 12, one of 3 costs 4.5.
    assert row_cost(6, 1) == 12
    assert row_cost(3, 1) == 4.5
    assert list(pack([3, 6, 3, 6, 3], 24, 1)) == [[1, 3], [0, 2, 4]]
    assert list(pack([3, 6, 3, 6, 3], 23, 1)) == [[1], [3], [0, 2, 4]]
    assert list(pack([3, 6, 3, 6, 3], 1, 1)) == [[1], [3], [0], [2], [4]]
    assert list(pack([], 24, 1)) == []


ABOUT = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 300)), min_size=1, max_size=8)


@given(ABOUT, BUDGETS, HEAD_SIZES, st.randoms(use_true_random=False))
def test_questions_about_an_input_are_packed_together(
    about: list[tuple[int, int]], budget: int, head_size: int, random: Random
) -> None:
    """Inputs count as they do alone; each once, if not more is asked of it than it takes itself."""
    asked = [(at, length) for at, (count, length) in enumerate(about) for _ in range(count)]
    random.shuffle(asked)
    lengths, inputs = [length for _, length in asked], [at for at, _ in asked]
    batches = list(pack_questions(lengths, inputs, budget, head_size))
    assert sorted(index for batch in batches for index in batch) == list(range(len(asked)))
    for batch in batches:
        order = [inputs[index] for index in batch]
        distinct = list(dict.fromkeys(order))
        assert order == sorted(order, key=distinct.index)
        longest = max(lengths[index] for index in batch)
        cost = len(distinct) * row_cost(longest, head_size)
        assert cost <= budget or len(distinct) == 1
        further = (len(batch) - len(distinct)) * longest / 32
        assert cost + further <= max(budget, 2 * cost) * (1 + 1e-9)
    for at, (count, length) in enumerate(about):
        if (count - 1) * length / 32 <= row_cost(length, head_size):
            assert sum(at in {inputs[index] for index in batch} for batch in batches) == 1


@given(LENGTHS, BUDGETS, HEAD_SIZES)
def test_one_question_about_each_input_is_packed_as_rows_are(
    lengths: list[int], budget: int, head_size: int
) -> None:
    found = pack_questions(lengths, range(len(lengths)), budget, head_size)
    assert list(found) == list(pack(lengths, budget, head_size))


@given(st.integers(1, 2000), HEAD_SIZES)
def test_a_longer_row_costs_more(length: int, head_size: int) -> None:
    assert row_cost(length, head_size) < row_cost(length + 1, head_size)
    # Attention makes two short rows cheaper than a long one of the same number of tokens.
    assert 2 * row_cost(length, head_size) < row_cost(2 * length, head_size)
    assert row_cost(length, head_size) > row_cost(length, 2 * head_size)


# Instances ------------------------------------------------------------------------------------


def test_removable_tokens_are_neither_special_nor_read_out() -> None:
    assert instance_of([1, 5, 6, 7, 2]).removable.tolist() == [False, True, True, True, False]
    masked = instance_of([1, 5, 4, 7, 2], readout=2)
    assert masked.removable.tolist() == [False, True, False, True, False]
    first = instance_of([4, 5, 6], special=[False, False, False], readout=0)
    assert first.removable.tolist() == [False, True, True]


def test_removable_leaves_the_flags_alone() -> None:
    instance = instance_of([1, 5, 4, 7, 2], readout=2)
    _ = instance.removable
    assert instance.special.tolist() == [True, False, False, False, True]


def test_generator_knows_the_content_alone() -> None:
    instance = instance_of([1, 5, 6, 2])
    renamed = replace(instance, instance_id="two", label=1, split="test", text="other")
    draws = instance.generator(3, "random").random(4)
    assert (draws == instance.generator(3, "random").random(4)).all()
    assert (draws == renamed.generator(3, "random").random(4)).all()


@pytest.mark.parametrize(
    ("ids", "segment", "seed", "purpose"),
    [
        ([1, 5, 7, 2], 0, 3, "random"),
        ([1, 6, 5, 2], 0, 3, "random"),
        ([1, 5, 6, 2, 2], 0, 3, "random"),
        ([1, 5, 6, 2], 1, 3, "random"),
        ([1, 5, 6, 2], 0, 4, "random"),
        ([1, 5, 6, 2], 0, 3, "random order"),
    ],
    ids=["token", "order of tokens", "length", "segment", "seed", "purpose"],
)
def test_generator_depends_on(ids: list[int], segment: int, seed: int, purpose: str) -> None:
    instance = instance_of(ids)
    other = replace(instance, segment=np.full(len(ids), segment, np.int8))
    draws = instance_of([1, 5, 6, 2]).generator(3, "random").random(4)
    assert not np.isin(other.generator(seed, purpose).random(4), draws).any()


def test_generator_is_the_same_for_ever() -> None:
    # Runs are resumed and extended by other processes, on other machines.
    draws = instance_of([1, 5, 6, 2]).generator(0, "random").random(3)
    assert draws.tolist() == [0.8666515436827215, 0.8878446176271428, 0.18166592920797298]


# Padding --------------------------------------------------------------------------------------


def test_collate_pads_to_the_longest(tiny: LoadTiny) -> None:
    model = replace(tiny("bert"), pad_id=9)
    short, long = instance_of([1, 5, 2]), instance_of([1, 6, 7, 8, 2])
    batch = collate(model, [short, long])
    assert batch.rows.inputs["input_ids"].tolist() == [[1, 5, 2, 9, 9], [1, 6, 7, 8, 2]]
    assert batch.rows.attention_mask.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch.rows.inputs["token_type_ids"].tolist() == [[0] * 5] * 2
    assert batch.removable.tolist() == [
        [False, True, False, False, False],
        [False, True, True, True, False],
    ]
    assert batch.lengths == [3, 5]
    assert batch.rows.outputs is None
    assert batch.instances == (short, long)


def test_collate_of_a_masked_lm(tiny: LoadTiny) -> None:
    model = tiny("bert", "masked_lm")
    instances = random_instances(model, [6, 9])
    rows = collate(model, instances).rows
    assert rows.outputs is not None
    assert rows.outputs.tolist() == [list(instance.contrast or ()) for instance in instances]
    assert rows.readout.tolist() == [instance.readout for instance in instances]
    at_readout = rows.inputs["input_ids"][torch.arange(2), rows.readout]
    assert at_readout.tolist() == [model.mask_id] * 2


def test_repeated_rows_follow_one_another(tiny: LoadTiny) -> None:
    model = tiny("bert", "masked_lm")
    instances = [random_instance(model, 7, seed) for seed in (1, 2)]
    rows = collate(model, instances).rows
    thrice = rows.repeated(3)
    given, made = ({**vars(r), **r.inputs, **vars(r.read)} for r in (rows, thrice))
    for name in given.keys() - {"inputs", "read"}:
        tensor, repeated = given[name], made[name]
        if not isinstance(tensor, torch.Tensor):
            assert repeated == tensor
        else:
            assert (repeated == torch.cat([tensor] * 3)).all()
    assert rows.repeated(1) is rows
