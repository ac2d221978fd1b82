"""Whole runs: the same numbers however they are cut, continued, added to, or spread."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from apache_beam import Create
from apache_beam.testing import test_pipeline as beam_testing
from apache_beam.testing.util import assert_that, equal_to
from rich.text import Text

from attribeam.pipeline import Options, Summary, run
from attribeam.pipeline.running import identity, progress
from attribeam.pipeline.running.graph import Attribute, FileRecord
from attribeam.pipeline.running.missing import Task, units_of_run
from attribeam.pipeline.running.prepare import prepare
from attribeam.pipeline.workers.engines import connect
from attribeam.schemas import Unit, UsageError
from attribeam.schemas.layout import statistics_path
from attribeam.transforms.evaluate import Evaluation
from attribeam.transforms.registry import choose, methods
from tests.support.conditioning import SINGLE
from tests.support.models import save_tiny
from tests.support.tiny import (
    Rows,
    content,
    contrasts,
    files,
    rows,
    scores,
    stamps,
    table,
    unit_files,
    write_jsonl,
)

# BERT's layers end in norms: it has no sum of what they give.
LEFT_OUT = {"alti_logit"}
CHOSEN = tuple(choice for choice in choose("all") if choice.name not in LEFT_OUT)
METHODS = tuple(choice.name for choice in CHOSEN)
SCORED = tuple(choice.name for choice in CHOSEN if choice.method.scored)
EVALUATION = Evaluation(fractions=(0.5,), orders=("morf", "lerf"))
# Passes of the methods that take many.
FEW = {
    "integrated_gradients": {"steps": 5},
    "lime": {"samples": 30},
    "kernel_shap": {"samples": 30},
    "bt_head": {"steps": 5},
    "bt_token": {"steps": 5},
    "influence": {"points": 10},
    "iba": {"steps": 3},
}
COUNT, SHARD = 12, 5
SHARDS = 3

FolderOf = Callable[..., Path]


def options(model: Path, corpus: Path, out: Path, **changes: Any) -> Options:
    chosen = changes.get("methods", "all")
    plain: dict[str, Any] = {
        "params": FEW if chosen == "all" else {},
        "evaluation": EVALUATION,
        "device": "cpu",
        "shard_size": SHARD,
    }
    return Options(str(model), str(corpus), str(out), **(plain | changes))


@pytest.fixture(scope="module")
def model(tiny_folder: FolderOf) -> Path:
    return tiny_folder("bert")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("corpus") / "corpus.jsonl", rows(COUNT))


@pytest.fixture(scope="module")
def reference(
    model: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Summary]:
    """A run that nobody disturbs, and what it says of itself."""
    out = tmp_path_factory.mktemp("reference") / "out"
    return out, run(options(model, corpus, out))


def same(first: Path, second: Path) -> None:
    """Checks that two runs of one corpus hold the same rows, up to rounding."""
    ids = table(second, "instances")["instance_id"].to_pylist()
    assert sorted(table(first, "instances")["instance_id"].to_pylist()) == sorted(ids)
    found, expected = scores(first, SCORED), scores(second, SCORED)
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        np.testing.assert_allclose(found[key], values, rtol=SINGLE, atol=SINGLE, err_msg=str(key))
    for method in SCORED:
        ours, theirs = (curves(folder, method) for folder in (first, second))
        assert ours.keys() == theirs.keys()
        for point, (probability, removed) in theirs.items():
            assert ours[point][1] == removed
            assert ours[point][0] == pytest.approx(probability, abs=SINGLE), point


def curves(folder: Path, method: str) -> dict[tuple[Any, ...], tuple[float, int]]:
    found = table(folder, "curves", method).to_pylist()
    key = ("instance_id", "order", "operation", "fraction")
    points = {tuple(row[k] for k in key): (row["probability"], row["removed"]) for row in found}
    assert len(points) == len(found)
    return points


# One run


def test_a_run_leaves_its_tables_and_nothing_else(reference: tuple[Path, Summary]) -> None:
    out, summary = reference
    assert (summary.output, summary.rows) == (str(out), COUNT)
    assert (summary.shards, summary.worked, summary.failures) == (SHARDS, SHARDS, 0)
    staged = {f"corpus/rows-{shard:05d}.parquet" for shard in range(SHARDS)}
    tables = unit_files(
        units_of_run(
            {choice.name: choice.tables(layers=False, evaluate=True) for choice in CHOSEN}
        ),
        SHARDS,
    )
    # What `iba` needs to know of the corpus.
    staged |= {statistics_path(1000)}
    assert files(out) == {"run.json"} | staged | tables


def test_every_row_is_there_once_and_in_order(reference: tuple[Path, Summary]) -> None:
    out, _ = reference
    given = rows(COUNT)
    found = table(out, "instances").to_pylist()
    assert [row["instance_id"] for row in found] == [row["id"] for row in given]
    assert [row["text"] for row in found] == [row["text"] for row in given]
    assert [row["correct"] for row in found] == [
        row["prediction"] == wanted["label"] for row, wanted in zip(found, given, strict=True)
    ]
    for method in SCORED:
        ids = table(out, "attributions", method)["instance_id"].to_pylist()
        assert ids == [row["id"] for row in given]


def test_the_manifest_says_how_the_numbers_came_about(reference: tuple[Path, Summary]) -> None:
    manifest = json.loads((reference[0] / "run.json").read_text())
    assert manifest["methods"]["integrated_gradients"]["params"]["steps"] == 5
    assert manifest["identity"]["corpus"]["rows"] == COUNT
    assert manifest["identity"]["settings"]["num_shards"] == SHARDS
    assert manifest["evaluation"]["fractions"] == [0.5]
    assert manifest["executions"][0]["versions"].keys() >= {"attribeam", "torch", "apache-beam"}
    assert manifest["executions"][0]["device_name"] == "cpu"
    assert manifest["executions"][0]["left_out"].keys() == LEFT_OUT
    # Nothing in it tells where the folders lay.
    assert "/" not in json.dumps(manifest["identity"])


def test_the_manifest_names_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"the GPU at {device}")
    assert identity._device_name("cuda:1") == "the GPU at cuda:1"


def test_readers_take_the_tables_as_folders(reference: tuple[Path, Summary]) -> None:
    out, _ = reference
    for name in ("instances", "attributions", "curves"):
        total = sum(len(pq.ParquetFile(path).read()) for path in (out / name).rglob("*.parquet"))
        assert len(pq.read_table(out / name)) == total > 0


@pytest.mark.parametrize(("shard_size", "budget"), [(3, 1), (100, 40)])
def test_the_cut_makes_no_difference(
    shard_size: int,
    budget: int,
    model: Path,
    corpus: Path,
    reference: tuple[Path, Summary],
    tmp_path: Path,
) -> None:
    run(options(model, corpus, tmp_path, shard_size=shard_size, token_budget=budget))
    same(tmp_path, reference[0])


def test_the_order_of_the_corpus_makes_no_difference(
    model: Path, reference: tuple[Path, Summary], tmp_path: Path
) -> None:
    corpus = write_jsonl(tmp_path / "reversed.jsonl", rows(COUNT)[::-1])
    run(options(model, corpus, tmp_path / "out"))
    same(tmp_path / "out", reference[0])


def test_the_same_command_gives_the_same_bytes(
    model: Path, corpus: Path, reference: tuple[Path, Summary], tmp_path: Path
) -> None:
    run(options(model, corpus, tmp_path))
    assert content(tmp_path) == content(reference[0])


def test_the_seed_is_of_the_random_method_alone(
    model: Path, corpus: Path, reference: tuple[Path, Summary], tmp_path: Path
) -> None:
    run(options(model, corpus, tmp_path, seed=1, methods="random,saliency", evaluation=None))
    found, expected = scores(tmp_path, ["random", "saliency"]), scores(reference[0], SCORED)
    for (method, name), values in found.items():
        alike = np.allclose(values, expected[method, name], rtol=SINGLE, atol=SINGLE)
        assert alike == (method == "saliency")


# Continued


@pytest.fixture
def copy_of_reference(model: Path, corpus: Path, tmp_path: Path) -> Path:
    """A finished run of two methods, to be disturbed."""
    run(options(model, corpus, tmp_path / "out", methods="saliency,random"))
    return tmp_path / "out"


TWO = {"methods": "saliency,random"}


def test_the_second_time_there_is_nothing_to_do(
    model: Path, corpus: Path, copy_of_reference: Path
) -> None:
    before = stamps(copy_of_reference)
    summary = run(options(model, corpus, copy_of_reference, **TWO))
    assert (summary.rows, summary.worked) == (COUNT, 0)
    assert stamps(copy_of_reference) == before


def test_a_deleted_file_is_all_that_is_done_again(
    model: Path, corpus: Path, copy_of_reference: Path
) -> None:
    before, contents = stamps(copy_of_reference), content(copy_of_reference)
    lost = {
        "attributions/method=saliency/shard-00001-of-00003.parquet",
        "curves/method=random/shard-00000-of-00003.parquet",
        "instances/shard-00002-of-00003.parquet",
    }
    for path in lost:
        (copy_of_reference / path).unlink()
    summary = run(options(model, corpus, copy_of_reference, **TWO))
    assert summary.worked == SHARDS
    after = stamps(copy_of_reference)
    assert {path for path in after if before[path] != after[path]} == lost | {"run.json"}
    assert files(copy_of_reference) == set(before)
    for path, expected in contents.items():
        found = content(copy_of_reference)[path]
        if path not in lost:
            assert found == expected
        assert found["instance_id"] == expected["instance_id"]


def test_methods_and_curves_are_added(
    model: Path, corpus: Path, reference: tuple[Path, Summary], tmp_path: Path
) -> None:
    run(options(model, corpus, tmp_path, methods="random", evaluation=None))
    before = stamps(tmp_path)
    assert not any(path.startswith("curves") for path in before)
    run(options(model, corpus, tmp_path))
    same(tmp_path, reference[0])
    after = stamps(tmp_path)
    assert all(after[path] == stamp for path, stamp in before.items() if path != "run.json")
    manifest = json.loads((tmp_path / "run.json").read_text())
    assert set(manifest["methods"]) == set(METHODS)
    assert all(
        ("curves" in method["tables"]) == (name != "attattr")
        for name, method in manifest["methods"].items()
    )
    assert [call["methods"] for call in manifest["executions"]] == [["random"], list(METHODS)]


def test_the_staged_corpus_may_be_tidied_away(
    model: Path, corpus: Path, copy_of_reference: Path
) -> None:
    for path in (copy_of_reference / "corpus").iterdir():
        path.unlink()
    run(options(model, corpus, copy_of_reference, methods="saliency,random,raw_attention"))
    assert len(table(copy_of_reference, "attributions", "raw_attention")) == COUNT


def test_what_a_run_killed_before_it_began_has_left_is_no_hindrance(
    model: Path, corpus: Path, tmp_path: Path
) -> None:
    for name in (
        "corpus/rows-00007.parquet",
        "corpus/rows-00001.parquet.0a.tmp",
        "run.json.0a.tmp",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"half")
    run(options(model, corpus, tmp_path, methods="random", evaluation=None))
    units = units_of_run({"random": ("attributions",)})
    staged = {f"corpus/rows-{shard:05d}.parquet" for shard in range(SHARDS)}
    assert files(tmp_path) == unit_files(units, SHARDS) | staged | {"run.json"}


def test_a_corpus_that_has_moved_is_the_same(
    model: Path, corpus: Path, copy_of_reference: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved.jsonl"
    moved.write_bytes(corpus.read_bytes())
    assert run(options(model, moved, copy_of_reference, **TWO)).worked == 0


def test_a_corpus_that_has_changed_is_another(
    model: Path, copy_of_reference: Path, tmp_path: Path
) -> None:
    changed = write_jsonl(tmp_path / "corpus.jsonl", [*rows(COUNT - 1), {"id": "x", "text": "a"}])
    before = stamps(copy_of_reference)
    with pytest.raises(UsageError, match=r"other settings: corpus\.fingerprint was "):
        run(options(model, changed, copy_of_reference, **TWO))
    assert stamps(copy_of_reference) == before


def test_a_folder_may_be_named_from_where_one_stands(
    model: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run(options(model, corpus, Path("it's [an] output"), methods="random", evaluation=None))
    assert len(table(tmp_path / "it's [an] output", "instances")) == COUNT


# Other corpora and models


def test_failures_are_counted_and_the_rest_goes_on(model: Path, tmp_path: Path) -> None:
    mixed: list[Any] = [*rows(4), {"id": "e", "text": ""}, "damaged", {"id": "l", "text": "a"}]
    corpus = write_jsonl(tmp_path / "corpus.jsonl", mixed)
    summary = run(options(model, corpus, tmp_path / "out", methods="saliency", shard_size=4))
    assert (summary.rows, summary.shards, summary.failures) == (7, 2, 2)
    failures = table(tmp_path / "out", "failures").to_pylist()
    assert [(row["stage"], row["method"]) for row in failures] == [("encode", None), ("read", None)]
    assert failures[0]["instance_id"] == "e"
    assert failures[1]["message"].startswith("line 6 is not JSON")
    assert len(table(tmp_path / "out", "attributions", "saliency")) == 5
    again = run(options(model, corpus, tmp_path / "out", methods="saliency", shard_size=4))
    assert (again.worked, again.failures) == (0, 2)


def test_a_masked_lm_is_explained_by_a_contrast(tiny_folder: FolderOf, tmp_path: Path) -> None:
    lines: Rows = [*contrasts(6), {"id": "no", "text": "the film", "good": "good", "bad": "dull"}]
    corpus = write_jsonl(tmp_path / "corpus.jsonl", lines)
    model = tiny_folder("bert", "masked_lm")
    summary = run(options(model, corpus, tmp_path / "out"))
    assert (summary.rows, summary.failures) == (7, 1)
    instances = table(tmp_path / "out", "instances").to_pylist()
    assert [row["contrast"] for row in instances] == [["good", "dull"]] * 6
    for row in instances:
        assert row["tokens"][row["readout"]] == "[MASK]"
        assert (row["label"], row["correct"]) == (0, row["logits"][0] > row["logits"][1])
    for method in SCORED:
        facts = methods()[method]
        found = table(tmp_path / "out", "attributions", method)
        assert set(found["target"].to_pylist()) == ({0} if facts.class_dependent else {None})
        assert len(found) == 6
    settings = json.loads((tmp_path / "out" / "run.json").read_text())["identity"]["settings"]
    assert (settings["target"], settings["output"]) == ("gold", "contrast")


def test_ids_need_no_tokenizer(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "model", "bert", tokenizer=False)
    ids = [[2, 5, 6, 7, 3], [2, 8, 9, 3]]
    corpus = tmp_path / "corpus.parquet"
    pq.write_table(pa.table({"input_ids": ids, "label": [0, 1]}), corpus)
    run(options(model, corpus, tmp_path / "out", methods="saliency", mask_token_id=4))
    instances = table(tmp_path / "out", "instances")
    assert instances["input_ids"].to_pylist() == ids
    assert set(table(tmp_path / "out", "curves", "saliency")["operation"].to_pylist()) == {"mask"}


@pytest.mark.parametrize("target", ["gold", "1"])
def test_another_class_can_be_explained(
    target: str, model: Path, corpus: Path, tmp_path: Path
) -> None:
    run(options(model, corpus, tmp_path, methods="grad_x_input", target=target))
    found = table(tmp_path, "attributions", "grad_x_input")["target"].to_pylist()
    labels = [row["label"] for row in rows(COUNT)]
    assert found == (labels if target == "gold" else [1] * COUNT)


# The graph


def test_the_graph_gives_a_record_a_file(model: Path, corpus: Path, tmp_path: Path) -> None:
    own = options(model, corpus, tmp_path, methods="saliency")
    settings = prepare(own, connect(own)).work.settings
    units = units_of_run({"saliency": ("attributions", "curves")})
    tasks = [Task(0, SHARDS, tuple(units)), Task(2, SHARDS, (Unit("instances"),))]
    points = 2 * 3  # orders, fractions
    with beam_testing.TestPipeline(runner="FnApiRunner") as pipeline:
        records = pipeline | Create(tasks) | Attribute(settings)
        assert_that(
            records,
            equal_to(
                [
                    FileRecord("instances", 0, SHARD, 0),
                    FileRecord("attributions.saliency", 0, SHARD, 0),
                    FileRecord("curves.saliency", 0, SHARD * points, 0),
                    FileRecord("instances", 2, COUNT - 2 * SHARD, 0),
                ]
            ),
        )
    assert unit_files(units, SHARDS) & files(tmp_path) == {
        "instances/shard-00000-of-00003.parquet",
        "attributions/method=saliency/shard-00000-of-00003.parquet",
        "curves/method=saliency/shard-00000-of-00003.parquet",
        "instances/shard-00002-of-00003.parquet",
    }


def test_nothing_is_staged_before_all_is_checked(
    model: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no(*_: object, **__: object) -> int:
        raise AssertionError("the corpus was staged")

    monkeypatch.setattr("attribeam.pipeline.running.prepare.stage", no)
    for wrong in ({"methods": "nope"}, {"target": "9"}, {"max_length": 2}, {"max_length": 99}):
        with pytest.raises(UsageError):
            run(options(model, corpus, tmp_path / "out", **wrong))


# Progress


def test_progress_is_what_is_committed_or_what_this_process_says(
    model: Path, corpus: Path, tmp_path: Path
) -> None:
    done, out = tmp_path / "done", tmp_path / "out"
    run(options(model, corpus, done, methods="random", evaluation=None))
    units = tuple(units_of_run(dict.fromkeys(("random", "saliency"), ("attributions",))))
    passes = {"instances": 1.0, "attributions.random": 0.5, "attributions.saliency": 3.0}
    watch = progress._Watch(
        str(out),
        [Task(n, SHARDS, units) for n in (0, 2)],
        [5, 5, 2],
        lambda unit: passes[str(unit)],
    )
    shutil.copytree(done, out)
    # Two of three units of both shards are there, which are a third of the work.
    assert watch.look() == watch.look() == pytest.approx(1.5 / 4.5)
    progress.advance(7 * 2.0)
    assert watch.look() == pytest.approx(2 / 4.5)
    progress.advance(100)
    assert watch.look() == 1
    assert watch.instances == 7


def test_without_a_terminal_progress_is_a_line_now_and_then(
    model: Path,
    corpus: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for pause in ("_LOG_EVERY", "_REFRESH"):
        monkeypatch.setattr(progress, pause, 0.02)
    run(options(model, corpus, tmp_path))
    lines = capsys.readouterr().err.splitlines()
    line = re.compile(
        r"attributing: \d+% of 12 instances, [\d.]+ instances/s, 0 failures, \d+ s, "
        r"(\d+ s left|no estimate yet)"
    )
    assert lines and all(line.fullmatch(found) for found in lines), lines


def test_on_a_terminal_progress_is_a_bar(
    model: Path,
    corpus: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    run(options(model, corpus, tmp_path, methods="random", evaluation=None))
    shown = Text.from_ansi(capsys.readouterr().err).plain.replace("\r", "\n").splitlines()
    assert any(
        re.search(r"100% of 12 instances 0 failures 0:\d\d:\d\d left 0:00:00", line)
        for line in shown
    ), shown
    assert max(map(len, shown)) <= 80
