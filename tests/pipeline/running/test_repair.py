"""What is made again: damage of whichever method, and what failed for no fault of its own."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from attribeam.analysis import load_manifest, verify
from attribeam.analysis.opening.files import units
from attribeam.pipeline.running import graph
from attribeam.pipeline.running.tables import failures_table
from attribeam.schemas import CONTENT_FIELDS, Failure, Unit, failures_path, unit_path
from attribeam.schemas.layout import Place, shards_path
from attribeam.transforms import registry
from attribeam.transforms.attribute import _Job
from tests.pipeline.running.test_resume import cut, flip
from tests.support.tiny import (
    Outcome,
    assert_alike,
    command,
    content,
    files,
    rows,
    stamps,
    table,
    write_jsonl,
)

SHARDS = 2
METHODS = "saliency,globenc,iba"
SET = ("--set", "iba.steps=2", "--set", "iba.copies=1", "--set", "iba.sample=4")
Run = Callable[..., Outcome]


@pytest.fixture(scope="module")
def model(tiny_folder: Callable[..., Path]) -> Path:
    return tiny_folder("bert")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("corpus") / "corpus.jsonl", rows(6))


def arguments(model: Path, corpus: Path, out: Path, *more: object) -> tuple[object, ...]:
    usual = ("--model", model, "--corpus", corpus, "--output", out, "--device", "cpu")
    return ("run", *usual, "--fractions", "0.5", "--shard-size", 3, *more)


@pytest.fixture(scope="module")
def finished(model: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with curves, layers, information and statistics."""
    out = tmp_path_factory.mktemp("finished")
    more = ("--methods", METHODS, *SET, "--layers")
    assert command(*arguments(model, corpus, out, *more)).status == 0
    return out


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "out")


@pytest.fixture
def run(model: Path, corpus: Path, out: Path) -> Run:
    return lambda *more: command(*arguments(model, corpus, out, *more))


def whole(out: Path, finished: Path) -> None:
    """Checks that a run has what the finished one has, whatever else it may have."""
    found = content(out)
    for path, expected in content(finished).items():
        assert_alike(found[path], expected)
    assert verify(out).problems == []


def damage(out: Path, how: Callable[[Path], None], *units: Unit) -> list[str]:
    paths = [unit_path(unit, shard, SHARDS) for shard, unit in enumerate(units)]
    for path in paths:
        how(out / path)
    return paths


OTHERS = (
    (Unit("attributions", "saliency"), Unit("curves", "saliency")),
    (Unit("layers", "globenc"), Unit("information", "iba")),
)


@pytest.mark.parametrize("units", OTHERS)
@pytest.mark.parametrize(("how", "option"), [(cut, ()), (flip, ("--repair",))])
def test_files_of_other_methods_are_made_again(
    units: tuple[Unit, Unit],
    how: Callable[[Path], None],
    option: tuple[str, ...],
    run: Run,
    out: Path,
    finished: Path,
) -> None:
    """Whatever the call was told: another method, no curves, no layers."""
    paths = damage(out, how, *units)
    others = {"corpus/rows-00001.parquet", "statistics/sample-00004.parquet"}
    for path in others:
        how(out / path)
    before = stamps(out)
    outcome = run("--methods", "random", "--no-evaluate", *option)
    assert (outcome.status, outcome.err) == (0, "")
    assert "made again, since they were damaged: 4 files" in outcome.out
    whole(out, finished)
    # Nothing else was.
    after = stamps(out)
    changed = {path for path in before if before[path] != after[path]}
    copies = {path for path in before if path.startswith("corpus/")}
    assert changed - copies == {*paths, *others - copies, "run.json"}
    call = json.loads((out / "run.json").read_text())["executions"][-1]
    assert set(call["methods"]) == {"random", *(unit.method for unit in units)}


def test_failures_of_other_methods_are_made_again(
    model: Path, corpus: Path, tmp_path: Path
) -> None:
    """With the table that they belong to."""
    lines: list[Any] = rows(6)
    del lines[1]["label"]
    corpus = write_jsonl(tmp_path / "corpus.jsonl", lines)
    more = ("--methods", "attattr_colsum", "--set", "attattr_colsum.target=gold")
    assert command(*arguments(model, corpus, tmp_path / "a", *more)).status == 1
    out = shutil.copytree(tmp_path / "a", tmp_path / "b")
    cut(out / failures_path(Unit("attributions", "attattr_colsum"), 0, SHARDS))
    outcome = command(*arguments(model, corpus, out, "--methods", "random"))
    assert "made again, since they were damaged: 1 file" in outcome.out
    assert_alike(
        table(out, "failures", "attattr_colsum"),
        table(tmp_path / "a", "failures", "attattr_colsum"),
    )
    whole(out, tmp_path / "a")


