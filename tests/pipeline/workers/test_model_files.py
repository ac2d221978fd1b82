"""The model's way to workers on other machines."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from attribeam.analysis import verify
from attribeam.analysis.publish.publish import publish
from attribeam.pipeline import run
from attribeam.pipeline.options import Options
from attribeam.pipeline.running import shard
from attribeam.pipeline.running.handler import AttributionHandler
from attribeam.pipeline.running.imputing import load_imputer
from attribeam.pipeline.running.missing import Task
from attribeam.pipeline.running.prepare import check, prepare
from attribeam.pipeline.running.shard import Attributor, Shard
from attribeam.pipeline.settings import Settings
from attribeam.pipeline.store.files import DamagedError
from attribeam.pipeline.workers import model_files
from attribeam.pipeline.workers.devices import take_device
from attribeam.pipeline.workers.engines import connect
from attribeam.pipeline.workers.model_files import copy_of, local_model, send_model
from attribeam.transforms.evaluate import Evaluation
from tests.support.tiny import files, rows, write_jsonl

JUNK = ("README.md", "training_args.bin", "optimizer.pt", "modeling.py", "pytorch_model.bin")
FolderOf = Callable[..., Path]


@pytest.fixture
def folder(tiny_folder: FolderOf, tmp_path: Path) -> Path:
    """A model's folder, with what else lies in such folders."""
    copied = shutil.copytree(tiny_folder("bert"), tmp_path / "model")
    for name in JUNK:
        (copied / name).write_text("junk")
    (copied / "empty.json").touch()
    return copied


@pytest.fixture
def options(folder: Path, tmp_path: Path) -> Options:
    corpus = write_jsonl(tmp_path / "corpus.jsonl", rows(4))
    return Options(
        *(str(folder), str(corpus), str(tmp_path / "out")),
        methods="random",
        evaluation=None,
        runner="PortableRunner",
        beam=[
            *("--job_endpoint=localhost:1", "--environment_type=EXTERNAL"),
            "--environment_config=localhost:2",
        ],
    )


@pytest.fixture
def settings(options: Options) -> Settings:
    return check(options, connect(options)).settings(options, rows=4)


def names(settings: Settings) -> tuple[str, ...]:
    assert settings.model_copy is not None
    return settings.model_copy.names


# What is copied


def test_what_the_model_needs_is_copied_and_nothing_else(folder: Path) -> None:
    assert set(copy_of(folder).names) == {
        *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    }


def test_code_and_pickles_go_along_only_when_they_are_trusted(folder: Path) -> None:
    plain = set(copy_of(folder).names)
    assert set(copy_of(folder, trust_remote_code=True).names) - plain == {"modeling.py"}
    # Where there are safetensors, they are what is loaded.
    assert set(copy_of(folder, allow_pickle=True).names) == plain
    (folder / "model.safetensors").unlink()
    assert set(copy_of(folder).names) == plain - {"model.safetensors"}
    pickled = set(copy_of(folder, allow_pickle=True).names)
    assert pickled == plain - {"model.safetensors"} | {"pytorch_model.bin"}


def test_the_digest_is_of_all_content_and_names(folder: Path) -> None:
    first = copy_of(folder)
    (folder / "README.md").write_text("other junk")
    assert copy_of(folder) == first
    (folder / "tokenizer_config.json").write_text("{}")
    assert copy_of(folder).digest != first.digest
    second = copy_of(folder)
    (folder / "tokenizer.json").rename(folder / "tokeniser.json")
    assert copy_of(folder).digest not in (first.digest, second.digest)


def test_a_copy_is_made_once_and_goes_on_where_it_was(settings: Settings, tmp_path: Path) -> None:
    send_model(settings)
    root = tmp_path / "out" / "model"
    assert {Path(path).name for path in files(root)} == set(names(settings))
    (copied,) = root.iterdir()
    (copied / "config.json").unlink()
    before = {path.name: path.stat().st_mtime_ns for path in copied.iterdir()}
    send_model(settings)
    after = {path.name: path.stat().st_mtime_ns for path in copied.iterdir()}
    assert after.keys() - before.keys() == {"config.json"}
    assert before.items() <= after.items()


