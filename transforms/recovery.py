"""What an error means for the rest of a batch, and how to go on after it."""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

T = TypeVar("T")
_LOG = logging.getLogger(__name__)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error means that memory ran out, on the device or on the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def is_device_lost(error: Exception) -> bool:
    """Whether an accelerator can't go on after an error, as after a failed assertion in a kernel.

    Everything that runs on it later would fail too, so such an error is no instance's fault.
    """
    lost = getattr(torch, "AcceleratorError", ())
    return isinstance(error, lost) and not is_out_of_memory(error)


def halving(
    work: Callable[[Sequence[int]], T], indices: Sequence[int]
) -> list[tuple[Sequence[int], T | Exception]]:
    """Does work on a batch; where it raises, on its halves, down to single instances.

    Args:
        work: Takes indices of instances.
        indices: The batch. ``work`` is first given this very object.

    Returns:
        Parts of the batch in order, each with the result; a part with an exception is a single
        instance.

    Raises:
        Exception: If the device is lost: that is no instance's fault, and a restart mends it.
    """
    try:
        return [(indices, work(indices))]
    except Exception as error:
        if is_device_lost(error):
            raise
        if is_out_of_memory(error) and torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(indices) == 1:
            _LOG.debug("an instance failed", exc_info=True)
            return [(indices, error.with_traceback(None))]
    # Outside the handler: the traceback would keep the failed attempt's tensors alive.
    middle = len(indices) // 2
    return [*halving(work, indices[:middle]), *halving(work, indices[middle:])]