def test_verify_reads_the_copy_of_the_corpus_and_statistics(out: Path) -> None:
    copies = ["corpus/rows-00001.parquet", "statistics/sample-00004.parquet"]
    for path in copies:
        flip(out / path)
    problems = verify(out).problems
    assert [problem.split(": damaged (")[0] for problem in problems] == copies
    assert all(problem.endswith("Run the same command again with --repair") for problem in problems)
    shutil.copy(out / "corpus" / "rows-00000.parquet", out / copies[0])
    assert verify(out).problems[0].startswith("statistics/")
    for path in copies:
        (out / path).unlink()  # As somebody may who won't add to the run.
    assert verify(out).problems == []


def test_rows_that_are_missing_from_the_copy_of_the_corpus(run: Run, out: Path) -> None:
    path = out / "corpus" / "rows-00001.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    assert verify(out).problems == [
        "corpus/rows-00001.parquet: has 2 rows instead of 3. Run the same command again with "
        "--repair"
    ]
    assert "damaged: 1 file" in run("--methods", "random", "--repair").out
    assert verify(out).problems == []


@pytest.mark.parametrize("name", ["attributions", "curves/method=saliency", "corpus"])
def test_folders_that_are_links_are_refused(name: str, run: Run, out: Path, tmp_path: Path) -> None:
    """Queries reach nothing outside the run's folder, so that rows would be missing in silence."""
    (out / name).rename(tmp_path / "elsewhere")
    (out / name).symlink_to(tmp_path / "elsewhere")
    before = stamps(out)
    outcome = run("--methods", "saliency")
    assert (outcome.status, outcome.out, stamps(out)) == (2, "", before)
    assert f"has folders that are links ({name}), which nothing that reads a run" in outcome.err
    assert (
        f"{name}: a link, which queries and runs don't follow. Put the" in verify(out).problems[0]
    )


def test_a_run_as_a_whole_may_be_a_link(
    model: Path, corpus: Path, out: Path, finished: Path, tmp_path: Path
) -> None:
    out.rename(tmp_path / "elsewhere")
    out.symlink_to(tmp_path / "elsewhere")
    outcome = command(*arguments(model, corpus, out, "--methods", "saliency"))
    assert outcome.out.startswith("nothing left to do")
    assert command("query", out, "from faithfulness").status == 0
    whole(out, finished)


def edit_method(out: Path, name: str, **changes: Any) -> None:
    manifest = json.loads((out / "run.json").read_text())
    manifest["methods"][name] |= changes
    (out / "run.json").write_text(json.dumps(manifest))


def test_curves_that_a_later_version_has_asked_more_of_are_left(run: Run, out: Path) -> None:
    damage(out, cut, Unit("curves", "saliency"))
    manifest = json.loads((out / "run.json").read_text())
    manifest["evaluation"]["patches"] = 4
    (out / "run.json").write_text(json.dumps(manifest))
    before = stamps(out)
    outcome = run("--methods", "random", "--no-evaluate")
    assert (outcome.status, stamps(out)) == (2, before)
    assert "the run's curves were made with patches, which this version doesn't know" in outcome.err


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": 0}, "it was made by version 0 of the method"),
        ({"params": {"kind": 3}}, "saliency has no parameter 'kind'; it has: norm"),
    ],
)
def test_what_cannot_be_made_again_is_left_and_told(
    change: dict[str, Any], reason: str, run: Run, out: Path
) -> None:
    paths = damage(out, cut, *OTHERS[0])
    edit_method(out, "saliency", **change)
    before = {path: (out / path).read_bytes() for path in paths}
    for option in ((), ("--repair",)):
        outcome = run("--methods", "random", *option)
        assert outcome.status == 1
        assert outcome.err == (
            f"attribeam: damaged, and left as it is: 2 files ({', '.join(sorted(paths))}) of "
            f"saliency, which can't be made again here: {reason}\n"
        )
        assert "made again" not in outcome.out
        assert {path: (out / path).read_bytes() for path in paths} == before


