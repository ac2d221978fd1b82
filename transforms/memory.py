"""How to tell what an error means for the rest: memory ran out, or the device is lost."""

import torch


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
