"""Runs whose inputs and outputs stay on their device, by DLPack and I/O binding."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from onnxruntime import InferenceSession, OrtValue
from onnxruntime.capi import onnxruntime_pybind11_state as native

from inference_models import Array
from inference_models.inputs import dtype_name, host_array
from inference_models_onnx.device_array import DeviceArray
from inference_models_onnx.dtypes import itemsize, numpy_name
from inference_models_onnx.installed import find_installed
from inference_models_onnx.stream import stream_on

# DLPack's number of CUDA memory.
_CUDA = 2

# From here on ONNX Runtime reads from a capsule whether its bytes are booleans, and
# takes no second argument that says so.
_BOOL_IN_CAPSULE = (1, 32)


class Device:
    """Where a session's arrays lie, and the order of the work on them.

    ONNX Runtime computes on a stream of its own, which waits for no other, and a run
    ends by waiting for it (unless disable_synchronize_execution_providers is set), so
    outputs are ready. Its synchronize_inputs waits for the whole GPU. Here the makers
    of inputs are waited for alone: DLPack puts their work before our stream, and the
    host waits for that.
    """

    def __init__(self, kind: str, number: int) -> None:
        self._place = (kind, number)
        self._stream = stream_on(number) if kind == "cuda" else None

    def current(self) -> AbstractContextManager[None]:
        """This device is the thread's own in here, and the one before it after that.

        ONNX Runtime leaves a thread with the GPU that it ran on, and torch gives its
        tensors to others on the thread's GPU alone.
        """
        return nullcontext() if self._stream is None else self._stream.current()

    def run(
        self,
        session: InferenceSession,
        inputs: Mapping[str, Array],
        outputs: Iterable[str],
        options: Any = None,
    ) -> dict[str, DeviceArray]:
        """Run once; inputs on the device are read there, and outputs stay there."""
        values = self.take(inputs)
        binding = session.io_binding()
        try:
            for name, value in values.items():
                binding.bind_ortvalue_input(name, self._upload(value))
        finally:
            self.wait()
        for name in outputs:
            binding.bind_output(name, *self._place)
        session.run_with_iobinding(binding, options)
        results = map(self.hand_out, binding.get_outputs())
        return dict(zip(outputs, results, strict=True))

    def take(self, inputs: Mapping[str, Array]) -> dict[str, OrtValue]:
        """The inputs as ONNX Runtime's values, in the memory that they are in.

        Our stream then waits for those who make them; `wait` has the host wait, too.
        """
        if self._stream is not None:
            self._stream.follow_readers()
        return {name: self._value(array) for name, array in inputs.items()}

    def wait(self) -> None:
        """Have the host wait until inputs that were taken are made, and copies done."""
        if self._stream is not None:
            self._stream.wait()

    def empty(self, like: OrtValue) -> OrtValue:
        """Memory of the device for a tensor of the same shape and type."""
        shape, kind = like.shape(), like.element_type()
        return OrtValue.ortvalue_from_shape_and_type(shape, kind, *self._place)

    def copy(self, to: OrtValue, source: OrtValue) -> None:
        """Begin to copy one tensor to another of the same shape and type."""
        assert self._stream is not None  # noqa: S101 - only graphs on a GPU are captured
        size = math.prod(source.shape()) * itemsize(numpy_name(source.data_type()))
        self._stream.copy(to.data_ptr(), source.data_ptr(), size)

    def hand_out(self, value: OrtValue) -> DeviceArray:
        """An output as the array that the caller gets."""
        return DeviceArray(value, self._stream)

    def _upload(self, value: OrtValue) -> OrtValue:
        texts = numpy_name(value.data_type()) == "object"
        if self._stream is None or texts or value.device_name() != "cpu":
            return value
        copied = self.empty(value)
        self.copy(copied, value)
        return copied

    def _value(self, array: Array) -> OrtValue:
        if isinstance(array, DeviceArray):
            return array.value
        if isinstance(array, np.ndarray):
            return OrtValue.ortvalue_from_numpy(host_array(array))
        if getattr(array, "requires_grad", False):
            array = array.detach()
        if hasattr(array, "contiguous"):
            array = array.contiguous()
        kind, number = array.__dlpack_device__()
        on_device = kind == _CUDA
        is_ours = self._stream is not None and number == self._place[1]
        if on_device and not is_ours and hasattr(array, "cpu"):
            return self._value(array.cpu())
        is_bool = dtype_name(array) == "bool"
        if is_bool and (not on_device or _lacks_bool()):
            return OrtValue.ortvalue_from_numpy(host_array(array))
        stream = self._stream.handle if self._stream and on_device else None
        return _from_capsule(array.__dlpack__(stream=stream))


def _from_capsule(capsule: Any) -> OrtValue:
    said = (False,) if _lacks_bool() else ()
    return OrtValue(native.OrtValue.from_dlpack(capsule, *said))


@functools.cache
def _lacks_bool() -> bool:
    version = find_installed().version
    return version is not None and version < _BOOL_IN_CAPSULE
