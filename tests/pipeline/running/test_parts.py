"""Parts of a run, one after the other: what each does, says, and leaves to the others.

At once, and killed: ``test_kill.py``. Whose a shard is: ``tests/pipeline/test_parts.py``.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attribeam.analysis import verify
from attribeam.pipeline import Options, run
from attribeam.pipeline.corpus import staging
from attribeam.pipeline.parts import RunPart
from attribeam.pipeline.running.job import Rest
from attribeam.schemas import Unit, unit_path
from attribeam.schemas.layout import LOCK, MANIFEST, corpus_path, failures_path
from attribeam.transforms.evaluate import Evaluation
from tests.pipeline.running.test_resume import cut, flip
from tests.support.tiny import (
    Outcome,
    assert_alike,
    command,
    content,
    files,
    rows,
    stamps,
    write_jsonl,
)

SHARDS = 5
ATTRIBUTIONS = Unit("attributions", "random")
EMPTY = 4  # The shard of a row that fails.
Run = Callable[..., Outcome]


@pytest.fixture(scope="module")
def model(tiny_folder: Callable[..., Path]) -> Path:
    return tiny_folder("bert")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines: list[Any] = rows(2 * SHARDS)
    lines[2 * EMPTY] = {"id": "empty", "text": ""}
    return write_jsonl(tmp_path_factory.mktemp("corpus") / "corpus.jsonl", lines)


@pytest.fixture(scope="module")
def undisturbed(model: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as a whole."""
    out = tmp_path_factory.mktemp("whole")
    found = run(options(model, corpus, out))
    assert (found.part, found.rest, found.own) == (None, None, SHARDS)
    return out


