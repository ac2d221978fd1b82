"""Runs that are cut short by an error, or damaged, and taken up again.

Those that are killed: ``test_kill.py``.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.io.filesystems import FileSystems
from botocore.exceptions import EndpointConnectionError

from attribeam.analysis import verify
from attribeam.pipeline import Options, run
from attribeam.pipeline.running import graph
from attribeam.pipeline.running.job import cause
from attribeam.pipeline.running.missing import units_of_run
from attribeam.pipeline.store.files import DamagedError
from attribeam.schemas import Unit, failures_path, unit_path
from attribeam.schemas.index import INDEX
from attribeam.transforms.evaluate import Evaluation
from tests.support.tiny import (
    Outcome,
    assert_alike,
    command,
    content,
    files,
    rows,
    stamps,
    unit_files,
    write_jsonl,
)

COUNT, SHARD, SHARDS = 24, 3, 8
METHODS = ("integrated_gradients", "random")
PARAMS = {"integrated_gradients": {"steps": 7}}
EVALUATION = Evaluation(fractions=(0.25, 0.5))
UNITS = units_of_run(dict.fromkeys(METHODS, ("attributions", "curves")))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines: list[Any] = rows(COUNT)
    lines[7] = {"id": "empty", "text": ""}
    return write_jsonl(tmp_path_factory.mktemp("corpus") / "corpus.jsonl", lines)


@pytest.fixture(scope="module")
def model(tiny_folder: Callable[..., Path]) -> Path:
    return tiny_folder("bert")


def options(model: Path, corpus: Path, out: Path) -> Options:
    return Options(
        *(str(model), str(corpus), str(out)),
        methods=",".join(METHODS),
        params=PARAMS,
        evaluation=EVALUATION,
        shard_size=SHARD,
        device="cpu",
    )


@pytest.fixture(scope="module")
def finished(model: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbs."""
    out = tmp_path_factory.mktemp("finished")
    run(options(model, corpus, out))
    return out


@pytest.fixture(scope="module")
def undisturbed(finished: Path) -> dict[str, pa.Table]:
    """Its tables by path."""
    return content(finished)


def whole(out: Path, undisturbed: dict[str, pa.Table]) -> None:
    """Checks that a run is the undisturbed one, row by row, and has left nothing else behind."""
    staged = {f"corpus/rows-{shard:05d}.parquet" for shard in range(SHARDS)}
    failures = {"failures/instances/shard-00002-of-00008.parquet"}
    assert files(out) == {"run.json"} | staged | failures | unit_files(UNITS, SHARDS)
    found = content(out)
    assert found.keys() == undisturbed.keys()
    for path, expected in undisturbed.items():
        # What is computed together decides how, and with it the rounding.
        assert_alike(found[path], expected)


