"""A run's own folder is a data set for ``datasets``, whatever is added to it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from attribeam.analysis import load_manifest, verify
from attribeam.pipeline.running.compacting import compact
from attribeam.pipeline.running.loadable import describe_again, describe_run
from attribeam.schemas import table_schema
from attribeam.schemas.layout import CARD, MANIFEST, evaluation_path
from tests.support.synthetic_run import synthetic_run, write_run
from tests.support.tiny import command, rows, write_jsonl


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return write_run(synthetic_run(rows=9, shard_size=4), tmp_path / "run")


def loaded(folder: Path, table: str | None, cache: Path) -> datasets.Dataset:
    return datasets.load_dataset(str(folder), table, split="train", cache_dir=str(cache))


def tables(folder: Path) -> list[str]:
    head = (folder / CARD).read_text().split("---\n")[1]
    return [config["config_name"] for config in yaml.safe_load(head)["configs"]]


@pytest.fixture(scope="module")
def ran(
    tiny_folder: Callable[[str, str], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[object]]:
    """A run of two shards, and the command that made it."""
    folder = tmp_path_factory.mktemp("loadable")
    corpus = write_jsonl(folder / "corpus.jsonl", rows(3))
    model = tiny_folder("bert", "classification")
    given = ["run", "--model", model, "--corpus", corpus, "--output", folder / "run"]
    given += ["--shard-size", 2, "--no-evaluate"]
    found = command(*given, "--methods", "random")
    assert found.status == 0, found.err
    return folder / "run", given


def test_a_run_is_loaded_from_its_folder_and_again_with_another_method(
    ran: tuple[Path, list[object]], tmp_path: Path
) -> None:
    out, given = ran
    assert tables(out) == ["attributions", "instances"]
    instances = loaded(out, "instances", tmp_path / "cache")
    assert [*instances["instance_id"]] == [
        each
        for file in sorted(out.glob("instances/*.parquet"))
        for each in pq.read_table(file)["instance_id"].to_pylist()
    ]
    assert {*loaded(out, None, tmp_path / "cache")["method"]} == {"random"}

    assert command(*given, "--methods", "attattr_colsum,saliency").status == 0
    scores = loaded(out, None, tmp_path / "other")
    assert {*scores["method"]} == {"random", "attattr_colsum", "saliency"}
    assert scores.num_rows == 9
    assert {*tables(out)} == {unit.name for unit in out.iterdir() if unit.is_dir()} - {
        *("corpus", "records")
    }
    assert not verify(out).problems


def test_what_is_left_of_a_run_is_no_foreign_folder(
    ran: tuple[Path, list[object]], tmp_path: Path
) -> None:
    out, given = ran
    left = tmp_path / "left"
    left.mkdir()
    shutil.copyfile(out / CARD, left / CARD)
    again = [left if each == out else each for each in given]
    found = command(*again, "--methods", "random")
    assert found.status == 0, found.err
    assert (left / MANIFEST).exists()

    (left / MANIFEST).unlink()
    shutil.rmtree(left / "instances")
    shutil.rmtree(left / "attributions")
    (left / "index.parquet").unlink()
    (left / CARD).write_text("# My notes\n")
    refused = command(*again, "--methods", "random")
    assert refused.status == 2
    assert CARD in refused.err


def test_compacting_loses_no_row_of_what_is_loaded(out: Path, tmp_path: Path) -> None:
    describe_run(str(out), load_manifest(out))
    before = loaded(out, "curves", tmp_path / "before").to_list()
    said = (out / CARD).read_text()
    compact(str(out))
    assert (out / CARD).read_text() == said
    assert loaded(out, "curves", tmp_path / "after").to_list() == before
    assert before


def test_an_evaluation_that_comes_later_is_loaded_too(out: Path, tmp_path: Path) -> None:
    path = out / evaluation_path("pruning", "paths-1f0c9b7a52de")
    path.parent.mkdir()
    describe_again(str(out))
    assert not (out / CARD).exists()  # Which is made once the run is done.

    describe_run(str(out), load_manifest(out))
    assert "pruning" not in tables(out)
    row = {
        **{"evaluation": "a", "method": "paths", "importance": "attattr", "corpus": "c"},
        **{"rate": 0.0, "pruned": 0, "heads": 6, "n": 5, "correct": 4, "accuracy": 0.8},
        "loss": 0.1,
    }
    pq.write_table(pa.Table.from_pylist([row], table_schema("pruning")), path)
    # A file without rows, as of shards where all failed, is no bar.
    pq.write_table(table_schema("pruning").empty_table(), path.with_name("a.parquet"))
    describe_again(str(out))
    assert "pruning" in tables(out)
    assert loaded(out, "pruning", tmp_path / "cache")["accuracy"][:] == [pytest.approx(0.8)]


def test_what_somebody_else_wrote_stays(out: Path) -> None:
    (out / CARD).write_text("# My notes\n")
    describe_run(str(out), load_manifest(out))
    assert (out / CARD).read_text() == "# My notes\n"


def test_failures_are_loaded_where_there_are_some(out: Path, tmp_path: Path) -> None:
    manifest = load_manifest(out)
    shutil.rmtree(out / "failures", ignore_errors=True)
    describe_run(str(out), manifest)
    assert "failures" not in tables(out)
    folder = out / "failures" / "instances"
    folder.mkdir(parents=True)
    row = {"instance_id": "x", "stage": "encode", "error": "RowError", "message": "no text"}
    names = set(table_schema("failures").names)
    failed = pa.Table.from_pylist(
        [{key: value for key, value in row.items() if key in names}], table_schema("failures")
    )
    pq.write_table(failed, folder / "shard-00000-of-00003.parquet")
    describe_run(str(out), manifest)
    assert loaded(out, "failures", tmp_path / "cache")["message"][:] == ["no text"]
