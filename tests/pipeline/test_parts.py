"""Parts of a run: what is said of them, what the environment says, and whose a shard is."""

from itertools import product
from typing import Any

import pytest

from attribeam.pipeline.parts import WHOLE, RunPart, check_part, part_of, read_part
from attribeam.schemas import UsageError, UsageTypeError

MOST = 6


@pytest.mark.parametrize("count", range(1, MOST + 1))
@pytest.mark.parametrize("num_shards", [1, 2, 5, 12])
def test_each_shard_is_of_one_part(count: int, num_shards: int) -> None:
    parts = [RunPart(index, count) for index in range(count)]
    assert sorted(s for part in parts for s in part.shards(num_shards)) == list(range(num_shards))
    for shard, part in product(range(num_shards), parts):
        assert part.has(shard) == (shard in part.shards(num_shards))


def test_a_part_has_the_same_shards_of_any_number_of_them() -> None:
    part = RunPart(1, 3)
    assert [*part.shards(4)] == [1] and [*part.shards(5)] == [1, 4] and [*part.shards(1)] == []
    assert [*WHOLE.shards(3)] == [0, 1, 2]


def test_which_parts_have_shards_in_common() -> None:
    every = [RunPart(index, count) for count in range(1, MOST + 1) for index in range(count)]
    for ours, theirs in product(every, every):
        # Of any two of these numbers, 60 is a common multiple.
        common = {*ours.shards(60)} & {*theirs.shards(60)}
        assert ours.overlaps(theirs) == bool(common), (ours, theirs)


@pytest.mark.parametrize(
    ("said", "part"), [("0/1", (0, 1)), ("3/4", (3, 4)), (" 0/16 ", (0, 16)), ("007/8", (7, 8))]
)
def test_a_part_that_is_named(said: str, part: tuple[int, int]) -> None:
    # Whatever the environment says.
    assert read_part(said, slurm(5, 0, 7) | {"JOB_COMPLETION_INDEX": "2"}) == (part, "")
    assert part_of(said) == part
    check_part(said)


def test_no_part_is_the_whole_run() -> None:
    assert part_of(None) == WHOLE
    check_part(None)


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ("", "--part is I/N, auto or auto/N, not "),
        ("4", "--part is I/N, auto or auto/N, not 4"),
        ("1/2/3", "--part is I/N, auto or auto/N, not 1/2/3"),
        ("-1/4", "--part is I/N, auto or auto/N, not -1/4"),
        ("1.0/4", "--part is I/N, auto or auto/N, not 1.0/4"),
        ("٣/٤", "--part is I/N, auto or auto/N, not ٣/٤"),
        ("1/999999999", "--part is I/N, auto or auto/N, not 1/999999999"),
        ("auto/", "--part is I/N, auto or auto/N, not auto/"),
        ("0/auto", "--part is I/N, auto or auto/N, not 0/auto"),
        ("AUTO", "--part is I/N, auto or auto/N, not AUTO"),
        ("0/0", "--part 0/0: a run has one part at least"),
        ("auto/0", "--part auto/0: a run has one part at least"),
        ("4/4", "--part 4/4: parts are counted from 0, so the last one is 3"),
    ],
)
def test_what_is_no_part(said: str, says: str) -> None:
    for read in (check_part, part_of, lambda text: read_part(text, slurm(1, 0, 3))):
        with pytest.raises(UsageError) as caught:
            read(said)
        assert str(caught.value) == says


@pytest.mark.parametrize("said", [3, (0, 4), 0.5])
def test_a_part_is_a_text(said: Any) -> None:
    with pytest.raises(UsageTypeError, match="part is a text such as '0/4', and not a "):
        check_part(said)


# Slurm


