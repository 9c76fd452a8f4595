"""What surrounds a network on an NVIDIA GPU: torch's part of it, where torch is."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np

from inference_models import (
    Array,
    Frame,
    Image,
    Operations,
    Preprocessing,
    Unavailable,
)
from inference_models_onnx.device_array import DeviceArray, on_host

log = logging.getLogger("inference_models")


class CudaOperations(Operations):
    """The host's operations, which take what a session on a GPU returns."""

    def join(self, arrays: Sequence[Array]) -> Array:
        """Arrays of one output as one batch, in host memory."""
        if len(arrays) == 1:
            return arrays[0]
        return np.concatenate([on_host(array) for array in arrays])

    def host(self, array: Array) -> np.ndarray:
        """An array of the device as numpy; half precisions arrive as float32."""
        return super().host(on_host(array))


class CudaOperationsInTorch(Operations):
    """Torch's operations on the same GPU, which take what a session there returns."""

    def __init__(self, torch: Operations) -> None:
        self._torch = torch

    def prepare(
        self, images: Sequence[Image], spec: Preprocessing
    ) -> tuple[Array, list[Frame]]:
        """Images -> one batch on the device, and a frame for each."""
        return self._torch.prepare(images, spec)

    def join(self, arrays: Sequence[Array]) -> Array:
        """Arrays of one output as one batch, where they are."""
        if len(arrays) == 1:
            return arrays[0]
        return self._torch.join([_as_tensor(array) for array in arrays])

    def host(self, array: Array) -> np.ndarray:
        """An array of the device as numpy; half precisions arrive as float32."""
        return self._torch.host(on_host(array))


def operations_on(device: str) -> Operations:
    """Torch's operations if its plugin is here and reaches the GPU, else the host's."""
    torch = _of_torch(device)
    return CudaOperations() if torch is None else CudaOperationsInTorch(torch)


def _of_torch(device: str) -> Operations | None:
    if find_spec("inference_models_torch") is None:
        return None
    from inference_models_torch.backend import TorchBackend

    backend = TorchBackend()
    try:
        if device not in backend.devices():
            return None
        backend.ready(device)
    except Unavailable as reason:
        log.warning("images are prepared on the CPU for %s: %s", device, reason)
        return None
    return backend.operations(device)


def _as_tensor(array: Array) -> Array:
    if not isinstance(array, DeviceArray):
        return array
    import torch

    tensor = torch.from_dlpack(array)
    # ONNX Runtime before 1.32 gives booleans to DLPack as bytes.
    return tensor.to(torch.bool) if array.dtype == "bool" else tensor
