"""What a run on a device returns: arrays where they lie, without ONNX Runtime's API."""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from inference_models_onnx.dtypes import numpy_name

if TYPE_CHECKING:
    from onnxruntime import OrtValue

    from inference_models_onnx.stream import Stream


class DeviceArray:
    """An output where it was computed; it speaks DLPack, and is the caller's."""

    def __init__(self, value: OrtValue, stream: Stream | None = None) -> None:
        self.value = value
        self.shape = tuple(value.shape())
        self.dtype = numpy_name(value.data_type())
        self._stream = stream

    def __repr__(self) -> str:
        return f"DeviceArray({self.dtype}, {self.shape}, {self.value.device_name()!r})"

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        """Share the memory; it is ready on every stream, as runs wait for their end."""
        if self._stream is not None:
            self._stream.lend(stream)
        return self.value._get_c_value().__dlpack__(stream=stream)

    def __dlpack_device__(self) -> tuple[int, int]:
        """Kind and number of the device, as DLPack numbers them."""
        kind, number = self.value._get_c_value().__dlpack_device__()
        return kind, number

    def cpu(self) -> np.ndarray:
        """A copy in host memory, of a dtype that NumPy has."""
        return np.asarray(self.value.numpy())

    def float(self) -> np.ndarray:
        """A copy in host memory as float32; unlike `cpu`, of bfloat16 as well."""
        if self.dtype != "bfloat16":
            return self.cpu().astype(np.float32)
        bits = self._raw(np.dtype(np.uint16)).astype(np.uint32) << 16
        return bits.view(np.float32)

    def _raw(self, dtype: np.dtype) -> np.ndarray:
        pointer, size = self.value.data_ptr(), math.prod(self.shape) * dtype.itemsize
        raw = np.empty(self.shape, dtype)
        if self._stream is not None:
            self._stream.copy(raw.ctypes.data, pointer, size)
            self._stream.wait()
        elif size:
            ctypes.memmove(raw.ctypes.data, pointer, size)
        return raw
