"""Runs that take and return arrays where they lie, by DLPack and bindings."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from onnxruntime import InferenceSession, OrtValue
from onnxruntime.capi import onnxruntime_pybind11_state as native

from inference_models import Array
from inference_models_onnx.arrays import dtype_name, host_array
from inference_models_onnx.dtypes import numpy_name
from inference_models_onnx.installed import find_installed

# DLPack's number of CUDA memory, and its word for CUDA's legacy default stream.
_CUDA = 2
_DEFAULT_STREAM = 1

# From here on ONNX Runtime reads from a capsule whether its bytes are booleans, and
# takes no second argument that says so.
_BOOL_IN_CAPSULE = (1, 32)


class DeviceArray:
    """An output where it was computed; it speaks DLPack, and is the caller's."""

    def __init__(self, value: OrtValue) -> None:
        self.value = value
        self.shape = tuple(value.shape())
        self.dtype = numpy_name(value.data_type())

    def __repr__(self) -> str:
        return f"DeviceArray({self.dtype}, {self.shape}, {self.value.device_name()!r})"

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        """Share the memory; it is ready on every stream, as runs wait for their end."""
        return self.value._get_c_value().__dlpack__(stream=stream)

    def __dlpack_device__(self) -> tuple[int, int]:
        """Kind and number of the device, as DLPack numbers them."""
        kind, number = self.value._get_c_value().__dlpack_device__()
        return kind, number

    def cpu(self) -> np.ndarray:
        """A copy in host memory."""
        return np.asarray(self.value.numpy())


def run_on_device(
    session: InferenceSession,
    inputs: Mapping[str, Array],
    outputs: Iterable[str],
    device: tuple[str, int],
) -> dict[str, Array]:
    """Run once; inputs on the device are read there, and outputs stay there."""
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_ortvalue_input(name, _to_value(array))
    for name in outputs:
        binding.bind_output(name, *device)
    # Work of other streams on the inputs must be done: the session has its own stream.
    binding.synchronize_inputs()
    session.run_with_iobinding(binding)
    return dict(zip(outputs, map(DeviceArray, binding.get_outputs()), strict=True))


def _to_value(array: Array) -> OrtValue:
    if isinstance(array, DeviceArray):
        return array.value
    if isinstance(array, np.ndarray):
        return OrtValue.ortvalue_from_numpy(host_array(array))
    if getattr(array, "requires_grad", False):
        array = array.detach()
    if hasattr(array, "contiguous"):
        array = array.contiguous()
    on_device = array.__dlpack_device__()[0] == _CUDA
    is_bool = dtype_name(array) == "bool"
    if is_bool and not on_device:  # DLPack's booleans are known from 1.32 on
        return OrtValue.ortvalue_from_numpy(host_array(array))
    capsule = array.__dlpack__(stream=_DEFAULT_STREAM if on_device else None)
    return _from_capsule(capsule, is_bool)


def _from_capsule(capsule: Any, is_bool: bool) -> OrtValue:
    said = (is_bool,) if _must_say_bool() else ()
    return OrtValue(native.OrtValue.from_dlpack(capsule, *said))


@functools.cache
def _must_say_bool() -> bool:
    version = find_installed().version
    return version is not None and version < _BOOL_IN_CAPSULE
