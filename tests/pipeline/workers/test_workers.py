"""Several processes: the same numbers, a model and a GPU each, nothing lost or counted twice."""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from attribeam.pipeline import Options, run
from attribeam.pipeline.running import progress
from attribeam.pipeline.running.handler import AttributionHandler
from attribeam.pipeline.running.shard import Attributor
from attribeam.pipeline.settings import Settings
from attribeam.schemas import CONTENT_FIELDS
from attribeam.transforms.evaluate import Evaluation
from tests.support.tiny import assert_alike, rows, table, write_jsonl

# Of each kind one, and all that draw random numbers.
METHODS = "random,raw_attention,integrated_gradients,lime,kernel_shap,occlusion,iba,alti,lrp"
EVALUATION = Evaluation(fractions=(0.5,), orders=("morf", "random"))
POINTS = 2 * 3  # orders, fractions
COUNT = 24
FEW = {
    "integrated_gradients": {"steps": 5},
    "lime": {"samples": 30},
    "kernel_shap": {"samples": 30},
    "iba": {"steps": 3},
}


class TwoGpus(AttributionHandler):
    """The handler on a machine that it takes for one with two GPUs.

    It leaves a file for each model that is loaded, since that is in other processes.
    """

    def __init__(self, settings: Settings, loads: Path) -> None:
        super().__init__(settings)
        self._loads = loads

    def load_model(self) -> Attributor:
        load, settings = Attributor.load, self._settings

        def noted(given: Settings, advance: Any) -> Attributor:
            # A second one by the same process is an error.
            (self._loads / f"{os.getpid()} {given.device}").open("x").close()
            return load(replace(given, device="cpu"), advance)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.cuda, "is_available", lambda: True)
            patch.setattr(torch.cuda, "device_count", lambda: 2)
            patch.setattr(torch.cuda, "set_device", lambda device: None)
            patch.setattr(Attributor, "load", noted)
            patch.setattr(self, "_settings", replace(settings, device="cuda"))
            return super().load_model()


def options(model: Path, corpus: Path, out: Path, **changes: Any) -> Options:
    return Options(
        model=str(model),
        corpus=str(corpus),
        output=str(out),
        methods=METHODS,
        params=FEW,
        evaluation=EVALUATION,
        device="cpu",
        **changes,
    )


@pytest.fixture(scope="module")
def model(tiny_folder: Callable[..., Path]) -> Path:
    return tiny_folder("bert")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines: list[Any] = rows(COUNT)
    lines[5:5] = ["damaged", {"id": "empty", "text": ""}]
    return write_jsonl(tmp_path_factory.mktemp("corpus") / "corpus.jsonl", lines)


@pytest.fixture(scope="module")
def alone(model: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run by one process, in one shard."""
    out = tmp_path_factory.mktemp("alone") / "out"
    assert run(options(model, corpus, out)).shards == 1
    return out


MANY = pytest.mark.skipif((os.cpu_count() or 1) < 4, reason="four processes take four processors")


@pytest.mark.parametrize(("workers", "shard_size"), [(2, 3), pytest.param(4, 7, marks=MANY)])
def test_several_processes_make_no_difference(
    workers: int,
    shard_size: int,
    model: Path,
    corpus: Path,
    alone: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loads = tmp_path / "loads"
    loads.mkdir()
    monkeypatch.setattr(
        "attribeam.pipeline.running.graph.AttributionHandler", partial(TwoGpus, loads=loads)
    )
    monkeypatch.setenv("FORCE_COLOR", "1")
    here = progress._within
    out = tmp_path / "o u[t]"
    summary = run(options(model, corpus, out, workers=workers, shard_size=shard_size))
    shards = -(-(COUNT + 2) // shard_size)
    assert (summary.rows, summary.worked, summary.failures) == (COUNT + 2, shards, 2)
    assert progress._within == here  # The work was done elsewhere.
    shown = capsys.readouterr().err
    assert "100%" in shown and f" of {COUNT + 2} instances" in shown and "2 failures" in shown
    # Each process has loaded one model, and they have taken the GPUs in turn.
    processes = [path.name.split() for path in loads.iterdir()]
    assert len({process for process, _ in processes} - {str(os.getpid())}) == workers
    taken = Counter(device for _, device in processes)
    assert taken == {"cuda:0": workers // 2, "cuda:1": workers // 2}
    for name in ("instances", "failures"):
        assert_alike(table(out, name), table(alone, name))
    for method in METHODS.split(","):
        for name in ("attributions", "curves"):
            expected = rows_of(alone, name, method)
            assert len(expected) == COUNT * (1 if name == "attributions" else POINTS)
            assert_alike(rows_of(out, name, method), expected)


def rows_of(folder: Path, name: str, method: str) -> pa.Table:
    """A method's rows, but for what they cost, in an order that all cuts into shards share."""
    found = table(folder, name, method).select(CONTENT_FIELDS[name])
    names = ("instance_id", *(("order", "fraction") if name == "curves" else ()))
    keys = zip(*(found[key].to_pylist() for key in names), strict=True)
    return found.take([number for _, number in sorted(zip(keys, range(len(found)), strict=True))])
