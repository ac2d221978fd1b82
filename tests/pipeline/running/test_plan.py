"""What is left to do, from the files that are there."""

from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attribeam.pipeline.parts import RunPart
from attribeam.pipeline.running.missing import Task, plan, units_of_run
from attribeam.pipeline.store import files as store
from attribeam.pipeline.store.damage import sorted_out, sweep
from attribeam.pipeline.store.files import Stamp
from attribeam.pipeline.store.records import write_index
from attribeam.pipeline.store.there import There
from attribeam.schemas import Unit, failures_path, parse_unit_path, unit_path
from attribeam.schemas.index import INDEX, Entry
from attribeam.schemas.layout import Place, parse_failures_path, shards_path
from tests.support.tiny import files

SCORED = ("attributions", "curves")
UNITS = units_of_run({"b": SCORED, "a": SCORED})


def test_units_are_in_the_order_of_their_dependence() -> None:
    assert [
        Unit("instances"),
        Unit("attributions", "b"),
        Unit("attributions", "a"),
        Unit("curves", "b"),
        Unit("curves", "a"),
    ] == UNITS
    assert units_of_run({"b": SCORED, "a": (*SCORED, "layers")}) == [
        *UNITS[:3],
        Unit("layers", "a"),
        *UNITS[3:],
    ]
    assert units_of_run({"a": ("attributions",)}) == [Unit("instances"), Unit("attributions", "a")]


def planned(
    units: list[Unit],
    num_shards: int,
    paths: list[str],
    again: dict[tuple[Unit, int], Stamp | None] | None = None,
) -> list[Task]:
    """The tasks of a run of which these files are there."""
    return plan(units, There(num_shards, paths), again)


def test_at_first_everything_is_missing() -> None:
    assert planned(UNITS, 2, []) == [Task(0, 2, tuple(UNITS)), Task(1, 2, tuple(UNITS))]


def test_what_is_there_is_not_planned() -> None:
    done = [unit_path(unit, 0, 3) for unit in UNITS]
    done += [unit_path(unit, 2, 3) for unit in UNITS[1:4]]
    assert planned(UNITS, 3, done) == [
        Task(1, 3, tuple(UNITS)),
        Task(2, 3, (UNITS[0], UNITS[4])),
    ]


def test_nothing_is_left_when_all_is_there() -> None:
    assert (
        planned(UNITS, 2, [unit_path(unit, shard, 2) for unit in UNITS for shard in (0, 1)]) == []
    )


def test_another_method_is_all_that_is_planned() -> None:
    done = [unit_path(unit, 0, 1) for unit in UNITS]
    assert planned(units_of_run(dict.fromkeys("acb", SCORED)), 1, done) == [
        Task(0, 1, (Unit("attributions", "c"), Unit("curves", "c")))
    ]


def test_layers_are_all_that_is_planned_of_a_run_that_lacks_only_them() -> None:
    done = [unit_path(unit, shard, 2) for unit in UNITS for shard in range(2)]
    done.append(unit_path(Unit("layers", "b"), 0, 2))
    units = units_of_run(dict.fromkeys("ba", (*SCORED, "layers")))
    assert planned(units, 2, done) == [
        Task(0, 2, (Unit("layers", "a"),)),
        Task(1, 2, (Unit("layers", "b"), Unit("layers", "a"))),
    ]
    # Without --layers they are left as they are.
    assert planned(UNITS, 2, done) == []


@pytest.mark.parametrize(
    "path",
    [
        unit_path(Unit("instances"), 0, 2),  # of another shard count
        failures_path(Unit("instances"), 0, 1),
        "instances/shard-00000-of-00001.parquet.0a.tmp",
        "instances/shard-0-of-1.parquet",
        "instances/more/shard-00000-of-00001.parquet",
        "instances/part-0.parquet",
        "instances/shard-00000-of-00001.parquet.bak",
        "shard-00000-of-00001.parquet",
        "corpus/rows-00000.parquet",
        "run.json",
        "attributions/shard-00000-of-00001.parquet",
        "attributions/method=c/shard-00000-of-00001.parquet",
    ],
)
def test_files_of_others_are_not_taken_for_units(path: str) -> None:
    assert planned(UNITS, 1, [path]) == [Task(0, 1, tuple(UNITS))]


NAME = st.text("abcdefghijklmnopqrstuvwxyz_0123456789", min_size=1, max_size=8)
UNIT = st.one_of(
    st.just(Unit("instances")),
    st.builds(Unit, st.sampled_from(["attributions", "layers", "curves"]), NAME),
)


