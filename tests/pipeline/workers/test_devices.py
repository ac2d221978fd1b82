"""Which device a worker takes, and how batches get there."""

from pathlib import Path

import numpy as np
import pytest
import torch

from attribeam.pipeline.workers import devices
from attribeam.pipeline.workers.devices import (
    NoGpuError,
    check_precision,
    device_of_worker,
    take_device,
    worker_number,
)
from attribeam.schemas import UsageError
from attribeam.transforms.inputs.batch import is_pinned_for, put


def test_workers_take_the_gpus_in_turn() -> None:
    assert [device_of_worker("cuda", worker, 2) for worker in range(4)] == [
        *("cuda:0", "cuda:1"),
        *("cuda:0", "cuda:1"),
    ]


@pytest.mark.parametrize(
    ("device", "worker", "count"),
    [("cuda:1", 0, 4), ("cpu", 3, 4), ("cuda", None, 4), ("cuda", 3, 1), ("cuda", 3, 0)],
)
def test_a_device_that_is_named_or_alone_is_everybodys(
    device: str, worker: int | None, count: int
) -> None:
    assert device_of_worker(device, worker, count) == device


@pytest.mark.parametrize(
    ("name", "number"),
    [("worker_0", 0), ("worker_13", 13), ("sdk-0-3", 3), ("harness", None), (None, None)],
)
def test_a_worker_is_known_by_its_number(name: str | None, number: int | None) -> None:
    assert worker_number(name) == number


def test_a_worker_makes_its_gpu_the_one_that_torch_starts_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen: list[str] = []
    monkeypatch.setenv("WORKER_ID", "worker_5")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert take_device("cuda") == "cuda:1"
    assert take_device("cuda:3") == "cuda:3"
    assert take_device("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    # torch refuses a device without a number here, and there is no other to choose.
    assert take_device("cuda") == "cuda"
    assert chosen == ["cuda:1", "cuda:3"]


def test_a_gpu_that_was_asked_for_is_no_matter_of_luck(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices, "_DRIVER", tmp_path / "version")
    for device in ("cuda", "cuda:1"):
        with pytest.raises(NoGpuError, match=r"a GPU was asked for.*it has no NVIDIA driver"):
            take_device(device)
    (tmp_path / "version").write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.230.02  Wed Dec  4 2024\n"
    )
    with pytest.raises(NoGpuError, match=r"its NVIDIA driver is 535\.230\.02"):
        take_device("cuda")
    assert take_device("auto") == "cpu"


def test_a_gpu_without_bfloat16_is_refused_for_mixed_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "an old GPU")
    for known in (True, False):
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda *, including_emulation, k=known: k
        )
        check_precision("float32", "cuda")
        check_precision("mixed", "cpu")
        if known:
            check_precision("mixed", "cuda")
            continue
        with pytest.raises(UsageError, match="an old GPU doesn't have; use --dtype float32"):
            check_precision("mixed", "cuda")


def test_arrays_go_to_gpus_through_pinned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_pinned_for(torch.device("cuda:1")) and not is_pinned_for(torch.device("cpu"))
    pinned: list[torch.Tensor] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor)
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    array = np.arange(6).reshape(2, 3)
    assert put(array, torch.device("cpu")).tolist() == array.tolist() and not pinned
    monkeypatch.setattr("attribeam.transforms.inputs.batch.is_pinned_for", lambda device: True)
    assert put(array, torch.device("cpu")).tolist() == array.tolist() and len(pinned) == 1