def test_a_run_on_this_machine_copies_nothing(options: Options, tmp_path: Path) -> None:
    here = replace(options, runner="FnApiRunner", beam=())
    settings = check(here, connect(here)).settings(here, rows=4)
    assert settings.model_copy is None
    send_model(settings)
    assert not (tmp_path / "out").exists()
    with local_model(settings) as found:
        assert found == Path(here.model)


def test_a_large_copy_is_announced(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(model_files, "_WORTH_SAYING", 0)
    for expected in (True, False):  # The second time there is nothing to copy.
        send_model(settings)
        assert ("copying the model to" in capsys.readouterr().err) == expected


# What a worker loads


def test_a_worker_that_has_the_same_files_uses_them(settings: Settings, folder: Path) -> None:
    with local_model(settings) as found:  # Nothing was sent.
        assert found == folder


def test_a_worker_elsewhere_fetches_them_and_cleans_up(settings: Settings, folder: Path) -> None:
    send_model(settings)
    (folder / "tokenizer_config.json").write_text("{}")  # Another model by now.
    with local_model(settings) as found:
        assert found != folder
        assert {path.name for path in found.iterdir()} == set(names(settings))
    assert not found.exists()
    assert AttributionHandler(settings).load_model().model.num_outputs == 3


def test_a_damaged_copy_is_not_loaded(settings: Settings, folder: Path, tmp_path: Path) -> None:
    send_model(settings)
    shutil.rmtree(folder)
    (copied,) = (tmp_path / "out" / "model").iterdir()
    weights = bytearray((copied / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copied / "model.safetensors").write_bytes(weights)
    with pytest.raises(DamagedError, match=r"is damaged; delete it"), local_model(settings):
        pass


def test_a_worker_finds_its_own_device(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ("auto", "cuda"):
        # The launching machine has no GPU, and needs none, not even for statistics.
        options = replace(options, device=device, methods="iba")
        prepared = prepare(options, connect(options))
        assert prepared.work.settings.device == device
        shutil.rmtree(tmp_path / "out")
    (execution,) = prepared.manifest["executions"]
    assert (execution["device"], execution["device_name"]) == ("cuda", None)
    assert take_device("auto") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setenv("WORKER_ID", "sdk-0-3")
    assert take_device("auto") == "cuda:1"


def test_a_process_computes_one_shard_at_a_time(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work: list[int] = []
    most = []

    def results(work: Any) -> Iterator[Any]:
        at_work.append(1)
        most.append(len(at_work))
        time.sleep(0.02)
        at_work.pop()
        yield from ()

    monkeypatch.setattr(shard.ShardWork, "results", results)
    attributor = Attributor(settings, model=None)  # type: ignore[arg-type]
    threads = [
        threading.Thread(target=attributor.process, args=(Shard(Task(n, 4, ()), ()),))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 4


# The run's folder


def test_the_copy_is_part_of_the_folder_but_not_of_the_data(
    options: Options, settings: Settings, tmp_path: Path
) -> None:
    send_model(settings)  # And then the launcher was killed.
    out = tmp_path / "out"
    run(replace(options, runner="FnApiRunner", beam=()))
    assert len(list((out / "model").iterdir())) == 1
    assert not verify(out).problems
    publish(out, "user/name", dry_run=str(tmp_path / "published"))
    assert not any("safetensors" in path for path in files(tmp_path / "published"))


def test_what_fills_removed_tokens_goes_along(
    options: Options, tiny_folder: FolderOf, tmp_path: Path
) -> None:
    """Workers elsewhere have no other way to the masked LM either."""
    place = shutil.copytree(tiny_folder("bert", "masked_lm"), tmp_path / "imputer")
    evaluation = Evaluation(operations=("impute",))
    asked = replace(options, evaluation=evaluation, imputer=str(place))
    settings = check(asked, connect(asked)).settings(asked, rows=4)
    send_model(settings.of_imputer)
    shutil.rmtree(place)
    loaded = load_imputer(replace(settings, device="cpu"))
    assert loaded is not None
    assert (loaded.task, loaded.dtype) == ("masked_lm", torch.float64)
    assert load_imputer(replace(settings, evaluation=None)) is None
