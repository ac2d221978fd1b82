"""What an error means for the rest of a batch, and how to go on after it."""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

T = TypeVar("T")
_LOG = logging.getLogger(__name__)


# What torch's allocator of host memory says, which raises no class of its own: on Linux; elsewhere.
_NO_MEMORY = ("can't allocate memory", "not enough memory: you tried to allocate")


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error means that memory ran out, on the device or on the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY)


# Classes of errors that say nothing of the instance they met: memory, devices, networks, disks.
_PASSING = {
    *("OutOfMemoryError", "MemoryError", "AcceleratorError"),
    *("OSError", "ConnectionError", "ConnectionResetError", "ConnectionAbortedError"),
    *("ConnectionRefusedError", "BrokenPipeError", "TimeoutError", "gaierror", "SSLError"),
    *("ReadTimeout", "ConnectTimeout", "ConnectTimeoutError", "ReadTimeoutError", "ReadError"),
    *("ConnectError", "RemoteProtocolError", "ProtocolError", "IncompleteRead", "MaxRetryError"),
    *("ChunkedEncodingError", "HTTPError", "HfHubHTTPError", "LocalEntryNotFoundError"),
}
_DEVICE = ("out of memory", "cuda error", "cudnn error", "cublas_status")


def is_passing(error: str, message: str) -> bool:
    """Whether a failure, by its class and message, may not be met again at another time.

    Memory that wasn't enough, a device or a network that was away: what they failed on is as good
    as any other.
    """
    if error in _PASSING:
        return True
    said = message.lower()
    return error == "RuntimeError" and any(text in said for text in (*_NO_MEMORY, *_DEVICE))


def is_device_lost(error: Exception) -> bool:
    """Whether an accelerator can't go on after an error, as after a failed assertion in a kernel.

    Everything that runs on it later would fail too, so such an error is no instance's fault.
    """
    lost = getattr(torch, "AcceleratorError", ())
    return isinstance(error, lost) and not is_out_of_memory(error)


def fitting(work: Callable[[int], T], at_once: int) -> tuple[T, int]:
    """Does work on so many copies of a batch at once; where memory runs out, on half as many.

    Fewer instances would not help there: the token budget would be filled with more copies.

    Args:
        work: Takes a number of copies.
        at_once: The number to begin with.

    Returns:
        What the work gave, and the number of copies that there was memory for.

    Raises:
        Exception: What the work raises, if it is something else, or a single copy is too much.
    """
    while True:
        try:
            return work(at_once), at_once
        except Exception as error:
            if at_once == 1 or not is_out_of_memory(error):
                raise
        # Outside the handler: the traceback would keep the failed attempt's tensors alive.
        _empty_cache()
        at_once //= 2


def _empty_cache() -> None:
    """Hands back what the allocator keeps: in pieces of other sizes it may be of no use."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


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
        _LOG.debug("a batch failed", exc_info=True)
        failed = error.with_traceback(None)
    # Outside the handler: the traceback would keep the failed attempt's tensors alive.
    if is_out_of_memory(failed):
        _empty_cache()
    if len(indices) == 1:
        return [(indices, failed)]
    middle = len(indices) // 2
    return [*halving(work, indices[:middle]), *halving(work, indices[middle:])]