@given(unit=UNIT, shard=st.integers(0, 200_000), extra=st.integers(1, 200_000))
def test_a_path_is_read_as_it_was_written(unit: Unit, shard: int, extra: int) -> None:
    path = unit_path(unit, shard, shard + extra)
    assert parse_unit_path(path) == Place.of(unit, shard, shard + extra)
    assert parse_failures_path(path) is None
    failures = failures_path(unit, shard, shard + extra)
    assert parse_failures_path(failures) == Place.of(unit, shard, shard + extra)
    assert parse_unit_path(failures) is None


@given(unit=UNIT, first=st.integers(0, 200_000), more=st.integers(1, 99), rest=st.integers(1, 99))
def test_a_path_of_several_shards_is_read_as_it_was_written(
    unit: Unit, first: int, more: int, rest: int
) -> None:
    place = Place(unit, range(first, first + more + 1), first + more + rest)
    assert place.joined
    assert parse_unit_path(shards_path(place)) == place
    assert parse_failures_path(shards_path(place, failures=True)) == place
    assert parse_unit_path(shards_path(place, failures=True)) is None


@pytest.mark.parametrize("name", ["00002..00002", "00003..00002", "..00002", "00001.00002"])
def test_what_is_no_range_of_shards_is_no_file_of_a_run(name: str) -> None:
    assert parse_unit_path(f"instances/shard-{name}-of-00005.parquet") is None


def test_shards_of_a_file_of_several_are_there() -> None:
    unit = Unit("attributions", "saliency")
    joined = shards_path(Place(unit, range(1, 4), 5))
    done = [joined, unit_path(unit, 4, 5), shards_path(Place(unit, range(5), 6))]
    assert planned([unit], 5, done) == [Task(0, 5, (unit,))]
    assert planned([Unit("attributions", "other")], 1, [joined]) == [
        Task(0, 1, (Unit("attributions", "other"),))
    ]


@given(
    names=st.lists(NAME, min_size=1, max_size=4, unique=True),
    num_shards=st.integers(1, 6),
    seed=st.randoms(use_true_random=False),
)
def test_planned_and_done_are_everything_once(
    names: list[str], num_shards: int, seed: Random
) -> None:
    units = units_of_run(dict.fromkeys(names, SCORED))
    everything = [(unit, shard) for shard in range(num_shards) for unit in units]
    done = [pair for pair in everything if seed.random() < 0.5]
    paths = [unit_path(unit, shard, num_shards) for unit, shard in done]
    seed.shuffle(paths)
    tasks = planned(units, num_shards, paths)
    found = [(unit, task.shard) for task in tasks for unit in task.units]
    assert found == [pair for pair in everything if pair not in done]
    assert all(task.units for task in tasks)


FOOTER = b"PAR1 content" + (4).to_bytes(4, "little") + b"PAR1"


def put(folder: Path, path: str, content: bytes = FOOTER) -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(content)


def test_sweeping_removes_what_is_half_written_and_nothing_else(tmp_path: Path) -> None:
    keep = {"run.json", "instances/shard-00000-of-00001.parquet", "notes/a.tmp.txt", "tmp/x"}
    half = {"run.json.0a1b.tmp", "curves/method=a/shard-00000-of-00001.parquet.9f.tmp"}
    for name in keep | half:
        put(tmp_path, name)
    swept = sweep(str(tmp_path), 1)
    assert (swept.there.tables(Unit("instances")), swept.damaged) == (b"\1", [])
    assert files(tmp_path) == keep