@pytest.mark.parametrize("commits", [0, 1, 3, 17])
def test_a_run_that_stops_at_an_error_goes_on_where_it_was(
    commits: int,
    model: Path,
    corpus: Path,
    undisturbed: dict[str, pa.Table],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = []

    def write(path: str, table: pa.Table) -> Any:
        if len(written) == commits:
            raise OSError("no space left on device")
        found = original(path, table)
        written.append(path)
        return found

    original = graph.write_parquet
    monkeypatch.setattr(graph, "write_parquet", write)
    with pytest.raises(OSError, match="no space left on device"):
        run(options(model, corpus, tmp_path))
    monkeypatch.undo()
    kept = {path: Path(path).stat().st_mtime_ns for path in written}
    summary = run(options(model, corpus, tmp_path))
    assert summary.failures == 1
    whole(tmp_path, undisturbed)
    # What was committed was not done again.
    assert {path: Path(path).stat().st_mtime_ns for path in written} == kept


def test_a_failure_without_its_table_is_written_again(
    finished: Path, model: Path, corpus: Path, undisturbed: dict[str, pa.Table], tmp_path: Path
) -> None:
    """Failures are committed before the table, so that a crash between the two loses neither."""
    out = copytree(finished, tmp_path / "out")
    (out / "instances" / "shard-00002-of-00008.parquet").unlink()
    assert run(options(model, corpus, out)).failures == 1
    whole(out, undisturbed)


def test_layers_that_are_being_added_go_on_where_they_were(
    model: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = replace(
        options(model, corpus, tmp_path), methods="random,attention_rollout", params={}, limit=9
    )
    run(plain)
    before = stamps(tmp_path)
    written = []

    def write(path: str, table: pa.Table) -> Any:
        if len(written) == 1:
            raise OSError("no space left on device")
        found = original(path, table)
        written.append(path)
        return found

    original = graph.write_parquet
    monkeypatch.setattr(graph, "write_parquet", write)
    with pytest.raises(OSError, match="no space left on device"):
        run(replace(plain, layers=True))
    monkeypatch.undo()
    layers = unit_files([Unit("layers", "attention_rollout")], 3)
    first = stamps(tmp_path)
    assert len(layers & first.keys()) == 1
    # That a run is to have layers is known from the start, so that what lacks is found.
    assert "not finished: " in verify(tmp_path).problems[0]
    assert run(replace(plain, layers=True)).worked == 2
    assert not verify(tmp_path).problems
    after = stamps(tmp_path)
    assert after.keys() - before.keys() == layers
    assert {path for path in first if first[path] != after[path]} == {"run.json"}
    assert {path for path in before if before[path] != after[path]} == {"run.json"}


def run_command(model: Path, corpus: Path, out: Path, *more: object) -> Outcome:
    arguments = [
        *("--model", model, "--corpus", corpus, "--output", out, "--device", "cpu"),
        *("--methods", ",".join(METHODS), "--set", "integrated_gradients.steps=7"),
        *("--fractions", "0.25,0.5", "--shard-size", SHARD),
    ]
    return command("run", *arguments, *more)


@pytest.mark.parametrize("name", ["corpus/rows-00004", "run.json", "curves/method=random"])
def test_a_full_disk_ends_in_a_sentence(
    name: str,
    model: Path,
    corpus: Path,
    undisturbed: dict[str, pa.Table],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rename = FileSystems.rename

    def full(sources: list[str], targets: list[str]) -> None:
        if name in targets[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rename(sources, targets)

    monkeypatch.setattr("attribeam.pipeline.store.files.FileSystems.rename", full)
    outcome = run_command(model, corpus, tmp_path)
    assert outcome.status == 1
    assert outcome.out in ("", "text: text, label: label, id: id\n")
    message = f"attribeam: stopped: [Errno 28] No space left on device: '{tmp_path}/{name}"
    assert message in outcome.err
    assert outcome.err.endswith("What is committed is kept; the same command continues\n")
    assert "Traceback" not in outcome.err
    assert not [path for path in files(tmp_path) if path.endswith(".tmp")]
    monkeypatch.undo()
    run(options(model, corpus, tmp_path))
    whole(tmp_path, undisturbed)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError("no\n route"), "no route"),
        (DamagedError("x is damaged [while running 'Attribute/Read']"), "x is damaged"),
        # As Beam hands them on, from this process and from a worker.
        (RuntimeError("OSError: [Errno 28] No space left [while running 'A']"), "[Errno 28] No"),
        (
            RuntimeError(
                "Traceback:\n  a: b\n"
                "attribeam.pipeline.store.files.DamagedError: x is [while running 'A']"
            ),
            "x is",
        ),
        (RuntimeError("PermissionError: [Errno 13] x"), "[Errno 13] x"),
        (EndpointConnectionError(endpoint_url="http://x"), "Could not connect to the endpoint"),
        (RuntimeError("botocore.exceptions.ConnectTimeoutError: too long"), "too long"),
        # Bugs.
        (RuntimeError("ValueError: wrong [while running 'A']"), None),
        (RuntimeError("OSErrors: wrong"), None),
        (RuntimeError(), None),
        (ValueError("OSError: wrong"), None),
    ],
)
def test_what_stopped_a_run(error: Exception, expected: str | None) -> None:
    found = cause(error)
    assert found == expected or (expected and found and found.startswith(expected))


# Damage

INSTANCES = unit_path(Unit("instances"), 4, SHARDS)
SCORES = unit_path(Unit("attributions", "random"), 5, SHARDS)
CURVES = unit_path(Unit("curves", "integrated_gradients"), 5, SHARDS)
FAILURES = failures_path(Unit("instances"), 2, SHARDS)
DAMAGED = [INSTANCES, SCORES, CURVES, FAILURES, "corpus/rows-00006.parquet"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def flip(path: Path) -> None:
    """Changes a byte of a column's data, which leaves every structure whole."""
    group = pq.ParquetFile(path).metadata.row_group(0)
    column = group.column(0)
    content = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    content[start + column.total_compressed_size - 3] ^= 0x40
    path.write_bytes(bytes(content))


def test_tables_that_are_cut_short_are_made_again(
    finished: Path, model: Path, corpus: Path, undisturbed: dict[str, pa.Table], tmp_path: Path
) -> None:
    out = copytree(finished, tmp_path / "out")
    for path in DAMAGED:
        cut(out / path)
    (out / SCORES).write_bytes(b"")
    before = stamps(out)
    summary = run(options(model, corpus, out))
    assert (summary.worked, summary.damaged, summary.failures) == (3, 5, 1)
    whole(out, undisturbed)
    after = stamps(out)
    again = {path for path in before if before[path] != after[path] and "corpus/" not in path}
    redone = unit_path(Unit("instances"), 2, SHARDS)
    assert again == {"run.json", INSTANCES, SCORES, CURVES, FAILURES, redone}


def test_flipped_bits_are_found_and_repaired(
    finished: Path, model: Path, corpus: Path, undisturbed: dict[str, pa.Table], tmp_path: Path
) -> None:
    out = copytree(finished, tmp_path / "out")
    for path in DAMAGED:
        flip(out / path)
    assert run_command(model, corpus, out).out.startswith("nothing left to do")
    problems = verify(out).problems
    assert {problem.split(":")[0] for problem in problems} == set(DAMAGED)
    assert all(p.endswith(". Run the same command again with --repair") for p in problems)
    outcome = run_command(model, corpus, out, "--repair")
    assert "3 worked on (5 more were there already)" in outcome.out
    assert "made again, since they were damaged: 5 files" in outcome.out
    whole(out, undisturbed)
    assert run_command(model, corpus, out, "--repair").out.startswith("nothing left to do")


def test_damage_that_is_met_on_the_way_names_the_remedy(
    finished: Path, model: Path, corpus: Path, undisturbed: dict[str, pa.Table], tmp_path: Path
) -> None:
    out = copytree(finished, tmp_path / "out")
    flip(out / SCORES)
    (out / unit_path(Unit("curves", "random"), 5, SHARDS)).unlink()
    outcome = run_command(model, corpus, out)
    assert outcome.status == 1
    assert f"attribeam: stopped: {out / SCORES} is damaged (" in outcome.err
    assert "run the same command again with --repair\nWhat is committed is kept\n" in outcome.err
    assert run_command(model, corpus, out, "--repair").status == 1  # Of the row that has no text.
    whole(out, undisturbed)


def test_what_an_earlier_call_left_behind_is_not_trusted(
    model: Path, tiny_folder: Callable[..., Path], corpus: Path, tmp_path: Path
) -> None:
    """Statistics are of a model; one that was killed before the run began may have had another."""
    mine, others = tmp_path / "mine", tmp_path / "others"
    for folder, out in ((model, mine), (tiny_folder("roberta"), others)):
        again = replace(
            options(folder, corpus, out),
            methods="iba",
            params={"iba": {"steps": 1, "copies": 1}},
            evaluation=None,
            limit=3,
        )
        run(again)
    name = "statistics/sample-01000.parquet"
    expected = (mine / name).read_bytes()
    for path in (files(mine) | {INDEX}) - {name}:
        (mine / path).unlink()
    (mine / name).write_bytes((others / name).read_bytes())
    run(replace(again, model=str(model), output=str(mine)))
    assert (mine / name).read_bytes() == expected


# Corpora that would be read otherwise now


def run_of(model: Path, path: Path, out: Path, *more: object) -> Outcome:
    usual = ("--model", model, "--corpus", path, "--output", out, "--device", "cpu")
    return command("run", *usual, "--no-evaluate", "--methods", "random", *more)


def test_a_run_goes_on_with_the_columns_that_it_began_with(model: Path, tmp_path: Path) -> None:
    """Whatever would be guessed now; what is named still has to be what it was."""
    path, out = tmp_path / "corpus.csv", tmp_path / "out"
    path.write_text("text,Label,split\na film,1,dev\nthe play,0,test\n")
    begun = ("--label-column", "none", "--split-column", "none")
    assert run_of(model, path, out, *begun).status == 0
    (out / unit_path(Unit("attributions", "random"), 0, 1)).unlink()
    outcome = run_of(model, path, out)
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.startswith("text: text; not used: Label, split\n")
    refused = run_of(model, path, out, "--label-column", "Label")
    assert (refused.status, refused.out) == (2, "")
    assert 'corpus.columns.label was null, now "Label"' in refused.err


def test_a_copy_of_the_corpus_that_comes_out_otherwise_is_refused(
    model: Path, tmp_path: Path
) -> None:
    """Ids of rows without one, for example, once were made in another way."""
    path, out = write_jsonl(tmp_path / "c.jsonl", [{"text": "a"}, {"text": "film"}]), tmp_path / "o"
    assert run_of(model, path, out).status == 0
    (out / "corpus" / "rows-00000.parquet").unlink()
    assert run_of(model, path, out).status == 0
    instances = out / unit_path(Unit("instances"), 0, 1)
    table = pq.read_table(instances)
    at = table.column_names.index("row_id")
    pq.write_table(table.set_column(at, "row_id", pa.array(["row-0-x", "row-1-y"])), instances)
    (out / "corpus" / "rows-00000.parquet").unlink()
    refused = run_of(model, path, out)
    assert (refused.status, refused.out) == (2, "")
    assert "made again it has another row than 'row-0-x' in the run's tables" in refused.err
    assert not (out / "corpus").exists()
