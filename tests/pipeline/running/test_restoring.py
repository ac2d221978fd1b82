"""A published data set becomes the run again that it was made of, and methods are added to it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from attribeam.analysis import verify
from attribeam.pipeline.running import restoring
from attribeam.pipeline.running.loadable import is_described
from tests.support.tiny import Outcome, command, files, rows, table, write_jsonl

TABLES = ("instances", "attributions", "curves", "failures")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of seven rows in shards of three, one of which fails."""
    folder = tmp_path_factory.mktemp("place")
    write_jsonl(folder / "corpus.jsonl", [*rows(6), {"id": "empty", "text": "", "label": 0}])
    return folder


Add = Callable[..., Outcome]


@pytest.fixture(scope="module")
def add(place: Path, tiny_folder: Callable[..., Path]) -> Add:
    """Adds methods to a folder, as its ``reproduce.yaml`` says or as the first call did."""
    own = ("--model", tiny_folder("bert"), "--corpus", place / "corpus.jsonl")

    def into(output: Path, methods: str, *more: object) -> Outcome:
        return command("run", *own, "--output", output, "--methods", methods, *more)

    return into


@pytest.fixture(scope="module")
def run(place: Path, add: Add) -> Path:
    """A run, which is published beside it."""
    more = ("--shard-size", "3", "--fractions", "0.5", "--orders", "morf", "--seed", "3")
    assert add(place / "run", "raw_attention,lime", *more, "--set", "lime.samples=4").status == 1
    done = command("publish", place / "run", "user/name", "--dry-run", place / "published")
    assert done.status == 0, done.err
    return place / "run"


@pytest.fixture
def published(run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run.parent / "published", tmp_path / "published")


def test_the_configuration_makes_the_same_run(run: Path, published: Path, add: Add) -> None:
    """It is refused where one setting differs."""
    outcome = add(run, "raw_attention,lime", "--config", published / "reproduce.yaml")
    assert outcome.out.startswith("nothing left to do"), outcome.err


def test_methods_are_added_to_a_published_data_set(
    run: Path, published: Path, add: Add, tmp_path: Path
) -> None:
    outcome = add(published, "saliency", "--config", published / "reproduce.yaml")
    assert outcome.status == 1, outcome.err
    assert "was a published data set, and is a run again" in outcome.err
    assert verify(published).problems == []
    assert not {"data", "reproduce.yaml"} & {p.name for p in published.iterdir()}
    assert is_described(str(published))  # And no longer the card of what was published.
    for name in TABLES:
        before = {str(row) for row in table(run, name).to_pylist()}
        now = [row for row in table(published, name).to_pylist() if row.get("method") != "saliency"]
        assert {str(row) for row in now} == before
    for path in files(run) - {"run.json"}:
        if not path.startswith("corpus/"):
            ours, theirs = (pq.ParquetFile(folder / path) for folder in (published, run))
            assert ours.schema_arrow.equals(theirs.schema_arrow), path
            # Names may have come from a larger dictionary.
            assert ours.read().to_pylist() == theirs.read().to_pylist(), path
    assert "layout" not in json.loads((published / "run.json").read_text())
    # And published again, the methods that were there are what they were.
    done = command("publish", published, "user/name", "--dry-run", tmp_path / "again")
    assert done.status == 0, done.err
    there = run.parent / "published"
    kept = [path for path in files(there) if path.startswith(("data/attributions", "data/curves"))]
    assert kept
    assert all((there / p).read_bytes() == (tmp_path / "again" / p).read_bytes() for p in kept)
    assert (tmp_path / "again" / "data" / "attributions" / "saliency").is_dir()


def test_other_settings_leave_it_as_it_is(published: Path, add: Add) -> None:
    before = {path: (published / path).read_bytes() for path in files(published)}
    config = ("--config", published / "reproduce.yaml")
    outcome = add(published, "saliency", *config, "--seed", "4")
    assert outcome.status == 2 and "settings.seed was 3, now 4" in outcome.err
    assert {path: (published / path).read_bytes() for path in files(published)} == before


def test_what_is_not_whole_is_refused(published: Path, add: Add) -> None:
    path = "data/curves/lime/train-00000-of-00001.parquet"
    (published / path).unlink()
    outcome = add(published, "saliency")
    assert outcome.status == 2 and f"{path} is missing or another one" in outcome.err


@pytest.mark.parametrize("name", ["write_manifest", "clear"])
def test_a_process_that_is_killed_leaves_one_or_the_other(
    name: str, published: Path, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(restoring, name, die)
        add(published, "raw_attention", "--config", published / "reproduce.yaml")
    assert verify(published).problems == []
    assert ("left" in json.loads((published / "run.json").read_text())) == (name == "clear")
    outcome = add(published, "raw_attention", "--config", published / "reproduce.yaml")
    assert outcome.out.startswith("nothing left to do"), outcome.err
    assert not (published / "data").exists()
    assert verify(published).problems == []