@pytest.mark.parametrize(
    "content",
    [
        b"",
        FOOTER[:-1],
        FOOTER[:8],
        FOOTER[: -len(FOOTER) // 2],
        b"\0" * 1000,
        (9999).to_bytes(4, "little") + b"PAR1",  # A footer longer than the file.
    ],
)
def test_sweeping_finds_tables_that_are_cut_short(content: bytes, tmp_path: Path) -> None:
    """It leaves them where they are, until they are replaced."""
    unit = Unit("attributions", "a")
    cut, whole = unit_path(unit, 0, 2), unit_path(unit, 1, 2)
    others = {"mine.parquet", "pruning/a.parquet", "instances/shard-0.parquet"}
    for path in (cut, *others):
        put(tmp_path, path, content)
    put(tmp_path, whole)
    swept = sweep(str(tmp_path), 2)
    assert swept.damaged == [cut]
    assert swept.there.tables(unit) == b"\0\1"
    assert files(tmp_path) == {cut, whole, *others}


def test_it_is_told_whose_damaged_files_are() -> None:
    unit = Unit("curves", "a_b")
    own = [unit_path(unit, 0, 2), failures_path(unit, 0, 2), failures_path(Unit("instances"), 1, 2)]
    others = ["corpus/rows-00003.parquet", "statistics/sample-00010.parquet"]
    strays = [
        unit_path(unit, 0, 3),
        unit_path(Unit("curves", "c"), 0, 2),
        failures_path(Unit("layers", "a_b"), 1, 2),
        "statistics/sample-x.parquet",
    ]
    damage = sorted_out([*own, *others, *strays], [Unit("instances"), unit], 2)
    assert damage.parts == {(unit, 0): own[:2], (Unit("instances"), 1): own[2:]}
    assert (damage.corpus, damage.samples) == (others[:1], {10: others[1]})
    assert damage.strays == strays


def test_what_is_made_again_is_planned_though_it_is_there() -> None:
    done = [unit_path(unit, shard, 2) for unit in UNITS for shard in range(2)]
    other = Unit("attributions", "c")
    again = {(UNITS[4], 1): None, (other, 1): (9, 0.5), (UNITS[1], 1): None}
    assert planned(UNITS, 2, done, again) == [
        Task(1, 2, (other, UNITS[1], UNITS[4]), ((other, (9, 0.5)),))
    ]
    # What is missing anyway is planned once.
    assert planned(UNITS, 2, done[1:], {(UNITS[0], 0): None}) == [Task(0, 2, (UNITS[0],))]


def test_there_is_nothing_to_sweep_where_there_is_nothing(tmp_path: Path) -> None:
    swept = sweep(str(tmp_path / "none"), 1)
    assert (swept.there.tables(Unit("instances")), swept.damaged) == (b"\0", [])


def test_files_of_the_size_that_the_index_says_are_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = Unit("attributions", "a")
    paths = [unit_path(unit, shard, 4) for shard in range(4)]
    for path in paths:
        put(tmp_path, path)
    entries = [Entry(p, *unit, n, n, 1, len(FOOTER), "") for n, p in enumerate(paths)]
    write_index(str(tmp_path), entries[:3], ())
    put(tmp_path, paths[1], FOOTER[:-1])  # Cut short.
    put(tmp_path, paths[2], FOOTER[:4] + FOOTER)  # Written anew since then.
    opened: list[str] = []

    def looking(path: str) -> bool:
        opened.append(Path(path).relative_to(tmp_path).as_posix())
        return ends_well(path)

    ends_well = store._ends_well
    monkeypatch.setattr(store, "_ends_well", looking)
    swept = sweep(str(tmp_path), 4)
    assert swept.damaged == [paths[1]]
    assert swept.there.tables(unit) == b"\1\0\1\1"
    assert sorted(opened) == [*paths[1:], INDEX]
    # An index that can't be read says nothing.
    (tmp_path / INDEX).write_bytes(b"PAR1")
    assert sweep(str(tmp_path), 4).damaged == [paths[1]]


def test_failures_that_the_index_names_are_missed_when_they_are_gone(tmp_path: Path) -> None:
    """Their table is there, and alone would be taken for that of a shard where nothing failed."""
    unit = Unit("attributions", "a")
    tables = [unit_path(unit, shard, 6) for shard in range(6)]
    failures = [failures_path(unit, shard, 6) for shard in range(3)]
    joined = shards_path(Place(unit, range(3, 5), 6), failures=True)
    for path in (*tables, failures[0]):
        put(tmp_path, path)
    of = [(path, range(n % 6, n % 6 + 1)) for n, path in enumerate((*tables, *failures))]
    entries = [
        Entry(path, *unit, shards[0], shards[-1], 1, len(FOOTER), "")
        for path, shards in (*of, (joined, range(3, 5)))
    ]
    write_index(str(tmp_path), entries, ())
    swept = sweep(str(tmp_path), 6)
    assert swept.damaged == [*failures[1:], joined]
    parts = sorted_out(swept.damaged, [unit], 6).parts
    assert {shard for _, shard in parts} == {1, 2, 3, 4}
    # Those of other shards are another part's.
    assert sweep(str(tmp_path), 6, part=RunPart(2, 6)).damaged == [failures[2]]
    # What was joined since the index was written is there.
    whole = shards_path(Place(unit, range(6), 6), failures=True)
    put(tmp_path, whole)
    assert sweep(str(tmp_path), 6).damaged == []
    assert [path for path, _ in sweep(str(tmp_path), 6).there.files_of_failures()] == [
        whole,
        failures[0],
    ]
