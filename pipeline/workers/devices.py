"""Which device a worker process computes on."""

import os
import platform
import re
from pathlib import Path

import torch

from attribeam.schemas import UsageError

_DRIVER = Path("/proc/driver/nvidia/version")


def worker_number(environment: str | None) -> int | None:
    """Number of a worker process, from what Beam calls it (``WORKER_ID``, such as ``worker_3``).

    None where it has no name or no number, as in the process that the run was started in.
    """
    found = re.search(r"(\d+)$", environment or "")
    return int(found[1]) if found else None


def device_of_worker(device: str, worker: int | None, count: int) -> str:
    """The device of a worker process.

    ``cuda`` stands for all GPUs: the processes take one each, in turn, and share them where they
    are more than the GPUs. ``cuda:N`` and ``cpu`` are the same for all of them.

    Args:
        device: What the run was told.
        worker: Number of the process; None if it has none.
        count: Number of GPUs that the process sees.
    """
    if device != "cuda" or worker is None or count < 2:
        return device
    return f"cuda:{worker % count}"


def take_device(device: str) -> str:
    """The device of this process; if it is a GPU, it is made the one that torch starts from.

    Raises:
        NoGpuError: If a GPU is asked for, and torch finds none.
    """
    if device == "auto":
        # Of a worker on another machine than the run was started on.
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda"):
        _demand_gpu()
    worker = worker_number(os.environ.get("WORKER_ID"))
    own = device_of_worker(device, worker, torch.cuda.device_count())
    if own.startswith("cuda:"):
        # Else pinned memory, for one, would open a context on the first GPU in every process.
        torch.cuda.set_device(own)
    return own


class NoGpuError(OSError):
    """A worker was to have a GPU, and has none that torch can use."""


def _demand_gpu() -> None:
    """A GPU that was asked for costs the same whether it is used or not, so nobody does without."""
    if torch.cuda.is_available():
        return
    driver = _driver()
    has = f"its NVIDIA driver is {driver}" if driver else "it has no NVIDIA driver"
    built = torch.version.cuda
    wheel = f"built for CUDA {built}" if built else "built without CUDA"
    raise NoGpuError(
        f"a GPU was asked for, and torch {torch.__version__} ({wheel}) finds none on "
        f"{platform.node()}: {has}. Use an image with wheels for that driver "
        "(docs/dataflow.md), or --device cpu on machines without GPUs"
    )


def _driver() -> str | None:
    """The version of the machine's NVIDIA driver, as its kernel module says it."""
    try:
        found = re.search(r"Module\s+(?:for \S+\s+)?([\d.]+)", _DRIVER.read_text())
    except OSError:
        return None
    return found[1] if found else "unknown"


def processors() -> int:
    """Number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def computes_bfloat16(device: str) -> bool:
    """Whether a device of this machine multiplies in bfloat16, and doesn't only emulate it.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``; of ``auto``, another machine's, nothing is known.
    """
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device != "cpu":
        return False
    return any(flag in _processor_flags() for flag in ("avx512_bf16", "amx_bf16", "bf16"))


def _processor_flags() -> list[str]:
    """What Linux says that the processor can do, ``bf16`` of an ARM; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return next((x.split() for x in lines if x.startswith(("flags", "Features"))), [])


def check_precision(dtype: str, device: str) -> None:
    """Checks that a device computes in the precision that is asked for.

    Raises:
        UsageError: If it would only emulate it, slower than float32 and no more exact.
    """
    if dtype != "mixed" or not device.startswith("cuda"):
        return
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UsageError(
            f"--dtype mixed computes in bfloat16, which {torch.cuda.get_device_name(device)} "
            "doesn't have; use --dtype float32"
        )