@pytest.fixture(scope="module")
def half(model: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of which part 0/2 is done: shards 0, 2 and 4."""
    out = tmp_path_factory.mktemp("half")
    found = run(options(model, corpus, out, part="0/2"))
    assert (found.part, found.own, found.worked) == (RunPart(0, 2), 3, 3)
    assert (found.rest, found.failures) == (Rest(2, 6), 1)
    return out


@pytest.fixture
def out(half: Path, tmp_path: Path) -> Path:
    return shutil.copytree(half, tmp_path / "out")


def options(model: Path, corpus: Path, out: Path, **more: Any) -> Options:
    return Options(
        *(str(model), str(corpus), str(out)),
        methods="random",
        evaluation=Evaluation(fractions=(0.5,)),
        shard_size=2,
        device="cpu",
        **more,
    )


@pytest.fixture
def part(model: Path, corpus: Path, out: Path) -> Run:
    usual = ("--model", model, "--corpus", corpus, "--output", out, "--device", "cpu")
    more = ("--methods", "random", "--fractions", "0.5", "--shard-size", 2)
    return lambda *given: command("run", *usual, *more, *given)


def table(shard: int, unit: Unit = ATTRIBUTIONS) -> str:
    return unit_path(unit, shard, SHARDS)


def same(out: Path, undisturbed: Path) -> None:
    """Checks that all parts together are the whole run."""
    assert files(out) == files(undisturbed)
    found = content(out)
    for path, expected in content(undisturbed).items():
        assert_alike(found[path], expected)
    assert verify(out).problems == []


def test_the_end_of_a_part_says_what_the_run_lacks(part: Run, out: Path, undisturbed: Path) -> None:
    first = part("--part", "3/4")
    assert first.status == 0
    assert first.out.startswith("text: text, label: label, id: id\npart 3/4, 1 of 5 shards; 1 work")
    assert "\nof the whole run, 1 of 5 shards are not done yet: 3 files missing\n" in first.out
    query = command("query", out, "select count(*) from instances")
    assert query.err.startswith(f"{out} is not finished: 12 of 15 files are there.")
    assert "not finished: 12 of 15 files" in command("verify", out).out
    assert command("report", out).status == 0
    assert "not finished: 12 of 15 files" in (out / "report.html").read_text()
    (out / "report.html").unlink()
    last = part("--part", "1/4")
    assert (last.status, last.out.splitlines()[2]) == (0, "the whole run is done")
    same(out, undisturbed)


def test_the_status_is_that_of_the_part(part: Run, out: Path) -> None:
    """A row of part 0/2 has failed."""
    assert part("--part", "1/2").status == 0
    again = part("--part", "0/2")
    assert again.status == 1
    assert again.out.startswith("nothing left to do: part 0/2, 3 of 5 shards complete already\n")
    assert "1 failure: " in again.out
    assert part("--part", "2/4").status == 0
    assert part("--part", "0/4").status == 1
    assert part().status == 1


def test_a_part_may_have_nothing_to_do(
    model: Path, corpus: Path, tmp_path: Path, undisturbed: Path
) -> None:
    """And yet be the one that begins the run."""
    first = run(options(model, corpus, tmp_path, part="7/8"))
    assert (first.own, first.worked, first.rest) == (0, 0, Rest(SHARDS, 3 * SHARDS))
    assert files(tmp_path) == {MANIFEST, *(corpus_path(shard) for shard in range(SHARDS))}
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    assert [call["part"] for call in manifest["executions"]] == ["7/8"]
    assert run(options(model, corpus, tmp_path)).worked == SHARDS
    same(tmp_path, undisturbed)


def test_files_of_others_are_left_alone(part: Run, out: Path, undisturbed: Path) -> None:
    """Half written, cut short or damaged."""
    mine, others = (
        [f"{table(shard)}.x.tmp", f"{failures_path(ATTRIBUTIONS, shard, SHARDS)}.x.tmp"]
        for shard in (2, 1)
    )
    # As of parts that renew their leases.
    others += [f"{LOCK}.00001-of-00002.x.tmp"]
    mine += ["corpus/rows-00001.parquet.x.tmp", "run.json.x.tmp", f"{LOCK}.00002-of-00004.x.tmp"]
    for path in (*mine, *others):
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(b"")
    cut(out / table(0))
    flip(out / table(4))
    before = stamps(out)
    found = part("--part", "2/4", "--repair")
    assert (found.err, found.status) == ("", 0)
    assert "nothing left to do" in found.out
    after = stamps(out)
    assert before.keys() - after.keys() == set(mine)
    assert {path for path in after if before[path] != after[path]} == set()
    again = part("--part", "0/4", "--repair")
    assert "made again, since they were damaged: 2 files" in again.out
    assert part("--part", "1/2").status == 0
    same(out, undisturbed)


def test_a_copy_of_the_corpus_is_mended_under_the_others_hands(
    part: Run, out: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File by file: what they are reading is never away."""

    def discard(path: str) -> None:
        raise AssertionError(path)

    monkeypatch.setattr(staging, "discard_folder", discard)
    cut(out / corpus_path(3))
    assert part("--part", "1/2").status == 0
    same(out, undisturbed)


def test_a_part_is_read_where_it_is_told(
    part: Run, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And from the environment only where that is asked for."""
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "3")
    auto = part("--part", "auto/4")
    assert auto.err == "attribeam: --part auto/4 is 3/4 (JOB_COMPLETION_INDEX=3)\n"
    assert "part 3/4, 1 of 5 shards; 1 worked on" in auto.out
    config = tmp_path / "config.yaml"
    config.write_text("part: 1/2\n")
    assert "part 1/2, 2 of 5 shards; 1 worked on (1 more" in part("--config", config).out
    calls = json.loads((out / MANIFEST).read_text())["executions"]
    assert [call["part"] for call in calls] == ["0/2", "3/4", "1/2"]
    refused = part("--part", "auto")
    assert (refused.status, refused.out) == (2, "")
    assert "SLURM_ARRAY_TASK_ID isn't set" in refused.err
    assert part().out.startswith("nothing left to do: 5 shards complete already\n")


def test_bad_parts_are_refused_before_any_work(model: Path, corpus: Path, tmp_path: Path) -> None:
    for said, message in (("4/4", "the last one is 3"), ("auto/3", "isn't set"), (4, "is a text")):
        with pytest.raises(ValueError, match=message):
            run(options(model, corpus, tmp_path / "none", part=said))
    assert not (tmp_path / "none").exists()