def test_damage_that_is_not_of_the_run_is_left_and_told(run: Run, out: Path) -> None:
    strays = ["attributions/method=mine/shard-00000-of-00002.parquet",
              "curves/method=saliency/shard-00000-of-00007.parquet"]  # fmt: skip
    for path in strays:
        (out / path).parent.mkdir(exist_ok=True)
        (out / path).write_bytes(b"mine")
    outcome = run("--methods", "saliency")
    assert outcome.status == 1
    assert f"left as it is: 2 files ({', '.join(strays)}), of which run.json knows" in outcome.err
    assert {path: (out / path).read_bytes() for path in strays} == dict.fromkeys(strays, b"mine")


def test_repairing_makes_what_is_missing_of_other_methods(
    run: Run, out: Path, finished: Path
) -> None:
    shutil.rmtree(out / "layers")
    (out / unit_path(OTHERS[0][1], 1, SHARDS)).unlink()
    assert run("--methods", "random").status == 0
    assert not (out / "layers").exists()  # Which is another call's business.
    assert "6 rows in 2 shards; 2 worked on" in run("--methods", "random", "--repair").out
    whole(out, finished)


# Memory, devices, networks


def out_of_memory(*_: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")


def failing_method(name: str, instance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A method for which there is no memory where an instance is in the batch."""
    method = registry.methods()[name]

    def compute(captured: Any, params: Any) -> Any:
        if instance in [each.instance_id for each in captured.batch.instances]:
            out_of_memory()
        return method.compute(captured, params)

    monkeypatch.setitem(registry._METHODS, name, replace(method, compute=compute))


def failing_instance(instance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An instance that the model has no memory for."""
    base = _Job._base

    def failing(job: _Job, indices: Any, chosen: Any) -> Any:
        if instance in [job.instances[index].instance_id for index in indices]:
            out_of_memory()
        return base(job, indices, chosen)

    monkeypatch.setattr(_Job, "_base", failing)


TELLS = (
    "for want of memory, a network or a device: the same command with --retry-failed tries them "
    "again"
)
ALL = ("--methods", METHODS, *SET, "--layers")


@pytest.mark.parametrize("whose", ["instance", "method"])
def test_what_failed_for_want_of_memory_is_tried_again(
    whose: str,
    model: Path,
    corpus: Path,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With all tables that lack its rows, and nothing else."""
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        if whose == "method":
            failing_method("globenc", "r4", patch)
        else:
            failing_instance("r4", patch)
        outcome = command(*arguments(model, corpus, out, *ALL))
    assert outcome.status == 1
    assert f"1 {TELLS}" in outcome.out
    before = stamps(out)
    assert command(*arguments(model, corpus, out, *ALL)).status == 1
    assert stamps(out) == before
    # It may be another method that is called for.
    outcome = command(*arguments(model, corpus, out, "--methods", "saliency", "--retry-failed"))
    assert outcome.status == 0
    whole(out, finished)
    assert files(out) == files(finished)
    after = stamps(out)
    changed = {path for path in before if before[path] != after.get(path)}
    assert all("shard-00001" in path or path == "run.json" for path in changed)
    if whose == "method":
        assert all("globenc" in path or path == "run.json" for path in changed)


def test_what_fails_again_is_a_failure_again(
    run: Run, out: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what has to do with the instance isn't tried again."""
    failing_method("random", "r4", monkeypatch)
    assert run("--methods", "random").status == 1
    before = stamps(out)
    outcome = run("--methods", "random", "--retry-failed")
    assert outcome.status == 1 and "1 worked on" in outcome.out and f"1 {TELLS}" in outcome.out
    whole(out, finished)
    broken = replace(registry.methods()["random"], compute=lambda *_: 1 / 0)
    monkeypatch.setitem(registry._METHODS, "random", broken)
    shutil.rmtree(out / "attributions" / "method=random")
    assert TELLS not in run("--methods", "random").out
    after = stamps(out)
    assert run("--methods", "random", "--retry-failed").out.startswith("nothing left to do")
    assert stamps(out) == after != before


def test_a_retry_that_is_cut_short_goes_on(
    run: Run, out: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(out)
    with monkeypatch.context() as patch:
        failing_instance("r1", patch)
        assert run(*ALL).status == 1
    written: list[str] = []
    original = graph.write_parquet

    def full(path: str, table: Any) -> Any:
        if len(written) == 3:
            raise OSError("no space left on device")
        written.append(path)
        return original(path, table)

    with monkeypatch.context() as patch:
        patch.setattr(graph, "write_parquet", full)
        assert "no space left" in run("--methods", "saliency", "--retry-failed").err
    assert run("--methods", "saliency", "--retry-failed").status == 0
    whole(out, finished)


def test_a_retry_that_takes_what_cannot_be_made_is_told(
    run: Run, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(out)
    with monkeypatch.context() as patch:
        failing_instance("r1", patch)
        assert run("--methods", "saliency,random").status == 1
    edit_method(out, "saliency", version=0)
    before = stamps(out)
    outcome = run("--methods", "random", "--retry-failed")
    assert outcome.status == 1
    assert outcome.err == (
        "attribeam: not tried again: 1 that failed for want of memory, a network or a device, "
        "since saliency can't be made again here: it was made by version 0 of the method\n"
    )
    assert stamps(out) == before


@pytest.fixture(scope="module")
def compacted(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with one file for each unit."""
    out = shutil.copytree(finished, tmp_path_factory.mktemp("compacted") / "out")
    assert command("compact", out).status == 0
    assert len([*out.glob("*/**/shard-00000..00001-of-00002.parquet")]) == len(units_of(out))
    assert [*out.glob("*/**/shard-0000?-of-00002.parquet")] == []
    return out


def units_of(out: Path) -> list[Unit]:
    return units(load_manifest(out))


def test_a_compacted_run_goes_on_and_is_repaired(
    model: Path, corpus: Path, compacted: Path, finished: Path, tmp_path: Path
) -> None:
    """Another method is added; what is damaged is made again, and the rest stays."""
    out = shutil.copytree(compacted, tmp_path / "out")
    more = ("--methods", METHODS, *SET, "--layers")
    outcome = command(*arguments(model, corpus, out, *more))
    assert (outcome.status, "nothing left to do" in outcome.out) == (0, True)
    damaged = Place(Unit("attributions", "saliency"), range(SHARDS), SHARDS)
    flip(out / shards_path(damaged))
    before = stamps(out)
    outcome = command(*arguments(model, corpus, out, "--methods", "random", "--repair"))
    assert (outcome.status, outcome.err) == (0, "")
    assert "made again, since they were damaged: 1 file" in outcome.out
    after = stamps(out)
    new = {path for path in after if after[path] != before.get(path)}
    gone = {path for path in before if path not in after}
    assert gone == {shards_path(damaged)}
    assert {path for path in new if "saliency" in path} == {
        unit_path(damaged.unit, shard, SHARDS) for shard in range(SHARDS)
    }
    assert verify(out).problems == []
    assert command("compact", out).status == 0
    assert_same_rows(out, finished)


def test_a_shard_is_taken_out_of_a_compacted_run(
    model: Path, corpus: Path, compacted: Path, finished: Path, tmp_path: Path
) -> None:
    """As one that failed for want of memory, which is tried again."""
    out = shutil.copytree(compacted, tmp_path / "out")
    unit = Unit("attributions", "saliency")
    path = out / failures_path(unit, 1, SHARDS)
    path.parent.mkdir(parents=True)
    failure = Failure("r4", "attribute", "saliency", "OutOfMemoryError", "CUDA out of memory")
    pq.write_table(failures_table([failure]), path)
    outcome = command(*arguments(model, corpus, out, "--methods", "saliency", "--retry-failed"))
    assert (outcome.status, outcome.err) == (0, "")
    assert not path.exists()
    for each in (unit, Unit("curves", "saliency")):
        names = sorted(file.name for file in (out / each.folder).iterdir())
        assert names == [f"shard-0000{shard}-of-00002.parquet" for shard in range(SHARDS)]
    assert verify(out).problems == []
    assert_same_rows(out, finished)


def assert_same_rows(out: Path, finished: Path) -> None:
    """Checks that a run has the rows that the finished one has, in whatever files they are."""
    for unit in units_of(finished):
        found, expected = (
            pa.concat_tables(
                pq.ParquetFile(file).read().select(CONTENT_FIELDS[unit.table])
                for file in sorted((folder / unit.folder).iterdir())
            )
            for folder in (out, finished)
        )
        assert_alike(found.unify_dictionaries(), expected.unify_dictionaries())