def slurm(task: int, first: int, last: int, step: int = 1, **more: Any) -> dict[str, str]:
    """What Slurm sets in a task of an array."""
    values = {"ID": task, "MIN": first, "MAX": last, "STEP": step}
    values |= {"COUNT": (last - first) // step + 1, **more}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


@pytest.mark.parametrize(
    ("array", "tasks"),
    [
        ((0, 3, 1), (0, 1, 2, 3)),
        ((1, 8, 1), range(1, 9)),
        ((7, 7, 1), (7,)),
        ((1, 7, 2), (1, 3, 5, 7)),
        ((0, 10, 5), (0, 5, 10)),
        # Whether the last id or the end of the range is told.
        ((0, 7, 2), (0, 2, 4, 6)),
    ],
)
def test_tasks_of_an_array_are_all_parts(array: tuple[int, int, int], tasks: Any) -> None:
    parts = [read_part("auto", slurm(task, *array))[0] for task in tasks]
    assert parts == [(index, len(tasks)) for index in range(len(tasks))]


def test_what_was_taken_is_told() -> None:
    assert read_part("auto", slurm(5, 1, 7, 2))[1] == (
        "SLURM_ARRAY_TASK_ID=5 of 4 tasks from 1 to 7 by 2"
    )
    assert read_part("auto/4", {"JOB_COMPLETION_INDEX": "3"}) == (
        RunPart(3, 4),
        "JOB_COMPLETION_INDEX=3",
    )


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        # --array=1,2,9, whatever it says of steps.
        (slurm(2, 1, 9, COUNT=3), "no even steps (SLURM_ARRAY_TASK_ID=2, SLURM_ARRAY_TASK_MIN=1"),
        (slurm(2, 1, 9, 4), "no even steps"),
        (slurm(1, 0, 3, COUNT=0), "no even steps"),
        (slurm(1, 0, 3) | {"SLURM_ARRAY_TASK_STEP": "0"}, "no even steps"),
        (slurm(9, 0, 3), "SLURM_ARRAY_TASK_ID=9 is no task of an array from 0 to 3"),
        (slurm(0, 2, 5), "SLURM_ARRAY_TASK_ID=0 is no task of an array from 2 to 5"),
        (slurm(1, 0, 3, ID="x"), "SLURM_ARRAY_TASK_ID is no whole number, but 'x'"),
    ],
)
def test_an_array_that_is_refused(environment: dict[str, str], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_part("auto", environment)
    assert says in str(caught.value)


@pytest.mark.parametrize("name", ["ID", "MIN", "MAX", "STEP", "COUNT"])
def test_what_lacks_of_an_array_is_named(name: str) -> None:
    environment = slurm(1, 0, 3)
    del environment[f"SLURM_ARRAY_TASK_{name}"]
    with pytest.raises(UsageError) as caught:
        read_part("auto", environment)
    message = str(caught.value)
    assert f"(sbatch --array), but SLURM_ARRAY_TASK_{name} isn't set; or name the part" in message


# Kubernetes


@pytest.mark.parametrize(
    ("said", "environment", "says"),
    [
        ("auto/4", {}, "(completionMode: Indexed), but JOB_COMPLETION_INDEX isn't set; or name"),
        ("auto/4", slurm(1, 0, 3), "isn't set; SLURM_ARRAY_TASK_ID is set: of Slurm it is auto;"),
        ("auto", {"JOB_COMPLETION_INDEX": "1"}, "is set: of Kubernetes it is auto/N; or name"),
        ("auto/4", {"JOB_COMPLETION_INDEX": "4"}, "=4, but 4 parts are 0 to 3; N is the job's"),
        ("auto/4", {"JOB_COMPLETION_INDEX": "-1"}, "=-1, but 4 parts are 0 to 3"),
        ("auto/4", {"JOB_COMPLETION_INDEX": ""}, "is no whole number, but ''"),
    ],
)
def test_what_lacks_of_a_pod_is_named(said: str, environment: dict[str, str], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_part(said, environment)
    assert says in str(caught.value)


@pytest.mark.parametrize("said", ["auto", "auto/4"])
def test_nothing_is_taken_from_an_environment_that_is_not_given(said: str) -> None:
    check_part(said)
    with pytest.raises(UsageError, match="isn't set"):
        part_of(said)
