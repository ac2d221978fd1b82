"""A network, and torch, as they have to be while something is explained; after it as they were.

A network may come from anyone: in training mode, with another attention function (which would not
be looked into, and takes masks of another kind), or be used by others between two calls. So nothing
of it is changed for good, and nothing of the process.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from attribeam.schemas import UsageError
from attribeam.transforms.network.capture import IMPLEMENTATION

# What puts something back.
Back = Callable[[], None]


class Held:
    """A change that is made for the first who needs it, and undone after the last.

    Several threads may need it at once.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._users = 0
        self._back: Back = lambda: None

    @contextmanager
    def changed(self, change: Callable[[], Back]) -> Iterator[None]:
        """For its duration the change is there.

        Args:
            change: Makes it, and returns what undoes it.
        """
        with self._lock:
            if not self._users:
                self._back = change()
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._back()


_NETWORKS: WeakKeyDictionary[nn.Module, Held] = WeakKeyDictionary()
_PRECISION = Held()
_KERNELS = Held()
# Networks that keep their own attention function.
_OF_THEIR_OWN: WeakSet[nn.Module] = WeakSet()


def leave_attention(network: nn.Module) -> None:
    """Lets a network keep its own attention function whenever it is borrowed."""
    _OF_THEIR_OWN.add(network)


@contextmanager
def borrowed(network: PreTrainedModel) -> Iterator[None]:
    """For its duration a network can be explained.

    Its attention runs through our function (``leave_attention``), nothing is dropped out, and
    weights are frozen.
    Products of float32 matrices are of float32, whatever the process has allowed. Gradients can be
    taken, also where the caller is under ``torch.inference_mode``; ``autocast`` has no say.

    Raises:
        UsageError: If the weights were made under ``torch.inference_mode``.
    """
    # Towers of one network share its parts.
    held = _NETWORKS.setdefault(getattr(network, "whole", network), Held())
    device = network.device.type
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        if torch.is_autocast_enabled(device):
            stack.enter_context(torch.autocast(device, enabled=False))
        stack.enter_context(_PRECISION.changed(_whole_products))
        if device == "cuda":
            stack.enter_context(_KERNELS.changed(_without_plans))
        stack.enter_context(held.changed(partial(_made_ours, network)))
        yield


def _made_ours(network: PreTrainedModel) -> Back:
    """Gives a network our attention function, takes it out of training and freezes its weights."""
    if any(weight.is_inference() for weight in network.parameters()):
        raise UsageError(
            "the network's weights were made under torch.inference_mode, so that no gradient can "
            "pass them: load it outside of that"
        )
    modules = list(network.modules())
    training = [module for module in modules if module.training]
    learning = [weight for weight in network.parameters() if weight.requires_grad]
    configs = {id(c): c for c in (getattr(module, "config", None) for module in modules)}
    before = [
        (config, config._attn_implementation)
        for config in configs.values()
        if isinstance(config, PretrainedConfig) and network not in _OF_THEIR_OWN
    ]

    def back() -> None:
        for config, implementation in before:
            config._attn_implementation = implementation
        for module in training:
            module.training = True
        for weight in learning:
            weight.requires_grad = True

    for config, _ in before:
        config._attn_implementation = IMPLEMENTATION
    for module in training:
        module.training = False
    for weight in learning:
        weight.requires_grad = False
    return back


def _without_plans() -> Back:
    """Leaves out cuDNN's attention, which takes a tenth of a second to plan for each new shape.

    A corpus has a shape for nearly every batch.
    """
    if not torch.backends.cuda.cudnn_sdp_enabled():
        return lambda: None
    torch.backends.cuda.enable_cudnn_sdp(False)
    return partial(torch.backends.cuda.enable_cudnn_sdp, True)


def _whole_products() -> Back:
    """Lets products of float32 matrices be of float32."""
    try:
        allowed = torch.get_float32_matmul_precision()
    except RuntimeError:  # The process has set what torch knows by backend since 2.9.
        return _whole_products_by_backend()
    if allowed == "highest":
        return lambda: None
    torch.set_float32_matmul_precision("highest")
    return partial(torch.set_float32_matmul_precision, allowed)


def _whole_products_by_backend() -> Back:
    backends: list[Any] = [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]

    def back() -> None:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision

    for backend in backends:
        backend.fp32_precision = "ieee"
    return back
